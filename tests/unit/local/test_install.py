"""The installer chooses a Python that runs, installs a level, and survives interruptions."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from local import install
from stacks.settings import PROJECT

# A shell starts background jobs, such as a test session under nohup, with SIGINT ignored.
PROGRAM = """
import pathlib, signal, sys
from local import install

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(install.main([sys.argv[1]], pathlib.Path(sys.argv[2])))
"""

type Install = Callable[..., subprocess.CompletedProcess[str]]

SCRIPT = PROJECT / "local" / "install.sh"
OLD = 'case "$1" in -c) exit 1;; esac; echo "Python 3.9.2"'
SHIM = 'echo "command not found" >&2; exit 127'
GOOD = 'case "$1" in -c) exit 0;; --version) echo "Python 3.13.1";; -m) exit 1;; esac'
NAMES = ("python3.13", "python3.12", "python3.14", "python3", "python")


@pytest.fixture
def run(tmp_path: Path) -> Install:
    """Return a function that runs the installer in a copy of the project with these commands as Pythons."""
    (tmp_path / "local").mkdir()
    script = tmp_path / "local" / "install.sh"
    shutil.copyfile(SCRIPT, script)

    def install(**commands: str) -> subprocess.CompletedProcess[str]:
        binaries = tmp_path / "bin"
        binaries.mkdir()
        for name in NAMES:
            file = binaries / name
            file.write_text(f"#!/bin/sh\n{commands.get(name.replace('.', '_'), SHIM)}\n")
            file.chmod(0o755)
        # make puts the environment's folder first.
        path = os.pathsep.join([str(tmp_path / ".venv" / "bin"), str(binaries), os.environ["PATH"]])
        return subprocess.run(
            ["sh", str(script), "deploy"], capture_output=True, text=True, check=False, env={"PATH": path}
        )

    return install


def test_message_names_the_minimum_when_every_python_is_too_old(run: Install) -> None:
    done = run(python3=OLD, python=OLD)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "needs Python 3.12 or newer; python3 is Python 3.9.2" in done.stderr


def test_message_names_the_minimum_when_no_python_is_found(run: Install) -> None:
    done = run()
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "found none" in done.stderr


def test_python_stub_that_fails_is_skipped(run: Install) -> None:
    done = run(python3_13=SHIM, python3=GOOD)
    assert "Creating .venv with Python 3.13.1" in done.stdout
    assert "can't create virtual environments" in done.stderr


def test_unfinished_environment_is_created_again(run: Install, tmp_path: Path) -> None:
    """After Ctrl-C during `python -m venv`, the environment has its Python but no pip."""
    for name in ("python", "python3"):
        binary = tmp_path / ".venv" / "bin" / name
        binary.parent.mkdir(parents=True, exist_ok=True)
        binary.write_text("#!/bin/sh\nexit 0\n")
        binary.chmod(0o755)
    (tmp_path / ".venv" / ".unfinished").touch()

    assert f"Creating .venv with Python 3.13.1 ({tmp_path}/bin/python3)" in run(python3=GOOD).stdout


def test_finished_environment_is_kept(run: Install, tmp_path: Path) -> None:
    binary = tmp_path / ".venv" / "bin" / "python"
    binary.parent.mkdir(parents=True)
    binary.write_text('#!/bin/sh\n[ "$1" = -c ] || echo "$@"\n')
    binary.chmod(0o755)

    done = run(python3=GOOD)

    assert done.stdout == "-m local.install deploy\n"


def test_message_names_a_read_only_folder() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "local").mkdir()
        shutil.copyfile(SCRIPT, folder / "local" / "install.sh")
        folder.chmod(0o555)
        done = subprocess.run(
            ["sh", "local/install.sh", "deploy"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            user="nobody" if os.geteuid() == 0 else None,
        )
        folder.chmod(0o755)
    assert done.returncode == 1
    assert f"no permission to write to {folder}" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@dataclass(frozen=True)
class Tools:
    """A virtual environment whose python, uv and npm only record their commands."""

    home: Path
    log: Path
    path: str

    def __post_init__(self) -> None:
        for name in ("python", "uv", "npm", "node"):
            self.behave(name, "")

    def behave(self, name: str, code: str) -> None:
        """Let a tool run shell code after recording its command."""
        folder = self.home / "bin" if name in ("python", "uv") else Path(self.path.split(os.pathsep)[0])
        folder.mkdir(parents=True, exist_ok=True)
        version = '[ "$1" = --version ] && echo v24.0.0 && exit\n' if name == "node" else ""
        makes = '[ "$1" = venv ] && for last; do :; done && mkdir "$last"\n' if name == "uv" else ""
        (folder / name).write_text(
            f'#!/bin/sh\n{version}echo "{name} $@" >>"{self.log}"\n{code}\n{makes}exit 0\n'
        )
        (folder / name).chmod(0o755)

    @property
    def hold(self) -> str:
        """Shell code that waits for `go_on`."""
        return f"until [ -e '{self.home}/go-on' ]; do sleep 0.02; done"

    def go_on(self) -> None:
        """Let the tools end that hold."""
        (self.home / "go-on").touch()

    def start(self, level: str) -> subprocess.Popen[str]:
        """Start to install a level in a new process group, as a terminal does."""
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, level, str(self.home)],
            cwd=PROJECT,
            env={"PATH": self.path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def install(self, level: str) -> subprocess.CompletedProcess[str]:
        """Install a level and return the result."""
        process = self.start(level)
        output, errors = process.communicate(timeout=300)
        return subprocess.CompletedProcess([], process.returncode, output, errors)

    def until(self, command: str) -> None:
        """Wait until a tool has recorded a command."""
        deadline = time.monotonic() + 300
        while command not in self.recorded():
            assert time.monotonic() < deadline, self.recorded()
            time.sleep(0.02)

    def recorded(self) -> str:
        """Return the recorded commands, one per line."""
        return self.log.read_text() if self.log.exists() else ""

    def stamps(self) -> set[str]:
        """Return the levels that make considers installed."""
        return {path.name.removeprefix(".installed-") for path in self.home.glob(".installed-*")}


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    """Return tools that all succeed."""
    return Tools(
        tmp_path / "venv", tmp_path / "log", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
    )


def test_level_installs_its_own_packages_and_stamps_those_below(tools: Tools) -> None:
    done = tools.install("local")

    assert done.returncode == 0, done.stderr
    assert tools.stamps() == {"deploy", "local"}
    commands = tools.recorded()
    assert f"-r {PROJECT}/local/requirements.txt" in commands
    assert f"-r {PROJECT}/local/emulator/requirements.txt" in commands
    assert "requirements-dev.txt" not in commands
    assert commands.count("npm ci --ignore-scripts") == 1
    for line in commands.splitlines():
        assert " install " not in line or "--require-hashes" in line


def test_first_installation_says_what_it_takes(tools: Tools) -> None:
    assert "Installing 0.7 GB into .venv: a minute or two" in tools.install("local").stdout
    assert "GB" not in tools.install("tests").stdout


def test_disk_without_space_is_told_before_anything_is_installed(
    tools: Tools, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=300_000_000))
    assert install.main(["local"], tools.home) == 1
    assert f"{tools.home} needs 0.7 GB, and its disk has 0.3 GB left." in capsys.readouterr().err
    assert tools.recorded() == ""


def test_deploy_level_needs_no_emulator(tools: Tools) -> None:
    assert tools.install("deploy").returncode == 0
    assert tools.stamps() == {"deploy"}
    assert "emulator" not in tools.recorded()


@pytest.mark.parametrize("level", ["deploy", "local", "tests", "checks"])
def test_every_package_is_a_wheel_with_a_known_hash(tools: Tools, level: str) -> None:
    """A source package runs code of its own while it is built."""
    assert tools.install(level).returncode == 0
    installed = [line for line in tools.recorded().splitlines() if "pip install" in line]
    assert len(installed) >= 2
    for line in installed:
        assert "--require-hashes --only-binary :all: -r" in line


def test_installed_parts_are_not_installed_again(tools: Tools) -> None:
    tools.install("local")
    tools.install("tests")

    assert tools.stamps() == {"deploy", "local", "tests"}
    assert tools.recorded().count("npm ci") == 1
    assert tools.recorded().count("uv venv") == 1
    assert "--reinstall" not in tools.recorded()


@pytest.mark.parametrize(
    ("tool", "command", "number"),
    [
        ("python", "python -m pip", signal.SIGINT),
        ("uv", "uv pip install", signal.SIGINT),
        ("uv", "uv venv", signal.SIGINT),
        ("npm", "npm ci", signal.SIGINT),
        ("uv", "uv pip install", signal.SIGTERM),
        ("uv", "uv pip install", signal.SIGKILL),
    ],
)
def test_interrupted_installation_is_completed_by_the_next(
    tools: Tools, tool: str, command: str, number: signal.Signals
) -> None:
    tools.behave(tool, tools.hold)
    process = tools.start("local")
    tools.until(command)
    # Ctrl-C goes to all processes of a terminal; the others to the installer alone.
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    tools.go_on()
    _, errors = process.communicate(timeout=300)
    assert tools.stamps() == set()
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 130
        assert errors == "\nInterrupted. Run make again: it resumes where it stopped.\n"
    tools.behave(tool, "")
    before = tools.recorded()

    done = tools.install("local")

    assert done.returncode == 0, done.stderr
    assert tools.stamps() == {"deploy", "local"}
    again = tools.recorded().removeprefix(before)
    assert "python -m pip install --quiet --disable-pip-version-check --force-reinstall" in again
    assert "--reinstall" in again


def test_second_installation_waits_for_the_first(tools: Tools) -> None:
    tools.behave("npm", tools.hold)
    first = tools.start("local")
    tools.until("npm ci")

    second = tools.start("local")
    assert second.stdout
    assert any("Waiting for another installation" in line for line in second.stdout)
    tools.go_on()

    for process in (first, second):
        process.communicate(timeout=300)
        assert process.returncode == 0
    assert tools.recorded().count("npm ci") == 1


def test_failure_shows_the_output_of_the_tool(tools: Tools) -> None:
    tools.behave("npm", "echo 'npm error code EINTEGRITY' >&2; exit 1")

    done = tools.install("local")

    assert done.returncode == 1
    assert done.stderr.startswith("CDK command line could not be installed:\nnpm error code EINTEGRITY\n")
    assert tools.stamps() == set()


def test_installer_needs_no_package() -> None:
    program = f"import sys; sys.path.insert(0, {str(PROJECT)!r}); import local.install"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, timeout=300)
