"""The local system for an app of one's own: its servers alone, and commands that reach them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from local import cdk_process, environment, servers
from local.progress import Board
from local.state import State
from local.status import variables
from local.system import locked
from operate import cdk
from operate.console import Terminal, say
from operate.errors import OperateError
from stacks.settings import PROJECT


def start(state: State, console: Terminal, region: str) -> None:
    """Start the servers in a Region, unless they run, and bootstrap them for the CDK.

    Raises:
        OperateError: They run in another Region, or could not be started.
    """
    with locked(state), Board(console) as board:
        running = servers.running(state)
        if running:
            running.check_region(region)
        rows = [board.add("servers", "running"), board.add("bootstrap")]
        if running is None:
            servers.stop(state)  # what a killed run has left
            running = servers.start(state, region)
        found = running.variables(state)
        environment.write(found, state.env)
        board.set(rows[0], "done", running.emulator.url)
        cdk_process.bootstrap(state, board, rows[1], found)
    say(
        console,
        "",
        "The servers run.",
        "Reach them:  .venv/bin/python -m local run cdk deploy --app ...",
        "Stop them:   make local-down",
    )


def run(state: State, command: Sequence[str]) -> int:
    """Run a command that reaches the local system and nothing else; return its exit status.

    It finds this project's `cdk`, `node` and `python` first, and its Python the construct library.

    Raises:
        OperateError: The local system does not run, or there is no such command.
    """
    if not command:
        raise OperateError("A command is required.", advice="For example: python -m local run cdk list")
    tools = cdk.with_tools(cdk_process.reaching(variables(state)))
    links = Path(sys.prefix) / "cdk-cli" / "node_modules" / ".bin"
    path = os.pathsep.join([str(links), tools["PATH"]])
    program = shutil.which(command[0], path=path)
    if program is None:
        raise OperateError(f"{command[0]}: no such command.")
    library = os.pathsep.join(filter(None, [str(PROJECT), tools.get("PYTHONPATH")]))
    environ = {**tools, "PATH": path, "PYTHONPATH": library}
    done = subprocess.run([program, *command[1:]], env=environ, check=False)  # noqa: S603 - the caller's command
    return done.returncode
