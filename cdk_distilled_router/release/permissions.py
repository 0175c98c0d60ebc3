"""Permissions of a release's functions, role by role."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.release import judge as judging
from cdk_distilled_router.release.context import ReleaseContext
from distilled_router.release.route import releases_folder


class ReleasePermissions:
    """Permissions of a release's functions, except those on the releases table."""

    def __init__(self, context: ReleaseContext, judge_role: iam.IRole | None) -> None:
        """Keep the context; Bedrock assumes `judge_role` for evaluation jobs, if there is a judge."""
        self._context, self._judge_role = context, judge_role
        self._owner, self._bucket, self._key = context.owner, context.bucket, context.key
        self._job, self._props = context.job, context.props
        self._reports = f"{releases_folder(context.owner)}*"

    def candidate(self) -> list[may.Permission]:
        """Return what polling, stopping and recreating the job, and deploying its model, need."""
        jobs, models = may.jobs(self._job.student), may.models(self._job.student)
        deployments = may.account_arn(may.DEPLOYMENTS)
        owned, tagged = may.owned(self._owner), may.tagged_for(self._owner)
        timing, is_adopted = self._props.timing, self._job.source.startswith("arn:")
        stops = not is_adopted and (timing.stop_stalled or timing.retry_internal_errors)
        return [
            # By name: the ARN contains the student, which is unknown until the job exists.
            may.bedrock(["GetModelCustomizationJob"], [may.account_arn(may.JOBS)]),
            may.bedrock(["GetCustomModel"], [models]),
            # A new model gets the current tags of its job.
            may.bedrock(["ListTagsForResource"], [jobs, models]),
            *may.retagging(self._owner, [models]),
            *([may.bedrock(["StopModelCustomizationJob", "UntagResource"], [jobs], owned)] if stops else []),
            # The training file is checked after the job's end.
            *self._job.reading_training(self._context.scope),
            *self._recreating(),
            *self._labelling(),
            may.bedrock(["CreateCustomModelDeployment"], [models], tagged),
            may.tagging(self._owner, [deployments]),
            *may.retagging(self._owner, [deployments])[:1],
            may.bedrock(["GetCustomModelDeployment", "ListTagsForResource"], [deployments]),
            *([may.model_key(self._key)] if self._job.has_model_key and self._key else []),
        ]

    def _recreating(self) -> list[may.Permission]:
        """Return what creating the same job again, under another name, needs."""
        role = self._job.role if self._props.timing.retry_internal_errors else None
        if role is None:
            return []
        jobs, models = may.jobs(self._job.student), may.models(self._job.student)
        student, tagged = may.foundation_model_arn(self._job.student), may.tagged_for(self._owner)
        return [
            may.bedrock(["CreateModelCustomizationJob"], [student, models, jobs], tagged),
            may.tagging(self._owner, [models, jobs]),
            may.pass_role(role),
        ]

    def _labelling(self) -> list[may.Permission]:
        """Return what polling the labelling, and restarting a stopped one, needs."""
        if not self._job.labelling_machine_arn:
            return []
        return [
            may.Permission(["states:StartExecution"], [self._job.labelling_machine_arn]),
            may.executions(self._job.labelling_machine_arn, "DescribeExecution"),
            self._context.hosting.describe_executions(),
        ]

    def evaluation(self) -> list[may.Permission]:
        """Return what asking all compared models, and storing questions, answers and report, needs."""
        # Both have the data set's warnings beside them.
        keys = [key for key in (self._context.holdout_key, self._job.training_key) if key]
        return [
            *self._asking(*keys),
            *(may.invoke(self._props.compared_base_model) if self._props.compared_base_model else []),
            may.objects(self._bucket, self._context.scope, ["GetObject", "PutObject"], [self._reports]),
            may.listing(self._bucket, ["ListBucket"], [self._reports]),
            may.encrypted(self._key, "s3"),
            *([may.encrypted(self._key, "bedrock", write=False)] if self._job.has_model_key else []),
        ]

    def grading(self) -> list[may.Permission]:
        """Return what grading the stored answers by a judge needs."""
        assert self._judge_role is not None
        return [
            *judging.grading(self._owner, self._props.judge, self._judge_role),
            may.objects(self._bucket, self._context.scope, ["GetObject", "PutObject"], [self._reports]),
            may.listing(self._bucket, ["ListBucket"], [self._reports]),
            may.encrypted(self._key, "s3"),
        ]

    def rollout(self) -> list[may.Permission]:
        """Return what reading the candidate's metrics, and probing candidate and live release, needs."""
        return [
            may.Permission(["cloudwatch:GetMetricStatistics"], ["*"], {}, may.NO_RESOURCE),
            *self._asking(self._context.holdout_key),
            may.encrypted(
                self._key, *(["s3", "bedrock"] if self._job.has_model_key else ["s3"]), write=False
            ),
        ]

    def _asking(self, *keys: str) -> list[may.Permission]:
        """Return what asking releases the questions of the hold-out set, and reading these keys, needs."""
        return [
            may.invoke_endpoints(self._owner),
            may.objects(
                self._bucket,
                self._context.scope,
                ["GetObject"],
                list(dict.fromkeys(map(may.first_folder, keys))),
            ),
        ]

    def sweeper(self) -> list[may.Permission]:
        """Return what deleting resources that no release needs requires."""
        return [*self._deleting(), *self._on_executions("DescribeExecution")]

    def resource(self) -> list[may.Permission]:
        """Return what ending all releases, and deleting all that they created, needs."""
        return [
            *self._deleting(),
            # What the table knows is found even if Bedrock's lists lag.
            may.bedrock(["GetCustomModel"], [may.account_arn(may.MODELS)]),
            *self._on_executions("DescribeExecution", "StopExecution"),
            *may.purge(self._bucket, self._context.scope, self._reports),
            # A moved construct claims what the other logical id claims, which passes its claims on. What
            # another resource claims, too, only loses this claim.
            *may.retagging(self._owner, self._paid()),
        ]

    @staticmethod
    def _paid() -> list[str]:
        """Return the ARN patterns of all that a release claims."""
        return [
            may.account_arn(pattern)
            for pattern in (may.MODELS, may.DEPLOYMENTS, may.THROUGHPUTS, judging.JOBS)
        ]

    def _deleting(self) -> list[may.Permission]:
        models, deployments = may.account_arn(may.MODELS), may.account_arn(may.DEPLOYMENTS)
        throughputs = may.account_arn(may.THROUGHPUTS)
        lists = ["ListCustomModels", "ListCustomModelDeployments", "ListProvisionedModelThroughputs"]
        return [
            may.bedrock(lists, ["*"]),
            may.bedrock(["GetCustomModelDeployment", "ListTagsForResource"], [deployments]),
            may.bedrock(["ListTagsForResource"], [models]),
            may.bedrock(["DeleteCustomModelDeployment"], [deployments], may.owned(self._owner)),
            may.bedrock(["DeleteCustomModel"], [models], may.owned(self._owner)),
            may.bedrock(["GetProvisionedModelThroughput", "ListTagsForResource"], [throughputs]),
            may.bedrock(["DeleteProvisionedModelThroughput"], [throughputs], may.owned(self._owner)),
            # Also without a judge: one that was removed from the settings may have left a running job.
            *judging.stopping(self._owner),
        ]

    def _on_executions(self, *actions: str) -> list[may.Permission]:
        execution = cdk.Stack.of(self._context.scope).format_arn(
            service="states",
            resource="execution",
            resource_name=f"{self._owner}-release:*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        because = "The names of executions contain digest and attempt, which aren't known at synthesis."
        return [
            may.Permission([f"states:{action}" for action in actions], [execution], {}, because),
            self._context.hosting.describe_executions(),
        ]
