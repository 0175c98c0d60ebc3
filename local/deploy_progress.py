"""Progress of a deployment: the stacks in CloudFormation, and the release in its table."""

from __future__ import annotations

from collections.abc import Sequence

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.release.table import LIVE, Release, Releases
from local.progress import Board, Phase, Row
from operate.aws import Aws
from operate.cdk import Stack
from operate.deployed import table_name


class Stacks:
    """The rows of the stacks, updated by `poll`."""

    def __init__(self, aws: Aws, stacks: Sequence[Stack], board: Board, *, deleting: bool = False) -> None:
        self._aws = aws
        self._board = board
        self._deleting = deleting
        self._rows = {stack.name: (stack, board.add(stack.name)) for stack in stacks}
        self._before = self._look()

    def poll(self) -> None:
        """Update every row once."""
        now = self._look()
        for name, (stack, row) in self._rows.items():
            if name not in now:
                if self._deleting and name in self._before:
                    self._board.set(row, "done", "deleted")
                continue
            status, _ = now[name]
            if status.endswith("_IN_PROGRESS"):
                self._board.set(row, "running", f"{status} {self._finished(name)}/{stack.resources}")
            elif now[name] != self._before.get(name):
                ended: Phase = "failed" if "FAILED" in status or "ROLLBACK" in status else "done"
                self._board.set(row, ended, status)

    def busy(self) -> bool:
        """Tell whether CloudFormation is still working on one of the stacks, after an interrupted command.

        A stack under review has only a change set that was never executed.
        """
        statuses = [status for name, (status, _) in self._look().items() if name in self._rows]
        return any(s.endswith("_IN_PROGRESS") and s != "REVIEW_IN_PROGRESS" for s in statuses)

    def finish(self) -> None:
        """Mark the stacks that the CDK did not change as done."""
        self.poll()
        for _, row in self._rows.values():
            if row.phase in ("waiting", "running"):
                self._board.set(row, "done", "deleted" if self._deleting else "no change")

    def _look(self) -> dict[str, tuple[str, str]]:
        """Return the status and the time of the last change, by stack."""
        try:
            pages = self._aws.cloudformation.get_paginator("describe_stacks").paginate()
            return {
                stack["StackName"]: (
                    stack["StackStatus"],
                    str(stack.get("LastUpdatedTime") or stack["CreationTime"]),
                )
                for page in pages
                for stack in page["Stacks"]
            }
        except (BotoCoreError, ClientError):
            return {}

    def _finished(self, name: str) -> int:
        try:
            pages = self._aws.cloudformation.get_paginator("list_stack_resources").paginate(StackName=name)
            states = [item["ResourceStatus"] for page in pages for item in page["StackResourceSummaries"]]
        except (BotoCoreError, ClientError):
            return 0
        wanted = ("DELETE_COMPLETE",) if self._deleting else ("CREATE_COMPLETE", "UPDATE_COMPLETE")
        return sum(state in wanted for state in states)


def failed_resource(aws: Aws, stacks: Sequence[Stack]) -> str | None:
    """Return the resource that failed first in the last operation on these stacks, and why."""
    for stack in stacks:
        try:
            events = aws.cloudformation.describe_stack_events(StackName=stack.name)["StackEvents"]
        except (BotoCoreError, ClientError):
            continue
        found = None
        for event in events:  # newest first
            status = event.get("ResourceStatus", "")
            whole = event.get("PhysicalResourceId") == event["StackId"]
            if whole and status in ("CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "DELETE_IN_PROGRESS"):
                break
            if status.endswith("_FAILED") and not whole:
                # A function's stack trace follows after the first line.
                reason = event.get("ResourceStatusReason", "no reason given").splitlines()[0]
                found = f"{stack.name}: {event.get('LogicalResourceId')}: {reason}"
        if found:
            return found
    return None


def find_releases(aws: Aws, owner: str) -> Releases | None:
    """Return the releases of an owner; None until it exists, or if AWS can't be asked."""
    try:
        table = table_name(aws, f"{owner}-release")
    except (BotoCoreError, ClientError):
        return None
    return Releases(aws.dynamodb.Table(table), owner) if table else None


def declared_release(releases: Releases) -> Release | None:
    """Return the release that the deployed stack declares; None until then, or if AWS can't be asked."""
    try:
        digest = releases.declared()
        if digest is None:
            return None
        return releases.get(digest) or Release(digest, state="declared")
    except (BotoCoreError, ClientError):
        return None


def summary(release: Release) -> str:
    """Return the state of a release, and the first line of its message if it has one."""
    return f"{release.state}, {release.headline}" if release.message else release.state


class ReleaseRow:
    """The row of the release."""

    def __init__(self, aws: Aws, owner: str, board: Board) -> None:
        self._aws = aws
        self._owner = owner
        self._board = board
        self._row: Row = board.add("release")
        self._releases: Releases | None = None

    def poll(self) -> Release | None:
        """Update the row once; return the declared release."""
        self._releases = self._releases or find_releases(self._aws, self._owner)
        found = declared_release(self._releases) if self._releases else None
        if found:
            is_good = (found.state == LIVE and found.has_passed) or bool(found.rolled_back)
            phase: Phase = "running" if not found.is_over else "done" if is_good else "failed"
            self._board.set(self._row, phase, f"{found.digest} {summary(found)}")
        return found
