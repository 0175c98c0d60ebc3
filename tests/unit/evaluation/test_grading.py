"""A judge grades the candidate's answers: the evaluation job, its failures, and the gate."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from distilled_router.aws.objects import Folder, Seal
from distilled_router.aws.state_machine import StageResult, wait_if_transient
from distilled_router.bedrock.evaluation_jobs import job_name, name_part
from distilled_router.bedrock.naming import OWNER_TAG
from distilled_router.bedrock.roles import NEW_ROLE_SECONDS
from distilled_router.release.gate import Gate
from distilled_router.release.sweep import Sweep
from distilled_router.release.table import FAILED, LIVE, ROLLING_OUT, SUPERSEDED, Release
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task
from evaluation.attempt import Evaluation, Failures, attempt_folder, row
from evaluation.contenders import CANDIDATE
from evaluation.grade_answers import Grading, grade
from evaluation.grades import METRIC, MOST_PROMPTS, instructions, metric, sample
from evaluation.metrics import Answer, Question
from evaluation.page import page
from evaluation.score_and_gate import score
from local.bedrock.faults import ROLE_TEXTS
from stacks.settings import PROJECT
from tests.unit.local.bedrock.scenes import HOUR, MINUTE, ROLE
from tests.unit.release_world import OWNER, RELEASE, A, Proxy, World
from tests.unit.resource_scenes import Meddled, refusal, times

JUDGE = "us.amazon.nova-pro-v1:0"
TASK = Task.load()
EQUAL = {label: 1 / len(TASK.labels) for label in TASK.labels}
ONE = {label: float(label == TASK.labels[0]) for label in TASK.labels}
NO_SCORE = "the judge gave no score"
LAX = Gate(
    minimum_valid_output=0.1,
    minimum_dominant_accuracy=0.0,
    maximum_mean_absolute_error=1.0,
    minimum_examples=1,
)

type Answers = Sequence[dict[str, float] | None]


class Bench:
    """A candidate A with answers, and a judge."""

    def __init__(self, world: World) -> None:
        self.world = world
        # Bedrock reads the file that the stage writes.
        world.s3 = world.server.s3
        world.bucket = world.name

    def answered(self, answers: Answers = (EQUAL, EQUAL, ONE, ONE), attempt: int = 1) -> Release:
        """Return answers to queries whose reference is EQUAL."""
        release = self.world.begin(A, attempt, endpoint="arn:endpoint")
        folder = self.folder(release)
        asked = [Question(f"q{n}", "holdout", f"query {n}", EQUAL) for n in range(len(answers))]
        candidate = {"name": CANDIDATE, "title": "candidate", "endpoint": "arn:endpoint", "model": ""}
        plan = {"life": release.life, "contenders": [candidate], "shards": ["00000"], "questions": len(asked)}
        folder.write("plan.json", plan)
        rows = [
            {"id": one.id, "slice": one.slice, "query": one.query, "reference": one.reference}
            for one in asked
        ]
        folder.write_rows("questions/00000.jsonl", rows)
        given = [
            row(CANDIDATE, Answer(one.id, weights, "" if weights else "no weights", 9.0, 9, 9))
            for one, weights in zip(asked, answers, strict=True)
        ]
        folder.write_rows(f"answers/{release.life}/00000/000.jsonl", given)
        return release

    def folder(self, release: Release) -> Folder:
        return attempt_folder(self.world.s3, self.world.bucket, OWNER, release)

    @property
    def judged(self) -> Folder:
        release = self.world.release(A)
        prefix = f"{self.folder(release).prefix}judge/{release.life}/"
        return Folder(self.world.s3, self.world.bucket, prefix, Seal(release.seal))

    def evaluation(self, gate: Gate = LAX, judge: str = JUDGE) -> Evaluation:
        return Evaluation(
            runtime=None,
            s3=self.world.s3,
            task=TASK,
            robustness=Robustness(),
            owner=OWNER,
            bucket=self.world.bucket,
            holdout_key="datasets/d/holdout.jsonl",
            gate=gate,
            base_model="",
            slice_queries=0,
            judge=judge,
            outage_seconds=60,
            now=lambda: self.world.now,
        )

    def grading(self, **changes: Any) -> Grading:
        given: dict[str, Any] = {
            "bedrock": self.world.bedrock,
            "s3": self.world.s3,
            "bucket": self.world.bucket,
            "releases": self.world.releases,
            "task": TASK,
            "owner": OWNER,
            "claimant": RELEASE,
            "judge": JUDGE,
            "judge_role_arn": ROLE,
            "judge_hours": 6,
            "poll_seconds": 300,
            "absence_seconds": 0,
            "tags": {"team": "search"},
            "now": lambda: self.world.now,
        }
        return Grading(**{**given, **changes})

    def step(self, **changes: Any) -> StageResult:
        """Run the stage's function once, as its entry point does."""
        grading = self.grading(**changes)
        return wait_if_transient(lambda: grade(A, grading), 60)

    def grade(self, **changes: Any) -> StageResult:
        """Run the stage as the state machine does."""
        for _ in range(200):
            result = self.step(**changes)
            if result["outcome"] != "waiting":
                return result
            self.world.advance(result["seconds"])
        raise AssertionError("the stage never ends")

    def decide(self, gate: Gate = LAX) -> StageResult:
        return score(A, self.world.releases, self.evaluation(gate))

    def report(self) -> dict[str, Any]:
        return dict(self.folder(self.world.release(A)).read("report.json") or {})

    def forget_the_job(self) -> None:
        """Remove the job's ARN, as if the function had died before it stored it."""
        self.judged.write("job.json", {**(self.judged.read("job.json") or {}), "arn": ""})

    def jobs(self) -> list[str]:
        """Return the statuses of all evaluation jobs."""
        return [job["status"] for job in self.world.server.state()["evaluations"]]

    def sweep(self, **changes: Any) -> Sweep:
        return replace(self.world.sweeper(), **changes).sweep()


