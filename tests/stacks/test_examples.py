"""The examples: their settings are valid, their stacks have no findings, and their pages are right."""

from __future__ import annotations

import json
import re
from pathlib import Path

import aws_cdk as cdk
import pytest

from cdk_distilled_router.common import nag
from distilled_router.cost.estimate import estimate
from distilled_router.cost.prices import Prices
from distilled_router.task.task import Task
from operate.cost_volume import count
from stacks import costs
from stacks.application import build
from stacks.settings import PROJECT, load

FOLDER = PROJECT / "examples"
TUNED = FOLDER / "fine-tuning"
_ENV = re.compile(r"\bENV=([\w./-]+\.toml)\b")
_PRICE = re.compile(r"Training: ([\d.]+) USD once, at most ([\d.]+), for ([\d,]+) rows")


def unknown_settings(page: str) -> list[str]:
    """Return the settings files that a page's commands name and that don't exist."""
    return [name for name in sorted(set(_ENV.findall(page))) if not (PROJECT / name).is_file()]


def checked(file: Path, assembly: Path) -> list[str]:
    """Synthesize settings; return the rules that found something which is not acknowledged."""
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    app = cdk.App(context=context, outdir=str(assembly), analytics_reporting=False)
    build(app, file)
    app.synth()
    report = json.loads((assembly / "validation-report.json").read_text(encoding="utf-8"))
    found = {plugin["pluginName"]: plugin["violations"] for plugin in report["pluginReports"]}
    assert nag.AWS_SOLUTIONS in found
    return [violation["ruleName"] for violations in found.values() for violation in violations]


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*/README.md")), ids=lambda page: page.parent.name)
def test_commands_name_settings_that_exist(page: Path) -> None:
    assert unknown_settings(page.read_text(encoding="utf-8")) == []


def test_the_check_of_commands_can_fail() -> None:
    page = "make local ENV=examples/helpdesk/local.toml\nmake cost ENV=examples/nothing/dev.toml"
    assert unknown_settings(page) == ["examples/nothing/dev.toml"]


def test_fine_tuning_synthesizes_without_findings(tmp_path: Path) -> None:
    assert checked(TUNED / "dev.toml", tmp_path) == []


def test_fine_tuning_states_what_its_training_costs() -> None:
    settings = load(TUNED / "dev.toml")
    volume = count(settings, PROJECT).volume
    task = Task.load(settings.task_folder)
    found = estimate(costs.spec(settings), volume, task, Prices.load()).once
    stated = _PRICE.search((TUNED / "README.md").read_text(encoding="utf-8"))
    assert stated is not None
    usd = (f"{found.expected_usd:.2f}", f"{found.at_most_usd:.2f}")
    assert stated.groups() == (*usd, f"{volume.queries:,}")
