"""Stack 3, serving: the releases table with the route, and what takes a release to production."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from constructs import Construct

from stacks.bedrock.provisioned_throughput import ProvisionedThroughput
from stacks.bedrock.release import Release
from stacks.bedrock.release_wait import ReleaseWait
from stacks.identity import Identity
from stacks.settings import Settings


class ServingStack(cdk.Stack):
    """Attributes:
    table: the releases table; the router reads its route.
    topic: told of releases, and of alarms.
    release: the release construct.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        identity: Identity,
        bucket: s3.IBucket,
        key: kms.IKey,
        holdout_key: str,
        env: cdk.Environment,
    ) -> None:
        """Declare table, topic, throughput where the settings have it, and the release."""
        super().__init__(scope, construct_id, env=env, description=_description(settings))
        self._settings, self._identity = settings, identity
        self.table = self._table(key)
        self.topic = sns.Topic(self, "Notifications", master_key=key, enforce_ssl=True)
        throughput = self._throughput(key)
        distillation, retention, rollout = settings.distillation, settings.retention, settings.rollout
        self.release = Release(
            self,
            "Release",
            owner=settings.full_name,
            digest=identity.digest,
            student=distillation.student,
            table=self.table,
            topic=self.topic,
            bucket=bucket,
            key=key,
            holdout_key=holdout_key,
            gate=settings.gate.model_dump(),
            rollout={
                "steps": rollout.steps,
                "dwell_seconds": rollout.dwell_seconds,
                "minimum_requests": rollout.minimum_requests,
                "maximum_rates": {
                    "RouterErrors": rollout.maximum_error_rate,
                    "Fallback": rollout.maximum_fallback_rate,
                    "InvalidOutput": rollout.maximum_invalid_output_rate,
                },
            },
            keep_releases=rollout.keep_releases,
            throughput=throughput,
            model_key=settings.encryption.model_key,
            poll_seconds=settings.release.poll_seconds,
            timeout_hours=settings.release.timeout_hours,
            stall_hours=settings.release.stall_hours,
            retain_models=retention.models == "retain",
            retain_reports=retention.data == "retain",
            tags=settings.tags,
            log_days=retention.log_days,
        )
        if settings.release.wait_hours:
            ReleaseWait(
                self,
                "Wait",
                owner=settings.full_name,
                digest=identity.digest,
                hours=settings.release.wait_hours,
                release=self.release,
                table=self.table,
                key=key,
                log_days=retention.log_days,
            )
        cdk.CfnOutput(self, "TableName", value=self.table.table_name)
        cdk.CfnOutput(self, "StateMachineArn", value=self.release.machine.state_machine_arn)

    def _table(self, key: kms.IKey) -> dynamodb.Table:
        return dynamodb.Table(
            self,
            "Releases",
            partition_key=dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED,
            encryption_key=key,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            # It names what this stack made, all of which goes with the stack.
            removal_policy=cdk.RemovalPolicy.DESTROY,
        )

    def _throughput(self, key: kms.IKey) -> ProvisionedThroughput | None:
        provisioned = self._settings.endpoint.provisioned
        if self._settings.endpoint.kind != "provisioned" or provisioned is None:
            return None
        return ProvisionedThroughput(
            self,
            "Throughput",
            owner=self._settings.full_name,
            name=self._identity.throughput_name,
            student=self._settings.distillation.student,
            model_units=provisioned.model_units,
            table=self.table,
            key=key,
            model_key=self._settings.encryption.model_key,
            commitment=None if provisioned.commitment == "none" else provisioned.commitment,
            acknowledge_commitment=provisioned.acknowledge_commitment,
            retain_models=self._settings.retention.models == "retain",
            poll_seconds=self._settings.release.poll_seconds,
            tags=self._settings.tags,
            log_days=self._settings.retention.log_days,
        )


def _description(settings: Settings) -> str:
    """Says what is paid by the hour, where whoever looks at the stack sees it."""
    text, bought = "Distilled router: releases", settings.endpoint.provisioned
    if bought is None:
        return text
    return (
        f"{text}, served from provisioned throughput: {bought.model_units} model units at "
        f"{bought.hourly_price_usd:g} USD an hour each, commitment {bought.commitment}"
    )
