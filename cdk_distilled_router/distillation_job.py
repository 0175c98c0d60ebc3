"""Construct DistillationJob: one Bedrock customization job, started by a deployment and never waited for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK
from cdk_distilled_router.common.functions import Function
from cdk_distilled_router.common.hosting import DEFAULT, Hosting, VpcConfig
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.existing import ExistingJob, ExistingModel
from cdk_distilled_router.job_inputs import (
    JobData,
    JobInputs,
    check_names,
    elsewhere,
    is_uri,
)
from cdk_distilled_router.props import RETAIN, JobProps, RetentionProps
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, release_name
from distilled_router.env import Env

BEGINS = "Starts, adopts or stops a customization job"
CHECKS = "Says whether a customization job exists, or has ended"
MAKES = "Makes a customization job whose data is there now"


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What decides nothing of the model, but for its key.

    Args:
        model_key: a key for the model itself; invoking it then needs kms:Decrypt.
        vpc: the network from which the job reads and writes S3. Another one is in force from the next job on.
        retention: `models` says whether the model stays when the resource goes, where storing it costs 1.95
            USD a month; `data` whether what the job wrote to the bucket does.
        tags: put on job and model, besides the owner's.
    """

    model_key: kms.IKey | None = None
    vpc: VpcConfig | None = None
    retention: RetentionProps = RETAIN
    tags: Mapping[str, str] = field(default_factory=dict)


