"""Alarms, dashboard and budgets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import assertions
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs

from distilled_router.bedrock.naming import OWNER_TAG
from distilled_router.env import METRICS_NAMESPACE
from stacks.operations import OperationsStack, budget_name
from stacks.settings import Settings, load
from tests.stacks.assembly import Assembly


def watched(alarm: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the metrics that an alarm reads, each with its statistic."""
    if "Metrics" not in alarm:
        return [alarm]
    read = [one["MetricStat"] for one in alarm["Metrics"] if "MetricStat" in one]
    return [{**one["Metric"], "Statistic": one["Stat"], "Period": one["Period"]} for one in read]


def test_alarms_read_metrics_of_the_service(assembly: Assembly) -> None:
    found = [alarm.properties for alarm in assembly.resources("AWS::CloudWatch::Alarm")]
    alarms = [alarm for alarm in found if alarm.get("Namespace") != "AWS/SQS"]
    names = {alarm["AlarmName"].removeprefix(f"{assembly.settings.owner}-") for alarm in alarms}
    assert names == {
        "RouterErrors",
        "RouteErrors",
        "Fallback",
        "StaticAnswers",
        "CallerFallback",
        "InvalidOutput",
        "Latency",
        "CostUsd",
        "Requests",
        "FailedReleases",
        "StalledJobs",
        "UnroutedThroughput",
        *(() if assembly.settings.head.is_off else ("HeadDifference",)),
    }
    for metric in (each for alarm in alarms for each in watched(alarm)):
        assert metric["Namespace"] == METRICS_NAMESPACE
        assert metric["Dimensions"] == [{"Name": "service", "Value": assembly.settings.owner}]
    assert not assembly.resources("AWS::CloudWatch::CompositeAlarm")


@pytest.mark.parametrize(
    ("event", "counted"),
    [
        ("RouterErrors", "Latency"),
        ("CallerFallback", "Latency"),
        ("StaticAnswers", "Latency"),
        ("InvalidOutput", "Fallback"),
    ],
)
def test_what_is_written_only_when_it_happens_is_a_share_of_the_queries(
    assembly: Assembly, event: str, counted: str
) -> None:
    """An average over the few that are written would be 1."""
    alarm = assembly.one("AWS::CloudWatch::Alarm", f"{event}Alarm").properties
    (share,) = [one for one in alarm["Metrics"] if one.get("ReturnData", True)]
    assert share["Expression"] == f"FILL(sum{event}, 0) / count{counted}"
    read = [(each["MetricName"], each["Statistic"], each["Period"]) for each in watched(alarm)]
    assert read == [(event, "Sum", 300), (counted, "SampleCount", 300)]


def test_alarm_on_undelivered_messages(assembly: Assembly) -> None:
    alarm = assembly.one("AWS::CloudWatch::Alarm", "UndeliveredAlarm").properties
    assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/SQS", "ApproximateNumberOfMessagesVisible")
    dimensions = [{"Name": "QueueName", "Value": "<ReleaseUndelivered.QueueName>"}]
    assert assembly.plain(alarm["Dimensions"]) == dimensions
    assert (alarm["Statistic"], alarm["Threshold"], alarm["EvaluationPeriods"]) == ("Maximum", 0, 1)
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"


def test_missing_data_is_never_a_breach(assembly: Assembly) -> None:
    alarms = assembly.resources("AWS::CloudWatch::Alarm")
    assert {alarm.properties["TreatMissingData"] for alarm in alarms} == {"notBreaching"}


def test_every_alarm_tells_the_topic_of_its_beginning_and_its_end(assembly: Assembly) -> None:
    for alarm in assembly.resources("AWS::CloudWatch::Alarm"):
        assert assembly.plain(alarm.properties["AlarmActions"]) == ["<Notifications>"]
        assert assembly.plain(alarm.properties["OKActions"]) == ["<Notifications>"]
        assert alarm.properties.get("ActionsEnabled", True) is True


