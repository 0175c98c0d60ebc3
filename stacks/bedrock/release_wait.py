"""Construct ReleaseWait: makes a stack's deployment succeed or fail with its release."""

from __future__ import annotations

import math

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_kms as kms
from constructs import Construct

from stacks.bedrock import permissions as may
from stacks.bedrock.provider import ResourceProvider
from stacks.bedrock.release import Release
from stacks.functions import Function

# AWS::CloudFormation::WaitCondition, Timeout: 43,200 s at most. Handle, count and timeout can't be updated,
# and a handle's URL lasts 24 hours, so each window has its own, made when the window before has ended.
LONGEST_WINDOW_SECONDS = 43_200


class ReleaseWait(Construct):
    """A chain of WaitConditions, whose logical ids carry the digest: a new digest is a new wait."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        digest: str,
        hours: float,
        release: Release,
        table: dynamodb.ITable,
        key: kms.IKey,
        log_days: int = 90,
    ) -> None:
        """Wait for the release for so many hours, at most 72; then the stack's operation fails."""
        super().__init__(scope, construct_id)
        if not 0 < hours <= 72:
            raise ValueError(f"release.wait_hours = {hours:g}: allowed are more than 0 and at most 72 hours")
        role = may.function_role(
            self, "Role", may.items(table, key, ["GetItem", "Scan", "PutItem", "DeleteItem"])
        )
        functions = {
            entry: Function(
                self,
                construct,
                folder="release_wait",
                entry=entry,
                role=role,
                environment={"POWERTOOLS_SERVICE_NAME": owner, "TABLE_NAME": table.table_name},
                log_days=log_days,
                timeout=cdk.Duration.minutes(2),
                description=description,
            )
            for construct, entry, description in (
                ("OnEvent", "on_event", "Registers a stack's wait with its release"),
                ("Tick", "tick", "Ends waits whose time runs out or whose signal was lost"),
            )
        }
        provider = ResourceProvider(self, "Provider", on_event=functions["on_event"], log_days=log_days)
        rule = events.Rule(
            self,
            "EveryTenMinutes",
            schedule=events.Schedule.rate(cdk.Duration.minutes(10)),
            targets=[targets.LambdaFunction(functions["tick"])],
        )
        before: Construct = release.resource
        for number, seconds in enumerate(windows(hours), start=1):
            last = number == len(windows(hours))
            handle = cdk.CfnWaitConditionHandle(self, f"Handle{number}")
            handle.node.add_dependency(before)
            registered = cdk.CustomResource(
                self,
                f"Registered{number}",
                resource_type="Custom::BedrockReleaseWait",
                service_token=provider.service_token,
                properties={
                    "Owner": owner,
                    "Digest": digest,
                    "Window": number,
                    "Last": last,
                    "Seconds": seconds,
                    "Handle": handle.ref,
                },
            )
            registered.node.add_dependency(role, rule)
            condition = cdk.CfnWaitCondition(
                self, f"Condition{number}", handle=handle.ref, timeout=str(seconds), count=1
            )
            condition.node.add_dependency(registered)
            self._name(digest, number, handle, registered, condition)
            before = condition

    @staticmethod
    def _name(digest: str, number: int, *constructs: Construct) -> None:
        """Logical ids with the digest: CloudFormation neither updates nor re-evaluates a wait."""
        for construct in constructs:
            element = construct if isinstance(construct, cdk.CfnElement) else construct.node.default_child
            assert isinstance(element, cdk.CfnElement)
            kind = construct.node.id.rstrip("0123456789")
            element.override_logical_id(f"ReleaseWait{kind}{digest}Window{number}")


def windows(hours: float) -> list[int]:
    """The seconds of each window: as few as there can be, all but the last of full length."""
    total = math.ceil(hours * 3600)
    full, rest = divmod(total, LONGEST_WINDOW_SECONDS)
    return [LONGEST_WINDOW_SECONDS] * full + ([rest] if rest else [])
