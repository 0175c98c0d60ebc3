"""Each custom resource and each sequence of events that CloudFormation sends: what is paid at its end.

CloudFormation cancels an operation by sending another request for the same resource. The Provider framework
does not learn of it and polls on for the first one, and Lambda may deliver an event twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from distilled_router.aws.absence import confirmed
from distilled_router.aws.errors import ResourceError
from tests.unit import framework
from tests.unit.entry_points import Play, Theatre
from tests.unit.framework import INVENTED, Framework
from tests.unit.subjects import LOGICAL_ID, MOVED, SUBJECTS, Subject, costs, created, prepared

# Throughput that moves there and back takes more than 40 minutes. Its resource waits for 55.
POLLS, WAIT_SECONDS = 24, 3300


@dataclass
class Request:
    """A request of CloudFormation, for which the framework polls."""

    resource: Framework
    raw: Mapping[str, Any]
    merged: Mapping[str, Any] | None = None
    reason: str = ""
    is_done: bool = False

    def deliver(self) -> None:
        """Call onEvent."""
        try:
            answer = self.resource.begin(self.raw).event
        except ResourceError as error:
            self.reason, self.is_done = str(error), True
            return
        self.merged, self.is_done = answer, self.resource.is_complete is None

    def poll(self, times: int = 1) -> Request:
        """Poll a number of times, or until the framework responds."""
        if self.merged and self.resource.is_complete and not self.is_done:
            response = self.resource.poll(self.merged, times)
            self.is_done, self.reason = response is not None, response.reason if response else ""
        return self

    def end(self) -> Request:
        """Poll until the framework responds, which must be success."""
        self.poll(POLLS)
        assert (self.is_done, self.reason) == (True, "")
        return self

    @property
    def physical_id(self) -> str:
        """Return the id with which the framework responds."""
        assert self.merged, self.reason
        return str(self.merged["PhysicalResourceId"])


class CloudFormation:
    """Sends the events for one construct."""

    def __init__(self, play: Play, subject: Subject) -> None:
        self.play, self.subject = play, subject
        self.first, self.second = subject.first(play), subject.second(play)
        self.sent: list[Request] = []

    def send(self, raw: Mapping[str, Any], logical_id: str = LOGICAL_ID) -> Request:
        """Send an event once."""
        request = Request(self.play.resource(self.subject.folder), {**raw, "LogicalResourceId": logical_id})
        request.deliver()
        self.sent.append(request)
        return request

    def create(self, logical_id: str = LOGICAL_ID) -> Request:
        """Begin a Create with the first properties."""
        return self.send(framework.create(self.first), logical_id)

    def created(self) -> str:
        """Create the resource, and let it grow; return its physical id."""
        request = self.create().end()
        self.subject.grow(self.play)
        return request.physical_id

    def update(self, physical_id: str) -> Request:
        """Begin an Update to the second properties."""
        return self.send(framework.update(physical_id, self.second, self.first))

    def take_back(self, physical_id: str) -> Request:
        """Begin the Update that rolls the other one back."""
        return self.send(framework.update(physical_id, self.first, self.second))

    def delete(self, physical_id: str, logical_id: str = LOGICAL_ID, *, second: bool = False) -> Request:
        """Begin a Delete."""
        properties = self.second if second else self.first
        return self.send(framework.delete(physical_id, properties), logical_id)

    def lag(self) -> None:
        """Poll on for every request but the newest of each resource, and deliver its event again."""
        before = costs(self.play), created(self.play)
        self.subject.late(self.play)
        newest = {request.raw["LogicalResourceId"]: request for request in self.sent}
        for request in self.sent:
            if request is not newest[request.raw["LogicalResourceId"]]:
                request.poll(3)
                again = Request(request.resource, request.raw)
                again.deliver()
                again.poll(3)
        assert (costs(self.play), created(self.play)) == before


# What is left: nothing, or what the resource has after its Create.
NOTHING, FIRST = "nothing", "first"


def create_cancelled_at_once(stack: CloudFormation) -> str:
    stack.create()
    stack.delete(INVENTED).end()
    return NOTHING


def create_cancelled_after_a_poll(stack: CloudFormation) -> str:
    stack.create().poll()
    stack.subject.grow(stack.play)
    stack.delete(INVENTED).end()
    return NOTHING


def create_cancelled_after_its_end(stack: CloudFormation) -> str:
    """The response is lost, or arrives after the cancellation."""
    stack.created()
    stack.delete(INVENTED).end()
    return NOTHING


def create_timed_out(stack: CloudFormation) -> str:
    """The framework responds with a failure and our own id."""
    physical_id = stack.create().poll().physical_id
    stack.delete(physical_id).end()
    return NOTHING


def create_delivered_twice(stack: CloudFormation) -> str:
    first = stack.create()
    second = stack.send(first.raw)
    first.poll()
    second.end()
    first.end()
    stack.subject.grow(stack.play)
    return FIRST


def deleted_twice(stack: CloudFormation) -> str:
    physical_id = stack.created()
    for _ in range(2):
        stack.delete(physical_id).end()
    return NOTHING


def deleted_again_while_the_first_delete_goes_on(stack: CloudFormation) -> str:
    physical_id = stack.created()
    first = stack.delete(physical_id).poll()
    second = stack.delete(physical_id)
    first.poll()
    second.end()
    return NOTHING


def update_taken_back_at_once(stack: CloudFormation) -> str:
    physical_id = stack.created()
    stack.update(physical_id)
    stack.take_back(physical_id).end()
    return FIRST


def update_taken_back_after_a_poll(stack: CloudFormation) -> str:
    physical_id = stack.created()
    stack.update(physical_id).poll()
    stack.take_back(physical_id).end()
    return FIRST


def update_taken_back_after_its_end(stack: CloudFormation) -> str:
    """CloudFormation knows the new id of a replacement, and deletes that."""
    physical_id = stack.created()
    new = stack.update(physical_id).end().physical_id
    stack.take_back(new).end()
    stack.lag()
    if new != physical_id:
        stack.delete(new, second=True).end()
    return FIRST


def update_taken_back_whose_stack_is_then_deleted(stack: CloudFormation) -> str:
    update_taken_back_after_a_poll(stack)
    stack.delete(stack.sent[0].physical_id).end()
    return NOTHING


def update_taken_back_in_vain_whose_stack_is_then_deleted(stack: CloudFormation) -> str:
    """The rollback ends before it has removed what the Update created: UPDATE_ROLLBACK_FAILED."""
    physical_id = stack.created()
    stack.update(physical_id).poll(3)
    stack.take_back(physical_id)
    stack.delete(physical_id).end()
    return NOTHING


def update_whose_rollback_is_skipped(stack: CloudFormation) -> str:
    """After UPDATE_ROLLBACK_FAILED: to CloudFormation the resource then counts as rolled back."""
    physical_id = stack.created()
    new = stack.update(physical_id).end().physical_id
    rollback = stack.take_back(new)
    if new == physical_id:
        rollback.end()
    else:
        stack.delete(new, second=True).end()
    return FIRST


def update_given_up_whose_stack_is_then_deleted(stack: CloudFormation) -> str:
    """Without a rollback: UPDATE_FAILED."""
    physical_id = stack.created()
    given_up = stack.update(physical_id).poll(3)
    if given_up.is_done:
        stack.delete(given_up.physical_id, second=True).end()
    stack.delete(physical_id).end()
    return NOTHING


def update_given_up_and_followed_by_the_old_properties(stack: CloudFormation) -> str:
    """Without a rollback; the template is corrected by hand."""
    physical_id = stack.created()
    given_up = stack.update(physical_id).poll(3)
    known = given_up.physical_id if given_up.is_done else physical_id
    stack.send(framework.update(known, stack.first, stack.second if given_up.is_done else stack.first)).end()
    if known != physical_id:
        stack.delete(known, second=True).end()
    return FIRST


def replaced_and_deleted(stack: CloudFormation) -> str:
    old = stack.created()
    new = stack.update(old).end().physical_id
    if new != old:
        stack.delete(old).end()
        stack.lag()
    stack.delete(new, second=True).end()
    return NOTHING


def created_twice_at_once(stack: CloudFormation) -> str:
    """Two resources name the same thing; where that is refused, CloudFormation deletes the second one."""
    first, second = stack.create(), stack.create(MOVED)
    first.poll()
    second.poll()
    first.end()
    stack.subject.grow(stack.play)
    if second.merged:
        stack.delete(second.poll(POLLS).physical_id, MOVED).end()
    return FIRST


def renamed(stack: CloudFormation) -> str:
    physical_id = stack.created()
    before = costs(stack.play, with_claims=False)
    other = stack.create(MOVED).end()
    stack.delete(physical_id).end()
    assert costs(stack.play, with_claims=False) == before
    stack.delete(other.physical_id, MOVED).end()
    return NOTHING


def renamed_and_rolled_back_at_once(stack: CloudFormation) -> str:
    stack.created()
    stack.create(MOVED)
    stack.delete(INVENTED, MOVED).end()
    return FIRST


def renamed_and_rolled_back_after_a_poll(stack: CloudFormation) -> str:
    stack.created()
    stack.create(MOVED).poll()
    stack.delete(INVENTED, MOVED).end()
    return FIRST


def renamed_and_rolled_back_after_its_end(stack: CloudFormation) -> str:
    stack.created()
    other = stack.create(MOVED).poll(POLLS)
    # The framework swallows the Delete of a Create that failed in onEvent.
    if other.merged:
        stack.delete(other.physical_id, MOVED).end()
    return FIRST


def renamed_and_rolled_back_and_deleted(stack: CloudFormation) -> str:
    renamed_and_rolled_back_after_a_poll(stack)
    stack.delete(stack.sent[0].physical_id).end()
    return NOTHING


SEQUENCES: dict[str, Callable[[CloudFormation], str]] = {
    sequence.__name__: sequence
    for sequence in (
        create_cancelled_at_once,
        create_cancelled_after_a_poll,
        create_cancelled_after_its_end,
        create_timed_out,
        create_delivered_twice,
        deleted_twice,
        deleted_again_while_the_first_delete_goes_on,
        update_taken_back_at_once,
        update_taken_back_after_a_poll,
        update_taken_back_after_its_end,
        update_taken_back_whose_stack_is_then_deleted,
        update_taken_back_in_vain_whose_stack_is_then_deleted,
        update_whose_rollback_is_skipped,
        update_given_up_whose_stack_is_then_deleted,
        update_given_up_and_followed_by_the_old_properties,
        replaced_and_deleted,
        created_twice_at_once,
        renamed,
        renamed_and_rolled_back_at_once,
        renamed_and_rolled_back_after_a_poll,
        renamed_and_rolled_back_after_its_end,
        renamed_and_rolled_back_and_deleted,
    )
}
_KNOWN: dict[tuple[str, str], dict[str, Any]] = {}


def expected(theatre: Theatre, name: str, what: str) -> dict[str, Any]:
    """Return what costs before a resource exists, or after its Create."""
    if (name, what) not in _KNOWN:
        with theatre.play(prepared(SUBJECTS[name])) as play:
            stack = CloudFormation(play, SUBJECTS[name])
            if what == FIRST:
                stack.created()
            _KNOWN[name, what] = costs(play)
    return _KNOWN[name, what]


@dataclass(frozen=True)
class Reads:
    """How long Bedrock's reads lag behind writes, and for how long the functions doubt an absence."""

    lag: Mapping[str, float]
    absence_seconds: int