def test_alarms_may_publish_to_the_topic(assembly: Assembly) -> None:
    """The topic's own policy replaces the default one, which allows the whole account to publish."""
    statements = assembly.statements(assembly.one("AWS::SNS::TopicPolicy").properties["PolicyDocument"])
    (allowed,) = [statement for statement in statements if statement.effect == "Allow"]
    settings = assembly.settings
    assert allowed.principal == {"Service": "cloudwatch.amazonaws.com"}
    assert allowed.actions == {"sns:Publish"}
    assert allowed.resources == {"<Notifications>"}
    alarms = f"arn:aws:cloudwatch:{settings.region}:{settings.account}:alarm:{settings.owner}-*"
    assert allowed.conditions == {"ArnLike": {"aws:SourceArn": alarms}}
    names = [alarm.properties["AlarmName"] for alarm in assembly.resources("AWS::CloudWatch::Alarm")]
    assert all(name.startswith(f"{settings.owner}-") for name in names)


@pytest.mark.parametrize(
    ("metric", "setting"),
    [
        ("RouterErrors", "error_rate"),
        ("RouteErrors", "error_rate"),
        ("Fallback", "fallback_rate"),
        ("CallerFallback", "fallback_rate"),
        ("StaticAnswers", "static_rate"),
        ("InvalidOutput", "invalid_output_rate"),
        ("Latency", "latency_p95_ms"),
    ],
)
def test_limits_are_the_settings(assembly: Assembly, metric: str, setting: str) -> None:
    alarm = assembly.one("AWS::CloudWatch::Alarm", f"{metric}Alarm").properties
    assert alarm["Threshold"] == getattr(assembly.settings.alarms, setting)
    assert alarm["EvaluationPeriods"] == assembly.settings.alarms.evaluation_periods
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"


@pytest.mark.parametrize(
    ("name", "metric", "statistic", "setting"),
    [
        ("CostUsd", "CostUsd", "Sum", "hourly_cost_usd"),
        ("Requests", "Latency", "SampleCount", "hourly_requests"),
    ],
)
def test_expensive_hour_raises_an_alarm(
    assembly: Assembly, name: str, metric: str, statistic: str, setting: str
) -> None:
    alarm = assembly.one("AWS::CloudWatch::Alarm", f"{name}Alarm").properties
    assert (alarm["MetricName"], alarm["Statistic"]) == (metric, statistic)
    assert (alarm["Period"], alarm["EvaluationPeriods"]) == (3600, 1)
    assert alarm["Threshold"] == getattr(assembly.settings.alarms, setting) > 0
    assert alarm["ComparisonOperator"] == "GreaterThanThreshold"


def operations(settings: Settings) -> OperationsStack:
    """Return a stack with these settings."""
    app = cdk.App()
    env = cdk.Environment(account=settings.account, region=settings.region)
    inputs = cdk.Stack(app, "inputs", env=env)
    topic, queue = sns.Topic(inputs, "Topic"), sqs.Queue(inputs, "Queue")
    group = logs.LogGroup(inputs, "Logs")
    return OperationsStack(
        app, "operations", settings=settings, topic=topic, undelivered=queue, router_logs=group, env=env
    )


@pytest.mark.parametrize(("mode", "number"), [("off", 0), ("last_resort", 1), ("first", 1)])
def test_alarm_and_graphs_of_the_head_unless_it_is_off(mode: str, number: int) -> None:
    prod = load("prod")
    head = prod.head.model_copy(update={"mode": mode, "maximum_difference": 0.07})
    template = assertions.Template.from_stack(operations(prod.model_copy(update={"head": head})))
    alarm = {
        "MetricName": "HeadDifference",
        "Statistic": "Average",
        "Period": 3600,
        "EvaluationPeriods": prod.alarms.evaluation_periods,
        "Threshold": 0.07,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
    }
    template.resource_properties_count_is("AWS::CloudWatch::Alarm", alarm, number)
    body = json.dumps(template.find_resources("AWS::CloudWatch::Dashboard"))
    assert [name in body for name in ("HeadAnswers", "HeadDifference")] == [bool(number)] * 2


def test_addresses_in_the_settings_are_subscribed(assembly: Assembly) -> None:
    subscribed = [
        assembly.plain(subscription.properties)
        for subscription in assembly.resources("AWS::SNS::Subscription")
    ]
    assert subscribed == [
        {
            "Protocol": "email",
            "TopicArn": "<Notifications>",
            "Endpoint": email,
            "RedrivePolicy": {"deadLetterTargetArn": "<ReleaseUndelivered.Arn>"},
        }
        for email in assembly.settings.alarms.emails
    ]


