"""The state machine that takes one release to production: stages in a row, and one way down.

Every stage is asked until it no longer says `waiting`; then `done` leads to the next, `failed` to the failure
path. What a stage knows is in the releases table, so that the machine carries nothing but the digest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.release.stages import accept_children, accept_wildcards, each_shard, stage, task

# An execution ends with an error at 25,000 history events; a round of wait, task and choice makes about 11.
EVENTS_A_ROUND = 11
MOST_EVENTS = 24_000


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage's name, and the function that is asked."""

    name: str
    function: lambda_.Function


@dataclass(frozen=True, kw_only=True)
class ShardStage(Stage):
    """A stage that asks for every object of a folder, a few at a time; `folder` holds `{}` for the
    execution's name. `label` names the children of the map."""

    bucket: s3.IBucket
    folder: str
    concurrency: int
    label: str


class ReleaseMachine(Construct):
    """The state machine; `machine` is the construct of the CDK."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        stages: Sequence[Stage],
        retire: lambda_.Function,
        fail: lambda_.Function,
        topic: sns.ITopic,
        poll_seconds: int,
        timeout_hours: float,
        hosting: Hosting,
    ) -> None:
        """After the stages `retire` tidies up behind the live release, or `fail` ends the one that didn't get
        there."""
        super().__init__(scope, construct_id)
        check_history(poll_seconds, timeout_hours)
        failed = self._failure_path(owner, fail, topic)
        live = sfn.Succeed(self, "Live")
        tell = self._publish("Notify: live", topic, f"{owner}: release is live", "$.stage.message")
        tell.add_catch(live, result_path="$.error")
        following: sfn.IChainable = self._retirement(retire, tell.next(live))
        for one in reversed(stages):
            following = self._stage(one, following, failed)
        group = hosting.log_group(self, "Logs", name=f"/aws/vendedlogs/states/{owner}-release")
        self.machine = sfn.StateMachine(
            self,
            "Resource",
            state_machine_name=f"{owner}-release",
            definition_body=sfn.DefinitionBody.from_chainable(following),
            # The job's own time ends its stage; this ends what nobody thought of.
            timeout=cdk.Duration.hours(math.ceil(timeout_hours) + 48),
            tracing_enabled=True,
            logs=sfn.LogOptions(destination=group, level=sfn.LogLevel.ALL, include_execution_data=True),
        )
        role = self.machine.role
        assert isinstance(role, iam.Role)
        hosting.encrypt(self.machine, role, may.machine_arn(f"{owner}-release"))
        if topic.master_key:
            may.grant(role, [may.encrypted(topic.master_key, "sns")])
        accept_wildcards(role, retire, fail, *(one.function for one in stages))
        for sharded in (one for one in stages if isinstance(one, ShardStage)):
            accept_children(self.machine, sharded.label)

    def _stage(
        self, asked: Stage, done: sfn.IChainable, failed: Mapping[str, sfn.IChainable]
    ) -> sfn.IChainable:
        payload = {"release": sfn.JsonPath.string_at("$.release")}
        if isinstance(asked, ShardStage):
            shards = each_shard(
                self,
                asked.name,
                asked.function,
                payload,
                label=asked.label,
                bucket=asked.bucket,
                # An execution has the name of its attempt's folder.
                folder=sfn.JsonPath.format(asked.folder, sfn.JsonPath.string_at("$$.Execution.Name")),
                concurrency=asked.concurrency,
                broken=failed["error"],
            )
            return shards.next(done)
        return stage(
            self,
            asked.name,
            asked.function,
            payload,
            done=done,
            failed=failed["outcome"],
            broken=failed["error"],
        )

    def _retirement(self, retire: lambda_.Function, following: sfn.IChainable) -> sfn.IChainable:
        """The release is live already: what can't be tidied up now must not take it back. The sweeper comes
        again within the hour."""
        retired = task(
            self,
            "RetireOld",
            retire,
            {"release": sfn.JsonPath.string_at("$.release")},
            "$.retired",
        )
        retired.add_catch(following, result_path="$.error")
        return retired.next(following)

    def _failure_path(
        self, owner: str, fail: lambda_.Function, topic: sns.ITopic
    ) -> dict[str, sfn.IChainable]:
        """Both entries of the way down: an outcome that says why, and an error that nobody expected."""
        end = sfn.Fail(self, "Failed", cause_path="$.reason", error="ReleaseFailed")
        publish = self._publish("Notify: failed", topic, f"{owner}: release failed", "$.reason").next(end)
        clean = task(
            self,
            "Fail",
            fail,
            {
                "release": sfn.JsonPath.string_at("$.release"),
                "reason": sfn.JsonPath.string_at("$.reason"),
                "execution": sfn.JsonPath.string_at("$$.Execution.Id"),
            },
            "$.cleaned",
        )
        # Whoever is told must be told even if cleaning up failed; the sweeper comes again within the hour.
        clean.add_catch(publish, result_path="$.error")
        clean.next(publish)
        keep = {"release": sfn.JsonPath.string_at("$.release")}
        said, raised = (sfn.JsonPath.string_at(path) for path in ("$.stage.message", "$.error.Cause"))
        return {
            "outcome": sfn.Pass(
                self,
                "Fail: outcome",
                parameters={**keep, "reason": said},
            ).next(clean),
            "error": sfn.Pass(self, "Fail: error", parameters={**keep, "reason": raised}).next(clean),
        }

    def _publish(self, name: str, topic: sns.ITopic, subject: str, message_path: str) -> tasks.SnsPublish:
        return tasks.SnsPublish(
            self,
            name,
            topic=topic,
            subject=subject[:100],
            message=sfn.TaskInput.from_object(
                {
                    "release": sfn.JsonPath.string_at("$.release"),
                    "message": sfn.JsonPath.string_at(message_path),
                    "execution": sfn.JsonPath.string_at("$$.Execution.Id"),
                }
            ),
            result_path=sfn.JsonPath.DISCARD,
        )


def check_history(poll_seconds: int, timeout_hours: float) -> None:
    """Refuse a poll interval at which waiting for the job would use up the execution's history.

    Raises ValueError with the least interval.
    """
    seconds = timeout_hours * 3600
    if seconds / poll_seconds * EVENTS_A_ROUND > MOST_EVENTS:
        least = -(-seconds * EVENTS_A_ROUND // MOST_EVENTS)
        raise ValueError(
            f"release.poll_seconds = {poll_seconds} makes more than {MOST_EVENTS:,} history events in the "
            f"{timeout_hours:g} hours of release.timeout_hours, and Step Functions ends an execution at "
            f"25,000. Allowed: at least {least:.0f} seconds, or a shorter release.timeout_hours."
        )
