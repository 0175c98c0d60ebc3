"""The state machine that takes a release to production: a sequence of steps, and a failure path.

It calls each step's function until that answers `done`, which leads to the next step, or `failed`, which
leads to the failure path. Steps keep their state in the releases table; the state machine passes only the
digest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_stepfunctions as sfn
from aws_cdk import aws_stepfunctions_tasks as tasks
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.retries import FAILED, retry
from cdk_distilled_router.release.context import ReleaseContext, ReleaseProps
from cdk_distilled_router.release.functions import ReleaseFunctions
from cdk_distilled_router.release.stages import accept_children, accept_wildcards, each_shard, stage, task
from distilled_router.release.rollout import Rollout
from distilled_router.release.route import releases_folder

# Each object is a shard of questions. The folder of an attempt has the name of its execution.
QUESTIONS = "{}/questions/"
RELEASE = {"release": sfn.JsonPath.string_at("$.release")}
# For what has no setting: the deployment, the questions, repeated probes, throughput.
OTHER_HOURS = 48


@dataclass(frozen=True)
class Stage:
    """A step: its name and its function.

    Attributes:
        for_each_shard: the function is called for each shard of questions.
        is_optional: the release goes on without it if it fails.
    """

    name: str
    function: lambda_.Function
    for_each_shard: bool = False
    is_optional: bool = False


class ReleaseMachine(Construct):
    """The state machine of a release, as `machine`."""

    def __init__(
        self, scope: Construct, construct_id: str, *, context: ReleaseContext, functions: ReleaseFunctions
    ) -> None:
        """Declare the steps in order, then RetireOld after success, or Fail after a failure."""
        super().__init__(scope, construct_id)
        self._context, self._functions = context, functions
        stages = self._stages()
        failed = self._failure_path()
        following = self._success_path()
        for one in reversed(stages):
            following = self._state(one, following, failed)
        self.machine = self._machine(following)
        accept_wildcards(
            self.machine.role, functions.retire_old, functions.fail, *(one.function for one in stages)
        )
        for one in stages:
            if one.for_each_shard:
                accept_children(self.machine, one.name)

    def _stages(self) -> list[Stage]:
        functions, throughput = self._functions, self._context.props.throughput
        grade, serve = functions.grade_answers, throughput.stage if throughput else None
        head = functions.train_head
        return [
            Stage("WatchJob", functions.watch_job),
            Stage("DeployCandidate", functions.deploy_candidate),
            Stage("PrepareEvaluation", functions.prepare_evaluation),
            Stage("AskModels", functions.ask_models, for_each_shard=True),
            *([Stage("TrainHead", head, is_optional=True)] if head else []),
            *([Stage("GradeAnswers", grade)] if grade else []),
            Stage("ScoreAndGate", functions.score_and_gate),
            Stage("RollOut", functions.roll_out),
            # Throughput is billed by the hour and updated in place: only for a release that has passed.
            *([Stage("ServeFromThroughput", serve)] if serve else []),
        ]

    def _machine(self, first: sfn.IChainable) -> sfn.StateMachine:
        context, name = self._context, f"{self._context.owner}-release"
        group = context.hosting.log_group(self, "Logs", vended_by="states", name=name)
        machine = sfn.StateMachine(
            self,
            "Resource",
            state_machine_name=name,
            definition_body=sfn.DefinitionBody.from_chainable(first),
            timeout=_longest(context.props),
            tracing_enabled=True,
            logs=sfn.LogOptions(destination=group, level=sfn.LogLevel.ALL, include_execution_data=True),
        )
        role = machine.role
        assert isinstance(role, iam.Role)
        context.hosting.encrypt(machine, role, may.machine_arn(name))
        if context.topic.master_key:
            may.grant(role, [may.encrypted(context.topic.master_key, "sns")])
        return machine

    def _state(
        self, asked: Stage, done: sfn.IChainable, failed: Mapping[str, sfn.IChainable]
    ) -> sfn.IChainable:
        if asked.for_each_shard:
            shards = each_shard(
                self,
                asked.name,
                asked.function,
                RELEASE,
                label=asked.name,
                bucket=self._context.bucket,
                folder=sfn.JsonPath.format(
                    f"{releases_folder(self._context.owner)}{QUESTIONS}",
                    sfn.JsonPath.string_at("$$.Execution.Name"),
                ),
                concurrency=self._context.props.evaluation.concurrency,
                broken=failed["error"],
            )
            return shards.next(done)
        return stage(
            self,
            asked.name,
            asked.function,
            RELEASE,
            done=done,
            failed=done if asked.is_optional else failed["outcome"],
            broken=done if asked.is_optional else failed["error"],
        )

    def _success_path(self) -> sfn.IChainable:
        """Return the states after the last step: retire old releases, notify, end.

        The release is already live, so errors here don't fail it; the sweeper retries within the hour.
        """
        live = sfn.Succeed(self, "Live")
        notify = self._publish("live", "release is live")
        notify.add_catch(live, result_path="$.error")
        notice = self._notice("live", "$.stage.message").next(notify.next(live))
        retired = task(self, "RetireOld", self._functions.retire_old, RELEASE, "$.retired")
        retired.add_catch(notice, result_path="$.error")
        return retired.next(notice)

    def _failure_path(self) -> dict[str, sfn.IChainable]:
        """Return the two entries of the failure path: for an outcome with a reason, and for an error."""
        end = sfn.Fail(self, "Failed", cause_path="$.reason", error="ReleaseFailed")
        notice = self._notice("failed", "$.reason").next(self._publish("failed", "release failed").next(end))
        payload = {
            **RELEASE,
            "reason": sfn.JsonPath.string_at("$.reason"),
            "execution": sfn.JsonPath.string_at("$$.Execution.Id"),
        }
        fail = task(self, "Fail", self._functions.fail, payload, "$.cleaned")
        # Notify subscribers even if Fail fails; the sweeper retries within the hour.
        fail.add_catch(notice, result_path="$.error")
        fail.next(notice)
        said, raised = (sfn.JsonPath.string_at(path) for path in ("$.stage.message", "$.error.Cause"))
        return {
            "outcome": sfn.Pass(self, "Fail: outcome", parameters={**RELEASE, "reason": said}).next(fail),
            "error": sfn.Pass(self, "Fail: error", parameters={**RELEASE, "reason": raised}).next(fail),
        }

    def _notice(self, name: str, message_path: str) -> sfn.Pass:
        """Return the state that puts a notification's content together."""
        notice = {
            **RELEASE,
            "message": sfn.JsonPath.string_at(message_path),
            "execution": sfn.JsonPath.string_at("$$.Execution.Id"),
        }
        return sfn.Pass(self, f"Notice: {name}", parameters=notice, result_path="$.notice")

    def _publish(self, name: str, subject: str) -> tasks.SnsPublish:
        """Return the state that sends it: to people as text with its line breaks, to all others as JSON."""
        message, release, execution = (
            sfn.JsonPath.string_at(f"$.notice.{part}") for part in ("message", "release", "execution")
        )
        publish = tasks.SnsPublish(
            self,
            f"Notify: {name}",
            topic=self._context.topic,
            subject=f"{self._context.owner}: {subject}"[:100],
            message_per_subscription_type=True,
            message=sfn.TaskInput.from_object(
                {
                    "default": sfn.JsonPath.json_to_string(sfn.JsonPath.object_at("$.notice")),
                    "email": sfn.JsonPath.format(
                        "{}\n\nRelease: {}\nExecution: {}", message, release, execution
                    ),
                }
            ),
            result_path=sfn.JsonPath.DISCARD,
        )
        retry(publish, FAILED)
        return publish


def _longest(props: ReleaseProps) -> cdk.Duration:
    """Return how long a release may take: the limits of its steps, and OTHER_HOURS for all else.

    At its timeout an execution ends without any Catch (Step Functions developer guide,
    concepts-error-handling), so every step has to end by its own limit first.
    """
    evaluation, rollout = props.evaluation, Rollout.of(props.rollout.to_function())
    hours = (
        props.timing.timeout_hours
        + evaluation.outage_minutes / 60
        + (evaluation.judge_hours if props.judge else 0)
        + len(rollout.rounds) * rollout.dwell_seconds / 3_600
    )
    return cdk.Duration.hours(math.ceil(hours) + OTHER_HOURS)
