"""The newest request of a resource is the only one that may create anything."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import pytest
from botocore.exceptions import ClientError

from distilled_router.aws.custom_resource import Event, answer, answer_event, answer_poll, complete, pending
from distilled_router.aws.errors import ResourceError
from distilled_router.aws.fence import Fence, SupersededError, checked_before_each_try
from distilled_router.release.table import Releases
from tests.unit import framework
from tests.unit.requests_table import RequestsTable, register
from tests.unit.resource_scenes import World

CREATE = framework.create({})
ROLLBACK = framework.update("job", {}, {})
DELETE = framework.delete("job", {})


def done(event: Event) -> dict[str, bool]:
    """Complete the request."""
    del event
    return complete()


@pytest.fixture
def requests() -> RequestsTable:
    return RequestsTable()


def test_newest_request_may_create(requests: RequestsTable) -> None:
    register(requests, CREATE)
    requests.event(CREATE).check_newest()


def test_request_delivered_twice_stays_the_newest(requests: RequestsTable) -> None:
    """Case B1."""
    register(requests, CREATE)
    register(requests, CREATE)
    assert answer_poll(requests.event(CREATE), done) == complete()


def test_poll_of_a_superseded_request_ends_before_any_work(requests: RequestsTable) -> None:
    """The Provider's state machine keeps polling for a request that CloudFormation has abandoned."""
    register(requests, CREATE)
    register(requests, ROLLBACK)
    worked = list[str]()

    def work(_: Event) -> dict[str, bool]:
        worked.append("created")
        return complete()

    with pytest.raises(
        ResourceError, match=rf"{CREATE['RequestId']}.*superseded by request {ROLLBACK['RequestId']}"
    ):
        answer_poll(requests.event(CREATE), work)
    assert worked == []
    assert answer_poll(requests.event(ROLLBACK), work) == complete()


def test_request_superseded_during_its_work_is_told_so(requests: RequestsTable) -> None:
    register(requests, CREATE)
    event = requests.event(CREATE)
    event.check_newest()
    register(requests, ROLLBACK)
    with pytest.raises(SupersededError):
        event.check_newest()


def test_superseded_event_that_is_delivered_again_does_nothing(requests: RequestsTable) -> None:
    """Lambda may deliver an event again for hours."""
    register(requests, CREATE)
    register(requests, ROLLBACK)
    with pytest.raises(ResourceError, match="superseded"):
        answer_event(requests.event(CREATE), done)
    requests.event(ROLLBACK).check_newest()


def test_create_that_arrives_during_the_delete_buys_nothing(requests: RequestsTable) -> None:
    """Lambda delivers a throttled event again, for up to six hours."""
    register(requests, DELETE)
    with pytest.raises(ResourceError, match=rf"{CREATE['RequestId']}.*superseded.*{DELETE['RequestId']}"):
        register(requests, CREATE)
    assert answer_poll(requests.event(DELETE), done) == complete()


def test_resource_can_be_created_again_after_its_delete(requests: RequestsTable) -> None:
    register(requests, DELETE)
    assert answer_poll(requests.event(DELETE), done) == complete()
    register(requests, CREATE)
    requests.event(CREATE).check_newest()


def test_resource_can_be_created_again_after_a_delete_that_failed(requests: RequestsTable) -> None:
    def refused(_: Event) -> dict[str, bool]:
        raise ResourceError("in use")

    register(requests, DELETE)
    with pytest.raises(ResourceError, match="in use"):
        answer_poll(requests.event(DELETE), refused)
    register(requests, CREATE)
    requests.event(CREATE).check_newest()


def test_delete_that_the_framework_gave_up_holds_nothing_for_longer(requests: RequestsTable) -> None:
    """A function that crashes in each poll can't store that its Delete has ended."""
    clock = [1000.0]
    requests.now, requests.wait_seconds = lambda: clock[0], 2400
    register(requests, DELETE)
    clock[0] += 2401
    register(requests, CREATE)
    register(requests, ROLLBACK)
    requests.event(ROLLBACK).check_newest()


def test_second_delete_supersedes_the_first_and_still_holds(requests: RequestsTable) -> None:
    again = framework.delete("job", {})
    register(requests, DELETE)
    register(requests, again)
    with pytest.raises(ResourceError, match="superseded"):
        answer_poll(requests.event(DELETE), done)
    with pytest.raises(ResourceError, match="superseded"):
        register(requests, CREATE)


def test_other_resources_do_not_supersede(requests: RequestsTable) -> None:
    other = {**framework.create({}), "LogicalResourceId": "Other"}
    recreated = {**framework.create({}), "StackId": f"{framework.STACK}-2"}
    for event in (CREATE, other, recreated):
        register(requests, event)
    for event in (CREATE, other, recreated):
        requests.event(event).check_newest()


def test_missing_table_means_that_the_stack_is_gone(
    requests: RequestsTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(**_: object) -> None:
        raise ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "gone"}}, "GetItem")

    register(requests, CREATE)
    monkeypatch.setattr(requests, "get_item", gone)
    with pytest.raises(SupersededError, match="the stack's deletion"):
        requests.event(CREATE).check_newest()


