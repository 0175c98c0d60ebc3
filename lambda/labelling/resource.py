"""Custom resource Labelling: check raw queries, publish them in shards and start the state machine.

The physical id is the labels' folder. Another model from the same labels is an update in place, and its
execution reuses the labels. Other labels have another folder: a replacement, so CloudFormation deletes the
old one after the update has succeeded.

Each resource that needs the labels claims their folder, with the digest of its model. If it is deleted, it
stops the model's executions unless another claim has the same digest. If nobody else claims the folder, it
also stops the batch jobs and deletes the folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws import executions
from distilled_router.aws.custom_resource import Event, answer, complete, is_true, pending
from distilled_router.aws.errors import ResourceError, with_retries
from distilled_router.aws.fence import SupersededError
from distilled_router.aws.folder_claims import FolderClaim, rolls_back
from distilled_router.aws.objects import Folder
from distilled_router.aws.storage import PURGE_SECONDS, deadline
from distilled_router.bedrock import jobs
from distilled_router.bedrock.ownership import Claimant
from distilled_router.cost.estimate import Volume
from distilled_router.cost.limit import enforce_limit
from distilled_router.data.findings import Report
from distilled_router.data.labelling_plan import Plan
from distilled_router.task.task import Task
from labelling import batch, life, seals
from labelling.cost_check import labels_name
from labelling.sources import Source

logger = Logger(child=True)

# A field of onEvent's answer: the Update rolls back one to other labels.
_ROLLS_BACK = "RollsBack"
_OTHER = "superseded by one with another hold-out set"
# And another one: the number of shards, for the execution's input.
_SHARDS = "Shards"


@dataclass(frozen=True)
class Services:
    """Clients of the resource, and the stack's table of requests."""

    bedrock: Any
    stepfunctions: Any
    s3: Any
    requests: Any


def handle(
    event: Event, aws: Services, task: Task, retry: Callable[..., Any] = with_retries
) -> dict[str, Any]:
    """Check and publish the queries on Create and Update."""
    if event.is_delete:
        return answer(str(event.physical_id))
    plan, bucket = _plan(event.properties), str(event.properties["Bucket"])
    folder = Folder(aws.s3, bucket, plan.folder, seals.begin(aws.requests, plan.folder, event))
    report = Report()
    raw = Source(event.properties, plan, task, aws.s3, retry).read(folder, report)
    if not report.ok:
        raise ResourceError(f"{report.summary()} Nothing was published or started.")
    enforce_limit(event, Volume.of(raw.queries), task, aws.bedrock, labels=labels_name(folder, plan))
    logger.info("queries passed", summary=report.summary())
    claim, retain = _claim(event, event.properties, aws), _is_retained(event.properties)
    with claim.held(event.check_newest, retain=retain, digest=plan.digest):
        shards = raw.publish(folder, int(event.properties["QueriesPerShard"]), task)
        life.begin(folder)
    holdout_key = _given_holdout(event).get("Key", f"{plan.dataset_folder}holdout.jsonl")
    return answer(
        _physical_id(event.properties),
        {
            "Queries": str(len(raw.queries)),
            "TrainingUri": f"s3://{bucket}/{plan.dataset_folder}training.jsonl",
            "HoldoutUri": f"s3://{bucket}/{holdout_key}",
            "ReportUri": f"s3://{bucket}/{plan.dataset_folder}curation.json",
        },
        **{
            _ROLLS_BACK: rolls_back(event, _physical_id),
            _SHARDS: shards,
        },
    )


def check(event: Event, aws: Services) -> dict[str, Any]:
    """Start the execution on Create and Update; on Delete stop executions and jobs, and purge the folder."""
    if event.is_delete:
        # Also for an id that CloudFormation invented, because it cancelled a Create: the properties tell what
        # the Create may have started.
        left = _remove(event, event.properties, aws)
        return pending(left) if left else complete()
    plan, machine = _plan(event.properties), str(event.properties["StateMachineArn"])
    if event.raw.get(_ROLLS_BACK) and (left := _remove(event, event.old_properties, aws)):
        return pending(left)
    old = _plan(event.old_properties) if event.old_properties else plan
    # The new model's execution continues the same labels. Other labels are a replacement, and CloudFormation
    # deletes the old resource.
    is_superseded = old.digest != plan.digest and old.folder == plan.folder
    if is_superseded and not _stop(aws, machine, old.digest, f"superseded by {plan.digest}"):
        return pending(f"Executions of {machine} for {old.digest} are being stopped.")
    # If the construct was moved, the old logical id started them, and its Delete is still to come.
    batch.claim_all(aws.bedrock, plan.owner, plan.labels, Claimant.of(event))
    # One look is enough: a labelling that is started in vain finds all answers, and the job.
    if jobs.find(aws.bedrock, str(event.properties["JobName"])):
        logger.info("nothing to label: the job exists", job=event.properties["JobName"])
        return complete()
    # The hash of another hold-out set would be missing on the job that they create.
    if not all(executions.stop(aws.stepfunctions, arn, _OTHER) for arn in _with_other_holdout(event, aws)):
        return pending(f"Executions of {machine} for {plan.digest} are being stopped: {_OTHER}.")
    _start(event, aws, machine, plan.digest)
    return complete()


