"""Names and tags of what this package makes, and how to recognise it again."""

from __future__ import annotations

import re
from collections.abc import Mapping

OWNER_TAG = "distilled-router:owner"
DIGEST_TAG = "distilled-router:digest"
DIGEST_PATTERN = re.compile(r"[0-9a-f]{12}")


def release_name(owner: str, digest: str) -> str:
    """The one name of a release's job, custom model and deployment."""
    return f"{owner}-{digest}"


def digest_of(owner: str, name: str) -> str | None:
    """The digest in a name that `release_name` made for this owner; None for any other name."""
    digest = name.removeprefix(f"{owner}-")
    return digest if name != digest and DIGEST_PATTERN.fullmatch(digest) else None


def bedrock_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as Bedrock's API takes them: a list with lower-case `key` and `value`, in a stable order."""
    return [{"key": key, "value": tags[key]} for key in sorted(tags)]


def is_owned(tags: list[dict[str, str]], owner: str) -> bool:
    """Whether a ListTagsForResource answer says that the resource is this owner's."""
    return {"key": OWNER_TAG, "value": owner} in tags
