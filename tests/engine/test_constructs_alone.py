"""examples/constructs, as its README says: deployed, asked and destroyed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from distilled_router.data.conversation import examples
from distilled_router.task.task import Task
from operate.cdk import with_tools
from stacks.settings import PROJECT
from tests.engine import layers
from tests.engine.engine import Engine, until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-constructs-alone")]

WAIT_SCALE = 0.03
FOLDER = PROJECT / "examples" / "constructs"
HELPDESK = PROJECT / "examples" / "helpdesk"
STACK = "tickets-router"
ASKED = 20


def synthesized(assembly: Path) -> dict[str, Any]:
    """Synthesize the app as the CDK does, for the local system; return its template."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "CDK_OUTDIR": str(assembly),
        "CDK_CONTEXT_JSON": '{"local": "true"}',
    }
    command = json.loads((FOLDER / "cdk.json").read_text(encoding="utf-8"))["app"].split()
    assert command[0] == "python"
    done = subprocess.run(
        [sys.executable, *command[1:]],
        cwd=FOLDER,
        env=with_tools(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    layers.empty(assembly)
    template: dict[str, Any] = json.loads((assembly / f"{STACK}.template.json").read_text(encoding="utf-8"))
    return template


def test_it_is_deployed_answers_and_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    template = synthesized(tmp_path / "cdk.out")
    engine.publish(tmp_path / "cdk.out")
    outcome = engine.deploy(STACK, template)
    assert outcome.succeeded, outcome

    task, outputs = Task.load(HELPDESK), engine.outputs(STACK)
    router = engine.router(outputs["ApiId"])
    with (HELPDESK / "holdout.jsonl").open(encoding="utf-8") as lines:
        rows = list(examples(lines, task))[:ASKED]
    # Before its release is live, the base model answers.

    def by_release() -> bool:
        answer = router.ask(f"{rows[0].query} {time.monotonic()}")
        assert answer["source"] in ("base", "distilled"), answer
        assert list(answer["weights"]) == list(task.labels)
        return bool(answer["source"] == "distilled")

    until(by_release, lambda: engine.held("jobs"))

    engine.settle()  # the rollout: a Delete would stop it
    answers = [router.ask(row.query) for row in rows]
    assert {answer["source"] for answer in answers} == {"distilled"}
    right = [a["intent"] in task.dominants(row.weights) for a, row in zip(answers, rows, strict=True)]
    assert sum(right) / len(right) > 0.8

    outcome = engine.delete(STACK)
    assert outcome.succeeded, outcome
    assert {kind: engine.held(kind) for kind in ("deployments", "models", "throughput")} == {
        "deployments": {},
        "models": {},
        "throughput": {},
    }
    assert list(engine.running()) == []
