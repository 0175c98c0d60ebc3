"""From raw queries to a live model, in the whole system: paid once, resumed, and deleted with its stack."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cdk_distilled_router.props import LabellingProps
from distilled_router.release.table import LIVE, Release, Releases
from distilled_router.task.task import Task
from local import logged_requests
from stacks.settings import PROJECT, load
from tests import real_data
from tests.engine.engine import Engine, until
from tests.engine.system import SHORT, Variant, changed, variant

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-labelling")]

CREATE, JOB = "CreateModelInvocationJob", "CreateModelCustomizationJob"
TEACHER = "us.amazon.nova-pro-v1:0"
RESOURCE = "Custom::BedrockLabelling"
STACKS = ("data", "distillation", "release", "router")
LOGGED = 1_600
# A student of so few rows; what it reaches is no part of these tests.
LENIENT = {"minimum_dominant_accuracy": 0.65, "minimum_balanced_accuracy": 0.4}
# The real queries beside the project if present, otherwise the sample queries.
REAL_QUERIES = 2_400


def raw_queries() -> list[str]:
    if not real_data.is_present():
        return (PROJECT / "data" / "queries.txt").read_text(encoding="utf-8").splitlines()
    rows = [row for name in real_data.HINTED for row in real_data.required(name)]
    distinct = dict.fromkeys(str(row["query"]).strip() for row in rows)
    usable = [query for query in distinct if query and len(query) <= 200 and ":" not in query]
    return usable[:: max(1, len(usable) // REAL_QUERIES)]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder inside the project, since a data set's path must be inside it."""
    made = PROJECT / ".cache" / f"labelling-{os.getpid()}"
    made.mkdir(parents=True)
    (made / "queries.txt").write_text("\n".join(raw_queries()) + "\n", encoding="utf-8")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def declare(folder: Path) -> Callable[..., Variant]:
    """Return the local environment with raw queries and changed settings, synthesized once for each."""
    known: dict[str, Variant] = {}

    def declared(**changes: Mapping[str, Any]) -> Variant:
        name = f"version-{json.dumps(changes, sort_keys=True)}"
        if name not in known:
            given: dict[str, dict[str, Any]] = {
                "dataset": {
                    "labels": "teacher",
                    "training": None,
                    "holdout": None,
                    "queries": (folder / "queries.txt").relative_to(PROJECT).as_posix(),
                },
                "labelling": {
                    "queries_per_shard": 600,
                    "poll_seconds": 1,
                    "samples": 2,
                    "holdout_share": 0.2,
                },
                # Few rows of the rarer labels are left to train on.
                "gate": {"minimum_balanced_accuracy": 0.5},
            }
            settings = changed(load("local"), given, SHORT, changes)
            known[name] = variant(name, folder / f"assembly-{len(known)}", settings)
        return known[name]

    return declared


