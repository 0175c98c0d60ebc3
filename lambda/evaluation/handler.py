"""The release's judgement: questions are laid out in shards, every contender is asked, and the gate decides.

All of an attempt lies in `releases/<digest>-<attempt>/`. What was answered is not asked again, so that
whatever dies is taken up where it was.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import batched
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config

from distilled_router.aws.clients import client, table
from distilled_router.aws.objects import Folder
from distilled_router.aws.state_machine import StageResult, done, failed, not_on_its_way, patient, waiting
from distilled_router.data.conversation import examples
from distilled_router.release.table import EVALUATING, Release, Releases
from distilled_router.task.robustness import Robustness
from distilled_router.task.task import Task
from evaluation.asking import BASE, CANDIDATE, SERVING, STATIC, Contender, ask_all, read
from evaluation.gate import Gate
from evaluation.grades import sample
from evaluation.grading import Grading, grading_from, kept_grades
from evaluation.judgement import Scored, judge
from evaluation.metrics import Answer, Question
from evaluation.page import page
from evaluation.questions import HOLDOUT, questions, shards

logger = Logger()

RETRY_SECONDS = 60
# Answers are kept in parts of so many questions: what a crash in between loses.
PART_QUESTIONS = 100
# How long one invocation begins new parts, well below the function's 15 minutes.
ASK_SECONDS = 480
_PLAN = "plan.json"
_ASKED, _ANSWERED = "questions/", "answers/"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation works with. `base_model` is asked for comparison, and `judge` grades the
    candidate's answers, unless they are empty; for `slice_queries` see `questions`."""

    runtime: Any
    s3: Any
    task: Task
    robustness: Robustness
    bucket: str
    holdout_key: str
    gate: Gate
    base_model: str
    slice_queries: int
    judge: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Evaluation:
        """The function's own; retries with backoff absorb throttling, since a score must not depend on it.

        A call that hangs is given up soon enough for an endpoint of which all do, or a part would take longer
        than the function may.
        """
        config = Config(retries={"mode": "adaptive", "max_attempts": 5}, connect_timeout=5, read_timeout=15)
        task = Task.load()
        return cls(
            runtime=boto3.client("bedrock-runtime", config=config),
            s3=client("s3"),
            task=task,
            robustness=Robustness.load(task),
            bucket=environment["DATA_BUCKET"],
            holdout_key=environment["HOLDOUT_KEY"],
            gate=Gate(**json.loads(environment["GATE"])),
            base_model=environment["BASE_MODEL"],
            slice_queries=int(environment["SLICE_QUERIES"]),
            judge=environment.get("JUDGE", ""),
        )

    def folder(self, release: Release) -> Folder:
        """Where all of a release's present attempt lies."""
        return Folder(self.s3, self.bucket, f"releases/{release.digest}-{release.attempt}/")


def prepare(event: Mapping[str, Any], context: Any) -> StageResult:
    """Stage before all shards: lay out the questions, and say who is asked."""
    del context
    releases, evaluation = _releases(), Evaluation.from_environment(os.environ)
    return patient(lambda: lay_out(str(event["release"]), releases, evaluation), RETRY_SECONDS)


def ask(event: Mapping[str, Any], context: Any) -> StageResult:
    """Stage of one shard: ask all its questions."""
    del context
    releases, evaluation = _releases(), Evaluation.from_environment(os.environ)
    name = str(event["shard"]).rsplit("/", 1)[-1]
    return patient(lambda: answer(str(event["release"]), name, releases, evaluation), RETRY_SECONDS)


def grade(event: Mapping[str, Any], context: Any) -> StageResult:
    """Stage between, where a judge is set: have it grade the candidate's answers."""
    del context
    releases, evaluation = _releases(), Evaluation.from_environment(os.environ)
    grading = grading_from(os.environ, client("bedrock"), releases, evaluation.task)
    return patient(lambda: have_graded(str(event["release"]), releases, evaluation, grading), RETRY_SECONDS)


def decide(event: Mapping[str, Any], context: Any) -> StageResult:
    """Stage after all shards: score the answers, keep the report, and say whether the candidate passed."""
    del context
    releases, evaluation = _releases(), Evaluation.from_environment(os.environ)
    return patient(lambda: verdict(str(event["release"]), releases, evaluation), RETRY_SECONDS)


