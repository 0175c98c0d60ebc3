"""The state machine that takes one release to production: steps in a row, and one failure path.

Every step is called until it no longer answers `waiting`; then `done` leads to the next, `failed` to the
failure path. What a step knows is in the releases table, so that the machine carries nothing but the digest.
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
from cdk_distilled_router.release.context import ReleaseContext
from cdk_distilled_router.release.functions import ReleaseFunctions
from cdk_distilled_router.release.stages import accept_children, accept_wildcards, each_shard, stage, task

# Holds a shard of questions in each object, below the folder of an attempt, which has its execution's name.
QUESTIONS = "releases/{}/questions/"
RELEASE = {"release": sfn.JsonPath.string_at("$.release")}


@dataclass(frozen=True)
class Stage:
    """A step's name, its function, and whether that is called for each shard of questions."""

    name: str
    function: lambda_.Function
    for_each_shard: bool = False


class ReleaseMachine(Construct):
    """The state machine; `machine` is the construct of the CDK."""

    def __init__(
        self, scope: Construct, construct_id: str, *, context: ReleaseContext, functions: ReleaseFunctions
    ) -> None:
        """Declare the steps in their order. After them RetireOld removes what the release replaced, or Fail
        ends the one that did not get there.
        """
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
        return [
            Stage("WatchJob", functions.watch_job),
            Stage("DeployCandidate", functions.deploy_candidate),
            Stage("PrepareEvaluation", functions.prepare_evaluation),
            Stage("AskModels", functions.ask_models, for_each_shard=True),
            *([Stage("GradeAnswers", grade)] if grade else []),
            Stage("ScoreAndGate", functions.score_and_gate),
            Stage("RollOut", functions.roll_out),
            # Bought by the hour, and moved in place with all that it serves: only for what has proven itself.
            *([Stage("ServeFromThroughput", serve)] if serve else []),
        ]

    def _machine(self, first: sfn.IChainable) -> sfn.StateMachine:
        context, name = self._context, f"{self._context.owner}-release"
        group = context.hosting.log_group(self, "Logs", name=f"/aws/vendedlogs/states/{name}")
        machine = sfn.StateMachine(
            self,
            "Resource",
            state_machine_name=name,
            definition_body=sfn.DefinitionBody.from_chainable(first),
            # The job's own time ends its step; this ends what nobody thought of.
            timeout=cdk.Duration.hours(math.ceil(context.props.timing.timeout_hours) + 48),
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
                folder=sfn.JsonPath.format(QUESTIONS, sfn.JsonPath.string_at("$$.Execution.Name")),
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
            failed=failed["outcome"],
            broken=failed["error"],
        )

    def _success_path(self) -> sfn.IChainable:
        """The release is live already: what can't be removed now must not take it back. The sweeper comes
        again within the hour.
        """
        live = sfn.Succeed(self, "Live")
        notify = self._publish("Notify: live", "release is live", "$.stage.message")
        notify.add_catch(live, result_path="$.error")
        notify.next(live)
        retired = task(self, "RetireOld", self._functions.retire_old, RELEASE, "$.retired")
        retired.add_catch(notify, result_path="$.error")
        return retired.next(notify)

    def _failure_path(self) -> dict[str, sfn.IChainable]:
        """Both entries of the failure path: an outcome that says why, and an unexpected error."""
        end = sfn.Fail(self, "Failed", cause_path="$.reason", error="ReleaseFailed")
        notify = self._publish("Notify: failed", "release failed", "$.reason").next(end)
        payload = {
            **RELEASE,
            "reason": sfn.JsonPath.string_at("$.reason"),
            "execution": sfn.JsonPath.string_at("$$.Execution.Id"),
        }
        fail = task(self, "Fail", self._functions.fail, payload, "$.cleaned")
        # Subscribers must be told even if this failed; the sweeper comes again within the hour.
        fail.add_catch(notify, result_path="$.error")
        fail.next(notify)
        said, raised = (sfn.JsonPath.string_at(path) for path in ("$.stage.message", "$.error.Cause"))
        return {
            "outcome": sfn.Pass(self, "Fail: outcome", parameters={**RELEASE, "reason": said}).next(fail),
            "error": sfn.Pass(self, "Fail: error", parameters={**RELEASE, "reason": raised}).next(fail),
        }

    def _publish(self, name: str, subject: str, message_path: str) -> tasks.SnsPublish:
        return tasks.SnsPublish(
            self,
            name,
            topic=self._context.topic,
            subject=f"{self._context.owner}: {subject}"[:100],
            message=sfn.TaskInput.from_object(
                {
                    **RELEASE,
                    "message": sfn.JsonPath.string_at(message_path),
                    "execution": sfn.JsonPath.string_at("$$.Execution.Id"),
                }
            ),
            result_path=sfn.JsonPath.DISCARD,
        )
