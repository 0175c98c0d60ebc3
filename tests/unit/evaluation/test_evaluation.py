"""The evaluation of a release, with real students that the stand-in trains from the sample data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest

import evaluation.handler
from distilled_router.aws.objects import json_lines
from distilled_router.aws.state_machine import wait_if_transient
from distilled_router.env import EvaluationEnv
from distilled_router.release.route import Share
from distilled_router.release.table import EVALUATING, SUPERSEDED
from distilled_router.task.converse import CONCURRENCY
from distilled_router.task.robustness import Robustness
from evaluation.ask_models import ask_shard
from evaluation.attempt import evaluation_of
from evaluation.attempt import row as kept
from evaluation.contenders import CANDIDATE
from evaluation.metrics import Answer
from evaluation.prepare_evaluation import prepare
from evaluation.score_and_gate import score, told
from tests.unit.evaluation.court import ASKED, DATA, GATE, LAX, ROWS, Court, strict, worse
from tests.unit.release_world import OWNER, A, B, Proxy, World


def test_with_a_malformed_route_the_candidate_is_compared_with_the_route_in_use(
    world: World, court: Court
) -> None:
    court.candidate()
    court.go_live()
    world.releases.table.put_item(
        Item={"id": world.releases.key("route"), "version": "none", "shares": "all of them"}
    )
    court.evaluate()
    assert court.report()["contenders"]["live"]["title"] == f"live release {B}"


def test_good_candidate_passes_and_its_report_is_kept(world: World, court: Court) -> None:
    court.candidate(ROWS)
    result = court.evaluate(gate=GATE)
    assert result["outcome"] == "done"
    assert result["message"].startswith(f"{ASKED} queries: valid output 100.0%, dominant label ")
    kept = court.report()
    assert (kept["release"], kept["passed"], kept["reasons"]) == (A, True, [])
    assert kept["model"] == world.release(A).model_arn
    assert kept["data"] == {
        "holdout": f"s3://{world.bucket}/datasets/d/holdout.jsonl",
        "holdout_sha256": world.release(A).holdout_sha256,
        "questions": ASKED,
        "slices": {"holdout": ASKED},
    }
    scores = {name: found["value"] for name, found in court.metrics().items()}
    assert scores["output_tokens"] <= 11
    assert scores["input_tokens"] > 10
    assert 0 < scores["latency_p50_ms"] <= scores["latency_p95_ms"] <= scores["latency_p99_ms"]
    # Nova Micro's prices for these tokens: USD 0.035 and 0.14 per million.
    tokens = scores["input_tokens"] * 0.035 + scores["output_tokens"] * 0.14
    assert scores["cost_per_1000_usd"] == pytest.approx(tokens / 1_000)
    assert all(found["low"] <= found["value"] <= found["high"] for found in court.metrics().values())
    assert len(kept["worst"]) == 20
    item = world.releases.table.get_item(Key={"id": world.releases.key(f"release@{A}")})["Item"]
    assert item is not None
    assert strict(item["scores"]) == {"examples": ASKED, **scores}
    assert item["report"] == f"s3://{world.bucket}/releases/{OWNER}/{A}-1/report.html"
    (key,) = court.keys("report.html")
    body = world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read().decode()
    assert "Passed" in body
    assert A in body
    assert world.release(A).state == EVALUATING


def test_candidate_is_asked_as_the_router_asks(world: World, court: Court) -> None:
    court.candidate()
    court.evaluate()
    call = world.server.calls("Converse")[0]["parameters"]
    assert call["modelId"] == world.release(A).endpoint
    assert call["system"] == [{"text": court.task.student_prompt}]
    assert call["inferenceConfig"] == {"temperature": 0.0, "maxTokens": 16}
    assert len(call["messages"]) == 1


def test_queries_like_trained_ones_are_scored_beside_and_decide_nothing(world: World, court: Court) -> None:
    court.candidate()
    rows = [json.loads(row) for row in ROWS[:50]]
    for row in rows:
        row["messages"][1] = rows[0]["messages"][1]  # mostly wrong
        row["count"] = 3
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    world.s3.put_object(Bucket=world.bucket, Key="datasets/d/traffic.jsonl", Body=body)
    assert court.evaluate(slice_queries=5)["outcome"] == "done"
    report = court.report()
    assert report["contenders"]["candidate"]["slices"]["traffic"]["rows"] == 50
    assert report["data"]["slices"]["holdout"] == ASKED


def test_student_of_bad_data_is_refused(court: Court) -> None:
    """Each query has the next query's label."""
    rows = [json.loads(line) for line in ROWS[:600]]
    answers = [row["messages"][1] for row in rows]
    for row, given in zip(rows, [*answers[1:], answers[0]], strict=True):
        row["messages"][1] = given
    court.candidate(list(map(json.dumps, rows)))
    result = court.evaluate(gate=GATE)
    assert result["outcome"] == "failed"
    first, *findings = result["message"].splitlines()
    report = court.report()
    failed = [check for check in report["checks"] if not check["ok"]]
    assert first == (
        f"refused by the gate: {len(failed)} of {len(report['checks'])} checks failed. Next: read its report "
        '(`make report`), and "Refused by the gate" in docs/runbook.md.'
    )
    assert findings[: len(failed)] == [f"- {reason}" for reason in report["reasons"]]
    assert findings[0].startswith("- Dominant label right for ")
    assert any(finding.startswith("- Mean absolute error ") for finding in findings)
    assert report["passed"] is False


