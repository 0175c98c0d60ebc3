"""What somebody does to a release by hand: stopped, and rolled back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from distilled_router.release.table import FAILED, LIVE, RETIRED, ROLLING_OUT, SUPERSEDED
from operate.rollback import roll_back
from tests.engine.system import Traffic
from tests.rollouts.candidates import STANDING, Candidate
from tests.rollouts.scene import Scene, check_stand_in

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("rollouts")]


@pytest.fixture
def rising(scene: Scene, traffic: Traffic, live: str) -> Candidate:
    """A candidate that gets half of the requests, and never more."""
    candidate = scene.candidate(rollout=STANDING)
    scene.deploy(candidate)
    scene.is_promoted(candidate.digest)
    scene.answers_come(traffic, candidate.digest, live)
    return candidate


@pytest.fixture
def no_sweeps(scene: Scene) -> Iterator[None]:
    """The rules that call the sweeper are switched off for the test."""
    events = scene.engine.aws("events")
    rules = [
        scene.system.physical("release", name) for name in ("ReleaseSweepHourly", "ReleaseSweepOnFailure")
    ]
    for rule in rules:
        events.disable_rule(Name=rule)
    yield
    for rule in rules:
        events.enable_rule(Name=rule)


def test_a_release_that_is_stopped_in_its_rise_loses_its_share(
    scene: Scene, traffic: Traffic, live: str, rising: Candidate
) -> None:
    """By the sweep that an execution's end calls: no state of a stopped one runs."""
    began = time.monotonic()
    scene.stop(rising.digest)
    message = scene.fails(rising.digest).message
    assert "its execution is ABORTED" in message
    scene.until(lambda: scene.shares() == {live: 1.0}, "the share is taken back")
    check_stand_in(traffic, began, scene.answers_settle(traffic, live))
    scene.has_left(rising)


@pytest.mark.usefixtures("no_sweeps")
def test_a_share_that_nobody_takes_back_expires(
    scene: Scene, traffic: Traffic, live: str, rising: Candidate
) -> None:
    scene.stop(rising.digest)
    scene.answers_come(traffic, rising.digest, live)
    assert scene.shares() == {rising.digest: 0.5, live: 0.5}
    assert scene.release(rising.digest).state == ROLLING_OUT

    # A quarter of an hour after the step's end: the time passes by writing the expiry that is over by then.
    shares = scene.table.get_item(Key={"id": "route"})["Item"]["shares"]
    (place,) = (number for number, share in enumerate(shares) if share["digest"] == rising.digest)
    assert shares[place]["expires_at"] > time.time() + STANDING["dwell_seconds"]
    scene.table.update_item(
        Key={"id": "route"},
        UpdateExpression=f"SET shares[{place}].expires_at = :past",
        ExpressionAttributeValues={":past": int(time.time()) - 1},
    )
    scene.answers_settle(traffic, live)
    assert {answer.source for answer in traffic.answers} == {"distilled"}

    # The next sweep finds what it left.
    scene.system.sweep()
    assert scene.release(rising.digest).state == FAILED
    assert scene.shares() == {live: 1.0}
    scene.has_left(rising)


def test_a_rollback_ends_a_release_in_its_rise(
    scene: Scene, traffic: Traffic, live: str, rising: Candidate
) -> None:
    began = time.monotonic()
    outcome = roll_back(scene.deployed)
    assert (outcome.live, list(outcome.ended), outcome.unstopped) == (live, [rising.digest], [])
    assert scene.shares() == {live: 1.0}
    assert scene.release(rising.digest).state == SUPERSEDED
    check_stand_in(traffic, began, scene.answers_settle(traffic, live))
    scene.has_left(rising)


def test_a_rollback_after_a_promotion_goes_back_to_the_release_before(
    scene: Scene, traffic: Traffic, live: str
) -> None:
    endpoint = scene.deployments()[scene.name(live)]
    candidate = scene.release_good()
    scene.answers_settle(traffic, candidate.digest)

    outcome = roll_back(scene.deployed)
    assert (outcome.live, outcome.endpoint) == (live, endpoint)
    assert (outcome.replaced, outcome.ended) == ([candidate.digest], {})
    scene.answers_settle(traffic, live)
    scene.system.sweep()
    assert scene.shares() == {live: 1.0}
    assert scene.release(live).state == LIVE
    assert scene.release(candidate.digest).state == RETIRED
    assert scene.release(candidate.digest).rolled_back
    assert scene.deployments()[scene.name(live)] == endpoint
    assert {answer.source for answer in traffic.answers} == {"distilled"}
