"""Construct Labelling: raw queries, labelled by the teacher and curated, from which a job is then made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK, MACHINE, Caller
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import DEFAULT, Hosting, VpcConfig
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.dataset import DatasetFile, QueriesFolder, cost_properties
from cdk_distilled_router.distillation_job import DistillationJob
from cdk_distilled_router.labelling_machine import LabellingMachine
from cdk_distilled_router.props import RETAIN, LabellingProps, RetentionProps
from distilled_router.cost.estimate import Spec
from distilled_router.data.labelling_plan import dataset_folder, queries_folder
from distilled_router.env import Env, LabellingEnv

FOLDER = "labels/*"
BATCH_JOBS = "model-invocation-job/*"


@dataclass(frozen=True, kw_only=True)
class LabellingPlan:
    """What is labelled, how, and what is kept of it.

    Args:
        labels: 16 hex digits of all that decides the answers: queries, teacher, its prompt, the sampling.
        dataset: 16 hex digits of that and of all that decides the rows.
        props: how the teacher answers, and which answers are kept.
    """

    labels: str
    dataset: str
    props: LabellingProps = field(default_factory=LabellingProps)

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
        return (f"{self.folder}validation.jsonl",) if self.props.validation_share else ()

    @property
    def holdout_key(self) -> str:
        """The rows that a release is judged on."""
        return f"{self.folder}holdout.jsonl"

    def of_job(self, job: DistillationJob) -> dict[str, object]:
        """Return the plan as executions take it: `distilled_router.data.labelling_plan.Plan`."""
        return {
            "labels": self.labels,
            "dataset": self.dataset,
            "digest": job.digest,
            "method": job.props.method,
            "teacher": job.props.teacher,
            # The shards are there before an execution begins.
            **self.props.model_dump(exclude={"queries_per_shard"}),
        }


@dataclass(frozen=True, kw_only=True)
class LabellingSources:
    """Where raw queries, and a hold-out set if there is one, lie.

    Args:
        queries: the raw queries.
        holdout: a hold-out set of its own; otherwise a part of the queries is held out.
        source_key: ARN of the key that encrypts them, where it is another than the bucket's.
    """

    queries: DatasetFile | QueriesFolder
    holdout: DatasetFile | None = None
    source_key: str | None = None

    def permissions(self) -> list[may.Permission]:
        """Return what reading them takes."""
        return [
            *self.queries.permissions(),
            *(self.holdout.permissions() if self.holdout else []),
            may.others_key(self.source_key),
        ]


class Labelling(Construct):
    """Checks raw queries before anything is paid for, has the teacher label them, curates the answers, and
    has the job made.

    What was answered lies under `labels/<labels>/` and is never paid twice: another student, or other rules
    for what is kept, use it again; an execution that was stopped goes on where it ended.

    Attributes:
        machine: the state machine, `<owner>-labelling`.
        resource: the custom resource, with `Queries`, `TrainingUri`, `HoldoutUri` and `ReportUri`.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        job: DistillationJob,
        sources: LabellingSources,
        plan: LabellingPlan,
        cost: Spec | None = None,
        attempt: int = 1,
        retention: RetentionProps = RETAIN,
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare the labelling of a job that is `made_later`, from `plan.training_key`.

        Owner, bucket, tags and network are the job's. Its bucket gets everything under `labels/`.

        Args:
            job: made once its data is there. An estimate above its `maximum_cost_usd` refuses the deployment.
            sources: the raw queries.
            plan: how they are labelled and what is kept.
            cost: what an estimate is made from, before anything is asked. Default: none is made.
            attempt: raise it to start a labelling again that failed or was stopped.
            retention: `data` says whether the labels stay when the resource goes. They were paid for.
            hosting: where functions run, with which key, and how long their logs are kept.

        Raises:
            ValueError: the job is not `made_later`, or names no teacher.
        """
        super().__init__(scope, construct_id)
        if job.props.teacher is None:
            raise ValueError(f"{self.node.path}: labelling needs a teacher in the properties of its job.")
        self._job, self._teacher, self._plan, self._hosting = job, job.props.teacher, plan, hosting
        self._owner, self._bucket, self._key = job.owner, job.bucket, job.bucket.encryption_key
        batch_role = self._batch_role()
        role = may.function_role(self, "Role", [*sources.permissions(), *self._resource_permissions()])
        step_role = may.function_role(self, "StepRole", self._step_permissions(batch_role))
        may.grant(job.maker_role, self._describe())
        self.machine = self._machine(step_role, batch_role)
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockLabelling",
            service_token=self._provider(role).service_token,
            properties={
                **self._properties(sources),
                **cost_properties(cost, job.props.maximum_cost_usd),
                "Attempt": attempt,
                "Retain": retention.data == "retain",
            },
        )
        # The job's resource comes first and goes last: whatever a labelling makes belongs to it.
        self.resource.node.add_dependency(self.machine, role, step_role, batch_role, job.resource)

    def _properties(self, sources: LabellingSources) -> dict[str, object]:
        """Return what is labelled, as properties of the custom resource."""
        return {
            "Owner": self._owner,
            "Bucket": self._bucket.bucket_name,
            "StateMachineArn": self.machine.state_machine_arn,
            "JobName": self._job.job_name,
            # One text: CloudFormation would make texts of all numbers.
            "Plan": json.dumps(self._plan.of_job(self._job), sort_keys=True),
            "Queries": sources.queries.properties(),
            **({"Holdout": sources.holdout.properties()} if sources.holdout else {}),
            "QueriesPerShard": self._plan.props.queries_per_shard,
        }

    def _machine(self, role: iam.Role, batch_role: iam.Role) -> sfn.StateMachine:
        """Declare the state machine with the functions of its steps."""
        environment = LabellingEnv(
            owner=self._owner,
            bucket=self._bucket.bucket_name,
            batch_role_arn=batch_role.role_arn,
            tags=self._job.tags,
            network=_network(self._job.options.vpc),
        )
        label = self._function(
            "LabelQueries", "label_queries", role, environment, "Labels a shard of queries", caller=MACHINE
        )
        curate = self._function(
            "CurateDataset",
            "curate_dataset",
            role,
            environment,
            "Curates a data set from labels",
            caller=MACHINE,
            memory_mb=3008,
        )
        return LabellingMachine(
            self,
            "StateMachine",
            job=self._job,
            label=label,
            curate=curate,
            queries=queries_folder(self._plan.labels),
            concurrency=self._plan.props.concurrency,
            hosting=self._hosting,
        ).machine

    def _provider(self, role: iam.Role) -> ResourceProvider:
        env = Env(owner=self._owner)
        begins = "Checks raw queries and publishes them in shards"
        checks = "Starts a labelling, or says whether all of it has ended"
        return ResourceProvider(
            self,
            "Provider",
            on_event=self._function("OnEvent", "on_event", role, env, begins),
            is_complete=self._function("IsComplete", "is_complete", role, env, checks),
            hosting=self._hosting,
        )

    def _function(
        self,
        construct_id: str,
        entry: str,
        role: iam.Role,
        environment: Env,
        description: str,
        *,
        caller: Caller = FRAMEWORK,
        memory_mb: int = 1024,
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

    # Roles

    def _batch_role(self) -> iam.Role:
        """What Bedrock assumes for batch jobs."""
        vpc = self._job.options.vpc
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
                *may.invoke(self._teacher),
                *(may.interfaces(vpc, BATCH_JOBS) if vpc else []),
            ],
        )

    def _step_permissions(self, batch_role: iam.Role) -> list[may.Permission]:
        jobs, owned = may.account_arn(BATCH_JOBS), may.owned(self._owner)
        return [
            *self._folder(),
            *may.invoke(self._teacher),
            *may.batch(self._teacher, may.tagged_for(self._owner)),
            may.tagging(self._owner, [jobs]),
            may.bedrock(["GetModelInvocationJob"], [jobs]),
            may.bedrock(["StopModelInvocationJob"], [jobs], owned),
            may.bedrock(["ListModelInvocationJobs"], ["*"]),
            may.pass_role(batch_role),
            *self._describe(),
        ]

    def _resource_permissions(self) -> list[may.Permission]:
        jobs = may.account_arn(BATCH_JOBS)
        machine = may.Permission(["states:StartExecution"], [self._job.labelling_machine_arn])
        return [
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
            may.executions(self._job.labelling_machine_arn, "DescribeExecution", *more),
            self._hosting.reading(),
        ]


def _network(vpc: VpcConfig | None) -> dict[str, Sequence[str]]:
    """Return the network of batch jobs, as CreateModelInvocationJob takes it."""
    if vpc is None:
        return {}
    return {"subnetIds": list(vpc.subnet_ids), "securityGroupIds": list(vpc.security_group_ids)}
