"""Stack 5, operations: alarms, dashboard, subscriptions and budgets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256

import aws_cdk as cdk
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk_distilled_router.catalogue import is_anthropics
from distilled_router.bedrock.naming import OWNER_TAG
from distilled_router.env import METRICS_NAMESPACE
from stacks.monitoring import SHARES, UNDELIVERED, Alarm, Graph, alarms, graphs
from stacks.settings import Settings

PERIOD, HOUR = cdk.Duration.minutes(5), cdk.Duration.hours(1)


def budget_name(name: str, emails: Sequence[str]) -> str:
    """Return a budget's name, which is another one for other addresses.

    CloudFormation can't update `NotificationsWithSubscribers`, and creates a new budget before it deletes the
    old one (resource type schema of AWS::Budgets::Budget, createOnlyProperties).
    """
    return f"{name}-{sha256(json.dumps(list(emails)).encode()).hexdigest()[:6]}"


class OperationsStack(cdk.Stack):
    """Alarms on metrics that the functions emit and on the queue's length; missing data never breaches."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        topic: sns.ITopic,
        undelivered: sqs.IQueue,
        router_logs: logs.ILogGroup,
        env: cdk.Environment,
    ) -> None:
        """Declare alarms, dashboard, subscriptions and budgets. `router_logs` is the router's log group."""
        super().__init__(
            scope,
            construct_id,
            env=env,
            synthesizer=cdk.DefaultStackSynthesizer(qualifier=settings.bootstrap_qualifier),
            description="Distilled router: operations",
        )
        self._settings, self._topic = settings, topic
        for email in settings.alarms.emails:
            topic.add_subscription(subscriptions.EmailSubscription(email, dead_letter_queue=undelivered))
        self._alarms(undelivered)
        self._dashboard(router_logs)
        self._budgets()

    def metric(self, name: str, statistic: str, period: cdk.Duration = PERIOD) -> cloudwatch.IMetric:
        """Return a metric of this environment.

        Metrics that are 0 or 1 have rates as their averages. One that is written only when it is 1 is divided
        by the number of queries; without any there is no data.
        """
        if name in SHARES and statistic == "Average":
            # Expressions of one graph share their metrics by these ids, which begin with a small letter.
            events, queries = f"sum{name}", f"count{SHARES[name]}"
            return cloudwatch.MathExpression(
                expression=f"FILL({events}, 0) / {queries}",
                using_metrics={
                    events: self._plain(name, "Sum", period),
                    queries: self._plain(SHARES[name], "SampleCount", period),
                },
                label=name,
                period=period,
            )
        return self._plain(name, statistic, period)

    def _plain(self, name: str, statistic: str, period: cdk.Duration) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=METRICS_NAMESPACE,
            metric_name=name,
            dimensions_map={"service": self._settings.owner},
            statistic=statistic,
            period=period,
        )

    def _alarms(self, undelivered: sqs.IQueue) -> None:
        self._let_alarms_publish()
        for alarm in alarms(self._settings):
            period = HOUR if alarm.is_hourly else PERIOD
            self._alarm_on(self.metric(alarm.watched, alarm.statistic, period), alarm)
        messages = undelivered.metric_approximate_number_of_messages_visible(
            statistic=UNDELIVERED.statistic, period=PERIOD
        )
        self._alarm_on(messages, UNDELIVERED)

    def _let_alarms_publish(self) -> None:
        """Allow the alarms to publish to the topic.

        The topic's own policy, which enforces TLS, replaces the default one that allows this (CloudWatch user
        guide, alarms and SNS).
        """
        alarms = self.format_arn(
            service="cloudwatch",
            resource="alarm",
            resource_name=f"{self._settings.owner}-*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        self._topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsPublish",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[self._topic.topic_arn],
                conditions={"ArnLike": {"aws:SourceArn": alarms}},
            )
        )

    def _alarm_on(self, metric: cloudwatch.IMetric, alarm: Alarm) -> None:
        declared = cloudwatch.Alarm(
            self,
            f"{alarm.name}Alarm",
            metric=metric,
            alarm_name=f"{self._settings.owner}-{alarm.name}",
            alarm_description=f"{self._settings.owner}: {alarm.meaning}",
            threshold=alarm.threshold,
            evaluation_periods=alarm.periods,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        declared.add_alarm_action(actions.SnsAction(self._topic))
        declared.add_ok_action(actions.SnsAction(self._topic))

    def _dashboard(self, router_logs: logs.ILogGroup) -> None:
        dashboard = cloudwatch.Dashboard(self, "Dashboard", dashboard_name=self._settings.owner)
        for row in graphs(self._settings):
            dashboard.add_widgets(*(self._widget(graph, router_logs) for graph in row))
        cdk.CfnOutput(self, "DashboardName", value=self._settings.owner)

    def _widget(self, graph: Graph, router_logs: logs.ILogGroup) -> cloudwatch.IWidget:
        if graph.query:
            return cloudwatch.LogQueryWidget(
                title=graph.title,
                width=12,
                view=cloudwatch.LogQueryVisualizationType.LINE,
                log_group_names=[router_logs.log_group_name],
                query_string=graph.query,
            )
        shown = [self.metric(name, statistic) for name, statistic in graph.metrics]
        return cloudwatch.GraphWidget(title=graph.title, width=12, left=shown)

    def _budgets(self) -> None:
        """Declare a budget of all that has the owner's tag, and one of the account's Bedrock if it is set.

        The first counts nothing until the tag is activated for cost allocation in the account that pays (AWS
        Billing user guide), and then no requests to foundation models, which have no tags (AWS Machine
        Learning Blog, track and allocate generative AI cost, 2024-11). The second counts those, of every user
        of the account. Cost data lags by hours: budgets warn, but can't stop spending.
        """
        settings, budget = self._settings, self._settings.budget
        if budget.monthly_usd is None:
            return
        tagged = {"TagKeyValue": [f"user:{OWNER_TAG}${settings.owner}"]}
        self._budget("Budget", settings.owner, budget.monthly_usd, tagged)
        if budget.bedrock_monthly_usd is not None:
            service, name = {"Service": ["Amazon Bedrock"]}, f"{settings.owner}-bedrock"
            self._budget("BedrockBudget", name, budget.bedrock_monthly_usd, service)
            self._tell_what_it_misses()

    def _tell_what_it_misses(self) -> None:
        """Warn of models that are billed as a service of their own; from memory, not verified."""
        settings = self._settings
        # A teacher is never Anthropic's (`DistillationProps`).
        asked = {
            "router.base_model": settings.router.base_model,
            "evaluation.judge": settings.evaluation.judge,
        }
        for name, model in asked.items():
            if model and is_anthropics(model):
                cdk.Annotations.of(self).add_warning_v2(
                    f"distilled-router:not-in-the-bedrock-budget:{name}",
                    f"{name} {model} is Anthropic's. AWS Marketplace may bill it as a service of its own "
                    "(not verified, check your bill), and then budget.bedrock_monthly_usd doesn't count it. "
                    "The alarm CostUsd counts the router's requests only. docs/costs.md#alarms-and-budgets",
                )

    def _budget(self, construct_id: str, name: str, usd: float, filters: Mapping[str, list[str]]) -> None:
        emails = self._settings.budget.emails
        budgets.CfnBudget(
            self,
            construct_id,
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_name=budget_name(name, emails),
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=usd, unit="USD"),
                cost_filters=dict(filters),
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        comparison_operator="GREATER_THAN",
                        notification_type=kind,
                        threshold=100,
                        threshold_type="PERCENTAGE",
                    ),
                    subscribers=[
                        budgets.CfnBudget.SubscriberProperty(address=email, subscription_type="EMAIL")
                        for email in emails
                    ],
                )
                for kind in ("ACTUAL", "FORECASTED")
            ],
        )
