"""A local system for the tests, beside one that `make local` runs: its own folder, ports and data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from distilled_router.data.conversation import Example, examples
from distilled_router.task.task import Task
from local import control, servers
from local.state import State
from operate import cdk, route
from operate.environment import LOCAL, Environment, without_aws
from stacks import settings
from stacks.settings import PROJECT
from tests import real_data
from tests.permissions.calls import check
from tests.stacks.assembly import unhashed
from tests.stacks.fixtures import assemblies, assemblies_folder

__all__ = ["assemblies", "assemblies_folder", "system"]

HOLDOUT_ROWS = 250
TASK = Task.load()


def is_valid(answer: dict[str, Any]) -> bool:
    """Return whether an answer has a weight for every label, with sum 1."""
    weights = answer["weights"]
    return set(weights) == set(TASK.labels) and abs(sum(weights.values()) - 1) < 1e-6


@dataclass
class LocalSystem:
    """The Makefile's local commands, applied to one state folder."""

    root: Path
    asked: list[Example]

    @property
    def state(self) -> State:
        """Return the folder of this system's files."""
        return State(self.root / "state")

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment of a command."""
        return {
            **without_aws(),
            "LOCAL_DIR": str(self.state.root),
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m local ...`."""
        command = [sys.executable, "-m", "local", *arguments]
        return subprocess.run(
            command, cwd=PROJECT, env=self.variables, capture_output=True, text=True, timeout=1800
        )

    def up(self) -> subprocess.CompletedProcess[str]:
        """Run what `make local` runs."""
        return self.run(
            "up", "--environment", str(self.root / "local.toml"), "--queries", str(self.root / "queries.txt")
        )

    def destroy(self) -> None:
        """Run the ordinary `cdk destroy --all`; the servers keep running, to be inspected."""
        running = servers.running(self.state)
        assert running is not None
        variables = without_aws() | running.variables(self.state)
        log = self.state.log("destroy")
        process = cdk.start(cdk.destroy(self.state.assembly), variables, log)
        assert process.wait(900) == 0, log.read_text()[-3000:]

    def _at(self) -> Environment:
        running = servers.running(self.state)
        assert running is not None
        return Environment(LOCAL, settings.load(self.root / "local.toml"), running.variables(self.state))

    def router(self) -> route.Router:
        """Send signed queries to the deployed HTTP API."""
        return route.router(self._at())

    def sweep(self) -> None:
        """Run the hourly sweep now."""
        at = self._at()
        stack = f"{at.settings.owner}-release"
        found = at.aws.cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
        (name,) = [
            each["PhysicalResourceId"]
            for each in found
            if unhashed(each["LogicalResourceId"]) == "ReleaseSweep"
        ]
        at.aws.functions.invoke(FunctionName=name, Payload=b"{}")

    def outputs(self) -> dict[str, dict[str, str]]:
        """Return the stacks' outputs."""
        found: dict[str, dict[str, str]] = json.loads(self.state.outputs.read_text())
        return found

    def bedrock(self, path: str) -> Any:
        """Return what a control path of the Bedrock stand-in answers."""
        running = servers.running(self.state)
        assert running is not None
        url = f"{running.bedrock.url}{path}"
        return control.call(url, running.keys.token, verify=self.state.certificate)

    def asked_of_iam(self) -> Mapping[str, Any]:
        """Return the roles' requests to IAM; see `local/emulator/access.py`."""
        running = servers.running(self.state)
        assert running is not None
        url = f"{running.emulator.url}/_iam/calls"
        asked: Mapping[str, Any] = control.call(url, running.keys.token, verify=self.state.certificate)
        return asked

    def calls(self, *operations: str) -> int:
        """Return the number of successful calls by Bedrock operation."""
        made = self.bedrock("/_calls")
        listed = made["calls"] if isinstance(made, dict) else made
        return sum(call["operation"] in operations and call["outcome"] == "ok" for call in listed)

    def train_on(self, rows: Sequence[Example], holdout: Sequence[Example]) -> None:
        """Use these rows as the data of the next deployment."""
        task = Task.load()
        real_data.write(self.root / "training.jsonl", task, rows)
        real_data.write(self.root / "holdout.jsonl", task, holdout)


def assert_destroyed_whole(system: LocalSystem) -> None:
    """Destroy the stacks, check for leftovers and for calls that IAM would have refused, and stop."""
    system.destroy()
    left = system.bedrock("/_state")
    assert left["deployments"] == []
    assert left["throughput"] == []
    assert left["models"] == []
    assert {job["status"] for job in left["jobs"]} <= {"Completed", "Stopped", "Failed"}
    assert check(system.asked_of_iam()) == []
    result = system.run("down")
    assert result.returncode == 0, result.stdout + result.stderr
    assert not system.state.servers.exists()


def _data() -> list[Example]:
    """Return the real labels and queries if present, otherwise the sample data."""
    task = Task.load()
    if real_data.is_present():
        return real_data.examples(task, hinted=500)
    rows: list[Example] = []
    for name in ("holdout", "training"):
        with (PROJECT / "data" / f"{name}.jsonl").open(encoding="utf-8") as lines:
            rows += examples(lines, task)
    return rows


@pytest.fixture(scope="module")
def system() -> Iterator[LocalSystem]:
    """Yield a local system in a folder inside the project, since a data set's path must be inside it; stop
    its servers at the end."""
    root = PROJECT / ".cache" / f"integration-{os.getpid()}"
    root.mkdir(parents=True)
    rows = _data()
    made = LocalSystem(root, rows[:HOLDOUT_ROWS])
    made.train_on(rows[HOLDOUT_ROWS:], rows[:HOLDOUT_ROWS])
    (root / "queries.txt").write_text("".join(example.query + "\n" for example in rows[:5]))
    settings = (PROJECT / "environments" / "local.toml").read_text(encoding="utf-8")
    relative = root.relative_to(PROJECT).as_posix()
    for name in ("training", "holdout"):
        settings = settings.replace(f'"data/{name}.jsonl"', f'"{relative}/{name}.jsonl"')
    assert tomllib.loads(settings)["dataset"]["training"] == f"{relative}/training.jsonl"
    (root / "local.toml").write_text(settings, encoding="utf-8")
    try:
        yield made
    finally:
        made.run("down", "--force")
        shutil.rmtree(root, ignore_errors=True)