@pytest.fixture
def bench(world: World, monkeypatch: pytest.MonkeyPatch) -> Bench:
    # All references are equal, so no answer can be better than a constant one.
    monkeypatch.setattr("evaluation.score_and_gate.constants", lambda *_: [])
    return Bench(world)


# The request and its result


def test_grades_are_in_the_report_the_page_the_item_and_the_message(bench: Bench) -> None:
    bench.answered()
    assert bench.grade()["outcome"] == "done"
    result = bench.decide(replace(LAX, minimum_judge_score=2.5))
    assert result["outcome"] == "done", result
    assert ", judge 3.00 of 5" in result["message"]
    kept = bench.report()["judge"]
    (job,) = bench.world.server.state()["evaluations"]
    assert (kept["model"], kept["job"], kept["asked"], kept["invalid"]) == (JUDGE, job["arn"], 4, 0)
    assert (kept["score"]["value"], kept["score"]["rows"], kept["problem"]) == (3.0, 4, "")
    assert kept["score"]["low"] < 3.0 < kept["score"]["high"]
    item = bench.world.releases.table.get_item(Key={"id": bench.world.releases.key(f"release@{A}")})["Item"]
    assert item is not None
    assert json.loads(item["scores"])["judge_score"] == 3.0
    shown = page(bench.report())
    assert "<h2>Judge</h2>" in shown
    assert "A judge of the teacher's model family may prefer the answers" in shown.replace("&#x27;", "'")
    assert JUDGE in shown


