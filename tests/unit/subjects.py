"""The custom resources that create what costs, each with two states that a stack may ask for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any

from distilled_router.aws.storage import purge
from distilled_router.bedrock.ownership import CLAIM_TAG, DROPPED_TAG, REQUEST_TAG
from distilled_router.data.conversation import row
from distilled_router.task.task import Task
from stacks.settings import PROJECT
from tests.unit.distilled_router.aws.throttling_scenes import declared, model_of, modelled, units
from tests.unit.entry_points import SETTINGS, Play, nothing
from tests.unit.labelling.scenes import PLAN
from tests.unit.local.bedrock.scenes import HOUR
from tests.unit.release_world import OWNER, A, B
from tests.unit.resource_scenes import INTERNAL, NAME, NEXT, job_properties, training_rows

# The functions that are no handlers of custom resources have this logical id among their variables.
LOGICAL_ID, MOVED = SETTINGS["LOGICAL_ID"], "MovedResource0A1B2C3D"
ENDED = {"Completed", "Failed", "Stopped", "Stopping", "PartiallyCompleted", "Expired"}
# The project's own, since similar ones leave nothing to hold out.
QUERIES = b"".join((PROJECT / "data" / "queries.txt").read_bytes().splitlines(keepends=True)[:250])

type Properties = Callable[[Play], dict[str, Any]]


@dataclass(frozen=True)
class Subject:
    """A custom resource.

    Attributes:
        folder: the function.
        first, second: properties before and after an update.
        prepare: what other resources create before this one.
        grow: what its release or its labelling creates while it exists.
        late: a step that still runs at the end of the sequence.
        is_shared: whether two logical ids may need the same thing; else the second one is refused.
    """

    folder: str
    first: Properties
    second: Properties
    prepare: Callable[[Play], object] = nothing
    grow: Callable[[Play], object] = nothing
    late: Callable[[Play], object] = nothing
    is_shared: bool = True


@cache
def _rows() -> tuple[bytes, bytes]:
    """Return valid training and hold-out files."""
    task = Task.load()
    weights = {label: 1.0 * (label == task.labels[0]) for label in task.labels}
    held_out = "".join(json.dumps(row(task, f"held out {n}", weights)) + "\n" for n in range(100))
    return training_rows(task), held_out.encode()


def _files(play: Play) -> None:
    for name, content in zip(("training", "holdout"), _rows(), strict=True):
        play.world.s3.put_object(Bucket=play.world.bucket, Key=f"in/{name}.jsonl", Body=content)


def _data_set(play: Play, digest: str) -> dict[str, Any]:
    files = {
        name.title(): {"Bucket": play.world.bucket, "Key": f"in/{name}.jsonl"}
        for name in ("training", "holdout")
    }
    bucket = {"Bucket": play.world.bucket, "Retain": "false"}
    return {**bucket, "Digest": digest, "Method": "distillation", **files}


def _queries(play: Play) -> None:
    play.world.server.s3.put_object(Bucket="data", Key="raw/queries.txt", Body=QUERIES)


def _labels(play: Play, **changes: Any) -> dict[str, Any]:
    plan = replace(PLAN, **changes)
    return {
        "Bucket": "data",
        "StateMachineArn": play.world.machine,
        "JobName": f"{OWNER}-{plan.digest}",
        "Plan": json.dumps(asdict(plan)),
        "Queries": {"Bucket": "data", "Key": "raw/queries.txt"},
        "QueriesPerShard": "500",
        "Retain": "false",
    }


def _batch(play: Play) -> None:
    """Start a batch job, as the labelling's execution does."""
    execution = f"{play.world.machine.replace(':stateMachine:', ':execution:')}:{PLAN.digest}-1"
    shard = f"{PLAN.folder}queries/00000.jsonl"
    event = {"plan": asdict(PLAN), "execution": execution, "shard": shard}
    play.call("labelling.label_queries", event)


def _trained(play: Play) -> None:
    play.world.advance(3 * HOUR)


def _job_of_labels(play: Play) -> None:
    """Create the job, as the labelling's execution does."""
    execution = play.world.stepfunctions.start_execution(stateMachineArn=play.world.machine, name="labels")
    event = {"properties": job_properties(MadeLater="true"), "execution": execution["executionArn"]}
    assert play.until("distillation_job.create_job", event)


def _fails_first(play: Play) -> None:
    """Prepare a release that retries its job, which fails."""
    play.world.begin(A, source=NAME)
    play.world.server.fault("job_failed", message=INTERNAL)