def _start(event: Event, aws: Services, machine: str, digest: str) -> None:
    """Start the model's labelling, unless it runs or CloudFormation has sent a newer request."""
    if _open(aws, machine, digest):
        return
    event.check_newest()
    started = executions.ensure(aws.stepfunctions, machine, digest, execution_input(event))
    try:
        event.check_newest()
    except SupersededError as error:
        executions.stop(aws.stepfunctions, started, str(error))
        raise


def execution_input(event: Event) -> str:
    """Return an execution's input: the same for equal plans, so that a repeated start is idempotent.

    It names the resource that started the execution, for people; the steps read the plan only.
    """
    plan = json.loads(str(event.properties["Plan"]))
    if holdout := _given_holdout(event):
        plan |= {"holdout_key": holdout["Key"], "holdout_sha256": holdout["Sha256"]}
    if shards := event.raw.get(_SHARDS):
        plan["shards"] = shards
    claimant = {"stack_id": event.stack_id, "logical_id": event.logical_id}
    return json.dumps({"claimant": claimant, "plan": plan}, sort_keys=True)


def _plan(properties: Mapping[str, Any]) -> Plan:
    return Plan.of(json.loads(str(properties["Plan"])))


def _physical_id(properties: Mapping[str, Any]) -> str:
    return f"s3://{properties['Bucket']}/{_plan(properties).folder}"


def _given_holdout(event: Event) -> Mapping[str, str]:
    """Return key and SHA-256 of the supplied hold-out set; empty if there is none."""
    found: Mapping[str, str] = event.properties.get("Holdout", {})
    return found


def _with_other_holdout(event: Event, aws: Services) -> list[str]:
    """Return the ARNs of the model's open executions that were given another hold-out set, or none."""
    plan, machine = _plan(event.properties), str(event.properties["StateMachineArn"])
    wanted = _given_holdout(event)

    def is_other(execution: Mapping[str, Any]) -> bool:
        given = json.loads(str(execution["input"]))["plan"]
        return bool(given.get("holdout_key", "") != wanted.get("Key", ""))

    found = executions.of_work(aws.stepfunctions, machine, plan.digest)
    return [str(one["executionArn"]) for one in found if executions.is_open(one) and is_other(one)]


def _open(aws: Services, machine: str, digest: str) -> list[str]:
    """Return the ARNs of a model's open executions."""
    return [
        str(execution["executionArn"])
        for execution in executions.of_work(aws.stepfunctions, machine, digest)
        if executions.is_open(execution)
    ]


def _stop(aws: Services, machine: str, digest: str, cause: str) -> bool:
    """Stop a model's executions; return whether all are closed."""
    found = _open(aws, machine, digest)
    closed = [executions.stop(aws.stepfunctions, arn, cause) for arn in found]
    return all(closed)


def _claim(event: Event, properties: Mapping[str, Any], aws: Services) -> FolderClaim:
    bucket, folder = str(properties["Bucket"]), _plan(properties).folder
    return FolderClaim(aws.s3, bucket, folder, Claimant.of(event), event.request_id)


def _is_retained(properties: Mapping[str, Any]) -> bool:
    return is_true(properties.get("Retain", "true"))


def _remove(event: Event, properties: Mapping[str, Any], aws: Services) -> str | None:
    """Stop and delete what only this resource needs; return what is left, or None.

    Executions stop before batch jobs. A step that creates a job checks its execution again afterwards, and
    stops the job itself if the execution has ended.
    """
    plan, machine = _plan(properties), str(properties["StateMachineArn"])
    claim, retain = _claim(event, properties, aws), _is_retained(properties)
    claim.drop(retain=retain)
    digests = {str(other["digest"]) for other in claim.others() if "digest" in other}
    if plan.digest not in digests and not _stop(aws, machine, plan.digest, "the stack no longer needs it"):
        return f"Executions of {machine} for {plan.digest} are being stopped."
    left = batch.release_all(aws.bedrock, plan.owner, plan.labels, Claimant.of(event))
    if left and not digests:
        for job in left:
            if job["status"] != "Stopping":
                batch.stop(aws.bedrock, job["jobArn"])
        return "Batch jobs are being stopped: " + ", ".join(
            f"{job['jobArn']} is {job['status']}" for job in left
        )
    is_complete = retain or claim.purge(until=deadline(PURGE_SECONDS))
    return None if is_complete else f"Labels under {plan.folder} are being deleted."
