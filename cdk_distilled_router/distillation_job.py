"""Construct DistillationJob: a Bedrock customization job, which a deployment starts and doesn't wait for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.catalogue import without_profile
from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK
from cdk_distilled_router.common.functions import Function
from cdk_distilled_router.common.hosting import DEFAULT, Hosting, VpcConfig, attached
from cdk_distilled_router.common.ownership import claimant, registering, resource_env
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.existing import ExistingJob, ExistingModel
from cdk_distilled_router.job_inputs import (
    JobData,
    JobInputs,
    check_names,
    is_uri,
    read_uri,
)
from cdk_distilled_router.props import RETAIN, JobProps, RetentionProps
from distilled_router.bedrock.naming import (
    DIGEST_TAG,
    HOLDOUT_TAG,
    OWNER_TAG,
    TRAINING_TAG,
    holdout_tag,
    release_name,
)
from distilled_router.env import CreateJobEnv, Env


@dataclass(frozen=True, kw_only=True)
class EarlierName:
    """The name that an earlier version, whose digest covered more, gave to the job.

    Args:
        job_name: the name.
        keep: what to do to keep the job, as a sentence without its full stop.
    """

    job_name: str
    keep: str


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Options of a job that don't change the model, except for its encryption.

    Args:
        model_key: encrypts the model; invoking it then needs kms:Decrypt.
        vpc: VPC from which the job reads and writes S3. A change applies to the next job.
        retention: `models` decides whether the model stays when the resource is deleted; storage costs 1.95
            USD a month. `data` decides whether the job's output stays.
        fallback_model: model that answers queries where no release does. The deployment checks that it can,
            before it pays for the job.
        earlier: the name that an earlier version gave the same job. An update from that name is refused.
        tags: tags of job and model, in addition to the owner's.
    """

    model_key: kms.IKey | None = None
    vpc: VpcConfig | None = None
    retention: RetentionProps = RETAIN
    fallback_model: str | None = None
    earlier: EarlierName | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class DistillationJob(Construct):
    """A Bedrock customization job: trains a student on a teacher's answers, or on labelled rows.

    Its name ends in the digest of everything that decides its model. With the same name, a deployment reuses
    the job and costs nothing. A new name starts a new job. The deployment doesn't wait for the job to end: a
    `Release` does.

    Example::

        job = DistillationJob(
            self,
            "Job",
            owner="search",
            bucket=bucket,
            data=JobData(training_key="rows/training.jsonl"),
            props=JobProps(teacher="us.amazon.nova-pro-v1:0", student="amazon.nova-micro-v1:0:128k"),
        )

    Attributes:
        owner: owner of job and model.
        teacher: the model that the student learns from; empty for fine-tuning on given rows.
        student: base model of the job.
        bucket: bucket with the rows.
        props: model, method and hyperparameters.
        options: encryption, VPC, retention and tags.
        tags: tags of job and model, in addition to the owner's.
        digest: 12 hex digits of everything that decides the model.
        job_name: `<owner>-<digest>`, name of job and model, and physical id of the resource.
        source: the job's name, as a release expects it.
        role: the role that Bedrock assumes to read the data and to ask the teacher. Grant it access to
            buckets and keys of other teams yourself.
        maker: for a job that is `made_later`, the function that creates it: a step of a state machine, called
            with `properties` and the execution. Otherwise None.
        maker_role: the role of all functions.
        resource: the custom resource. Its attributes have the job's state at the last deployment: `JobArn`,
            `JobName`, `Status`, `BaseModel` (the id for inference, without the context length), `ModelArn`,
            `TrainingLoss`, `ValidationLoss`; what does not exist yet is empty.

    Cost:
        The job, once for each name, and the model's storage by the month. Ended jobs stay listed in Bedrock,
        at no cost: no call deletes them.

    Permissions:
        The functions create, stop and tag jobs, and delete models, only with the owner's tag. Bedrock assumes
        `role`, which reads the training data's folder, writes `jobs/` and invokes the teacher.

    Delete:
        A running job is stopped: used tokens are charged, and there is no model. The job's output and its
        model are deleted unless `options.retention` keeps them. A model that a release claims, or that an
        endpoint serves, stays until its release removes it. A new name is a new resource: once the update has
        succeeded, CloudFormation deletes the old one like this.
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
            owner: owner of job and model: prefix of their names, their tag, and a condition of permissions.
            bucket: has the rows and receives `jobs/<job name>/`; in the stack's Region.
            data: the training data.
            props: model, method and hyperparameters.
            digest: 12 hex digits, for a name that also depends on other things, such as the data's content.
                Default: the digest of `data`, `props` and whether there is a `model_key`.
            options: encryption, VPC, retention and tags.
            hosting: VPC, key and log retention of the functions.

        Raises:
            ValueError: Bedrock doesn't accept an argument or a combination of arguments.
        """
        super().__init__(scope, construct_id)
        self.owner, self.student, self.bucket = owner, props.student, bucket
        self.props, self.options, self.tags = props, options, dict(options.tags)
        labelled_by = props.teacher if data.made_later else None
        self.teacher = props.asked_teacher or labelled_by or ""
        self._inputs = JobInputs(props=props, data=data, model_key=options.model_key is not None)
        self.digest = self._checked_digest(digest)
        self.job_name = release_name(owner, self.digest)
        self.role = self._job_role()
        self.maker_role = may.function_role(self, "Role", [*self._permissions(), *registering(self, hosting)])
        self.properties = self._properties()
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockDistillationJob",
            service_token=self._provider(hosting).service_token,
            properties=self.properties,
        )
        self.resource.node.add_dependency(self.role, self.maker_role)
        self.maker = self._step(hosting) if data.made_later else None
        may.tag_roles(self, owner)

    @staticmethod
    def from_job_arn(scope: Construct, construct_id: str, job_arn: str) -> ExistingJob:
        """Look up a job that this stack doesn't manage; it is never created, changed or stopped."""
        return ExistingJob(scope, construct_id, job_arn)

    @staticmethod
    def from_model_arn(scope: Construct, construct_id: str, model_arn: str) -> ExistingModel:
        """Look up a custom model that this stack doesn't manage; it is never deleted."""
        return ExistingModel(scope, construct_id, model_arn)

    @property
    def source(self) -> str:
        """Return the name of the job from which a release gets its model; later attempts begin with it."""
        return self.job_name

    def _checked_digest(self, given: str | None) -> str:
        """Return the digest, given or computed. Raise ValueError for arguments that Bedrock would refuse."""
        try:
            self._inputs.check()
            digest = given or self._inputs.digest()
            check_names(self.owner, digest)
        except ValueError as error:
            raise ValueError(f"{self.node.path}: {error}.") from error
        return digest

    def _properties(self) -> dict[str, object]:
        """Return the custom resource's properties: the request, and how to treat job and model."""
        retention, earlier = self.options.retention, self.options.earlier
        properties = {
            **self._request(),
            "MadeLater": self._inputs.data.made_later or None,
            "AllowLegacy": self.props.allow_legacy,
            "FallbackModel": self.options.fallback_model,
            "Earlier": earlier and {"JobName": earlier.job_name, "Keep": earlier.keep},
            "RetainModel": retention.models == "retain",
            "RetainOutput": retention.data == "retain",
            "Tags": {**self.tags, OWNER_TAG: self.owner, DIGEST_TAG: self.digest, **self._hashes()},
        }
        return {name: value for name, value in properties.items() if value not in (None, [], {})}

    def _hashes(self) -> dict[str, str]:
        """Return the tags with the SHA-256 of the published files, as far as they are given."""
        data = self._inputs.data
        holdout = holdout_tag(data.holdout_key) if data.holdout_key else HOLDOUT_TAG
        known = {TRAINING_TAG: data.training_sha256, holdout: data.holdout_sha256}
        return {tag: value for tag, value in known.items() if value}

    @property
    def labelling_machine_arn(self) -> str:
        """The state machine that creates the job (`Labelling`); empty where the deployment does."""
        return may.machine_arn(f"{self.owner}-labelling") if self._inputs.data.made_later else ""

    @property
    def training_key(self) -> str:
        """The key of the training rows, which have the data set's warnings beside them."""
        return self._inputs.data.training_key

    @property
    def has_model_key(self) -> bool:
        """Whether the model is encrypted with a customer managed key."""
        return self.options.model_key is not None

    def _request(self) -> dict[str, object]:
        """Return the properties that become the job's request; unset ones are None or empty."""
        props, data, key = self.props, self._inputs.data, self.options.model_key
        vpc = attached(self.options.vpc)
        return {
            "JobName": self.job_name,
            "CustomModelName": self.job_name,
            "RoleArn": self.role.role_arn,
            "BaseModelIdentifier": props.student,
            "CustomizationType": props.method.upper(),
            "TrainingDataUri": self._uri(data.training_key),
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
        """Return the role that Bedrock assumes for the job."""
        data, key, vpc = self._inputs.data, self.bucket.encryption_key, self.options.vpc
        teacher = self.props.asked_teacher
        own = [data.training_key, *(name for name in data.validators if not is_uri(name))]
        read = list(dict.fromkeys([*(may.first_folder(name) for name in own), "jobs/*"]))
        return may.bedrock_role(
            self,
            "JobRole",
            jobs=may.JOBS,
            description=(
                f"Customization jobs of {self.student}: read the data set, write metrics, ask the teacher"
            ),
            permissions=[
                may.objects(self.bucket, self, ["GetObject"], read),
                may.objects(self.bucket, self, ["PutObject"], ["jobs/*"]),
                may.listing(self.bucket, ["ListBucket"], read),
                # Bedrock reads and writes with this role through S3, from its own network.
                may.Permission(["kms:Decrypt", "kms:GenerateDataKey"], [key.key_arn] if key else []),
                *(may.invoke_in_jobs(teacher) if teacher else []),
                *(
                    permission
                    for name in data.validators
                    if is_uri(name)
                    for permission in read_uri(name, account=data.account)
                ),
                *(may.interfaces(vpc, "model-customization-job/*") if vpc else []),
            ],
        )

    def _permissions(self) -> list[may.Permission]:
        student, teacher, owned = self.student, self.props.asked_teacher, may.owned(self.owner)
        jobs, models = may.jobs(student), may.models(student)
        all_jobs, all_models = may.account_arn(may.JOBS), may.account_arn(may.MODELS)
        asked = dict.fromkeys(
            without_profile(name) for name in (student, teacher, self.options.fallback_model) if name
        )
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
            *self.reading_training(self),
            *may.purge(self.bucket, self, "jobs/*"),
            *([may.model_key(self.options.model_key)] if self.options.model_key else []),
        ]

    def reading_training(self, scope: Construct) -> list[may.Permission]:
        """Return what checking the training file needs; empty if its SHA-256 is unknown."""
        data = self._inputs.data
        if not (data.training_key and (data.training_sha256 or data.made_later)):
            return []
        return [
            may.objects(self.bucket, scope, ["GetObject"], [may.first_folder(data.training_key)]),
            may.encrypted(self.bucket.encryption_key, "s3", write=False),
        ]

    def _provider(self, hosting: Hosting) -> ResourceProvider:
        env = resource_env(self, self.owner, hosting)
        begins = "Creates, adopts or stops a customization job"
        checks = "Checks that a customization job exists, or has ended"
        return ResourceProvider(
            self,
            "Provider",
            on_event=self._function("OnEvent", "on_event", env, begins, hosting),
            is_complete=self._function("IsComplete", "is_complete", env, checks, hosting),
            hosting=hosting,
        )

    def _step(self, hosting: Hosting) -> Function:
        """Return the step of a state machine that creates the job once its data exists."""
        creates = "Creates a customization job for curated data"
        ours = claimant(self)
        env = CreateJobEnv(owner=self.owner, stack_id=ours.stack_id, logical_id=ours.logical_id)
        return self._function("CreateJob", "create_job", env, creates, hosting)

    def _function(
        self, construct_id: str, entry: str, environment: Env, description: str, hosting: Hosting
    ) -> Function:
        return Function(
            self,
            construct_id,
            handler=f"distillation_job.{entry}",
            role=self.maker_role,
            environment=environment,
            hosting=hosting,
            description=description,
            caller=FRAMEWORK,
        )
