"""The step TrainHead: a head in the end or the reason why there is none, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

import evaluation.handler
from distilled_router.aws.state_machine import StageResult
from distilled_router.data.conversation import examples, row
from distilled_router.env import TrainHeadEnv
from distilled_router.head.model import Head
from distilled_router.head.training import Training
from distilled_router.release.route import Share
from distilled_router.release.table import EVALUATING, LIVE, ROLLING_OUT, SUPERSEDED
from distilled_router.task.task import Task
from evaluation.attempt import Evaluation, answers_folder
from evaluation.attempt import row as kept
from evaluation.contenders import CANDIDATE
from evaluation.head_report import Margins
from evaluation.metrics import Answer
from evaluation.train_head import MOST_SECONDS, train
from tests.unit.evaluation.court import ROWS, Court, strict
from tests.unit.release_world import OWNER, A, Proxy, World

TRAINING = "datasets/t/training.jsonl"
SAMPLES = "datasets/t/samples.jsonl"
MARGINS = Margins(0.02, 0.03)
HEAD_KEY = f"releases/{OWNER}/{A}-1/head.bin"
# Two queries of one family, so that no trials are needed: a head learns them within a second, in two passes.
TASK = Task.load()
FEW = [
    json.dumps(row(TASK, query, dict(zip(TASK.labels, weights, strict=True))))
    for query, weights in (
        ("a red car at night", (0.9, 0.0, 0.0, 0.1)),
        ("find a red car at night", (0.1, 0.8, 0.1, 0.0)),
    )
]
INVALID = Answer("", None, "no weights", latency_ms=200.0, input_tokens=50, output_tokens=9)

type Given = Callable[[Any], Answer | None]


def right(question: Mapping[str, Any]) -> Answer:
    """Return the candidate's answer that equals the reference."""
    return Answer("", question["reference"], latency_ms=200.0, input_tokens=50, output_tokens=9)


class Bench:
    """An attempt of release A whose hold-out questions the candidate has answered, and training rows in S3.

    Training rows are few. The hold-out queries are trained ones with a number, each a family of its own.
    """

    def __init__(self, court: Court) -> None:
        self.court, self.world = court, court.world
        self.world.begin(
            A, model_arn="arn:aws:bedrock:us-east-1:1:custom-model/amazon.nova-micro-v1:0:128k/m"
        )
        self.put(TRAINING, "\n".join(FEW))
        self.hold_out(120)

    def put(self, key: str, body: str) -> None:
        self.world.s3.put_object(Bucket=self.world.bucket, Key=key, Body=body.encode())

    def hold_out(self, rows: int, given: Given = right, slices: Sequence[str] = ("holdout",)) -> None:
        """Write questions as PrepareEvaluation does, and the candidate's answers as AskModels does."""
        folder = self.evaluation().folder(self.world.release(A))
        learnt = list(examples(FEW, self.court.task))
        questions = [
            {
                "id": f"{name}-{number:06d}",
                "slice": name,
                "query": learnt[number % 2].query,
                "reference": learnt[number % 2].weights,
                "family": number,
            }
            for name in slices
            for number in range(rows)
        ]
        plan = {"life": self.world.release(A).life, "shards": ["00000"], "contenders": []}
        folder.write("plan.json", plan)
        folder.write_rows("questions/00000.jsonl", questions)
        answered = [(one, answer) for one in questions if (answer := given(one)) is not None]
        folder.write_rows(
            f"{answers_folder(plan, '00000')}000.jsonl",
            [kept(CANDIDATE, answer) | {"id": one["id"]} for one, answer in answered],
        )

    def evaluation(self, **changes: Any) -> Evaluation:
        return self.court.evaluation(**{"training_key": TRAINING, **changes})

    def step(self, waited: float = 0.0, seconds: float = 240.0, **changes: Any) -> StageResult:
        return train(A, self.world.releases, self.evaluation(**changes), MARGINS, waited, seconds)

    def content(self, name: str) -> bytes:
        key = f"releases/{OWNER}/{A}-1/{name}"
        body: bytes = self.world.s3.get_object(Bucket=self.world.bucket, Key=key)["Body"].read()
        return body

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = strict(self.content("head.json"))
        return found

    @property
    def head(self) -> Head:
        return Head.read(self.content("head.bin"), self.court.task.labels)

    def states(self) -> list[str]:
        return self.court.keys("head/")