def test_job_gets_the_answers_that_were_given_and_one_metric_of_ours(bench: Bench) -> None:
    release = bench.answered()
    bench.step()
    (call,) = bench.world.server.calls("CreateEvaluationJob")
    asked = call["parameters"]
    assert asked["jobName"] == job_name(OWNER, release)
    assert asked["clientRequestToken"] == release.token(asked["jobName"])
    assert asked["roleArn"] == ROLE
    automated = asked["evaluationConfig"]["automated"]
    (dataset,) = automated["datasetMetricConfigs"]
    assert (dataset["taskType"], dataset["metricNames"]) == ("General", [METRIC])
    assert dataset["dataset"]["datasetLocation"] == {"s3Uri": bench.judged.uri("prompts.jsonl")}
    judge = automated["evaluatorModelConfig"]["bedrockEvaluatorModels"]
    assert judge == [{"modelIdentifier": JUDGE}]
    assert automated["customMetricConfig"]["evaluatorModelConfig"]["bedrockEvaluatorModels"] == judge
    tags = {tag["key"]: tag["value"] for tag in asked["jobTags"]}
    ours = RELEASE.tags(OWNER, request=bench.world.release(A).request_id, digest=A)
    assert tags == {"team": "search", **ours}
    first = next(bench.judged.rows("prompts.jsonl"))
    assert first == {
        "prompt": "query 0",
        "referenceResponse": json.dumps(EQUAL),
        "category": TASK.dominant(EQUAL),
        "modelResponses": [{"response": json.dumps(EQUAL), "modelIdentifier": "candidate"}],
    }


def test_judge_is_told_nothing_of_another_task() -> None:
    helpdesk = json.dumps(metric(Task.load(PROJECT / "examples" / "helpdesk"))).casefold()
    assert "billing, technical, account" in helpdesk
    assert not re.search("video|search|channel|visual", helpdesk)


def test_metric_keeps_bedrocks_limits() -> None:
    assert len(instructions(TASK)) <= 5000
    for field in ("{{prompt}}", "{{prediction}}", "{{ground_truth}}"):
        assert instructions(TASK).count(field) == 1
    scale = metric(TASK)["customMetricDefinition"]["ratingScale"]
    assert sorted(rating["value"]["floatValue"] for rating in scale) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert all(len(rating["definition"]) <= 100 for rating in scale)


def test_at_most_1000_questions_of_the_hold_out_set_are_graded() -> None:
    asked = [Question(f"q{n}", "holdout", "q", EQUAL) for n in range(2_500)]
    typos = [Question(f"t{n}", "typos", "q", EQUAL) for n in range(50)]
    found = sample([*asked, *typos])
    assert len(found) == MOST_PROMPTS
    assert {one.slice for one in found} == {"holdout"}
    assert int(found[-1].id[1:]) > 2_490


def test_invalid_answers_get_the_lowest_grade_and_are_not_shown(bench: Bench) -> None:
    bench.answered((EQUAL, None, None, None))
    bench.grade()
    bench.decide()
    assert len(list(bench.judged.rows("prompts.jsonl"))) == 1
    kept = bench.report()["judge"]
    assert (kept["score"]["value"], kept["invalid"]) == (2.0, 3)


def test_where_no_answer_is_valid_no_job_is_created(bench: Bench) -> None:
    bench.answered((None, None))
    assert bench.grade()["outcome"] == "done"
    assert bench.world.calls("CreateEvaluationJob") == 0
    bench.decide()
    assert bench.report()["judge"]["score"]["value"] == 1.0


@pytest.mark.parametrize("owner", [OWNER, "Search_Team", "x" * 48, "a-very-long-name-that-goes-", "9"])
def test_names_are_those_of_evaluation_jobs(owner: str) -> None:
    name = job_name(owner, Release(digest=A, attempt=3, request_id="r"))
    assert re.fullmatch(r"[a-z0-9](-*[a-z0-9]){0,62}", name), name
    assert re.fullmatch(r"[a-z0-9](-*[a-z0-9]){0,62}", name_part(owner))
    assert name_part(owner) in name


def test_each_attempt_and_each_life_has_a_job_of_its_own() -> None:
    lives = [Release(digest=A, attempt=n, request_id=r) for n in (1, 2) for r in ("one", "two")]
    assert len({job_name(OWNER, life) for life in lives}) == 4


# Repeated, interrupted and lost calls


def test_stage_that_is_asked_twice_creates_one_job(bench: Bench) -> None:
    bench.answered()
    for _ in range(3):
        assert bench.step()["outcome"] == "waiting"
    assert bench.jobs() == ["InProgress"]
    assert bench.world.calls("CreateEvaluationJob") == 1
    assert bench.grade() == bench.step()
    assert bench.world.calls("CreateEvaluationJob") == 1


