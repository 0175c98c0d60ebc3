"""Start, find and stop Bedrock's evaluation jobs, in which a judge model grades a candidate's answers.

A job's name belongs to one attempt in one life of the stack. The owner's tag says whose the job is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.absence import confirmed
from distilled_router.aws.errors import (
    NotYetError,
    ResourceError,
    code,
    described,
    is_name_in_use,
    is_transient,
    or_none,
)
from distilled_router.bedrock import roles
from distilled_router.bedrock.naming import is_owned
from distilled_router.release.table import Release

IN_PROGRESS, STOPPING, COMPLETED = "InProgress", "Stopping", "Completed"
RUNNING = frozenset({IN_PROGRESS, STOPPING})


def job_name(owner: str, release: Release) -> str:
    """Return the name of an attempt's job, lower case (botocore: EvaluationJobName)."""
    return f"{name_part(owner)}-{release.digest}-{release.life}"


def name_part(owner: str) -> str:
    """Return the part that the names of all evaluation jobs of an owner start with."""
    words = re.sub("[^a-z0-9]+", "-", owner.lower())[:24].strip("-")
    return f"{words}-{hashlib.sha256(owner.encode()).hexdigest()[:6]}".strip("-")


def start(bedrock: Any, owner: str, request: Mapping[str, Any], absence_seconds: float = 0.0) -> str:
    """Create the job of a CreateEvaluationJob request, or find the one of that name, and return its ARN.

    A job without the owner's tag counts as another owner's after `absence_seconds`.

    Raises:
        NotYetError: The call failed temporarily.
        RoleNotReadyError: Bedrock can't use the role yet.
        ResourceError: Bedrock refuses the request, or the name belongs to another owner.
    """
    name = str(request["jobName"])
    # Bedrock forgets tokens after a while, so a token alone would not find the job of an earlier call.
    if found := find(bedrock, owner, name, absence_seconds):
        return found
    try:
        return str(bedrock.create_evaluation_job(**request)["jobArn"])
    except (ClientError, BotoCoreError) as error:
        # Whatever this error says, an earlier try of the same call may have created the job.
        if found := find(bedrock, owner, name, absence_seconds):
            return found
        text = f"Bedrock did not create evaluation job {name}: {described(error)}"
        if roles.is_not_ready(error):
            raise roles.RoleNotReadyError(text, str(request["roleArn"])) from error
        if is_transient(error) or (isinstance(error, ClientError) and _is_temporary(error)):
            raise NotYetError(text) from error
        raise ResourceError(text) from error


def find(bedrock: Any, owner: str, name: str, absence_seconds: float = 0.0) -> str | None:
    """Return the ARN of the job of that name, or None.

    Raises ResourceError if it is another owner's. The tags of a job that was created a moment ago may be
    readable later than the job itself, so they are read for `absence_seconds`.
    """
    for job in _named(bedrock, name):
        if job["jobName"] == name:
            arn = str(job["jobArn"])
            if not confirmed(partial(_is_ours, bedrock, arn, owner), absence_seconds):
                raise ResourceError(
                    f"Evaluation job {name} does not belong to this stack: it lacks the owner's tag {owner}."
                )
            return arn
    return None


def running(bedrock: Any, owner: str) -> Iterator[Mapping[str, Any]]:
    """Yield the summaries of all jobs with names of this owner that have not ended."""
    return (job for job in _named(bedrock, name_part(owner)) if job["status"] in RUNNING)


def stop(bedrock: Any, arn: str) -> None:
    """Stop a job, unless it has ended. AWS charges what it graded so far."""
    try:
        bedrock.stop_evaluation_job(jobIdentifier=arn)
    except ClientError as error:
        # It ended, or was stopped by someone else, since it was read.
        if code(error) not in {"ConflictException", "ValidationException", "ResourceNotFoundException"}:
            raise


def _named(bedrock: Any, part: str) -> Iterator[Mapping[str, Any]]:
    for page in bedrock.get_paginator("list_evaluation_jobs").paginate(nameContains=part):
        yield from page.get("jobSummaries", ())


def _is_ours(bedrock: Any, arn: str, owner: str) -> bool | None:
    """Return True if the job has the owner's tag, else None."""
    answer = or_none(bedrock.list_tags_for_resource, resourceARN=arn)
    return (answer is not None and is_owned(answer.get("tags", []), owner)) or None


def _is_temporary(error: ClientError) -> bool:
    """Return whether other jobs use up the quota until they end, or the job of that name exists but is not
    listed yet."""
    return code(error) in {"ServiceQuotaExceededException", "ConflictException"} or is_name_in_use(error)
