"""Names and tags of the resources that this package creates in Bedrock, and how to recognise them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

OWNER_TAG = "distilled-router:owner"
DIGEST_TAG = "distilled-router:digest"
# On a labelling's batch job: the digest of its labels.
LABELS_TAG = "distilled-router:labels"
# On a customization job: the SHA-256 of the files that were published for it. For a hold-out set that can be
# replaced by another one, the tag is `holdout_tag` of its key.
TRAINING_TAG = "distilled-router:training"
HOLDOUT_TAG = "distilled-router:holdout"
DIGEST_PATTERN = re.compile(r"[0-9a-f]{12}")

# Bedrock's patterns, written to match in linear time: the published one of job names is exponential.
JOB_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9+.\-]{0,62}")  # botocore: JobName
# botocore: CustomModelName, ModelDeploymentName, ProvisionedModelName
MODEL_NAME = re.compile(r"(?!.{64})([0-9a-zA-Z][_-]?)+")

# One digit, so the longest name is known in advance.
MOST_ATTEMPTS = 9

_COMMITMENTS = {"OneMonth": "-1m", "SixMonths": "-6m"}
_ATTEMPT = re.compile(rf"(?P<name>.*-{DIGEST_PATTERN.pattern})-[2-{MOST_ATTEMPTS}]")


def release_name(owner: str, digest: str) -> str:
    """Return the common name of a release's first job, that job's model and the release's deployment."""
    return f"{owner}-{digest}"


def attempt_name(name: str, attempt: int) -> str:
    """Return the name of the nth job for a release of that name, and of its model.

    Each attempt needs a new name, since a failed job's name can't be used again. Raises ValueError unless the
    attempt is from 1 to 9.
    """
    if not 1 <= attempt <= MOST_ATTEMPTS:
        raise ValueError(f"{name} has attempts 1 to {MOST_ATTEMPTS}, not {attempt}")
    return name if attempt == 1 else f"{name}-{attempt}"


def first_name(name: str) -> str:
    """Return the release's name in the name of any of its attempts."""
    match = _ATTEMPT.fullmatch(name)
    return match["name"] if match else name


def digest_of(owner: str, name: str) -> str | None:
    """Return the digest in a name by `release_name` or `attempt_name` of this owner; None for other names."""
    first = first_name(name)
    digest = first.removeprefix(f"{owner}-")
    return digest if first != digest and DIGEST_PATTERN.fullmatch(digest) else None


def owner_of(name: str) -> str:
    """Return the owner in a name by `release_name`."""
    return name.rpartition("-")[0]


def throughput_name(name: str, units: int, commitment: str | None) -> str:
    """Return the name of provisioned throughput.

    It contains what can't be changed in place: the model units and the commitment (None, `OneMonth` or
    `SixMonths`). Raises ValueError for another commitment.
    """
    if commitment is not None and commitment not in _COMMITMENTS:
        raise ValueError(f"{name}: commitment {commitment!r} is not one of {', '.join(_COMMITMENTS)}")
    return f"{name}-{units}mu{_COMMITMENTS[commitment] if commitment else ''}"


def bedrock_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return tags as Bedrock's API takes them: a list with lower-case `key` and `value`, sorted by key."""
    return [{"key": key, "value": tags[key]} for key in sorted(tags)]


def is_owned(tags: list[dict[str, str]], owner: str) -> bool:
    """Return whether tags, as ListTagsForResource returns them, name this owner."""
    return {"key": OWNER_TAG, "value": owner} in tags


def holdout_digest(key: str) -> str:
    """Return 8 hex digits of a hold-out set's key, by which tags and wait conditions tell the sets apart."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def holdout_tag(key: str) -> str:
    """Return the tag of a job for the SHA-256 of the hold-out set with this key."""
    return f"{HOLDOUT_TAG}:{holdout_digest(key)}"


def violated_pattern(name: str) -> re.Pattern[str] | None:
    """Return the pattern of job or model names that a release's name violates, or None.

    The last attempt's name is checked, which is the longest.
    """
    longest = attempt_name(name, MOST_ATTEMPTS)
    return next((pattern for pattern in (JOB_NAME, MODEL_NAME) if not pattern.fullmatch(longest)), None)


def digest(content: Mapping[str, object], length: int) -> str:
    """Return the first `length` hex digits of the content's SHA-256; the order of keys does not matter."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]
