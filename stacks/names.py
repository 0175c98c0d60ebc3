"""Names as Bedrock takes them, and digests that names end in."""

import hashlib
import json
import re
from collections.abc import Mapping

from shared.naming import MOST_ATTEMPTS, attempt_name

# Bedrock's patterns, written to match in linear time: the published one of job names is exponential.
JOB_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9+.\-]{0,62}")  # botocore: JobName
# botocore: CustomModelName, ModelDeploymentName, ProvisionedModelName
MODEL_NAME = re.compile(r"(?!.{64})([0-9a-zA-Z][_-]?)+")


def refused(name: str) -> re.Pattern[str] | None:
    """The pattern that the name of a release doesn't match as its job's or its model's, if there is one. The
    last attempt's name is the longest."""
    longest = attempt_name(name, MOST_ATTEMPTS)
    return next((pattern for pattern in (JOB_NAME, MODEL_NAME) if not pattern.fullmatch(longest)), None)


def digest(content: Mapping[str, object], length: int) -> str:
    """The first so many hex digits of the SHA-256 of some content, whatever the order of its keys."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]
