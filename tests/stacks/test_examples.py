"""The examples: their settings are valid, their stacks have no findings, and their pages are right."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks

from cdk_distilled_router.common import nag
from distilled_router.cost.estimate import estimate
from distilled_router.cost.prices import Prices
from distilled_router.task.task import Task
from operate.cost_volume import count
from stacks import costs
from stacks.application import build
from stacks.settings import PROJECT, load

FOLDER = PROJECT / "examples"
ADOPT = import_module("examples.existing-job.adopt")
TUNED = FOLDER / "fine-tuning"
JOB = (
    "arn:aws:bedrock:us-west-2:111122223333:model-customization-job/amazon.nova-micro-v1:0:128k/0a1b2c3d4e5f"
)
_ENV = re.compile(r"\bENV=([\w./-]+\.toml)\b")
_PRICE = re.compile(r"Training: ([\d.]+) USD once, at most ([\d.]+), for ([\d,]+) rows")


def unknown_settings(page: str) -> list[str]:
    """Return the settings files that a page's commands name and that don't exist."""
    return [name for name in sorted(set(_ENV.findall(page))) if not (PROJECT / name).is_file()]


def app_in(folder: Path, **context: str) -> cdk.App:
    """Return an app that is synthesized into a folder, as the CDK's command line would."""
    flags = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    return cdk.App(context={**flags, **context}, outdir=str(folder), analytics_reporting=False)


def findings(app: cdk.App) -> list[str]:
    """Synthesize an app; return the rules that found something which is not acknowledged."""
    folder = Path(app.synth().directory)
    report = json.loads((folder / "validation-report.json").read_text(encoding="utf-8"))
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
    app = app_in(tmp_path)
    build(app, TUNED / "dev.toml")
    assert findings(app) == []


def test_fine_tuning_states_what_its_training_costs() -> None:
    settings = load(TUNED / "dev.toml")
    volume = count(settings, PROJECT).volume
    task = Task.load(settings.task_folder)
    found = estimate(costs.spec(settings), volume, task, Prices.load()).once
    stated = _PRICE.search((TUNED / "README.md").read_text(encoding="utf-8"))
    assert stated is not None
    usd = (f"{found.expected_usd:.2f}", f"{found.at_most_usd:.2f}")
    assert stated.groups() == (*usd, f"{volume.queries:,}")


def test_an_adopted_job_is_released_without_findings_and_never_created(tmp_path: Path) -> None:
    app = app_in(tmp_path, job=JOB, bucket="search-data")
    stack = ADOPT.declare(app)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))
    assert (stack.account, stack.region) == ("111122223333", "us-west-2")
    assert findings(app) == []
    template = json.loads((tmp_path / f"{stack.stack_name}.template.json").read_text(encoding="utf-8"))
    types = {resource["Type"] for resource in template["Resources"].values()}
    assert "Custom::BedrockExistingJob" in types
    assert "Custom::BedrockDistillationJob" not in types
    assert "bedrock:CreateCustomModelDeployment" in json.dumps(template)
    assert "CreateModelCustomizationJob" not in json.dumps(template)


def test_an_adopted_job_must_be_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="-c job=ARN -c bucket=NAME"):
        ADOPT.declare(app_in(tmp_path))
