"""What a request counts for when a classification head may have answered it."""

from __future__ import annotations

import json
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
from aws_lambda_powertools import Logger

from router.first_sights import Sight
from router.sources import BASE, DISTILLED, HEAD, OF_THE_CALLER, STATIC, Outcome
from router.telemetry import Telemetry, Trace
from tests.unit.router.doubles import router_env

Capture = pytest.CaptureFixture[str]

INVALID, THROTTLED, DENIED, OVER, INTERNAL = (
    "invalid_output",
    "throttled",
    "denied",
    "over_allowance",
    "internal",
)
STUDENT_FAILED = {DISTILLED: INVALID}
BOTH_THROTTLED = {DISTILLED: THROTTLED, BASE: THROTTLED}
BASE_DENIED = {DISTILLED: THROTTLED, BASE: DENIED}

RATES = ("Fallback", "CallerFallback", "StaticAnswers", "InvalidOutput", "CanaryFallback")
COUNTED = ("Errors", "Fallback", "InvalidOutput")
# Source, reason, failures: the values of the rates; None for a rate that has no value.
TABLE: list[tuple[str, str | None, dict[str, str], tuple[int | None, ...]]] = [
    (DISTILLED, None, {}, (0, 0, 0, 0, 0)),
    (DISTILLED, INTERNAL, {HEAD: "RuntimeError"}, (0, 0, 0, 0, 0)),
    (HEAD, None, {}, (None, 0, 0, None, None)),
    (HEAD, INVALID, STUDENT_FAILED, (1, 0, 0, 1, 1)),
    (HEAD, INTERNAL, {DISTILLED: "RuntimeError"}, (1, 0, 0, 0, 1)),
    (HEAD, THROTTLED, BOTH_THROTTLED, (None, 1, None, 0, None)),
    (HEAD, OVER, {DISTILLED: OVER, BASE: OVER}, (None, 1, None, 0, None)),
    (HEAD, THROTTLED, BASE_DENIED, (None, 1, 1, 0, None)),
    (HEAD, INVALID, {**STUDENT_FAILED, BASE: THROTTLED}, (1, 0, 1, 1, 1)),
    (BASE, INVALID, STUDENT_FAILED, (1, 0, 0, 1, 1)),
    (BASE, THROTTLED, {DISTILLED: THROTTLED}, (None, 1, 0, 0, None)),
    (STATIC, INVALID, {**STUDENT_FAILED, BASE: THROTTLED}, (1, 0, 1, 1, 1)),
    (STATIC, INTERNAL, {"router": "RuntimeError"}, (1, 0, 1, 0, 1)),
    (STATIC, THROTTLED, BOTH_THROTTLED, (None, 1, None, 0, None)),
    (STATIC, THROTTLED, BASE_DENIED, (None, 1, 1, 0, None)),
]


def written(capsys: Capture, *traces: Trace) -> list[dict[str, Any]]:
    """Return the lines of a request's queries."""
    env = router_env()
    # A logger keeps the stream of its first use, and pytest has another one in each test.
    telemetry = Telemetry(env, Logger(service=f"{env.owner}-{uuid4()}"))
    telemetry.finished(traces, "request-1")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [line for line in lines if "release" in line and "level" not in line]


def trace(source: str, reason: str | None, failures: dict[str, str], **changes: Any) -> Trace:
    """Return what happened to a query of a release in a rollout."""
    found = Trace("dog", release="aaaaaaaaaaaa", source=source, reason=reason, failures=failures, **changes)
    found.in_rollout = True
    if failures.get(DISTILLED) and not found.cached:
        found.distilled = Outcome(reason=failures[DISTILLED])
    if not found.is_of_the_caller:
        found.sight = Sight.NEW
    return found


def values(documents: list[dict[str, Any]]) -> dict[str, float]:
    """Return the value of each metric and field of a single query."""
    (document,) = documents
    found = {name: value for name, value in document.items() if isinstance(value, int | float)}
    declared = {
        metric["Name"]
        for directive in document["_aws"]["CloudWatchMetrics"]
        for metric in directive["Metrics"]
    }
    assert declared <= found.keys()
    return found


