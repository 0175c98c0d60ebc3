"""Construct Labelling: raw queries, labelled by the teacher and curated, from which a job is then made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK, MACHINE, Caller
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import DEFAULT, Hosting, VpcConfig
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.dataset import DatasetFile, QueriesFolder, cost_properties
from cdk_distilled_router.distillation_job import DistillationJob
from cdk_distilled_router.labelling_machine import LabellingMachine
from distilled_router.cost.estimate import Spec
from distilled_router.data.labelling_plan import dataset_folder, queries_folder
from distilled_router.env import Env, LabellingEnv

FOLDER = "labels/*"
BATCH_JOBS = "model-invocation-job/*"


@dataclass(frozen=True, kw_only=True)
class LabellingPlan:
    """What is labelled and what is kept of it; the names are those of the settings' table [labelling].

    Args:
        labels: 16 hex digits of all that decides the answers: queries, teacher, its prompt, the sampling.
        dataset: 16 hex digits of that and of all that decides the rows.
    """

    labels: str
    dataset: str
    method: str
    teacher: str
    samples: int = 3
    temperature: float = 0.5
    max_tokens: int = 300
    tolerance: float = 0.10
    minimum_agreement: float = 0.6
    maximum_label_share: float = 0.6
    holdout_share: float = 0.1
    validation_share: float = 0.0
    concurrency: int = 4
    batch_hours: int = 24
    poll_seconds: int = 120

    @property
    def folder(self) -> str:
        """Where the curated data set lies in the bucket."""
        return dataset_folder(self.labels, self.dataset)

    @property
    def training_key(self) -> str:
        """The rows that the student learns from."""
        return f"{self.folder}training.jsonl"

    @property
    def validation_keys(self) -> tuple[str, ...]:
        """The rows that Bedrock validates with; none where no share is set."""
        return (f"{self.folder}validation.jsonl",) if self.validation_share else ()

    @property
    def holdout_key(self) -> str:
        """The rows that a release is judged on."""
        return f"{self.folder}holdout.jsonl"


class Labelling(Construct):
    """Checks raw queries before anything is paid for, has the teacher label them, curates the answers, and
    has the job made.

    What was answered lies under `labels/<labels>/` and is never paid twice: another student, or other rules
    for what is kept, use it again; an execution that was stopped goes on where it ended.

    Attributes:
        machine: the state machine, `<owner>-labelling`.
        machine_arn: its ARN, for a release that waits for it; a literal, so that no export is needed.
        resource: the custom resource, with `Queries`, `TrainingUri`, `HoldoutUri` and `ReportUri`.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        bucket: s3.IBucket,
        job: DistillationJob,
        queries: DatasetFile | QueriesFolder,
        plan: LabellingPlan,
        holdout: DatasetFile | None = None,
        key: kms.IKey | None = None,
        source_key: str | None = None,
        queries_per_shard: int = 2_000,
        cost: Spec | None = None,
        maximum_cost_usd: float = 200,
        attempt: int = 1,
        retain: bool = True,
        vpc: VpcConfig | None = None,
        tags: Mapping[str, str] | None = None,
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare the labelling of a job that is `made_later`, from `plan.training_key`.

        Args:
            owner: name of whoever owns what is made.
            bucket: gets everything under `labels/`; in the stack's Region.
            job: made once its data is there.
            queries: the raw queries.
            plan: how they are labelled and what is kept.
            holdout: a hold-out set of its own; otherwise a part of the queries is held out.
            key: encrypts the bucket. Default: the bucket's own.
            source_key: ARN of the key that encrypts the sources, where it is another.
            queries_per_shard: queries that one batch job answers.
            cost: what an estimate is made from, before anything is asked. Default: none is made.
            maximum_cost_usd: an estimate of more than this, at most, refuses the deployment.
            attempt: raise it to start a labelling again that failed or was stopped.
            retain: keep the labels when the resource goes. They were paid for.
            vpc: the network from which batch jobs read and write S3.
            tags: put on batch jobs, besides the owner's.
            hosting: where functions run, with which key, and how long their logs are kept.
        """
        super().__init__(scope, construct_id)
        self._owner, self._bucket, self._key = owner, bucket, key or bucket.encryption_key
        self._plan, self._hosting = plan, hosting
        self.machine_arn = machine_arn(owner)
        batch_role = self._batch_role(vpc)
        sources = [queries, *([holdout] if holdout else [])]
        role = may.function_role(self, "Role", self._resource_permissions(sources, source_key))
        stage_role = may.function_role(self, "StageRole", self._stage_permissions(batch_role))
        may.grant(job.maker_role, self._describe())
        environment = LabellingEnv(
            owner=owner,
            bucket=bucket.bucket_name,
            batch_role_arn=batch_role.role_arn,
            tags=dict(tags or {}),
            network=_network(vpc),
        )
        label = self._function(
            "Label", "label", stage_role, environment, 1024, "Labels a shard of queries", MACHINE
        )
        curate = self._function(
            "Curate", "make_dataset", stage_role, environment, 3008, "Curates a data set from labels", MACHINE
        )
        self.machine = LabellingMachine(
            self,
            "Way",
            name=f"{owner}-labelling",
            job=job,
            label=label,
            curate=curate,
            bucket=bucket,
            queries=queries_folder(plan.labels),
            concurrency=plan.concurrency,
            hosting=hosting,
        ).machine
        properties = {
            "Owner": owner,
            "Bucket": bucket.bucket_name,
            "StateMachineArn": self.machine.state_machine_arn,
            "JobName": job.job_name,
            # One text: CloudFormation would make texts of all numbers.
            "Plan": json.dumps({**asdict(plan), "digest": job.digest}, sort_keys=True),
            "Queries": queries.properties(),
            "Holdout": holdout.properties() if holdout else None,
            "QueriesPerShard": queries_per_shard,
            **cost_properties(cost, maximum_cost_usd),
            "Attempt": attempt,
            "Retain": retain,
        }
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockLabelling",
            service_token=self._provider(role).service_token,
            properties={key: value for key, value in properties.items() if value is not None},
        )
        # The job's resource comes first and goes last: whatever a labelling makes belongs to it.
        self.resource.node.add_dependency(self.machine, role, stage_role, batch_role, job.resource)

    def _function(
        self,
        construct_id: str,
        entry: str,
        role: iam.Role,
        environment: Env,
        memory_mb: int,
        description: str,
        caller: Caller,
    ) -> Function:
        return Function(
            self,
            construct_id,
            handler=f"labelling.{entry}",
            role=role,
            environment=environment,
            hosting=self._hosting,
            description=description,
            caller=caller,
            props=FunctionProps(timeout=cdk.Duration.minutes(15), memory_mb=memory_mb),
        )

    def _provider(self, role: iam.Role) -> ResourceProvider:
        functions = [
            self._function(construct, entry, role, Env(owner=self._owner), 1024, description, FRAMEWORK)
            for construct, entry, description in (
                ("OnEvent", "on_event", "Checks raw queries and publishes them in shards"),
                ("IsComplete", "is_complete", "Starts a labelling, or says whether all of it has ended"),
            )
        ]
        return ResourceProvider(
            self, "Provider", on_event=functions[0], is_complete=functions[1], hosting=self._hosting
        )

    # Roles

    def _batch_role(self, vpc: VpcConfig | None) -> iam.Role:
        """What Bedrock assumes for batch jobs."""
        return may.bedrock_role(
            self,
            "BatchRole",
            jobs=BATCH_JOBS,
            description="Bedrock's batch jobs: read questions, ask the teacher, write answers",
            permissions=[
                may.objects(self._bucket, self, ["GetObject", "PutObject"], [FOLDER]),
                may.listing(self._bucket, ["ListBucket"], [FOLDER]),
                may.Permission(
                    ["kms:Decrypt", "kms:GenerateDataKey"], [self._key.key_arn] if self._key else []
                ),
                *may.invoke(self._plan.teacher),
                *(may.interfaces(vpc, BATCH_JOBS) if vpc else []),
            ],
        )

    def _stage_permissions(self, batch_role: iam.Role) -> list[may.Permission]:
        jobs, owned = may.account_arn(BATCH_JOBS), may.owned(self._owner)
        return [
            *self._folder(),
            *may.invoke(self._plan.teacher),
            *may.batch(self._plan.teacher, may.tagged_for(self._owner)),
            may.tagging(self._owner, [jobs]),
            may.bedrock(["GetModelInvocationJob"], [jobs]),
            may.bedrock(["StopModelInvocationJob"], [jobs], owned),
            may.bedrock(["ListModelInvocationJobs"], ["*"]),
            may.pass_role(batch_role),
            *self._describe(),
        ]

    def _resource_permissions(
        self, sources: Sequence[DatasetFile | QueriesFolder], source_key: str | None
    ) -> list[may.Permission]:
        jobs = may.account_arn(BATCH_JOBS)
        machine = may.Permission(["states:StartExecution"], [self.machine_arn])
        return [
            *(permission for source in sources for permission in source.permissions()),
            may.others_key(source_key),
            *self._folder(),
            *may.purge(self._bucket, self, FOLDER),
            machine,
            *self._describe("StopExecution"),
            may.bedrock(["GetModelCustomizationJob"], [may.account_arn(may.JOBS)]),
            may.bedrock(["ListModelInvocationJobs"], ["*"]),
            may.bedrock(["ListTagsForResource"], [jobs]),
            may.bedrock(["StopModelInvocationJob"], [jobs], may.owned(self._owner)),
        ]

    def _folder(self) -> list[may.Permission]:
        return [
            may.objects(self._bucket, self, ["GetObject", "PutObject"], [FOLDER]),
            may.listing(self._bucket, ["ListBucket"], [FOLDER]),
            may.encrypted(self._key, "s3"),
        ]

    def _describe(self, *more: str) -> list[may.Permission]:
        return [
            may.executions(self.machine_arn, "DescribeExecution", *more),
            self._hosting.reading(),
        ]


def machine_arn(owner: str) -> str:
    """The labelling's state machine of an owner."""
    return may.machine_arn(f"{owner}-labelling")


def _network(vpc: VpcConfig | None) -> dict[str, Sequence[str]]:
    """Return the network of batch jobs, as CreateModelInvocationJob takes it."""
    if vpc is None:
        return {}
    return {"subnetIds": list(vpc.subnet_ids), "securityGroupIds": list(vpc.security_group_ids)}