def lay_out(digest: str, releases: Releases, evaluation: Evaluation) -> StageResult:
    """Write the questions in shards, and the plan: whoever serves at this moment is compared to the end."""
    release = releases.get(digest)
    if release is None or not releases.transition(digest, EVALUATING, "the questions are laid out"):
        return not_on_its_way(digest)
    folder, life = evaluation.folder(release), release.life
    plan = folder.read(_PLAN)
    if plan is None or plan["life"] != life:
        body = evaluation.s3.get_object(Bucket=evaluation.bucket, Key=evaluation.holdout_key)["Body"]
        holdout = list(examples((line.decode() for line in body.iter_lines()), evaluation.task))
        asked = list(questions(holdout, evaluation.task, evaluation.robustness, evaluation.slice_queries))
        names = []
        for name, rows in shards(asked):
            folder.write_rows(f"{_ASKED}{name}.jsonl", rows)
            names.append(name)
        contenders = [asdict(one) for one in _contenders(release, releases, evaluation)]
        plan = {"life": life, "contenders": contenders, "shards": names, "questions": len(asked)}
        folder.write(_PLAN, plan)
    others = len(plan["contenders"]) - 1
    message = f"{plan['questions']} questions to the candidate and {others} others"
    return done(message) if releases.transition(digest, EVALUATING, message) else not_on_its_way(digest)


def answer(digest: str, key: str, releases: Releases, evaluation: Evaluation) -> StageResult:
    """Ask one shard's questions, and keep the answers part by part; what is kept is not asked again.

    `key` is the name of the shard's file.
    """
    release, shard = releases.get(digest), key.removesuffix(".jsonl")
    if release is None or release.is_final:
        return not_on_its_way(digest)
    folder = evaluation.folder(release)
    plan = folder.read(_PLAN) or {}
    if shard not in plan["shards"]:
        return done(f"shard {shard} is of an earlier life of the stack")
    contenders = [Contender(**one) for one in plan["contenders"]]
    asked = [Question(**row) for row in folder.rows(f"{_ASKED}{key}")]
    kept = folder.names(_answers(plan, shard))
    answered = {str(row["id"]) for part in kept for row in folder.rows(part)}
    left = [question for question in asked if question.id not in answered]
    end = time.monotonic() + ASK_SECONDS
    for number, part in enumerate(batched(left, PART_QUESTIONS), start=len(kept)):
        # Stopping an execution stops no function that runs.
        now = releases.get(digest)
        if now is None or now.is_final:
            return not_on_its_way(digest)
        rows = ask_all(contenders, part, evaluation.runtime, evaluation.task)
        folder.write_rows(f"{_answers(plan, shard)}{number:03d}.jsonl", rows)
        answered |= {question.id for question in part}
        if time.monotonic() > end and len(answered) < len(asked):
            return waiting(f"shard {shard}: {len(answered)} of {len(asked)} questions are answered", 1)
    return done(f"shard {shard} is answered")


def have_graded(digest: str, releases: Releases, evaluation: Evaluation, grading: Grading) -> StageResult:
    """Take the judge's grading one step further."""
    release = releases.get(digest)
    if release is None or not releases.transition(digest, EVALUATING, f"{grading.judge} grades the answers"):
        return not_on_its_way(digest)
    folder = evaluation.folder(release)

    def pairs() -> list[tuple[Question, Answer | None]]:
        plan = folder.read(_PLAN) or {}
        given = _given(folder, plan)[CANDIDATE]
        return [(question, given.get(question.id)) for question in sample(_asked(folder, plan))]

    return grading.step(release, folder, pairs)


