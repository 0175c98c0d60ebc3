"""Create, find and delete on-demand deployments of custom models.

A deployment costs nothing while idle, and is billed by the token like the base model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.absence import confirmed
from distilled_router.aws.errors import (
    NotYetError,
    ResourceError,
    code,
    described,
    is_conflict,
    is_gone,
    is_mutating,
    is_transient,
    or_none,
)
from distilled_router.bedrock import ownership
from distilled_router.bedrock.naming import OWNER_TAG, bedrock_tags, digest_of
from distilled_router.bedrock.ownership import Claimant

ACTIVE, CREATING, FAILED = "Active", "Creating", "Failed"


class NameHeldError(NotYetError):
    """The name is in use although no deployment has it: Bedrock frees it some time after a deletion."""


def find(bedrock: Any, name_or_arn: str) -> dict[str, Any] | None:
    """Return GetCustomModelDeployment's response, or None if no such deployment exists."""
    return or_none(bedrock.get_custom_model_deployment, customModelDeploymentIdentifier=name_or_arn)


def ensure(
    bedrock: Any,
    *,
    name: str,
    model_arn: str,
    owner: str,
    claimant: Claimant,
    tags: Mapping[str, str],
    token: str,
    description: str,
    absence_seconds: float = 0.0,
) -> dict[str, Any]:
    """Create the deployment of this name and model, or adopt the existing one, and return its description.

    `token` must differ between attempts: Bedrock silently ignores a create call whose token it has seen, even
    if the deployment of the first call was deleted since.

    Raises:
        NotYetError: The call failed temporarily.
        NameHeldError: Bedrock has not freed the name yet.
        ResourceError: The name belongs to another model or another owner, or Bedrock refuses the request.
    """
    existing = find(bedrock, name)
    if existing is None:
        try:
            created = bedrock.create_custom_model_deployment(
                modelDeploymentName=name,
                modelArn=model_arn,
                description=description,
                tags=bedrock_tags(tags),
                clientRequestToken=token,
            )
        except (ClientError, BotoCoreError) as error:
            # The API documents no conflict for this call, so a name in use arrives as another error, and a
            # lost response says nothing. Reading by name shows whether it exists, and whose it is.
            existing = find(bedrock, name)
            if existing is None:
                raise _refusal(error)(
                    f"Bedrock did not create deployment {name} of {model_arn}: {described(error)}"
                ) from error
        else:
            # Reading by name may not find it yet.
            return {
                "customModelDeploymentArn": created["customModelDeploymentArn"],
                "modelDeploymentName": name,
                "modelArn": model_arn,
                "status": CREATING,
            }
    arn = existing["customModelDeploymentArn"]
    # The tags of a deployment that was created a moment ago may not be shown yet.
    found = confirmed(lambda: _owned_tags(bedrock, arn, owner), absence_seconds)
    if existing["modelArn"] != model_arn or found is None:
        whose = ownership.described(ownership.read_tags(bedrock, arn) or {})
        raise ResourceError(
            f"A deployment named {name} exists and does not belong to this release: {arn} serves "
            f"{existing['modelArn']} ({whose}). Delete it, or set distillation.nonce for another name."
        )
    if not claimant.holds(found):
        ownership.claim(bedrock, arn, claimant)
    return dict(existing)


def _owned_tags(bedrock: Any, arn: str, owner: str) -> Mapping[str, str] | None:
    """Return the tags of this owner's deployment; None if it is not this owner's."""
    tags = ownership.read_tags(bedrock, arn) or {}
    return tags if tags.get(OWNER_TAG) == owner else None


def _refusal(error: ClientError | BotoCoreError) -> type[ResourceError]:
    if is_transient(error):
        return NotYetError
    held = isinstance(error, ClientError) and code(error) in {"ConflictException", "ValidationException"}
    text = described(error).lower()
    return NameHeldError if held and ("in use" in text or "already exists" in text) else ResourceError


def listed(bedrock: Any, owner: str) -> Iterator[Mapping[str, Any]]:
    """Yield the summaries of all deployments with names by `naming.release_name` of this owner."""
    pages = bedrock.get_paginator("list_custom_model_deployments").paginate(nameContains=f"{owner}-")
    for page in pages:
        for deployment in page["modelDeploymentSummaries"]:
            if digest_of(owner, deployment["customModelDeploymentName"]):
                yield deployment


def delete(bedrock: Any, name_or_arn: str) -> bool:
    """Delete the deployment. Return whether it is gone; call again until it is.

    Bedrock refuses while it is being created or updated ("mutating state"); the result is False then.
    """
    try:
        bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=name_or_arn)
    except ClientError as error:
        if is_mutating(error) or is_conflict(error):
            return False
        if not is_gone(error, lambda: find(bedrock, name_or_arn)):
            raise
    # Also after "not found", which may be false for a deployment that was created a moment ago.
    return find(bedrock, name_or_arn) is None
