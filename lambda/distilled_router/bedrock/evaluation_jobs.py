"""Bedrock's evaluation jobs, in which a judge model grades a candidate's answers.

A name is of one attempt in one life of the stack. The owner's tag tells whose a job is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.errors import (
    NotYetError,
    ResourceError,
    code,
    described,
    is_role_not_ready,
    is_transient,
    or_none,
)
from distilled_router.bedrock.naming import is_owned
from distilled_router.release.table import Release

IN_PROGRESS, STOPPING, COMPLETED = "InProgress", "Stopping", "Completed"
RUNNING = frozenset({IN_PROGRESS, STOPPING})


def job_name(owner: str, release: Release) -> str:
    """The name of an attempt's job: lower-case only, at most 63 characters (botocore: EvaluationJobName)."""
    return f"{name_part(owner)}-{release.digest}-{release.life}"


def name_part(owner: str) -> str:
    """What the names of all evaluation jobs of an owner have in common."""
    words = re.sub("[^a-z0-9]+", "-", owner.lower())[:24].strip("-")
    return f"{words}-{hashlib.sha256(owner.encode()).hexdigest()[:6]}".strip("-")


def start(bedrock: Any, owner: str, request: Mapping[str, Any]) -> str:
    """Make the job of a CreateEvaluationJob request, or find the one of that name, and return its ARN.

    Raises NotYetError where the same call may succeed soon, and ResourceError where Bedrock refuses it or the
    name is another owner's.
    """
    name = str(request["jobName"])
    # A token that Bedrock has forgotten would not tell of the job that an earlier call made.
    if found := find(bedrock, owner, name):
        return found
    try:
        return str(bedrock.create_evaluation_job(**request)["jobArn"])
    except (ClientError, BotoCoreError) as error:
        # Whatever this answer says, an earlier try of the same call may have made the job.
        if found := find(bedrock, owner, name):
            return found
        text = f"Bedrock did not take evaluation job {name}: {described(error)}"
        if is_transient(error) or (isinstance(error, ClientError) and _passes(error)):
            raise NotYetError(text) from error
        raise ResourceError(text) from error


def find(bedrock: Any, owner: str, name: str) -> str | None:
    """The ARN of the job of that name, or None. Raises ResourceError where it is another owner's."""
    for job in _named(bedrock, name):
        if job["jobName"] == name:
            if not _is_ours(bedrock, job["jobArn"], owner):
                raise ResourceError(
                    f"Evaluation job {name} is not this stack's: it lacks the owner's tag {owner}."
                )
            return str(job["jobArn"])
    return None


def running(bedrock: Any, owner: str) -> Iterator[Mapping[str, Any]]:
    """The summaries of all jobs of this owner that have not ended."""
    for job in _named(bedrock, name_part(owner)):
        if job["status"] in RUNNING and _is_ours(bedrock, job["jobArn"], owner):
            yield job


def stop(bedrock: Any, arn: str) -> None:
    """Stop a job, unless it has ended. What it graded so far is charged."""
    try:
        bedrock.stop_evaluation_job(jobIdentifier=arn)
    except ClientError as error:
        # It ended, or somebody else stopped it, between the look and this call.
        if code(error) not in {"ConflictException", "ValidationException", "ResourceNotFoundException"}:
            raise


def _named(bedrock: Any, part: str) -> Iterator[Mapping[str, Any]]:
    for page in bedrock.get_paginator("list_evaluation_jobs").paginate(nameContains=part):
        yield from page.get("jobSummaries", ())


def _is_ours(bedrock: Any, arn: str, owner: str) -> bool:
    answer = or_none(bedrock.list_tags_for_resource, resourceARN=arn)
    return answer is not None and is_owned(answer.get("tags", []), owner)


def _passes(error: ClientError) -> bool:
    """Whether the role is too young to be assumed, the account's other jobs, which end, hold the quota, or
    the job of that name is there but not listed yet."""
    return is_role_not_ready(error) or code(error) in {"ServiceQuotaExceededException", "ConflictException"}
