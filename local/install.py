"""Install packages into the virtual environment: `python -m local.install deploy|local|tests|checks`.

Each level holds the one before it. Everything is locked by its hash. After an interruption at any moment, the
next run completes the installation: make's stamps are written last, and what may be half done is done again.

This imports the standard library only, since it runs before any package is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType

from operate import node
from operate.printing import err, out

PROJECT = Path(__file__).resolve().parents[1]
LEVELS = {
    "deploy": PROJECT / "operate" / "requirements.txt",
    "local": PROJECT / "local" / "requirements.txt",
    "tests": PROJECT / "requirements-dev.txt",
    "checks": PROJECT / "requirements-dev.txt",
}
# Programs that pin other versions than ours have environments of their own inside the virtual environment.
APART = {
    "emulator": ("local", PROJECT / "local" / "emulator" / "requirements.txt"),
    "checkov": ("checks", PROJECT / "tests" / "checks" / "requirements.txt"),
    "reference": ("checks", PROJECT / "docs" / "reference" / "requirements.txt"),
}
UV = PROJECT / "local" / "requirements-uv.txt"
NODE = PROJECT / "operate" / "requirements-node.txt"
CDK = PROJECT / "operate" / "cdk-cli"
PACKAGES = PROJECT / "cdk_distilled_router" / "common" / "packages.py"

# What .venv takes with each level, in GB (`du -s`, 2026-11).
SIZE_GB = {"deploy": 0.6, "local": 0.7, "tests": 0.9, "checks": 1.3}

# What uv says of its progress; its other lines name each package.
SHOWN = ("Downloading", "Prepared", "Installed", "Building")
STILL_SECONDS = 10.0


class InstallError(Exception):
    """A step failed; the text says which, and what the tool said."""


@dataclass
class Commands:
    """Runs the commands of an installation, and ends those that still run when it is interrupted."""

    lock: int
    environment: Mapping[str, str]
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    ended: bool = False

    def run(self, name: str, *command: str, cwd: Path = PROJECT) -> None:
        """Run a command, and print what it says of its progress.

        Raises:
            InstallError: It failed, or the installation has ended.
            KeyboardInterrupt: It was interrupted, as everything else at this terminal.
        """
        if self.ended:
            raise InstallError(f"{name} was not installed.")
        process = subprocess.Popen(  # noqa: S603 - pip, uv and npm with arguments of our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=dict(self.environment),
            cwd=cwd,
            pass_fds=[self.lock],
        )
        self.processes.append(process)
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            if line.startswith(SHOWN):
                say(name, line.strip())
        code = process.wait()
        if code in (-signal.SIGINT, 128 + signal.SIGINT):
            raise KeyboardInterrupt
        if code:
            raise InstallError(f"{name} could not be installed:\n{''.join(lines[-20:])}")

    def end(self) -> None:
        """End the running commands, and start no others."""
        self.ended = True
        for process in self.processes:
            with contextlib.suppress(OSError):
                process.terminate()
        for process in self.processes:
            process.wait()


@dataclass(frozen=True)
class Part:
    """A part of the installation that needs no other."""

    name: str
    install: Callable[[], None]


def say(name: str, text: str) -> None:
    """Print one line of progress."""
    out(f"  {name:<17} {text}")


class Installation:
    """Installs one level into the virtual environment of this Python."""

    def __init__(self, level: str, commands: Commands, home: Path, *, again: bool) -> None:
        """Install into the virtual environment `home`.

        Args:
            again: An earlier run was interrupted: packages may be there in parts.
        """
        self._level = level
        self._commands = commands
        self._home = home
        self._python = home / "bin" / "python"
        self._again = ["--reinstall"] if again else []

    def run(self) -> None:
        """Install everything.

        Raises:
            InstallError: A part failed.
        """
        start = time.monotonic()
        self._install_uv()
        say("uv", f"{time.monotonic() - start:.0f} s")
        parts = [
            Part("application", self._install_packages),
            Part("CDK command line", self._install_cdk),
        ]
        for name, (lowest, requirements) in APART.items():
            if lowest in up_to(self._level):
                parts.append(Part(name, partial(self._install_apart, name, requirements)))
        run_together(parts)

    def _install_uv(self) -> None:
        again = ["--force-reinstall"] if self._again else []
        pip = [str(self._python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *again]
        self._commands.run("uv", *pip, "--require-hashes", "--only-binary", ":all:", "-r", str(UV))

    def _uv(self, name: str, python: Path, requirements: Path) -> None:
        uv = [str(self._home / "bin" / "uv"), "pip", "install", "--python", str(python), *self._again]
        self._commands.run(name, *uv, "--require-hashes", "--only-binary", ":all:", "-r", str(requirements))

    def _install_packages(self) -> None:
        self._uv("application", self._python, LEVELS[self._level])

    def _install_apart(self, name: str, requirements: Path) -> None:
        def build(folder: Path) -> None:
            uv = [str(self._home / "bin" / "uv"), "venv", "--quiet", "--python", str(self._python)]
            self._commands.run(name, *uv, str(folder))
            self._uv(name, folder / "bin" / "python", requirements)

        build_once(self._home / name, requirements.read_text(encoding="utf-8"), build)

    def _install_cdk(self) -> None:
        if node.npm() is None:
            self._uv("Node.js", self._python, NODE)
        npm = node.npm()
        if npm is None:
            raise InstallError("The Node.js that was just installed has no npm.")

        def build(folder: Path) -> None:
            folder.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copyfile(CDK / name, folder / name)
            options = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
            self._commands.run("CDK command line", *npm, "ci", *options, cwd=folder)

        lock = (CDK / "package-lock.json").read_text(encoding="utf-8")
        build_once(self._home / "cdk-cli", lock, build)


def up_to(level: str) -> list[str]:
    """Return a level and those that it holds."""
    levels = list(LEVELS)
    return levels[: levels.index(level) + 1]


def build_once(folder: Path, content: str, build: Callable[[Path], None]) -> None:
    """Build a folder from scratch unless it was finished from the same content."""
    stamp = folder / ".content"
    with contextlib.suppress(OSError):
        if stamp.read_text(encoding="utf-8") == content:
            return
    shutil.rmtree(folder, ignore_errors=True)
    build(folder)
    stamp.write_text(content, encoding="utf-8")


def run_together(parts: Sequence[Part]) -> None:
    """Install parts side by side, say when each is done, and raise the first error."""
    start = time.monotonic()
    pool = ThreadPoolExecutor(len(parts))
    left: dict[Future[None], Part] = {pool.submit(part.install): part for part in parts}
    try:
        while left:
            done = wait(left, timeout=STILL_SECONDS, return_when="FIRST_COMPLETED").done
            for future in done:
                part = left.pop(future)
                future.result()
                say(part.name, f"{time.monotonic() - start:.0f} s")
            if not done:
                say(
                    "", f"{time.monotonic() - start:.0f} s, still: {', '.join(p.name for p in left.values())}"
                )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def tool_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables for pip, uv and npm, so that all of them reach what pip reaches."""
    variables: dict[str, str] = runpy.run_path(str(PACKAGES))["uv_environment"](environ)
    certificates = variables.get("SSL_CERT_FILE")
    for_node = {"NODE_EXTRA_CA_CERTS": certificates} if certificates else {"NODE_USE_SYSTEM_CA": "1"}
    return {**for_node, **variables}


