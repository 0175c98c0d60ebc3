"""Probes while there are too few requests: real questions to students of the stand-in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from distilled_router.aws.errors import ReplacedError
from distilled_router.release.rollout import Rollout
from distilled_router.release.route import Share
from distilled_router.release.table import Release
from distilled_router.task.task import Task
from rollout import probes as module
from rollout.canary import Analysis, CanaryAnalysis, breach
from rollout.metrics import Count, ReleaseMetrics
from rollout.probes import Probes
from tests.unit.release_world import A, B, World, rollout

DATA = Path(__file__).parents[3] / "data"
ROWS = (DATA / "training.jsonl").read_text().splitlines()[:200]
HOLDOUT = (DATA / "holdout.jsonl").read_text().splitlines()[:12]
ROLLOUT = rollout(
    0.5,
    1.0,
    minimum_requests=10,
    maximum_error_rate=0.05,
    maximum_fallback_rate=0.1,
    maximum_invalid_output_rate=0.05,
    probes=10,
)


@dataclass
class Thin:
    """A candidate B beside the live release A; routers count nothing unless the test says so."""

    world: World
    probes: Probes
    candidate: Share
    live: Share
    requests: dict[str, dict[str, float]]

    def watch(self, rollout: Rollout = ROLLOUT, *, probes: bool = True) -> CanaryAnalysis:
        return CanaryAnalysis(self, "thin", rollout, self.probes if probes else None)

    def breach(self, rollout: Rollout = ROLLOUT, *, probes: bool = True, first: bool = False) -> str | None:
        found = self.analyse(rollout, probes=probes, first=first)
        assert not found.candidate_unasked + found.live_unasked
        return found.breach

    def analyse(self, rollout: Rollout = ROLLOUT, *, probes: bool = True, first: bool = False) -> Analysis:
        release = Release(B, endpoint=self.candidate.endpoint)
        return self.watch(rollout, probes=probes).analyse(release, None if first else self.live, 600)

    def get_metric_statistics(self, **wanted: Any) -> dict[str, Any]:
        """Return what CloudWatch would."""
        release = next(d["Value"] for d in wanted["Dimensions"] if d["Name"] == "release")
        value = self.requests.get(release, {}).get(wanted["MetricName"])
        return {"Datapoints": [] if value is None else [{wanted["Statistics"][0]: value}]}

    def asked(self) -> dict[str, int]:
        """Return the number of calls of each endpoint, including failed ones."""
        found = dict.fromkeys((self.candidate.endpoint, self.live.endpoint), 0)
        for call in self.world.server.calls("Converse"):
            found[call["parameters"]["modelId"]] += 1
        return found


@pytest.fixture
def thin(world: World) -> Thin:
    shares = []
    for digest in (B, A):
        model = world.train(digest, "\n".join(ROWS).encode())
        shares.append(Share(digest, world.deploy(digest, model), 1.0))
    world.s3.put_object(Bucket=world.bucket, Key="d/holdout.jsonl", Body="\n".join(HOLDOUT).encode())
    probes = Probes(
        runtime=world.server.client("bedrock-runtime", attempts=1),
        s3=world.s3,
        task=Task.load(DATA.parent / "task"),
        bucket=world.bucket,
        holdout_key="d/holdout.jsonl",
    )
    candidate, live = shares
    return Thin(world, probes, candidate, live, requests={})


def test_without_a_request_both_are_asked_and_nothing_speaks_against_a_good_one(thin: Thin) -> None:
    assert thin.breach() is None
    assert thin.asked() == {thin.candidate.endpoint: 10, thin.live.endpoint: 10}


def test_only_what_is_missing_is_asked_of_each(thin: Thin) -> None:
    thin.requests = {A: {"Requests": 90}, B: {"Requests": 7}}
    assert thin.breach() is None
    assert thin.asked() == {thin.candidate.endpoint: 3, thin.live.endpoint: 0}


def test_enough_requests_need_no_probe(thin: Thin) -> None:
    thin.requests = {A: {"Requests": 90}, B: {"Requests": 10}}
    assert thin.breach() is None
    assert sum(thin.asked().values()) == 0


def test_no_more_than_is_set_are_asked_and_a_short_hold_out_set_twice(thin: Thin) -> None:
    assert thin.breach(replace(ROLLOUT, minimum_requests=500, probes=20)) is None
    assert thin.asked() == {thin.candidate.endpoint: 20, thin.live.endpoint: 20}


def test_none_are_asked_where_none_are_set(thin: Thin) -> None:
    thin.world.server.fault("output_prose", count=None)
    assert thin.breach(replace(ROLLOUT, probes=0)) is None
    assert sum(thin.asked().values()) == 0


def test_first_release_is_asked_alone(thin: Thin) -> None:
    assert thin.breach(first=True) is None
    assert thin.asked() == {thin.candidate.endpoint: 10, thin.live.endpoint: 0}


@pytest.mark.parametrize("kind", ["output_prose", "output_empty", "output_wrong_sum"])
def test_candidate_without_requests_whose_output_does_not_parse_is_found(thin: Thin, kind: str) -> None:
    thin.world.server.fault(kind, count=None, modelId=thin.candidate.endpoint)
    problem = thin.breach(replace(ROLLOUT, maximum_fallback_rate=1.0, non_inferiority_margin=1.0))
    assert problem == "invalid output rate is 100.0% of 0 requests and 10 probes, allowed 5.0%"


@pytest.mark.parametrize("kind", ["throttled", "denied", "not_ready", "not_found", "unavailable"])
def test_candidate_that_can_not_be_asked_has_answered_nothing_wrongly(thin: Thin, kind: str) -> None:
    thin.world.server.fault(kind, operation="Converse", count=None, modelId=thin.candidate.endpoint)
    reason = f"the candidate could not be asked 10 of 10 hold-out queries: 10 {kind.replace('_', ' ')}"
    assert thin.analyse() == Analysis(None, reason, "")


def test_query_that_bedrock_refuses_is_a_fallback(thin: Thin) -> None:
    thin.world.server.fault("validation", operation="Converse", count=2, modelId=thin.candidate.endpoint)
    assert thin.breach() == "fallback rate is 20.0% of 0 requests and 10 probes, allowed 10.0%"


def test_live_release_that_can_not_be_asked_makes_no_candidate_better(thin: Thin) -> None:
    """Calls that failed are not its fallbacks, which the candidate could have as many of."""
    thin.world.server.fault("throttled", operation="Converse", count=8, modelId=thin.live.endpoint)
    thin.world.server.fault("output_prose", count=1, modelId=thin.candidate.endpoint)
    found = thin.analyse(replace(ROLLOUT, maximum_invalid_output_rate=0.2))
    assert found == Analysis(
        None, "", "the live release could not be asked 8 of 10 hold-out queries: 8 throttled"
    )


def test_few_probes_that_failed_change_nothing(thin: Thin) -> None:
    rollout = replace(ROLLOUT, minimum_requests=40, probes=40)
    thin.world.server.fault("throttled", operation="Converse", count=2, modelId=thin.candidate.endpoint)
    assert thin.breach(rollout) is None
    thin.world.server.fault("output_prose", count=None, modelId=thin.candidate.endpoint)
    thin.world.server.fault("throttled", operation="Converse", count=2, modelId=thin.candidate.endpoint)
    assert thin.breach(rollout) == "fallback rate is 100.0% of 0 requests and 38 probes, allowed 10.0%"


def test_requests_and_probes_count_together(thin: Thin) -> None:
    """One of six requests and none of four probes is a tenth."""
    thin.requests = {A: {"Requests": 90}, B: {"Requests": 6, "Fallback": 1}}
    assert thin.breach() is None
    assert "10.0% of 6 requests and 4 probes" in str(
        thin.breach(replace(ROLLOUT, maximum_fallback_rate=0.09))
    )


def test_probes_say_nothing_of_the_routers_own_errors(thin: Thin) -> None:
    """Five of nine requests are too few to decide, and probes don't go through a router."""
    thin.requests = {A: {"Requests": 90}, B: {"Requests": 9, "RouterErrors": 5}}
    assert thin.breach() is None


