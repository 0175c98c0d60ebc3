"""Batch inference job for one round of a shard: half the price, but hours instead of minutes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.errors import (
    NotYetError,
    ResourceError,
    code,
    described,
    is_name_in_use,
    is_transient,
)
from distilled_router.aws.objects import Folder
from distilled_router.bedrock import ownership, roles
from distilled_router.bedrock.naming import LABELS_TAG, OWNER_TAG, bedrock_tags
from distilled_router.bedrock.ownership import Claimant
from distilled_router.data.labelling_plan import Plan
from distilled_router.task.converse import NoReplyError, Reply, request
from distilled_router.task.task import Task
from labelling.answers import Answer, prompt
from labelling.records import Record

RUNNING = frozenset({"Submitted", "Validating", "Scheduled", "InProgress", "Stopping"})
_OUTPUT = ".jsonl.out"
# Bedrock's text to an account without batch inference (prowler-cloud/prowler PR 12801). Its error code is not
# documented.
_UNAUTHORIZED = "account is not authorized to perform this action"


def job_name(owner: str, life: str, shard: str, number: int) -> str:
    """Return the name of a round's job (at most 63 characters; botocore: ModelInvocationJobName)."""
    return f"{owner[:24].rstrip('-')}-{_name_part(owner)}{life}-{shard}-{number}"


def _name_part(owner: str) -> str:
    """Return the part that the names of all batch jobs of an owner share."""
    return hashlib.sha256(owner.encode()).hexdigest()[:6]


def write_input(folder: Folder, key: str, records: Sequence[Record], plan: Plan, task: Task) -> None:
    """Write a job's input file."""
    asked_with = prompt(plan, task)
    rows = ({"recordId": record.id, "modelInput": request(asked_with, record.query)} for record in records)
    folder.write_rows(key, rows)


def start(
    bedrock: Any,
    name: str,
    plan: Plan,
    folder: Folder,
    *,
    source: str,
    target: str,
    role: str,
    network: Mapping[str, Sequence[str]],
    tags: Mapping[str, str],
) -> str:
    """Create the job, or find the one of that name, and return its ARN. `network` is its vpcConfig, or empty.

    Raises NotYetError if the same call may succeed later, and ResourceError if Bedrock rejects it.
    """
    try:
        created = bedrock.create_model_invocation_job(
            jobName=name,
            clientRequestToken=hashlib.sha256(name.encode()).hexdigest(),
            modelId=plan.teacher,
            roleArn=role,
            modelInvocationType="Converse",
            inputDataConfig={"s3InputDataConfig": {"s3InputFormat": "JSONL", "s3Uri": folder.uri(source)}},
            outputDataConfig={"s3OutputDataConfig": {"s3Uri": folder.uri(target)}},
            timeoutDurationInHours=plan.batch_hours,
            **({"vpcConfig": dict(network)} if network else {}),
            tags=bedrock_tags({**tags, LABELS_TAG: plan.labels}),
        )
    except (ClientError, BotoCoreError) as error:
        # Whatever the error, an earlier try of the same call may have created the job.
        found = next((job for job in named(bedrock, name) if job["jobName"] == name), None)
        if found:
            return str(found["jobArn"])
        text = f"Bedrock did not create batch job {name}: {described(error)}"
        if roles.is_not_ready(error):
            raise roles.RoleNotReadyError(text, role) from error
        if is_transient(error) or (isinstance(error, ClientError) and is_name_in_use(error)):
            # If the name is in use, the job of that name exists but is not listed yet.
            raise NotYetError(text) from error
        if isinstance(error, ClientError) and code(error) == "ServiceQuotaExceededException":
            # The account's other batch jobs use up the quota, until they end.
            raise NotYetError(
                f"{text} Waiting for other batch jobs to end; the quotas are in Service Quotas."
            ) from error
        if _UNAUTHORIZED in text:
            raise ResourceError(
                f"{text} Bedrock has not opened batch inference to this account, as in some new ones. Create "
                'a support case with AWS; until then, use labelled rows (dataset.labels = "given").'
            ) from error
        raise ResourceError(text) from error
    return str(created["jobArn"])


def named(bedrock: Any, part: str) -> Iterator[dict[str, Any]]:
    """Yield all batch jobs whose name contains `part`."""
    for page in bedrock.get_paginator("list_model_invocation_jobs").paginate(nameContains=part):
        yield from page["invocationJobSummaries"]


def answers(folder: Folder, target: str, task: Task) -> dict[str, Answer]:
    """Return a job's answers by record id, also those of a stopped or expired job: they are paid for."""
    found: dict[str, Answer] = {}
    for key in folder.names(target):
        if not key.endswith(_OUTPUT) or "manifest" in key:
            continue
        for row in folder.bedrock_rows(key):
            if not isinstance(record := row.get("recordId"), str):
                continue  # nobody knows whose answer it is; the record is asked again
            try:
                found[record] = Answer.read(Reply.from_record(row), task)
            except NoReplyError as error:
                found[record] = Answer.failed(error)
    return found


def claim_all(bedrock: Any, owner: str, labels: str, claimant: Claimant) -> None:
    """Claim the running batch jobs for an owner's labels, which another logical id may have started."""
    for job, tags in _running(bedrock, owner, labels):
        if not claimant.holds(tags):
            ownership.claim(bedrock, job["jobArn"], claimant)


def release_all(bedrock: Any, owner: str, labels: str, claimant: Claimant) -> list[dict[str, Any]]:
    """Remove a claim from the running batch jobs for an owner's labels; return those that nobody claims."""
    return [
        job
        for job, _ in _running(bedrock, owner, labels)
        if ownership.release(bedrock, job["jobArn"], claimant)
    ]


def _running(bedrock: Any, owner: str, labels: str) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield the running batch jobs for an owner's labels, with their tags."""
    for job in running(bedrock, owner):
        tags = ownership.read_tags(bedrock, job["jobArn"]) or {}
        if tags.get(OWNER_TAG) == owner and tags.get(LABELS_TAG) == labels:
            yield job, tags


def running(bedrock: Any, owner: str) -> Iterator[dict[str, Any]]:
    """Yield the running batch jobs whose names are like an owner's; their tags say whose they are."""
    yield from (job for job in named(bedrock, _name_part(owner)) if job["status"] in RUNNING)


def stop(bedrock: Any, arn: str) -> None:
    """Stop a job, unless it has ended.

    Bedrock charges for the records processed so far, and writes their answers.
    """
    try:
        bedrock.stop_model_invocation_job(jobIdentifier=arn)
    except ClientError as error:
        # The job may have ended, or been stopped, since its status was read.
        if code(error) not in {"ConflictException", "ValidationException", "ResourceNotFoundException"}:
            raise
