"""Synthesis needs settings and nothing else: no AWS, no network, no credentials."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from stacks.settings import ENVIRONMENTS as FOLDER
from stacks.settings import PROJECT, STACKS
from tests.stacks import offline, synthesis
from tests.stacks.assembly import Assembly
from tests.stacks.environments import ENVIRONMENTS

CONNECTING = """
import socket, sys
from tests.stacks import offline, synthesis
offline.refuse_network()
socket.create_connection(("127.0.0.1", 9), timeout=1)
"""


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    variables = offline.environment(folder)
    return subprocess.run(command, cwd=PROJECT, env=variables, capture_output=True, text=True, timeout=300)


def test_every_environment_is_synthesised_without_network_and_credentials(assembly: Assembly) -> None:
    """The fixture's process has neither: see the tests below, and tests/stacks/synthesize_all.py."""
    assert set(assembly.templates) == set(STACKS)
    manifest = json.loads((assembly.folder / "manifest.json").read_text(encoding="utf-8"))
    assert not manifest.get("missing")  # what a context lookup in AWS would leave


def test_all_that_synthesis_reads_is_in_the_key_under_which_it_is_kept(assemblies_folder: Path) -> None:
    lists = list(assemblies_folder.glob(f"process-*/{synthesis.READS}"))
    read = {line for path in lists for line in path.read_text(encoding="utf-8").splitlines()}
    assert {"stacks/application.py", "environments/prod.toml", "task/task.toml"} <= read
    keyed = {path.relative_to(PROJECT).as_posix() for path in synthesis.inputs(PROJECT)}
    # Bundles are named by their content, whose sources are in the key.
    assert {path for path in read - keyed if not path.startswith((".venv/", ".cache/"))} == set()


def test_another_file_or_variable_is_another_key(tmp_path: Path) -> None:
    for name in synthesis.INPUTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    first = synthesis.key(tmp_path, {})
    assert synthesis.key(tmp_path, {"HOME": "/"}) == first
    assert synthesis.key(tmp_path, {"CDK_DEBUG": "1"}) != first
    (tmp_path / "cdk.json").write_text("{}")
    second = synthesis.key(tmp_path, {})
    (tmp_path / "stacks").unlink()
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "new.py").write_text("")
    assert len({first, second, synthesis.key(tmp_path, {})}) == 3


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-c", CONNECTING],
        ["node", "-e", "require('node:net').connect(9, '127.0.0.1')"],
        ["node", "-e", "require('node:https').get('https://localhost:9')"],
    ],
    ids=["python", "node", "node-https"],
)
def test_that_process_can_not_connect(tmp_path: Path, command: list[str]) -> None:
    result = run(command, tmp_path)
    assert result.returncode != 0
    assert offline.REFUSED in result.stderr


def test_that_process_has_no_credentials(tmp_path: Path) -> None:
    looking = "import boto3, sys; sys.exit(boto3.Session().get_credentials() is not None)"
    assert run([sys.executable, "-c", looking], tmp_path).returncode == 0


def test_stacks_are_in_the_settings_account_and_region(assembly: Assembly) -> None:
    manifest = json.loads((assembly.folder / "manifest.json").read_text(encoding="utf-8"))
    stacks = {
        name: artifact
        for name, artifact in manifest["artifacts"].items()
        if artifact["type"] == "aws:cloudformation:stack"
    }
    assert set(stacks) == {f"{assembly.settings.owner}-{stack}" for stack in STACKS}
    where = f"aws://{assembly.settings.account}/{assembly.settings.region}"
    assert {artifact["environment"] for artifact in stacks.values()} == {where}


def test_stacks_are_deployed_in_their_order(assembly: Assembly) -> None:
    manifest = json.loads((assembly.folder / "manifest.json").read_text(encoding="utf-8"))
    name = assembly.settings.owner
    for before, after in pairwise(STACKS):
        needed, ahead = set[str](), [f"{name}-{after}"]
        while ahead:
            dependencies = manifest["artifacts"][ahead.pop()].get("dependencies", [])
            needed |= set(dependencies)
            ahead += dependencies
        assert f"{name}-{before}" in needed, after


def test_no_template_asks_whether_it_is_local(assemblies: Mapping[str, Assembly]) -> None:
    """Local, dev and prod have the same types of resources, except those that depend on settings."""
    kinds = {
        name: {resource.type for resource in assemblies[name].resources()}
        for name in ("local", "dev", "prod")
    }
    switched = {
        "AWS::CloudFormation::WaitCondition",
        "AWS::CloudFormation::WaitConditionHandle",
        "Custom::BedrockReleaseWait",
        "AWS::SNS::Subscription",
        "AWS::Budgets::Budget",
    }
    assert kinds["local"] - switched == kinds["dev"] - switched == kinds["prod"] - switched


def test_unknown_environment_ends_with_the_list_of_those_there_are(tmp_path: Path) -> None:
    variables = offline.environment(tmp_path) | {"CDK_CONTEXT_JSON": '{"environment": "nope"}'}
    result = subprocess.run(
        [sys.executable, "app.py"], cwd=PROJECT, env=variables, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 1
    assert "nope" in result.stderr
    assert [name for name in ENVIRONMENTS if f'"{name}"' not in result.stderr] == []
    assert "Traceback" not in result.stderr


def test_parts_of_bundles_that_an_interrupted_synthesis_left_are_removed_first(tmp_path: Path) -> None:
    """The CDK takes a folder for a whole bundle by its name, whatever is in it."""
    output = tmp_path / "cdk.out"
    (output / "asset.2053b789" / "package").mkdir(parents=True)
    for name in ("asset.aa.zip", "manifest.json"):
        (output / name).touch()
    # It ends after that, which is quick.
    selected = {"CDK_CONTEXT_JSON": '{"environment": "nope"}', "CDK_OUTDIR": str(output)}
    environ = offline.environment(tmp_path) | selected
    subprocess.run([sys.executable, "app.py"], cwd=PROJECT, env=environ, capture_output=True, timeout=300)
    assert [path.name for path in output.iterdir()] == ["manifest.json"]


def test_too_many_tags_end_with_the_function_that_they_do_not_fit_into(tmp_path: Path) -> None:
    long = "".join(f'cost-centre-{number:02d} = "{"x" * 120}"\n' for number in range(30))
    settings = (FOLDER / "dev.toml").read_text(encoding="utf-8")
    (tmp_path / "long.toml").write_text(settings.replace("[tags]\n", f"[tags]\n{long}"), encoding="utf-8")
    flags = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    context = json.dumps({**flags, "environment": str(tmp_path / "long.toml")})
    result = subprocess.run(
        [sys.executable, "app.py"],
        cwd=PROJECT,
        env=offline.environment(tmp_path) | {"CDK_CONTEXT_JSON": context},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 1
    assert "The largest is TAGS" in result.stderr
    assert "Traceback" not in result.stderr