def test_death_between_the_job_and_its_note_creates_no_second_one(bench: Bench) -> None:
    bench.answered()
    bench.step()
    bench.forget_the_job()
    # The token alone would prevent it, but Bedrock does not keep tokens for ever.
    bench.world.server.forget_tokens()
    assert bench.grade()["outcome"] == "done"
    assert bench.world.calls("CreateEvaluationJob") == 1
    assert bench.jobs() == ["Completed"]


def test_lost_answer_is_followed_by_a_lookup_of_the_name(bench: Bench) -> None:
    bench.answered()
    bench.world.server.fault("lost_response", operation="CreateEvaluationJob")
    assert bench.grade()["outcome"] == "done"
    assert bench.world.calls("CreateEvaluationJob") == 1
    assert bench.jobs() == ["Completed"]


def test_job_whose_response_is_lost_and_whose_tags_are_seen_late_is_ours(bench: Bench) -> None:
    bench.answered()
    bench.world.server.fault("lost_response", operation="CreateEvaluationJob")
    missing = times(2, refusal("ResourceNotFoundException"))
    late = Meddled(bench.world.bedrock, before={"list_tags_for_resource": missing})
    assert bench.grade(bedrock=late, absence_seconds=5)["outcome"] == "done"
    assert (bench.world.calls("CreateEvaluationJob"), bench.jobs()) == (1, ["Completed"])


@pytest.mark.parametrize("kind", ["conflict", "validation"])
def test_name_in_use_that_is_not_listed_yet_is_awaited(bench: Bench, kind: str) -> None:
    """AWS does not document the error's class."""
    bench.answered()
    text = "The provided job name is currently in use."
    bench.world.server.fault(kind, operation="CreateEvaluationJob", message=text)
    result = bench.step()
    assert (result["outcome"], text in result["message"]) == ("waiting", True)
    assert bench.grade()["outcome"] == "done"


@pytest.mark.parametrize(
    "operation", ["CreateEvaluationJob", "GetEvaluationJob", "ListEvaluationJobs", "ListTagsForResource"]
)
@pytest.mark.parametrize("kind", ["throttled", "failed"])
def test_passing_errors_are_waited_out(bench: Bench, operation: str, kind: str) -> None:
    bench.answered()
    bench.world.server.fault(kind, operation=operation, count=3)
    if operation == "ListTagsForResource":
        bench.world.server.fault("lost_response", operation="CreateEvaluationJob")
    bench.grade()
    bench.decide()
    assert bench.report()["judge"]["score"]["value"] == 3.0
    assert bench.jobs() == ["Completed"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [*(("validation", text) for text in ROLE_TEXTS), ("over_quota", "too many jobs")],
)
def test_young_role_and_a_full_quota_are_waited_out(bench: Bench, kind: str, message: str) -> None:
    bench.answered()
    bench.world.server.fault(kind, operation="CreateEvaluationJob", message=message, count=3)
    result = bench.step()
    assert (result["outcome"], message in result["message"]) == ("waiting", True)
    bench.grade()
    assert bench.jobs() == ["Completed"]


def test_role_that_does_not_become_ready_gives_no_score_and_is_named(bench: Bench) -> None:
    bench.answered()
    bench.world.server.lag(role_seconds=24 * HOUR)
    began = bench.world.now
    assert bench.grade()["outcome"] == "done"
    assert bench.world.now - began < NEW_ROLE_SECONDS + 30
    bench.decide()
    assert f"policy of {ROLE} must" in bench.report()["judge"]["problem"]
    assert bench.jobs() == []


def test_foreign_job_of_that_name_is_left_alone(bench: Bench) -> None:
    release = bench.answered()
    bench.step()
    arn = bench.world.server.state()["evaluations"][0]["arn"]
    bench.world.bedrock.untag_resource(resourceARN=arn, tagKeys=[OWNER_TAG])
    bench.forget_the_job()
    assert "does not belong to this stack" in bench.grade()["message"]
    assert bench.jobs() == ["InProgress"]
    assert bench.world.server.state()["evaluations"][0]["name"] == job_name(OWNER, release)


