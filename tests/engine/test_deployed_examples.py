"""The examples' settings deploy the whole system, until a query is answered by the model, and remove it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from itertools import islice
from pathlib import Path

import aws_cdk as cdk
import pytest

from distilled_router.data.conversation import examples
from distilled_router.task.task import Task
from local.adaptation import adapt
from operate.environment import read_variables, without_aws
from stacks.settings import PROJECT, Settings, load
from tests.engine import layers
from tests.engine.engine import Engine
from tests.engine.system import SHORT, STACKS, Variant, changed, variant, wait_until_live

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-examples")]

# Stages and the Provider framework poll at short intervals: nothing here takes long.
WAIT_SCALE = 0.03
ASKED = 20
# The stand-in does not lag here: a Delete needs no second look.
ABSENCE = '"ABSENCE_SECONDS": "60"'


def adapted(file: Path, folder: Path) -> Settings:
    """Return the settings that `make local` deploys, with the shortest waits."""
    written = folder / file.name
    written.write_text(adapt(file).text, encoding="utf-8")
    return changed(load(written), SHORT)


def deploy(engine: Engine, declared: Variant) -> None:
    """Deploy all stacks, and wait until the release is live."""
    engine.publish(declared.assembly)
    for stack, template in declared.templates.items():
        outcome = engine.deploy(f"{declared.owner}-{stack}", template)
        assert outcome.succeeded, outcome
    wait_until_live(engine, declared)


def check_answers(engine: Engine, declared: Variant, settings: Settings) -> None:
    """Ask hold-out queries; assert that the model answers them, most of them correctly."""
    task = Task.load(settings.task_folder)
    router = engine.router(engine.outputs(f"{declared.owner}-router")["ApiId"])
    with (PROJECT / str(settings.dataset.holdout)).open(encoding="utf-8") as lines:
        rows = list(islice(examples(lines, task), ASKED))
    answers = [router.ask(row.query) for row in rows]
    assert {answer["source"] for answer in answers} == {"distilled"}
    assert {tuple(answer["weights"]) for answer in answers} == {task.labels}
    assert all(sum(answer["weights"].values()) == pytest.approx(1) for answer in answers)
    right = [a["intent"] in task.dominants(row.weights) for a, row in zip(answers, rows, strict=True)]
    assert sum(right) / len(right) > 0.8


def remove(engine: Engine, declared: Variant) -> None:
    """Delete all stacks; assert that nothing is left that costs money."""
    for stack in reversed(STACKS):
        outcome = engine.delete(f"{declared.owner}-{stack}")
        assert outcome.succeeded, outcome
    assert (engine.held("models"), engine.held("deployments")) == ({}, {})


@pytest.mark.parametrize("name", ["helpdesk/local", "fine-tuning/dev"])
def test_an_example_is_deployed_answers_and_is_removed(engine: Engine, tmp_path: Path, name: str) -> None:
    settings = adapted(PROJECT / "examples" / f"{name}.toml", tmp_path)
    declared = variant("example", tmp_path / "assembly", settings)
    deploy(engine, declared)
    check_answers(engine, declared, settings)
    (job,) = engine.calls("CreateModelCustomizationJob")
    assert job["parameters"]["baseModelIdentifier"].endswith(settings.distillation.student)
    remove(engine, declared)


def test_in_the_platforms_network_every_function_is_inside(engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "private.toml"
    run(engine, "-m", "examples.network.deploy_platform", str(file))
    settings = changed(load(file), SHORT)
    declared = variant("private", tmp_path / "assembly", settings)
    deploy(engine, declared)
    check_answers(engine, declared, settings)
    functions = engine.aws("lambda").list_functions()["Functions"]
    assert engine.interfaces()["held"] == sorted(each["FunctionName"] for each in functions)
    remove(engine, declared)
    assert engine.interfaces() == {"held": [], "leaving": [], "left": []}
    assert engine.delete("router-platform").succeeded


def run(engine: Engine, *arguments: str) -> str:
    """Run Python with the variables that reach the emulator; return its output."""
    access = {**without_aws(), **read_variables(engine.state.env), "PYTHONPATH": "lambda"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=access, cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def test_an_existing_job_is_released_and_left_alone(engine: Engine, tmp_path: Path) -> None:
    job = run(engine, "examples/existing-job/train.py")
    before = engine.held("jobs"), engine.held("models")

    flags = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    context = {**flags, "job": job, "bucket": "search-data"}
    app = cdk.App(context=context, outdir=str(tmp_path), analytics_reporting=False)
    stack = import_module("examples.existing-job.adopt").declare(app).stack_name
    app.synth()
    layers.empty(tmp_path)
    engine.publish(tmp_path)
    text = (tmp_path / f"{stack}.template.json").read_text(encoding="utf-8")
    assert ABSENCE in text
    outcome = engine.deploy(stack, json.loads(text.replace(ABSENCE, ABSENCE.replace("60", "0.5"))))
    assert outcome.succeeded, outcome

    asked = {"FunctionName": engine.outputs(stack)["RouterFunction"], "Payload": b'{"query": "red car"}'}
    answer = json.load(engine.aws("lambda").invoke(**asked)["Payload"])
    assert answer["source"] == "distilled"
    assert engine.delete(stack).succeeded
    after = engine.held("jobs"), engine.held("models")
    assert after == before
    changes = [each for each in engine.written() if each != "Converse"]
    assert changes == [
        *("CreateModelCustomizationJob", "CreateCustomModelDeployment", "DeleteCustomModelDeployment"),
    ]
