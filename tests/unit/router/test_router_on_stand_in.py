"""The router against the Bedrock stand-in: TLS connections, and a student that was trained there.

The table is a double.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from distilled_router.release.route import Route, Share
from distilled_router.task.task import Task
from local.bedrock import BedrockStandIn, MemoryS3
from local.bedrock.faults import FOREIGN
from router.assembly import make_router, services
from router.breaker import FAILURES
from router.service import SIDE_BY_SIDE, Router
from router.services import BedrockRuntime
from tests.unit.router.doubles import BASE_MODEL, TableDouble, router_env, variables
from tests.unit.router.scenes import assert_weights
from tests.unit.router.students import deployed_student

# Milliseconds: much longer than any budget.
FOR_EVER = 200_000
# Of which a busy machine needs the later ones.
SHORT_BUDGETS = (1.0, 5.0, 25.0)


class Stage:
    """A stand-in with one live deployment, and routers that use it."""

    def __init__(self, bedrock: BedrockStandIn, endpoint: str, task: Task) -> None:
        self.bedrock, self.endpoint, self.task = bedrock, endpoint, task

    def router(self, endpoint: str | None = None, time_budget: float = 60.0) -> Router:
        """Return a new environment's router whose route names this endpoint or the live one.

        A busy machine has the time that it needs, unless time has to run out.
        """
        env = router_env(time_budget_ms=round(time_budget * 1000))
        bedrock, _ = services(env, variables(self.bedrock.endpoint, self.bedrock.ca_bundle))
        route = Route(1, (Share("aaaaaaaaaaaa", endpoint or self.endpoint, 1.0),))
        return make_router(env, self.task, bedrock=bedrock, dynamodb=TableDouble(route))

    def calls(self) -> list[str]:
        """Return the models that Converse was called for, oldest first."""
        return [call["parameters"]["modelId"] for call in self.bedrock.calls("Converse")]


@pytest.fixture(scope="module")
def stage(task: Task) -> Iterator[Stage]:
    """Train and deploy once; every test uses up the faults that it orders."""
    with BedrockStandIn(s3=MemoryS3(), tls=True) as bedrock:
        yield Stage(bedrock, deployed_student(bedrock, task), task)


def test_student_answers_with_its_own_prompt(stage: Stage) -> None:
    router = stage.router()
    for query, intent in (("engine roaring 99", "audio"), ("a white horse", "visual")):
        answer = router.handle({"query": query})
        assert (answer["source"], answer["intent"]) == ("distilled", intent)


def test_base_model_answers_with_the_full_prompt(stage: Stage) -> None:
    stage.bedrock.fault("denied", operation="Converse", modelId=stage.endpoint)
    answer = stage.router().handle({"query": "loud applause"})
    assert (answer["source"], answer["intent"]) == ("base", "audio")


@pytest.mark.parametrize(
    ("kind", "options", "attempts", "reason"),
    [
        ("throttled", {}, 2, "throttled"),
        ("not_ready", {}, 2, "not_ready"),
        ("failed", {}, 2, "unavailable"),
        ("unavailable", {}, 2, "unavailable"),
        ("lost_response", {"answer": "dropped"}, 2, "unreachable"),
        ("lost_response", {"answer": "error"}, 2, "unavailable"),
        ("over_quota", {}, 2, "throttled"),
        ("denied", {}, 1, "denied"),
        ("not_found", {}, 1, "not_found"),
        ("validation", {}, 1, "refused"),
        *(("foreign", {"answer": answer}, 2, "unavailable") for answer in FOREIGN),
    ],
)
def test_failed_call_falls_to_the_base_model(
    stage: Stage, kind: str, options: dict[str, Any], attempts: int, reason: str
) -> None:
    stage.bedrock.fault(kind, operation="Converse", modelId=stage.endpoint, count=attempts, **options)
    before = len(stage.calls())
    answer = stage.router().handle({"query": "dog barking"})
    assert (answer["source"], answer["reason"]) == ("base", reason)
    assert_weights(answer, stage.task)
    assert stage.calls()[before:] == [stage.endpoint] * attempts + [BASE_MODEL]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("output_prose", "invalid_output"),
        ("output_empty", "empty_output"),
        ("output_wrong_sum", "invalid_output"),
        ("output_negative", "invalid_output"),
        ("output_not_numbers", "invalid_output"),
        ("output_too_few", "invalid_output"),
        ("output_no_content", "empty_output"),
        ("output_cut_off", "invalid_output"),
        ("output_guarded", "invalid_output"),
    ],
)
def test_spoilt_answer_falls_to_the_base_model(stage: Stage, kind: str, reason: str) -> None:
    stage.bedrock.fault(kind, modelId=stage.endpoint)
    answer = stage.router().handle({"query": "dog barking"})
    assert (answer["source"], answer["reason"]) == ("base", reason)
    assert_weights(answer, stage.task)


@pytest.mark.parametrize("kind", ["output_two_blocks", "output_reasoning"])
def test_answer_in_a_reply_of_another_shape_is_read(stage: Stage, kind: str) -> None:
    stage.bedrock.fault(kind, modelId=stage.endpoint)
    answer = stage.router().handle({"query": "dog barking"})
    assert (answer["source"], answer["reason"]) == ("distilled", None)


def test_answer_in_wrapping_is_read(stage: Stage) -> None:
    # Only the base model has enough tokens left.
    stage.bedrock.fault("denied", operation="Converse", modelId=stage.endpoint)
    stage.bedrock.fault("output_wrapped", modelId=BASE_MODEL)
    assert stage.router().handle({"query": "dog barking"})["source"] == "base"


def test_lost_connection_is_tried_again_on_a_new_one(stage: Stage) -> None:
    router = stage.router()
    router.handle({"query": "the connection is open now"})
    stage.bedrock.fault("lost_response", operation="Converse", modelId=stage.endpoint)
    assert router.handle({"query": "dog barking"})["source"] == "distilled"


def test_deleted_endpoint_falls_to_the_base_model(stage: Stage) -> None:
    answer = stage.router(endpoint=stage.endpoint[:-1] + "0").handle({"query": "dog barking"})
    assert (answer["source"], answer["reason"]) == ("base", "not_found")


def test_slow_student_leaves_the_base_model_its_time(stage: Stage) -> None:
    for time_budget in SHORT_BUDGETS:
        stage.bedrock.fault("slow", operation="Converse", modelId=stage.endpoint, milliseconds=FOR_EVER)
        answer = stage.router(time_budget=time_budget).handle({"query": "dog barking"})
        assert answer["reason"] == "timed_out"
        if answer["source"] == "base":
            return
    pytest.fail("the base model never answered")


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ({"kind": "throttled"}, "throttled"),
        ({"kind": "not_ready"}, "not_ready"),
        ({"kind": "failed"}, "unavailable"),
        ({"kind": "unavailable"}, "unavailable"),
        ({"kind": "denied"}, "denied"),
        ({"kind": "not_found"}, "not_found"),
        ({"kind": "validation"}, "refused"),
        ({"kind": "lost_response"}, "unreachable"),
        ({"kind": "slow", "milliseconds": FOR_EVER}, "timed_out"),
        ({"kind": "output_prose"}, "invalid_output"),
        ({"kind": "output_empty"}, "empty_output"),
    ],
)
def test_fault_of_every_model_costs_the_budget_at_most_and_gives_static_weights(
    stage: Stage, order: dict[str, Any], reason: str
) -> None:
    for model in (stage.endpoint, BASE_MODEL):
        of_calls = {} if order["kind"].startswith("output_") else {"operation": "Converse"}
        stage.bedrock.fault(**order, **of_calls, modelId=model, count=None)
    router = stage.router(time_budget=1.0 if reason == "timed_out" else 60.0)
    started = time.monotonic()
    answer = router.handle({"query": "dog barking"})
    took = time.monotonic() - started
    stage.bedrock.clear_faults()
    assert took < 30
    assert (answer["source"], answer["reason"], answer["release"]) == ("static", reason, None)
    assert answer["weights"] == stage.task.static_weights


def test_abandoned_call_blocks_no_other_call(stage: Stage) -> None:
    for time_budget in SHORT_BUDGETS:
        router = stage.router(time_budget=time_budget)
        stage.bedrock.fault("slow", operation="Converse", modelId=stage.endpoint, milliseconds=FOR_EVER)
        assert router.handle({"query": "dog barking"})["reason"] == "timed_out"
        if router.handle({"query": "another dog barking"})["source"] == "distilled":
            return
    pytest.fail("the student never answered")


def test_batches_reuse_their_connections(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many connections as parallel queries; each new one costs a TLS handshake on AWS."""
    handshakes: list[object] = []
    wrap_socket = ssl.SSLContext.wrap_socket

    def counted(
        context: ssl.SSLContext, opened: socket.socket, *, server_side: bool = False, **more: Any
    ) -> Any:
        if not server_side:
            handshakes.append(opened)
        return wrap_socket(context, opened, server_side=server_side, **more)

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", counted)
    router = stage.router()
    stage.bedrock.fault("slow", operation="Converse", milliseconds=100, count=SIDE_BY_SIDE)
    for number in range(5):
        queries = [f"dog barking {number} {place}" for place in range(SIDE_BY_SIDE)]
        answers = router.handle({"queries": queries})["answers"]
        assert {answer["source"] for answer in answers} == {"distilled"}
    assert 0 < len(handshakes) <= SIDE_BY_SIDE


