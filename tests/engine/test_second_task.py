"""A second task beside the first: its own labels, prompts and data, and no additional code."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from distilled_router.data.conversation import examples
from distilled_router.release.table import LIVE, Releases
from distilled_router.task.task import Task
from stacks.settings import PROJECT, load
from tests.engine.engine import Engine
from tests.engine.system import SHORT, changed, variant

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-second-task")]

# Stages and the Provider framework poll at short intervals: nothing here takes long.
WAIT_SCALE = 0.03
FOLDER = PROJECT / "examples" / "helpdesk"
SECONDS = 60.0
ASKED = 20


def test_a_second_task_is_deployed_trained_and_routed(engine: Engine, tmp_path: Path) -> None:
    """The example's settings deploy the whole system: a model is trained on its data and answers with its
    labels."""
    settings = changed(load(FOLDER / "local.toml"), SHORT)
    declared = variant("second", tmp_path / "assembly", settings)
    engine.publish(declared.assembly)
    for stack, template in declared.templates.items():
        outcome = engine.deploy(f"{declared.owner}-{stack}", template)
        assert outcome.succeeded, outcome

    table = engine.resources(f"{declared.owner}-release")[declared.logical_id("release", "Releases")]
    releases, end = Releases(engine.table(table), declared.owner), time.monotonic() + SECONDS
    while (release := releases.get(declared.digest)) is None or not release.is_final:
        assert time.monotonic() < end, release
        time.sleep(0.1)
    assert release.state == LIVE, release

    task = Task.load(FOLDER)
    router = engine.router(engine.outputs(f"{declared.owner}-router")["ApiId"])
    with (FOLDER / "holdout.jsonl").open(encoding="utf-8") as lines:
        rows = list(examples(lines, task))[:ASKED]
    answers = [router.ask(row.query) for row in rows]
    assert {answer["source"] for answer in answers} == {"distilled"}
    assert {tuple(answer["weights"]) for answer in answers} == {("billing", "technical", "account")}
    assert all(sum(answer["weights"].values()) == pytest.approx(1) for answer in answers)
    right = [a["intent"] in task.dominants(row.weights) for a, row in zip(answers, rows, strict=True)]
    assert sum(right) / len(right) > 0.8
