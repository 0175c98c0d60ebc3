"""What the functions of a release may do, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.release import judge as judging


@dataclass(frozen=True, kw_only=True)
class ReleasePermissions:
    """Permissions beside those on the releases table. `labelling` is the ARN of the state machine that makes
    the job, or empty; `job_role` is given where jobs are made again, `judge` and `judge_role` where a model
    grades the answers."""

    scope: Construct
    owner: str
    student: str
    bucket: s3.IBucket
    holdout_key: str
    key: kms.IKey | None
    model_key: bool
    base_model: str
    labelling: str
    stop_stalled: bool
    job_role: iam.IRole | None
    judge: str
    judge_role: iam.IRole | None
    hosting: Hosting

    def candidate(self) -> list[may.Permission]:
        """Watching the job, stopping it or making it again where that is set, and deploying its model."""
        jobs, models = may.jobs(self.student), may.models(self.student)
        deployments = may.account_arn(may.DEPLOYMENTS)
        owned, tagged = may.owned(self.owner), may.tagged_for(self.owner)
        return [
            # By its name, which says nothing of a student while there is no such job.
            may.bedrock(["GetModelCustomizationJob"], [may.account_arn(may.JOBS)]),
            may.bedrock(["GetCustomModel"], [models]),
            # A new model gets the tags that its job has by then.
            may.bedrock(["ListTagsForResource"], [jobs, models]),
            *may.retagging(self.owner, [models]),
            *([may.bedrock(["StopModelCustomizationJob"], [jobs], owned)] if self.stop_stalled else []),
            *self._making_again(),
            *self._labelling(),
            may.bedrock(["CreateCustomModelDeployment"], [models], tagged),
            may.tagging(self.owner, [deployments]),
            may.bedrock(["GetCustomModelDeployment", "ListTagsForResource"], [deployments]),
            *([may.model_key(self.key)] if self.model_key and self.key else []),
        ]

    def _making_again(self) -> list[may.Permission]:
        """What it takes to make the same job again, under another name."""
        if self.job_role is None:
            return []
        jobs, models = may.jobs(self.student), may.models(self.student)
        student, tagged = may.foundation_model_arn(self.student), may.tagged_for(self.owner)
        return [
            may.bedrock(["CreateModelCustomizationJob"], [student, models, jobs], tagged),
            may.tagging(self.owner, [models, jobs]),
            may.pass_role(self.job_role),
        ]

    def _labelling(self) -> list[may.Permission]:
        """Following the labelling that makes the job, and starting it again where it was stopped."""
        if not self.labelling:
            return []
        return [
            may.Permission(["states:StartExecution"], [self.labelling]),
            may.executions(self.labelling, "DescribeExecution"),
            self.hosting.reading(),
        ]

    def evaluation(self) -> list[may.Permission]:
        """Asking the candidate and who it is compared with, and keeping questions, answers and report."""
        return [
            *self._asking(),
            *(may.invoke(self.base_model) if self.base_model else []),
            may.objects(self.bucket, self.scope, ["GetObject", "PutObject"], ["releases/*"]),
            may.listing(self.bucket, ["ListBucket"], ["releases/*"]),
            may.encrypted(self.key, "s3"),
            *([may.encrypted(self.key, "bedrock", write=False)] if self.model_key else []),
        ]

    def grading(self) -> list[may.Permission]:
        """Having a judge grade the answers that are kept."""
        assert self.judge_role is not None
        return [
            *judging.grading(self.owner, self.judge, self.judge_role),
            may.objects(self.bucket, self.scope, ["GetObject", "PutObject"], ["releases/*"]),
            may.listing(self.bucket, ["ListBucket"], ["releases/*"]),
            may.encrypted(self.key, "s3"),
        ]

    def rollout(self) -> list[may.Permission]:
        """Looking at the candidate's metrics, and asking it and what serves where they are too few."""
        return [
            may.Permission(["cloudwatch:GetMetricStatistics"], ["*"], {}, may.NO_RESOURCE),
            *self._asking(),
            may.encrypted(self.key, *(["s3", "bedrock"] if self.model_key else ["s3"]), write=False),
        ]

    def _asking(self) -> list[may.Permission]:
        """Putting the hold-out set's questions to releases."""
        endpoints = [may.account_arn(may.DEPLOYMENTS), may.account_arn(may.THROUGHPUTS)]
        return [
            may.bedrock(["InvokeModel"], endpoints),
            may.objects(self.bucket, self.scope, ["GetObject"], [may.first_folder(self.holdout_key)]),
        ]

    def sweeper(self) -> list[may.Permission]:
        """Removing what no release needs."""
        return [*self._removing(), *self._on_executions("DescribeExecution")]

    def resource(self) -> list[may.Permission]:
        """Ending all releases, and removing all that they made."""
        return [
            *self._removing(),
            *self._on_executions("DescribeExecution", "StopExecution"),
            *may.purge(self.bucket, self.scope, "releases/*"),
        ]

    def _removing(self) -> list[may.Permission]:
        models, deployments = may.account_arn(may.MODELS), may.account_arn(may.DEPLOYMENTS)
        throughputs = may.account_arn(may.THROUGHPUTS)
        lists = ["ListCustomModels", "ListCustomModelDeployments", "ListProvisionedModelThroughputs"]
        return [
            may.bedrock(lists, ["*"]),
            may.bedrock(["GetCustomModelDeployment", "ListTagsForResource"], [deployments]),
            may.bedrock(["ListTagsForResource"], [models]),
            may.bedrock(["DeleteCustomModelDeployment"], [deployments], may.owned(self.owner)),
            may.bedrock(["DeleteCustomModel"], [models], may.owned(self.owner)),
            may.bedrock(["GetProvisionedModelThroughput", "ListTagsForResource"], [throughputs]),
            may.bedrock(["DeleteProvisionedModelThroughput"], [throughputs], may.owned(self.owner)),
            *(judging.stopping(self.owner) if self.judge else []),
        ]

    def _on_executions(self, *actions: str) -> list[may.Permission]:
        execution = cdk.Stack.of(self.scope).format_arn(
            service="states",
            resource="execution",
            resource_name=f"{self.owner}-release:*",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        because = "Executions are named by digest and attempt, which only a running system knows."
        return [
            may.Permission([f"states:{action}" for action in actions], [execution], {}, because),
            self.hosting.reading(),
        ]
