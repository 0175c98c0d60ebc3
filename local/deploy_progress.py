"""Follow a deployment: the stacks in CloudFormation, and the release in its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local.progress import Board, Phase, Row
from operate.aws import Aws
from operate.cdk import Stack

LIVE = "live"
# How a release can end other than live.
ENDED = frozenset({"failed", "refused", "superseded", "retired"})


class Stacks:
    """The rows of the stacks, brought up to date by `poll`."""

    def __init__(self, aws: Aws, stacks: Sequence[Stack], board: Board, *, deleting: bool = False) -> None:
        self._aws = aws
        self._board = board
        self._deleting = deleting
        self._rows = {stack.name: (stack, board.add(stack.name)) for stack in stacks}
        self._before = self._look()

    def poll(self) -> None:
        """Look at every stack once."""
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
        """Tell whether CloudFormation is at work on one of them, which an interrupted command doesn't end.

        A stack under review has only a change set that was never executed: nothing will happen to it.
        """
        statuses = [status for name, (status, _) in self._look().items() if name in self._rows]
        return any(s.endswith("_IN_PROGRESS") and s != "REVIEW_IN_PROGRESS" for s in statuses)

    def finish(self) -> None:
        """Take what the CDK left alone as done."""
        self.poll()
        for _, row in self._rows.values():
            if row.phase in ("waiting", "running"):
                self._board.set(row, "done", "deleted" if self._deleting else "no change")

    def _look(self) -> dict[str, tuple[str, str]]:
        """Return status and time of the latest change, by stack."""
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
    """Return the resource that failed first in the latest operation on these stacks, and why."""
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
                # A function's own stack trace follows after the first line.
                reason = event.get("ResourceStatusReason", "no reason given").splitlines()[0]
                found = f"{stack.name}: {event.get('LogicalResourceId')}: {reason}"
        if found:
            return found
    return None


@dataclass(frozen=True)
class Release:
    """The release that the deployed stacks ask for, as its table shows it."""

    digest: str
    state: str
    note: str

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state == LIVE or self.state in ENDED


def table_name(aws: Aws, stack: str) -> str | None:
    """Return the releases table as soon as it exists, which is before the stack has outputs."""
    try:
        resources = aws.cloudformation.list_stack_resources(StackName=stack)["StackResourceSummaries"]
    except (BotoCoreError, ClientError):
        return None
    tables = (item for item in resources if item["ResourceType"] == "AWS::DynamoDB::Table")
    return next((item.get("PhysicalResourceId") for item in tables), None)


def release(aws: Aws, table: str) -> Release | None:
    """Return the declared release; None while there is none."""
    try:
        rows: Any = aws.dynamodb.Table(table)
        declared = rows.get_item(Key={"id": "declared"}, ConsistentRead=True).get("Item")
        if not declared or not declared.get("digest"):
            return None
        digest = str(declared["digest"])
        item = rows.get_item(Key={"id": f"release@{digest}"}, ConsistentRead=True).get("Item") or {}
    except (BotoCoreError, ClientError):
        return None
    words = [str(item[key]) for key in ("stage", "message") if item.get(key)]
    return Release(digest, str(item.get("state", "declared")), ", ".join(words))


class ReleaseRow:
    """The row of the release."""

    def __init__(self, aws: Aws, stack: str, board: Board) -> None:
        self._aws = aws
        self._stack = stack
        self._board = board
        self._row: Row = board.add("release")
        self._table: str | None = None

    def poll(self) -> Release | None:
        """Look at the release once."""
        self._table = self._table or table_name(self._aws, self._stack)
        found = release(self._aws, self._table) if self._table else None
        if found:
            phase: Phase = "done" if found.state == LIVE else "failed" if found.over else "running"
            note = f"{found.state}, {found.note}" if found.note else found.state
            self._board.set(self._row, phase, f"{found.digest} {note}")
        return found
