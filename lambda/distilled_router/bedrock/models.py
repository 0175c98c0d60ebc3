"""Custom models, and the endpoints that stand in the way of deleting one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import is_conflict, is_gone, or_none
from distilled_router.bedrock.naming import CLOSED_TAG, bedrock_tags, digest_of


def find(bedrock: Any, name_or_arn: str) -> dict[str, Any] | None:
    """GetCustomModel's answer, or None where no such model exists."""
    return or_none(bedrock.get_custom_model, modelIdentifier=name_or_arn)


def base_model(arn: str) -> str:
    """The foundation model in the ARN of a foundation model, or of a job or custom model made from one, as it
    is named for inference: without the context length that only customization adds, so
    `amazon.nova-micro-v1:0` for `…:foundation-model/amazon.nova-micro-v1:0:128k`."""
    name = arn.split("/")[1] if "/" in arn else arn
    return ":".join(name.split(":")[:2])


def owned(bedrock: Any, owner: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each custom model whose name is this owner's, with its digest. Names are unique in an account."""
    pages = bedrock.get_paginator("list_custom_models").paginate(nameContains=f"{owner}-", isOwned=True)
    for page in pages:
        for model in page["modelSummaries"]:
            digest = digest_of(owner, model["modelName"])
            if digest:
                yield digest, model


def users(bedrock: Any, model_arn: str) -> list[str]:
    """ARNs of the deployments and throughputs that serve the model, or are being moved to or from it."""
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
    """Delete the model. False where something still serves it (Bedrock answers with a conflict: a distilled
    model's deployments and throughput must go first); deleting a model that is gone is a success."""
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
    """Give a model, or the job that made it, tags; nothing where it is gone."""
    _unless_gone(bedrock, arn, lambda: bedrock.tag_resource(resourceARN=arn, tags=bedrock_tags(tags)))


def untag(bedrock: Any, arn: str, keys: Sequence[str]) -> None:
    """Take tags off a model, or off the job that made it; nothing where it is gone."""
    _unless_gone(bedrock, arn, lambda: bedrock.untag_resource(resourceARN=arn, tagKeys=list(keys)))


def _unless_gone(bedrock: Any, arn: str, call: Callable[[], object]) -> None:
    try:
        call()
    except ClientError as error:
        if not is_gone(error, lambda: _tags(bedrock, arn)):
            raise


def _tags(bedrock: Any, arn: str) -> Sequence[Mapping[str, str]] | None:
    """The tags of what has that ARN; None where there is no such thing."""
    answer = or_none(bedrock.list_tags_for_resource, resourceARN=arn)
    return None if answer is None else list(answer.get("tags", []))


def close(bedrock: Any, arn: str) -> None:
    """Say on the model that its job's resource is gone, and that whoever uses it now is the last to do so."""
    tag(bedrock, arn, {CLOSED_TAG: "true"})


def reopen(bedrock: Any, arn: str) -> None:
    """Take that back: its job is declared again."""
    if is_closed(bedrock, arn):
        untag(bedrock, arn, [CLOSED_TAG])


def is_closed(bedrock: Any, arn: str) -> bool:
    """Whether the model's job belongs to no stack any more."""
    return any(found["key"] == CLOSED_TAG for found in _tags(bedrock, arn) or ())