def verdict(digest: str, releases: Releases, evaluation: Evaluation) -> StageResult:
    """Score all answers and keep the report."""
    release = releases.get(digest)
    if release is None or not releases.transition(digest, EVALUATING, "the answers are being scored"):
        return not_on_its_way(digest)
    folder = evaluation.folder(release)
    plan = folder.read(_PLAN) or {}
    asked = _asked(folder, plan)
    given = _given(folder, plan)
    if left := [question for question in asked if question.id not in given[CANDIDATE]]:
        return failed(f"{len(left)} of {len(asked)} questions were not asked, the first {left[0].id}")
    scored = [
        Scored(contender, given[contender.name], asked, evaluation.task)
        for contender in (Contender(**one) for one in plan["contenders"])
    ]
    grades = kept_grades(release, folder, evaluation.judge) if evaluation.judge else None
    report = judge(scored, evaluation.gate, _identity(release, asked, evaluation), grades)
    folder.write("report.json", report)
    folder.write_page("report.html", page(report))
    scores = _summary(report)
    releases.update(digest, scores=json.dumps(scores, allow_nan=False), report=folder.uri("report.html"))
    if report["reasons"]:
        return failed(f"refused by the gate: {'; '.join(report['reasons'])}{_first_problem(report)}")
    return done(_passed(scores))


def _asked(folder: Folder, plan: Mapping[str, Any]) -> list[Question]:
    """All questions, in their order."""
    return [Question(**row) for shard in plan["shards"] for row in folder.rows(f"{_ASKED}{shard}.jsonl")]


def _answers(plan: Mapping[str, Any], shard: str) -> str:
    return f"{_ANSWERED}{plan['life']}/{shard}/"


def _given(folder: Folder, plan: Mapping[str, Any]) -> dict[str, dict[str, Answer]]:
    """All answers that are kept, by contender and question."""
    given: dict[str, dict[str, Answer]] = defaultdict(dict)
    for shard in plan["shards"]:
        for part in folder.names(_answers(plan, shard)):
            for kept in folder.rows(part):
                name, one = read(kept)
                given[name][one.id] = one
    return given


def _identity(release: Release, asked: Sequence[Question], evaluation: Evaluation) -> dict[str, Any]:
    """What was judged, when, and on what."""
    return {
        "release": release.digest,
        "attempt": release.attempt,
        "model": release.model_arn,
        "endpoint": release.endpoint,
        "judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "holdout": f"s3://{evaluation.bucket}/{evaluation.holdout_key}",
            "questions": len(asked),
            "slices": dict(Counter(question.slice for question in asked)),
        },
    }


def _contenders(release: Release, releases: Releases, evaluation: Evaluation) -> list[Contender]:
    """Who is compared: the candidate first."""
    found = [
        Contender(
            name=CANDIDATE,
            title=f"candidate {release.digest}",
            endpoint=release.endpoint,
            model=release.model_arn,
        )
    ]
    settled = releases.served().settled
    if settled and settled.release != release.digest:
        serving = releases.get(settled.release)
        title, model = f"serves now {settled.release}", serving.model_arn if serving else ""
        found.append(Contender(name=SERVING, title=title, endpoint=settled.endpoint, model=model))
    if base := evaluation.base_model:
        found.append(
            Contender(name=BASE, title=f"{base}, full prompt", endpoint=base, model=base, full_prompt=True)
        )
    return [*found, Contender(name=STATIC, title="static weights")]


def _summary(report: Mapping[str, Any]) -> dict[str, float | int | None]:
    """The candidate's scores as the releases table keeps them."""
    metrics = report["contenders"][CANDIDATE]["metrics"]
    values = {name: found["value"] if found else None for name, found in metrics.items()}
    if grades := report.get("judge"):
        values["judge_score"] = grades["score"]["value"] if grades["score"] else None
    return {"examples": report["data"]["slices"].get(HOLDOUT, 0), **values}


def _passed(scores: Mapping[str, Any]) -> str:
    grade = scores.get("judge_score")
    return (
        f"{scores['examples']} queries: valid output {scores['valid_output']:.1%}, dominant label "
        f"{scores['dominant_accuracy']:.1%}, mean absolute error {scores['mean_absolute_error']:.3f}"
        f"{f', judge {grade:.2f} of 5' if grade is not None else ''}"
    )


def _first_problem(report: Mapping[str, Any]) -> str:
    problem = next((one["problem"] for one in report["worst"] if one["problem"]), "")
    return f". First problem: {problem}" if problem else ""


def _releases() -> Releases:
    return Releases(table(os.environ["TABLE_NAME"]))
