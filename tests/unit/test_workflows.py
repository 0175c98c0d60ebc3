"""The GitHub Actions workflows: valid, safe, and built from targets of the Makefile."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # it ships no types

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in WORKFLOWS}


def jobs(name: str) -> Mapping[str, Mapping[str, Any]]:
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load(TEXTS[name])["jobs"]
    return found


def steps(name: str) -> Iterator[Mapping[str, Any]]:
    return (step for job in jobs(name).values() for step in job["steps"])


def commands(name: str) -> list[str]:
    return [step["run"] for step in steps(name) if "run" in step]


def audit(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Run zizmor in its strictest mode, without access to GitHub."""
    tool = Path(sys.executable).with_name("zizmor")
    command = [str(tool), "--offline", "--no-progress", "--persona", "pedantic", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def schema_check(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Check workflows against GitHub's schema, which is part of the package."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    return subprocess.run(
        [*command, *map(str, paths)], capture_output=True, text=True, check=False, timeout=300
    )


def test_workflows_are_check_and_deploy() -> None:
    assert set(TEXTS) == {"check", "deploy"}


def test_workflows_are_well_formed() -> None:
    done = schema_check(*WORKFLOWS)
    assert done.returncode == 0, done.stdout


def test_workflows_are_safe() -> None:
    done = audit(FOLDER)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (r"@[0-9a-f]{40} # v7.0.1", "@v7", "unpinned-uses"),
        (r'"\$ENVIRONMENT" APPROVED', '"${{ inputs.environment }}" APPROVED', "template-injection"),
        (r"permissions: {}", "permissions: write-all", "excessive-permissions"),
    ],
)
def test_unsafe_workflow_is_reported(tmp_path: Path, old: str, new: str, finding: str) -> None:
    text, count = re.subn(old, new, TEXTS["deploy"])
    assert count
    unsafe = tmp_path / ".github" / "workflows" / "deploy.yml"
    unsafe.parent.mkdir(parents=True)
    unsafe.write_text(text)

    done = audit(unsafe)

    assert done.returncode != 0
    assert finding in done.stdout


def test_misspelt_key_is_reported(tmp_path: Path) -> None:
    wrong = tmp_path / "deploy.yml"
    shutil.copy(FOLDER / "deploy.yml", wrong)
    wrong.write_text(wrong.read_text().replace("timeout-minutes", "timeout-minuts"))

    assert schema_check(wrong).returncode != 0


@pytest.mark.parametrize("name", TEXTS)
def test_actions_are_pinned_by_commit_with_their_version(name: str) -> None:
    uses = re.findall(r"uses: (.+)", TEXTS[name])

    assert uses
    for line in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), line


def test_each_action_has_one_version() -> None:
    uses = {line for text in TEXTS.values() for line in re.findall(r"uses: (.+)", text)}

    assert len({line.partition("@")[0] for line in uses}) == len(uses)


@pytest.mark.parametrize("name", TEXTS)
def test_no_secret_is_stored(name: str) -> None:
    assert "secrets." not in TEXTS[name]
    assert "access-key" not in TEXTS[name]


@pytest.mark.parametrize("name", TEXTS)
def test_every_job_has_a_timeout_and_no_write_permission(name: str) -> None:
    workflow = yaml.safe_load(TEXTS[name])
    assert set(workflow["permissions"].values()) <= {"read"}
    for job in workflow["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 60
        permissions = dict(job.get("permissions", {}))
        assert permissions.pop("id-token", "write") == "write"
        assert permissions in ({}, {"contents": "read"})


@pytest.mark.parametrize("name", TEXTS)
def test_workflows_run_targets_of_the_makefile(name: str) -> None:
    targets = re.findall(r"\bmake ([a-z-]+)", "\n".join(commands(name)))

    assert set(targets) <= TARGETS
    assert targets[0].startswith("install")


def test_both_tiers_of_tests_run() -> None:
    run = {one["target"] for one in jobs("check")["test"]["strategy"]["matrix"]["include"]}

    assert run == {"test", "test-all"} <= TARGETS
    assert 'make "$TARGET"' in commands("check")


@pytest.mark.parametrize("name", TEXTS)
def test_job_with_credentials_installs_only_what_deploys(name: str) -> None:
    for job in jobs(name).values():
        installs = [step["run"] for step in job["steps"] if "make install" in step.get("run", "")]
        level = "install-deploy" if "id-token" in job.get("permissions", {}) else "install-tests"
        assert installs == [f"make {level} PYTHON=python"]


@pytest.mark.parametrize("name", TEXTS)
def test_targets_of_a_job_with_credentials_install_nothing_more(name: str) -> None:
    rules = dict(re.findall(r"^([a-z-]+):([^#\n=]*)", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for job in jobs(name).values():
        if "id-token" in job.get("permissions", {}):
            text = "\n".join(step.get("run", "") for step in job["steps"])
            for target in re.findall(r"\bmake ([a-z-]+)", text):
                assert rules[target].split() == ["$(DEPLOYS)"], target


@pytest.mark.parametrize("name", TEXTS)
def test_steps_without_credentials_run_before_a_role_is_assumed(name: str) -> None:
    for job in jobs(name).values():
        done = [step.get("uses", step.get("run", "")) for step in job["steps"]]
        login = [number for number, what in enumerate(done) if "configure-aws-credentials" in what]
        assert bool(login) == ("id-token" in job.get("permissions", {}))
        for number in login:
            assert "role-to-assume" in job["steps"][number]["with"]
            before, after = "\n".join(done[:number]), "\n".join(done[number:])
            assert "make install" in before
            assert "make synth" in before
            assert "make install" not in after


def test_pull_request_from_a_fork_gets_no_credentials() -> None:
    assert "pull_request_target" not in TEXTS["check"]
    for job in jobs("check").values():
        if "id-token" in job.get("permissions", {}):
            assert "github.event.pull_request.head.repo.full_name == github.repository" in job["if"]


def test_pull_request_changes_nothing() -> None:
    said = "\n".join(commands("check")).replace("a deployment", "").replace("install-deploy", "")
    assert "deploy" not in said
    (diff,) = [command for command in commands("check") if "make diff" in command]
    assert "READ_ONLY=1" in diff


def test_one_deployment_per_environment_at_a_time_never_cancelled() -> None:
    workflow = yaml.safe_load(TEXTS["deploy"])
    assert workflow["concurrency"] == {
        "group": "deploy-${{ inputs.environment }}",
        "cancel-in-progress": False,
    }
    (job,) = workflow["jobs"].values()
    assert job["environment"] == "${{ inputs.environment }}"


def test_deployable_environments_are_those_in_aws() -> None:
    # YAML reads the key `on` as true.
    inputs = yaml.safe_load(TEXTS["deploy"])[True]["workflow_dispatch"]["inputs"]
    environments = {path.stem for path in (PROJECT / "environments").glob("*.toml")}

    assert set(inputs["environment"]["options"]) == environments - {"local"}


def test_deployment_asks_no_question() -> None:
    (deploy,) = [command for command in commands("deploy") if "make deploy" in command]
    assert "APPROVED=1" in deploy
    dry = subprocess.run(
        ["make", "--dry-run", "deploy", "ENV=prod", "APPROVED=1"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert 'deploy --environment "prod" --approved' in dry.stdout