@contextlib.contextmanager
def locked(home: Path) -> Iterator[int]:
    """Hold the environment's lock, which the commands inherit: one that outlived its run is waited for."""
    with (home / ".install-lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            out("Waiting for another installation into .venv to end ...")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock.fileno()


def announce(level: str, home: Path) -> None:
    """Say what the installation takes, unless it only completes an earlier one.

    Raises:
        InstallError: The disk has too little space.
    """
    if any(home.glob(".installed-*")):
        out("Installing into .venv ...")
        return
    size, free = SIZE_GB[level], shutil.disk_usage(home).free / 1e9
    if free < size:
        raise InstallError(f"{home} needs {size} GB, and its disk has {free:.1f} GB left.")
    out(f"Installing {size} GB into .venv: a minute or two with a fast connection. Ctrl-C is safe.")


def install(level: str, home: Path) -> None:
    """Install a level into the virtual environment `home`, then write the stamps that make compares.

    Raises:
        InstallError: A part failed.
    """
    begun = time.monotonic()
    with locked(home) as lock:
        commands = Commands(lock, tool_environment())
        unfinished = home / ".installing"
        again = unfinished.exists()
        unfinished.touch()
        try:
            Installation(level, commands, home, again=again).run()
        except BaseException:
            commands.end()
            raise
        unfinished.unlink()
        for held in up_to(level):
            (home / f".installed-{held}").touch()
    out(f"Installed in {time.monotonic() - begun:.0f} s.")


def main(arguments: Sequence[str], home: Path = Path(sys.prefix)) -> int:
    """Install the level that the command line names into a virtual environment; return the exit status."""
    if len(arguments) != 1 or arguments[0] not in LEVELS:
        err(f"Say what to install: {', '.join(LEVELS)}.")
        return 2

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        announce(arguments[0], home)
        install(arguments[0], home)
    except KeyboardInterrupt:
        err("\nInterrupted. Run make again: it resumes where it stopped.")
        return 130
    except InstallError as error:
        err(f"{error}\nRun make again when this is fixed: it resumes where it stopped.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