class DistillationJob(Construct):
    """A DISTILLATION or FINE_TUNING job whose name carries the digest of all that decides its model.

    The same name is the same work: a redeploy makes no call that costs. Another name starts another job, and
    CloudFormation deletes this one once the update has succeeded: it is stopped if it runs, and its model is
    deleted unless it is retained or still serves.

    Attributes:
        owner, student, bucket, props, options, tags: as they were given.
        digest: 12 hex digits of all that decides the model.
        job_name: `<owner>-<digest>`, which is the resource's physical id, and the model's name.
        source: the same, as a release takes it.
        role: the role that Bedrock assumes to read the data and to ask the teacher. What it lacks for a
            bucket or a key of somebody else's can be granted to it.
        maker, maker_role: where it is `made_later`, the function that makes it, a stage of a state machine
            that is given `properties` and the execution; and the role of all the handlers.
        resource: the custom resource. Its attributes tell of the job as it was at the last event:
            `JobArn`, `JobName`, `Status`, `BaseModel`, `ModelArn`, `TrainingLoss`, `ValidationLoss`.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        bucket: s3.IBucket,
        data: JobData,
        props: JobProps,
        digest: str | None = None,
        options: JobOptions = JobOptions(),
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare the job.

        Args:
            owner: name of whoever owns what is made: begins the job's name, used as a tag and in permissions.
            bucket: where rows are read and `jobs/<job name>/` is written; in the stack's Region.
            data: what it learns from.
            props: what else decides the model.
            digest: given where the content of the data or more should decide the name. By default that of
                `data`, `props` and whether the model has a key of its own.
            options: what decides nothing of the model but its key.
            hosting: where functions run, with which key, and how long their logs are kept.

        Raises:
            ValueError: arguments that Bedrock doesn't take together, or a value beyond its limits.
        """
        super().__init__(scope, construct_id)
        self.owner, self.student, self.bucket = owner, props.student, bucket
        self.props, self.options, self.tags = props, options, dict(options.tags)
        self._inputs = JobInputs(props=props, data=data, model_key=options.model_key is not None)
        self.digest = self._checked_digest(digest)
        self.job_name = release_name(owner, self.digest)
        self.role = self._job_role()
        self.maker_role = may.function_role(self, "Role", self._permissions())
        self.properties = self._properties()
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockDistillationJob",
            service_token=self._provider(hosting).service_token,
            properties=self.properties,
        )
        self.resource.node.add_dependency(self.role, self.maker_role)
        self.maker = self._function("CreateJob", "create_job", MAKES, hosting) if data.made_later else None

    @staticmethod
    def from_job_arn(scope: Construct, construct_id: str, job_arn: str) -> ExistingJob:
        """A job that this stack doesn't manage: looked up, never made, changed or stopped."""
        return ExistingJob(scope, construct_id, job_arn)

    @staticmethod
    def from_model_arn(scope: Construct, construct_id: str, model_arn: str) -> ExistingModel:
        """A custom model that this stack doesn't manage: looked up, never deleted."""
        return ExistingModel(scope, construct_id, model_arn)

    @property
    def source(self) -> str:
        """What a release gets its model from: the job of this name, or a later attempt at it."""
        return self.job_name

    def _checked_digest(self, given: str | None) -> str:
        """Return the digest, given or computed. Raises ValueError for what Bedrock would refuse."""
        try:
            self._inputs.check()
            digest = given or self._inputs.digest()
            check_names(self.owner, digest)
        except ValueError as error:
            raise ValueError(f"{self.node.path}: {error}.") from error
        return digest

    def _properties(self) -> dict[str, object]:
        """Return the custom resource's properties: the request, and how to treat job and model."""
        retention = self.options.retention
        properties = {
            **self._request(),
            "MadeLater": self._inputs.data.made_later or None,
            "AllowLegacy": self.props.allow_legacy,
            "RetainModel": retention.models == "retain",
            "RetainOutput": retention.data == "retain",
            "Tags": {**self.tags, OWNER_TAG: self.owner, DIGEST_TAG: self.digest},
        }
        return {name: value for name, value in properties.items() if value not in (None, [], {})}

    @property
    def labelling_machine_arn(self) -> str:
        """The state machine that creates the job (`Labelling`); empty where the deployment does."""
        return may.machine_arn(f"{self.owner}-labelling") if self._inputs.data.made_later else ""

    @property
    def has_model_key(self) -> bool:
        """Whether the model is encrypted with a customer managed key."""
        return self.options.model_key is not None

    def _request(self) -> dict[str, object]:
        """The request's part of the properties; what isn't given is None or empty."""
        props, data, vpc, key = self.props, self._inputs.data, self.options.vpc, self.options.model_key
        logs = data.invocation_logs
        return {
            "JobName": self.job_name,
            "CustomModelName": self.job_name,
            "RoleArn": self.role.role_arn,
            "BaseModelIdentifier": props.student,
            "CustomizationType": props.method.upper(),
            "TrainingDataUri": data.training_key and self._uri(data.training_key),
            "InvocationLogsUri": logs and logs.uri,
            "UsePromptResponse": logs and logs.use_prompt_response,
            "RequestMetadata": logs and dict(logs.metadata),
            "OutputDataUri": f"s3://{self.bucket.bucket_name}/jobs/{self.job_name}/",
            "ValidationDataUris": [self._uri(name) for name in data.validators],
            "TeacherModelIdentifier": props.asked_teacher,
            "MaxResponseLengthForInference": props.max_response_length,
            "HyperParameters": props.api_hyperparameters(),
            "SubnetIds": vpc and list(vpc.subnet_ids),
            "SecurityGroupIds": vpc and list(vpc.security_group_ids),
            "CustomModelKmsKeyId": key and key.key_arn,
        }

    def _uri(self, name: str) -> str:
        return name if is_uri(name) else f"s3://{self.bucket.bucket_name}/{name}"

    def _job_role(self) -> iam.Role:
        """What Bedrock assumes for the job."""
        data, key, vpc = self._inputs.data, self.bucket.encryption_key, self.options.vpc
        teacher, logs = self.props.asked_teacher, data.invocation_logs
        own = [data.training_key, *(name for name in data.validators if not is_uri(name))]
        read = list(dict.fromkeys([*(may.first_folder(name) for name in own if name), "jobs/*"]))
        return may.bedrock_role(
            self,
            "JobRole",
            jobs=may.JOBS,
            description=(
                f"Bedrock's jobs of {self.student}: read the data set, write the metrics, ask the teacher"
            ),
            permissions=[
                may.objects(self.bucket, self, ["GetObject"], read),
                may.objects(self.bucket, self, ["PutObject"], ["jobs/*"]),
                may.listing(self.bucket, ["ListBucket"], read),
                # Bedrock reads and writes with this role through S3, from its own network.
                may.Permission(["kms:Decrypt", "kms:GenerateDataKey"], [key.key_arn] if key else []),
                *(may.invoke(teacher) if teacher else []),
                *(elsewhere(logs.uri, folder=True) if logs else []),
                *(p for name in data.validators if is_uri(name) for p in elsewhere(name, folder=False)),
                *(may.interfaces(vpc, "model-customization-job/*") if vpc else []),
            ],
        )

    def _permissions(self) -> list[may.Permission]:
        student, teacher, owned = self.student, self.props.asked_teacher, may.owned(self.owner)
        jobs, models = may.jobs(student), may.models(student)
        all_jobs, all_models = may.account_arn(may.JOBS), may.account_arn(may.MODELS)
        asked = [student] + ([teacher.removeprefix("us.")] if teacher else [])
        return [
            may.bedrock(["GetFoundationModel"], [may.foundation_model_arn(name) for name in asked]),
            may.bedrock(
                ["CreateModelCustomizationJob"],
                [may.foundation_model_arn(student), models, jobs],
                may.tagged_for(self.owner),
            ),
            may.tagging(self.owner, [jobs, models]),
            may.bedrock(["GetModelCustomizationJob"], [all_jobs]),
            may.bedrock(["ListTagsForResource"], [all_jobs, all_models]),
            *may.retagging(self.owner, [all_jobs, all_models]),
            may.bedrock(["StopModelCustomizationJob"], [all_jobs], owned),
            may.bedrock(["DeleteCustomModel"], [all_models], owned),
            may.bedrock(["ListCustomModelDeployments", "ListProvisionedModelThroughputs"], ["*"]),
            may.pass_role(self.role),
            *may.purge(self.bucket, self, "jobs/*"),
            *([may.model_key(self.options.model_key)] if self.options.model_key else []),
        ]

    def _provider(self, hosting: Hosting) -> ResourceProvider:
        return ResourceProvider(
            self,
            "Provider",
            on_event=self._function("OnEvent", "on_event", BEGINS, hosting),
            is_complete=self._function("IsComplete", "is_complete", CHECKS, hosting),
            hosting=hosting,
        )

    def _function(self, construct_id: str, entry: str, description: str, hosting: Hosting) -> Function:
        return Function(
            self,
            construct_id,
            handler=f"distillation_job.{entry}",
            role=self.maker_role,
            environment=Env(owner=self.owner),
            hosting=hosting,
            description=description,
            caller=FRAMEWORK,
        )
