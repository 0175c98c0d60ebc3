"""Construct Labelling: has the teacher label raw queries, curates the data set, and creates the job."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_stepfunctions as sfn
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK, MACHINE, Caller
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import DEFAULT, Hosting, VpcConfig, attached
from cdk_distilled_router.common.ownership import claimant, registering, requests_table, resource_env
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.dataset import (
    Dataset,
    DatasetFile,
    InvocationLogs,
    QueriesFolder,
    cost_properties,
    spending,
)
from cdk_distilled_router.distillation_job import DistillationJob
from cdk_distilled_router.labelling_machine import LabellingMachine, LabellingSteps
from cdk_distilled_router.needs import needs
from cdk_distilled_router.props import RETAIN, GateProps, LabellingProps, RetentionProps
from distilled_router.cost.estimate import Spec
from distilled_router.data.labelling_plan import dataset_folder, queries_folder
from distilled_router.env import CheckCostEnv, Env, LabellingEnv

BATCH_JOBS = "model-invocation-job/*"


@dataclass(frozen=True, kw_only=True)
class LabellingPlan:
    """How queries are labelled, and which answers are kept.

    Args:
        owner: the job's owner, whose folder of the bucket gets the labels.
        labels: 16 hex digits of everything that decides the answers: queries, teacher, prompt and sampling.
        dataset: 16 hex digits of `labels` and of everything that decides the rows.
        props: sampling, curation and batches.
        gate: what a candidate must reach on the hold-out set. Default: the set is not compared with a gate.
    """

    owner: str
    labels: str
    dataset: str
    props: LabellingProps = field(default_factory=LabellingProps)
    gate: GateProps | None = None

    @property
    def folder(self) -> str:
        """Return the folder of the curated data set in the bucket."""
        return dataset_folder(self.owner, self.labels, self.dataset)

    @property
    def training_key(self) -> str:
        """Return the key of the training rows."""
        return f"{self.folder}training.jsonl"

    @property
    def validation_keys(self) -> tuple[str, ...]:
        """Return the keys of the validation rows; none if their share is 0."""
        return (f"{self.folder}validation.jsonl",) if self.props.validation_share else ()

    @property
    def holdout_key(self) -> str:
        """Return the key of the hold-out set."""
        return f"{self.folder}holdout.jsonl"

    def of_job(self, job: DistillationJob, *, ask: bool = True) -> dict[str, object]:
        """Return the plan in an execution's input, see `distilled_router.data.labelling_plan.Plan`.

        Without `ask` there are no samples, because the queries have labels.
        """
        return {
            "owner": self.owner,
            "labels": self.labels,
            "dataset": self.dataset,
            "digest": job.digest,
            "method": job.props.method,
            "teacher": job.props.teacher,
            # The custom resource splits the queries, before an execution starts.
            **self.props.model_dump(exclude={"queries_per_shard"}),
            **({} if ask else {"samples": 0}),
        }


@dataclass(frozen=True, kw_only=True)
class LabellingSources:
    """The source files of a labelling.

    Args:
        queries: the raw queries; invocation logs may also have their labels.
        holdout: publishes a separate hold-out set. Give it to the job as well. Default: some of the queries
            are held out.
        source_key: ARN of the key that encrypts the source files, if it isn't the data bucket's.
    """

    queries: DatasetFile | QueriesFolder | InvocationLogs
    holdout: Dataset | None = None
    source_key: str | None = None

    @property
    def are_labelled(self) -> bool:
        """Return whether the queries have labels, so that the teacher isn't asked."""
        return isinstance(self.queries, InvocationLogs) and self.queries.use_answers

    def properties(self) -> dict[str, object]:
        """Return the sources as properties of the custom resource."""
        name = "Logs" if isinstance(self.queries, InvocationLogs) else "Queries"
        holdout = {"Holdout": _published(self.holdout)} if self.holdout else {}
        return {name: self.queries.properties(), **holdout}

    def permissions(self) -> list[may.Permission]:
        """Return the permissions to read the files."""
        return [
            *self.queries.permissions(),
            may.source_key(self.source_key),
        ]


