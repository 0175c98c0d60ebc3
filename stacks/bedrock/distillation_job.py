"""Construct DistillationJob: one Bedrock customization job, started by a deployment and never waited for."""

from __future__ import annotations

from collections.abc import Mapping

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from shared.naming import DIGEST_TAG, OWNER_TAG
from stacks.bedrock import permissions as may
from stacks.bedrock.provider import ResourceProvider
from stacks.functions import Function


class DistillationJob(Construct):
    """A DISTILLATION or FINE_TUNING job whose name carries the digest of all that decides its model.

    The same name is the same work: a redeploy makes no call that costs. Another name starts another job, and
    CloudFormation deletes this one once the update has succeeded: it is stopped if it runs, and its model is
    deleted unless it is retained or still serves.

    Attributes:
        job_name: the job's name, which is the resource's physical id.
        role: the role that Bedrock assumes to read the data and to ask the teacher.
        resource: the custom resource.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        digest: str,
        job_name: str,
        student: str,
        method: str,
        training_uri: str,
        bucket: s3.IBucket,
        key: kms.IKey,
        teacher: str | None = None,
        max_response_length: int | None = None,
        hyperparameters: Mapping[str, str] | None = None,
        model_key: kms.IKey | None = None,
        allow_legacy: bool = False,
        retain_model: bool = True,
        retain_output: bool = True,
        tags: Mapping[str, str] | None = None,
        log_days: int = 90,
    ) -> None:
        """Declare the job.

        Args:
            owner: name of whoever owns what is made, used as a tag and in permissions.
            digest: of all that decides the model, used as a tag.
            job_name: 1 to 63 characters; also the model's name.
            student: id with a context length, e.g. `amazon.nova-micro-v1:0:128k`.
            method: `distillation` (needs a teacher) or `fine_tuning`.
            training_uri: S3 URI of the rows, under `datasets/` of the bucket.
            bucket: where rows are read and `jobs/<job name>/` is written, encrypted with `key`.
            teacher: a foundation model's id or a system inference profile.
            max_response_length: tokens that the teacher may answer with.
            hyperparameters: fine-tuning's own, values as text.
            model_key: a key for the model itself; invoking it then needs kms:Decrypt.
            allow_legacy: take a model that is LEGACY, until its end.
            retain_model: leave the model when the resource goes; storing it costs 1.95 USD a month.
            retain_output: leave what the job wrote to the bucket.
            tags: put on job and model, besides the owner's.
            log_days: how long the handlers' logs are kept.
        """
        super().__init__(scope, construct_id)
        self.job_name = job_name
        self.role = self._job_role(student, teacher, bucket, key)
        role = may.function_role(self, "Role", self._permissions(owner, student, teacher, model_key, bucket))
        resource_tags = {**(tags or {}), OWNER_TAG: owner, DIGEST_TAG: digest}
        functions = {
            entry: Function(
                self,
                construct,
                folder="distillation_job",
                entry=entry,
                role=role,
                environment={"POWERTOOLS_SERVICE_NAME": owner},
                log_days=log_days,
                timeout=cdk.Duration.minutes(5),
                description=description,
            )
            for construct, entry, description in (
                ("OnEvent", "on_event", "Starts, adopts or stops a customization job"),
                ("IsComplete", "is_complete", "Says whether a customization job exists, or has ended"),
            )
        }
        provider = ResourceProvider(
            self,
            "Provider",
            on_event=functions["on_event"],
            is_complete=functions["is_complete"],
            log_days=log_days,
        )
        properties: dict[str, object] = {
            "JobName": job_name,
            "CustomModelName": job_name,
            "RoleArn": self.role.role_arn,
            "BaseModelIdentifier": student,
            "CustomizationType": method.upper(),
            "TrainingDataUri": training_uri,
            "OutputDataUri": f"s3://{bucket.bucket_name}/jobs/{job_name}/",
            "TeacherModelIdentifier": teacher,
            "MaxResponseLengthForInference": max_response_length,
            "HyperParameters": dict(hyperparameters) if hyperparameters else None,
            "CustomModelKmsKeyId": model_key.key_arn if model_key else None,
            "AllowLegacy": allow_legacy,
            "RetainModel": retain_model,
            "RetainOutput": retain_output,
            "Tags": resource_tags,
        }
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockDistillationJob",
            service_token=provider.service_token,
            properties={name: value for name, value in properties.items() if value is not None},
        )
        self.resource.node.add_dependency(self.role, role)

    def _job_role(self, student: str, teacher: str | None, bucket: s3.IBucket, key: kms.IKey) -> iam.Role:
        """What Bedrock assumes, for this account's jobs in this Region only."""
        role = iam.Role(
            self,
            "JobRole",
            assumed_by=iam.ServicePrincipal(
                "bedrock.amazonaws.com",
                conditions={
                    "StringEquals": {"aws:SourceAccount": cdk.Aws.ACCOUNT_ID},
                    "ArnLike": {"aws:SourceArn": may.account_arn("model-customization-job/*")},
                },
            ),
            description=f"Bedrock's jobs of {student}: read the data set, write the metrics, ask the teacher",
        )
        may.grant(
            role,
            [
                may.objects(bucket, self, ["GetObject"], ["datasets/*", "jobs/*"]),
                may.objects(bucket, self, ["PutObject"], ["jobs/*"]),
                may.listing(bucket, ["ListBucket"], ["datasets/*", "jobs/*"]),
                # Bedrock reads and writes with this role through S3, from its own network.
                may.Permission(["kms:Decrypt", "kms:GenerateDataKey"], [key.key_arn]),
                *(may.invoke(teacher) if teacher else []),
            ],
        )
        return role

    def _permissions(
        self, owner: str, student: str, teacher: str | None, model_key: kms.IKey | None, bucket: s3.IBucket
    ) -> list[may.Permission]:
        jobs, models = may.jobs(student), may.models(student)
        names = [student] + ([teacher.removeprefix("us.")] if teacher else [])
        return [
            may.bedrock(["GetFoundationModel"], [may.foundation_model_arn(name) for name in names]),
            may.bedrock(["CreateModelCustomizationJob"], [may.foundation_model_arn(student), models, jobs]),
            may.bedrock(["GetModelCustomizationJob", "ListTagsForResource", "TagResource"], [jobs]),
            may.bedrock(["TagResource"], [models]),
            may.bedrock(["StopModelCustomizationJob", "UntagResource"], [jobs], may.owned(owner)),
            may.bedrock(["DeleteCustomModel", "UntagResource"], [models], may.owned(owner)),
            may.bedrock(["ListCustomModelDeployments", "ListProvisionedModelThroughputs"], ["*"]),
            may.Permission(
                ["iam:PassRole"],
                [self.role.role_arn],
                {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}},
            ),
            *may.purge(bucket, self, "jobs/*"),
            *([may.model_key(model_key)] if model_key else []),
        ]