def test_a_message_names_the_first_findings_and_counts_the_others(court: Court) -> None:
    court.candidate()
    court.evaluate()
    report = {**court.report(), "decided": True, "reasons": [f"Finding {number}." for number in range(11)]}
    message = told(report)[0]["message"]
    assert "\n- Finding 7.\n- And 3 more, in the report." in message
    assert "Finding 8" not in message


@pytest.mark.parametrize("kind", ["output_prose", "output_not_numbers", "output_empty", "output_too_few"])
def test_candidate_that_writes_no_weights_is_refused(world: World, court: Court, kind: str) -> None:
    court.candidate()
    world.server.fault(kind, count=None)
    result = court.evaluate()
    assert result["outcome"] == "failed"
    assert "\n- Valid output for 0.0% of 40 queries; at least 98.0% wanted.\n" in result["message"]
    assert "\n- Mean absolute error unknown; at most 0.500 wanted.\n" in result["message"]
    assert "\nFirst problem: " in result["message"]
    assert court.metrics()["mean_absolute_error"] is None
    assert court.metrics()["rubric"]["value"] == 1
    assert [answer["weights"] for answer in court.report()["worst"]] == [None] * 20
    # All questions were asked: only failed calls end the stage early, not invalid answers.
    assert world.calls("Converse") == ASKED


def test_what_died_is_taken_up_where_it_was(world: World, court: Court) -> None:
    court.candidate()

    def die(**_: Any) -> None:
        raise KeyboardInterrupt

    dying = court.evaluation(s3=Proxy(world.s3, put_object=die))
    with pytest.raises(KeyboardInterrupt):
        prepare(A, world.releases, dying)
    assert court.evaluate()["outcome"] == "done"
    asked = world.calls("Converse")
    # The stored answers are scored again, without new calls.
    assert court.evaluate()["outcome"] == "done"
    assert (world.calls("Converse"), asked) == (ASKED, ASKED)
    assert court.report()["passed"] is True


def test_shard_that_was_not_answered_is_reported_and_nothing_is_promoted(world: World, court: Court) -> None:
    court.candidate()
    assert prepare(A, world.releases, court.evaluation())["outcome"] == "done"
    told = score(A, world.releases, court.evaluation())
    assert (told["outcome"], told["message"]) == (
        "failed",
        "not evaluated: 40 of 40 questions were not asked, starting with holdout-000000. AskModels was "
        "stopped, timed out or had too little memory: see its log. Raise release.attempt to evaluate the "
        "candidate again.",
    )