class Labelling(Construct):
    """Has the teacher label raw queries, curates a data set from its answers, and creates the job.

    The queries are a file, a folder, or Bedrock's invocation logs. The teacher answers each query several
    times, and queries whose answers agree are kept. Answers are stored under `labels/<owner>/<labels>/` and
    never paid for twice: a change of the student or of the curation reuses them, and a new execution
    continues where a stopped one ended. The deployment doesn't wait for the labelling.

    Example::

        plan = LabellingPlan(owner="search", labels="1f0c5e8a9b7d6c3e", dataset="5b1e0d7c4a2f9e86")
        labelled_job = DistillationJob(
            self,
            "LabelledJob",
            owner="search",
            bucket=bucket,
            data=JobData(training_key=plan.training_key, made_later=True),
            props=JobProps(teacher="us.amazon.nova-pro-v1:0", student="amazon.nova-micro-v1:0:128k"),
        )
        queries = DatasetFile("search-uploads", "queries.txt", version="3sL4kqtJlcpXroDTDmJ")
        Labelling(
            self, "Labelling", job=labelled_job, sources=LabellingSources(queries=queries), plan=plan
        )

    A release of this job takes `plan.holdout_key`.

    Attributes:
        machine: the state machine, `<owner>-labelling`.
        resource: the custom resource, with `Queries` (their number), `TrainingUri`, `HoldoutUri` and
            `ReportUri`.

    Cost:
        The teacher's tokens, in batches at half the price, and S3 storage. The job costs extra. With `cost`,
        nothing is asked that would exceed the job's `maximum_cost_usd`.

    Permissions:
        The functions read the sources, write under `labels/<owner>/` and run batch jobs with the owner's tag.
        Bedrock assumes a role that invokes the teacher and reads and writes the batches.

    Delete:
        The labelling and its batch jobs are stopped: answered records are charged. The labels are deleted
        unless `retention.data` keeps them. Both happen only if no other resource uses the same labels.
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

        Owner, bucket, tags and network are the job's; its bucket gets everything under `labels/<owner>/`.

        Args:
            job: the job to create. An estimate above its `maximum_cost_usd` fails the deployment.
            sources: the raw queries, and a hold-out set.
            plan: how queries are labelled, and which answers are kept.
            cost: input of the cost estimate, with the `job` that is paid. Default: no estimate and no limit.
            attempt: raise it to start a failed or stopped labelling again.
            retention: `data` decides whether the labels, which cost money, stay when the resource is deleted.
            hosting: VPC, key and log retention of the functions.

        Raises:
            ValueError: the job is not `made_later`, has no teacher, or is another owner's than the plan.
        """
        super().__init__(scope, construct_id)
        if job.props.teacher is None:
            raise ValueError(f"{self.node.path}: labelling needs a job with a teacher in its properties.")
        if plan.owner != job.owner:
            raise ValueError(f"{self.node.path}: the plan's owner is {plan.owner}, the job's is {job.owner}.")
        self._job, self._teacher, self._plan, self._hosting = job, job.props.teacher, plan, hosting
        self._owner, self._bucket, self._key = job.owner, job.bucket, job.bucket.encryption_key
        self._labels = f"labels/{job.owner}/*"
        self._needs = needs(job.props, plan.gate, plan.props, is_holdout_given=sources.holdout is not None)
        batch_role = self._batch_role()
        known = [*self._resource_permissions(), *spending(cost)]
        role = may.function_role(self, "Role", [*sources.permissions(), *known])
        step_role = may.function_role(self, "StepRole", self._step_permissions(batch_role, sources.holdout))
        may.grant(job.maker_role, self._describe())
        check = self._cost_check(role, cost) if cost and cost.job else None
        self.machine = self._machine(step_role, batch_role, check)
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockLabelling",
            service_token=self._provider(role).service_token,
            properties={
                **self._properties(sources),
                **cost_properties(cost, job.props),
                "Attempt": attempt,
                "Retain": retention.data == "retain",
            },
        )
        # The job's resource owns the job that a labelling creates, so it must be deleted last.
        self.resource.node.add_dependency(self.machine, role, step_role, batch_role, job.resource)
        may.tag_roles(self, job.owner)

    def _properties(self, sources: LabellingSources) -> dict[str, object]:
        """Return the properties of the custom resource."""
        return {
            "Bucket": self._bucket.bucket_name,
            "StateMachineArn": self.machine.state_machine_arn,
            "JobName": self._job.job_name,
            # As JSON text: CloudFormation turns numbers into strings.
            "Plan": json.dumps(self._plan.of_job(self._job, ask=not sources.are_labelled), sort_keys=True),
            **sources.properties(),
            "Needs": self._needs.written(),
            "QueriesPerShard": self._plan.props.queries_per_shard,
            # Says that the functions seal what they write (`labelling.seals`).
            "Seals": "hmac-sha256",
        }

    def _cost_check(self, role: iam.Role, cost: Spec) -> Function:
        """Return the step that asks the limit for each execution."""
        props = self._job.props
        environment = CheckCostEnv(
            owner=self._owner,
            requests_table=requests_table(self, self._hosting).table_name,
            bucket=self._bucket.bucket_name,
            cost=asdict(cost),
            maximum_cost_usd=props.maximum_cost_usd,
            maximum_cost_days=props.maximum_cost_days,
        )
        description = "Commits what a labelling may cost, within the limit"
        return self._function("CheckCost", "check_cost", role, environment, description, caller=MACHINE)

    def _machine(self, role: iam.Role, batch_role: iam.Role, check: Function | None) -> sfn.StateMachine:
        """Declare the state machine with the functions of its steps."""
        resource = claimant(self)
        environment = LabellingEnv(
            owner=self._owner,
            stack_id=resource.stack_id,
            logical_id=resource.logical_id,
            absence_seconds=self._hosting.absence_seconds,
            bucket=self._bucket.bucket_name,
            requests_table=requests_table(self, self._hosting).table_name,
            batch_role_arn=batch_role.role_arn,
            tags=self._job.tags,
            network=_network(attached(self._job.options.vpc)),
            needs=asdict(self._needs),
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
            steps=LabellingSteps(label, curate, check),
            queries=queries_folder(self._owner, self._plan.labels),
            concurrency=self._plan.props.concurrency,
            hosting=self._hosting,
        ).machine

    def _provider(self, role: iam.Role) -> ResourceProvider:
        env = resource_env(self, self._owner, self._hosting)
        begins = "Validates raw queries and publishes them in shards"
        checks = "Starts a labelling, or checks that it has ended"
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
        """Return the role that Bedrock assumes for batch jobs."""
        vpc = self._job.options.vpc
        return may.bedrock_role(
            self,
            "BatchRole",
            jobs=BATCH_JOBS,
            description="Batch jobs: read questions, ask the teacher, write answers",
            permissions=[
                may.objects(self._bucket, self, ["GetObject", "PutObject"], [self._labels]),
                may.listing(self._bucket, ["ListBucket"], [self._labels]),
                may.Permission(
                    ["kms:Decrypt", "kms:GenerateDataKey"], [self._key.key_arn] if self._key else []
                ),
                *may.invoke_in_jobs(self._teacher),
                *(may.interfaces(vpc, BATCH_JOBS) if vpc else []),
            ],
        )

    def _step_permissions(self, batch_role: iam.Role, holdout: Dataset | None) -> list[may.Permission]:
        jobs, owned = may.account_arn(BATCH_JOBS), may.owned(self._owner)
        return [
            *self._folder(),
            *self._reading(holdout),
            *self._reading_seal(),
            *may.invoke(self._teacher),
            *may.batch(self._teacher, may.tagged_for(self._owner)),
            may.tagging(self._owner, [jobs]),
            may.bedrock(["GetModelInvocationJob"], [jobs]),
            may.bedrock(["StopModelInvocationJob"], [jobs], owned),
            may.bedrock(["ListModelInvocationJobs"], ["*"]),
            may.pass_role(batch_role),
            *self._describe(),
        ]

    def _reading(self, holdout: Dataset | None) -> list[may.Permission]:
        """Return what reading a supplied hold-out set needs."""
        return [may.objects(self._bucket, self, ["GetObject"], [holdout.holdout_key])] if holdout else []

    def _reading_seal(self) -> list[may.Permission]:
        """Return what reading the seal of the labels' folder needs."""
        seals = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": [self._labels]}}
        return [
            may.Permission(["dynamodb:GetItem"], [requests_table(self, self._hosting).table_arn], seals),
            may.encrypted(self._hosting.table_key, "dynamodb", write=False),
        ]

    def _resource_permissions(self) -> list[may.Permission]:
        jobs = may.account_arn(BATCH_JOBS)
        machine = may.Permission(["states:StartExecution"], [self._job.labelling_machine_arn])
        return [
            *registering(self, self._hosting),
            *self._folder(),
            *may.purge(self._bucket, self, self._labels),
            machine,
            *self._describe("StopExecution"),
            may.bedrock(["GetModelCustomizationJob"], [may.account_arn(may.JOBS)]),
            may.bedrock(["ListModelInvocationJobs"], ["*"]),
            may.bedrock(["ListTagsForResource"], [jobs]),
            *may.retagging(self._owner, [jobs]),
            may.bedrock(["StopModelInvocationJob"], [jobs], may.owned(self._owner)),
        ]

    def _folder(self) -> list[may.Permission]:
        return [
            may.objects(self._bucket, self, ["GetObject", "PutObject"], [self._labels]),
            may.listing(self._bucket, ["ListBucket"], [self._labels]),
            may.encrypted(self._key, "s3"),
        ]

    def _describe(self, *more: str) -> list[may.Permission]:
        return [
            may.executions(self._job.labelling_machine_arn, "DescribeExecution", *more),
            self._hosting.describe_executions(),
        ]


def _published(holdout: Dataset) -> dict[str, str]:
    """Return a published hold-out set as a property of the custom resource."""
    return {"Key": holdout.holdout_key, "Sha256": holdout.holdout_sha256}


def _network(vpc: VpcConfig | None) -> dict[str, Sequence[str]]:
    """Return the network of batch jobs, as CreateModelInvocationJob takes it."""
    if vpc is None:
        return {}
    return {"subnetIds": list(vpc.subnet_ids), "securityGroupIds": list(vpc.security_group_ids)}