def test_budgets_only_where_they_are_set(assemblies: Mapping[str, Assembly]) -> None:
    budgets = {name: each.resources("AWS::Budgets::Budget") for name, each in assemblies.items()}
    limited = [name for name, each in assemblies.items() if each.settings.budget.monthly_usd]
    assert {"dev", "prod"} <= set(limited)
    assert [name for name, found in budgets.items() if found] == limited


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_budget_counts_by_the_owners_tag(assemblies: Mapping[str, Assembly], environment: str) -> None:
    """Nothing of other teams in the account."""
    assembly = assemblies[environment]
    settings = assembly.settings
    (found,) = (each.properties for each in assembly.resources("AWS::Budgets::Budget"))
    assert found["Budget"]["BudgetName"] == budget_name(settings.owner, settings.budget.emails)
    assert found["Budget"]["CostFilters"] == {"TagKeyValue": [f"user:{OWNER_TAG}${settings.owner}"]}
    assert found["Budget"]["BudgetLimit"] == {"Amount": settings.budget.monthly_usd, "Unit": "USD"}
    for told in found["NotificationsWithSubscribers"]:
        addresses = [subscriber["Address"] for subscriber in told["Subscribers"]]
        assert addresses == settings.budget.emails != []


def with_bedrock(settings: Settings) -> Settings:
    """Return settings with the optional budget of the account's Bedrock."""
    budget = settings.budget.model_copy(update={"bedrock_monthly_usd": 70.0})
    return settings.model_copy(update={"budget": budget})


def test_budget_of_the_accounts_bedrock_is_one_more() -> None:
    template = assertions.Template.from_stack(operations(with_bedrock(load("prod"))))
    template.resource_count_is("AWS::Budgets::Budget", 2)
    bedrock = {
        "BudgetLimit": {"Amount": 70.0, "Unit": "USD"},
        "CostFilters": {"Service": ["Amazon Bedrock"]},
    }
    template.has_resource_properties("AWS::Budgets::Budget", {"Budget": bedrock})


def test_other_addresses_make_a_budget_of_another_name() -> None:
    """CloudFormation creates it while the old one exists, and AWS refuses a second one of the same name."""
    found = {budget_name("a-dev", emails) for emails in (["a@b.c"], ["d@b.c"], ["a@b.c", "d@b.c"])}
    assert len(found) == 3
    assert all(name.startswith("a-dev-") for name in found)


@pytest.mark.parametrize(("section", "name"), [("router", "base_model"), ("evaluation", "judge")])
@pytest.mark.parametrize(
    ("model", "is_told"),
    [("us.anthropic.claude-haiku-4-5-20251001-v1:0", True), ("us.amazon.nova-micro-v1:0", False)],
)
def test_models_that_the_bedrock_budget_does_not_count_are_told(
    section: str, name: str, model: str, *, is_told: bool
) -> None:
    settings = with_bedrock(load("prod"))
    changed = getattr(settings, section).model_copy(update={name: model})
    stack = operations(settings.model_copy(update={section: changed}))
    told = assertions.Annotations.from_stack(stack).find_warning("*", assertions.Match.any_value())
    assert any(f"{section}.{name} {model}" in str(each.entry.data) for each in told) is is_told


def test_budget_counts_whatever_costs(assembly: Assembly) -> None:
    """The budget's tag is on each resource of the stacks, and on what the functions create in Bedrock."""
    costly = (
        "AWS::Lambda::Function",
        "AWS::Logs::LogGroup",
        "AWS::S3::Bucket",
        "AWS::KMS::Key",
        "AWS::DynamoDB::Table",
        "AWS::StepFunctions::StateMachine",
        "AWS::ApiGatewayV2::Api",
        "AWS::CloudWatch::Alarm",
    )
    owner = {"Key": OWNER_TAG, "Value": assembly.settings.owner}
    untagged = [
        resource.logical_id
        for kind in costly
        for resource in assembly.resources(kind)
        if owner not in _tags(resource.properties)
    ]
    assert untagged == []
    job = assembly.resources("Custom::BedrockDistillationJob")
    assert all(each.properties["Tags"][OWNER_TAG] == assembly.settings.owner for each in job)


def _tags(properties: Mapping[str, Any]) -> list[dict[str, str]]:
    given = properties.get("Tags", [])
    pairs = given.items() if isinstance(given, dict) else ((tag["Key"], tag["Value"]) for tag in given)
    return [{"Key": key, "Value": value} for key, value in pairs]