class System:
    """The deployed system, and its paid calls."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def deploy(self, version: Variant, *stacks: str) -> None:
        self.engine.publish(version.assembly)
        for stack in stacks or STACKS:
            outcome = self.engine.deploy(f"{version.owner}-{stack}", version.templates[stack])
            assert outcome.succeeded, outcome

    def release(self, version: Variant) -> Release | None:
        resources = self.engine.resources(f"{version.owner}-release")
        table = self.engine.table(resources[version.logical_id("release", "Releases")])
        return Releases(table, version.owner).get(version.digest)

    def wait_until_live(self, version: Variant) -> Release:
        release = self.until(lambda: (found := self.release(version)) and found.is_final and found)
        assert release.state == LIVE, release
        found: Release = release
        return found

    def until(self, question: Callable[[], Any]) -> Any:
        return until(question, lambda: (self.labellings(), self.batches(), self.jobs()))

    def machine(self) -> str:
        found = self.engine.aws("stepfunctions").list_state_machines()["stateMachines"]
        (arn,) = [str(item["stateMachineArn"]) for item in found if item["name"].endswith("-labelling")]
        return arn

    def labellings(self) -> dict[str, str]:
        """Return the status of each execution by name."""
        stepfunctions = self.engine.aws("stepfunctions")
        found = stepfunctions.list_executions(stateMachineArn=self.machine())["executions"]
        return {item["name"]: item["status"] for item in found}

    def batches(self) -> dict[str, str]:
        """Return the status of each batch job by name."""
        pages = self.engine.aws("bedrock").get_paginator("list_model_invocation_jobs").paginate()
        return {job["jobName"]: job["status"] for page in pages for job in page["invocationJobSummaries"]}

    def asked(self) -> int:
        """Return the number of paid teacher calls: batch jobs and single calls."""
        calls = [call for call in self.engine.calls("Converse") if call["parameters"]["modelId"] == TEACHER]
        return len(self.batches()) + len(calls)

    def jobs(self) -> dict[str, str]:
        return {job["name"]: job["status"] for job in self.engine.bedrock("/_state")["jobs"]}


@pytest.fixture
def system(engine: Engine) -> System:
    return System(engine)


def test_raw_queries_become_a_live_model_and_are_paid_once(
    system: System, declare: Callable[..., Variant]
) -> None:
    first = declare()
    system.deploy(first)
    system.wait_until_live(first)
    assert set(system.jobs()) == {f"{first.owner}-{first.digest}"}
    shards = -(-len(raw_queries()) // 600)
    assert len([name for name in system.batches() if name.endswith("-1")]) == shards

    router = system.engine.router(system.engine.outputs(f"{first.owner}-router")["ApiId"])
    answers = [router.ask(f"a blue boat in the harbour, {number}") for number in range(5)]
    assert {answer["source"] for answer in answers} == {"distilled"}

    before = system.asked()
    system.deploy(first)
    assert (system.asked(), list(system.labellings())) == (before, [f"{first.digest}-1"])

    again = declare(distillation={"nonce": "again"}, labelling={"minimum_agreement": 1.0})
    system.deploy(again)
    system.wait_until_live(again)
    assert system.asked() == before
    assert len(system.jobs()) == 2


@pytest.mark.parametrize("uses_answers", [True, False], ids=["logged answers", "teacher"])
def test_logged_queries_become_a_live_model(
    system: System, declare: Callable[..., Variant], uses_answers: bool
) -> None:
    """From the logs of an account to the router, once with the logged answers and once with paid ones."""
    clients = {name: system.engine.aws(name) for name in ("s3", "bedrock", "bedrock-runtime")}
    with logged_requests.logging(clients):
        logged_requests.ask(clients["bedrock-runtime"], raw_queries()[:LOGGED], Task.load(), TEACHER)
        _ask_otherwise(clients["bedrock-runtime"])
    logs = {**logged_requests.DATASET, "use_logged_answers": uses_answers, "labels": "given", "queries": None}
    version = declare(dataset=logs, gate=LENIENT)
    before = system.asked()
    system.deploy(version)
    system.wait_until_live(version)
    assert (system.asked() > before) is not uses_answers
    assert set(system.jobs()) == {f"{version.owner}-{version.digest}"}

    router = system.engine.router(system.engine.outputs(f"{version.owner}-router")["ApiId"])
    answers = [router.ask(f"a blue boat in the harbour, {number}") for number in range(5)]
    assert {answer["source"] for answer in answers} == {"distilled"}

    # What was read is kept: expired logs, and newer ones, change nothing.
    paid = system.asked()
    _expire(clients["s3"])
    again = declare(dataset=logs, gate=LENIENT, distillation={"nonce": "again"})
    system.deploy(again, "data", "distillation")
    system.until(lambda: len(system.jobs()) == 2)
    assert system.asked() == paid


def _ask_otherwise(runtime: Any) -> None:
    """Ask with a large prompt and in Nova's own form, for another purpose, and in vain."""
    metadata = {"requestMetadata": logged_requests.METADATA}
    turn = {"messages": [{"role": "user", "content": [{"text": "what a long prompt asks"}]}]}
    large = [{"text": f"{Task.load().teacher_prompt}{'x' * 110_000}"}]
    runtime.converse(modelId=TEACHER, system=large, **turn, **metadata)
    native = {**turn, "system": [{"text": Task.load().teacher_prompt}]}
    runtime.invoke_model(
        modelId=TEACHER, body=json.dumps(native), requestMetadata=json.dumps(logged_requests.METADATA)
    )
    runtime.converse(modelId=TEACHER, **turn)
    with pytest.raises(ClientError):
        runtime.converse(modelId="amazon.no-such-v1:0", **turn, **metadata)


def _expire(s3: Any) -> None:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=logged_requests.BUCKET):
        for item in page.get("Contents", ()):
            s3.delete_object(Bucket=logged_requests.BUCKET, Key=item["Key"])


