"""Candidates that passed the gate, and their rollout."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest

from distilled_router.release.table import RETIRED, SUPERSEDED
from tests.engine.system import Traffic
from tests.rollouts.candidates import PATIENT, STANDING
from tests.rollouts.scene import Scene, check_stand_in

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("rollouts")]


def test_a_good_candidate_takes_over_while_both_answer(scene: Scene, traffic: Traffic, live: str) -> None:
    candidate = scene.candidate(rollout=PATIENT)
    scene.deploy(candidate)
    scene.gets_share(candidate.digest)
    assert scene.shares() == {candidate.digest: 0.5, live: 0.5}
    scene.answers_come(traffic, candidate.digest, live)

    scene.pass_step(candidate.digest)
    scene.until(lambda: scene.shares()[candidate.digest] == 1.0, "it gets all requests")
    scene.answers_settle(traffic, candidate.digest)
    scene.pass_step(candidate.digest)
    scene.goes_live(candidate.digest)
    scene.answers_settle(traffic, candidate.digest)

    assert scene.shares() == {candidate.digest: 1.0}
    assert scene.release(live).state == RETIRED
    # The previous release is kept for rollback; older ones are not.
    kept = {scene.name(live), candidate.name}
    scene.until(lambda: set(scene.deployments()) == kept, "older deployments go")
    assert {answer.source for answer in traffic.prompt} == {"distilled"}


@pytest.mark.parametrize(
    ("fault", "limits", "reason"),
    [
        pytest.param(
            "output_wrong_sum", {"maximum_fallback_rate": 1.0}, "invalid output rate is ", id="invalid output"
        ),
        pytest.param("failed", {}, "fallback rate is ", id="errors"),
    ],
)
def test_a_candidate_that_degrades_is_rolled_back(
    scene: Scene,
    traffic: Traffic,
    live: str,
    fault: str,
    limits: Mapping[str, float],
    reason: str,
) -> None:
    # Without this margin, the comparison with the live release would fail as well as the limit.
    candidate = scene.candidate(rollout={**PATIENT, **limits, "non_inferiority_margin": 1.0})
    scene.deploy(candidate)
    scene.gets_share(candidate.digest)
    scene.order(fault, candidate)
    scene.until(
        lambda: scene.counted(candidate.digest, "CanaryFallback") >= 5, "routers have counted fallbacks"
    )
    scene.pass_step(candidate.digest)

    message = scene.fails(candidate.digest).message
    assert message.startswith(f"rolled back at 50% of the requests: {reason}")
    assert scene.shares() == {live: 1.0}
    scene.answers_settle(traffic, live)
    scene.has_left(candidate)
    assert {answer.source for answer in traffic.answers} == {"distilled", "base"}


def test_a_second_candidate_supersedes_one_that_is_rolled_out(
    scene: Scene, traffic: Traffic, live: str
) -> None:
    first, second = scene.candidate(rollout=STANDING), scene.candidate()
    scene.deploy(first)
    scene.gets_share(first.digest)
    scene.answers_come(traffic, first.digest, live)

    began = time.monotonic()
    scene.deploy(second)
    assert scene.release(first.digest).state == SUPERSEDED
    assert first.digest not in scene.shares()
    scene.goes_live(second.digest)
    check_stand_in(traffic, began, scene.answers_settle(traffic, second.digest))
    scene.has_left(first)
    assert scene.shares() == {second.digest: 1.0}
    assert scene.release(live).state == RETIRED
