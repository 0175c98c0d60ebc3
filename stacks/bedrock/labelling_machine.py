"""The state machine of a labelling: every shard, then the data set, then the job."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from stacks.bedrock import permissions as may
from stacks.bedrock.distillation_job import DistillationJob
from stacks.bedrock.stages import accept_wildcards, stage
from stacks.functions import Function, log_group
from stacks.nag import acknowledge_resource

# Batches in a row, each with its own limit of up to a week.
LONGEST = cdk.Duration.days(30)


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
        key: kms.IKey | None,
        queries: str,
        concurrency: int,
        log_days: int,
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
        shards = sfn.DistributedMap(
            self,
            "Label every shard",
            label="Shards",
            map_execution_type=sfn.StateMachineType.STANDARD,
            max_concurrency=concurrency,
            item_reader=sfn.S3ObjectsItemReader(bucket=bucket, prefix=queries),
            item_selector={
                "shard": sfn.JsonPath.string_at("$$.Map.Item.Value.Key"),
                "plan": plan,
                "execution": execution,
            },
            result_path="$.shards",
        )
        shards.item_processor(self._shard(label))
        shards.add_catch(broken, result_path="$.error")
        shards.next(curated)
        self.machine = sfn.StateMachine(
            self,
            "Machine",
            state_machine_name=name,
            definition_body=sfn.DefinitionBody.from_chainable(shards),
            timeout=LONGEST,
            tracing_enabled=True,
            logs=sfn.LogOptions(
                destination=log_group(self, "Logs", days=log_days, name=f"/aws/vendedlogs/states/{name}"),
                level=sfn.LogLevel.ALL,
                include_execution_data=True,
            ),
        )
        role = self.machine.role
        assert isinstance(role, iam.Role)
        # The machine lists the shards itself.
        may.grant(role, [may.encrypted(key, "s3", write=False)])
        accept_wildcards(role, label, curate, job.maker)
        self._accept_children()

    def _shard(self, label: Function) -> sfn.IChainable:
        """One shard. Its failure is told to those who curate, and stops no other shard: what they answer is
        not asked again."""
        outcome = sfn.Pass(
            self,
            "Shard is over",
            parameters={
                "outcome": sfn.JsonPath.string_at("$.stage.outcome"),
                "message": sfn.JsonPath.string_at("$.stage.message"),
            },
        )
        broken = sfn.Pass(
            self,
            "Shard broke",
            parameters={"outcome": "failed", "message": sfn.JsonPath.string_at("$.error.Cause")},
        )
        payload = {
            "shard": sfn.JsonPath.string_at("$.shard"),
            "plan": sfn.JsonPath.object_at("$.plan"),
            "execution": sfn.JsonPath.string_at("$.execution"),
        }
        return stage(self, "Label the shard", label, payload, done=outcome, failed=outcome, broken=broken)

    def _accept_children(self) -> None:
        """Accept the wildcards that the CDK writes for a distributed map's own child executions."""
        policy = self.machine.node.find_child("DistributedMapPolicy")
        assert isinstance(policy, Construct)
        name = cdk.Fn.select(6, cdk.Fn.split(":", self.machine.state_machine_arn))
        for children in (name, f"{name}/Shards"):
            arn = cdk.Stack.of(self).format_arn(
                service="states",
                resource="execution",
                resource_name=f"{children}:*",
                arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
            )
            acknowledge_resource(
                policy, arn, "Step Functions names the executions of a distributed map's children itself."
            )
