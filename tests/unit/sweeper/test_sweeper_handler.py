"""The sweeper's entry points: after a failure, at the end of a release, and every hour."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

import sweeper.handler
from distilled_router.bedrock.naming import release_name
from distilled_router.env import SweeperEnv
from distilled_router.release.route import Share
from distilled_router.release.sweep import Sweeper
from distilled_router.release.table import (
    FAILED,
    LIVE,
    RETIRED,
    ROLLING_OUT,
)
from tests.unit.release_world import JOB, OWNER, RELEASE, A, B, World, live_share, named
from tests.unit.sweeper.scenes import (
    ONE,
    Capture,
    bought,
    buy,
    failures,
    live,
    made,
    model_of,
)


@pytest.fixture
def entries(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, with the functions' own clients being its."""
    clients = {"bedrock": world.bedrock, "stepfunctions": world.stepfunctions}
    monkeypatch.setattr(sweeper.handler, "client", clients.__getitem__)
    monkeypatch.setattr(sweeper.handler, "table", lambda _: world.releases.table)
    monkeypatch.setattr(sweeper.handler, "Sweeper", partial(Sweeper, now=lambda: world.now))
    env = SweeperEnv(
        owner=OWNER,
        table_name="releases",
        keep_releases=0,
        retain_models=False,
        retain_throughput=False,
        throughput_name=ONE,
        stack_id=RELEASE.stack_id,
        logical_id=RELEASE.logical_id,
    )
    for name, value in env.variables().items():
        monkeypatch.setenv(name, value)
    return world


def fails(world: World, digest: str, reason: str, attempt: int = 1) -> Mapping[str, Any]:
    """The failure path of an attempt's execution."""
    execution = world.execution(digest, attempt)
    event = {"release": digest, "reason": reason, "execution": execution}
    return sweeper.handler.fail(event, None)


def test_failure_path_of_an_earlier_attempt_leaves_its_successor_alone(
    entries: World, capsys: Capture
) -> None:
    arn = made(entries, A, ROLLING_OUT)
    entries.begin(A, 2)
    entries.releases.update(A, state=ROLLING_OUT)
    entries.settle(Share(A, arn, 0.25, expires_at=2**40), Share(B, "arn:b", 0.75))
    before = entries.releases.route()
    fails(entries, A, "of the first attempt", attempt=1)
    assert (entries.release(A).state, entries.releases.route()) == (ROLLING_OUT, before)
    assert failures(capsys) == 0
    fails(entries, A, "of the second attempt", attempt=2)
    assert (entries.release(A).state, entries.release(A).message) == (FAILED, "of the second attempt")


def test_failure_path_ends_the_release_and_removes_all_but_its_model(entries: World, capsys: Capture) -> None:
    arn = made(entries, B, ROLLING_OUT)
    entries.settle(Share(B, arn, 0.25, expires_at=2**40), Share(A, "arn:a", 0.75))
    entries.claim(model_of(entries, B), JOB)
    result = fails(entries, B, "refused by the gate")
    assert result["message"] == "removed 1, to be removed later 0"
    assert (entries.release(B).state, entries.release(B).message) == (FAILED, "refused by the gate")
    assert entries.releases.route().shares == (live_share(A, "arn:a"),)
    assert (entries.deployments(), entries.models()) == (set(), named(B))
    assert failures(capsys) == 1
    fails(entries, B, "again")
    assert (entries.release(B).message, failures(capsys)) == ("refused by the gate", 0)


def test_exception_of_a_stage_is_described(entries: World) -> None:
    entries.begin(A)
    cause = {"errorType": "KeyError", "errorMessage": "'GATE'", "stackTrace": ["…"] * 3000}
    fails(entries, A, json.dumps(cause))
    assert entries.release(A).message == "KeyError: 'GATE'"


def test_failure_after_a_release_went_live_is_reported_and_takes_nothing_from_it(
    entries: World, capsys: Capture
) -> None:
    arn = made(entries, A, LIVE)
    entries.settle(live_share(A, arn))
    fails(entries, A, "no model units reserved")
    assert entries.release(A).state == LIVE
    assert entries.release(A).message.endswith("on-demand deployment: no model units reserved")
    assert entries.releases.route().shares == (live_share(A, arn),)
    assert entries.deployments() == named(A)
    assert failures(capsys) == 1


def test_failure_of_the_last_step_takes_back_the_way_to_the_throughput_and_removes_it(entries: World) -> None:
    """It was asked for the release's model: the release's endpoint is its ARN, the route's is not."""
    buy(entries, live(entries, runs=True))
    (deployment,) = entries.releases.route().shares
    (throughput,) = entries.server.state()["throughput"]
    entries.releases.update(A, endpoint=throughput["arn"], throughput=ONE)
    result = fails(entries, A, "did not move")
    assert result["message"] == "removed 1, to be removed later 0"
    release = entries.release(A)
    assert (release.state, release.throughput, release.endpoint) == (LIVE, "", deployment.endpoint)
    assert (bought(entries), entries.deployments()) == (set(), named(A))


def test_lost_answer_of_the_last_step_takes_nothing_from_the_release(entries: World) -> None:
    arn = buy(entries, live(entries, runs=True))
    entries.settle(live_share(A, arn))
    entries.releases.update(A, endpoint=arn, throughput=ONE)
    fails(entries, A, "States.Timeout")
    release = entries.release(A)
    assert (release.state, release.throughput, release.endpoint) == (LIVE, ONE, arn)
    assert release.message == f"serves all requests from {ONE}: States.Timeout"
    assert bought(entries) == {ONE}


def test_failure_of_the_last_step_of_a_release_that_was_replaced_by_hand_says_so(entries: World) -> None:
    live(entries, runs=True)
    entries.settle(live_share(B))
    fails(entries, A, "does not serve any more")
    assert entries.release(A).message == "serves no requests: does not serve any more"


def test_failure_of_an_unknown_release_creates_none(entries: World) -> None:
    fails(entries, A, "…")
    assert entries.releases.get(A) is None


def test_retiring_removes_what_was_replaced(entries: World) -> None:
    made(entries, A, RETIRED)
    entries.settle(live_share(B, made(entries, B, LIVE)))
    result = sweeper.handler.retire_old({"release": B}, None)
    assert result["message"] == "removed 2, to be removed later 0"
    assert entries.deployments() == named(B)


def test_hourly_sweep_says_what_it_did(entries: World) -> None:
    arn = made(entries, A, FAILED)
    model = entries.bedrock.get_custom_model(modelIdentifier=release_name(OWNER, A))["modelArn"]
    swept = sweeper.handler.sweep({}, None)
    others = {"leaving": False, "kept": {}, "refused": {}}
    assert swept == {**{name: [] for name in swept}, **others, "removed": [arn, model]}