def test_stopped_labelling_resumes_where_it_stopped(system: System, declare: Callable[..., Variant]) -> None:
    first = declare()
    system.engine.bedrock("/_faults", {"kind": "batch_stalled", "count": None})
    system.deploy(first, "data", "distillation")
    begun = system.until(lambda: system.batches())
    execution = f"{system.machine().replace(':stateMachine:', ':execution:')}:{first.digest}-1"
    system.engine.aws("stepfunctions").stop_execution(executionArn=execution)
    system.engine.bedrock("/_faults", delete=True)
    system.deploy(declare(release={"attempt": 2}))
    system.wait_until_live(first)
    labellings = system.labellings()
    assert labellings.pop(f"{first.digest}-1") == "ABORTED"
    assert set(labellings.values()) == {"SUCCEEDED"}
    assert set(begun) <= set(system.batches())
    # One first round for each shard, whichever execution started it: no round was paid twice.
    shards = -(-len(raw_queries()) // 600)
    assert len([name for name in system.batches() if name.endswith("-1")]) == shards
    assert len(system.engine.calls(JOB)) == 1


def test_execution_that_a_person_starts_asks_the_limit(
    system: System, declare: Callable[..., Variant]
) -> None:
    """It is refused while something is left to ask."""
    first, stepfunctions = declare(), system.engine.aws("stepfunctions")
    system.engine.bedrock("/_faults", {"kind": "batch_stalled", "count": None})
    system.deploy(first, "data", "distillation")
    # All are asked and none has answered, so that the stopped execution asks nothing more.
    shards = -(-len(raw_queries()) // 600)
    system.until(lambda: len(system.batches()) == min(shards, LabellingProps().concurrency))
    machine = system.machine()
    execution = f"{machine.replace(':stateMachine:', ':execution:')}:"
    stepfunctions.stop_execution(executionArn=f"{execution}{first.digest}-1")
    system.engine.settle()
    before = system.asked()
    known = stepfunctions.describe_execution(executionArn=f"{execution}{first.digest}-1")
    plan = {**json.loads(known["input"])["plan"], "samples": 10_000_000}
    stepfunctions.start_execution(stateMachineArn=machine, name="by-hand", input=json.dumps({"plan": plan}))
    system.until(lambda: system.labellings()["by-hand"] != "RUNNING")
    ended = stepfunctions.describe_execution(executionArn=f"{execution}by-hand")
    assert ended["status"] == "FAILED"
    assert "more than distillation.maximum_cost_usd" in ended["cause"]
    assert system.asked() == before


def test_destroy_in_the_middle_leaves_nothing_running(
    system: System, declare: Callable[..., Variant]
) -> None:
    first = declare()
    system.engine.bedrock("/_faults", {"kind": "batch_stalled", "count": None, "skip": 1})
    system.deploy(first, "data", "distillation")
    system.until(lambda: system.batches())
    for stack in ("distillation", "data"):
        assert system.engine.delete(f"{first.owner}-{stack}").succeeded
    assert set(system.batches().values()) <= {"Stopped", "Completed"}
    assert system.jobs() == {}


@pytest.mark.parametrize("how", ["cancelled", "deleted"])
def test_labelling_whose_create_ended_without_a_response_is_stopped(
    system: System, declare: Callable[..., Variant], how: str
) -> None:
    first, engine = declare(), system.engine
    stack = f"{first.owner}-distillation"
    system.deploy(first, "data")
    engine.bedrock("/_faults", {"kind": "batch_stalled", "count": None})
    engine.lose_response(stack, resource_type=RESOURCE)
    engine.begin(stack, first.templates["distillation"])
    system.until(lambda: system.batches())
    if how == "cancelled":
        engine.cancel(stack, resource_type=RESOURCE)
        assert engine.wait(stack).status == "ROLLBACK_COMPLETE"
    assert engine.delete(stack).succeeded
    assert set(system.batches().values()) == {"Stopped"}
    assert system.jobs() == {}


def test_moved_labelling_goes_on(system: System, declare: Callable[..., Variant]) -> None:
    """The resource gets another logical id: the new one claims what runs, then the old one is deleted."""
    first, engine = declare(), system.engine
    stack, template = f"{first.owner}-distillation", first.templates["distillation"]
    (known,) = [key for key, each in template["Resources"].items() if each["Type"] == RESOURCE]
    moved = json.loads(json.dumps(template).replace(f'"{known}"', '"MovedLabelling"'))
    engine.bedrock("/_faults", {"kind": "batch_stalled", "count": None})
    system.deploy(first, "data", "distillation")
    begun = system.until(lambda: system.batches())
    assert engine.deploy(stack, moved).succeeded
    assert system.labellings() == {f"{first.digest}-1": "RUNNING"}
    assert set(begun) <= set(system.batches())
    assert set(system.batches().values()) <= {"Submitted", "Validating", "Scheduled", "InProgress"}
    assert engine.delete(stack).succeeded
    assert set(system.batches().values()) == {"Stopped"}
