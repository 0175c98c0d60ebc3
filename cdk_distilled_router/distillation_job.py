"""Construct DistillationJob: one Bedrock customization job, started by a deployment and never waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    DISTILLATION,
    InvocationLogs,
    JobInputs,
    check_names,
    elsewhere,
    is_uri,
)
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, release_name
from distilled_router.env import Env

BEGINS = "Starts, adopts or stops a customization job"
CHECKS = "Says whether a customization job exists, or has ended"
MAKES = "Makes a customization job whose data is there now"


class DistillationJob(Construct):
    """A DISTILLATION or FINE_TUNING job whose name carries the digest of all that decides its model.

    The same name is the same work: a redeploy makes no call that costs. Another name starts another job, and
    CloudFormation deletes this one once the update has succeeded: it is stopped if it runs, and its model is
    deleted unless it is retained or still serves.

    Attributes:
        owner, student: as they were given.
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
        student: str,
        training_key: str | None = None,
        invocation_logs: InvocationLogs | None = None,
        teacher: str | None = None,
        max_response_length: int | None = None,
        method: str = DISTILLATION,
        digest: str | None = None,
        nonce: str = "",
        hyperparameters: Mapping[str, str] | None = None,
        key: kms.IKey | None = None,
        model_key: kms.IKey | None = None,
        validators: Sequence[str] = (),
        vpc: VpcConfig | None = None,
        made_later: bool = False,
        allow_legacy: bool = False,
        retain_model: bool = True,
        retain_output: bool = True,
        tags: Mapping[str, str] | None = None,
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare the job. Either `training_key` or `invocation_logs` is given.

        Args:
            owner: name of whoever owns what is made: begins the job's name, used as a tag and in permissions.
            bucket: where rows are read and `jobs/<job name>/` is written; in the stack's Region.
            student: id with a context length, e.g. `amazon.nova-micro-v1:0:128k`.
            training_key: the rows' key in the bucket. Other content needs another key, or a nonce. In a
                folder, the role may read all of its first folder.
            invocation_logs: logged requests in place of rows; distillation only.
            teacher: a foundation model's id or a `us.` inference profile's; required for distillation only.
            max_response_length: tokens that the teacher may answer with; distillation only.
            method: `distillation` or `fine_tuning`.
            digest: given where the content of the data or more should decide the name. By default that of the
                arguments that decide the model, and of the nonce.
            nonce: change it to pay for the same job once more, for instance after a failed one.
            hyperparameters: fine-tuning's own, values as text.
            key: the key that encrypts the bucket. Default: the bucket's own, if it has one.
            model_key: a key for the model itself; invoking it then needs kms:Decrypt.
            validators: up to 10 files, S3 keys in the bucket or URIs of others, each with a loss of its own.
            vpc: the network from which the job reads and writes S3. It decides nothing of the model: another
                one is in force from the next job on.
            made_later: leave it to a state machine to make the job, by `maker`, once its data is there.
            allow_legacy: take a model that is LEGACY, until its end.
            retain_model: leave the model when the resource goes; storing it costs 1.95 USD a month.
            retain_output: leave what the job wrote to the bucket.
            tags: put on job and model, besides the owner's.
            hosting: where functions run, with which key, and how long their logs are kept.

        Raises:
            ValueError: arguments that Bedrock doesn't take together, or a value beyond its limits.
        """
        super().__init__(scope, construct_id)
        self.owner, self.student = owner, student
        self._bucket, self._key, self._model_key, self._vpc = bucket, key, model_key, vpc
        self._inputs = JobInputs(
            student=student,
            training_key=training_key,
            invocation_logs=invocation_logs,
            teacher=teacher,
            max_response_length=max_response_length,
            method=method,
            nonce=nonce,
            hyperparameters=dict(hyperparameters or {}),
            model_key=model_key is not None,
            validators=tuple(validators),
        )
        try:
            self._inputs.check()
            self.digest = digest or self._inputs.digest()
            self.job_name = release_name(owner, self.digest)
            check_names(owner, self.digest)
        except ValueError as error:
            raise ValueError(f"{self.node.path}: {error}.") from error
        self.role = self._job_role()
        self.maker_role = may.function_role(self, "Role", self._permissions())
        properties = {
            **self._request(),
            "MadeLater": made_later or None,
            "AllowLegacy": allow_legacy,
            "RetainModel": retain_model,
            "RetainOutput": retain_output,
            "Tags": {**(tags or {}), OWNER_TAG: owner, DIGEST_TAG: self.digest},
        }
        self.properties = {name: value for name, value in properties.items() if value not in (None, [], {})}
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockDistillationJob",
            service_token=self._provider(hosting).service_token,
            properties=self.properties,
        )
        self.resource.node.add_dependency(self.role, self.maker_role)
        self.maker = self._function("Make", "make", MAKES, hosting) if made_later else None

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

    def _request(self) -> dict[str, object]:
        """The request's part of the properties; what isn't given is None or empty."""
        inputs, logs, vpc = self._inputs, self._inputs.invocation_logs, self._vpc
        return {
            "JobName": self.job_name,
            "CustomModelName": self.job_name,
            "RoleArn": self.role.role_arn,
            "BaseModelIdentifier": inputs.student,
            "CustomizationType": inputs.method.upper(),
            "TrainingDataUri": inputs.training_key and self._uri(inputs.training_key),
            "InvocationLogsUri": logs and logs.uri,
            "UsePromptResponse": logs and logs.use_prompt_response,
            "RequestMetadata": logs and dict(logs.metadata),
            "OutputDataUri": f"s3://{self._bucket.bucket_name}/jobs/{self.job_name}/",
            "ValidationDataUris": [self._uri(name) for name in inputs.validators],
            "TeacherModelIdentifier": inputs.teacher,
            "MaxResponseLengthForInference": inputs.max_response_length,
            "HyperParameters": dict(inputs.hyperparameters),
            "SubnetIds": vpc and list(vpc.subnet_ids),
            "SecurityGroupIds": vpc and list(vpc.security_group_ids),
            "CustomModelKmsKeyId": self._model_key and self._model_key.key_arn,
        }

    def _uri(self, name: str) -> str:
        return name if is_uri(name) else f"s3://{self._bucket.bucket_name}/{name}"

    def _job_role(self) -> iam.Role:
        """What Bedrock assumes for the job."""
        inputs, key = self._inputs, self._key or self._bucket.encryption_key
        own = [inputs.training_key, *(name for name in inputs.validators if not is_uri(name))]
        read = list(dict.fromkeys([*(may.first_folder(name) for name in own if name), "jobs/*"]))
        return may.bedrock_role(
            self,
            "JobRole",
            jobs=may.JOBS,
            description=(
                f"Bedrock's jobs of {self.student}: read the data set, write the metrics, ask the teacher"
            ),
            permissions=[
                may.objects(self._bucket, self, ["GetObject"], read),
                may.objects(self._bucket, self, ["PutObject"], ["jobs/*"]),
                may.listing(self._bucket, ["ListBucket"], read),
                # Bedrock reads and writes with this role through S3, from its own network.
                may.Permission(["kms:Decrypt", "kms:GenerateDataKey"], [key.key_arn] if key else []),
                *(may.invoke(inputs.teacher) if inputs.teacher else []),
                *(elsewhere(inputs.invocation_logs.uri, folder=True) if inputs.invocation_logs else []),
                *(p for name in inputs.validators if is_uri(name) for p in elsewhere(name, folder=False)),
                *(may.interfaces(self._vpc, "model-customization-job/*") if self._vpc else []),
            ],
        )

    def _permissions(self) -> list[may.Permission]:
        student, teacher, owned = self.student, self._inputs.teacher, may.owned(self.owner)
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
            *may.purge(self._bucket, self, "jobs/*"),
            *([may.model_key(self._model_key)] if self._model_key else []),
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
