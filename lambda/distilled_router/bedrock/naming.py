"""Names and tags of what this package makes, and how to recognise it again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

OWNER_TAG = "distilled-router:owner"
DIGEST_TAG = "distilled-router:digest"
# On a batch job that labels: the digest of its labels.
LABELS_TAG = "distilled-router:labels"
# On a failed job, or on a model, whose job's resource is gone: nobody waits for the one, or owns the other.
CLOSED_TAG = "distilled-router:closed"
DIGEST_PATTERN = re.compile(r"[0-9a-f]{12}")

# Bedrock's patterns, written to match in linear time: the published one of job names is exponential.
JOB_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9+.\-]{0,62}")  # botocore: JobName
# botocore: CustomModelName, ModelDeploymentName, ProvisionedModelName
MODEL_NAME = re.compile(r"(?!.{64})([0-9a-zA-Z][_-]?)+")

# One digit, so that the longest name is known beforehand.
MOST_ATTEMPTS = 9

_COMMITMENTS = {"OneMonth": "-1m", "SixMonths": "-6m"}
_ATTEMPT = re.compile(rf"(?P<name>.*-{DIGEST_PATTERN.pattern})-[2-{MOST_ATTEMPTS}]")


def release_name(owner: str, digest: str) -> str:
    """The one name of a release's first job, of that job's model, and of the release's deployment."""
    return f"{owner}-{digest}"


def attempt_name(name: str, attempt: int) -> str:
    """The name of the nth job for a release of that name, and of that job's model: a job's name is used up
    even by one that failed.

    Raises ValueError for an attempt that isn't from 1 to 9.
    """
    if not 1 <= attempt <= MOST_ATTEMPTS:
        raise ValueError(f"{name} has attempts 1 to {MOST_ATTEMPTS}, not {attempt}")
    return name if attempt == 1 else f"{name}-{attempt}"


def first_name(name: str) -> str:
    """The release's name behind the name of any of its attempts."""
    match = _ATTEMPT.fullmatch(name)
    return match["name"] if match else name


def digest_of(owner: str, name: str) -> str | None:
    """The digest in a name that `release_name` or `attempt_name` made for this owner; None for any other."""
    first = first_name(name)
    digest = first.removeprefix(f"{owner}-")
    return digest if first != digest and DIGEST_PATTERN.fullmatch(digest) else None


def throughput_name(name: str, units: int, commitment: str | None) -> str:
    """The name of provisioned throughput, which tells what can't be changed in place: its model units and
    its commitment (None, `OneMonth` or `SixMonths`).

    Raises ValueError for another commitment.
    """
    if commitment is not None and commitment not in _COMMITMENTS:
        raise ValueError(f"{name}: commitment {commitment!r} is none of {', '.join(_COMMITMENTS)}")
    return f"{name}-{units}mu{_COMMITMENTS[commitment] if commitment else ''}"


def bedrock_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as Bedrock's API takes them: a list with lower-case `key` and `value`, in a stable order."""
    return [{"key": key, "value": tags[key]} for key in sorted(tags)]


def is_owned(tags: list[dict[str, str]], owner: str) -> bool:
    """Whether a ListTagsForResource answer says that the resource is this owner's."""
    return {"key": OWNER_TAG, "value": owner} in tags


def violated_pattern(name: str) -> re.Pattern[str] | None:
    """The pattern that the name of a release doesn't match as its job's or its model's, if there is one. The
    last attempt's name is the longest."""
    longest = attempt_name(name, MOST_ATTEMPTS)
    return next((pattern for pattern in (JOB_NAME, MODEL_NAME) if not pattern.fullmatch(longest)), None)


def digest(content: Mapping[str, object], length: int) -> str:
    """The first so many hex digits of the SHA-256 of some content, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]
