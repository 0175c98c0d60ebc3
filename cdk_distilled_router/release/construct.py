"""Construct Release: one model's way into production, started by the deployment and never waited for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Protocol

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK, MACHINE, SCHEDULE, Caller
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import DEFAULT, Hosting
from cdk_distilled_router.common.nag import acknowledge
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.provisioned_throughput import ProvisionedThroughput
from cdk_distilled_router.release.judge import judge_role
from cdk_distilled_router.release.machine import ReleaseMachine, ShardStage, Stage
from cdk_distilled_router.release.permissions import ReleasePermissions
from distilled_router.env import (
    CandidateEnv,
    Env,
    EvaluationEnv,
    GradeAnswersEnv,
    ReleaseEnv,
    RolloutEnv,
    SweeperEnv,
)

# What a candidate is judged by, and how it rises, where nothing else is said: the numbers of
# environments/prod.toml, for what answers real queries. A hold-out set of fewer than 200 examples fails.
GATE: Mapping[str, float] = {
    "minimum_valid_output": 0.98,
    "minimum_dominant_accuracy": 0.85,
    "maximum_mean_absolute_error": 0.10,
    "minimum_examples": 200,
}
ROLLOUT: Mapping[str, object] = {
    "steps": [0.05, 0.25, 0.5, 1.0],
    "dwell_seconds": 1800,
    "minimum_requests": 200,
    "maximum_rates": {"RouterErrors": 0.01, "Fallback": 0.03, "InvalidOutput": 0.02},
    "worse_by": 0.02,
    "slower_by": 0.5,
    "bake_seconds": 3600,
    "probes": 200,
}
# Bedrock's own errors come within minutes and cost nothing, as users report. A job that meets four in a row
# does not meet them by chance.
MOST_RETRIES = 3


class ReleaseSource(Protocol):
    """Where a release's model comes from: a DistillationJob, an ExistingJob or an ExistingModel.

    All are literals at synthesis, so that another stack may read them without an export.
    """

    @property
    def digest(self) -> str:
        """12 hex digits, of all that decides the model."""

    @property
    def student(self) -> str:
        """The base model's customization id, part of the model's ARN."""

    @property
    def source(self) -> str:
        """The name of a job of ours, a job's ARN, or a model's ARN."""


class Release(Construct):
    """Waits for a job's model, judges it, gives it requests step by step, and retires what it replaced.

    Declaring another digest starts another release; what serves goes on serving until the new one has
    passed. Deleting the construct ends everything that releases of this owner made. A model that was adopted
    is never deleted.

    `Release(self, "Release", owner="search", job=job, bucket=bucket, holdout_key="datasets/holdout.jsonl")`
    is enough: all else has defaults.

    Attributes:
        owner: name of whoever owns what releases make.
        digest: of the release that is declared.
        table: the releases table; the router reads its route.
        topic: told of each release's end.
        undelivered: keeps for two weeks what reached nobody: events for the sweeper, and messages of the
            topic's subscriptions that name it.
        key: encrypts both, if any does.
        machine: the state machine.
        resource: the custom resource.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        job: ReleaseSource,
        bucket: s3.IBucket,
        holdout_key: str,
        gate: Mapping[str, float | bool | None] = GATE,
        rollout: Mapping[str, object] = ROLLOUT,
        table: dynamodb.ITable | None = None,
        topic: sns.ITopic | None = None,
        key: kms.IKey | None = None,
        base_model: str = "",
        slice_queries: int = 100,
        evaluation_concurrency: int = 2,
        judge: str = "",
        judge_hours: float = 6,
        keep_releases: int = 1,
        throughput: ProvisionedThroughput | None = None,
        model_key: bool = False,
        poll_seconds: int = 300,
        timeout_hours: float = 120,
        stall_hours: float = 48,
        stop_stalled: bool = False,
        retry_internal_errors: int = 0,
        job_role: iam.IRole | None = None,
        labelling: str = "",
        attempt: int = 1,
        retain_models: bool = True,
        retain_reports: bool = True,
        retain_throughput: bool = False,
        tags: Mapping[str, str] | None = None,
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare the release of a job's model, or of a model.

        Args:
            owner: name of whoever owns what releases make; also the resource's physical id.
            job: where the model comes from; made before the release, and deleted after it.
            bucket: holds the hold-out set, and gets the reports under `releases/`.
            holdout_key: key of the hold-out set in the bucket.
            gate: thresholds, as `evaluation.gate.Gate` names them.
            rollout: `steps`, `dwell_seconds`, `minimum_requests`, `maximum_rates` by metric, `worse_by`,
                `slower_by`, `bake_seconds`, `probes`; as the settings of these names.
            table: the releases table, partition key `id` (string), encrypted with `key`; by default its own.
            topic: told of each release's end; by default its own.
            key: encrypts bucket, table and topic. Default: the bucket's; without one, AWS's own keys do.
            base_model: asked the hold-out set too, for comparison, by the full prompt; empty for none.
            slice_queries: hold-out queries of which each robustness slice has a variant; 0 for no slices.
            evaluation_concurrency: shards of 500 questions that are asked at a time.
            judge: id of a model that grades the candidate's answers from 1 to 5, in an evaluation job of
                Bedrock; billed by the token. Empty for none.
            judge_hours: hours after which such a job is stopped, and there is no grade.
            keep_releases: good releases kept for rollback, beyond the live one.
            throughput: serve from it, not from the on-demand deployment that a candidate is judged on; one
                that was given this release's table.
            model_key: whether models are encrypted with `key`.
            poll_seconds: how often the job is looked at.
            timeout_hours: how long a job may take, its queue included.
            stall_hours: from when on a job that has not started counts as stalled.
            stop_stalled: stop such a job, and end its release. Jobs of others are never stopped.
            retry_internal_errors: how often, 3 at most, a job that Bedrock failed by an error of its own is
                made again, over the digest's life.
            job_role: what Bedrock assumes for the job; only for `retry_internal_errors`, which passes it on.
            labelling: ARN of the state machine that makes the job, if one does (`Labelling.machine_arn`).
            attempt: raise it to start the same release again after it failed.
            retain_models: keep every model, whatever becomes of its release.
            retain_reports: keep the reports when the construct goes.
            retain_throughput: leave throughput that nothing is routed to; it is billed until it is deleted.
            tags: put on what releases make, besides the owner's.
            hosting: where functions run, with which key, and how long their logs are kept.

        Raises:
            ValueError: the settings can't work together; the text says what can.
        """
        super().__init__(scope, construct_id)
        self.owner, self.digest, self.key = owner, job.digest, key or bucket.encryption_key
        if model_key and self.key is None:
            raise ValueError(
                f"Release {owner}: model_key needs the key that models are encrypted with, as key."
            )
        if throughput and throughput.stage is None:
            raise ValueError(
                f"Release {owner}: the deployment buys throughput {throughput.name}; give it this release's "
                "table in place of model_arn, and the release buys it."
            )
        if gate.get("minimum_judge_score") is not None and not judge:
            raise ValueError(f"Release {owner}: gate.minimum_judge_score needs a judge, which grades.")
        _check_retries(owner, job.source, retry_internal_errors, job_role)
        self._bucket, self._hosting = bucket, hosting
        self.table = table or releases_table(self, "Table", self.key)
        self.topic = topic or releases_topic(self, "Topic", self.key)
        self.undelivered = _undelivered(self, "Undelivered")
        table_name = self.table.table_name
        sweeping = SweeperEnv(
            owner=owner,
            table_name=table_name,
            keep_releases=keep_releases,
            retain_models=retain_models,
            retain_throughput=retain_throughput,
            throughput_name=throughput.name if throughput else "",
            judge=judge,
        )
        candidate = CandidateEnv(
            owner=owner,
            table_name=table_name,
            poll_seconds=poll_seconds,
            timeout_hours=timeout_hours,
            stall_hours=stall_hours,
            stop_stalled=stop_stalled,
            retry_internal_errors=retry_internal_errors,
            labelling_machine_arn=labelling,
            tags=dict(tags or {}),
        )
        judging = EvaluationEnv(
            owner=owner,
            table_name=table_name,
            bucket=bucket.bucket_name,
            holdout_key=holdout_key,
            gate=gate,
            base_model=base_model,
            slice_queries=slice_queries,
            judge=judge,
        )
        graded_by = judge_role(self, "JudgeRole", judge=judge, bucket=bucket, key=self.key) if judge else None
        rising = RolloutEnv(
            owner=owner,
            table_name=table_name,
            bucket=bucket.bucket_name,
            holdout_key=holdout_key,
            rollout=rollout,
        )

        grants = ReleasePermissions(
            scope=self,
            owner=owner,
            student=job.student,
            bucket=bucket,
            holdout_key=holdout_key,
            key=self.key,
            model_key=model_key,
            base_model=base_model,
            labelling=labelling,
            stop_stalled=stop_stalled,
            job_role=job_role if retry_internal_errors else None,
            judge=judge,
            judge_role=graded_by,
            hosting=hosting,
        )
        # TransactWriteItems is authorised as the actions of its items. Scan also reads the route's copies,
        # where the item can't tell its version.
        steps = ["GetItem", "UpdateItem"]
        all_items = [*steps, "Scan", "PutItem"]
        roles = {
            "candidate": self._role("Candidate", steps, grants.candidate()),
            "evaluation": self._role("Evaluation", [*steps, "Scan"], grants.evaluation()),
            "rollout": self._role("Rollout", [*steps, "PutItem", "Scan"], grants.rollout()),
            "sweeper": self._role("Sweeper", [*all_items, "DeleteItem"], grants.sweeper()),
            "release": self._role("Release", all_items, grants.resource()),
        }
        watch = self._function(
            "WatchJob", "candidate", "watch_job", roles, candidate, "Looks at a release's job"
        )
        deploy = self._function(
            "DeployCandidate",
            "candidate",
            "deploy_candidate",
            roles,
            candidate,
            "Deploys a release's candidate",
        )
        prepare = self._function(
            "PrepareEvaluation",
            "evaluation",
            "prepare_evaluation",
            roles,
            judging,
            "Writes the questions",
        )
        ask = self._function(
            "AskModels",
            "evaluation",
            "ask_models",
            roles,
            judging,
            "Asks all contenders",
        )
        decide = self._function(
            "ScoreAndGate",
            "evaluation",
            "score_and_gate",
            roles,
            judging,
            "Scores, and applies the gate",
        )
        promote = self._function("RollOut", "rollout", "roll_out", roles, rising, "Takes a rollout step")
        retire = self._function(
            "RetireOld", "sweeper", "retire_old", roles, sweeping, "Retires what a release replaced"
        )
        fail = self._function("Fail", "sweeper", "fail", roles, sweeping, "Ends a release that failed")
        sweep = self._function(
            "Sweep", "sweeper", "sweep", roles, sweeping, "Removes what no release needs", SCHEDULE
        )

        grade = None
        if graded_by:
            roles["grading"] = self._role("GradeAnswers", steps, grants.grading())
            grading = GradeAnswersEnv(
                owner=owner,
                table_name=table_name,
                bucket=bucket.bucket_name,
                judge=judge,
                judge_hours=judge_hours,
                judge_role_arn=graded_by.role_arn,
                poll_seconds=poll_seconds,
                tags=dict(tags or {}),
            )
            role = {"evaluation": roles["grading"]}
            grade = self._function(
                "GradeAnswers",
                "evaluation",
                "grade_answers",
                role,
                grading,
                "Has a judge grade answers",
            )
        stages = [
            Stage(name="WatchJob", function=watch),
            Stage(name="DeployCandidate", function=deploy),
            Stage(name="PrepareEvaluation", function=prepare),
            ShardStage(
                name="AskModels",
                function=ask,
                bucket=bucket,
                folder="releases/{}/questions/",
                concurrency=evaluation_concurrency,
                label="Questions",
            ),
            *([Stage(name="GradeAnswers", function=grade)] if grade else []),
            Stage(name="ScoreAndGate", function=decide),
            Stage(name="RollOut", function=promote),
        ]
        if throughput and throughput.stage:
            # Bought by the hour, and moved in place with all that it serves: only for what has proven itself.
            stages.append(Stage(name="ServeFromThroughput", function=throughput.stage))
        self.machine = ReleaseMachine(
            self,
            "StateMachine",
            owner=owner,
            stages=stages,
            retire=retire,
            fail=fail,
            topic=self.topic,
            poll_seconds=poll_seconds,
            timeout_hours=timeout_hours,
            hosting=hosting,
        ).machine
        rules = self._sweep_on(sweep)
        properties = {
            "Digest": job.digest,
            "Source": job.source,
            "Endpoint": throughput.name if throughput else "on_demand",
            # What ends a release: where it has changed, a failed one is tried again.
            "Gate": json.dumps(dict(gate), sort_keys=True),
            "Rollout": json.dumps(dict(rollout), sort_keys=True),
            "RetryInternalErrors": retry_internal_errors,
            # Left out where it says nothing: a release that failed must not start again by an upgrade.
            **({"Attempt": attempt} if attempt > 1 else {}),
            **({"Judge": judge} if judge else {}),
            "RetainModels": retain_models,
            "RetainReports": retain_reports,
            "RetainThroughput": retain_throughput,
        }
        self.resource = self._resource(
            roles["release"], ReleaseEnv(owner=owner, table_name=table_name), properties
        )
        # Deleted in the reverse order: the resource's Delete still needs all of this.
        self.resource.node.add_dependency(self.machine, *roles.values(), *rules)
        if graded_by:
            self.resource.node.add_dependency(graded_by)
        if throughput:
            self.resource.node.add_dependency(throughput)
        if isinstance(job, Construct):
            self.resource.node.add_dependency(job)

    def _role(self, name: str, on_items: list[str], permissions: list[may.Permission]) -> iam.Role:
        table = may.items(self.table, self.key, on_items)
        return may.function_role(self, f"{name}Role", [*permissions, *table])

    def _function(
        self,
        construct_id: str,
        folder: str,
        entry: str,
        roles: Mapping[str, iam.Role],
        environment: Env,
        description: str,
        caller: Caller = MACHINE,
    ) -> Function:
        return Function(
            self,
            construct_id,
            handler=f"{folder}.{entry}",
            role=roles[folder],
            environment=environment,
            hosting=self._hosting,
            description=description,
            caller=caller,
            props=FunctionProps(
                timeout=cdk.Duration.minutes(15 if folder == "evaluation" else 5),
                memory_mb=2048 if folder == "evaluation" else 256,
                dead_letters=self.undelivered if caller is SCHEDULE else None,
            ),
        )

    def _resource(
        self, role: iam.Role, environment: Env, properties: Mapping[str, object]
    ) -> cdk.CustomResource:
        self.machine.grant_start_execution(role)
        on_event = self._function(
            "OnEvent",
            "release",
            "on_event",
            {"release": role},
            environment,
            "Starts a release, or ends them all",
            FRAMEWORK,
        )
        is_complete = self._function(
            "IsComplete",
            "release",
            "is_complete",
            {"release": role},
            environment,
            "Says whether a release was started, or all are gone",
            FRAMEWORK,
        )
        provider = ResourceProvider(
            self, "Provider", on_event=on_event, is_complete=is_complete, hosting=self._hosting
        )
        return cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockRelease",
            service_token=provider.service_token,
            properties={
                "Owner": self.owner,
                "StateMachineArn": self.machine.state_machine_arn,
                "Bucket": self._bucket.bucket_name,
                **properties,
            },
        )

    def _sweep_on(self, sweep: Function) -> list[events.Rule]:
        """Every hour, and when an execution ends without having ended its release: events are best effort."""
        hourly = events.Rule(self, "SweepHourly", schedule=events.Schedule.rate(cdk.Duration.hours(1)))
        ended = events.Rule(
            self,
            "SweepOnFailure",
            event_pattern=events.EventPattern(
                source=["aws.states"],
                detail_type=["Step Functions Execution Status Change"],
                detail={
                    "stateMachineArn": [self.machine.state_machine_arn],
                    "status": ["FAILED", "TIMED_OUT", "ABORTED"],
                },
            ),
        )
        for rule in (hourly, ended):
            rule.add_target(targets.LambdaFunction(sweep, dead_letter_queue=self.undelivered))
        return [hourly, ended]


def releases_table(scope: Construct, construct_id: str, key: kms.IKey | None) -> dynamodb.Table:
    """The table of releases and route, encrypted with the key, or with AWS's own."""
    table = dynamodb.Table(
        scope,
        construct_id,
        partition_key=dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING),
        billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
        encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED if key else dynamodb.TableEncryption.DEFAULT,
        encryption_key=key,
        point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
            point_in_time_recovery_enabled=True
        ),
        # It names what releases made, all of which goes with them.
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    acknowledge(
        table,
        "DynamoDBInBackupPlan",
        "Point-in-time recovery keeps each second of the last 35 days. A vault that holds recovery points "
        "can't be deleted, and what the table names goes with its stack.",
    )
    return table


