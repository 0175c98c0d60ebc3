"""Start and stop the local system: the ordinary CDK commands, run against the emulator."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from distilled_router.release.table import LIVE
from local import adaptation, cdk_process, deploy_progress, environment, sample_queries, servers
from local.leftovers import leftovers
from local.progress import Board
from local.servers import Servers
from local.state import State
from operate import cdk, route
from operate.aws import Aws
from operate.console import Terminal, say
from operate.environment import LOCAL, Environment, without_access
from operate.errors import OperateError
from stacks import preflight, settings
from stacks.settings import PROJECT, Settings, locate, shown

# From the end of the deployment. These are days of the stand-in's clock: a release that takes longer hangs.
RELEASE_SECONDS = 900.0

DOWN = "The servers still run. `make local-down` destroys the stacks and stops them; FORCE=1 only stops them."


@contextlib.contextmanager
def locked(state: State) -> Iterator[None]:
    """Hold the lock of a state folder, so that only one command changes it.

    Raises:
        OperateError: Another command holds it, or other users can write to the folder.
    """
    state.prepare()
    with state.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OperateError(f"Another command is using {state.root}. Wait until it has ended.") from error
        yield


def up(state: State, console: Terminal, asked: str, data: Path | None, query_file: Path | None) -> None:
    """Start the servers that don't run, deploy, wait for the release and ask some queries.

    Args:
        state: The folder of the local system.
        console: Where progress and answers are printed.
        asked: The environment; `local` is the one that runs, or that of environments/local.toml.
        data: As in `local.adaptation.adapt`.
        query_file: The queries. Default: those of the environment.

    Raises:
        OperateError: A step failed. Servers that had started still run.
    """
    with locked(state):
        running = servers.running(state)
        adapted = adaptation.adapt(environment_of(state, asked, running), data)
        if running is None:
            servers.stop(state)  # what a killed run has left
        file = state.write_settings(adapted.source, adapted.text)
        # Messages name the file that a person can change.
        chosen = settings.load(file).of_file(shown(adapted.source))
        if running:
            running.check_region(chosen.region)
        say(console, *(adapted.lines() or [f"Settings: {shown(adapted.source)}", ""]))
        preflight.enforce(chosen)
        queries = sample_queries.read(chosen, query_file)
        with Board(console) as board:
            at = _servers_and_deployment(state, board, chosen, running)
            row = board.add("sample queries", "running")
            router = route.router(at)
            answers = [(query, router.ask(query)) for query in queries]
            board.set(row, "done")
    console.print()
    console.print(route.table(answers))
    say(console, "", *_next_steps(state, at, queries[0] if queries else "red car driving at night"))


def environment_of(state: State, asked: str, running: Servers | None) -> str | Path:
    """Return the environment to deploy.

    Raises:
        OperateError: The local system runs another one.
    """
    runs = state.settings_source if running and state.settings.exists() else None
    if asked != LOCAL:
        settings.load(asked)  # before anybody stops what runs for it
    if runs and asked != LOCAL and locate(asked).resolve() != runs:
        raise OperateError(
            f"The local system runs {shown(runs)}, and only one environment at a time.",
            advice=f"Run `make local-down`, and then `make local ENV={shlex.quote(asked)}`.",
        )
    return runs or asked


def _servers_and_deployment(
    state: State, board: Board, chosen: Settings, running: Servers | None
) -> Environment:
    """Start servers, synthesize and bootstrap side by side, then deploy; return how the system is reached."""
    state.prepare()
    start_row = board.add("servers", "running")
    synth_row = board.add("synth", "running")
    bootstrap_row = board.add("bootstrap")
    synthesis = cdk.synth(state.settings_file, state.assembly)
    with cdk_process.running(synthesis, without_access(), state, "synth") as synth:
        running = running or servers.start(state, chosen.region)
        board.set(start_row, "done", running.emulator.url)
        at = Environment(LOCAL, chosen, running.variables(state))
        # Servers of an older checkout have written other variables.
        environment.write(at.variables, state.env)
        cdk_process.bootstrap(state, board, bootstrap_row, at.variables, chosen.bootstrap_qualifier)
        cdk_process.finish(
            synth, state, "synth", "cdk synth failed: the stacks can't be built from their settings."
        )
        board.set(synth_row, "done")
    _deploy(state, board, at)
    return at


def _deploy(state: State, board: Board, at: Environment) -> None:
    """Deploy all stacks and wait until the release is live."""
    stacks = cdk.stacks(state.assembly)
    stack_rows = deploy_progress.Stacks(at.aws, stacks, board)
    release_row = deploy_progress.ReleaseRow(at.aws, at.settings.owner, board)

    def poll() -> None:
        stack_rows.poll()
        release_row.poll()

    _settle(stack_rows, poll)
    with cdk_process.running(
        cdk.deploy(state.assembly, state.outputs), cdk_process.reaching(at.variables), state, "deploy"
    ) as process:
        _finish_stacks(process, state, "deploy", at.aws, stacks, poll)
    stack_rows.finish()
    wait_for_release(state, release_row)


def _settle(rows: deploy_progress.Stacks, poll: Callable[[], None]) -> None:
    """Wait until CloudFormation has finished what an interrupted command began.

    The CDK would take such a stack for deployed.
    """
    deadline = time.monotonic() + RELEASE_SECONDS
    while rows.busy():
        if time.monotonic() > deadline:
            raise OperateError(
                f"CloudFormation has been busy with the stacks for {RELEASE_SECONDS:.0f} s.", advice=DOWN
            )
        poll()
        time.sleep(cdk_process.POLL_SECONDS)


def wait_for_release(state: State, row: deploy_progress.ReleaseRow) -> None:
    """Wait until the declared release is live.

    Raises:
        OperateError: It ended otherwise, or not in time.
    """
    deadline = time.monotonic() + RELEASE_SECONDS
    found = row.poll()
    while not (found and found.is_over):
        if time.monotonic() > deadline:
            where = f"it is {found.state} ({found.headline})" if found else "none was declared"
            raise OperateError(
                f"The release did not end in {RELEASE_SECONDS:.0f} s: {where}.",
                log=state.log("emulator"),
                advice=DOWN,
            )
        time.sleep(cdk_process.POLL_SECONDS)
        found = row.poll()
    if found.rolled_back:
        return  # an operator's decision, which a deployment of the same settings does not change
    if found.state != LIVE or not found.has_passed:
        raise OperateError(
            f"Release {found.digest}, {found.state}: {found.message or 'no reason was given'}",
            log=state.log("emulator"),
            advice=f"The router continues with the live release or the base model. {DOWN}",
        )


def down(state: State, console: Terminal, *, force: bool = False) -> None:
    """Destroy the stacks, stop the servers, and check that nothing is left in Bedrock.

    Args:
        force: Only stop the servers.

    Raises:
        OperateError: The stacks could not be destroyed and the servers still run, or resources were left.
    """
    with locked(state):
        running = servers.running(state)
        if running is None or force or not cdk.is_assembly(state.assembly):
            stopped = servers.stop(state)
            say(console, f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running.")
            return
        at = Environment(LOCAL, settings.load(state.settings_file), running.variables(state))
        with Board(console) as board:
            _destroy(state, board, at)
            check_row = board.add("look for leftovers in Bedrock", "running")
            left = leftovers(at.aws.bedrock, keep_models=at.settings.retention.models == "retain")
            board.set(check_row, "failed" if left else "done")
            servers_row = board.add("stop the servers", "running")
            servers.stop(state)
            board.set(servers_row, "done")
    if left:
        raise OperateError(f"Left in Bedrock, where it would cost money: {', '.join(left)}.")
    say(console, "Everything is deleted, nothing is left in Bedrock, the servers are stopped.")


def _destroy(state: State, board: Board, at: Environment) -> None:
    """Destroy all stacks."""
    stacks = cdk.stacks(state.assembly)[::-1]
    rows = deploy_progress.Stacks(at.aws, stacks, board, deleting=True)
    _settle(rows, rows.poll)
    with cdk_process.running(
        cdk.destroy(state.assembly), cdk_process.reaching(at.variables), state, "destroy"
    ) as process:
        _finish_stacks(process, state, "destroy", at.aws, stacks, rows.poll)
    rows.finish()


def _finish_stacks(
    process: subprocess.Popen[bytes],
    state: State,
    command: str,
    aws: Aws,
    stacks: Sequence[cdk.Stack],
    poll: Callable[[], None],
) -> None:
    """Wait for a CDK command on stacks; if it fails, name the resource that failed first."""
    try:
        cdk_process.finish(process, state, command, f"cdk {command} failed.", poll)
    except OperateError as error:
        reason = deploy_progress.failed_resource(aws, stacks)
        message = f"{error} {reason}" if reason else str(error)
        raise OperateError(message, log=error.log, advice=DOWN) from error


def _next_steps(state: State, at: Environment, query: str) -> list[str]:
    """Return what to do with the running system."""
    prefix = f"LOCAL_DIR={os.environ['LOCAL_DIR']} " if os.environ.get("LOCAL_DIR") else ""
    shown = state.root.relative_to(PROJECT) if state.root.is_relative_to(PROJECT) else state.root
    bedrock = at.variables["AWS_ENDPOINT_URL_BEDROCK"]
    return [
        f"The local system runs: AWS at {at.variables['AWS_ENDPOINT_URL']}, Bedrock at {bedrock}.",
        f"Query it:    {prefix}make route QUERY={shlex.quote(query)}",
        f"Its report:  {prefix}make report",
        f"Inspect it:  {prefix}make local-status",
        f"             or with any AWS client, after: set -a; . {shown}/env; set +a",
        f"Stop it:     {prefix}make local-down",
    ]
