"""Candidates that the gate refuses: the live release stays, and the candidate's resources are deleted."""

from __future__ import annotations

import pytest

from local.bedrock.faults import OUTPUT_KINDS
from tests.engine.system import Traffic
from tests.rollouts.candidates import HOLDOUT_ROWS, Candidate
from tests.rollouts.scene import Scene

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("rollouts")]


def refused(scene: Scene, traffic: Traffic, live: str, candidate: Candidate) -> list[str]:
    """Deploy a candidate that gets no requests; return the gate's reasons."""
    scene.deploy(candidate)
    message = scene.fails(candidate.digest).message
    scene.has_left(candidate)
    assert scene.shares() == {live: 1.0}
    assert {(answer.source, answer.release) for answer in traffic.prompt} == {("distilled", live)}
    first, *findings = message.splitlines()
    assert first.startswith("refused by the gate: ")
    return [line.removeprefix("- ") for line in findings if line.startswith("- ")]


def test_a_worse_candidate_is_refused_for_its_worse_metrics(
    scene: Scene, traffic: Traffic, live: str
) -> None:
    """Its labels were shuffled randomly."""
    reasons = refused(scene, traffic, live, scene.candidate(worse=True))
    assert any(reason.startswith("Dominant label right for ") for reason in reasons), reasons
    assert any("than with the live release; at most" in reason for reason in reasons), reasons
    assert not any(reason.startswith("Valid output") for reason in reasons), reasons


def test_a_candidate_with_malformed_answers_is_refused_for_invalid_output(
    scene: Scene, traffic: Traffic, live: str
) -> None:
    """Each kind of malformed answer that the stand-in can give."""
    candidate = scene.candidate()
    for kind in OUTPUT_KINDS:
        scene.order(kind, candidate, count=1 + HOLDOUT_ROWS // len(OUTPUT_KINDS))
    reasons = refused(scene, traffic, live, candidate)
    assert any(reason.startswith("Valid output for ") for reason in reasons), reasons


def test_a_slow_candidate_is_refused_for_its_latency(scene: Scene, traffic: Traffic, live: str) -> None:
    candidate = scene.candidate()
    # Far above what 20 questions at a time take on a busy machine.
    scene.order("slow", candidate, milliseconds=1500)
    (reason,) = refused(scene, traffic, live, candidate)
    assert reason.startswith("Median latency ")
    assert "the live release's" in reason


def test_a_costly_candidate_is_refused_for_its_cost(scene: Scene, traffic: Traffic, live: str) -> None:
    candidate = scene.candidate(gate={"maximum_cost_per_1000_usd": 0.0001})
    (reason,) = refused(scene, traffic, live, candidate)
    assert reason.startswith("Cost of 1,000 queries ")
    assert reason.endswith("; at most 0.00010 USD wanted.")
