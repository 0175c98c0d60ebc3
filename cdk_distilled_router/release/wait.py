"""Construct ReleaseWait: makes a stack's deployment succeed or fail with its release."""

from __future__ import annotations

import math

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK, SCHEDULE
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import DEFAULT, Hosting
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.release.construct import Release
from distilled_router.env import ReleaseWaitEnv

# AWS::CloudFormation::WaitCondition, Timeout: 43,200 s at most. Handle, count and timeout can't be updated,
# and a handle's URL lasts 24 hours, so each window has its own, made when the window before has ended.
LONGEST_WINDOW_SECONDS = 43_200


class ReleaseWait(Construct):
    """A chain of WaitConditions. Their logical ids carry digest and times: others are another wait."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        release: Release,
        hours: float,
        longest_window_seconds: int = LONGEST_WINDOW_SECONDS,
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Wait for the release for so many hours, at most 72; then the stack's operation fails.

        `longest_window_seconds` is for those who want to see windows follow one another sooner.
        Raises ValueError for times that CloudFormation would not wait.
        """
        super().__init__(scope, construct_id)
        if not 0 < hours <= 72:
            raise ValueError(f"release.wait_hours = {hours:g}: allowed are more than 0 and at most 72 hours")
        owner, digest, table = release.owner, release.digest, release.table
        role = may.function_role(
            self, "Role", may.items(table, release.key, ["GetItem", "Scan", "PutItem", "DeleteItem"])
        )
        minutes, margin = pace(longest_window_seconds)
        functions = {
            entry: Function(
                self,
                construct,
                handler=f"release_wait.{entry}",
                role=role,
                environment=ReleaseWaitEnv(owner=owner, table_name=table.table_name, margin_seconds=margin),
                hosting=hosting,
                description=description,
                caller=caller,
                props=FunctionProps(dead_letters=release.undelivered if caller is SCHEDULE else None),
            )
            for construct, entry, description, caller in (
                ("OnEvent", "on_event", "Registers a stack's wait with its release", FRAMEWORK),
                ("Tick", "tick", "Ends waits whose time runs out or whose signal was lost", SCHEDULE),
            )
        }
        provider = ResourceProvider(self, "Provider", on_event=functions["on_event"], hosting=hosting)
        rule = events.Rule(
            self,
            "Ticking",
            schedule=events.Schedule.rate(cdk.Duration.minutes(minutes)),
            targets=[targets.LambdaFunction(functions["tick"], dead_letter_queue=release.undelivered)],
        )
        before: Construct = release.resource
        lengths = windows(hours, longest_window_seconds)
        for number, seconds in enumerate(lengths, start=1):
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
                    "Last": number == len(lengths),
                    "Seconds": seconds,
                    "Handle": handle.ref,
                },
            )
            registered.node.add_dependency(role, rule)
            condition = cdk.CfnWaitCondition(
                self, f"Condition{number}", handle=handle.ref, timeout=str(seconds), count=1
            )
            condition.node.add_dependency(registered)
            self._name(f"{digest}Window{number}Of{len(lengths)}For{seconds}", handle, registered, condition)
            before = condition

    @staticmethod
    def _name(window: str, *constructs: Construct) -> None:
        """Logical ids with all that a wait is: CloudFormation neither updates nor re-evaluates one."""
        for construct in constructs:
            element = construct if isinstance(construct, cdk.CfnElement) else construct.node.default_child
            assert isinstance(element, cdk.CfnElement)
            kind = construct.node.id.rstrip("0123456789")
            element.override_logical_id(f"ReleaseWait{kind}{window}")


def windows(hours: float, longest: int = LONGEST_WINDOW_SECONDS) -> list[int]:
    """The seconds of each window: as few as there can be, all but the last of full length.

    Raises ValueError for a window that CloudFormation would not wait.
    """
    if not 0 < longest <= LONGEST_WINDOW_SECONDS:
        raise ValueError(
            f"longest_window_seconds = {longest}: a WaitCondition lasts 1 to {LONGEST_WINDOW_SECONDS} s"
        )
    full, rest = divmod(math.ceil(hours * 3600), longest)
    return [longest] * full + ([rest] if rest else [])


def pace(longest: int) -> tuple[int, int]:
    """How often, in minutes, windows are looked at, and how many seconds before its time one is ended.

    With windows of twelve hours every ten minutes, which leaves two looks before the end for one that is
    missed. EventBridge's shortest rate is a minute: windows of less than a few minutes need somebody else who
    calls `tick`.
    """
    minutes = min(max(longest // 60 // 72, 1), 10)
    return minutes, min(150 * minutes, longest // 2)
