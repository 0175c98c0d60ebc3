"""Constructs for jobs, models and throughput that are managed elsewhere: looked up, never changed."""

from __future__ import annotations

import hashlib
import re
from typing import ClassVar

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import DEFAULT, Hosting
from cdk_distilled_router.common.provider import ResourceProvider
from distilled_router.env import Env

_ARN = r"arn:aws[a-z-]*:bedrock:[a-z0-9-]+:[0-9]{12}:"


class _Existing(Construct):
    """Looks a resource up by its ARN, on creation and when ARN or nonce change.

    The deployment fails if there is no such resource. Removing the construct changes nothing in Bedrock.
    """

    _kind: ClassVar[str]
    _type: ClassVar[str]
    _action: ClassVar[str]
    _pattern: ClassVar[re.Pattern[str]]

    def __init__(
        self, scope: Construct, construct_id: str, arn: str, *, nonce: str = "", hosting: Hosting = DEFAULT
    ) -> None:
        """Declare the look-up.

        Args:
            arn: its ARN, as plain text.
            nonce: change it to look again.
            hosting: VPC, key and log retention of the function.

        Raises:
            ValueError: this is no ARN of this kind.
        """
        super().__init__(scope, construct_id)
        found = self._pattern.fullmatch(arn)
        if found is None:
            raise ValueError(
                f"{self.node.path}: {arn!r} is not the ARN of a {self._kind}: allowed is "
                f"{self._pattern.pattern}, as plain text."
            )
        self._parts = found.groupdict()
        role = may.function_role(self, "Role", [may.Permission([f"bedrock:{self._action}"], [arn])])
        handler = Function(
            self,
            "Handler",
            handler="existing.on_event",
            role=role,
            environment=Env(owner="existing"),
            hosting=hosting,
            description=f"Looks up a {self._kind} that is managed elsewhere",
            caller=FRAMEWORK,
            props=FunctionProps(timeout=cdk.Duration.minutes(2)),
        )
        provider = ResourceProvider(self, "Provider", on_event=handler, hosting=hosting)
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type=self._type,
            service_token=provider.service_token,
            properties={"Arn": arn, "Nonce": nonce},
        )
        # The role's policy must exist before the first event.
        self.resource.node.add_dependency(role)


class _ExistingSource(_Existing):
    """A resource from which a release can get its model."""

    # It is never created again, so that no role is passed on.
    role: iam.IRole | None = None
    labelling_machine_arn = ""
    training_key = ""
    teacher = ""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        arn: str,
        *,
        nonce: str = "",
        has_model_key: bool = False,
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare the look-up.

        Args:
            arn: its ARN, as plain text.
            nonce: change it to look again.
            has_model_key: whether the model is encrypted with the key that its release is given.
            hosting: VPC, key and log retention of the function.

        Raises:
            ValueError: this is no ARN of this kind.
        """
        super().__init__(scope, construct_id, arn, nonce=nonce, hosting=hosting)
        self.has_model_key = has_model_key
        self.source = arn
        self.digest = hashlib.sha256(arn.encode()).hexdigest()[:12]
        self.student: str = self._parts["student"]
        self.model_arn = self.resource.get_att_string("ModelArn")

    def reading_training(self, scope: Construct) -> list[may.Permission]:
        """Return what checking the training file needs: nothing, since its SHA-256 is unknown."""
        del scope
        return []


class ExistingJob(_ExistingSource):
    """A customization job that is managed elsewhere, from which a release gets its model.

    The deployment looks it up, and fails if there is no such job. It is never created again or stopped.

    Example::

        existing_job = DistillationJob.from_job_arn(
            self,
            "ExistingJob",
            "arn:aws:bedrock:us-east-1:111122223333:model-customization-job/amazon.nova-micro-v1:0:128k/a1b2c3d4e5f6",
        )

    Attributes:
        source: the job's ARN.
        digest: 12 hex digits of the ARN.
        student: the base model's customization id.
        model_arn: the model's ARN; empty if the job had no model when it was looked up.
        resource: the custom resource, with `JobArn`, `JobName`, `Status`, `BaseModel` (the id for inference,
            without the context length), `ModelArn`, `TrainingLoss`, `ValidationLoss`.

    Cost:
        None.

    Permissions:
        GetModelCustomizationJob on this ARN.

    Delete:
        Nothing changes in Bedrock.
    """

    _kind = "customization job"
    _type = "Custom::BedrockExistingJob"
    _action = "GetModelCustomizationJob"
    # The base model's id contains colons, too.
    _pattern = re.compile(_ARN + r"model-customization-job/(?P<student>[^/]+)/[a-z0-9]{12}")


class ExistingModel(_ExistingSource):
    """A custom model that is managed elsewhere, for a release.

    The deployment looks it up, and fails if there is no such model. It is never deleted.

    Example::

        existing_model = DistillationJob.from_model_arn(
            self,
            "ExistingModel",
            "arn:aws:bedrock:us-east-1:111122223333:custom-model/amazon.nova-micro-v1:0:128k/a1b2c3d4e5f6",
        )

    Attributes:
        source: the model's ARN.
        digest: 12 hex digits of the ARN.
        student: the base model's customization id.
        model_arn: the model's ARN, as an attribute of the resource.
        resource: the custom resource, with `ModelArn`, `ModelName`, `JobArn`, `BaseModel` (the id for
            inference, without the context length), `Status`.

    Cost:
        None.

    Permissions:
        GetCustomModel on this ARN.

    Delete:
        Nothing changes in Bedrock.
    """

    _kind = "custom model"
    _type = "Custom::BedrockExistingModel"
    _action = "GetCustomModel"
    _pattern = re.compile(_ARN + r"custom-model/(?P<student>[^/]+)/[a-z0-9]{12}")


class ExistingThroughput(_Existing):
    """Provisioned throughput that is managed elsewhere.

    The deployment looks it up, and fails if there is none. It is never moved to another model, and never
    deleted.

    Example::

        existing_throughput = ProvisionedThroughput.from_provisioned_model_arn(
            self,
            "ExistingThroughput",
            "arn:aws:bedrock:us-east-1:111122223333:provisioned-model/a1b2c3d4e5f6",
        )

    Attributes:
        resource: the custom resource, with `ProvisionedModelArn`, `ProvisionedModelName`, `ModelArn`,
            `ModelUnits`, `Status`, `CommitmentDuration` (empty without a commitment).

    Cost:
        None.

    Permissions:
        GetProvisionedModelThroughput on this ARN.

    Delete:
        Nothing changes in Bedrock.
    """

    _kind = "provisioned throughput"
    _type = "Custom::BedrockExistingThroughput"
    _action = "GetProvisionedModelThroughput"
    _pattern = re.compile(_ARN + r"provisioned-model/[a-z0-9]{12}")