@pytest.mark.parametrize(("source", "reason", "failures", "rates"), TABLE)
def test_rates_are_of_what_the_head_left_to_the_models(
    capsys: Capture, source: str, reason: str | None, failures: dict[str, str], rates: tuple[int | None, ...]
) -> None:
    for cached, has_head, difference in product((False, True), (False, True), (None, 0.03)):
        changes = {"cached": cached, "has_head": has_head, "difference": difference}
        found = values(written(capsys, trace(source, reason, failures, **changes)))
        expected = dict(zip(RATES, rates, strict=True))
        if cached and expected["InvalidOutput"]:
            expected["InvalidOutput"] = 0  # counted when the model answered
        for name in ("CallerFallback", "StaticAnswers"):
            expected[name] = expected[name] or None  # written only when it is 1
        assert {name: found.get(name) for name in RATES} == expected
        assert (found["CacheHits"], found.get("RouterErrors")) == (cached, None)
        assert "Latency" in found
        assert found.get("HeadAnswers") == (int(source == HEAD and not reason) if has_head else None)
        assert found.get("HeadDifference") == difference
        is_by_head = source == HEAD and not reason
        canary = {name for name in found if name.startswith("Canary")}
        if reason in OF_THE_CALLER:
            assert canary == set()
        elif is_by_head:
            assert canary == {"CanaryHead", "CanaryProcesses"}
        else:
            assert canary == {f"Canary{name}" for name in (*COUNTED, "Processes")}


@pytest.mark.parametrize(("source", "reason", "failures", "rates"), TABLE)
def test_explored_queries_count_apart(
    capsys: Capture, source: str, reason: str | None, failures: dict[str, str], rates: tuple[int | None, ...]
) -> None:
    """They stand for all that the head answers."""
    if reason in OF_THE_CALLER or (source == HEAD and not reason):
        return
    found = values(written(capsys, trace(source, reason, failures, has_head=True, explored=True)))
    canary = {name: value for name, value in found.items() if name.startswith("Canary")}
    assert canary.keys() == {f"CanaryExplored{name}" for name in COUNTED} | {"CanaryProcesses"}
    assert (canary["CanaryExploredFallback"], found["Fallback"]) == (rates[-1], rates[0])
    assert canary["CanaryExploredInvalidOutput"] == rates[3]


@pytest.mark.parametrize("sight", [Sight.FIRST, Sight.NEW, Sight.AGAIN])
def test_queries_of_the_head_count_once(capsys: Capture, sight: Sight) -> None:
    one = trace(HEAD, None, {}, has_head=True)
    one.sight = sight
    found = values(written(capsys, one))
    canary = {name: value for name, value in found.items() if name.startswith("Canary")}
    if sight is Sight.AGAIN:
        assert canary == {"CanaryRepeated": 1}
    else:
        assert canary == {"CanaryHead": 1, "CanaryProcesses": sight is Sight.FIRST}


def test_answers_of_the_head_are_a_source_of_the_release(capsys: Capture) -> None:
    (blob,) = written(capsys, trace(HEAD, None, {}, has_head=True))
    _, of_release = blob["_aws"]["CloudWatchMetrics"]
    assert of_release["Dimensions"] == [["service", "release"]]
    assert {metric["Name"] for metric in of_release["Metrics"]} >= {"HeadAnswers", "CanaryHead"}
    assert (blob["release"], blob["source"], blob["HeadAnswers"]) == ("aaaaaaaaaaaa", "head", 1)
    assert "Fallback" not in blob
    assert "InvalidOutput" not in blob


def test_average_of_head_answers_is_the_coverage(capsys: Capture) -> None:
    """A batch: three by the head, one of them as last resort, and an explored one."""
    documents = written(
        capsys,
        *(trace(HEAD, None, {}, has_head=True) for _ in range(2)),
        trace(HEAD, INVALID, STUDENT_FAILED, has_head=True),
        trace(DISTILLED, None, {}, has_head=True, difference=0.25),
    )
    assert sorted(blob["HeadAnswers"] for blob in documents) == [0, 0, 1, 1]
    assert sorted(blob["Fallback"] for blob in documents if "Fallback" in blob) == [0, 1]
    (explored,) = [blob for blob in documents if "HeadDifference" in blob]
    of_all, _ = explored["_aws"]["CloudWatchMetrics"]
    assert of_all["Dimensions"] == [["service"]]
    assert {"Name": "HeadDifference", "Unit": "None"} in of_all["Metrics"]
    assert (explored["source"], explored["HeadDifference"]) == (DISTILLED, 0.25)


def test_request_without_a_release_has_no_head_answers(capsys: Capture) -> None:
    documents = written(capsys, Trace("dog", source=BASE, reason="no_release", has_head=True))
    assert "HeadAnswers" not in values(documents)
