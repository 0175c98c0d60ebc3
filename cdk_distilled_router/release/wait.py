"""Construct ReleaseWait: makes a stack's deployment succeed or fail with its release."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK, SCHEDULE, Caller
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import DEFAULT, Hosting
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.release.construct import Release
from distilled_router.env import ReleaseWaitEnv

# AWS::CloudFormation::WaitCondition, Timeout: at most 43,200 s. Handle, count and timeout can't be updated,
# and a handle's URL expires after 24 hours, so each window has its own, created after the previous window.
LONGEST_WINDOW_SECONDS = 43_200


@dataclass(frozen=True)
class _Window:
    """Window `number` of `count`, counted from 1."""

    number: int
    count: int
    seconds: int


class ReleaseWait(Construct):
    """Makes the stack's deployment wait for a release: it succeeds if the release goes live, and else fails.

    It is a chain of wait conditions of at most 12 hours each. Their logical ids contain digest, hold-out set
    and times, so that the stack waits again for a new release, or for one on another hold-out set.

    Example::

        ReleaseWait(self, "Wait", release=release, hours=24)

    Cost:
        A few invocations of a function every hour while the stack waits.

    Permissions:
        The functions read the owner's releases and write the windows in which the stack waits.

    Delete:
        Nothing but the wait ends; the release goes on.
    """

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
        """Declare the wait.

        Args:
            release: the release to wait for.
            hours: hours after which the stack's operation fails, at most 72.
            longest_window_seconds: length of a window, for tests with short windows.
            hosting: VPC, key and log retention of the functions.

        Raises:
            ValueError: CloudFormation can't wait for this time.
        """
        super().__init__(scope, construct_id)
        if not 0 < hours <= 72:
            raise ValueError(f"release.wait_hours = {hours:g}: allowed are more than 0 and at most 72 hours")
        self._release, self._hosting = release, hosting
        self._minutes, self._margin_seconds = pace(longest_window_seconds)
        self._role = may.function_role(
            self,
            "Role",
            may.owner_items(
                release.owner,
                release.table,
                release.key,
                ["GetItem", "Scan"],
                may.Writes(["PutItem", "DeleteItem"], may.WAIT_ITEMS),
            ),
        )
        on_event = self._function("OnEvent", "Registers a wait condition with its release", FRAMEWORK)
        provider = ResourceProvider(self, "Provider", on_event=on_event, hosting=hosting)
        rule = self._rule()
        lengths = windows(hours, longest_window_seconds)
        before: Construct = release.resource
        for number, seconds in enumerate(lengths, start=1):
            window = _Window(number, len(lengths), seconds)
            before = self._window(window, provider.service_token, after=before, needs=[self._role, rule])

    def _function(self, construct_id: str, description: str, caller: Caller) -> Function:
        release, queue = self._release, self._release.undelivered
        return Function(
            self,
            construct_id,
            handler=f"release_wait.{'tick' if caller is SCHEDULE else 'on_event'}",
            role=self._role,
            environment=ReleaseWaitEnv(
                owner=release.owner,
                table_name=release.table.table_name,
                margin_seconds=self._margin_seconds,
            ),
            hosting=self._hosting,
            description=description,
            caller=caller,
            props=FunctionProps(dead_letters=queue if caller is SCHEDULE else None),
        )

    def _rule(self) -> events.Rule:
        tick = self._function("Tick", "Ends wait conditions that time out or whose signal was lost", SCHEDULE)
        return events.Rule(
            self,
            "Ticking",
            schedule=events.Schedule.rate(cdk.Duration.minutes(self._minutes)),
            targets=[targets.LambdaFunction(tick, dead_letter_queue=self._release.undelivered)],
        )

    def _window(
        self, window: _Window, service_token: str, *, after: Construct, needs: Sequence[Construct]
    ) -> cdk.CfnWaitCondition:
        """Return the wait condition of one window, which begins after the previous one."""
        number, release = window.number, self._release
        handle = cdk.CfnWaitConditionHandle(self, f"Handle{number}")
        handle.node.add_dependency(after)
        registered = cdk.CustomResource(
            self,
            f"Registered{number}",
            resource_type="Custom::BedrockReleaseWait",
            service_token=service_token,
            properties={
                "Owner": release.owner,
                "Digest": release.digest,
                "Holdout": release.holdout,
                "Window": number,
                "Last": number == window.count,
                "Seconds": window.seconds,
                "Handle": handle.ref,
            },
        )
        registered.node.add_dependency(*needs)
        condition = cdk.CfnWaitCondition(
            self, f"Condition{number}", handle=handle.ref, timeout=str(window.seconds), count=1
        )
        condition.node.add_dependency(registered)
        name = f"{release.digest}{release.holdout}Window{number}Of{window.count}For{window.seconds}"
        self._name(name, handle, registered, condition)
        return condition

    @staticmethod
    def _name(window: str, *constructs: Construct) -> None:
        """Put the window's properties into logical ids: CloudFormation can't update wait conditions."""
        for construct in constructs:
            element = construct if isinstance(construct, cdk.CfnElement) else construct.node.default_child
            assert isinstance(element, cdk.CfnElement)
            kind = construct.node.id.rstrip("0123456789")
            element.override_logical_id(f"ReleaseWait{kind}{window}")


def windows(hours: float, longest: int = LONGEST_WINDOW_SECONDS) -> list[int]:
    """Return the length of each window in seconds: the fewest windows, all but the last of full length.

    Raises:
        ValueError: CloudFormation can't wait for a window of this length.
    """
    if not 0 < longest <= LONGEST_WINDOW_SECONDS:
        raise ValueError(
            f"longest_window_seconds = {longest}: a WaitCondition lasts 1 to {LONGEST_WINDOW_SECONDS} s"
        )
    full, rest = divmod(math.ceil(hours * 3600), longest)
    return [longest] * full + ([rest] if rest else [])


def pace(longest: int) -> tuple[int, int]:
    """Return the minutes between two checks of a window, and how many seconds before its timeout it is ended.

    Windows of twelve hours are checked every ten minutes, so that one missed check does no harm. EventBridge
    invokes `tick` at most once a minute, so windows of less than a few minutes need another caller.
    """
    minutes = min(max(longest // 60 // 72, 1), 10)
    return minutes, min(150 * minutes, longest // 2)
