"""What the functions of a release may do, step by step."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.release import judge as judging
from cdk_distilled_router.release.context import ReleaseContext


class ReleasePermissions:
    """Permissions of a release's functions, beside those on the releases table."""

    def __init__(self, context: ReleaseContext, judge_role: iam.IRole | None) -> None:
        """`judge_role` is what Bedrock assumes for evaluation jobs, where a judge is set."""
        self._context, self._judge_role = context, judge_role
        self._owner, self._bucket, self._key = context.owner, context.bucket, context.key
        self._job, self._props = context.job, context.props

    def candidate(self) -> list[may.Permission]:
        """Watching the job, stopping it or making it again where that is set, and deploying its model."""
        jobs, models = may.jobs(self._job.student), may.models(self._job.student)
        deployments = may.account_arn(may.DEPLOYMENTS)
        owned, tagged = may.owned(self._owner), may.tagged_for(self._owner)
        return [
            # By its name, which says nothing of a student while there is no such job.
            may.bedrock(["GetModelCustomizationJob"], [may.account_arn(may.JOBS)]),
            may.bedrock(["GetCustomModel"], [models]),
            # A new model gets the tags that its job has by then.
            may.bedrock(["ListTagsForResource"], [jobs, models]),
            *may.retagging(self._owner, [models]),
            *(
                [may.bedrock(["StopModelCustomizationJob"], [jobs], owned)]
                if self._props.timing.stop_stalled
                else []
            ),
            *self._making_again(),
            *self._labelling(),
            may.bedrock(["CreateCustomModelDeployment"], [models], tagged),
            may.tagging(self._owner, [deployments]),
            may.bedrock(["GetCustomModelDeployment", "ListTagsForResource"], [deployments]),
            *([may.model_key(self._key)] if self._job.has_model_key and self._key else []),
        ]

    def _making_again(self) -> list[may.Permission]:
        """What it takes to make the same job again, under another name."""
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
        """Following the labelling that makes the job, and starting it again where it was stopped."""
        if not self._job.labelling_machine_arn:
            return []
        return [
            may.Permission(["states:StartExecution"], [self._job.labelling_machine_arn]),
            may.executions(self._job.labelling_machine_arn, "DescribeExecution"),
            self._context.hosting.reading(),
        ]

    def evaluation(self) -> list[may.Permission]:
        """Asking the candidate and who it is compared with, and keeping questions, answers and report."""
        return [
            *self._asking(),
            *(may.invoke(self._props.compared_base_model) if self._props.compared_base_model else []),
            may.objects(self._bucket, self._context.scope, ["GetObject", "PutObject"], ["releases/*"]),
            may.listing(self._bucket, ["ListBucket"], ["releases/*"]),
            may.encrypted(self._key, "s3"),
            *([may.encrypted(self._key, "bedrock", write=False)] if self._job.has_model_key else []),
        ]

    def grading(self) -> list[may.Permission]:
        """Having a judge grade the answers that are kept."""
        assert self._judge_role is not None
        return [
            *judging.grading(self._owner, self._props.judge, self._judge_role),
            may.objects(self._bucket, self._context.scope, ["GetObject", "PutObject"], ["releases/*"]),
            may.listing(self._bucket, ["ListBucket"], ["releases/*"]),
            may.encrypted(self._key, "s3"),
        ]

    def rollout(self) -> list[may.Permission]:
        """Looking at the candidate's metrics, and asking it and what serves where they are too few."""
        return [
            may.Permission(["cloudwatch:GetMetricStatistics"], ["*"], {}, may.NO_RESOURCE),
            *self._asking(),
            may.encrypted(
                self._key, *(["s3", "bedrock"] if self._job.has_model_key else ["s3"]), write=False
            ),
        ]

    def _asking(self) -> list[may.Permission]:
        """Putting the hold-out set's questions to releases."""
        endpoints = [may.account_arn(may.DEPLOYMENTS), may.account_arn(may.THROUGHPUTS)]
        return [
            may.bedrock(["InvokeModel"], endpoints),
            may.objects(
                self._bucket,
                self._context.scope,
                ["GetObject"],
                [may.first_folder(self._context.holdout_key)],
            ),
        ]

    def sweeper(self) -> list[may.Permission]:
        """Removing what no release needs."""
        return [*self._removing(), *self._on_executions("DescribeExecution")]

    def resource(self) -> list[may.Permission]:
        """Ending all releases, and removing all that they made."""
        return [
            *self._removing(),
            *self._on_executions("DescribeExecution", "StopExecution"),
            *may.purge(self._bucket, self._context.scope, "releases/*"),
        ]

    def _removing(self) -> list[may.Permission]:
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
            *(judging.stopping(self._owner) if self._props.judge else []),
        ]

    def _on_executions(self, *actions: str) -> list[may.Permission]:
        execution = cdk.Stack.of(self._context.scope).format_arn(
            service="states",
            resource="execution",
            resource_name=f"{self._owner}-release:*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        because = "Executions are named by digest and attempt, which only a running system knows."
        return [
            may.Permission([f"states:{action}" for action in actions], [execution], {}, because),
            self._context.hosting.reading(),
        ]
