"""Bring the local system up and take it down: the ordinary CDK commands, aimed at the emulator."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from botocore.exceptions import ClientError
from rich.console import Console

from local import deploy_progress, environment, servers
from local.leftovers import leftovers
from local.progress import Board
from local.servers import Servers
from local.state import ENVIRONMENT, PROJECT, State
from operate import cdk, route
from operate.aws import Aws
from operate.errors import LocalError
from stacks import settings

POLL_SECONDS = 0.5
# From the end of the deployment; in Bedrock's time it is days, so a release that takes longer hangs.
RELEASE_SECONDS = 300.0

DOWN = "`make local-down` ends it; `make local-down FORCE=1` stops the servers whatever state they are in."


@contextlib.contextmanager
def locked(state: State) -> Iterator[None]:
    """Keep a second command away from this state folder.

    Raises:
        LocalError: Another command has it.
    """
    state.root.mkdir(parents=True, exist_ok=True)
    with state.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LocalError(f"Another command is working on {state.root}. Wait for it to end.") from error
        yield


def up(state: State, console: Console, query_file: Path) -> None:
    """Start what does not run, deploy, wait for the release and ask the sample queries.

    Raises:
        LocalError: A step failed; servers that had started are left running for a look.
    """
    asked = route.read(query_file)
    name = settings.load(ENVIRONMENT, state.environments).owner
    with locked(state), Board(console) as board:
        running = _servers_and_deployment(state, board, name)
        outputs = json.loads(state.outputs.read_text())
        row = board.add("sample queries", "running")
        router = route.local_router(state, outputs)
        answers = [(query, router.ask(query)) for query in asked]
        board.set(row, "done")
    console.print()
    console.print(route.table(answers))
    _say_how_to_go_on(state, console, running)


def _servers_and_deployment(state: State, board: Board, name: str) -> Servers:
    running = servers.running(state)
    if running is None:
        servers.stop(state)  # what a killed run has left
    state.prepare()
    start_row = board.add("servers", "running")
    synth_row = board.add("synth", "running")
    bootstrap_row = board.add("bootstrap")
    synthesis = cdk.synth(ENVIRONMENT, state.assembly, state.environments)
    with _cdk(synthesis, environment.without_access(), state, "synth") as synth:
        running = running or servers.start(state)
        board.set(start_row, "done", running.emulator.url)
        aws = Aws(running.variables(state))
        variables = environment.without_aws() | running.variables(state)
        if _has_toolkit(aws):
            board.set(bootstrap_row, "done", "already there")
        else:
            board.set(bootstrap_row, "running")
            # Away from cdk.json: bootstrap would synthesize the whole app first, and make nothing of it.
            with _cdk(cdk.bootstrap(), variables, state, "bootstrap", cwd=state.root) as bootstrap:
                _finish(bootstrap, state, "bootstrap", "cdk bootstrap failed.")
            board.set(bootstrap_row, "done")
        _finish(synth, state, "synth", "cdk synth failed: the stacks can't be built from their settings.")
        board.set(synth_row, "done")
    _deploy(state, board, aws, variables, name)
    return running


def _has_toolkit(aws: Aws) -> bool:
    try:
        aws.cloudformation.describe_stacks(StackName=cdk.TOOLKIT_STACK)
    except ClientError:
        return False
    return True


def _deploy(state: State, board: Board, aws: Aws, variables: Mapping[str, str], name: str) -> None:
    stacks = cdk.stacks(state.assembly)
    stack_rows = deploy_progress.Stacks(aws, stacks, board)
    release_row = deploy_progress.ReleaseRow(aws, f"{name}-release", board)

    def poll() -> None:
        stack_rows.poll()
        release_row.poll()

    _settle(stack_rows, poll)
    with _cdk(cdk.deploy(state.assembly, state.outputs), variables, state, "deploy") as process:
        try:
            _finish(process, state, "deploy", "cdk deploy failed.", poll)
        except LocalError as error:
            reason = deploy_progress.failed_resource(aws, stacks)
            message = f"cdk deploy failed. {reason}" if reason else str(error)
            raise LocalError(
                message, log=error.log, advice=f"The servers still run, for a look. {DOWN}"
            ) from error
    stack_rows.finish()
    _wait_for_release(state, release_row)


def _settle(rows: deploy_progress.Stacks, poll: Callable[[], None]) -> None:
    """Let CloudFormation finish what an interrupted command began: the CDK takes the stack for deployed."""
    deadline = time.monotonic() + RELEASE_SECONDS
    while rows.busy():
        if time.monotonic() > deadline:
            raise LocalError(
                f"CloudFormation has been busy with the stacks for {RELEASE_SECONDS:.0f} s.", advice=DOWN
            )
        poll()
        time.sleep(POLL_SECONDS)


def _wait_for_release(state: State, row: deploy_progress.ReleaseRow) -> None:
    deadline = time.monotonic() + RELEASE_SECONDS
    found = row.poll()
    while not (found and found.over):
        if time.monotonic() > deadline:
            where = f"it is {found.state} ({found.note})" if found else "nothing has declared it"
            raise LocalError(
                f"The release did not end in {RELEASE_SECONDS:.0f} s: {where}.",
                log=state.log("emulator"),
                advice=f"The servers still run, for a look. {DOWN}",
            )
        time.sleep(POLL_SECONDS)
        found = row.poll()
    if found.state != deploy_progress.LIVE:
        raise LocalError(
            f"The release {found.digest} is {found.state}: {found.note or 'no reason was given'}.",
            log=state.log("emulator"),
            advice=f"The router goes on with what served before; the servers still run, for a look. {DOWN}",
        )


def down(state: State, console: Console, *, force: bool = False) -> None:
    """Destroy the stacks, stop the servers, and look at what is left in Bedrock.

    Args:
        force: Stop the servers without destroying anything first.

    Raises:
        LocalError: The stacks could not be destroyed (the servers run on), or something was left behind.
    """
    with locked(state):
        running = servers.running(state)
        if running is None or force or not state.assembly.exists():
            stopped = servers.stop(state)
            said = f"Stopped {', '.join(stopped)}." if stopped else "Nothing was running."
            console.print(said, highlight=False)
            return
        with Board(console) as board:
            _destroy(state, board, running)
        keep = settings.load(ENVIRONMENT, state.environments).retention.models == "retain"
        left = leftovers(Aws(running.variables(state)).bedrock, keep_models=keep)
        servers.stop(state)
    if left:
        raise LocalError(f"Left behind in Bedrock, where it would go on costing money: {', '.join(left)}.")
    console.print(
        "Everything is deleted, nothing is left in Bedrock, the servers are stopped.", highlight=False
    )


def _destroy(state: State, board: Board, running: Servers) -> None:
    aws = Aws(running.variables(state))
    stacks = cdk.stacks(state.assembly)[::-1]
    rows = deploy_progress.Stacks(aws, stacks, board, deleting=True)
    variables = environment.without_aws() | running.variables(state)
    _settle(rows, rows.poll)
    with _cdk(cdk.destroy(state.assembly), variables, state, "destroy") as process:
        try:
            _finish(process, state, "destroy", "cdk destroy failed.", rows.poll)
        except LocalError as error:
            reason = deploy_progress.failed_resource(aws, stacks)
            message = f"cdk destroy failed. {reason}" if reason else str(error)
            raise LocalError(
                message, log=error.log, advice=f"The servers still run, for a look. {DOWN}"
            ) from error
    rows.finish()


def synth(name: str, output: Path) -> None:
    """Write the cloud assembly of an environment, with no AWS access and no credentials.

    Raises:
        LocalError: The CDK refused.
    """
    process = cdk.start(cdk.synth(name, output), environment.without_access(), None)
    if process.wait():
        raise LocalError(f"cdk synth failed for the environment {name}.")


def in_account(name: str, arguments: list[str]) -> int:
    """Run the CDK for an environment in AWS with the caller's own credentials; its exit status.

    Raises:
        LocalError: The environment is the local one, which has commands of its own.
    """
    if name == ENVIRONMENT:
        raise LocalError(
            f"{name} is the environment of this machine's emulator.",
            advice="For it there are `make local` and `make local-down`; name one in AWS, e.g. ENV=dev.",
        )
    chosen = settings.load(name)
    if arguments == ["bootstrap"]:
        # Away from cdk.json: it would synthesize the whole app first, and make nothing of it.
        return cdk.run(["bootstrap", f"aws://{chosen.account}/{chosen.region}"], cdk.ENVIRONMENTS)
    return cdk.run([*arguments, "-c", f"environment={name}"])


@contextlib.contextmanager
def _cdk(
    arguments: list[str], variables: Mapping[str, str], state: State, log: str, cwd: Path = PROJECT
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the CDK; it does not outlive the block, whatever ends it."""
    process = cdk.start(arguments, variables, state.log(log), cwd)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _finish(
    process: subprocess.Popen[bytes],
    state: State,
    log: str,
    failure: str,
    poll: Callable[[], None] = lambda: None,
) -> None:
    while process.poll() is None:
        poll()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
    if process.returncode:
        raise LocalError(failure, log=state.log(log))


def _say_how_to_go_on(state: State, console: Console, running: Servers) -> None:
    prefix = f"LOCAL_DIR={os.environ['LOCAL_DIR']} " if os.environ.get("LOCAL_DIR") else ""
    shown = state.root.relative_to(PROJECT) if state.root.is_relative_to(PROJECT) else state.root
    lines = (
        f"The local system runs: AWS at {running.emulator.url}, Bedrock at {running.bedrock.url}.",
        f'Query it:    {prefix}make route QUERY="red car driving at night"',
        f"Look at it:  {prefix}make local-status",
        f"             or with any AWS client, after: set -a; . {shown}/env; set +a",
        f"Stop it:     {prefix}make local-down",
    )
    console.print()
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