def test_judge_that_is_changed_meanwhile_is_not_said_to_grade(bench: Bench) -> None:
    bench.answered()
    bench.step()
    bench.grade(judge="amazon.nova-micro-v1:0")
    bench.decide()
    assert bench.report()["judge"]["model"] == JUDGE


# Missing scores and their reasons


def failing(bench: Bench) -> str:
    bench.world.server.fault("evaluation_failed", message="The judge is tired.")
    return "evaluation job Failed: The judge is tired."


def denied(bench: Bench) -> str:
    bench.world.server.fault("denied", operation="CreateEvaluationJob")
    return "AccessDeniedException"


def unreadable(bench: Bench) -> str:
    bench.world.server.fault("denied", operation="GetEvaluationJob", count=None)
    return "AccessDeniedException"


def endless(bench: Bench) -> str:
    bench.world.server.fault("evaluation_stalled")
    return "the judge did not finish within 6 hours (evaluation.judge_hours)"


def never_taken(bench: Bench) -> str:
    bench.world.server.fault("throttled", operation="CreateEvaluationJob", count=None)
    return "the judge did not finish within 6 hours"


@pytest.mark.parametrize("order", [failing, denied, unreadable, endless, never_taken])
def test_without_a_score_the_gate_refuses_only_where_it_asks_for_one(bench: Bench, order: Any) -> None:
    bench.answered()
    problem = order(bench)
    graded = bench.grade()
    assert (graded["outcome"], problem in graded["message"]) == ("done", True), graded
    result = bench.decide()
    assert result["outcome"] == "done", result
    assert bench.report()["judge"]["score"] is None
    assert problem in bench.report()["judge"]["problem"]
    assert NO_SCORE.removeprefix("the judge gave ") in page(bench.report())
    item = bench.world.releases.table.get_item(Key={"id": bench.world.releases.key(f"release@{A}")})["Item"]
    assert item is not None
    assert json.loads(item["scores"])["judge_score"] is None

    result = bench.decide(replace(LAX, minimum_judge_score=3.0))
    assert result["outcome"] == "failed"
    assert "\n- The judge gave no score, so at least 3.00 can't be checked: " in result["message"]
    assert problem in result["message"]


def fail_calls(bench: Bench, release: Release, *numbers: int) -> None:
    """Let these questions be ones that the candidate could not be asked."""
    failed = [
        (CANDIDATE, Answer(f"q{number}", None, "throttled", unavailable="throttled")) for number in numbers
    ]
    plan = bench.folder(release).read("plan.json") or {}
    Failures(answers=failed, since={CANDIDATE: 0.0}).write(bench.folder(release), plan, "00000")


def test_questions_that_could_not_be_asked_are_not_graded(bench: Bench) -> None:
    """They are no invalid answers, which get the lowest grade."""
    release = bench.answered((EQUAL,) * 19)
    questions = [*bench.folder(release).rows("questions/00000.jsonl")]
    bench.folder(release).write_rows("questions/00000.jsonl", [*questions, {**questions[0], "id": "q19"}])
    fail_calls(bench, release, 19)
    assert bench.grade()["message"] == "the answers are graded"
    assert bench.decide()["outcome"] == "done"
    kept = bench.report()["judge"]
    assert (kept["asked"], kept["invalid"], kept["graded"]) == (19, 0, 19)


def test_too_few_answers_are_not_paid_to_be_graded(bench: Bench) -> None:
    release = bench.answered((EQUAL,))
    questions = [*bench.folder(release).rows("questions/00000.jsonl")]
    bench.folder(release).write_rows("questions/00000.jsonl", [*questions, {**questions[0], "id": "q1"}])
    fail_calls(bench, release, 1)
    assert "the candidate could be asked 1 of 2 questions" in bench.grade()["message"]
    assert bench.world.calls("CreateEvaluationJob") == 0


def test_job_that_never_ends_is_stopped(bench: Bench) -> None:
    bench.answered()
    endless(bench)
    bench.grade()
    assert bench.jobs() == ["Stopping"]
    bench.world.advance(HOUR)
    assert bench.jobs() == ["Stopped"]
    assert bench.grade()["outcome"] == "done"
    assert bench.world.calls("CreateEvaluationJob") == 1


