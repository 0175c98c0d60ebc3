"""The state machine of a labelling: every shard, then the data set, then the job."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.functions import Function
from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.distillation_job import DistillationJob
from cdk_distilled_router.release.stages import accept_children, accept_wildcards, each_shard, stage

# Batches in a row, each with its own limit of up to a week.
LONGEST = cdk.Duration.days(30)
CHILDREN = "Shards"


class LabellingMachine(Construct):
    """The state machine; `machine` is the construct of the CDK. Its input is `{"plan": ...}`."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        job: DistillationJob,
        label: Function,
        curate: Function,
        bucket: s3.IBucket,
        queries: str,
        concurrency: int,
        hosting: Hosting,
    ) -> None:
        """`label` is asked for each object under `queries`, a few at a time, `curate` once for all."""
        super().__init__(scope, construct_id)
        if job.maker is None:
            raise ValueError(f"{self.node.path}: the job {job.job_name} is not made_later.")
        failed = sfn.Fail(self, "Failed", cause_path="$.stage.message", error="LabellingFailed")
        broken = sfn.Fail(self, "Broken", cause_path="$.error.Cause", error="LabellingBroken")
        plan, execution = sfn.JsonPath.object_at("$.plan"), sfn.JsonPath.string_at("$$.Execution.Id")
        made = stage(
            self,
            "Make the job",
            job.maker,
            {"execution": execution, "properties": dict(job.properties)},
            done=sfn.Succeed(self, "Labelled"),
            failed=failed,
            broken=broken,
        )
        curated = stage(
            self,
            "Curate the answers",
            curate,
            {"plan": plan, "shards": sfn.JsonPath.list_at("$.shards")},
            done=made,
            failed=failed,
            broken=broken,
        )
        shards = each_shard(
            self,
            "Label the shard",
            label,
            {"plan": plan, "execution": execution},
            label=CHILDREN,
            bucket=bucket,
            folder=queries,
            concurrency=concurrency,
            broken=broken,
        )
        shards.next(curated)
        self.machine = sfn.StateMachine(
            self,
            "Machine",
            state_machine_name=name,
            definition_body=sfn.DefinitionBody.from_chainable(shards),
            timeout=LONGEST,
            tracing_enabled=True,
            logs=sfn.LogOptions(
                destination=hosting.log_group(self, "Logs", name=f"/aws/vendedlogs/states/{name}"),
                level=sfn.LogLevel.ALL,
                include_execution_data=True,
            ),
        )
        role = self.machine.role
        assert isinstance(role, iam.Role)
        hosting.encrypt(self.machine, role, may.machine_arn(name))
        accept_wildcards(role, label, curate, job.maker)
        accept_children(self.machine, CHILDREN)
