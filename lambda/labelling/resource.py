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
from collections.abc import Callable, Iterator, Mapping
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
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.data.files import DataFile, files_of
from distilled_router.data.findings import Report
from distilled_router.data.labelling_plan import Plan, shard_name
from distilled_router.data.query_rules import QueryCheck
from distilled_router.task.task import Task
from labelling import batch, life, seals
from labelling.cost_check import labels_name
from labelling.dataset import GIVEN_HOLDOUT

logger = Logger(child=True)

# A field of onEvent's answer: the Update rolls back one to other labels.
_ROLLS_BACK = "RollsBack"
# And another one: the SHA-256 of the supplied hold-out set, for the execution's input.
_HOLDOUT = "HoldoutSha256"
# And another one: the number of shards, for the same input.
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
    report = Report()
    files = files_of("queries", event.properties["Queries"], aws.s3, retry)
    checks = QueryCheck(task, report)
    queries = [query for file in files for query in checks.read(file.location["Key"], file.rows())]
    checks.finish(plan.method, plan.trained_share(is_holdout_given="Holdout" in event.properties))
    holdout = _holdout(event.properties, aws.s3, retry, task, plan.method, report)
    if not report.ok:
        raise ResourceError(f"{report.summary()} Nothing was published or started.")
    folder = Folder(aws.s3, bucket, plan.folder, seals.begin(aws.requests, plan.folder, event))
    enforce_limit(event, Volume.of(queries), task, aws.bedrock, labels=labels_name(folder, plan))
    logger.info("queries passed", summary=report.summary())
    claim, retain = _claim(event, event.properties, aws), _is_retained(event.properties)
    with claim.held(event.check_newest, retain=retain, digest=plan.digest):
        shards = list(_shards(queries, int(event.properties["QueriesPerShard"])))
        for name, rows in shards:
            folder.write_rows(f"queries/{name}.jsonl", rows)
        life.begin(folder)
        if holdout:
            holdout.publish(bucket, f"{plan.dataset_folder}{GIVEN_HOLDOUT}")
    return answer(
        _physical_id(event.properties),
        {
            "Queries": str(len(queries)),
            "TrainingUri": f"s3://{bucket}/{plan.dataset_folder}training.jsonl",
            "HoldoutUri": f"s3://{bucket}/{plan.dataset_folder}holdout.jsonl",
            "ReportUri": f"s3://{bucket}/{plan.dataset_folder}curation.json",
        },
        **{
            _ROLLS_BACK: rolls_back(event, _physical_id),
            _HOLDOUT: holdout.sha256 if holdout else "",
            _SHARDS: len(shards),
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
    if holdout := event.raw.get(_HOLDOUT):
        plan["holdout_sha256"] = holdout
    if shards := event.raw.get(_SHARDS):
        plan["shards"] = shards
    claimant = {"stack_id": event.stack_id, "logical_id": event.logical_id}
    return json.dumps({"claimant": claimant, "plan": plan}, sort_keys=True)


def _plan(properties: Mapping[str, Any]) -> Plan:
    return Plan.of(json.loads(str(properties["Plan"])))


def _physical_id(properties: Mapping[str, Any]) -> str:
    return f"s3://{properties['Bucket']}/{_plan(properties).folder}"


def _holdout(
    properties: Mapping[str, Any], s3: Any, retry: Callable[..., Any], task: Task, method: str, report: Report
) -> DataFile | None:
    """Return the supplied hold-out set after checking it; None if there is none."""
    given = properties.get("Holdout")
    if given is None:
        return None
    source = DataFile.of("holdout", given, s3, retry)
    check_dataset(None, source.rows(), task, method, report=report)
    return source


def _shards(queries: list[str], size: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield name and rows of shards of nearly equal length, at most `size` queries each."""
    count = -(-len(queries) // size)
    for number in range(count):
        start, end = number * len(queries) // count, (number + 1) * len(queries) // count
        yield shard_name(number), [{"number": n, "query": queries[n]} for n in range(start, end)]


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
