"""The progress of a deployment: stacks in CloudFormation, the release in its table."""

import io
from typing import Any

import pytest

from distilled_router.release.table import Release, Releases
from local import deploy_progress
from local.progress import Board
from operate.cdk import Stack
from operate.console import Terminal

STACKS = [Stack("router-data", 2), Stack("router-release", 3)]


class Aws:
    """A double of CloudFormation and of the release table."""

    def __init__(self) -> None:
        self.stacks: dict[str, tuple[str, int]] = {}
        self.items: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, str]] = []
        self.table: str | None = None
        self.cloudformation = self
        self.dynamodb = self

    def get_paginator(self, operation: str) -> Any:
        pages: dict[str, Any] = {
            "describe_stacks": {
                "Stacks": [
                    {"StackName": name, "StackStatus": status, "CreationTime": stamp}
                    for name, (status, stamp) in self.stacks.items()
                ]
            },
            "list_stack_resources": {
                "StackResourceSummaries": [
                    {"ResourceStatus": "CREATE_COMPLETE", "ResourceType": "AWS::SNS::Topic"},
                    {"ResourceStatus": "CREATE_IN_PROGRESS", "ResourceType": "AWS::SQS::Queue"},
                    *self._tables(),
                ]
            },
        }
        return type("Pages", (), {"paginate": lambda _, **__: [pages[operation]]})()

    def _tables(self) -> list[dict[str, str]]:
        table = {"ResourceStatus": "CREATE_IN_PROGRESS", "ResourceType": "AWS::DynamoDB::Table"}
        return [{**table, "PhysicalResourceId": self.table}] if self.table else []

    def describe_stack_events(self, **_: str) -> dict[str, Any]:
        return {"StackEvents": self.events}

    def Table(self, _: str) -> Any:  # noqa: N802 - boto3's name
        items = self.items
        return type("Table", (), {"get_item": lambda _, Key, **__: {"Item": items.get(Key["id"])}})()  # noqa: N803 - as above


@pytest.fixture
def aws() -> Any:
    return Aws()


@pytest.fixture
def board() -> Board:
    return Board(Terminal(file=io.StringIO()))


def shown(board: Board) -> list[tuple[str, str, str]]:
    return [(row.title, row.phase, row.note) for row in board.rows]


def test_stack_shows_the_number_of_finished_resources(aws: Any, board: Board) -> None:
    rows = deploy_progress.Stacks(aws, STACKS, board)
    aws.stacks["router-data"] = ("CREATE_IN_PROGRESS", 1)
    rows.poll()
    assert shown(board)[0] == ("router-data", "running", "CREATE_IN_PROGRESS 1/2")
    aws.stacks["router-data"] = ("CREATE_COMPLETE", 1)
    rows.poll()
    assert shown(board)[0] == ("router-data", "done", "CREATE_COMPLETE")


def test_stack_that_ends_between_two_polls_is_done(aws: Any, board: Board) -> None:
    aws.stacks["router-data"] = ("CREATE_COMPLETE", 1)
    rows = deploy_progress.Stacks(aws, STACKS, board)
    rows.poll()
    assert shown(board)[0][1] == "waiting"
    aws.stacks["router-data"] = ("UPDATE_COMPLETE", 2)
    rows.poll()
    assert shown(board)[0] == ("router-data", "done", "UPDATE_COMPLETE")


def test_stack_without_changes_is_done(aws: Any, board: Board) -> None:
    aws.stacks = {stack.name: ("CREATE_COMPLETE", 1) for stack in STACKS}
    deploy_progress.Stacks(aws, STACKS, board).finish()
    assert [row[1:] for row in shown(board)] == [("done", "no change")] * 2


@pytest.mark.parametrize(
    ("status", "busy"),
    [
        ("CREATE_IN_PROGRESS", True),
        ("ROLLBACK_IN_PROGRESS", True),
        ("REVIEW_IN_PROGRESS", False),
        ("CREATE_COMPLETE", False),
    ],
)
def test_operation_of_an_interrupted_command_is_awaited(
    aws: Any, board: Board, status: str, *, busy: bool
) -> None:
    aws.stacks["router-release"] = (status, 1)
    assert deploy_progress.Stacks(aws, STACKS, board).busy() is busy


def test_other_stacks_are_not_awaited(aws: Any, board: Board) -> None:
    aws.stacks["CDKToolkit"] = ("CREATE_IN_PROGRESS", 1)
    assert not deploy_progress.Stacks(aws, STACKS, board).busy()


def test_first_failure_of_the_latest_operation_is_named(aws: Any) -> None:
    def event(resource: str, status: str, reason: str = "") -> dict[str, str]:
        return {
            "StackId": "id",
            "PhysicalResourceId": "id" if resource == "router-data" else resource,
            "LogicalResourceId": resource,
            "ResourceStatus": status,
            "ResourceStatusReason": reason,
        }

    aws.events = [  # newest first
        event("router-data", "ROLLBACK_IN_PROGRESS"),
        event("Topic", "CREATE_FAILED", "cancelled"),
        event("Dataset", "CREATE_FAILED", "Row 3 has no query.\n\n  at function"),
        event("router-data", "CREATE_IN_PROGRESS"),
        event("Bucket", "CREATE_FAILED", "of an earlier attempt"),
    ]
    assert deploy_progress.failed_resource(aws, STACKS) == "router-data: Dataset: Row 3 has no query."


DECLARED = {
    "id": "router/declared",
    "digest": "abc",
    "declared_by": [{"stack_id": "stack", "logical_id": "Release", "digest": "abc", "request_id": "r"}],
}


@pytest.mark.parametrize(
    ("state", "is_final"), [("rolling_out", False), ("live", True), ("failed", True), ("superseded", True)]
)
def test_declared_release_is_shown(aws: Any, state: str, *, is_final: bool) -> None:
    aws.items = {
        "router/declared": DECLARED,
        "router/release@abc": {"id": "router/release@abc", "state": state, "message": "25% of the requests"},
        "router/release@old": {"id": "router/release@old", "state": "live"},
    }
    found = deploy_progress.declared_release(Releases(aws.Table("table"), "router"))
    assert found == Release("abc", state, "25% of the requests")
    assert found.is_final is is_final
    assert deploy_progress.summary(found) == f"{state}, 25% of the requests"


def test_no_release_is_shown_before_one_is_declared(aws: Any) -> None:
    assert deploy_progress.declared_release(Releases(aws.Table("table"), "router")) is None


def test_row_of_the_release_waits_for_table_and_release(aws: Any, board: Board) -> None:
    row = deploy_progress.ReleaseRow(aws, "router", board)
    assert row.poll() is None
    aws.table = "router-releases"
    aws.items = {"router/declared": DECLARED}
    row.poll()
    assert shown(board) == [("release", "running", "abc declared")]
    aws.items["router/release@abc"] = {
        "id": "router/release@abc",
        "state": "live",
        "message": "serves all requests",
    }
    row.poll()
    assert shown(board) == [("release", "done", "abc live, serves all requests")]
