"""Run a process without network and credentials, both Python and the CDK's Node."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

REFUSED = "synthesis must not use the network"

# The CDK runs in Node, under jsii, and communicates with Python over pipes, not sockets.
_NODE_GUARD = f"""
const refuse = (what) => () => {{ throw new Error(`{REFUSED}: ${{what}}`); }};
require('node:net').Socket.prototype.connect = refuse('connect');
require('node:dns').lookup = refuse('lookup');
"""

_PYTHON_EVENTS = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}


def refuse_network() -> None:
    """Make every connection of this Python process raise RuntimeError, from now on."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _PYTHON_EVENTS:
            raise RuntimeError(f"{REFUSED}: {event} {arguments[1:]}")

    sys.addaudithook(hook)


def note_reads(folder: Path) -> set[str]:
    """Return a set that collects, from now on, each file in the folder that this process opens."""
    opened, prefix = set[str](), f"{folder}/"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | Path):
            path = os.path.realpath(arguments[0])
            # A path relative to a folder descriptor can't be resolved here, and is no file.
            if path.startswith(prefix) and Path(path).is_file():
                opened.add(path.removeprefix(prefix))

    sys.addaudithook(hook)
    return opened


def modules(folder: Path) -> set[str]:
    """Return the files of the folder that this process has imported."""
    files = (getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))
    return {file.removeprefix(f"{folder}/") for file in files if file.startswith(f"{folder}/")}


def environment(folder: Path) -> dict[str, str]:
    """Return variables for a process whose Node can't connect and which finds no AWS credentials.

    The installer, a separate process, can connect: it fills an empty .cache with the functions' dependencies.
    """
    guard = folder / "no-network.cjs"
    guard.write_text(_NODE_GUARD, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {
        "NODE_OPTIONS": f'--require "{guard}"',
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
    }
