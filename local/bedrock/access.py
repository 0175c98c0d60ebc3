"""Which IAM permissions a call takes, as the Service Authorization Reference has them.

An action is asked for on each resource of the call, with the tags of the request and of the resource. A
resource that the call makes is asked for by an ARN with an id that nobody has yet. A name that nothing has is
asked for as it stands: whether Bedrock looks it up first is not documented.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore import xform_name

from local.bedrock.account import Account, Parameters
from local.bedrock.catalogue import PROFILE_REGIONS
from local.bedrock.roles import SERVICE, Need

NEW = "aaaaaaaaaaaa"

_CONVERSE = {"Converse": "InvokeModel"}  # it has no action of its own


def needs(account: Account, operation: str, parameters: Parameters) -> list[Need]:
    """All that a call needs, for its caller and for the service role that it hands over."""
    return list(_Call(account, operation, parameters).needs())


class _Call:
    def __init__(self, account: Account, operation: str, parameters: Parameters) -> None:
        self._account, self._parameters = account, parameters
        self._operation = operation
        self._action = f"bedrock:{_CONVERSE.get(operation, operation)}"

    def needs(self) -> Iterator[Need]:
        made = getattr(self, f"_{xform_name(self._operation)}", None)
        if made is not None:
            yield from made()
        elif self._operation.startswith("List") and self._operation != "ListTagsForResource":
            yield Need(self._action, "*")
        else:
            yield self._on(self._named())
        if role := self._parameters.get("roleArn"):
            yield Need("iam:PassRole", role, {"iam:PassedToService": SERVICE})

    # What a call names

    def _named(self) -> str:
        """The resource that the first parameter of a Get, Stop, Delete or tag operation names."""
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

    def _on(self, arn: str, action: str = "") -> Need:
        """The call's action, or another, on a resource that is there."""
        tags = self._account.tags.get(arn, {})
        context = {f"aws:ResourceTag/{key}": value for key, value in tags.items()} | self._given("tags")
        return Need(action or self._action, arn, context)

    def _given(self, *names: str) -> dict[str, Any]:
        """The tags of the request."""
        return {
            f"aws:RequestTag/{tag['key']}": tag["value"]
            for name in names
            for tag in self._parameters.get(name) or ()
        }

    def _making(self, *resources: str, tags: Mapping[str, str]) -> Iterator[Need]:
        """Making something, on all resources of the action; and its tags, by the kind of what they are on."""
        given = self._given(*tags)
        for resource in resources:
            yield Need(self._action, resource, given)
        for name, kind in tags.items():
            if self._parameters.get(name):
                yield Need("bedrock:TagResource", self._account.arn(f"{kind}/{NEW}"), self._given(name))

    def _models(self, identifier: str) -> list[str]:
        """A foundation model, or a profile and the models behind it."""
        catalogue = self._account.catalogue
        if behind := catalogue.profile_model(identifier):
            profile = str(catalogue.profile(identifier)["inferenceProfileArn"])
            return [profile, *(catalogue.arn(behind.id, region) for region in PROFILE_REGIONS)]
        if found := catalogue.find(identifier):
            return [catalogue.arn(found.id)]
        return [self._arn("custom-model", identifier)]

    def _invoking(self, identifier: str, role: str = "") -> Iterator[Need]:
        first, *behind = self._models(identifier)
        yield Need("bedrock:InvokeModel", first, {}, role)
        for model in behind:
            yield Need("bedrock:InvokeModel", model, {"bedrock:InferenceProfileArn": first}, role)

    def _with_key(self, key: str | None, *actions: str) -> Iterator[Need]:
        """Use of the customer's key of a model (Bedrock user guide, encryption of customization jobs)."""
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
        yield from self._making(*resources, tags={"jobTags": job, "customModelTags": model})
        key = parameters.get("customModelKmsKeyId")
        yield from self._with_key(key, "CreateGrant", "DescribeKey", "GenerateDataKey", "Decrypt")
        teacher = parameters.get("customizationConfig", {}).get("distillationConfig", {})
        if teacher:
            identifier = teacher["teacherModelConfig"]["teacherModelIdentifier"]
            yield from self._invoking(identifier, parameters["roleArn"])

    def _create_model_invocation_job(self) -> Iterator[Need]:
        model = self._parameters["modelId"]
        new = self._account.arn(f"model-invocation-job/{NEW}")
        yield from self._making(new, *self._models(model), tags={"tags": "model-invocation-job"})
        # Where it is a profile, Bedrock asks for the service role (user guide, batch-iam-sr).
        if self._account.catalogue.profile_model(model):
            yield from self._invoking(model, self._parameters["roleArn"])

    def _create_evaluation_job(self) -> Iterator[Need]:
        custom = self._parameters["evaluationConfig"].get("automated", {}).get("customMetricConfig")
        judges = custom["evaluatorModelConfig"]["bedrockEvaluatorModels"] if custom else []
        models = [model for judge in judges for model in self._models(judge["modelIdentifier"])]
        new = self._account.arn(f"evaluation-job/{NEW}")
        yield from self._making(new, *models, tags={"jobTags": "evaluation-job"})
        for judge in judges:
            yield from self._invoking(judge["modelIdentifier"], self._parameters["roleArn"])

    def _create_custom_model_deployment(self) -> Iterator[Need]:
        model = self._arn("custom-model", self._parameters["modelArn"])
        yield from self._making(model, tags={"tags": "custom-model-deployment"})

    def _update_custom_model_deployment(self) -> Iterator[Need]:
        yield self._on(self._named())
        yield self._on(self._arn("custom-model", self._parameters["modelArn"]))

    def _create_provisioned_model_throughput(self) -> Iterator[Need]:
        (model,) = self._models(self._parameters["modelId"])
        yield from self._making(model, tags={"tags": "provisioned-model"})

    def _update_provisioned_model_throughput(self) -> Iterator[Need]:
        yield self._on(self._named())
        if model := self._parameters.get("desiredModelId"):
            yield from (self._on(arn) for arn in self._models(model))

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
        yield Need("bedrock:InvokeModel", identifier)
        serving = self._account.deployments.get(identifier) or self._account.throughputs.get(identifier)
        yield from self._with_key(self._key_of(serving.model) if serving else None, "Decrypt")

    _invoke_model = _converse