def releases_topic(scope: Construct, construct_id: str, key: kms.IKey | None) -> sns.Topic:
    """The topic that is told of releases, encrypted with the key if there is one; it takes TLS only."""
    return sns.Topic(scope, construct_id, master_key=key, enforce_ssl=True)


def _undelivered(scope: Construct, construct_id: str) -> sqs.Queue:
    """The queue for what could not be delivered."""
    queue = sqs.Queue(
        scope,
        construct_id,
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=True,
        retention_period=cdk.Duration.days(14),
        redrive_allow_policy=sqs.RedriveAllowPolicy(redrive_permission=sqs.RedrivePermission.DENY_ALL),
    )
    acknowledge(
        queue,
        "SQSRedrivePolicy",
        "It is itself where undelivered events and messages end; nothing reads them.",
    )
    acknowledge(
        queue,
        "SQSEncryptionKMS",
        "SQS encrypts it with a key of its own. EventBridge and SNS write to it as services, which the "
        "policy of a customer's key would have to name, and such a key may be another team's.",
    )
    return queue


def _check_retries(owner: str, source: str, retries: int, job_role: iam.IRole | None) -> None:
    if not 0 <= retries <= MOST_RETRIES:
        raise ValueError(
            f"Release {owner}: retry_internal_errors = {retries}; allowed are 0 to {MOST_RETRIES}."
        )
    if retries and source.startswith("arn:"):
        raise ValueError(
            f"Release {owner}: retry_internal_errors = {retries}, and {source} is adopted. Only a job of a "
            "DistillationJob is made again; allowed is 0."
        )
    if retries and job_role is None:
        raise ValueError(
            f"Release {owner}: retry_internal_errors = {retries} needs job_role, the role that Bedrock "
            "assumes for the job (DistillationJob.role); or set it to 0."
        )
