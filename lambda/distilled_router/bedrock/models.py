"""Find, tag and delete custom models, and find the endpoints that prevent a deletion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import is_conflict, is_gone, or_none
from distilled_router.bedrock.naming import CLOSED_TAG, bedrock_tags, digest_of


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


def owned(bedrock: Any, owner: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each custom model with this owner's name, and its digest. Names are unique in an account."""
    pages = bedrock.get_paginator("list_custom_models").paginate(nameContains=f"{owner}-", isOwned=True)
    for page in pages:
        for model in page["modelSummaries"]:
            digest = digest_of(owner, model["modelName"])
            if digest:
                yield digest, model


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
    """Delete the model. Return whether it is gone.

    Bedrock refuses with a conflict while a deployment or throughput serves the model; the result is False
    then.
    """
    try:
        bedrock.delete_custom_model(modelIdentifier=arn)
    except ClientError as error:
        if is_gone(error, lambda: _tags(bedrock, arn)):
            return True
        if is_conflict(error):
            return False
        raise
    return True


def tag(bedrock: Any, arn: str, tags: Mapping[str, str]) -> None:
    """Add tags to a model or a job, unless it is gone."""
    _unless_gone(bedrock, arn, lambda: bedrock.tag_resource(resourceARN=arn, tags=bedrock_tags(tags)))


def untag(bedrock: Any, arn: str, keys: Sequence[str]) -> None:
    """Remove tags from a model or a job, unless it is gone."""
    _unless_gone(bedrock, arn, lambda: bedrock.untag_resource(resourceARN=arn, tagKeys=list(keys)))


def _unless_gone(bedrock: Any, arn: str, call: Callable[[], object]) -> None:
    try:
        call()
    except ClientError as error:
        if not is_gone(error, lambda: _tags(bedrock, arn)):
            raise


def _tags(bedrock: Any, arn: str) -> Sequence[Mapping[str, str]] | None:
    """Return the tags of a resource, or None if it does not exist."""
    answer = or_none(bedrock.list_tags_for_resource, resourceARN=arn)
    return None if answer is None else list(answer.get("tags", []))


def close(bedrock: Any, arn: str) -> None:
    """Tag the model as closed: its job's resource was deleted, so its last user deletes the model, too."""
    tag(bedrock, arn, {CLOSED_TAG: "true"})


def reopen(bedrock: Any, arn: str) -> None:
    """Remove the tag of a closed model: a stack declares its job again."""
    if is_closed(bedrock, arn):
        untag(bedrock, arn, [CLOSED_TAG])


def is_closed(bedrock: Any, arn: str) -> bool:
    """Return whether the model is closed: no stack declares its job any more."""
    return any(found["key"] == CLOSED_TAG for found in _tags(bedrock, arn) or ())
