"""Lock files: they match their inputs, pin hashes, and are what is installed."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path

import pytest

from cdk_distilled_router.common.functions import RUNTIME
from local.servers import EMULATOR_PYTHON
from tests.locks import asked_for, entries, pinned

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = PROJECT / "local" / "lock.sh"


def named(ending: str) -> list[str]:
    """Return the paths of the project's requirements files without their ending."""
    found = {path for depth in ("", "*/", "*/*/") for path in PROJECT.glob(f"{depth}requirements*{ending}")}
    return sorted(path.relative_to(PROJECT).as_posix().removesuffix(ending) for path in found)


NAMES = named(".in")
# These have their own environments, which may have other versions.
APART = ("benchmarks/requirements", "local/emulator/requirements", "tests/checks/requirements")
# Bundled for Lambda.
BUNDLED = ("lambda/requirements", "lambda/evaluation/requirements")


def lock(name: str) -> Path:
    return PROJECT / f"{name}.txt"


def test_every_input_has_a_lock_file_that_make_lock_renews() -> None:
    assert len(NAMES) == 12
    assert named(".txt") == NAMES
    script = SCRIPT.read_text(encoding="utf-8")
    assert sorted(re.findall(r"^lock (\S+)", script, re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_lock_file_pins_each_package_once_and_by_hashes(name: str) -> None:
    found = entries(lock(name))

    assert found
    assert len({(entry.name, entry.marker) for entry in found}) == len(found)
    assert all(len(set(entry.hashes)) == len(entry.hashes) for entry in found)


@pytest.mark.parametrize("name", NAMES)
def test_lock_file_matches_its_input(name: str) -> None:
    wanted = asked_for(PROJECT / f"{name}.in")

    assert wanted
    assert wanted.items() <= pinned(lock(name)).items()


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_a_package_index(name: str) -> None:
    """Each machine sets its own index or mirror."""
    for path in (lock(name), PROJECT / f"{name}.in"):
        text = path.read_text(encoding="utf-8")
        assert "://" not in text
        assert not re.search(r"--(index|extra-index|find-links|trusted-host)", text)


def test_tested_versions_are_deployed() -> None:
    tested = pinned(lock("requirements-dev"))

    for name in ("requirements", "operate/requirements", "local/requirements", *BUNDLED):
        assert pinned(lock(name)).items() <= tested.items(), name


def test_installed_versions_are_the_locked_ones() -> None:
    for entry in entries(lock("requirements-dev")):
        if not entry.marker:
            assert metadata.version(entry.name) == entry.version, entry.name
    (emulator,) = asked_for(PROJECT / "local" / "emulator" / "requirements.in").items()
    (found,) = EMULATOR_PYTHON.parents[1].glob(f"lib/*/site-packages/{emulator[0]}-*.dist-info")
    assert found.name == f"{emulator[0]}-{emulator[1]}.dist-info"


@pytest.mark.parametrize("name", BUNDLED)
def test_lambda_packages_are_locked_for_lambdas_python_only(name: str) -> None:
    assert [entry for entry in entries(lock(name)) if entry.marker] == []
    python = re.search(r'^runtime="--python-version (\S+) ', SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert python is not None
    assert RUNTIME.name == f"python{python[1]}"


@pytest.mark.parametrize(
    "installer", ["local/install.py", "cdk_distilled_router/common/packages.py", "benchmarks/router.py"]
)
def test_installers_check_hashes(installer: str) -> None:
    text = (PROJECT / installer).read_text(encoding="utf-8")
    commands = re.findall(r"\bpip\b\W+\binstall\b.{0,400}", text, re.DOTALL)

    assert commands
    assert all("--require-hashes" in command and ":all:" in command for command in commands)


def test_cdk_command_line_is_locked_by_hash_and_runs_no_script() -> None:
    folder = PROJECT / "operate" / "cdk-cli"
    wanted = json.loads((folder / "package.json").read_text(encoding="utf-8"))["dependencies"]
    packages = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert packages.pop("")["dependencies"] == wanted

    assert {name: packages[f"node_modules/{name}"]["version"] for name in wanted} == wanted
    for package in packages.values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package, "a lock file must not name a registry"
    install = (PROJECT / "local" / "install.py").read_text(encoding="utf-8")
    assert re.search(r'"ci", "?--ignore-scripts|"--ignore-scripts".{0,200}"ci"', install, re.DOTALL)


@pytest.mark.parametrize(
    "text",
    [
        "boto3==1.43.106\n",
        "boto3 \\\n    --hash=sha256:" + "0" * 64 + "\n",
        "boto3==1.43.106 \\\n    --hash=md5:" + "0" * 32 + "\n",
        "boto3 @ https://example.com/boto3.whl \\\n    --hash=sha256:" + "0" * 64 + "\n",
        "--extra-index-url https://example.com/simple\n",
    ],
)
def test_line_without_hashes_is_reported(tmp_path: Path, text: str) -> None:
    path = tmp_path / "requirements.txt"
    path.write_text(text)

    with pytest.raises(ValueError, match="pins no package by its hashes"):
        entries(path)


@pytest.mark.parametrize("line", ["boto3", "boto3>=1.43", "boto3 @ https://example.com/boto3.whl"])
def test_input_without_an_exact_version_is_reported(tmp_path: Path, line: str) -> None:
    path = tmp_path / "requirements.in"
    path.write_text(line + "\n")

    with pytest.raises(ValueError, match="names no exact version"):
        asked_for(path)
