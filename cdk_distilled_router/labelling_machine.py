"""The state machine of a labelling: ask the limit, label each shard, curate the data set, create the job."""

from __future__ import annotations

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.functions import Function
from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.distillation_job import DistillationJob
from cdk_distilled_router.release.stages import accept_children, accept_wildcards, each_shard, stage

# Several batch jobs run one after another; each has a limit of up to a week.
LONGEST = cdk.Duration.days(30)
CHILDREN = "Shards"
_PLAN, _EXECUTION = sfn.JsonPath.object_at("$.plan"), sfn.JsonPath.string_at("$$.Execution.Id")
_FILES = sfn.JsonPath.object_at("$.published.files")


@dataclass(frozen=True)
class LabellingSteps:
    """The functions of the steps.

    Args:
        label: called for each shard.
        curate: called once, after all shards.
        check: called first, and fails the execution if it may cost too much. Default: no limit.
    """

    label: Function
    curate: Function
    check: Function | None = None

    @property
    def functions(self) -> list[Function]:
        """Return all functions."""
        return [function for function in (self.check, self.label, self.curate) if function]


class LabellingMachine(Construct):
    """The state machine, as `machine`. Its input is `{"plan": ...}`."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        job: DistillationJob,
        steps: LabellingSteps,
        queries: str,
        concurrency: int,
        hosting: Hosting,
    ) -> None:
        """Declare the state machine `<owner>-labelling`.

        Args:
            job: the job to create.
            steps: the functions of the steps.
            queries: folder of the shards in the job's bucket.
            concurrency: shards in parallel.
            hosting: key and log retention.
        """
        super().__init__(scope, construct_id)
        if job.maker is None:
            raise ValueError(f"{self.node.path}: the job {job.job_name} is not made_later.")
        name = f"{job.owner}-labelling"
        broken = sfn.Fail(self, "Broken", cause_path="$.error.Cause", error="LabellingBroken")
        shards = each_shard(
            self,
            "LabelQueries",
            steps.label,
            {"plan": _PLAN, "execution": _EXECUTION},
            label=CHILDREN,
            bucket=job.bucket,
            folder=queries,
            concurrency=concurrency,
            broken=broken,
        )
        failed = sfn.Fail(self, "Failed", cause_path="$.stage.message", error="LabellingFailed")
        shards.next(self._after_labels(job, steps.curate, failed=failed, broken=broken))
        first = self._checked(steps.check, shards, failed=failed, broken=broken)
        self.machine = sfn.StateMachine(
            self,
            "Resource",
            state_machine_name=name,
            definition_body=sfn.DefinitionBody.from_chainable(first),
            timeout=LONGEST,
            tracing_enabled=True,
            logs=sfn.LogOptions(
                destination=hosting.log_group(self, "Logs", vended_by="states", name=name),
                level=sfn.LogLevel.ALL,
                include_execution_data=True,
            ),
        )
        role = self.machine.role
        assert isinstance(role, iam.Role)
        hosting.encrypt(self.machine, role, may.machine_arn(name))
        accept_wildcards(role, *steps.functions, job.maker)
        accept_children(self.machine, CHILDREN)

    def _checked(
        self, check: Function | None, then: sfn.IChainable, *, failed: sfn.Fail, broken: sfn.Fail
    ) -> sfn.IChainable:
        """Return the first states: an execution may have been started by hand, with any plan."""
        if check is None:
            return then
        given = {"plan": _PLAN, "execution": _EXECUTION}
        return stage(self, "CheckCost", check, given, done=then, failed=failed, broken=broken)

    def _after_labels(
        self, job: DistillationJob, curate: Function, *, failed: sfn.Fail, broken: sfn.Fail
    ) -> sfn.IChainable:
        """Return the states after the shards: curate the data set, then create the job."""
        assert job.maker
        created = stage(
            self,
            "CreateJob",
            job.maker,
            {"execution": _EXECUTION, "properties": dict(job.properties), "files": _FILES},
            done=sfn.Succeed(self, "Labelled"),
            failed=failed,
            broken=broken,
        )
        # The stage of the job overwrites `$.stage`, which has the SHA-256 of the published files.
        kept = sfn.Pass(
            self,
            "CurateDataset: files",
            parameters={"files": sfn.JsonPath.object_at("$.stage.files")},
            result_path="$.published",
        )
        return stage(
            self,
            "CurateDataset",
            curate,
            {"plan": _PLAN, "execution": _EXECUTION},
            done=kept.next(created),
            failed=failed,
            broken=broken,
        )
