"""The state of the local system: servers, stacks and the release."""

from __future__ import annotations

from local import deploy_progress, servers
from local.state import State
from operate.aws import Aws
from operate.console import Terminal, say
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
    reached = variables(state)
    aws = Aws(reached["AWS_REGION"], reached)
    is_ours = state.settings.exists()
    shown_settings = (
        settings.shown(state.settings_source) if is_ours else "none, only the servers were started"
    )
    say(console, f"settings: {shown_settings}")
    for server in servers.recorded(state):
        say(console, f"{server.name}: running", f"    {server.url}", f"    log {state.log(server.name)}")
    for page in aws.cloudformation.get_paginator("describe_stacks").paginate():
        for stack in page["Stacks"]:
            outputs = (o for o in stack.get("Outputs", []) if not o["OutputKey"].startswith("Exports"))
            shown = (f"    {output['OutputKey']}={output['OutputValue']}" for output in outputs)
            say(console, f"{stack['StackName']}: {stack['StackStatus']}", *shown)
    if not is_ours:
        return
    owner = settings.load(state.settings_file).owner
    releases = deploy_progress.find_releases(aws, owner)
    found = deploy_progress.declared_release(releases) if releases else None
    if found is None:
        say(console, "release: none")
        return
    warning = [f"Warning: {found.warnings}"] if found.warnings not in found.message else []
    lines = [*found.message.split("\n"), *warning]
    say(console, f"release {found.digest}: {found.state}", *(f"    {line}" for line in lines))
    live = releases.route().live if releases else None
    if live and live.digest != found.digest:
        say(console, f"live release: {live.digest}")
