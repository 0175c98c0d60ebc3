"""The state of the local system: servers, stacks and the release."""

from __future__ import annotations

from rich.table import Table

from local import deploy_progress, servers
from local.state import REGION, State
from operate.aws import Aws
from operate.console import Terminal, wide
from operate.environment import LOCAL
from operate.errors import OperateError
from stacks import settings


def variables(state: State) -> dict[str, str]:
    """Return the variables with which AWS clients reach the local system.

    Raises:
        OperateError: It does not run.
    """
    running = servers.running(state)
    if running is None:
        raise OperateError("The local system does not run.", advice="Start it with `make local`.")
    return running.variables(state)


def show(state: State, console: Terminal) -> None:
    """Print servers, stacks and the release.

    Raises:
        OperateError: The local system does not run.
    """
    aws = Aws(REGION, variables(state))
    table = Table("what", "state", "where", box=None, pad_edge=False)
    for server in servers.recorded(state):
        table.add_row(server.name, "running", f"{server.url}  log {state.log(server.name)}")
    for page in aws.cloudformation.get_paginator("describe_stacks").paginate():
        for stack in page["Stacks"]:
            outputs = (o for o in stack.get("Outputs", []) if not o["OutputKey"].startswith("Exports"))
            shown = "  ".join(f"{output['OutputKey']}={output['OutputValue']}" for output in outputs)
            table.add_row(stack["StackName"], stack["StackStatus"], shown)
    owner = settings.load(LOCAL, state.environments).owner
    releases = deploy_progress.find_releases(aws, owner)
    found = deploy_progress.declared_release(releases) if releases else None
    told = f"{found.digest} {found.message}" if found else ""
    if found and found.warnings:
        told += f". Warning: {found.warnings}"
    table.add_row("release", found.state if found else "none", told)
    wide(console).print(table)
