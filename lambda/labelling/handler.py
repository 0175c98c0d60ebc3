"""Entry points of labelling: the custom resource and the steps of its state machine.

The resource checks the raw queries before anything is paid for, publishes them in shards and starts the state
machine. The machine asks the limit again, labels each shard, curates the data set and creates the
customization job. All answers stay in the labels' folder, so that the next execution reuses them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config

from distilled_router.aws import executions
from distilled_router.aws.clients import client, table
from distilled_router.aws.custom_resource import Event, answer_event, answer_poll
from distilled_router.aws.errors import ReplacedError, ResourceError
from distilled_router.aws.objects import Folder, Published, Seal
from distilled_router.aws.state_machine import (
    StageResult,
    done,
    failed,
    pause,
    wait_if_transient,
    waited,
)
from distilled_router.bedrock.ownership import Claimant
from distilled_router.cost.limit import Limit, Spending
from distilled_router.cost.lines import Spec
from distilled_router.data.conversation import COUNT, examples
from distilled_router.data.labelling_plan import Plan, shard_of
from distilled_router.data.preflight import Needs
from distilled_router.env import CheckCostEnv, LabellingEnv, ResourceEnv
from distilled_router.task.task import Task
from labelling import failures, resource, seals
from labelling.cost_check import CostCheck
from labelling.curation import curate
from labelling.dataset import publish
from labelling.resource import Services
from labelling.shards import Shard, check_shards

logger = Logger()

# For single calls: allow the teacher a long answer, and retry throttled calls.
_RUNTIME = Config(retries={"mode": "standard", "max_attempts": 6}, connect_timeout=5, read_timeout=60)


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event, ResourceEnv.read())
    return answer_event(request, lambda each: resource.handle(each, _services(), Task.load()))


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event, ResourceEnv.read())
    return answer_poll(request, lambda each: resource.check(each, _services()))


def check_cost(event: Mapping[str, Any], context: Any) -> StageResult:
    """First step: commit what the execution may cost, unless that exceeds the limit."""
    del context
    plan, env, execution = Plan.of(event["plan"]), CheckCostEnv.read(), str(event.get("execution", ""))
    requests = table(env.requests_table)
    step = CostCheck(
        plan=plan,
        spec=Spec(**env.cost),
        limit=Limit(env.maximum_cost_usd, env.maximum_cost_days),
        folder=Folder(client("s3"), env.bucket, plan.folder, seals.read(requests, plan.folder)),
        task=Task.load(),
        execution=execution,
        spending=Spending(requests, client("bedrock"), env.owner),
    )
    return wait_if_transient(step.commit, pause(waited(event), plan.poll_seconds))


def label_queries(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step of one shard: take its labelling one step further."""
    del context
    plan, env, execution = Plan.of(event["plan"]), LabellingEnv.read(), str(event["execution"])
    stepfunctions, claimant = client("stepfunctions"), Claimant(env.stack_id, env.logical_id)
    shard = Shard(
        name=shard_of(str(event["shard"])),
        plan=plan,
        task=Task.load(),
        folder=Folder(
            client("s3"), env.bucket, plan.folder, seals.read(table(env.requests_table), plan.folder)
        ),
        bedrock=client("bedrock"),
        runtime=boto3.client("bedrock-runtime", config=_RUNTIME),
        owner=env.owner,
        execution=execution,
        role=env.batch_role_arn,
        tags={**env.tags, **claimant.tags(env.owner, request=execution, digest=plan.digest)},
        network=env.network,
        is_wanted=lambda: executions.is_open(executions.find(stepfunctions, execution)),
        absence_seconds=env.absence_seconds,
        waited=waited(event),
    )
    return wait_if_transient(shard.label, shard.pause)


def curate_dataset(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step after all shards: curate their answers, check the data set and publish it."""
    del context
    plan, env, execution = Plan.of(event["plan"]), LabellingEnv.read(), str(event.get("execution", ""))
    s3, requests = client("s3"), table(env.requests_table)
    return wait_if_transient(
        lambda: curated(
            plan,
            s3,
            env.bucket,
            Task.load(),
            execution,
            seals.read(requests, plan.folder),
            Needs(**env.needs),
        ),
        pause(waited(event), plan.poll_seconds),
    )


def curated(
    plan: Plan,
    s3: Any,
    bucket: str,
    task: Task,
    execution: str,
    seal: Seal | None = None,
    needs: Needs | None = None,
) -> StageResult:
    """Curate and publish a plan's data set, and return the step's result with the SHA-256 of its files.

    If a shard is not labelled, that is the reason which it left in this execution.
    """
    labels, target = (Folder(s3, bucket, name, seal) for name in (plan.folder, plan.dataset_folder))
    given, held_out = _given_holdout(plan, s3, target), None
    if given is not None:
        held_out = [example.query for example in examples((line.decode() for line in given), task)]
    queries, labelled = (
        {key.removeprefix(under).removesuffix(".jsonl") for key in labels.names(under)}
        for under in ("queries/", "labelled/")
    )
    check_shards(plan, labels)
    if missing := sorted(queries - labelled):
        return failed(failures.described(labels, missing, len(queries), execution))
    result = curate(_labelled(labels), plan, task, held_out)
    report = result.report()
    try:
        files = publish(target, result, plan, task, given, needs)
    except ReplacedError:
        raise
    except ResourceError as error:
        return failed(f"The curated data set is invalid: {error} Report: {json.dumps(report)}")
    told = f"{report['kept']} of {report['queries']} queries kept; report {target.uri('curation.json')}"
    told += "".join(f"; {note}" for note in result.notes(plan))
    return {**done(told), "files": files}


def _labelled(labels: Folder) -> Iterator[dict[str, Any]]:
    """Yield all labelled rows, with the counts of the queries: these may be newer than the labels."""
    for key in labels.names("labelled/"):
        shard = labels.rows(f"queries/{key.removeprefix('labelled/')}")
        counts = {row["number"]: row.get(COUNT, 1) for row in shard}
        for row in labels.rows(key):
            yield {**row, COUNT: counts.get(row["number"], 1)}


def _given_holdout(plan: Plan, s3: Any, target: Folder) -> list[bytes] | None:
    """Return the lines of the supplied hold-out set; None if there is none.

    Raises ReplacedError if the set is not the one that was published.
    """
    if not plan.holdout_sha256:
        return None
    # Executions of an earlier version have a copy, which their resource published.
    key = plan.holdout_key or f"{target.prefix}given-holdout.jsonl"
    content = Published(target.bucket, key, plan.holdout_sha256).read(s3)
    return content.splitlines(keepends=True)


def _services() -> Services:
    requests = table(ResourceEnv.read().requests_table)
    return Services(client("bedrock"), client("stepfunctions"), client("s3"), requests)