def test_job_whose_answers_all_were_lost_is_stopped_when_its_time_is_over(bench: Bench) -> None:
    bench.answered()
    endless(bench)
    bench.step()
    bench.forget_the_job()
    bench.world.advance(7 * HOUR)
    assert "did not finish within" in bench.step()["message"]
    assert bench.jobs() == ["Stopping"]


def test_stop_that_is_throttled_is_asked_for_again(bench: Bench) -> None:
    bench.answered()
    endless(bench)
    bench.step()
    bench.world.advance(7 * HOUR)
    bench.world.server.fault("throttled", operation="StopEvaluationJob")
    assert bench.step()["outcome"] == "waiting"
    assert bench.step()["outcome"] == "done"
    assert bench.jobs() == ["Stopping"]


def test_job_that_ended_in_time_counts_however_late_it_is_checked(bench: Bench) -> None:
    bench.answered()
    bench.step()
    bench.world.advance(30 * HOUR)
    assert bench.step()["message"] == "the answers are graded"


def test_job_stopped_by_others_gives_no_score(bench: Bench) -> None:
    bench.answered()
    bench.step()
    arn = bench.world.server.state()["evaluations"][0]["arn"]
    bench.world.bedrock.stop_evaluation_job(jobIdentifier=arn)
    assert "evaluation job Stopped" in bench.grade()["message"]


@pytest.mark.parametrize(
    "result", [0.75, 6, None, "good", {"value": 5}, "missing"], ids=lambda found: f"{found}"
)
def test_results_in_another_form_are_no_grades(bench: Bench, result: Any) -> None:
    """A mean of numbers on another scale would be a wrong score, which is worse than none."""
    bench.answered()
    bench.step()
    bench.world.advance(HOUR)
    bench.world.bedrock.get_evaluation_job(jobIdentifier=bench.world.server.state()["evaluations"][0]["arn"])
    (name,) = [name for name in bench.judged.names("results/") if name.endswith("_output.jsonl")]
    score = {"metricName": METRIC} if result == "missing" else {"metricName": METRIC, "result": result}
    odd: list[Any] = [
        None,
        "failed",
        [],
        {"scores": None},
        {"scores": 5},
        {"scores": [None, "x", {"result": "1e999"}]},
    ]
    rows = [{"automatedEvaluationResult": found} for found in ({"scores": [score]}, *odd)]
    bench.judged.write_rows(name, rows)
    assert "graded 0 of 4 answers from 1 to 5" in bench.grade()["message"]


def test_few_grades_are_no_score_and_half_of_them_are(bench: Bench) -> None:
    for rows, problem in ((1, "graded 1 of 4 answers"), (2, "")):
        bench.answered(attempt=rows)
        bench.step()
        bench.world.advance(HOUR)
        bench.jobs()
        (name,) = [name for name in bench.judged.names("results/") if name.endswith("_output.jsonl")]
        written = bench.judged.unsealed
        written.write_rows(name, list(written.rows(name))[:rows])
        assert problem in bench.grade()["message"]
        bench.decide()
        assert bool(bench.report()["judge"]["problem"]) == bool(problem)


def test_execution_that_began_before_a_judge_was_set_did_not_ask_it(bench: Bench) -> None:
    bench.answered()
    assert bench.decide()["outcome"] == "done"
    assert bench.report()["judge"]["problem"] == "the judge was not asked"


def test_without_a_judge_the_report_says_nothing_of_one(bench: Bench) -> None:
    bench.answered()
    assert score(A, bench.world.releases, bench.evaluation(judge=""))["outcome"] == "done"
    assert "judge" not in bench.report()
    assert "<h2>Judge</h2>" not in page(bench.report())


def test_grade_below_the_minimum_is_refused_with_its_reason(bench: Bench) -> None:
    bench.answered()
    bench.grade()
    result = bench.decide(replace(LAX, minimum_judge_score=3.5))
    assert result["outcome"] == "failed"
    assert "\n- Judge score 3.00 of 5; at least 3.50 wanted." in result["message"]
    (check,) = [check for check in bench.report()["checks"] if check["name"] == "judge score"]
    assert (check["found"], check["limit"], check["against"]) == (3.0, 3.5, "threshold")


