"""`use_task` sets the task of every function, and an invalid task stops the synthesis."""

from __future__ import annotations

import json
from pathlib import Path

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam

from cdk_distilled_router.common.callers import MACHINE
from cdk_distilled_router.common.functions import Function, use_task
from cdk_distilled_router.common.hosting import Hosting
from distilled_router.env import Env
from distilled_router.task.task import DEFER_FILE, FILES, Task
from stacks.application import build
from stacks.settings import ENVIRONMENTS, PROJECT, SettingsError

HELPDESK = PROJECT / "examples" / "helpdesk"


def with_function(app: cdk.App, name: str, task: Path | None = None) -> None:
    """Declare a stack with one function, as deep in the tree as those of our constructs."""
    stack = cdk.Stack(app, name)
    if task:
        use_task(stack, task)
    role = iam.Role(stack, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
    Function(
        cdk.NestedStack(stack, "Inside"),
        "Evaluation",
        handler="evaluation.ask_models",
        role=role,
        environment=Env(owner="helpdesk"),
        hosting=Hosting(log_days=1),
        description="test",
        caller=MACHINE,
    )


def task_of_the_function(assembly: Path, name: str) -> Path:
    """Return the task's folder in the code of a stack's function."""
    (template,) = assembly.glob(f"{name}Inside*.nested.template.json")
    resources = json.loads(template.read_text(encoding="utf-8"))["Resources"].values()
    (function,) = (each for each in resources if each["Type"] == "AWS::Lambda::Function")
    return assembly / f"asset.{function['Properties']['Code']['S3Key'].removesuffix('.zip')}" / "task"


def test_functions_below_a_scope_get_its_task_and_all_others_the_projects(tmp_path: Path) -> None:
    app = cdk.App(outdir=str(tmp_path), analytics_reporting=False)
    with_function(app, "second", HELPDESK)
    with_function(app, "first")
    app.synth()
    first, second = (task_of_the_function(tmp_path, name) for name in ("first", "second"))
    assert Task.load(first) == Task.load()
    assert Task.load(second) == Task.load(HELPDESK)
    # Data, grammar and settings of the example stay where they are.
    assert {path.name for path in second.iterdir()} == {*FILES, DEFER_FILE}


def test_a_task_is_chosen_before_anything_is_declared() -> None:
    app = cdk.App()
    cdk.Stack(app, "first")
    with pytest.raises(RuntimeError, match="context after children"):
        use_task(app, HELPDESK)


def test_a_task_that_cannot_be_used_stops_the_synthesis_before_it_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ENVIRONMENTS / "local.toml").read_text(encoding="utf-8")
    folder = tmp_path / "environments"
    folder.mkdir()
    (folder / "local.toml").write_text('task = "examples"\n' + text, encoding="utf-8")
    app = cdk.App()
    with pytest.raises(SettingsError) as caught:
        build(app, folder / "local.toml")
    assert str(caught.value).startswith('environments/local.toml: task: found "examples"; allowed: ')
    assert "examples/task.toml: No such file" in str(caught.value)
    assert not [child for child in app.node.children if isinstance(child, cdk.Stack)]
