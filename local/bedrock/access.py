"""The IAM permissions that a call needs, from the Service Authorization Reference.

A call needs its action on each of its resources, with the tags of the request and of the resource as
conditions. A resource that the call creates has no id yet: its ARN contains a placeholder. An unknown name
goes into the ARN unchanged, because AWS does not document whether Bedrock resolves it first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore import xform_name

from local.bedrock.account import Account, Parameters
from local.bedrock.catalogue import PROFILE_REGIONS
from local.bedrock.roles import SERVICE, Need

NEW = "aaaaaaaaaaaa"  # the id of a resource that does not exist yet

_CONVERSE = {"Converse": "InvokeModel"}  # Converse has no IAM action of its own


def needs(account: Account, operation: str, parameters: Parameters) -> list[Need]:
    """Return the permissions that a call needs, of its caller and of the service role that it passes."""
    return list(_Call(account, operation, parameters).needs())


class _Call:
    def __init__(self, account: Account, operation: str, parameters: Parameters) -> None:
        self._account, self._parameters = account, parameters
        self._operation = operation
        self._action = f"bedrock:{_CONVERSE.get(operation, operation)}"

    def needs(self) -> Iterator[Need]:
        specific = getattr(self, f"_{xform_name(self._operation)}", None)
        if specific is not None:
            yield from specific()
        elif self._names_no_resource():
            yield Need(self._action, "*")
        else:
            yield self._need_for(self._named_resource())
        if role := self._parameters.get("roleArn"):
            yield Need("iam:PassRole", role, {"iam:PassedToService": SERVICE})

    def _names_no_resource(self) -> bool:
        lists = self._operation.startswith("List") and self._operation != "ListTagsForResource"
        return lists or self._operation.endswith("LoggingConfiguration")

    # Resources that the parameters name

    def _named_resource(self) -> str:
        """Return the ARN of the resource that a Get, Stop, Delete or tag operation is about."""
        names = {
            "modelId": "",
            "modelIdentifier": "custom-model",
            "customModelDeploymentIdentifier": "custom-model-deployment",
            "provisionedModelId": "provisioned-model",
            "jobIdentifier": {
                "ModelInvocationJob": "model-invocation-job",
                "EvaluationJob": "evaluation-job",
            }.get(self._operation.removeprefix("Get").removeprefix("Stop"), "model-customization-job"),
            "resourceARN": "",
        }
        name = next(name for name in names if name in self._parameters)
        return self._arn(names[name], str(self._parameters[name]))

    def _arn(self, kind: str, identifier: str) -> str:
        if identifier.startswith("arn:"):
            return identifier
        account = self._account
        known = {
            "model-customization-job": {job.name: job.arn for job in account.jobs.values()},
            "custom-model": {model.name: arn for arn, model in account.models.items()},
            "custom-model-deployment": {found.name: arn for arn, found in account.deployments.items()},
            "provisioned-model": {found.name: arn for arn, found in account.throughputs.items()},
            "model-invocation-job": {found.id: arn for arn, found in account.invocation_jobs.items()},
        }
        return known.get(kind, {}).get(identifier) or account.arn(f"{kind}/{identifier}")

    def _need_for(self, arn: str, action: str = "") -> Need:
        """Return the need for the call's action, or another one, on an existing resource."""
        tags = self._account.tags.get(arn, {})
        context = {f"aws:ResourceTag/{key}": value for key, value in tags.items()} | self._request_tags(
            "tags"
        )
        return Need(action or self._action, arn, context)

    def _request_tags(self, *names: str) -> dict[str, Any]:
        """Return the request's tags as condition keys."""
        return {
            f"aws:RequestTag/{tag['key']}": tag["value"]
            for name in names
            for tag in self._parameters.get(name) or ()
        }

    def _creating(self, *resources: str, tags: Mapping[str, str]) -> Iterator[Need]:
        """Yield the needs of a Create operation.

        Args:
            resources: ARNs on which the call needs its own action.
            tags: parameter that holds tags, to the kind of resource that gets them.
        """
        given = self._request_tags(*tags)
        for resource in resources:
            yield Need(self._action, resource, given)
        for name, kind in tags.items():
            if self._parameters.get(name):
                yield Need(
                    "bedrock:TagResource", self._account.arn(f"{kind}/{NEW}"), self._request_tags(name)
                )

    def _models(self, identifier: str) -> list[str]:
        """Return a model's ARN, or an inference profile's ARN followed by those of the models behind it."""
        catalogue = self._account.catalogue
        if behind := catalogue.profile_model(identifier):
            profile = str(catalogue.profile(identifier)["inferenceProfileArn"])
            return [profile, *(catalogue.arn(behind.id, region) for region in PROFILE_REGIONS)]
        if found := catalogue.find(identifier):
            return [catalogue.arn(found.id)]
        return [self._arn("custom-model", identifier)]

    def _invoking(self, identifier: str, role: str = "") -> Iterator[Need]:
        """Yield the needs of the caller, or of a service role, to invoke a model or a profile's models.

        A service role is asked without `bedrock:InferenceProfileArn`: AWS documents these roles without a
        condition, and with it jobs were reported to fail at the end of InProgress (Bedrock user guide,
        custom-model-job-access-security, batch-iam-sr).
        """
        first, *behind = self._models(identifier)
        yield Need("bedrock:InvokeModel", first, {}, role)
        context = {} if role else {"bedrock:InferenceProfileArn": first}
        for model in behind:
            yield Need("bedrock:InvokeModel", model, context, role)

    def _key_needs(self, key: str | None, *actions: str) -> Iterator[Need]:
        """Yield the needs for a model's KMS key (Bedrock user guide, encryption of customization jobs)."""
        service = f"bedrock.{self._account.settings.region}.amazonaws.com"
        for action in actions if key else ():
            yield Need(f"kms:{action}", str(key), {"kms:ViaService": service})

    def _key_of(self, model_arn: str) -> str | None:
        model = self._account.models.get(model_arn)
        return model.job.get("modelKmsKeyArn") if model else None

    # Operations with more than one resource

    def _create_model_customization_job(self) -> Iterator[Need]:
        parameters = self._parameters
        base = parameters["baseModelIdentifier"]
        found = self._account.catalogue.find(base)
        student = found.id if found else base
        job, model = f"model-customization-job/{student}", f"custom-model/{student}"
        resources = [*self._models(base), *(self._account.arn(f"{kind}/{NEW}") for kind in (model, job))]
        yield from self._creating(*resources, tags={"jobTags": job, "customModelTags": model})
        key = parameters.get("customModelKmsKeyId")
        yield from self._key_needs(key, "CreateGrant", "DescribeKey", "GenerateDataKey", "Decrypt")
        teacher = parameters.get("customizationConfig", {}).get("distillationConfig", {})
        if teacher:
            identifier = teacher["teacherModelConfig"]["teacherModelIdentifier"]
            yield from self._invoking(identifier, parameters["roleArn"])

    def _create_model_invocation_job(self) -> Iterator[Need]:
        model = self._parameters["modelId"]
        new = self._account.arn(f"model-invocation-job/{NEW}")
        yield from self._creating(new, *self._models(model), tags={"tags": "model-invocation-job"})
        # With an inference profile, Bedrock checks the service role (user guide, batch-iam-sr).
        if self._account.catalogue.profile_model(model):
            yield from self._invoking(model, self._parameters["roleArn"])

    def _create_evaluation_job(self) -> Iterator[Need]:
        custom = self._parameters["evaluationConfig"].get("automated", {}).get("customMetricConfig")
        judges = custom["evaluatorModelConfig"]["bedrockEvaluatorModels"] if custom else []
        models = [model for judge in judges for model in self._models(judge["modelIdentifier"])]
        new = self._account.arn(f"evaluation-job/{NEW}")
        yield from self._creating(new, *models, tags={"jobTags": "evaluation-job"})
        for judge in judges:
            yield from self._invoking(judge["modelIdentifier"], self._parameters["roleArn"])

    def _create_custom_model_deployment(self) -> Iterator[Need]:
        model = self._arn("custom-model", self._parameters["modelArn"])
        yield from self._creating(model, tags={"tags": "custom-model-deployment"})

    def _update_custom_model_deployment(self) -> Iterator[Need]:
        yield self._need_for(self._named_resource())
        yield self._need_for(self._arn("custom-model", self._parameters["modelArn"]))

    def _create_provisioned_model_throughput(self) -> Iterator[Need]:
        (model,) = self._models(self._parameters["modelId"])
        yield from self._creating(model, tags={"tags": "provisioned-model"})

    def _update_provisioned_model_throughput(self) -> Iterator[Need]:
        yield self._need_for(self._named_resource())
        if model := self._parameters.get("desiredModelId"):
            yield from (self._need_for(arn) for arn in self._models(model))

    def _get_foundation_model(self) -> Iterator[Need]:
        yield from (Need(self._action, arn) for arn in self._models(self._parameters["modelIdentifier"]))

    def _get_inference_profile(self) -> Iterator[Need]:
        (profile, *_) = self._models(self._parameters["inferenceProfileIdentifier"])
        yield Need(self._action, profile)

    def _converse(self) -> Iterator[Need]:
        identifier = str(self._parameters["modelId"])
        if ":custom-model-deployment/" not in identifier and ":provisioned-model/" not in identifier:
            yield from self._invoking(identifier)
            return
        yield self._need_for(identifier)
        serving = self._account.deployments.get(identifier) or self._account.throughputs.get(identifier)
        yield from self._key_needs(self._key_of(serving.model) if serving else None, "Decrypt")

    _invoke_model = _converse
