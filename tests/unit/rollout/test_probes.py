"""Probes in each round: real questions to students of the stand-in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from distilled_router.aws.errors import ReplacedError
from distilled_router.data.conversation import Example, examples, row
from distilled_router.data.similarity import families
from distilled_router.release.gate import Gate
from distilled_router.release.rollout import Rollout
from distilled_router.release.route import Share
from distilled_router.release.table import Release
from distilled_router.task.converse import CONCURRENCY, Reply
from distilled_router.task.task import Task
from rollout import probes as module
from rollout.canary import Analysis, CanaryAnalysis
from rollout.evidence import NO_PROBES, WRONG, Answer, Probed
from rollout.metrics import Count, ReleaseMetrics
from rollout.probes import Probes
from tests.unit.release_world import ANY, A, B, World, rollout

DATA = Path(__file__).parents[3] / "data"
TASK = Task.load(DATA.parent / "task")
ROWS = (DATA / "training.jsonl").read_text().splitlines()[:200]
HOLDOUT = (DATA / "holdout.jsonl").read_text().splitlines()[:60]
ROLLOUT = rollout(
    0.5,
    1.0,
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
    requests: dict[str, dict[str, tuple[float, float]]]

    def analyse(
        self, rollout: Rollout = ROLLOUT, *, gate: Gate = ANY, first: bool = False, **fields: Any
    ) -> Analysis:
        release = Release(B, endpoint=self.candidate.endpoint, **fields)
        analysis = CanaryAnalysis(self, "thin", rollout, gate, self.probes)
        return analysis.analyse(release, None if first else self.live, 600)

    def breach(self, rollout: Rollout = ROLLOUT, **more: Any) -> str | None:
        found = self.analyse(rollout, **more)
        assert not found.candidate_unasked + found.live_unasked
        return found.breach

    def get_metric_statistics(self, **wanted: Any) -> dict[str, Any]:
        """Return what CloudWatch would."""
        release = next(d["Value"] for d in wanted["Dimensions"] if d["Name"] == "release")
        bad, of = self.requests.get(release, {}).get(wanted["MetricName"], (0, 0))
        return {"Datapoints": [{"Sum": bad, "SampleCount": of}] if of else []}

    def asked(self) -> dict[str, int]:
        """Return the number of calls of each endpoint, including failed ones."""
        return {endpoint: len(queries) for endpoint, queries in self.queries().items()}

    def queries(self) -> dict[str, list[str]]:
        """Return the queries that each endpoint was asked."""
        found: dict[str, list[str]] = {self.candidate.endpoint: [], self.live.endpoint: []}
        for call in self.world.server.calls("Converse"):
            query = call["parameters"]["messages"][0]["content"][0]["text"]
            found[call["parameters"]["modelId"]].append(query)
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
        task=TASK,
        bucket=world.bucket,
        holdout_key="d/holdout.jsonl",
    )
    candidate, live = shares
    return Thin(world, probes, candidate, live, requests={})


def test_both_are_asked_the_same_and_nothing_speaks_against_a_good_one(thin: Thin) -> None:
    assert thin.breach() is None
    mine, theirs = thin.queries().values()
    assert len(mine) == 10
    assert sorted(mine) == sorted(theirs)


def test_probes_are_asked_however_many_requests_there_are(thin: Thin) -> None:
    """Requests say nothing about the quality of answers."""
    thin.requests = {digest: {"CanaryErrors": (0, 9_000)} for digest in (A, B)}
    assert thin.breach() is None
    assert set(thin.asked().values()) == {10}


def test_later_rounds_go_on_where_the_earlier_ones_stopped(
    thin: Thin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And they come to the whole hold-out set, one row of each family first."""
    monkeypatch.setattr(module, "CONCURRENCY", 1)  # calls come in the order of the probes
    kin = families([example.query for example in examples(HOLDOUT, TASK)])
    rollout = replace(ROLLOUT, probes=20)
    probed = ""
    for number in range(1, 4):
        found = thin.analyse(rollout, probed=probed)
        probed = found.probes.to_text()
        assert (found.probes.asked, found.probes.families) == (number * 20, len(set(kin)))
    asked = thin.queries()[thin.candidate.endpoint]
    assert sorted(asked) == sorted(example.query for example in examples(HOLDOUT, TASK))
    of = {example.query: family for example, family in zip(examples(HOLDOUT, TASK), kin, strict=True)}
    first = {of[query] for query in asked[: len(set(kin))]}
    assert len(first) == len(set(kin))


