"""Find, tag and delete custom models, and find the endpoints that prevent a deletion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import is_conflict, is_gone, or_none
from distilled_router.bedrock import ownership
from distilled_router.bedrock.naming import digest_of


def find(bedrock: Any, name_or_arn: str) -> dict[str, Any] | None:
    """Return GetCustomModel's response, or None if no such model exists."""
    return or_none(bedrock.get_custom_model, modelIdentifier=name_or_arn)


def base_model(arn: str) -> str:
    """Return the inference id of the foundation model in the ARN of a model, a job or a custom model.

    The context length, which only customization uses, is left out: `amazon.nova-micro-v1:0` for
    `…:foundation-model/amazon.nova-micro-v1:0:128k`.
    """
    name = arn.split("/")[1] if "/" in arn else arn
    return ":".join(name.split(":")[:2])


def listed(bedrock: Any, owner: str) -> Iterator[Mapping[str, Any]]:
    """Yield the summaries of all models with names by `naming.release_name` of this owner."""
    pages = bedrock.get_paginator("list_custom_models").paginate(nameContains=f"{owner}-", isOwned=True)
    for page in pages:
        for model in page["modelSummaries"]:
            if digest_of(owner, model["modelName"]):
                yield model


def users(bedrock: Any, model_arn: str) -> list[str]:
    """Return the ARNs of deployments and throughput that serve the model or are being moved to or from it."""
    deployments = bedrock.get_paginator("list_custom_model_deployments").paginate(modelArnEquals=model_arn)
    throughputs = bedrock.get_paginator("list_provisioned_model_throughputs").paginate(
        modelArnEquals=model_arn
    )
    return [
        *(
            item["customModelDeploymentArn"]
            for page in deployments
            for item in page["modelDeploymentSummaries"]
        ),
        *(item["provisionedModelArn"] for page in throughputs for item in page["provisionedModelSummaries"]),
    ]


def delete(bedrock: Any, arn: str) -> bool:
    """Delete the model. Return whether it is gone; call again until it is.

    Bedrock refuses with a conflict while a deployment or throughput serves the model; the result is False
    then.
    """
    try:
        bedrock.delete_custom_model(modelIdentifier=arn)
    except ClientError as error:
        if is_conflict(error):
            return False
        if not is_gone(error, lambda: ownership.read_tags(bedrock, arn)):
            raise
        # "Not found" may be false for a model that was created a moment ago.
        return ownership.read_tags(bedrock, arn) is None
    return True