def _watched(play: Play) -> None:
    """Poll the job, as the release's execution does."""
    play.call("candidate.watch_job", {"release": A})


def _retried(play: Play) -> None:
    play.world.advance(HOUR)
    _watched(play)


def _model(play: Play) -> None:
    play.world.train(A)


def _deployed(play: Play) -> None:
    """Claim the release's model and create its deployment, as its execution does."""
    model = model_of(play, A)
    play.world.claim(model)
    play.world.deploy(A, model)
    play.world.releases.update(A, model_arn=model)


SUBJECTS = {
    "data set": Subject("dataset", lambda p: _data_set(p, A), lambda p: _data_set(p, B), _files),
    "labelling": Subject("labelling", _labels, lambda p: _labels(p, digest=NEXT), _queries, _batch),
    "other labels": Subject(
        "labelling", _labels, lambda p: _labels(p, digest=NEXT, labels="e" * 16), _queries, _batch
    ),
    "running job": Subject("distillation_job", lambda _: job_properties(), lambda _: job_properties(NEXT)),
    "finished job": Subject(
        "distillation_job", lambda _: job_properties(), lambda _: job_properties(NEXT), grow=_trained
    ),
    "retried job": Subject(
        "distillation_job",
        lambda _: job_properties(),
        lambda _: job_properties(NEXT),
        _fails_first,
        _retried,
        _watched,
    ),
    "job of a labelling": Subject(
        "distillation_job",
        lambda _: job_properties(MadeLater="true"),
        lambda _: job_properties(NEXT, MadeLater="true"),
        grow=_job_of_labels,
    ),
    "moved throughput": Subject(
        "provisioned_throughput", units, lambda p: units(p, digest=B), modelled, is_shared=False
    ),
    "other throughput": Subject(
        "provisioned_throughput", units, lambda p: units(p, 2), modelled, is_shared=False
    ),
    "release": Subject("release", lambda p: declared(p, A), lambda p: declared(p, B), _model, _deployed),
}


def prepared(subject: Subject) -> Callable[[Play], None]:
    """Return what prepares a subject's account: it removes the files of an earlier play."""

    def prepare(play: Play) -> None:
        s3 = play.world.server.s3
        for bucket, key in [place for place in s3.objects if place[1].startswith("labels/")]:
            del s3.objects[bucket, key]
        purge(play.world.s3, play.world.name, "datasets/")
        subject.prepare(play)

    return prepare


def costs(play: Play, *, with_claims: bool = True) -> dict[str, Any]:
    """Return what costs money or is served: resources of Bedrock, executions, files and declarations."""
    world = play.world
    running = {name for name, status in world.executions().items() if status == "RUNNING"} - {"labels"}
    files = [*_keys(world.s3, world.bucket, "datasets/"), *_keys(world.server.s3, "data", "labels/")]
    return {
        "paid": sorted(_paid(play, with_claims=with_claims)),
        "executions": sorted(name.rpartition("-")[0] for name in running),
        "files": [key for key in files if with_claims or "/claims/" not in key],
        "declared": world.releases.declared(),
    }


def created(play: Play) -> tuple[int, ...]:
    """Return how many resources and executions were ever created, except those that were deleted."""
    state, kinds = play.world.server.state(), ("jobs", "models", "deployments", "throughput", "batch")
    return *(len(state[kind]) for kind in kinds), len(play.world.executions())


def _paid(play: Play, *, with_claims: bool) -> Iterator[tuple[str, ...]]:
    """Yield kind, name, model and tags of everything paid; an ended job is not."""
    state = play.world.server.state()
    models = {model["arn"]: model["name"] for model in state["models"]}
    for kind in ("jobs", "models", "deployments", "throughput", "batch"):
        for item in state[kind]:
            if item.get("status") in ENDED:
                continue
            tags = {
                f"{key}={value}"
                for key, value in item["tags"].items()
                if not key.startswith((REQUEST_TAG, DROPPED_TAG))
                and (with_claims or not key.startswith(CLAIM_TAG))
            }
            # Names of batch jobs contain random digits.
            name = "" if kind == "batch" else item["name"]
            yield kind, name, models.get(item.get("model", ""), ""), *sorted(tags)


def _keys(s3: Any, bucket: str, prefix: str) -> list[str]:
    found = s3.list_object_versions(Bucket=bucket, Prefix=prefix)
    return sorted({item["Key"] for item in found.get("Versions", ())})