def test_another_candidate_is_asked_in_another_order(thin: Thin) -> None:
    for digest in (A, B):
        thin.probes.ask([thin.candidate.endpoint], 20, digest=digest, latency_margin=0.5)
    asked = thin.queries()[thin.candidate.endpoint]
    assert set(asked[:20]) != set(asked[20:])


def test_families_that_are_asked_again_count_once() -> None:
    """The same queries get the same answers, so they are no more evidence."""
    metrics = ReleaseMetrics({"fallback_rate": Count(30, 300)})
    probed = Probed(asked=300, families=100, candidate=metrics, live=metrics, lost=60, won=3, both=300)
    once = probed.once()
    assert once.candidate.of("fallback_rate") == Count(10, 100)
    assert (once.lost, once.won, once.both) == (20, 1, 100)
    assert replace(probed, families=300).once() == replace(probed, families=300)


@pytest.mark.parametrize(("asked", "rows"), [(50, 50), (100, 100), (150, 90), (200, 100), (250, 96.15)])
def test_half_a_turn_more_is_no_more_evidence(asked: int, rows: float) -> None:
    """The families that were asked once more weigh more than the others, so all together are worth less."""
    probed = Probed(asked=asked, families=100, candidate=ReleaseMetrics({"error_rate": Count(0, asked)}))
    assert probed.once().candidate.of("error_rate").of == pytest.approx(rows, abs=0.01)


def test_answers_of_an_earlier_live_release_do_not_count(thin: Thin) -> None:
    """An operator may change the live release during a rollout; the candidate's own answers stay."""
    metrics = ReleaseMetrics({"fallback_rate": Count(0, 500)})
    probed = Probed(
        asked=500, families=900, candidate=metrics, live=metrics, lost=400, both=500, live_digest="c" * 12
    )
    assert thin.breach(gate=replace(ANY, not_worse=True), probed=probed.to_text()) is None
    found = thin.analyse(probed=probed.to_text()).probes
    assert (found.candidate.of("fallback_rate").of, found.live.of("fallback_rate").of) == (510, 10)
    assert (found.lost, found.both, found.slower.of, found.live_digest) == (0, 10, 10, A)
    same = replace(probed, live_digest=A).to_text()
    assert "the candidate alone answers" in str(thin.breach(gate=replace(ANY, not_worse=True), probed=same))


def test_evidence_is_kept_on_the_releases_item() -> None:
    answers = [
        [Answer(latency_ms=612.5), Answer(latency_ms=12.5, invalid=True)],
        [Answer(wrong=True), Answer()],
    ]
    probed = replace(Probed.of(answers, 7, 0.5), live_digest=A)
    assert Probed.from_text(probed.to_text()) == replace(probed, unasked=())
    assert (probed.lost, probed.won, probed.both, probed.slower) == (1, 1, 2, Count(1, 1))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"asked": 3}', '{"candidate": []}', "not JSON"])
def test_damaged_evidence_is_none(text: str) -> None:
    assert Probed.from_text(text) == NO_PROBES


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
    assert problem == (
        "invalid output rate is 100.0% of 0 queries and 10 probes, clearly above the allowed 5.0%"
    )


@pytest.mark.parametrize("kind", ["throttled", "denied", "not_ready", "not_found", "unavailable"])
def test_candidate_that_can_not_be_asked_has_answered_nothing_wrongly(thin: Thin, kind: str) -> None:
    thin.world.server.fault(kind, operation="Converse", count=None, modelId=thin.candidate.endpoint)
    found = thin.analyse()
    reason = f"the candidate could not be asked 10 of 10 hold-out queries: 10 {kind.replace('_', ' ')}"
    assert (found.breach, found.candidate_unasked, found.live_unasked) == (None, reason, "")


def test_query_that_bedrock_refuses_is_a_fallback(thin: Thin) -> None:
    thin.world.server.fault("validation", operation="Converse", count=5, modelId=thin.candidate.endpoint)
    told = "fallback rate is 50.0% of 0 queries and 10 probes, clearly above the allowed 10.0%"
    assert thin.breach() == told


