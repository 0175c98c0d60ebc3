"""Construct Release: one model's way into production, started by the deployment and never waited for."""

from __future__ import annotations

import json
from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sns as sns
from constructs import Construct

from stacks.bedrock import permissions as may
from stacks.bedrock.provider import ResourceProvider
from stacks.bedrock.provisioned_throughput import ProvisionedThroughput
from stacks.bedrock.release_machine import ReleaseMachine
from stacks.functions import Function


class Release(Construct):
    """Waits for a job's model, judges it, gives it requests step by step, and retires what it replaced.

    Declaring another digest starts another release; what serves goes on serving until the new one has
    passed. Deleting the construct ends everything that releases of this owner made.

    Attributes:
        machine: the state machine.
        resource: the custom resource.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        digest: str,
        student: str,
        table: dynamodb.ITable,
        topic: sns.ITopic,
        bucket: s3.IBucket,
        key: kms.IKey,
        holdout_key: str,
        gate: Mapping[str, float],
        rollout: Mapping[str, object],
        keep_releases: int = 1,
        throughput: ProvisionedThroughput | None = None,
        model_key: bool = False,
        poll_seconds: int = 300,
        timeout_hours: float = 120,
        stall_hours: float = 48,
        retain_models: bool = True,
        retain_reports: bool = True,
        tags: Mapping[str, str] | None = None,
        log_days: int = 90,
    ) -> None:
        """Declare the release of job `<owner>-<digest>`.

        Args:
            owner: name of whoever owns what releases make; also the resource's physical id.
            digest: 12 hex digits of all that decides the model.
            student: the base model's customization id, part of its models' ARNs.
            table: the releases table, partition key `id` (string).
            topic: told of each release's end.
            bucket: holds the hold-out set and gets the reports, encrypted with `key`.
            holdout_key: key of the hold-out set in the bucket.
            gate: thresholds, as `evaluation.scores.Gate` names them.
            rollout: `steps`, `dwell_seconds`, `minimum_requests`, `maximum_rates` by metric.
            keep_releases: good releases kept for rollback, beyond the live one.
            throughput: serve from it, not from the on-demand deployment that a candidate is judged on.
            model_key: whether models are encrypted with `key`.
            poll_seconds: how often the job is looked at.
            timeout_hours: how long a job may take, its queue included.
            stall_hours: from when on a job that has not started counts as stalled.
            retain_models: keep every model, whatever becomes of its release.
            retain_reports: keep the reports when the construct goes.
            tags: put on what releases make, besides the owner's.
            log_days: how long logs are kept.
        """
        super().__init__(scope, construct_id)
        self._owner, self._student, self._log_days = owner, student, log_days
        self._table, self._key, self._bucket, self._model_key = table, key, bucket, model_key
        base = {"POWERTOOLS_SERVICE_NAME": owner, "NAME": owner, "TABLE_NAME": table.table_name}
        sweeping = {
            **base,
            "KEEP_RELEASES": str(keep_releases),
            "KEEP_THROUGHPUT": str(throughput is not None).lower(),
            "RETAIN_MODELS": str(retain_models).lower(),
        }
        candidate = {
            **base,
            "POLL_SECONDS": str(poll_seconds),
            "TIMEOUT_HOURS": str(timeout_hours),
            "STALL_HOURS": str(stall_hours),
            "TAGS": json.dumps(dict(tags or {}), sort_keys=True),
        }
        judging = {
            **base,
            "DATA_BUCKET": bucket.bucket_name,
            "HOLDOUT_KEY": holdout_key,
            "GATE": json.dumps(dict(gate), sort_keys=True),
        }
        rising = {**base, "ROLLOUT": json.dumps(dict(rollout), sort_keys=True)}

        # TransactWriteItems is authorised as the actions of its items.
        steps = ["GetItem", "UpdateItem"]
        all_items = [*steps, "Scan", "PutItem", "DeleteItem"]
        roles = {
            "candidate": self._role("Candidate", steps, self._candidate_permissions()),
            "evaluation": self._role("Evaluation", steps, self._evaluation_permissions()),
            "promotion": self._role("Promotion", [*steps, "PutItem"], self._promotion_permissions()),
            "sweeper": self._role("Sweeper", all_items, self._sweeper_permissions()),
            "release": self._role("Release", all_items, self._sweeper_permissions()),
        }
        watch = self._function(
            "WatchJob", "candidate", "watch_job", roles, candidate, "Looks at a release's job"
        )
        deploy = self._function(
            "Deploy", "candidate", "deploy", roles, candidate, "Deploys a release's candidate"
        )
        judge = self._function(
            "Judge", "evaluation", "handler", roles, judging, "Judges a release's candidate"
        )
        promote = self._function("Promote", "promotion", "handler", roles, rising, "Raises a release's share")
        retire = self._function(
            "Retire", "sweeper", "retire", roles, sweeping, "Retires what a release replaced"
        )
        fail = self._function("Fail", "sweeper", "fail", roles, sweeping, "Ends a release that failed")
        sweep = self._function(
            "Sweep", "sweeper", "handler", roles, sweeping, "Removes what no release needs"
        )

        stages = [
            ("Wait for the job", watch),
            ("Deploy the candidate", deploy),
            ("Judge the candidate", judge),
            ("Raise its share", promote),
        ]
        if throughput:
            # Bought by the hour, and moved in place with all that it serves: only for what has proven itself.
            stages.append(("Serve from the throughput", throughput.stage))
        self.machine = ReleaseMachine(
            self,
            "Way",
            owner=owner,
            stages=stages,
            retire=retire,
            fail=fail,
            topic=topic,
            poll_seconds=poll_seconds,
            timeout_hours=timeout_hours,
            log_days=log_days,
        ).machine
        may.grant(roles["sweeper"], [self._on_executions("DescribeExecution")])
        rules = self._sweep_on(sweep)
        properties = {
            "Digest": digest,
            "Endpoint": "provisioned" if throughput else "on_demand",
            # What judges a release: a changed gate is a reason to try a refused one again.
            "Gate": judging["GATE"],
            "Rollout": rising["ROLLOUT"],
            "RetainModels": retain_models,
            "RetainReports": retain_reports,
        }
        self.resource = self._resource(roles["release"], base, properties)
        # Deleted in the reverse order: the resource's Delete still needs all of this.
        self.resource.node.add_dependency(self.machine, *roles.values(), *rules)
        if throughput:
            self.resource.node.add_dependency(throughput)

    def _role(self, name: str, on_items: list[str], permissions: list[may.Permission]) -> iam.Role:
        table = may.items(self._table, self._key, on_items)
        return may.function_role(self, f"{name}Role", [*permissions, *table])

    def _function(
        self,
        construct_id: str,
        folder: str,
        entry: str,
        roles: Mapping[str, iam.Role],
        environment: Mapping[str, str],
        description: str,
    ) -> Function:
        return Function(
            self,
            construct_id,
            folder=folder,
            entry=entry,
            role=roles[folder],
            environment=environment,
            log_days=self._log_days,
            timeout=cdk.Duration.minutes(15 if folder == "evaluation" else 5),
            memory_mb=512 if folder == "evaluation" else 256,
            description=description,
        )

    def _resource(
        self, role: iam.Role, environment: Mapping[str, str], properties: Mapping[str, object]
    ) -> cdk.CustomResource:
        self.machine.grant_start_execution(role)
        may.grant(
            role,
            [
                self._on_executions("DescribeExecution", "StopExecution"),
                *may.purge(self._bucket, self, "releases/*"),
            ],
        )
        on_event = self._function(
            "OnEvent",
            "release",
            "on_event",
            {"release": role},
            environment,
            "Starts a release, or ends them all",
        )
        is_complete = self._function(
            "IsComplete",
            "release",
            "is_complete",
            {"release": role},
            environment,
            "Says whether a release was started, or all are gone",
        )
        provider = ResourceProvider(
            self, "Provider", on_event=on_event, is_complete=is_complete, log_days=self._log_days
        )
        return cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockRelease",
            service_token=provider.service_token,
            properties={
                "Owner": self._owner,
                "StateMachineArn": self.machine.state_machine_arn,
                "Bucket": self._bucket.bucket_name,
                **properties,
            },
        )

    def _sweep_on(self, sweep: Function) -> list[events.Rule]:
        """Every hour, and when an execution ends without having ended its release: events are best effort."""
        hourly = events.Rule(self, "Hourly", schedule=events.Schedule.rate(cdk.Duration.hours(1)))
        ended = events.Rule(
            self,
            "Ended",
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
            rule.add_target(targets.LambdaFunction(sweep))
        return [hourly, ended]

    def _on_executions(self, *actions: str) -> may.Permission:
        execution = cdk.Stack.of(self).format_arn(
            service="states",
            resource="execution",
            resource_name=f"{self._owner}-release:*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        because = "Executions are named by digest and attempt, which only a running system knows."
        return may.Permission([f"states:{action}" for action in actions], [execution], {}, because)

    def _candidate_permissions(self) -> list[may.Permission]:
        jobs, models = may.jobs(self._student), may.models(self._student)
        deployments = may.account_arn(may.DEPLOYMENTS)
        return [
            may.bedrock(["GetModelCustomizationJob"], [jobs]),
            may.bedrock(["GetCustomModel"], [models]),
            may.bedrock(["CreateCustomModelDeployment"], [models], may.tagged_for(self._owner)),
            may.bedrock(["TagResource"], [deployments], may.tagged_for(self._owner)),
            may.bedrock(["GetCustomModelDeployment", "ListTagsForResource"], [deployments]),
            *([may.model_key(self._key)] if self._model_key else []),
        ]

    def _evaluation_permissions(self) -> list[may.Permission]:
        return [
            may.bedrock(["InvokeModel"], [may.account_arn(may.DEPLOYMENTS)]),
            may.objects(self._bucket, self, ["GetObject"], ["datasets/*"]),
            may.objects(self._bucket, self, ["PutObject"], ["releases/*"]),
            may.encrypted(self._key, *(["s3", "bedrock"] if self._model_key else ["s3"])),
        ]

    @staticmethod
    def _promotion_permissions() -> list[may.Permission]:
        return [may.Permission(["cloudwatch:GetMetricStatistics"], ["*"], {}, may.NO_RESOURCE)]

    def _sweeper_permissions(self) -> list[may.Permission]:
        models, deployments = may.models(self._student), may.account_arn(may.DEPLOYMENTS)
        lists = ["ListCustomModels", "ListCustomModelDeployments", "ListProvisionedModelThroughputs"]
        return [
            may.bedrock(lists, ["*"]),
            may.bedrock(["GetCustomModelDeployment", "ListTagsForResource"], [deployments]),
            may.bedrock(["DeleteCustomModelDeployment"], [deployments], may.owned(self._owner)),
            may.bedrock(["DeleteCustomModel"], [models], may.owned(self._owner)),
            # No condition key for tags here: the code asks for the owner's tag first.
            may.bedrock(
                ["GetProvisionedModelThroughput", "DeleteProvisionedModelThroughput", "ListTagsForResource"],
                [may.account_arn(may.THROUGHPUTS)],
            ),
        ]