AT_ONCE = Reads({}, 0)
LATE = Reads({"get_seconds": 20, "list_seconds": 30, "tags_seconds": 20, "status_seconds": 10}, 60)


@pytest.mark.parametrize("name", SUBJECTS)
@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize(
    "reads", [pytest.param(AT_ONCE, id="at once"), pytest.param(LATE, id="late", marks=pytest.mark.slow)]
)
def test_sequence_leaves_what_the_stack_has(
    theatre: Theatre, monkeypatch: pytest.MonkeyPatch, reads: Reads, sequence: str, name: str
) -> None:
    if sequence == "renamed" and not SUBJECTS[name].is_shared:
        pytest.skip("The second resource of one throughput is refused.")
    with theatre.play(prepared(SUBJECTS[name])) as play:
        theatre.server.lag(**reads.lag)
        monkeypatch.setenv("ABSENCE_SECONDS", str(reads.absence_seconds))
        monkeypatch.setenv("WAIT_SECONDS", str(WAIT_SECONDS))
        # The doubt passes on the stand-in's clock.
        clock = {"sleep": play.world.advance, "now": play.world.server.clock.now}
        monkeypatch.setattr(confirmed, "__kwdefaults__", clock)
        stack = CloudFormation(play, SUBJECTS[name])
        left = SEQUENCES[sequence](stack)
        stack.lag()
        seen = costs(play)
    assert seen == expected(theatre, name, left)