def test_answer_that_the_routers_code_can_not_read_is_an_error(
    thin: Thin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router counts it as an error too: it reads answers by the same code."""

    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Reply, "weights", fail)
    found = thin.analyse(first=True)
    assert found.breach == "error rate is 100.0% of 0 queries and 10 probes, clearly above the allowed 5.0%"


def test_live_release_that_can_not_be_asked_makes_no_candidate_better(thin: Thin) -> None:
    """Calls that failed are not its fallbacks, which the candidate could have as many of."""
    thin.world.server.fault("throttled", operation="Converse", count=8, modelId=thin.live.endpoint)
    thin.world.server.fault("output_prose", count=1, modelId=thin.candidate.endpoint)
    found = thin.analyse(replace(ROLLOUT, maximum_invalid_output_rate=0.2))
    reason = "the live release could not be asked 8 of 10 hold-out queries: 8 throttled"
    assert (found.breach, found.candidate_unasked, found.live_unasked) == (None, "", reason)


def test_round_that_is_lost_sends_no_more_probes(thin: Thin) -> None:
    """They would only take more of a quota that users' queries need."""
    thin.world.server.fault("throttled", operation="Converse", count=None, modelId=thin.live.endpoint)
    found = thin.analyse(replace(ROLLOUT, probes=200))
    assert "the live release could not be asked" in found.live_unasked
    assert found.probes.asked <= module.MOST_UNASKED + CONCURRENCY
    assert len(thin.world.server.calls("Converse")) <= 2 * (module.MOST_UNASKED + CONCURRENCY)


def test_few_probes_that_failed_change_nothing(thin: Thin) -> None:
    rollout = replace(ROLLOUT, probes=40)
    thin.world.server.fault("throttled", operation="Converse", count=2, modelId=thin.candidate.endpoint)
    assert thin.breach(rollout) is None
    thin.world.server.fault("output_prose", count=None, modelId=thin.candidate.endpoint)
    thin.world.server.fault("throttled", operation="Converse", count=2, modelId=thin.candidate.endpoint)
    assert "fallback rate is 100.0%" in str(thin.breach(rollout))


def test_requests_and_probes_count_together(thin: Thin) -> None:
    """Two of 30 requests and five of ten probes."""
    thin.requests = {B: {"CanaryFallback": (2, 30)}}
    thin.world.server.fault("output_prose", count=5, modelId=thin.candidate.endpoint)
    told = "fallback rate is 17.5% of 30 queries and 10 probes, clearly above the allowed 5.0%"
    assert thin.breach(replace(ROLLOUT, maximum_fallback_rate=0.05, maximum_invalid_output_rate=1)) == told


def test_good_probes_do_not_hide_bad_requests(thin: Thin) -> None:
    thin.requests = {B: {"CanaryFallback": (14, 30)}}
    probed = Probed(
        asked=900,
        families=1_000,
        candidate=ReleaseMetrics({"fallback_rate": Count(0, 900)}),
        live=ReleaseMetrics({"fallback_rate": Count(0, 900)}),
        both=900,
    )
    told = "fallback rate is 46.7% of 30 queries, clearly above the allowed 10.0%"
    assert thin.breach(probed=probed.to_text()) == told


def test_candidate_whose_answers_are_wrong_is_found(thin: Thin) -> None:
    """All parse, and fast: only references tell that its endpoint does not serve the evaluated model."""
    always_last = {label: float(label == TASK.labels[-1]) for label in TASK.labels}
    last = [Example(one.query, always_last) for one in examples(ROWS, TASK)]
    body = "\n".join(json.dumps(row(TASK, one.query, one.weights)) for one in last)
    model = thin.world.train("c" * 12, body.encode())
    endpoint = thin.world.deploy("c" * 12, model)
    thin.candidate = replace(thin.candidate, endpoint=endpoint)
    rollout = replace(ROLLOUT, probes=60)
    strict = replace(ANY, minimum_dominant_accuracy=0.7)
    assert "the dominant label is wrong in" in str(thin.breach(rollout, gate=strict, first=True))
    beside = replace(ANY, not_worse=True, non_inferiority_margin=0.05)
    assert "the candidate alone answers" in str(thin.breach(rollout, gate=beside))
    assert thin.breach(rollout) is None


@pytest.mark.parametrize(("wrong", "found"), [(180, False), (215, False), (240, True)])
def test_candidate_that_the_gate_passed_on_all_rows_is_not_refused_for_its_families(
    thin: Thin, wrong: int, found: bool
) -> None:
    """A large family that is right counts once here, and by its rows at the gate."""
    gate = replace(ANY, minimum_dominant_accuracy=0.85, non_inferiority_margin=0.05)
    metrics = ReleaseMetrics({WRONG: Count(wrong, 1_000)})
    probed = Probed(asked=1_000, families=2_000, candidate=metrics)
    problem = thin.breach(replace(ROLLOUT, probes=0), gate=gate, probed=probed.to_text(), first=True)
    told = "the dominant label is wrong in 24.0% of 1000 probes, clearly above the allowed 20.0%"
    assert problem == (told if found else None)


def test_equal_candidate_has_no_loss_of_quality(thin: Thin) -> None:
    strict = replace(ANY, not_worse=True, non_inferiority_margin=0.0)
    found = thin.analyse(replace(ROLLOUT, probes=60), gate=strict)
    assert found.breach is None
    assert found.probes.candidate.of(WRONG) == found.probes.live.of(WRONG)
    assert (found.probes.lost, found.probes.won, found.probes.both) == (0, 0, 60)


@pytest.mark.parametrize(
    ("mine", "theirs", "slower"),
    [(900, 500, Count(1, 1)), (740, 500, Count(0, 1)), (60, 15, Count(0, 1)), (900, None, Count())],
)
def test_pair_of_answers_tells_whether_the_candidate_is_slower(
    mine: float, theirs: float | None, slower: Count
) -> None:
    """By more than the margin and 50 ms."""
    assert Probed.of([[Answer(latency_ms=mine), Answer(latency_ms=theirs)]], 1, 0.5).slower == slower


@pytest.mark.parametrize(("slower", "found"), [(600, True), (520, False), (30, False)])
def test_candidate_that_is_slower_for_most_probes_is_rolled_back(
    thin: Thin, slower: int, found: bool
) -> None:
    """Not one whose mean is higher because of a few very slow answers."""
    probed = Probed(asked=1_000, families=2_000, slower=Count(slower, 1_000), live_digest=A)
    problem = thin.breach(replace(ROLLOUT, probes=0), probed=probed.to_text())
    told = (
        f"its model takes more than 1.5 times as long as that of the live release for {slower} of 1000 probes"
    )
    assert problem == (f"{told}, clearly more than half" if found else None)


def test_an_endpoint_that_hangs_is_not_asked_until_the_function_dies(
    thin: Thin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers so far count; the next round goes on after them."""
    ticks = count(0, 25)
    monkeypatch.setattr(module, "CONCURRENCY", 1)
    slow = replace(thin.probes, clock=lambda: float(next(ticks)))
    found = slow.ask([thin.candidate.endpoint], 10, digest=B, latency_margin=0.5)
    assert found.asked == thin.asked()[thin.candidate.endpoint] == 4


def test_an_unreadable_hold_out_set_is_an_error_and_no_decision(thin: Thin) -> None:
    lost = replace(thin.probes, holdout_key="nothing")
    with pytest.raises(thin.world.s3.exceptions.NoSuchKey):
        lost.ask([thin.candidate.endpoint], 1, digest=B, latency_margin=0.5)


def test_probes_of_a_replaced_hold_out_set_are_not_sent(thin: Thin) -> None:
    sha256 = hashlib.sha256("\n".join(HOLDOUT).encode()).hexdigest()
    assert thin.breach(holdout_sha256=sha256) is None
    asked = thin.asked()
    thin.world.s3.put_object(Bucket=thin.world.bucket, Key="d/holdout.jsonl", Body=HOLDOUT[0].encode())
    with pytest.raises(ReplacedError, match=r"d/holdout.jsonl was replaced after it was published"):
        thin.analyse(holdout_sha256=sha256)
    assert thin.asked() == asked


@pytest.fixture(autouse=True)
def _no_network(aws: Callable[[str], Any]) -> None:
    """Use the emulator's bucket."""
    del aws
