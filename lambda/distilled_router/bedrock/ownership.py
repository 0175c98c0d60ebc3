"""Whose a paid resource is: each resource of a stack that needs it has a claim on it.

CloudFormation creates, cancels, rolls back and deletes one logical resource of one stack. The name of a
resource in Bedrock does not say which. So every customization job, model, deployment, throughput, batch job
and evaluation job has, from its creation, one tag for each logical resource that needs it: a claim. A
logical resource that no longer needs it removes its own claim. If no claim is left, it deletes the paid
resource, too.

For example, a construct gets another logical id. The new logical id claims the job, and the Delete of the
old one finds another claim and leaves the job alone. If the update is rolled back, the new claim is
removed, and the job stays as well.

Each claim is a tag of its own, so that two writers don't overwrite each other's claim.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from botocore.exceptions import ClientError

from distilled_router.aws.errors import is_gone, is_missing, or_none, with_retries
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, bedrock_tags

CLAIM_TAG = "distilled-router:claim:"
# On a job: a claim that was removed before the job had its model.
DROPPED_TAG = "distilled-router:dropped:"
# The id of CloudFormation's request for which the resource was created.
REQUEST_TAG = "distilled-router:request"
# botocore: TagValue.
_LONGEST_VALUE = 256
# Seconds for which a write is repeated that does not find what reads find.
_CONTRADICTION_SECONDS = 10.0


class Identified(Protocol):
    """An event of CloudFormation, or whatever else names a resource of a stack."""

    @property
    def stack_id(self) -> str: ...

    @property
    def logical_id(self) -> str: ...


@dataclass(frozen=True)
class Claimant:
    """A logical resource of a stack, which claims paid resources.

    Attributes:
        stack_id: the stack's ARN, which differs for a stack that is created again under its name.
        logical_id: the resource's logical id.
    """

    stack_id: str
    logical_id: str

    @classmethod
    def of(cls, source: Identified) -> Self:
        """Return the resource that an event of CloudFormation is for."""
        return cls(source.stack_id, source.logical_id)

    @property
    def key(self) -> str:
        """Return the key of the claim's tag."""
        return f"{CLAIM_TAG}{self.hash}"

    @property
    def hash(self) -> str:
        """Return 12 hex digits that differ between resources."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:12]

    @property
    def text(self) -> str:
        """Return stack id and logical id as text."""
        return f"{self.stack_id} {self.logical_id}"

    @property
    def tag(self) -> dict[str, str]:
        """Return the tag of this claim; people read the value."""
        return {self.key: self.text[:_LONGEST_VALUE]}

    def tags(self, owner: str, *, request: str, digest: str = "") -> dict[str, str]:
        """Return the tags of a resource that is created for this claimant."""
        known = {OWNER_TAG: owner, REQUEST_TAG: request, DIGEST_TAG: digest, **self.tag}
        return {key: value for key, value in known.items() if value}

    def holds(self, tags: Mapping[str, str]) -> bool:
        """Return whether a resource with these tags is claimed by this claimant."""
        return self.key in tags

    def may_remove(self, tags: Mapping[str, str]) -> bool:
        """Return whether nobody else claims a resource with these tags."""
        return not claims(tags).keys() - {self.key}


def claims(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the claims among tags: stack id and logical id by the tag's key."""
    return {key: value for key, value in tags.items() if key.startswith(CLAIM_TAG)}


def is_about_claims(key: str) -> bool:
    """Return whether a tag is a claim, or notes one that was removed."""
    return key.startswith((CLAIM_TAG, DROPPED_TAG))


def described(tags: Mapping[str, str]) -> str:
    """Return in words whose a resource with these tags is, for error messages."""
    found = [text.rpartition(" ") for text in claims(tags).values()]
    named = [f"resource {logical_id} of stack {stack_id}" for stack_id, _, logical_id in found]
    return f"owner {tags.get(OWNER_TAG, 'unknown')}, claimed by {' and '.join(named) or 'nobody'}"


def read_tags(bedrock: Any, arn: str) -> dict[str, str] | None:
    """Return the tags of a resource, or None if it does not exist."""
    answer = or_none(bedrock.list_tags_for_resource, resourceARN=arn)
    return None if answer is None else {tag["key"]: tag["value"] for tag in answer.get("tags", [])}


def claim(bedrock: Any, arn: str, claimant: Claimant) -> None:
    """Add a claim to a resource, unless it is gone."""
    add_tags(bedrock, arn, claimant.tag)


def release(bedrock: Any, arn: str, claimant: Claimant) -> bool:
    """Remove a claim from a resource. Return whether the caller may delete it: nobody else claims it.

    False if its tags can't be read: others may claim it. It is gone, or the caller's next look reads them.
    """
    tags = read_tags(bedrock, arn)
    if tags is None:
        return False
    if claimant.holds(tags):
        remove_tags(bedrock, arn, [claimant.key])
        # Read again: another claim may have been added meanwhile.
        tags = read_tags(bedrock, arn) or tags
    return claimant.may_remove(tags)


def add_tags(bedrock: Any, arn: str, tags: Mapping[str, str]) -> None:
    """Add tags to a resource, unless it is gone."""
    _unless_gone(bedrock, arn, lambda: bedrock.tag_resource(resourceARN=arn, tags=bedrock_tags(tags)))


def remove_tags(bedrock: Any, arn: str, keys: list[str]) -> None:
    """Remove tags from a resource, unless it is gone."""
    _unless_gone(bedrock, arn, lambda: bedrock.untag_resource(resourceARN=arn, tagKeys=keys))


def _unless_gone(bedrock: Any, arn: str, call: Callable[[], object]) -> None:
    """Make a call, repeated while it does not find the resource although its tags can be read."""

    def read() -> dict[str, str] | None:
        return read_tags(bedrock, arn)

    try:
        with_retries(
            call,
            retryable=lambda error: is_missing(error) and read() is not None,
            seconds=_CONTRADICTION_SECONDS,
        )
    except ClientError as error:
        if not is_gone(error, read):
            raise