def test_queries_that_bedrock_refuses_open_no_circuit_for_others(stage: Stage) -> None:
    router = stage.router()
    stage.bedrock.fault("validation", operation="Converse", count=None)
    for number in range(2 * FAILURES):
        answer = router.handle({"query": f"refused {number}"})
        assert (answer["source"], answer["reason"]) == ("static", "refused")
    stage.bedrock.clear_faults()
    assert router.handle({"query": "dog barking"})["source"] == "distilled"


def test_answers_that_arrive_byte_by_byte_hold_no_thread_beyond_their_query(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte renewed the timeout of a read, until all 128 threads waited for answers to past queries."""
    began, ended = [], []
    converse = BedrockRuntime.converse

    def noted(service: BedrockRuntime, **request: Any) -> dict[str, Any]:
        began.append(request["modelId"])
        try:
            return converse(service, **request)
        finally:
            ended.append(request["modelId"])

    monkeypatch.setattr(BedrockRuntime, "converse", noted)
    router = stage.router(time_budget=1.0)
    # An answer has some 300 bytes.
    stage.bedrock.fault("dribble", operation="Converse", milliseconds=300, count=None)
    queries = [f"dog barking {number}" for number in range(FAILURES - 1)]
    answers = router.handle({"queries": queries})["answers"]
    assert {(answer["source"], answer["reason"]) for answer in answers} == {("static", "timed_out")}
    last = time.monotonic() + 30
    while len(ended) < len(began) and time.monotonic() < last:
        time.sleep(0.01)
    stage.bedrock.clear_faults()
    assert began.count(stage.endpoint) == len(queries)
    assert Counter(ended) == Counter(began)
