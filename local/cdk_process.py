"""The CDK's commands, run against the local system, with their output in a log."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from botocore.exceptions import ClientError

from local.progress import Board, Row
from local.state import ACCOUNT, State
from operate import cdk
from operate.aws import Aws
from operate.environment import without_aws
from operate.errors import OperateError
from stacks.settings import DEFAULT_QUALIFIER, PROJECT

POLL_SECONDS = 0.5


@contextlib.contextmanager
def running(
    arguments: list[str], variables: Mapping[str, str], state: State, log: str, cwd: Path = PROJECT
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the CDK during a block, and terminate it at the block's end if it still runs."""
    process = cdk.start(arguments, variables, state.log(log), cwd)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def finish(
    process: subprocess.Popen[bytes],
    state: State,
    log: str,
    failure: str,
    poll: Callable[[], None] = lambda: None,
) -> None:
    """Wait for a CDK command, polling progress meanwhile.

    Raises:
        OperateError: The command failed; the text is `failure`.
    """
    while process.poll() is None:
        poll()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
    if process.returncode:
        raise OperateError(failure, log=state.log(log))


def reaching(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process that reaches the local system and nothing else."""
    return without_aws() | dict(variables)


def bootstrap(
    state: State, board: Board, row: Row, variables: Mapping[str, str], qualifier: str = DEFAULT_QUALIFIER
) -> None:
    """Bootstrap the local system's account, unless it was done before.

    Raises:
        OperateError: The command failed.
    """
    region = variables["AWS_REGION"]
    if _has_toolkit(Aws(region, variables), qualifier):
        board.set(row, "done", "already there")
        return
    board.set(row, "running")
    arguments = cdk.bootstrap(ACCOUNT, region, qualifier)
    # Away from cdk.json: with it, bootstrap would synthesize the whole application first.
    with running(arguments, reaching(variables), state, "bootstrap", cwd=state.root) as process:
        finish(process, state, "bootstrap", "cdk bootstrap failed.")
    board.set(row, "done")


def _has_toolkit(aws: Aws, qualifier: str) -> bool:
    try:
        aws.cloudformation.describe_stacks(StackName=cdk.toolkit_stack(qualifier))
    except ClientError:
        return False
    return True
