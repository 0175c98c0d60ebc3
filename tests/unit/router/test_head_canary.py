"""What the canary analysis finds behind a classification head: router, metrics and analysis together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from threading import local
from typing import Any

import pytest

from distilled_router.head.model import Head, HeadAnswer
from distilled_router.release.route import HeadFile, Route, Share
from distilled_router.release.table import Release
from local.metrics_bridge import parse
from rollout.canary import CanaryAnalysis
from router import service
from tests.unit.release_world import ANY, rollout
from tests.unit.router.conftest import Bench
from tests.unit.router.doubles import BASE_MODEL, BedrockDouble, TableDouble, reply, router_env
from tests.unit.router.heads import head_file, settle, store_of
from tests.unit.router.object_store import ObjectStore
from tests.unit.router.scenes import BASE_SAYS, CANDIDATE, STUDENT, STUDENT_SAYS, MakeBench

NEW, LIVE, NEVER = "bbbbbbbbbbbb", "aaaaaaaaaaaa", 2**40
LIMITS = rollout(
    0.5,
    1.0,
    maximum_error_rate=0.01,
    maximum_fallback_rate=0.03,
    maximum_invalid_output_rate=0.02,
    probes=0,
)
BATCH = 100


def place(query: str, seed: str) -> float:
    """Return a number from 0 to 1 that is the same for equal queries."""
    return int.from_bytes(sha256(f"{seed} {query}".encode()).digest()[:4]) / 2**32


class Students(BedrockDouble):
    """Models that give no weights for a part of the queries, the hardest ones or any.

    `invalid` has the part of the queries by model, and `hard` the part of them among which these are.
    """

    def __init__(self, invalid: dict[str, float], hard: float = 1.0) -> None:
        super().__init__()
        self._invalid, self._hard = invalid, hard

    def converse(self, **request: Any) -> dict[str, Any]:
        """Return the model's reply to the query."""
        model, query = request["modelId"], request["messages"][0]["content"][0]["text"]
        if model == BASE_MODEL:
            return reply(BASE_SAYS)
        is_hard = place(query, "ease") >= 1 - self._hard
        is_invalid = is_hard and place(query, model) < self._invalid.get(model, 0.0) / self._hard
        return reply("no weights" if is_invalid else STUDENT_SAYS)


class CloudWatch:
    """Has the metrics of a router's log lines, as CloudWatch extracts them."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self._found: dict[tuple[str, frozenset[tuple[str, str]]], list[float]] = defaultdict(list)
        for line in lines:
            for _, datum in parse(json.dumps(line)):
                dimensions = frozenset((each["Name"], each["Value"]) for each in datum["Dimensions"])
                self._found[datum["MetricName"], dimensions] += datum["Values"]

    def get_metric_statistics(self, **wanted: Any) -> dict[str, Any]:
        """Return all values as one point, or none."""
        dimensions = frozenset((each["Name"], each["Value"]) for each in wanted["Dimensions"])
        values = self._found.get((wanted["MetricName"], dimensions), [])
        return {"Datapoints": [{"Sum": sum(values), "SampleCount": len(values)}] if values else []}

    def average(self, metric: str) -> float:
        """Return the mean of the values of a release."""
        dimensions = frozenset({("service", router_env().owner), ("release", NEW)})
        values = self._found[metric, dimensions]
        return sum(values) / len(values)


@pytest.fixture
def files() -> Iterator[tuple[ObjectStore, list[HeadFile]]]:
    """Return a running store with the candidate's head."""
    store, names = store_of(head_file())
    with store.running():
        yield store, names
        settle()


@pytest.fixture
def found(
    bench: MakeBench, files: tuple[ObjectStore, list[HeadFile]], monkeypatch: pytest.MonkeyPatch
) -> Any:
    """Return a function that lets a router answer queries, and returns the metrics and the breach.

    The candidate's head answers the easiest part of the queries first; the live release has none.
    """
    store, (file,) = files
    # A batch has threads: what a query explores must not depend on their order.
    asked = local()
    monkeypatch.setattr(service, "jitter", lambda _low, _high: place(asked.query, "explored"))

    def ask(
        students: Students, first: float, queries: int, *, live: float = 0.5, explored: float = 0.05
    ) -> tuple[CloudWatch, str | None]:
        def answer(_: Head, query: str) -> HeadAnswer:
            asked.query = query
            risk = 0.0 if place(query, "ease") < first else 1.0
            return HeadAnswer(dict(router_weights), risk, 0)

        monkeypatch.setattr(Head, "answer", answer)
        candidate = Share(NEW, CANDIDATE, 1 - live, expires_at=NEVER, head=file)
        route = Route(4, (candidate, Share(LIVE, STUDENT, live)))
        made: Bench = bench(
            students,
            TableDouble(route),
            store,
            head_mode="first",
            explore_share=explored,
            quota_requests_per_minute=10**6,
        )
        router_weights = made.ask("to load the head")["weights"]
        settle()
        made.output()
        made.lines.clear()
        for start in range(0, queries, BATCH):
            made.ask_all([f"query {start + number}" for number in range(BATCH)])
        metrics = CloudWatch(made.output())
        analysis = CanaryAnalysis(metrics, router_env().owner, LIMITS, ANY)
        live_share = Share(LIVE, STUDENT, live) if live else None
        return metrics, analysis.analyse(Release(NEW, endpoint=CANDIDATE), live_share, 600).breach

    return ask


@pytest.mark.parametrize("first", [0.0, 0.5, 0.9])
def test_candidate_with_too_much_invalid_output_is_taken_back_behind_its_head(
    found: Any, first: float
) -> None:
    metrics, breach = found(Students({CANDIDATE: 0.05}), first, 16_000)
    assert "invalid output rate is" in breach or "fallback rate is" in breach
    assert ("its model was asked" in breach) == bool(first)
    assert 0.035 < metrics.average("Fallback") < 0.065
    if first:
        assert metrics.average("HeadAnswers") == pytest.approx(0.95 * first, abs=0.02)


@pytest.mark.parametrize("first", [0.0, 0.6, 0.9])
def test_candidate_as_good_as_the_live_release_goes_on_behind_its_head(found: Any, first: float) -> None:
    """Both give no weights for 1 % of the queries, all of them hard: 2.5 % of what the head leaves."""
    students = Students({CANDIDATE: 0.01, STUDENT: 0.01}, hard=0.4)
    metrics, breach = found(students, first, 16_000)
    assert breach is None
    if first == 0.6:
        assert metrics.average("Fallback") > 0.02


def test_answers_of_the_head_do_not_hide_invalid_output(found: Any) -> None:
    """3 % of what the model is asked, and little more than 1 % of all requests."""
    _, breach = found(Students({CANDIDATE: 0.03}), 0.6, 40_000, live=0.0)
    assert "invalid output rate is" in breach


def test_rollout_goes_on_behind_a_head_that_answers_all(found: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request tells of the model then; the probes still ask it."""
    monkeypatch.setattr(service, "jitter", lambda low, high: high)
    metrics, breach = found(Students({CANDIDATE: 1.0}), 1.0, 1_000)
    assert breach is None
    assert metrics.average("HeadAnswers") == 1
    dimensions = [{"Name": "service", "Value": router_env().owner}, {"Name": "release", "Value": NEW}]
    wanted = {"MetricName": "Fallback", "Dimensions": dimensions}
    assert metrics.get_metric_statistics(**wanted) == {"Datapoints": []}