def test_many_questions_are_asked_in_shards_and_scored_together(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.questions.SHARD_QUESTIONS", 15)
    court.candidate()
    assert court.evaluate()["outcome"] == "done"
    assert [key.rsplit("/", 2)[-2] for key in court.keys("answers/")] == [
        f"0000{number}" for number in range(3)
    ]
    assert court.metrics()["valid_output"]["rows"] == ASKED


def test_answers_are_kept_a_part_at_a_time_and_a_crash_costs_one_part(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.ask_models.PART_QUESTIONS", 15)
    court.candidate()
    prepare(A, world.releases, court.evaluation())
    asked = []

    def converse(**request: Any) -> Any:
        asked.append(request)
        if len(asked) > 20:
            raise KeyboardInterrupt
        return court.runtime.converse(**request)

    with pytest.raises(KeyboardInterrupt):
        ask_shard(
            A,
            "00000.jsonl",
            world.releases,
            court.evaluation(runtime=Proxy(court.runtime, converse=converse)),
        )
    before = world.calls("Converse")
    assert court.evaluate()["outcome"] == "done"
    assert world.calls("Converse") - before == ASKED - 15
    ids = [row["id"] for row in court.rows("answers/") if row["by"] == "candidate"]
    assert len(ids) == len(set(ids)) == ASKED


def test_long_shard_is_asked_in_several_invocations_and_nothing_twice(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.ask_models.PART_QUESTIONS", 15)
    monkeypatch.setattr("evaluation.ask_models.ASK_SECONDS", -1)
    court.candidate()
    prepare(A, world.releases, court.evaluation())
    first = ask_shard(A, "00000.jsonl", world.releases, court.evaluation())
    assert (first["outcome"], first["seconds"]) == ("waiting", 1)
    assert first["message"] == "shard 00000: 15 of 40 questions are answered"
    assert court.evaluate()["outcome"] == "done"
    assert world.calls("Converse") == ASKED


def test_shard_of_a_release_that_has_ended_asks_no_more_questions(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping an execution does not stop a running function."""
    monkeypatch.setattr("evaluation.ask_models.PART_QUESTIONS", 15)
    court.candidate()
    prepare(A, world.releases, court.evaluation())

    def converse(**request: Any) -> Any:
        world.releases.transition(A, SUPERSEDED, "by another")
        return court.runtime.converse(**request)

    stopped = ask_shard(
        A, "00000.jsonl", world.releases, court.evaluation(runtime=Proxy(court.runtime, converse=converse))
    )
    assert stopped["outcome"] == "failed"
    assert world.calls("Converse") == 15


def test_report_that_an_earlier_life_of_the_stack_left_is_not_taken_for_this_ones(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new stack counts attempts from 1, and retained reports of the old one still exist."""
    monkeypatch.setattr("evaluation.questions.SHARD_QUESTIONS", 15)
    court.candidate(ROWS)
    assert court.evaluate(gate=GATE)["outcome"] == "done"
    asked = world.calls("Converse")
    world.releases.update(A, request_id="another life", seal="another key", holdout_sha256="")
    court.hold_out((DATA / "holdout.jsonl").read_text().splitlines()[:20])
    world.server.fault("output_prose", count=None)
    result = court.evaluate(gate=replace(GATE, minimum_examples=20))
    assert "\n- Valid output for 0.0% of " in result["message"]
    assert world.calls("Converse") - asked == 20
    assert court.report()["data"]["questions"] == 20


def test_another_attempt_asks_anew(world: World, court: Court) -> None:
    court.candidate()
    court.evaluate()
    found = world.release(A)
    world.begin(A, attempt=2, model_arn=found.model_arn, endpoint=found.endpoint)
    court.evaluate()
    assert world.calls("Converse") == 2 * ASKED
    assert court.report()["attempt"] == 2


def test_everybody_answers_the_same_questions(world: World, court: Court) -> None:
    court.go_live()
    court.candidate(ROWS)
    result = court.evaluate(base_model="us.amazon.nova-micro-v1:0")
    assert result["outcome"] == "done"
    assert "router.base_model" not in result["message"]
    kept = court.report()
    assert list(kept["contenders"]) == ["candidate", "live", "base", "static", "constant"]
    assert kept["contenders"]["live"]["title"] == f"live release {B}"
    assert kept["contenders"]["live"]["endpoint"] == world.release(B).endpoint
    for name in kept["contenders"]:
        assert court.metrics(name)["dominant_accuracy"]["rows"] == ASKED
    # They make no calls, so none can fail.
    assert court.metrics("static")["valid_output"]["value"] == 1.0
    assert court.metrics("static")["latency_p50_ms"] is None
    assert court.metrics("static")["cost_per_1000_usd"] is None
    prompts = {call["parameters"]["system"][0]["text"] for call in world.server.calls("Converse")}
    assert prompts == {court.task.student_prompt, court.task.teacher_prompt}
    # Trained on the same rows, they give the same answers.
    same = kept["comparisons"]["dominant_accuracy"]
    assert (same["value"], same["rows"]) == (0.0, ASKED)
    # So few questions don't show that they are equal.
    assert -0.2 < same["low"] < -0.07


def test_candidate_that_passes_every_threshold_but_is_worse_than_the_live_release_is_refused(
    world: World, court: Court
) -> None:
    court.go_live()
    court.candidate(worse(ROWS[:600]))
    result = court.evaluate()
    assert result["outcome"] == "failed"
    assert " than with the live release; at most " in result["message"]
    assert {check["against"] for check in court.report()["checks"] if not check["ok"]} == {"live"}
    again = court.evaluate(gate=replace(LAX, not_worse=False))
    assert again["outcome"] == "done"


def test_release_that_serves_already_is_not_compared_with_itself(world: World, court: Court) -> None:
    court.candidate(ROWS)
    found = world.release(A)
    world.releases.set_route(
        (Share(A, found.endpoint, 1.0),), after=world.releases.route(), reason="serves already"
    )
    assert court.evaluate()["outcome"] == "done"
    assert list(court.report()["contenders"]) == ["candidate", "static", "constant"]


def test_slices_are_scored_apart_from_the_hold_out_set(world: World, court: Court) -> None:
    court.candidate(ROWS)
    assert (
        court.evaluate(robustness=Robustness.load(court.task, DATA.parent / "task"), slice_queries=5)[
            "outcome"
        ]
        == "done"
    )
    kept = court.report()
    slices = kept["contenders"]["candidate"]["slices"]
    assert set(slices) == {
        *("typos", "upper_case", "paraphrases", "injections", "very_long"),
        *("out_of_domain", "other_languages"),
    }
    assert court.metrics()["valid_output"]["rows"] == ASKED
    assert slices["typos"]["metrics"]["consistency"]["rows"] == slices["typos"]["rows"]
    assert slices["out_of_domain"]["metrics"]["dominant_accuracy"] is None
    assert slices["out_of_domain"]["metrics"]["consistency"] is None
    assert slices["out_of_domain"]["metrics"]["valid_output"]["value"] == 1.0
    assert kept["data"]["slices"]["typos"] == slices["typos"]["rows"] <= 5


def test_scores_by_label_and_by_length_add_up(court: Court) -> None:
    court.candidate(ROWS)
    court.evaluate()
    kept = court.report()["contenders"]["candidate"]
    for parts in (kept["by_label"], kept["by_length"]):
        assert sum(part["rows"] for part in parts.values()) == ASKED
    assert sum(sum(row.values()) for row in kept["confusion"].values()) == ASKED
    assert sum(kept["latency"]["counts"]) == ASKED
    assert list(kept["label_errors"]) == list(court.task.labels)
    assert all(sorted(found) == found for found in kept["label_errors"].values())


def test_superseded_candidate_is_not_asked(world: World, court: Court) -> None:
    world.begin(A, endpoint="arn:a")
    world.releases.transition(A, SUPERSEDED, "by another")
    assert court.evaluate()["outcome"] == "failed"
    assert world.calls("Converse") == 0


def test_unknown_release_is_not_asked(world: World, court: Court) -> None:
    assert court.evaluate()["outcome"] == "failed"
    assert world.releases.get(A) is None


def test_base_model_that_answers_nothing_is_named(world: World, court: Court) -> None:
    court.candidate(ROWS)
    base = "us.amazon.nova-micro-v1:0"
    world.server.fault("denied", operation="Converse", modelId=base, count=None)
    result = court.evaluate(base_model=base)
    assert result["outcome"] == "done"
    assert f"router.base_model {base} answered none of " in result["message"]
    assert "static weights are the only fallback: AccessDeniedException" in result["message"]


def test_hold_out_that_is_too_small_is_refused(court: Court) -> None:
    court.candidate()
    court.hold_out((DATA / "holdout.jsonl").read_text().splitlines()[: ASKED - 1])
    assert "\n- Hold-out set of 39 queries; at least 40 wanted." in court.evaluate()["message"]


def test_empty_hold_out_is_refused_and_not_divided_by(world: World, court: Court) -> None:
    world.begin(A, endpoint="arn:a")
    court.hold_out([])
    assert "\n- Hold-out set of 0 queries; " in court.evaluate()["message"]
    assert court.report()["worst"] == []


def test_handler_reads_its_gate_and_waits_out_a_throttle(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.begin(A, attempt=1)
    env = EvaluationEnv(
        owner=OWNER,
        table_name="releases",
        bucket=world.bucket,
        holdout_key="datasets/d/holdout.jsonl",
        training_key="datasets/t/training.jsonl",
        gate=GATE.__dict__,
        base_model="us.amazon.nova-micro-v1:0",
        slice_queries=100,
        outage_minutes=7,
        judge="",
    )
    for name, value in env.variables().items():
        monkeypatch.setenv(name, value)
    slow = Proxy(world.s3, get_object=lambda **_: world.bedrock.get_custom_model(modelIdentifier="m"))
    monkeypatch.setattr(evaluation.handler, "client", lambda _: slow)
    monkeypatch.setattr(evaluation.handler, "table", lambda _: world.releases.table)
    found = evaluation_of(EvaluationEnv.read(), slow)
    assert (found.gate, found.slice_queries, found.outage_seconds) == (GATE, 100, 420)
    world.server.fault("throttled", operation="GetCustomModel")
    assert evaluation.handler.prepare_evaluation({"release": A}, None)["outcome"] == "waiting"


def test_few_questions_are_asked_at_a_time() -> None:
    """An endpoint takes 2,000 requests a minute, which live traffic shares."""
    assert CONCURRENCY <= 8


# Somebody else writes to the bucket


def published(court: Court) -> str:
    """Note the hash of the hold-out set, as WatchJob does; return it."""
    world = court.world
    body = world.s3.get_object(Bucket=world.bucket, Key="datasets/d/holdout.jsonl")["Body"].read()
    sha256 = hashlib.sha256(body).hexdigest()
    world.releases.update(A, holdout_sha256=sha256)
    return sha256


def test_hold_out_set_that_was_replaced_after_it_was_published_is_not_asked(
    world: World, court: Court
) -> None:
    court.candidate()
    sha256 = published(court)
    easy = (DATA / "holdout.jsonl").read_text().splitlines()[:1] * ASKED
    court.hold_out(easy)
    result = wait_if_transient(court.evaluate, 60)
    assert result["outcome"] == "failed"
    assert f"s3://{world.bucket}/datasets/d/holdout.jsonl was replaced" in result["message"]
    assert f"expected {sha256}" in result["message"]
    assert world.calls("Converse") == 0


def test_first_hold_out_set_counts_if_nobody_knows_its_hash(world: World, court: Court) -> None:
    court.candidate(ROWS)
    assert court.evaluate()["outcome"] == "done"
    body = world.s3.get_object(Bucket=world.bucket, Key="datasets/d/holdout.jsonl")["Body"].read()
    assert world.release(A).holdout_sha256 == hashlib.sha256(body).hexdigest()


def forge(court: Court, key: str, old: str, new: str) -> str:
    """Replace a file of the attempt, with the metadata that it had; return its URI."""
    s3, bucket = court.world.s3, court.world.bucket
    found = s3.get_object(Bucket=bucket, Key=key)
    body = found["Body"].read().decode()
    assert old in body
    s3.put_object(Bucket=bucket, Key=key, Body=body.replace(old, new).encode(), Metadata=found["Metadata"])
    return f"s3://{bucket}/{key}"


@pytest.mark.parametrize(
    ("under", "old", "new"),
    [
        ("plan.json", '"candidate"', '"candidate" '),
        ("questions/", '"query"', '"query" '),
        ("answers/", '"weights"', '"weights" '),
    ],
)
def test_file_that_was_replaced_between_two_steps_decides_nothing(
    world: World, court: Court, under: str, old: str, new: str
) -> None:
    court.candidate(ROWS)
    assert court.evaluate()["outcome"] == "done"
    uri = forge(court, court.keys(under)[0], old, new)
    asked, evaluation = world.calls("Converse"), court.evaluation()
    for step in (
        lambda: score(A, world.releases, evaluation),
        lambda: ask_shard(A, "00000.jsonl", world.releases, evaluation),
    ):
        result = wait_if_transient(step, 60)
        assert result["outcome"] == "failed"
        assert f"{uri} was not written by these functions, or was replaced" in result["message"]
    assert world.calls("Converse") == asked


def test_answers_that_somebody_added_are_not_used(world: World, court: Court) -> None:
    court.candidate()
    prepare(A, world.releases, court.evaluation())
    right = [kept(CANDIDATE, Answer(f"holdout-{n:06d}", court.task.static_weights)) for n in range(ASKED)]
    body = b"".join(json_lines(right))
    key = f"releases/{OWNER}/{A}-1/answers/{world.release(A).life}/00000/000.jsonl"
    world.s3.put_object(Bucket=world.bucket, Key=key, Body=body)
    result = wait_if_transient(lambda: ask_shard(A, "00000.jsonl", world.releases, court.evaluation()), 60)
    assert (result["outcome"], world.calls("Converse")) == ("failed", 0)
    assert "expected their seal, found none" in result["message"]