def test_candidate_much_slower_than_the_live_release_is_found_without_requests(thin: Thin) -> None:
    thin.world.server.fault(
        "slow", operation="Converse", count=None, modelId=thin.candidate.endpoint, milliseconds=60
    )
    mine, theirs = thin.candidate.endpoint, thin.live.endpoint
    found = thin.probes.ask({mine: 4, theirs: 4})
    assert (found[mine].probes, found[mine].model.of, found[theirs].model.of) == (4, 4, 4)
    slow = ReleaseMetrics(counts=found[mine].counts, model=Count(2_400, 4), probes=4)
    problem = breach(slow, found[theirs], ROLLOUT)
    assert problem is not None
    assert problem.startswith("its model takes 600 ms, and that of the live release")


def test_an_endpoint_that_hangs_is_not_asked_until_the_function_dies(
    thin: Thin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers so far count; the other probes are left out."""
    ticks = count(0, 25)
    monkeypatch.setattr(module, "CONCURRENCY", 1)
    slow = replace(thin.probes, clock=lambda: float(next(ticks)))
    found = slow.ask({thin.candidate.endpoint: 10})[thin.candidate.endpoint]
    assert found.probes == thin.asked()[thin.candidate.endpoint] == 4


def test_an_unreadable_hold_out_set_is_an_error_and_no_decision(thin: Thin) -> None:
    lost = replace(thin.probes, holdout_key="nothing")
    with pytest.raises(thin.world.s3.exceptions.NoSuchKey):
        lost.ask({thin.candidate.endpoint: 1})


@pytest.fixture(autouse=True)
def _no_network(aws: Callable[[str], Any]) -> None:
    """Use the emulator's bucket."""
    del aws


def test_probes_of_a_replaced_hold_out_set_are_not_sent(thin: Thin) -> None:
    body = "\n".join(HOLDOUT).encode()
    release = Release(B, endpoint=thin.candidate.endpoint, holdout_sha256=hashlib.sha256(body).hexdigest())
    assert thin.watch().analyse(release, thin.live, 600).breach is None
    asked = thin.asked()
    thin.world.s3.put_object(Bucket=thin.world.bucket, Key="d/holdout.jsonl", Body=HOLDOUT[0].encode())
    with pytest.raises(ReplacedError, match=r"d/holdout.jsonl was replaced after it was published"):
        thin.watch().analyse(release, thin.live, 600)
    assert thin.asked() == asked
