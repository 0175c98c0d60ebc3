"""One caller beside another: who used up a model's quota takes it from nobody else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from distilled_router.release.route import Route, Share
from distilled_router.task.task import Task
from local.bedrock import BedrockStandIn, MemoryS3, Quotas, Settings
from router.assembly import make_router, services
from router.breaker import FAILURES, OPEN_SECONDS
from router.service import Router
from tests.unit.router.conftest import Bench, http_event
from tests.unit.router.doubles import (
    BASE_MODEL,
    BedrockDouble,
    TableDouble,
    WallClock,
    client_error,
    router_env,
    variables,
)
from tests.unit.router.scenes import (
    BASE_SAYS,
    LIVE_ROUTE,
    STUDENT,
    STUDENT_SAYS,
    MakeBench,
    healthy,
    student,
)
from tests.unit.router.students import deployed_student

CROWD = "arn:aws:sts::000000000000:assumed-role/crowd/session"
NEXT = "arn:aws:iam::000000000000:user/next"
THROTTLED = client_error("ThrottlingException", 429)
BATCHES = 65


def sources(answers: Sequence[dict[str, Any]]) -> Counter[tuple[str, str | None]]:
    return Counter((answer["source"], answer["reason"]) for answer in answers)


def queries(batch: int, size: int) -> list[str]:
    return [f"dog barking {batch} {place}" for place in range(size)]


# Against the stand-in, with a quota a minute

QUOTA, SIZE = 300, 20


@pytest.fixture
def router(task: Task, monkeypatch: pytest.MonkeyPatch) -> Iterator[Router]:
    """Return an environment whose models take QUOTA requests a minute each."""
    settings = Settings(quotas=Quotas(requests_per_minute=QUOTA))
    with BedrockStandIn(s3=MemoryS3(), settings=settings, tls=True) as bedrock:
        endpoint = deployed_student(bedrock, task)
        env = router_env(quota_requests_per_minute=QUOTA)
        runtime, _ = services(env, variables(bedrock.endpoint, bedrock.ca_bundle))
        route = TableDouble(Route(1, (Share("aaaaaaaaaaaa", endpoint, 1.0),)))
        made = make_router(env, task, bedrock=runtime, dynamodb=route)
        # The stand-in's minute does not end either, however long the test takes.
        monkeypatch.setattr(made, "_now", WallClock())
        yield made


def test_caller_after_65_batches_of_another_is_answered_by_the_student(router: Router) -> None:
    """They used to use up the student's and the base model's quota and to open both circuits."""
    for batch in range(BATCHES):
        router.handle(http_event("/routes", {"queries": queries(batch, SIZE)}, CROWD))
    answered = router.handle(http_event("/route", {"query": "engine roaring"}, NEXT))
    assert '"source":"distilled"' in answered["body"]


# Several environments, on a clock


class Metered(BedrockDouble):
    """Models that take 2,000 requests a minute each: a bucket that fills evenly on the clock."""

    def __init__(self) -> None:
        super().__init__(**{STUDENT: STUDENT_SAYS, BASE_MODEL: BASE_SAYS})
        self.clock = WallClock()
        self._left: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def converse(self, **request: Any) -> dict[str, Any]:
        """Answer within the quota."""
        model, now = request["modelId"], self.clock.time
        with self._lock:
            left, since = self._left.get(model, (2000.0, now))
            left = min(left + (now - since) * 2000 / 60, 2000)
            self._left[model] = (max(left - 1, 0.0) if left >= 1 else left), now
        if left < 1:
            raise THROTTLED
        return super().converse(**request)


class Environments:
    """Environments side by side, on one clock and with the same models."""

    def __init__(self, bench: MakeBench, count: int) -> None:
        self.models = Metered()
        self.all: list[Bench] = [bench(self.models, TableDouble(LIVE_ROUTE)) for _ in range(count)]

    def pass_seconds(self, seconds: float) -> None:
        self.models.clock.time += seconds
        for made in self.all:
            made.clock.time += seconds


def test_65_batches_in_8_environments_leave_another_caller_a_model(bench: MakeBench) -> None:
    """The other caller asks an environment after each batch.

    An environment takes 3 s for a batch of 100: eight want 6,500 answers in 24 s, and two models have 5,600.
    """
    environments = Environments(bench, 8)
    crowd: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for batch in range(BATCHES):
        made = environments.all[batch % 8]
        crowd += made.ask_all(queries(batch, 100), CROWD)
        others.append(made.ask(f"engine roaring {batch}", NEXT))
        environments.pass_seconds(3 / 8)
    found = Counter(answer["source"] for answer in others)
    assert found["static"] == 0
    assert found["distilled"] > 50
    # The crowd got what was there.
    assert Counter(answer["source"] for answer in crowd)["distilled"] > 2000


def test_crowd_gets_three_quarters_of_an_environments_quota(bench: MakeBench) -> None:
    made = Environments(bench, 1).all[0]
    answers = [answer for batch in range(20) for answer in made.ask_all(queries(batch, 100), CROWD)]
    assert sources(answers) == {
        ("distilled", None): 250,  # the rest of the minute's 1,500 comes with time
        ("base", "over_allowance"): 250,
        ("static", "over_allowance"): 1500,
    }
    assert made.ask("engine roaring", NEXT)["source"] == "distilled"


# Circuits


def test_throttling_opens_the_circuit_of_its_caller_only(bench: MakeBench) -> None:
    made = bench(student(THROTTLED), TableDouble(LIVE_ROUTE))
    reasons = [made.ask(f"query {number}", CROWD)["reason"] for number in range(FAILURES + 2)]
    assert reasons == ["throttled"] * (FAILURES + 2)
    assert made.bedrock.asked(STUDENT) == 2 * FAILURES, "the last two are not asked"
    failed = [log["source"] for log in made.logs() if log["message"] == "source failed"]
    assert failed == ["distilled"] * FAILURES, "what is not asked is not logged for each query"
    (opened,) = [log for log in made.logs() if log["message"] == "circuit opened"]
    assert (opened["caller"], opened["reason"]) == (CROWD.rpartition("/")[0], "throttled")
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    assert made.ask("another", NEXT)["source"] == "distilled"
    assert made.ask("another yet", CROWD)["reason"] == "throttled"
    made.clock.time += OPEN_SECONDS
    assert made.ask("later", CROWD)["source"] == "distilled"


def test_sessions_of_a_role_share_a_circuit(bench: MakeBench) -> None:
    made = bench(student(THROTTLED), TableDouble(LIVE_ROUTE))
    for number in range(FAILURES):
        made.ask(f"query {number}", f"{CROWD}-{number}")
    asked = made.bedrock.asked(STUDENT)
    assert made.ask("another", f"{CROWD}-new")["reason"] == "throttled"
    assert made.bedrock.asked(STUDENT) == asked


def test_direct_invocations_are_one_caller(bench: MakeBench) -> None:
    made = bench(student(THROTTLED), TableDouble(LIVE_ROUTE))
    for number in range(FAILURES):
        made.ask(f"query {number}")
    asked = made.bedrock.asked(STUDENT)
    assert made.ask("another")["reason"] == "throttled"
    assert made.bedrock.asked(STUDENT) == asked
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    assert made.ask("another", NEXT)["source"] == "distilled"


def test_endpoint_that_is_down_is_down_for_all(bench: MakeBench) -> None:
    made = bench(healthy(**{STUDENT: client_error("InternalServerException", 500)}), TableDouble(LIVE_ROUTE))
    for number in range(FAILURES):
        made.ask(f"query {number}", CROWD)
    asked = made.bedrock.asked(STUDENT)
    assert made.ask("another", NEXT)["reason"] == "circuit_open"
    assert made.bedrock.asked(STUDENT) == asked
    made.clock.time += OPEN_SECONDS
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    # A probe is given back by a caller who may not use it.
    assert made.ask("later", NEXT)["source"] == "distilled"


def test_outage_takes_nothing_from_the_allowance(bench: MakeBench) -> None:
    """The allowance was used up by calls that the open circuit refused."""
    made = bench(
        healthy(**{STUDENT: client_error("InternalServerException", 500)}),
        TableDouble(LIVE_ROUTE),
        quota_requests_per_minute=200,  # 25 at once
    )
    reasons = [made.ask(f"query {number}", CROWD)["reason"] for number in range(100)]
    assert set(reasons[FAILURES:]) == {"circuit_open"}
    made.clock.time += OPEN_SECONDS
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    assert made.ask("later", CROWD)["source"] == "distilled"


def test_refused_call_gives_the_shared_circuits_probe_back(bench: MakeBench) -> None:
    """The one who was refused would leave the circuit waiting for its probe, closed to all."""
    made = bench(
        healthy(**{STUDENT: client_error("InternalServerException", 500)}),
        TableDouble(LIVE_ROUTE),
        quota_requests_per_minute=6,  # one at once, and none in the next ten seconds
    )
    for number in range(FAILURES - 1):
        made.ask(f"query {number}", f"{NEXT}-{number}")
    made.ask("the last one", CROWD)
    assert made.ask("another", NEXT)["reason"] == "circuit_open"
    made.bedrock.says[STUDENT] = STUDENT_SAYS
    made.clock.time += OPEN_SECONDS
    assert made.ask("engine roaring", CROWD)["reason"] == "over_allowance"
    assert made.ask("engine roaring", NEXT)["source"] == "distilled"


def test_retry_takes_from_the_allowance(bench: MakeBench) -> None:
    """Throttled callers made twice as many calls as they were allowed."""
    made = bench(student(THROTTLED), TableDouble(LIVE_ROUTE), quota_requests_per_minute=64)  # 8 at once
    for number in range(20):
        made.ask(f"query {number}", CROWD)
    assert made.bedrock.asked(STUDENT) == 8


def test_used_up_allowance_is_logged_once_a_minute_with_its_caller(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE), quota_requests_per_minute=4)
    for number in range(50):
        made.ask(f"query {number}", CROWD)
    logged = [(log["message"], log["endpoint"], log["caller"]) for log in made.logs()]
    caller = CROWD.rpartition("/")[0]
    assert logged == [("allowance used up", model, caller) for model in (STUDENT, BASE_MODEL)]
    made.clock.time += 60.0
    made.ask_all(queries(0, 20), CROWD)
    assert len(made.logs()) == 4


def test_cached_answers_take_nothing_from_the_allowance(bench: MakeBench) -> None:
    made = bench(healthy(), TableDouble(LIVE_ROUTE), quota_requests_per_minute=4)
    assert [made.ask("dog", CROWD)["source"] for _ in range(50)] == ["distilled"] * 50
    assert [made.ask(query, CROWD)["reason"] for query in ("cat", "cow")] == ["over_allowance"] * 2


def test_answer_that_one_caller_got_for_want_of_allowance_is_cached_for_that_caller(bench: MakeBench) -> None:
    made = bench(healthy(**{STUDENT: [THROTTLED, THROTTLED, STUDENT_SAYS]}), TableDouble(LIVE_ROUTE))
    assert made.ask("dog", CROWD)["reason"] == "throttled"
    answer = made.ask("dog", CROWD)
    assert (answer["source"], answer["cached"]) == ("base", True)
    answer = made.ask("dog", NEXT)
    assert (answer["source"], answer["cached"]) == ("distilled", False)
    answer = made.ask("dog", CROWD)
    assert (answer["source"], answer["cached"]) == ("distilled", True)