# A release that ends stops its evaluation job.


def supersede_during_creation(bench: Bench) -> StageResult:
    """Run the stage once; another release supersedes it while its job is created."""

    def supersede_first(**request: Any) -> Any:
        made = bench.world.bedrock.create_evaluation_job(**request)
        bench.world.releases.transition(A, SUPERSEDED, "superseded")
        return made

    return bench.step(bedrock=Proxy(bench.world.bedrock, create_evaluation_job=supersede_first))


def test_release_that_is_superseded_while_its_job_is_created_stops_it(bench: Bench) -> None:
    bench.answered()
    assert supersede_during_creation(bench)["outcome"] == "failed"
    assert bench.jobs() == ["Stopping"]


def test_nothing_is_created_once_the_stack_is_being_deleted(bench: Bench) -> None:
    bench.answered()
    bench.world.close()
    assert bench.step()["outcome"] == "failed"
    assert bench.jobs() == []


@pytest.mark.parametrize("state", [SUPERSEDED, FAILED, LIVE])
def test_sweeper_stops_the_job_of_a_release_that_has_ended(bench: Bench, state: str) -> None:
    bench.answered()
    bench.step()
    bench.world.releases.transition(A, state, "over")
    swept = bench.sweep()
    assert bench.jobs() == ["Stopping"]
    assert len(swept.waiting) == 1
    bench.world.advance(HOUR)
    assert bench.sweep().waiting == []


def test_sweeper_keeps_the_job_of_an_attempt_that_runs_and_stops_the_one_before(bench: Bench) -> None:
    bench.answered()
    bench.step()
    first = bench.world.server.state()["evaluations"][0]["arn"]
    assert bench.sweep().kept == {first: "its release is in progress"}
    bench.world.releases.transition(A, FAILED, "over")
    bench.answered(attempt=2)
    bench.step()
    second = bench.world.server.state()["evaluations"][1]["arn"]
    assert bench.sweep().kept == {second: "its release is in progress"}
    assert bench.jobs() == ["Stopping", "InProgress"]


def test_sweeper_leaves_jobs_of_others_alone(bench: Bench) -> None:
    bench.answered()
    bench.step()
    (job,) = bench.world.server.state()["evaluations"]
    bench.world.bedrock.untag_resource(resourceARN=job["arn"], tagKeys=[RELEASE.key])
    bench.world.releases.transition(A, FAILED, "over")
    assert bench.sweep().waiting == []
    assert bench.jobs() == ["InProgress"]


def test_delete_waits_until_no_job_runs(bench: Bench) -> None:
    bench.answered()
    bench.step()
    sweeper = bench.world.sweeper()
    assert len(sweeper.clear().waiting) == 1
    assert bench.jobs() == ["Stopping"]
    assert len(sweeper.clear().waiting) == 1
    assert bench.world.calls("StopEvaluationJob") == 1
    bench.world.advance(5 * MINUTE)
    assert sweeper.clear().waiting == []


def test_job_is_stopped_also_after_the_judge_was_removed_from_the_settings(bench: Bench) -> None:
    """Case 10 of ownership: the sweeper does not know of a judge."""
    bench.answered()
    bench.step()
    bench.world.releases.transition(A, FAILED, "superseded without a judge")
    assert len(bench.world.sweeper().sweep().waiting) == 1
    assert bench.jobs() == ["Stopping"]


def missing() -> ClientError:
    """GetEvaluationJob's error for a job that does not exist."""
    return ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "no"}}, "GetEvaluationJob")


def test_job_that_is_not_found_once_is_graded(bench: Bench) -> None:
    bench.answered()
    bench.step()
    answers = iter([missing()])

    def late(**asked: Any) -> Any:
        for error in answers:
            raise error
        return bench.world.bedrock.get_evaluation_job(**asked)

    bedrock = Proxy(bench.world.bedrock, get_evaluation_job=late)
    assert bench.grade(bedrock=bedrock, absence_seconds=1)["message"] == "the answers are graded"


