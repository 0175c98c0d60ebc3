"""Custom resource Existing: look up a customization job, model or throughput that is managed elsewhere.

The physical id is the ARN. Create and Update only read; Delete does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from distilled_router.aws.clients import client
from distilled_router.aws.custom_resource import Event, answer, answer_event
from distilled_router.aws.errors import ResourceError, code, is_missing, with_retries
from distilled_router.bedrock import jobs
from distilled_router.bedrock.models import base_model

logger = Logger()

# The role's policy is as new as the resource, and IAM takes a while to apply it.
ACCESS_WAIT_SECONDS = 60.0

Attributes = dict[str, str]


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event)
    return answer_event(request, lambda each: handle(each, client("bedrock")))


def handle(event: Event, bedrock: Any, retry: Callable[..., Any] = with_retries) -> dict[str, Any]:
    """Return the resource's attributes from Bedrock.

    Raises ResourceError if it does not exist, or the ARN is of another type.
    """
    if event.is_delete:
        return answer(str(event.physical_id))
    arn = str(event.properties["Arn"])
    kind, read = _kind_of(arn)
    try:
        found: Attributes = retry(
            lambda: read(bedrock, arn),
            retryable=lambda error: code(error) == "AccessDeniedException",
            seconds=ACCESS_WAIT_SECONDS,
        )
    except ClientError as error:
        if not is_missing(error):
            raise
        raise ResourceError(
            f"There is no {kind} {arn} in this account and Region. It may have been deleted: use another "
            "ARN, or remove it from the app."
        ) from error
    logger.info("found", attributes=found)
    return answer(arn, found)


def _kind_of(arn: str) -> tuple[str, Callable[[Any, str], Attributes]]:
    for name, (kind, read) in _KINDS.items():
        if f":{name}/" in arn:
            return kind, read
    kinds = ", ".join(kind for kind, _ in _KINDS.values())
    raise ResourceError(f"{arn} is not an ARN of one of: {kinds}.")


def _job(bedrock: Any, arn: str) -> Attributes:
    return jobs.attributes(bedrock.get_model_customization_job(jobIdentifier=arn))


def _model(bedrock: Any, arn: str) -> Attributes:
    model = bedrock.get_custom_model(modelIdentifier=arn)
    return {
        "ModelArn": model["modelArn"],
        "ModelName": model["modelName"],
        "JobArn": model.get("jobArn") or "",
        "BaseModel": base_model(model.get("baseModelArn") or ""),
        # Optional in the response (botocore: GetCustomModelResponse); without it the model is usable.
        "Status": model.get("modelStatus") or "Active",
    }


def _throughput(bedrock: Any, arn: str) -> Attributes:
    found = bedrock.get_provisioned_model_throughput(provisionedModelId=arn)
    return {
        "ProvisionedModelArn": found["provisionedModelArn"],
        "ProvisionedModelName": found["provisionedModelName"],
        "ModelArn": found["modelArn"],
        "ModelUnits": str(found["modelUnits"]),
        "Status": found["status"],
        "CommitmentDuration": found.get("commitmentDuration") or "",
    }


_KINDS: Mapping[str, tuple[str, Callable[[Any, str], Attributes]]] = {
    "model-customization-job": ("customization job", _job),
    "custom-model": ("custom model", _model),
    "provisioned-model": ("provisioned throughput", _throughput),
}
