"""Stack 3, release: the releases table with the route, and the state machine of releases."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.common.tables import items_table
from cdk_distilled_router.props import ProvisionedProps
from cdk_distilled_router.provisioned_throughput import ProvisionedThroughput, ThroughputOptions
from cdk_distilled_router.release.construct import Release
from cdk_distilled_router.release.context import ReleaseProps, ReleaseSource, ReleaseStores
from cdk_distilled_router.release.stores import releases_topic
from cdk_distilled_router.release.wait import ReleaseWait
from distilled_router.cost.prices import HOURS_A_MONTH
from distilled_router.release.route import TIME_TO_LIVE
from stacks.settings import Settings

MONTHS = {"OneMonth": 1, "SixMonths": 6}


class ReleaseStack(cdk.Stack):
    """Attributes:
    table: the releases table; the router reads its route.
    topic: receives notifications of releases and alarms.
    undelivered: queue of events and notifications that could not be delivered.
    release: the release construct.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        hosting: Hosting,
        job: ReleaseSource,
        bucket: s3.IBucket,
        key: kms.IKey,
        holdout_key: str,
        env: cdk.Environment,
    ) -> None:
        """Declare table, topic, throughput if the settings have it, and the release of the job's model."""
        super().__init__(
            scope,
            construct_id,
            env=env,
            synthesizer=cdk.DefaultStackSynthesizer(qualifier=settings.bootstrap_qualifier),
            description=_description(settings),
        )
        self._settings, self._hosting = settings, hosting
        self.table = items_table(self, "Releases", key, time_to_live=TIME_TO_LIVE)
        self.topic = releases_topic(self, "Notifications", key)
        self.release = Release(
            self,
            "Release",
            owner=settings.owner,
            job=job,
            bucket=bucket,
            holdout_key=holdout_key,
            props=ReleaseProps(
                gate=settings.gate,
                evaluation=settings.evaluation,
                head=settings.head,
                rollout=settings.rollout,
                timing=settings.release,
                retention=settings.retention,
                base_model=settings.router.base_model,
                throughput=self._throughput(key),
                tags=settings.tags,
                environment=settings.environment,
            ),
            stores=ReleaseStores(table=self.table, topic=self.topic, key=key),
            hosting=hosting,
        )
        self.undelivered = self.release.undelivered
        if hours := settings.release.wait_hours:
            ReleaseWait(self, "Wait", release=self.release, hours=hours, hosting=hosting)
        cdk.CfnOutput(self, "TableName", value=self.table.table_name)
        cdk.CfnOutput(self, "TopicArn", value=self.topic.topic_arn)
        cdk.CfnOutput(self, "StateMachineArn", value=self.release.machine.state_machine_arn)

    def _throughput(self, key: kms.IKey) -> ProvisionedThroughput | None:
        settings, bought = self._settings, self._settings.endpoint.provisioned
        if bought is None:
            return None
        cdk.CfnOutput(self, "ThroughputCost", value=cost(bought))
        return ProvisionedThroughput(
            self,
            "Throughput",
            owner=settings.owner,
            props=bought,
            table=self.table,
            options=ThroughputOptions(
                student=settings.distillation.student,
                model_key=key if settings.encryption.model_key else None,
                retention=settings.retention,
                poll_seconds=settings.release.poll_seconds,
                tags=settings.tags,
            ),
            hosting=self._hosting,
        )


def _description(settings: Settings) -> str:
    """Return the stack's description, with the hourly cost of provisioned throughput."""
    text, bought = "Distilled router: releases", settings.endpoint.provisioned
    if bought is None:
        return text
    return (
        f"{text}, served from provisioned throughput: {bought.model_units} model units at "
        f"{bought.hourly_price_usd:g} USD an hour each, commitment {bought.commitment}"
    )


def cost(bought: ProvisionedProps) -> str:
    """Return the cost of throughput in words."""
    hourly = bought.model_units * bought.hourly_price_usd
    text = (
        f"{bought.model_units} model units at {bought.hourly_price_usd:g} USD an hour each cost "
        f"{hourly:,.2f} USD an hour, {hourly * HOURS_A_MONTH:,.2f} USD a month of {HOURS_A_MONTH} hours, "
        "from the purchase until they are deleted."
    )
    if bought.term is None:
        return text
    hours = MONTHS[bought.term] * HOURS_A_MONTH
    return (
        f"{text} Their commitment of {bought.term} costs at least {hours * hourly:,.2f} USD ({hours:,} "
        "hours), even if the stack is deleted, and renews itself."
    )
