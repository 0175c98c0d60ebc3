"""The examples: their settings are valid, their stacks have no findings, and their pages are right."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from cdk_nag import AwsSolutionsChecks

from cdk_distilled_router.common import nag
from distilled_router.cost.estimate import estimate
from distilled_router.cost.prices import HOURS_A_MONTH, Prices
from distilled_router.task.task import Task
from operate.cost_volume import count
from stacks import costs, keys
from stacks.application import build
from stacks.settings import PROJECT, load
from tests.stacks.test_cfn_lint import findings as lint

FOLDER = PROJECT / "examples"
ADOPT = import_module("examples.existing-job.adopt")
PLATFORM = import_module("examples.network.deploy_platform")
ACCOUNT = "111122223333"
TUNED = FOLDER / "fine-tuning"
JOB = (
    "arn:aws:bedrock:us-west-2:111122223333:model-customization-job/amazon.nova-micro-v1:0:128k/0a1b2c3d4e5f"
)
_ENV = re.compile(r"\bENV=([\w./-]+\.toml)\b")
_PRICE = re.compile(r"Training: ([\d.]+) USD once, at most ([\d.]+), for ([\d,]+) rows")


def unknown_settings(page: str) -> list[str]:
    """Return the settings files that a page names, and that neither exist nor are written by its commands."""
    named = sorted(set(_ENV.findall(page)))
    return [name for name in named if not (file := PROJECT / name).is_file() and file != PLATFORM.WRITTEN]


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


def template_of_the_platform() -> dict[str, Any]:
    """Return the platform team's template, with its short forms written out."""
    # Late, because the import takes a second, in every test process.
    from cfnlint.decode import cfn_yaml  # type: ignore[import-untyped]  # it ships no types

    template: dict[str, Any] = cfn_yaml.load(str(FOLDER / "network" / "platform.yaml"))
    return template


def settings_file(folder: Path) -> Path:
    """Write the settings that the platform's deployment writes, with ids of 17 digits."""
    text = template_of_the_platform()["Outputs"]["Settings"]["Value"]["Fn::Sub"]
    ids = {
        **{name: f"subnet-{number:017x}" for number, name in enumerate(("SubnetA", "SubnetB"))},
        **{"Functions.GroupId": f"sg-{0:017x}", "Vpc": f"vpc-{0:017x}", "Routes": f"rtb-{0:017x}"},
        "Boundary": f"arn:aws:iam::{ACCOUNT}:policy/router-boundary",
        "Key.Arn": f"arn:aws:kms:us-east-1:{ACCOUNT}:key/0b8f1c7e-1111-4222-8333-444455556666",
    }
    named = re.sub(r"\$\{([\w.]+)\}", lambda found: ids[found[1]], text)
    file = folder / "private.toml"
    file.write_text(PLATFORM.settings(ACCOUNT, named), encoding="utf-8")
    return file


def actions(statement: Mapping[str, Any]) -> list[str]:
    found = statement["Action"]
    return [found] if isinstance(found, str) else list(found)


def test_the_platforms_template_has_no_lint() -> None:
    assert lint(FOLDER / "network" / "platform.yaml") == []


def test_in_the_platforms_network_all_is_inside_bounded_and_without_findings(tmp_path: Path) -> None:
    file = settings_file(tmp_path)
    settings = load(file)
    assert settings.network is not None
    assert settings.network.endpoints is not None
    app = app_in(tmp_path / "assembly")
    build(app, file)
    assert findings(app) == []
    resources = [
        resource
        for template in sorted((tmp_path / "assembly").glob("*.template.json"))
        for resource in json.loads(template.read_text(encoding="utf-8"))["Resources"].values()
    ]
    of_type = {
        kind: [each["Properties"] for each in resources if each["Type"] == f"AWS::{kind}"]
        for kind in ("Lambda::Function", "IAM::Role", "IAM::Policy", "KMS::Key")
    }
    networks = [each["VpcConfig"]["SubnetIds"] for each in of_type["Lambda::Function"]]
    assert networks == [settings.network.subnet_ids] * len(networks)
    assert {each["PermissionsBoundary"] for each in of_type["IAM::Role"]} == {settings.permissions_boundary}
    assert of_type["KMS::Key"] == []

    inline = [each["PolicyDocument"] for role in of_type["IAM::Role"] for each in role.get("Policies", [])]
    documents = [*inline, *(each["PolicyDocument"] for each in of_type["IAM::Policy"])]
    used = {
        action
        for document in documents
        for statement in document["Statement"]
        if statement["Effect"] == "Allow"
        for action in actions(statement)
    }
    assert beyond(used) == []
    assert beyond({"iam:CreateRole", "bedrock:CreateProvisionedModelThroughput"}) == [
        *("bedrock:CreateProvisionedModelThroughput", "iam:CreateRole"),
    ]


def beyond(used: set[str]) -> list[str]:
    """Return the actions that the platform's boundary doesn't allow."""
    document = template_of_the_platform()["Resources"]["Boundary"]["Properties"]["PolicyDocument"]
    patterns: dict[str, list[str]] = {"Allow": [], "Deny": []}
    for statement in document["Statement"]:
        patterns[statement["Effect"]] += actions(statement)
    return [
        action
        for action in sorted(used)
        if not any(fnmatchcase(action.lower(), each.lower()) for each in patterns["Allow"])
        or any(fnmatchcase(each.lower(), action.lower()) for each in patterns["Deny"])
    ]


def test_the_platforms_key_has_the_policy_that_the_stacks_need(tmp_path: Path) -> None:
    policy = json.dumps(template_of_the_platform()["Resources"]["Key"]["Properties"]["KeyPolicy"])
    root = f"arn:aws:iam::{ACCOUNT}:root"
    policy = policy.replace('{"Fn::Sub": "arn:aws:iam::${AWS::AccountId}:root"}', json.dumps(root))
    policy = policy.replace('{"Ref": "AWS::AccountId"}', json.dumps(ACCOUNT))
    assert json.loads(policy) == keys.policy(load(settings_file(tmp_path)))


def test_the_network_states_what_its_endpoints_cost(tmp_path: Path) -> None:
    endpoints = costs.deployed(load(settings_file(tmp_path))).interface_endpoints
    usd = endpoints * HOURS_A_MONTH * Prices.load().service("vpc_endpoint").usd
    stated = (FOLDER / "network" / "README.md").read_text(encoding="utf-8")
    assert f"{usd:.2f} USD a month for five interface endpoints" in stated
