"""An environment, and how its AWS account is reached.

An environment in AWS is reached with the caller's own credentials. The local system is a separate account:
the file `.local/env`, which `make local` writes, holds the variables that reach it.
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from operate.aws import Aws
from operate.errors import OperateError
from stacks.settings import PROJECT, Settings, load, locate

# Names the local system, whatever environment it runs.
LOCAL = "local"
# The account of the local system; none of AWS's has this number.
LOCAL_ACCOUNT = "000000000000"
VARIABLES_FILE = "env"
# The variable that names the settings file of the local system.
SETTINGS_VARIABLE = "LOCAL_SETTINGS"


@dataclass(frozen=True)
class Environment:
    """One environment, by the name or file that the caller gave.

    `variables` reach its account; without any, the caller's own credentials do.
    """

    name: str
    settings: Settings
    variables: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def aws(self) -> Aws:
        """AWS clients of its account and Region."""
        return Aws(self.settings.region, self.variables)

    @property
    def deploy_command(self) -> str:
        """The command that deploys it, for messages."""
        return "make local" if self.variables else f"make deploy ENV={self.name}"

    @property
    def access_advice(self) -> str:
        """What to check if a stack can't be read."""
        if self.variables:
            return f"Check that `{self.deploy_command}` was run."
        return (
            f"Check that `{self.deploy_command}` was run, and that this shell has credentials of its account."
            " Without ENV, commands reach the local system."
        )


def add_argument(parser: argparse.ArgumentParser, *, default: str | None = None) -> None:
    """Add `--environment`, required unless there is a default."""
    text = "name of a file in environments/, without .toml, or path of a settings file"
    parser.add_argument(
        "--environment",
        metavar="ENV",
        default=default,
        required=default is None,
        help=f"{text}; by default {default}" if default else text,
    )


def reach(name: str) -> Environment:
    """Load an environment and make sure that its account can be reached.

    `local` is the local system with the settings that it runs. For it, the caller's AWS variables are removed
    from this process: a profile or a proxy of theirs must not be applied to it.

    Raises:
        OperateError: The local system does not run, or runs another environment.
        SettingsError: The settings file can't be used.
    """
    asked = None if name == LOCAL else load(name)
    if asked and asked.account != LOCAL_ACCOUNT:
        return Environment(shlex.quote(name), asked)
    forget_aws()
    variables = _local_variables()
    running = load(Path(variables.get(SETTINGS_VARIABLE) or locate(LOCAL)))
    if asked and asked.owner != running.owner:
        raise OperateError(
            f"The local system runs {running.owner}, and not {asked.owner} of {asked.file}.",
            advice=f"Run `make local-down`, and then `make local ENV={shlex.quote(name)}`.",
        )
    return Environment(LOCAL, running, variables)


def in_aws(name: str) -> Settings:
    """Return the settings of an environment that is deployed to AWS.

    Raises:
        OperateError: It is the local system.
        SettingsError: The settings file can't be used.
    """
    settings = load(name)
    if settings.account == LOCAL_ACCOUNT:
        raise OperateError(
            f"{settings.file} names the account {LOCAL_ACCOUNT}, which only the local system has.",
            advice=f"`make local ENV={shlex.quote(name)}` deploys it on this machine, `make local-down` "
            "removes it. For AWS, set `account` to your own account, or name another environment, such as "
            "ENV=dev.",
        )
    return settings


def local_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the local system: LOCAL_DIR, relative to the project, or `.local`."""
    return (PROJECT / (environ.get("LOCAL_DIR") or ".local")).resolve()


def read_variables(path: Path) -> dict[str, str]:
    """Read variables that were written for a shell, one a line."""
    pairs = (line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines() if "=" in line)
    return {key: "".join(shlex.split(value)) for key, value in pairs}


def without_aws(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return `environ` without anything that tells an AWS client where to go or who it is."""
    ours = ("AWS_", "CDK_DEFAULT_", "EXECUTE_API_URL", "NODE_EXTRA_CA_CERTS")
    kept = {key: value for key, value in environ.items() if not key.startswith(ours)}
    # The caller's proxy can't reach the loopback interface of this machine.
    direct = ",".join(filter(None, ["127.0.0.1", kept.get("NO_PROXY") or kept.get("no_proxy")]))
    return {**kept, "NO_PROXY": direct, "no_proxy": direct}


def without_access(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return `environ` so that no AWS client finds credentials, on this machine or around it."""
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return {**without_aws(environ), **nowhere, "AWS_EC2_METADATA_DISABLED": "true"}


def forget_aws() -> None:
    """Remove the caller's AWS variables from this process."""
    kept = without_aws()
    os.environ.clear()
    os.environ.update(kept)


def _local_variables() -> dict[str, str]:
    """Return the variables of the local system, which must be running."""
    try:
        variables = read_variables(local_folder() / VARIABLES_FILE)
    except OSError:
        variables = {}
    # The file outlives the servers when the machine restarts.
    if not _listens(variables.get("AWS_ENDPOINT_URL", "")):
        raise OperateError("The local system does not run.", advice="Start it with `make local`.")
    return variables


def _listens(url: str) -> bool:
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname or "", address.port or 0), timeout=5).close()
    except OSError:
        return False
    return True
