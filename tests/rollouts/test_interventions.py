"""Operators intervene in a release: they stop it, or roll it back."""

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
def candidate(scene: Scene, traffic: Traffic, live: str) -> Candidate:
    """Return a candidate that gets half of the requests and goes no further."""
    candidate = scene.candidate(rollout=STANDING)
    scene.deploy(candidate)
    scene.gets_share(candidate.digest)
    scene.answers_come(traffic, candidate.digest, live)
    return candidate


@pytest.fixture
def no_sweeps(scene: Scene) -> Iterator[None]:
    """Disable the rules that call the sweeper during the test."""
    events = scene.engine.aws("events")
    rules = [
        scene.system.physical("release", name) for name in ("ReleaseSweepHourly", "ReleaseSweepOnFailure")
    ]
    for rule in rules:
        events.disable_rule(Name=rule)
    yield
    for rule in rules:
        events.enable_rule(Name=rule)


def test_a_release_stopped_during_its_rollout_loses_its_share(
    scene: Scene, traffic: Traffic, live: str, candidate: Candidate
) -> None:
    """The sweep that runs when an execution ends withdraws it: no state of a stopped execution runs."""
    began = time.monotonic()
    scene.stop(candidate.digest)
    message = scene.fails(candidate.digest).message
    assert "its execution is ABORTED" in message
    scene.until(lambda: scene.shares() == {live: 1.0}, "the share is withdrawn")
    check_stand_in(traffic, began, scene.answers_settle(traffic, live))
    scene.has_left(candidate)


@pytest.mark.usefixtures("no_sweeps")
def test_a_share_that_is_not_withdrawn_expires(
    scene: Scene, traffic: Traffic, live: str, candidate: Candidate
) -> None:
    scene.stop(candidate.digest)
    scene.answers_come(traffic, candidate.digest, live)
    assert scene.shares() == {candidate.digest: 0.5, live: 0.5}
    assert scene.release(candidate.digest).state == ROLLING_OUT

    # It expires a quarter of an hour after the step's end: the test moves the expiry into the past.
    shares = scene.table.get_item(Key={"id": scene.releases.key("route")})["Item"]["shares"]
    (place,) = (number for number, share in enumerate(shares) if share["digest"] == candidate.digest)
    assert shares[place]["expires_at"] > time.time() + STANDING["dwell_seconds"]
    scene.table.update_item(
        Key={"id": scene.releases.key("route")},
        UpdateExpression=f"SET shares[{place}].expires_at = :past",
        ExpressionAttributeValues={":past": int(time.time()) - 1},
    )
    scene.answers_settle(traffic, live)
    assert {answer.source for answer in traffic.prompt} == {"distilled"}

    # The next sweep cleans up.
    scene.system.sweep()
    assert scene.release(candidate.digest).state == FAILED
    assert scene.shares() == {live: 1.0}
    scene.has_left(candidate)


def test_a_rollback_ends_a_rollout_in_progress(
    scene: Scene, traffic: Traffic, live: str, candidate: Candidate
) -> None:
    began = time.monotonic()
    outcome = roll_back(scene.deployed)
    assert (outcome.live, list(outcome.ended), outcome.unstopped) == (live, [candidate.digest], [])
    assert scene.shares() == {live: 1.0}
    assert scene.release(candidate.digest).state == SUPERSEDED
    check_stand_in(traffic, began, scene.answers_settle(traffic, live))
    scene.has_left(candidate)


def test_a_rollback_after_a_rollout_restores_the_previous_release(
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
    assert {answer.source for answer in traffic.prompt} == {"distilled"}
