"""A route item that was broken by hand: routers keep using the last valid one, and the item is repaired.

A deleted item is valid, and is how distillation is switched off: the base model then answers.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from distilled_router.release.table import LIVE, RETIRED
from tests.engine.system import Traffic
from tests.rollouts.candidates import PATIENT
from tests.rollouts.scene import Scene

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("rollouts")]

BROKEN: dict[str, dict[str, Any]] = {
    "shares are no list": {"shares": "all of them"},
    "shares are no maps": {"shares": ["all", "of them"]},
    "the version is no number": {"version": "none"},
}


def item(scene: Scene) -> dict[str, Any]:
    """Return the route item."""
    found: dict[str, Any] = scene.table.get_item(
        Key={"id": scene.releases.key("route")}, ConsistentRead=True
    )["Item"]
    return found


def break_it(scene: Scene, how: dict[str, Any]) -> None:
    """Overwrite the route's values with invalid ones."""
    scene.table.put_item(Item={**item(scene), **how})
    assert scene.releases.route().problem


def check_that_nothing_goes(scene: Scene, traffic: Traffic, *answering: str | None) -> None:
    """Let routers read the broken route and run a sweep: these releases still answer, and keep their
    deployments."""
    held = scene.deployments()
    time.sleep(1.2)  # routers have read it by now
    scene.answers_come(traffic, *answering)
    assert scene.system.sweep()["removed"] == []
    assert scene.deployments() == held


def test_a_broken_route_is_replaced_by_the_next_release(scene: Scene, traffic: Traffic, live: str) -> None:
    scene.answers_come(traffic, live)  # a router that has never read a valid route has only the base model
    good = item(scene)
    for how in BROKEN.values():
        scene.table.put_item(Item=good)
        break_it(scene, how)
        check_that_nothing_goes(scene, traffic, live)
    assert {(answer.source, answer.release) for answer in traffic.prompt} == {("distilled", live)}

    candidate = scene.release_good()
    scene.answers_settle(traffic, candidate.digest)
    assert scene.shares() == {candidate.digest: 1.0}
    assert scene.releases.route().problem is None
    assert scene.release(live).state == RETIRED
    assert {answer.source for answer in traffic.prompt} == {"distilled"}


def test_a_broken_route_is_repaired_by_the_next_step_of_a_rollout(
    scene: Scene, traffic: Traffic, live: str
) -> None:
    steps = [0.4, 0.5, 0.6, 1.0]
    # Each read of a broken route counts as a router error: more of them than the few requests here allow.
    candidate = scene.candidate(
        rollout={**PATIENT, "steps": steps, "maximum_error_rate": 1.0, "non_inferiority_margin": 1.0}
    )
    scene.deploy(candidate)
    scene.gets_share(candidate.digest)
    for how, share in zip(BROKEN.values(), steps[1:], strict=True):
        scene.answers_come(traffic, candidate.digest)  # routers have read this step's route
        break_it(scene, how)
        check_that_nothing_goes(scene, traffic, candidate.digest, live)
        scene.pass_step(candidate.digest)
        scene.until(lambda: scene.releases.route().problem is None, "the next step has begun")
        found = scene.shares()
        assert found[candidate.digest] == share
        assert found[live] == pytest.approx(1 - share)
    break_it(scene, BROKEN["shares are no list"])
    scene.pass_step(candidate.digest)
    scene.goes_live(candidate.digest)
    scene.answers_settle(traffic, candidate.digest)
    assert scene.shares() == {candidate.digest: 1.0}
    assert scene.release(live).state == RETIRED
    assert {answer.source for answer in traffic.prompt} == {"distilled"}


def test_a_deleted_route_is_created_again_by_the_next_step(scene: Scene, traffic: Traffic, live: str) -> None:
    scene.table.delete_item(Key={"id": scene.releases.key("route")})
    scene.answers_settle(traffic, None)
    check_that_nothing_goes(scene, traffic, None)

    candidate = scene.candidate(rollout=PATIENT)
    scene.deploy(candidate)
    scene.gets_share(candidate.digest)
    scene.table.delete_item(Key={"id": scene.releases.key("route")})
    scene.answers_settle(traffic, None)
    check_that_nothing_goes(scene, traffic, None)
    scene.pass_step(candidate.digest)
    scene.until(lambda: scene.shares().get(candidate.digest) == 1.0, "the next step has begun")
    scene.answers_settle(traffic, candidate.digest)
    scene.pass_step(candidate.digest)
    scene.goes_live(candidate.digest)
    assert scene.shares() == {candidate.digest: 1.0}
    assert [found.digest for found in scene.releases.all() if found.state == LIVE] == [candidate.digest]
    assert {answer.source for answer in traffic.answers} == {"distilled", "base"}
