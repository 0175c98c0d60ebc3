"""Look at the local system as it is now."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from local import deploy_progress, environment, servers
from local.state import ENVIRONMENT, State
from operate.aws import Aws
from operate.errors import LocalError
from stacks import settings


def variables(state: State) -> dict[str, str]:
    """Return the variables that point AWS clients at the local system.

    Raises:
        LocalError: It does not run.
    """
    if servers.running(state) is None:
        raise LocalError("The local system does not run.", advice="Start it with `make local`.")
    return environment.read(state.env)


def show(state: State, console: Console) -> None:
    """Print servers, stacks and the release.

    Raises:
        LocalError: The local system does not run.
    """
    aws = Aws(variables(state))
    table = Table("what", "state", "where", box=None, pad_edge=False)
    for server in servers.recorded(state):
        table.add_row(server.name, "running", f"{server.url}  log {state.log(server.name)}")
    for page in aws.cloudformation.get_paginator("describe_stacks").paginate():
        for stack in page["Stacks"]:
            outputs = (o for o in stack.get("Outputs", []) if not o["OutputKey"].startswith("Exports"))
            shown = "  ".join(f"{output['OutputKey']}={output['OutputValue']}" for output in outputs)
            table.add_row(stack["StackName"], stack["StackStatus"], shown)
    name = deploy_progress.table_name(aws, f"{settings.load(ENVIRONMENT, state.environments).owner}-release")
    found = deploy_progress.release(aws, name) if name else None
    table.add_row(
        "release", found.state if found else "none", f"{found.digest} {found.note}" if found else ""
    )
    # Whole, so that names can be copied from a pipe; a terminal wraps the lines itself.
    wide = console if console.is_terminal else Console(width=10_000)
    wide.print(table, highlight=False)