def test_throttled_table_is_asked_again_at_the_next_poll(
    requests: RequestsTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case C1."""

    def throttled(**_: object) -> None:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "GetItem")

    register(requests, CREATE)
    monkeypatch.setattr(requests, "get_item", throttled)
    found = answer_poll(requests.event(CREATE), done)
    assert (found["IsComplete"], "slow down" in found["Reason"]) == (False, True)


def test_event_without_a_table_is_never_superseded() -> None:
    Event.parse(CREATE).check_newest()


def test_newer_request_between_two_tries_of_a_call_ends_the_call(
    world: World, requests: RequestsTable
) -> None:
    """The client repeats a throttled call by itself."""
    register(requests, CREATE)
    event = requests.event(CREATE)
    world.server.fault("throttled", operation="ListCustomModels", count=2)
    bedrock = world.server.client("bedrock", attempts=5)
    tries = 0

    def check() -> None:
        nonlocal tries
        tries += 1
        if tries == 2:
            register(requests, ROLLBACK)
        event.check_newest()

    with pytest.raises(SupersededError), checked_before_each_try(bedrock, "ListCustomModels", check):
        bedrock.list_custom_models()
    assert (tries, len(world.server.calls("ListCustomModels"))) == (2, 1)
    # Other calls, and later ones, are not checked.
    bedrock.list_custom_models()
    assert tries == 2


def test_wait_that_does_not_end_reports_its_last_reason(requests: RequestsTable) -> None:
    """The framework would only report "Operation timed out"."""
    clock = [1000.0]
    requests.now, requests.wait_seconds = lambda: clock[0], 2400
    register(requests, CREATE)
    clock[0] += 2330
    assert not answer_poll(requests.event(CREATE), lambda _: pending("Job x is Stopping."))["IsComplete"]
    clock[0] += 20
    with pytest.raises(ResourceError, match=r"not complete after 39 minutes\. Job x is Stopping\."):
        answer_poll(requests.event(CREATE), lambda _: pending("Job x is Stopping."))
    # A redelivered event does not start the time again, a new request does.
    register(requests, CREATE)
    assert answer_poll(requests.event(CREATE), done) == complete()
    register(requests, ROLLBACK)
    assert not answer_poll(requests.event(ROLLBACK), lambda _: pending("Wait."))["IsComplete"]


def test_wait_for_a_call_that_keeps_failing_reports_the_error(requests: RequestsTable) -> None:
    clock = [1000.0]
    requests.now, requests.wait_seconds = lambda: clock[0], 2400
    register(requests, CREATE)
    clock[0] += 2350

    def throttled(_: Event) -> dict[str, bool]:
        raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow down"}}, "GetJob")

    with pytest.raises(ResourceError, match="slow down"):
        answer_poll(requests.event(CREATE), throttled)


@pytest.mark.parametrize(
    "damaged",
    [
        {"requests": "text", "since": 1},
        {"requests": None, "since": None},
        {"requests": {"a": "b"}, "since": "text"},
        {"requests": 7, "since": [1]},
        {"requests": [], "since": -7},
        {"since": True},
        {"requests": "text", "since": "text", "deleting": [1]},
    ],
    ids=str,
)
def test_next_request_replaces_an_item_that_a_person_damaged(
    releases: Releases, damaged: dict[str, Any]
) -> None:
    """A real table, since its conditions decide."""
    fence, later = (
        Fence(releases.table, "stack", "Logical", name, is_delete=False) for name in ("first", "second")
    )
    fence.register()
    releases.table.put_item(Item={"id": "stack Logical", **damaged})
    with pytest.raises(SupersededError):
        fence.check()
    later.register()
    assert later.check() < 60
    with pytest.raises(SupersededError):
        fence.check()


@pytest.mark.parametrize("since", ["text", None, -7, 10**12, [1], Decimal("1E+37")])
def test_damaged_time_of_a_request_does_not_end_it(releases: Releases, since: Any) -> None:
    fence = Fence(releases.table, "stack", "Logical", "first", is_delete=False)
    fence.register()
    releases.table.put_item(Item={"id": "stack Logical", "requests": ["first"], "since": since})
    assert fence.check() == 0


@pytest.mark.parametrize(("event", "ends"), [(CREATE, False), (ROLLBACK, True)])
def test_answer_that_can_not_be_stored_ends_no_create(
    requests: RequestsTable, monkeypatch: pytest.MonkeyPatch, event: Mapping[str, Any], ends: bool
) -> None:
    """The framework swallows the Delete of a Create that raised in onEvent."""
    update_item = requests.update_item

    def throttled(**request: Any) -> None:
        if "SET #open" in request["UpdateExpression"]:
            raise ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow"}}, "UpdateItem")
        update_item(**request)

    monkeypatch.setattr(requests, "update_item", throttled)
    with pytest.raises(ResourceError, match="slow") if ends else nullcontext():
        answer_event(requests.event(event), lambda _: answer("job"))
