"""The examples' settings deploy the whole system, until a query is answered by the model, and remove it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from distilled_router.data.conversation import examples
from distilled_router.task.task import Task
from local.adaptation import adapt
from stacks.settings import PROJECT, Settings, load
from tests.engine.engine import Engine
from tests.engine.system import SHORT, STACKS, Variant, changed, variant, wait_until_live

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-examples")]

# Stages and the Provider framework poll at short intervals: nothing here takes long.
WAIT_SCALE = 0.03
ASKED = 20


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
