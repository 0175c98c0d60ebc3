"""Custom resource Labelling: check raw queries, publish them in shards and start the state machine.

The physical id is the labels' folder. Another model from the same labels is an update in place, and its
execution reuses the labels. Other labels have another folder: a replacement, so CloudFormation deletes the
old one after the update has succeeded.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from distilled_router.aws import executions
from distilled_router.aws.custom_resource import Event, answer, complete, is_true, pending
from distilled_router.aws.errors import ResourceError, code, with_retries
from distilled_router.aws.objects import Folder
from distilled_router.aws.storage import PURGE_SECONDS, deadline, purge
from distilled_router.bedrock import jobs
from distilled_router.cost import estimate
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.data.files import DataFile, files_of
from distilled_router.data.findings import Report
from distilled_router.data.labelling_plan import Plan
from distilled_router.data.query_rules import QueryCheck
from distilled_router.task.task import Task
from labelling import batch
from labelling.dataset import GIVEN_HOLDOUT

logger = Logger(child=True)

_LIFE = "life.json"


@dataclass(frozen=True)
class Services:
    """Clients of the resource."""

    bedrock: Any
    stepfunctions: Any
    s3: Any


def handle(
    event: Event, aws: Services, task: Task, retry: Callable[..., Any] = with_retries
) -> dict[str, Any]:
    """Check and publish the queries on Create and Update."""
    if event.is_delete:
        return answer(str(event.physical_id))
    plan, bucket = _plan(event.properties), str(event.properties["Bucket"])
    folder = Folder(aws.s3, bucket, plan.folder)
    report = Report()
    files = files_of("queries", event.properties["Queries"], aws.s3, retry)
    checks = QueryCheck(task, report)
    queries = [query for file in files for query in checks.read(file.location["Key"], file.rows())]
    checks.finish(plan.method, plan.trained_share(is_holdout_given="Holdout" in event.properties))
    holdout = _holdout(event.properties, aws.s3, retry, task, plan.method, report)
    if not report.ok:
        raise ResourceError(f"{report.summary()} Nothing was published or started.")
    estimate.enforce_limit(event, estimate.Volume.of(queries), task)
    logger.info("queries passed", summary=report.summary())
    for name, rows in _shards(queries, int(event.properties["QueriesPerShard"])):
        folder.write_rows(f"queries/{name}.jsonl", rows)
    _begin_life(aws.s3, folder)
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
    )


def check(event: Event, aws: Services) -> dict[str, Any]:
    """Start the execution on Create and Update; on Delete stop executions and jobs, and purge the folder."""
    if event.is_delete:
        return complete() if _is_deleted(event, aws) else pending()
    plan, machine = _plan(event.properties), str(event.properties["StateMachineArn"])
    before = event.old_properties.get("Plan")
    old = Plan.of(json.loads(before)) if before else plan
    # The new model's execution continues the same labels. Other labels are a replacement, and CloudFormation
    # deletes the old resource.
    is_superseded = old.digest != plan.digest and old.labels == plan.labels
    if is_superseded and not _stop(aws, machine, old.digest, f"superseded by {plan.digest}"):
        return pending()
    if jobs.find(aws.bedrock, str(event.properties["JobName"])):
        logger.info("nothing to label: the job exists", job=event.properties["JobName"])
        return complete()
    executions.ensure(aws.stepfunctions, machine, plan.digest, execution_input(event.properties["Plan"]))
    return complete()


def execution_input(plan: str) -> str:
    """Return an execution's input: the same for equal plans, so that a repeated start is idempotent."""
    return json.dumps({"plan": json.loads(plan)}, sort_keys=True)


def life_of(folder: Folder) -> str:
    """Return 6 hex digits that are new each time the labels' folder is created."""
    found = folder.read(_LIFE)
    if found is None:
        raise ResourceError(f"{folder.uri(_LIFE)} is missing. Deploy the stack again to publish it.")
    return str(found["life"])


def _begin_life(s3: Any, folder: Folder) -> None:
    try:
        s3.put_object(
            Bucket=folder.bucket,
            Key=f"{folder.prefix}{_LIFE}",
            Body=json.dumps({"life": secrets.token_hex(3)}).encode(),
            IfNoneMatch="*",
        )
    except ClientError as error:
        if code(error) not in {"PreconditionFailed", "ConditionalRequestConflict"}:
            raise


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
        yield f"{number:05d}", [{"number": n, "query": queries[n]} for n in range(start, end)]


def _stop(aws: Services, machine: str, digest: str, cause: str) -> bool:
    """Stop a model's executions; return whether all are closed."""
    found = [
        str(execution["executionArn"])
        for execution in executions.of_work(aws.stepfunctions, machine, digest)
        if executions.is_open(execution)
    ]
    closed = [executions.stop(aws.stepfunctions, arn, cause) for arn in found]
    return all(closed)


def _is_deleted(event: Event, aws: Services) -> bool:
    """Continue the deletion; return whether it is complete.

    Executions stop before batch jobs. A step that creates a job checks its execution again afterwards, and
    stops the job itself if the execution has ended.
    """
    if "Plan" not in event.properties or event.physical_id != _physical_id(event.properties):
        return True  # CloudFormation generates an id for a resource whose create never answered
    plan, machine = _plan(event.properties), str(event.properties["StateMachineArn"])
    if not _stop(aws, machine, plan.digest, "the stack is being deleted"):
        return False
    folder = Folder(aws.s3, str(event.properties["Bucket"]), plan.folder)
    life, owner = folder.read(_LIFE), str(event.properties["Owner"])
    if life and not batch.stop_all(aws.bedrock, batch.name_part(owner, str(life["life"])), owner):
        return False
    if is_true(event.properties.get("Retain", "true")):
        return True
    return purge(aws.s3, folder.bucket, folder.prefix, until=deadline(PURGE_SECONDS))