@pytest.fixture
def bench(court: Court) -> Bench:
    return Bench(court)


def denied(operation: str = "GetObject", code: str = "AccessDenied", status: int = 403) -> ClientError:
    response: Any = {
        "Error": {"Code": code, "Message": "no"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(response, operation)


def without(world: World, end: str, error: Exception) -> Any:
    """Return an S3 client that raises an error for keys with this end."""

    def get_object(**parameters: Any) -> Any:
        if parameters["Key"].endswith(end):
            raise error
        return world.s3.get_object(**parameters)

    return Proxy(world.s3, get_object=get_object)


def assert_no_head(bench: Bench, result: StageResult, problem: str) -> None:
    """Assert that the release goes on without a head, and why."""
    assert result["outcome"] == "done"
    assert problem in result["message"]
    assert problem in bench.report["problem"]
    release = bench.world.release(A)
    assert (release.head, release.head_sha256) == ("", "")
    assert not bench.court.keys("head.bin")


def test_head_is_trained_and_noted_on_the_release(bench: Bench) -> None:
    result = bench.step()
    assert result["outcome"] == "done"
    assert result["message"] == "the classification head is trained, and is sure of 100% of the queries"
    release = bench.world.release(A)
    content = bench.content("head.bin")
    assert (release.head, release.head_sha256) == (HEAD_KEY, hashlib.sha256(content).hexdigest())
    assert release.state == EVALUATING
    known = next(examples(FEW, bench.court.task))
    answer = bench.head.answer(known.query)
    assert answer.weights == pytest.approx(known.weights)
    assert bench.head.accepts(answer)
    assert known.query.encode() not in content
    assert bench.world.calls("Converse") == 0


def test_report_says_what_the_head_was_trained_on_and_what_it_promises(bench: Bench) -> None:
    bench.hold_out(120, slices=("holdout", "typos"))
    bench.step()
    report, training = bench.report, "\n".join(FEW).encode()
    assert report["training_sha256"] == hashlib.sha256(training).hexdigest()
    assert (report["rows"], report["sampled"], report["categories"]) == (2, 0, 2)
    assert report["bytes"] == len(bench.content("head.bin"))
    assert report["holdout"] == {"rows": 120, "families": 120, "needed": 99}
    assert report["margins"] == {"error": 0.02, "dominant": 0.03}
    assert report["coverage"] == 1.0
    assert report["threshold"] == bench.head.threshold
    assert 0 < report["bounds"]["error"] <= 0.02
    assert 0 < report["bounds"]["dominant"] <= 0.03
    assert report["table"][-1]["ok"] is True
    assert report["head"] == pytest.approx({"error": 0.0, "dominant": 1.0, "kl_divergence": 0.0}, abs=1e-9)
    assert report["student"] == {
        "error": 0.0,
        "dominant": 1.0,
        "kl_divergence": 0.0,
        "latency_ms": 200.0,
        "input_tokens": 50.0,
        "output_tokens": 9.0,
        "input_usd_per_million": 0.035,
        "output_usd_per_million": 0.14,
    }
    accepted = {"questions": 120, "silent": 0.0, "accepted": 120, "judged": 120, "wrong": 0}
    assert report["slices"] == {"holdout": accepted, "typos": accepted}
    about = json.loads(bench.content("head.bin").partition(b"\n")[0])["about"]
    model = bench.world.release(A).model_arn
    assert about["release"] == A
    assert (about["attempt"], about["model"], about["training_sha256"]) == (
        1,
        model,
        report["training_sha256"],
    )


def test_training_killed_after_each_pass_ends_in_the_same_bytes(bench: Bench) -> None:
    bench.put(TRAINING, "\n".join(ROWS[:3]))
    bench.step()
    whole, report = bench.content("head.bin"), bench.report
    clean(bench)
    waits = 0
    while (result := bench.step(seconds=0.0))["outcome"] == "waiting":
        assert result["seconds"] == 1
        waits += 1
    assert waits > 5
    assert bench.content("head.bin") == whole
    assert without_time(bench.report) == without_time(report)


def clean(bench: Bench) -> None:
    """Delete what the step has written, and what it noted on the release."""
    keys = [*bench.states(), *bench.court.keys("head.")]
    for key in keys:
        bench.world.s3.delete_object(Bucket=bench.world.bucket, Key=key)
    bench.world.releases.update(A, head="", head_sha256="")


def without_time(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name != "seconds"}


@pytest.mark.parametrize("dies_at", ["state.bin", "head.bin", "head.json"])
def test_a_function_that_dies_while_it_writes_is_repeated(bench: Bench, dies_at: str) -> None:
    bench.step()
    whole, report = bench.content("head.bin"), bench.report
    clean(bench)

    def put_object(**parameters: Any) -> Any:
        if parameters["Key"].endswith(dies_at):
            raise KeyboardInterrupt
        return bench.world.s3.put_object(**parameters)

    with pytest.raises(KeyboardInterrupt):
        bench.step(s3=Proxy(bench.world.s3, put_object=put_object))
    assert bench.world.release(A).head == ""
    assert bench.step()["outcome"] == "done"
    assert bench.content("head.bin") == whole
    assert without_time(bench.report) == without_time(report)
    assert bench.world.release(A).head == HEAD_KEY


def test_a_finished_head_is_only_noted_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function died before it noted the head on the release, or is called twice: nothing is trained."""
    bench.step()
    before = bench.report
    bench.world.releases.update(A, head="", head_sha256="")

    def refuse(*_: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(Training, "start", refuse)
    monkeypatch.setattr(Training, "resume", refuse)
    assert bench.step()["outcome"] == "done"
    assert (bench.world.release(A).head, bench.report) == (HEAD_KEY, before)


def test_two_invocations_at_once_end_in_the_same_bytes(bench: Bench) -> None:
    """One goes on from a state that the other has left behind, and writes it over the newer one."""
    assert bench.step(seconds=0.0)["outcome"] == "waiting"
    (key,) = bench.states()
    old = bench.world.s3.get_object(Bucket=bench.world.bucket, Key=key)
    body, seal = old["Body"].read(), old["Metadata"]
    bench.step()
    first, report = bench.content("head.bin"), bench.report
    bench.world.s3.put_object(Bucket=bench.world.bucket, Key=key, Body=body, Metadata=seal)
    bench.world.s3.delete_object(Bucket=bench.world.bucket, Key=f"releases/{OWNER}/{A}-1/head.json")
    assert bench.step()["outcome"] == "done"
    assert bench.content("head.bin") == first
    assert without_time(bench.report) == without_time(report)


@pytest.mark.parametrize("end", ["training.jsonl", "samples.jsonl", "state.bin", "plan.json", "head.json"])
@pytest.mark.parametrize(
    "error",
    [denied(code="SlowDown", status=503), EndpointConnectionError(endpoint_url="https://s3")],
    ids=["throttled", "unreachable"],
)
def test_throttled_s3_is_waited_for_and_then_given_up(bench: Bench, end: str, error: Exception) -> None:
    throttled = without(bench.world, end, error)
    result = bench.step(s3=throttled)
    assert (result["outcome"], result["seconds"]) == ("waiting", 30)
    assert bench.step(waited=2_000, s3=throttled)["seconds"] == 100
    last = bench.step(waited=MOST_SECONDS, s3=throttled)
    assert last["outcome"] == "done"
    assert last["message"].startswith("there is no classification head: ")


def test_throttled_once_the_head_is_there_in_the_end(bench: Bench) -> None:
    assert bench.step(s3=without(bench.world, "plan.json", denied(code="SlowDown", status=503)))[
        "outcome"
    ] == ("waiting")
    assert bench.step()["outcome"] == "done"
    assert bench.world.release(A).head == HEAD_KEY


def test_training_that_takes_too_long_is_given_up(bench: Bench) -> None:
    assert bench.step(seconds=0.0)["outcome"] == "waiting"
    assert_no_head(bench, bench.step(waited=MOST_SECONDS), "did not end within 45 minutes")


def test_replaced_state_is_found(bench: Bench) -> None:
    bench.step(seconds=0.0)
    (key,) = bench.states()
    bench.put(key, "0.0\nsomething else")
    result = bench.step()
    assert_no_head(bench, result, "was not written by these functions, or was replaced")


@pytest.mark.parametrize("name", ["questions/00000.jsonl", "plan.json"])
def test_replaced_files_of_the_evaluation_are_found(bench: Bench, name: str) -> None:
    bench.put(f"releases/{OWNER}/{A}-1/{name}", "{}")
    assert_no_head(bench, bench.step(), "was not written by these functions, or was replaced")


def test_state_of_other_rows_is_not_continued(bench: Bench) -> None:
    """Somebody publishes other training rows meanwhile: the training begins anew, with those."""
    bench.step()
    whole = bench.content("head.bin")
    clean(bench)
    bench.put(TRAINING, ROWS[0])
    assert bench.step(seconds=0.0)["outcome"] == "waiting"
    bench.put(TRAINING, "\n".join(FEW))
    assert bench.step()["outcome"] == "done"
    assert bench.content("head.bin") == whole


def test_rows_without_labels_have_no_head(bench: Bench) -> None:
    bench.put(TRAINING, "\n".join(json.dumps(row(bench.court.task, f"query {n}", None)) for n in range(5)))
    assert_no_head(bench, bench.step(), "no row of s3://")
    assert "Let [labelling] label the queries" in bench.report["problem"]


def test_rows_without_labels_are_left_out(bench: Bench) -> None:
    bench.put(TRAINING, "\n".join([*FEW, json.dumps(row(bench.court.task, "a query", None))]))
    bench.step()
    assert bench.report["rows"] == 2


@pytest.mark.parametrize(
    ("body", "problem"),
    [("no JSON", "line 1: not a row of a data set"), (b"\xff".decode("latin1"), "line 1")],
)
def test_damaged_training_rows_have_no_head(bench: Bench, body: str, problem: str) -> None:
    bench.put(TRAINING, body)
    assert_no_head(bench, bench.step(), problem)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_a_row_ends_only_at_a_line_feed(bench: Bench, separator: str) -> None:
    """JSON may hold other characters at which Python splits a text into lines."""
    bench.put(TRAINING, "\n".join(FEW).replace("a red car", f"a red{separator}car"))
    bench.step()
    assert bench.world.release(A).head == HEAD_KEY


def test_training_rows_that_may_not_be_read_have_no_head(bench: Bench) -> None:
    result = bench.step(s3=without(bench.world, "training.jsonl", denied()))
    assert_no_head(bench, result, "AccessDenied: no. The next model")


def test_missing_training_rows_have_no_head(bench: Bench) -> None:
    bench.world.s3.delete_object(Bucket=bench.world.bucket, Key=TRAINING)
    assert_no_head(bench, bench.step(), "NoSuchKey")


def test_an_adopted_model_has_no_head(bench: Bench) -> None:
    assert_no_head(bench, bench.step(training_key=""), "the training rows are unknown")


@pytest.mark.parametrize("error", [MemoryError("a query"), RuntimeError("a query"), KeyError("a query")])
def test_an_unexpected_error_is_named_without_its_text(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The text may quote a query."""

    def fail(_: Training) -> None:
        raise error

    monkeypatch.setattr(Training, "run_pass", fail)
    assert_no_head(bench, bench.step(), f"{type(error).__name__} in test_train_head.py, line ")
    assert "a query" not in bench.report["problem"]


def test_a_report_that_can_not_be_written_fails_nothing(bench: Bench) -> None:
    def put_object(**_: Any) -> None:
        raise denied("PutObject")

    result = bench.step(s3=Proxy(bench.world.s3, put_object=put_object))
    assert result["outcome"] == "done"
    assert "AccessDenied" in result["message"]
    assert bench.world.release(A).head == ""


def test_sixty_rows_have_a_head_without_a_threshold(bench: Bench) -> None:
    bench.hold_out(60)
    result = bench.step()
    assert result["message"] == "the classification head is trained; no threshold keeps its margins"
    assert bench.report["threshold"] is None
    assert bench.report["holdout"] == {"rows": 60, "families": 60, "needed": 99}
    assert bench.report["slices"] == {}
    assert bench.head.threshold is None
    assert bench.world.release(A).head == HEAD_KEY


def test_without_the_candidates_answers_there_is_no_threshold(bench: Bench) -> None:
    bench.hold_out(120, lambda _: None)
    assert bench.step()["outcome"] == "done"
    assert (bench.report["threshold"], bench.report["holdout"]["rows"]) == (None, 0)
    assert bench.report["student"]["latency_ms"] is None
    assert bench.world.release(A).head == HEAD_KEY


def test_questions_that_could_not_be_asked_are_left_out(bench: Bench) -> None:
    failed = Answer("", None, "slow down", unavailable="throttled")
    bench.hold_out(120, lambda question: failed if question["family"] < 20 else right(question))
    bench.step()
    assert bench.report["holdout"]["rows"] == 100


def test_a_candidate_with_invalid_answers_is_no_standard_for_the_error(bench: Bench) -> None:
    bench.hold_out(120, lambda question: INVALID if question["family"] % 2 else right(question))
    bench.step()
    student = bench.report["student"]
    assert (student["error"], student["dominant"], student["latency_ms"]) == (0.0, 0.5, 200.0)
    # Sixty families with a difference of errors are too few for the margin of the error.
    assert bench.report["threshold"] is None
    bench.world.releases.update(A, head="")
    clean(bench)
    bench.hold_out(240, lambda question: INVALID if question["family"] % 2 else right(question))
    bench.step()
    assert bench.report["coverage"] == 1.0
    assert bench.report["table"][-1]["mixed_dominant"] == 1.0


def test_only_invalid_answers_leave_the_head_without_a_threshold(bench: Bench) -> None:
    bench.hold_out(120, lambda _: INVALID)
    bench.step()
    assert bench.report["threshold"] is None
    assert bench.report["student"]["error"] is None


def test_the_teachers_samples_of_a_query_are_learnt(bench: Bench) -> None:
    """The file spells the query otherwise, and has one that is not trained on, but not the other query."""
    one, _ = examples(FEW, bench.court.task)
    other = {label: 1.0 if label == bench.court.task.labels[1] else 0.0 for label in bench.court.task.labels}
    samples = [
        {"query": f"  {one.query.upper()}! ", "samples": [one.weights, one.weights, other]},
        {"query": "never trained on", "samples": [other, other]},
    ]
    bench.put(SAMPLES, "\n".join(map(json.dumps, samples)))
    bench.step()
    assert (bench.report["rows"], bench.report["sampled"], bench.report["categories"]) == (2, 1, 3)
    assert bench.head.answer(one.query).risk > 0.01


def test_samples_that_speak_against_the_label_are_ignored(bench: Bench) -> None:
    """Nobody knows the file's SHA-256: whoever writes to the bucket must not decide what the head says."""
    one, _ = examples(FEW, bench.court.task)
    other = {label: float(label == bench.court.task.labels[1]) for label in bench.court.task.labels}
    bench.put(SAMPLES, json.dumps({"query": one.query, "samples": [one.weights, other, other]}))
    bench.step()
    assert (bench.report["rows"], bench.report["sampled"], bench.report["categories"]) == (2, 0, 2)


def test_training_rows_that_were_replaced_give_no_head(bench: Bench) -> None:
    """The job's tag has the SHA-256 of the rows on which the model was trained."""
    bench.world.releases.update(A, training_sha256="0" * 64)
    assert bench.step()["outcome"] == "done"
    assert bench.world.release(A).head == ""
    assert "was replaced after it was published" in bench.report["problem"]
    bench.world.releases.update(A, training_sha256=hashlib.sha256("\n".join(FEW).encode()).hexdigest())
    clean(bench)
    bench.step()
    assert bench.world.release(A).head == HEAD_KEY


@pytest.mark.parametrize(
    "body",
    ["no JSON", "[]", '{"query": "x"}', '{"query": "x", "samples": 3}', "null"],
)
def test_damaged_samples_are_ignored(bench: Bench, body: str) -> None:
    bench.put(SAMPLES, body)
    bench.step()
    assert (bench.report["rows"], bench.report["sampled"]) == (2, 0)


@pytest.mark.parametrize("samples", [["x"], [{}], [{"visual": float("nan")}], [], [None, None]])
def test_samples_that_are_no_weights_are_ignored(bench: Bench, samples: list[Any]) -> None:
    query = next(examples(FEW, bench.court.task)).query
    bench.put(SAMPLES, json.dumps({"query": query, "samples": samples}))
    bench.step()
    assert (bench.report["rows"], bench.report["sampled"]) == (2, 0)


def test_samples_that_may_not_be_listed_are_no_error(bench: Bench) -> None:
    assert bench.step(s3=without(bench.world, "samples.jsonl", denied()))["outcome"] == "done"
    assert bench.world.release(A).head == HEAD_KEY


def test_a_step_whose_answer_was_lost_moves_no_rollout_back(bench: Bench) -> None:
    bench.step()
    bench.world.releases.transition(A, ROLLING_OUT, "10% of the requests")
    assert bench.step()["outcome"] == "failed"
    assert bench.world.release(A).state == ROLLING_OUT
    assert bench.world.release(A).message == "10% of the requests"


def test_a_release_that_is_over_gets_no_head(bench: Bench) -> None:
    bench.world.releases.transition(A, SUPERSEDED, "superseded")
    assert bench.step()["outcome"] == "failed"
    assert not bench.court.keys("head")
    assert bench.world.release(A).head == ""


def test_a_release_that_ends_while_its_head_is_trained_gets_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Training.trained

    def trained(training: Training) -> Any:
        bench.world.releases.transition(A, SUPERSEDED, "superseded")
        return real(training)

    monkeypatch.setattr(Training, "trained", trained)
    assert bench.step()["outcome"] == "failed"
    assert not bench.court.keys("head.")
    assert bench.world.release(A).head == ""


def test_an_earlier_attempt_leaves_no_head_on_a_later_one(bench: Bench) -> None:
    """Its function goes on after another attempt has begun."""

    def put_object(**parameters: Any) -> Any:
        if parameters["Key"].endswith("head.bin"):
            bench.world.begin(A, attempt=2)
        return bench.world.s3.put_object(**parameters)

    assert bench.step(s3=Proxy(bench.world.s3, put_object=put_object))["outcome"] == "failed"
    release = bench.world.release(A)
    assert (release.attempt, release.head, release.head_sha256) == (2, "", "")


def test_a_new_attempt_begins_without_the_head_of_the_last(bench: Bench) -> None:
    bench.step()
    release = bench.world.begin(A, attempt=2)
    assert (release.head, release.head_sha256) == ("", "")


def test_files_of_an_earlier_life_of_the_stack_do_not_count(bench: Bench) -> None:
    """A new stack begins the same release with the same attempt, beside the files that the old one left."""
    bench.step(seconds=0.0)
    bench.step()
    old = bench.content("head.json")
    bench.world.releases.table.delete_item(Key={"id": bench.world.releases.key(f"release@{A}")})
    bench.world.releases.begin(A, attempt=1, execution="arn:new", request_id="request-new")
    bench.hold_out(120)
    assert bench.step()["outcome"] == "done"
    assert bench.content("head.json") != old
    assert bench.world.release(A).head == HEAD_KEY


def test_a_live_release_that_is_evaluated_again_keeps_its_head(bench: Bench) -> None:
    releases = bench.world.releases
    releases.update(A, head="releases/old/head.bin", head_sha256="old", holdout_key="h", passed_on="h")
    releases.move_with_route(A, LIVE, "serves", (Share(A, "arn:e", 1.0),), after=releases.route())
    releases.begin_again(A, attempt=2, execution="arn:again", request_id="r", holdout_key="other")
    assert bench.step()["message"] == "the live release keeps its classification head"
    release = bench.world.release(A)
    assert (release.head, release.head_sha256, release.state) == ("releases/old/head.bin", "old", LIVE)
    assert not bench.court.keys("head")


def test_a_dynamodb_that_refuses_fails_no_release(bench: Bench) -> None:
    class Refusing:
        def get(self, _: str) -> None:
            raise denied("GetItem", "AccessDeniedException", 400)

    found: Any = Refusing()
    result = train(A, found, bench.evaluation(), MARGINS)
    assert result["outcome"] == "done"
    assert "AccessDeniedException" in result["message"]


def test_the_function_takes_its_settings_from_its_variables(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a margin of 0.5 for both, few families suffice."""
    bench.hold_out(20)
    env = TrainHeadEnv(
        owner=OWNER,
        table_name=bench.world.name,
        bucket=bench.world.bucket,
        holdout_key="datasets/d/holdout.jsonl",
        training_key=TRAINING,
        gate={
            "minimum_valid_output": 0,
            "minimum_dominant_accuracy": 0,
            "maximum_mean_absolute_error": 1,
            "minimum_examples": 1,
        },
        base_model="",
        slice_queries=0,
        outage_minutes=1,
        judge="",
        margin_error=0.5,
        margin_dominant=0.5,
    )
    for name, value in env.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(evaluation.handler, "client", lambda _: bench.world.s3)
    monkeypatch.setattr(evaluation.handler, "table", lambda _: bench.world.releases.table)
    result = evaluation.handler.train_head({"release": A, "since": "2026-11-30T00:00:00Z"}, None)
    assert result["outcome"] == "done"
