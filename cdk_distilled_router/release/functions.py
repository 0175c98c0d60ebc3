"""The functions of a release and their roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK, MACHINE, SCHEDULE, Caller
from cdk_distilled_router.common.functions import DEFAULT_PROPS, Function, FunctionProps
from cdk_distilled_router.common.ownership import claimant, registering, resource_env
from cdk_distilled_router.release.context import ReleaseContext
from cdk_distilled_router.release.judge import judge_role
from cdk_distilled_router.release.permissions import ReleasePermissions
from distilled_router.env import (
    CandidateEnv,
    Env,
    EvaluationEnv,
    GradeAnswersEnv,
    ReleaseEnv,
    RolloutEnv,
    SweeperEnv,
    TrainHeadEnv,
)
from distilled_router.release.route import DECLARED

READ = ["GetItem"]
# Scan also reads the copies of the route, which have its version if the route itself was deleted.
READ_ALL = ["GetItem", "Scan"]

EVALUATION = FunctionProps(timeout=cdk.Duration.minutes(15), memory_mb=2048)


@dataclass(frozen=True)
class _Shared:
    """Role, variables and properties that functions of one folder in `lambda/` share."""

    role: iam.Role
    env: Env
    props: FunctionProps = DEFAULT_PROPS


class ReleaseFunctions:
    """One function for each step of a release, for the sweeper, and for the custom resource.

    Attributes:
        train_head: function of the step TrainHead; None if no head is trained.
        watch_job, deploy_candidate, prepare_evaluation, ask_models, score_and_gate, roll_out, retire_old,
            fail: functions of the steps.
        grade_answers: function of the step GradeAnswers; None without a judge.
        sweep: deletes resources that no release needs.
        on_event, is_complete: handlers of the custom resource.
        resource_role: role of these handlers.
        roles: all roles.
    """

    def __init__(self, context: ReleaseContext) -> None:
        """Declare functions and roles in the scope of the release."""
        self._context, self._roles = context, list[iam.Role]()
        graded_by = self._judge_role()
        self._grants = ReleasePermissions(context, graded_by)
        self._add_candidate()
        self._add_evaluation()
        self.grade_answers = self._add_grading(graded_by) if graded_by else None
        self._add_rollout()
        self._add_sweeper()
        self._add_resource()
        self.roles = (*self._roles, *([graded_by] if graded_by else []))

    def _add_candidate(self) -> None:
        context, timing = self._context, self._context.props.timing
        ours = claimant(context.scope)
        env = CandidateEnv(
            owner=context.owner,
            table_name=context.table.table_name,
            poll_seconds=timing.poll_seconds,
            timeout_hours=timing.timeout_hours,
            stall_hours=timing.stall_hours,
            stop_stalled=timing.stop_stalled,
            retry_internal_errors=timing.retry_internal_errors,
            labelling_machine_arn=context.job.labelling_machine_arn,
            stack_id=ours.stack_id,
            logical_id=ours.logical_id,
            absence_seconds=context.hosting.absence_seconds,
            tags=context.props.tags,
            holdout_sha256=context.props.holdout_sha256,
        )
        shared = _Shared(self._role("CandidateRole", READ, self._grants.candidate()), env)
        self.watch_job = self._step(
            "WatchJob", "candidate.watch_job", shared, "Polls a release's customization job"
        )
        self.deploy_candidate = self._step(
            "DeployCandidate", "candidate.deploy_candidate", shared, "Deploys a candidate on demand"
        )

    def _add_evaluation(self) -> None:
        context, props = self._context, self._context.props
        variables: dict[str, Any] = {
            "owner": context.owner,
            "table_name": context.table.table_name,
            "bucket": context.bucket.bucket_name,
            "holdout_key": context.holdout_key,
            "training_key": context.job.training_key,
            "gate": props.gate.to_function(),
            "base_model": props.compared_base_model,
            "slice_queries": props.evaluation.slice_queries,
            "outage_minutes": props.evaluation.outage_minutes,
            "judge": props.judge,
            "environment": props.environment,
            "student": context.job.student,
            "teacher": getattr(context.job, "teacher", ""),
        }
        role = self._role("EvaluationRole", READ_ALL, self._grants.evaluation())
        shared = _Shared(role, EvaluationEnv(**variables), EVALUATION)
        self.prepare_evaluation = self._step(
            "PrepareEvaluation",
            "evaluation.prepare_evaluation",
            shared,
            "Writes the questions of an evaluation",
        )
        self.ask_models = self._step(
            "AskModels",
            "evaluation.ask_models",
            shared,
            "Asks the candidate and the models that it is compared with",
        )
        self.score_and_gate = self._step(
            "ScoreAndGate", "evaluation.score_and_gate", shared, "Scores a candidate and applies the gate"
        )
        self.train_head = None if props.head.is_off else self._add_head(role, variables)

    def _add_head(self, role: iam.Role, variables: Mapping[str, Any]) -> Function:
        head = self._context.props.head
        env = TrainHeadEnv(**variables, margin_error=head.margin_error, margin_dominant=head.margin_dominant)
        shared = _Shared(role, env, EVALUATION)
        description = "Trains the classification head of a release"
        return self._step("TrainHead", "evaluation.train_head", shared, description)

    def _add_grading(self, graded_by: iam.Role) -> Function:
        context, props = self._context, self._context.props
        owning = claimant(context.scope)
        env = GradeAnswersEnv(
            owner=context.owner,
            stack_id=owning.stack_id,
            logical_id=owning.logical_id,
            table_name=context.table.table_name,
            bucket=context.bucket.bucket_name,
            judge=props.judge,
            judge_hours=props.evaluation.judge_hours,
            judge_role_arn=graded_by.role_arn,
            poll_seconds=props.timing.poll_seconds,
            absence_seconds=context.hosting.absence_seconds,
            tags=props.tags,
        )
        role = self._role("GradeAnswersRole", READ, self._grants.grading())
        shared = _Shared(role, env, EVALUATION)
        description = "Has the judge grade a candidate's answers"
        return self._step("GradeAnswers", "evaluation.grade_answers", shared, description)

    def _add_rollout(self) -> None:
        context = self._context
        env = RolloutEnv(
            owner=context.owner,
            table_name=context.table.table_name,
            bucket=context.bucket.bucket_name,
            holdout_key=context.holdout_key,
            rollout=context.props.rollout.to_function(),
            gate=context.props.gate.to_function(),
        )
        role = self._role("RolloutRole", READ_ALL, self._grants.rollout(), may.MOVE_ROUTE_WITH_RELEASE)
        self.roll_out = self._step(
            "RollOut", "rollout.roll_out", _Shared(role, env), "Raises a candidate's share of the requests"
        )

    def _add_sweeper(self) -> None:
        context, props = self._context, self._context.props
        owning = claimant(context.scope)
        env = SweeperEnv(
            owner=context.owner,
            stack_id=owning.stack_id,
            logical_id=owning.logical_id,
            table_name=context.table.table_name,
            keep_releases=props.rollout.keep_releases,
            retain_models=props.retention.models == "retain",
            retain_throughput=props.retention.throughput == "retain",
            throughput_name=props.throughput.name if props.throughput else "",
        )
        ends_waits = may.Writes(["DeleteItem"], may.WAIT_ITEMS)
        role = self._role(
            "SweeperRole",
            READ_ALL,
            self._grants.sweeper(),
            may.UPDATE_RELEASES,
            may.MOVE_ROUTE,
            ends_waits,
        )
        shared = _Shared(role, env)
        self.retire_old = self._step(
            "RetireOld", "sweeper.retire_old", shared, "Retires the releases that a new one replaced"
        )
        self.fail = self._step("Fail", "sweeper.fail", shared, "Ends a failed release")
        queue = FunctionProps(dead_letters=context.undelivered)
        self.sweep = self._step(
            "Sweep",
            "sweeper.sweep",
            _Shared(role, env, queue),
            "Deletes resources that no release needs",
            SCHEDULE,
        )

    def _add_resource(self) -> None:
        context = self._context
        base = resource_env(context.scope, context.owner, context.hosting)
        env = ReleaseEnv(
            owner=context.owner,
            requests_table=base.requests_table,
            absence_seconds=base.absence_seconds,
            wait_seconds=base.wait_seconds,
            table_name=context.table.table_name,
        )
        registers = registering(context.scope, context.hosting)
        declares = may.Writes(["PutItem"], [DECLARED])
        self.resource_role = self._role(
            "ReleaseRole",
            READ_ALL,
            [*self._grants.resource(), *registers],
            may.UPDATE_RELEASES,
            may.MOVE_ROUTE,
            declares,
        )
        shared = _Shared(self.resource_role, env)
        begins = "Starts a release, or ends all releases"
        checks = "Checks that a release has started, or that all have ended"
        self.on_event = self._step("OnEvent", "release.on_event", shared, begins, FRAMEWORK)
        self.is_complete = self._step("IsComplete", "release.is_complete", shared, checks, FRAMEWORK)

    def _judge_role(self) -> iam.Role | None:
        context, judge = self._context, self._context.props.judge
        if not judge:
            return None
        return judge_role(
            context.scope,
            "JudgeRole",
            owner=context.owner,
            judge=judge,
            bucket=context.bucket,
            key=context.key,
        )

    def _role(
        self,
        construct_id: str,
        reads: list[str],
        permissions: list[may.Permission],
        *writes: may.Writes,
    ) -> iam.Role:
        """Return a role that reads the releases table, and writes releases if nothing else is said."""
        context = self._context
        table = may.owner_items(
            context.owner, context.table, context.key, reads, *(writes or (may.UPDATE_RELEASES,))
        )
        role = may.function_role(context.scope, construct_id, [*permissions, *table])
        self._roles.append(role)
        return role

    def _step(
        self, construct_id: str, handler: str, shared: _Shared, description: str, caller: Caller = MACHINE
    ) -> Function:
        return Function(
            self._context.scope,
            construct_id,
            handler=handler,
            role=shared.role,
            environment=shared.env,
            hosting=self._context.hosting,
            description=description,
            caller=caller,
            props=shared.props,
        )
