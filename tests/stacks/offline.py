"""A process without network and without credentials, for Python and for the CDK's own Node."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

REFUSED = "synthesis must not use the network"

# The CDK runs in Node, under jsii. It talks with Python over pipes, which are never connected.
_NODE_GUARD = f"""
const refuse = (what) => () => {{ throw new Error(`{REFUSED}: ${{what}}`); }};
require('node:net').Socket.prototype.connect = refuse('connect');
require('node:dns').lookup = refuse('lookup');
"""

_PYTHON_EVENTS = {"socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"}


def refuse_network() -> None:
    """From now on every connection of this Python process raises RuntimeError; it can't be undone."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _PYTHON_EVENTS:
            raise RuntimeError(f"{REFUSED}: {event} {arguments[1:]}")

    sys.addaudithook(hook)


def note_reads(folder: Path) -> set[str]:
    """Return a set that holds, from now on, each file of the folder that this process opens."""
    opened, prefix = set[str](), f"{folder}/"

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | Path):
            path = os.path.realpath(arguments[0])
            # What is opened relative to another folder than the current one looks like no file.
            if path.startswith(prefix) and Path(path).is_file():
                opened.add(path.removeprefix(prefix))

    sys.addaudithook(hook)
    return opened


def modules(folder: Path) -> set[str]:
    """Return the files of the folder that this process has imported."""
    files = (getattr(module, "__file__", None) or "" for module in list(sys.modules.values()))
    return {file.removeprefix(f"{folder}/") for file in files if file.startswith(f"{folder}/")}


def environment(folder: Path) -> dict[str, str]:
    """Variables for a process whose Node can't connect, and in which no AWS credentials are to be found.

    Pip isn't held back: it fills an empty .cache with the functions' dependencies, in a process of its own.
    """
    guard = folder / "no-network.cjs"
    guard.write_text(_NODE_GUARD, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {
        "NODE_OPTIONS": f'--require "{guard}"',
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
    }