def test_job_that_is_never_found_is_stopped_all_the_same(bench: Bench) -> None:
    bench.answered()
    bench.step()
    bedrock = Proxy(bench.world.bedrock, get_evaluation_job=Mock(side_effect=missing()))
    assert "does not exist" in bench.grade(bedrock=bedrock)["message"]
    assert bench.jobs() == ["Stopping"]


def test_job_that_can_not_be_read_is_stopped(bench: Bench) -> None:
    bench.answered()
    bench.step()
    unreadable(bench)
    assert bench.step()["outcome"] == "done"
    assert bench.jobs() == ["Stopping"]


def test_job_that_can_not_be_stopped_is_stopped_by_the_sweeper_when_the_rollout_begins(bench: Bench) -> None:
    bench.answered()
    bench.step()
    unreadable(bench)
    bench.world.server.fault("denied", operation="StopEvaluationJob")
    assert "AccessDenied" in bench.step()["message"]
    assert bench.sweep().waiting == []
    bench.world.releases.transition(A, ROLLING_OUT, "5%")
    assert len(bench.sweep().waiting) == 1
    assert bench.jobs() == ["Stopping"]


def test_job_of_an_execution_that_was_stopped_by_hand_is_stopped(bench: Bench) -> None:
    bench.answered()
    arn = bench.world.stepfunctions.start_execution(stateMachineArn=bench.world.machine, name=f"{A}-1")
    bench.step()
    assert bench.sweep().waiting == []
    bench.world.stepfunctions.stop_execution(executionArn=arn["executionArn"])
    assert len(bench.sweep().waiting) == 1
    assert bench.jobs() == ["Stopping"]


def test_job_that_is_too_young_to_be_stopped_is_stopped_by_the_next_sweep(bench: Bench) -> None:
    """Stop does not find it; it is not taken for one that has ended."""
    bench.answered()
    endless(bench)
    bench.world.server.lag(delete_seconds=HOUR, list_seconds=MINUTE)
    assert supersede_during_creation(bench)["outcome"] == "failed"
    assert bench.jobs() == ["InProgress"]
    assert bench.sweep().waiting == []
    bench.world.advance(MINUTE)
    assert (len(bench.sweep().waiting), bench.jobs()) == (1, ["InProgress"])
    bench.world.server.lag(delete_seconds=0)
    assert (len(bench.sweep().waiting), bench.jobs()) == (1, ["Stopping"])


def test_polls_become_rarer_so_that_the_executions_history_lasts(bench: Bench) -> None:
    bench.answered()
    endless(bench)
    rounds = 0
    while (result := bench.step(poll_seconds=1, judge_hours=24))["outcome"] == "waiting":
        bench.world.advance(result["seconds"])
        rounds += 1
    assert 50 < rounds < 250


# Somebody else writes to the bucket


def forge(bench: Bench, key: str, old: bytes, new: bytes) -> None:
    """Replace a file of the judge, with the metadata that it had."""
    place = {"Bucket": bench.world.bucket, "Key": f"{bench.judged.prefix}{key}"}
    found = bench.world.s3.get_object(**place)
    body = found["Body"].read()
    assert old in body
    bench.world.s3.put_object(**place, Body=body.replace(old, new), Metadata=found["Metadata"])


def test_questions_to_the_judge_that_were_replaced_give_no_score(bench: Bench) -> None:
    bench.answered()
    bench.step()
    forge(bench, "prompts.jsonl", b"query 0", b"query 9")
    result = bench.grade()
    assert "the judge gave no score" in result["message"]
    assert "prompts.jsonl was not written by these functions" in result["message"]


def test_grades_that_were_replaced_are_not_used(bench: Bench) -> None:
    bench.answered()
    bench.grade()
    forge(bench, "grades.json", b'"invalid": 0', b'"invalid": 4')
    result = wait_if_transient(lambda: bench.decide(replace(LAX, minimum_judge_score=4.5)), 60)
    assert result["outcome"] == "failed"
    assert "grades.json was not written by these functions" in result["message"]
