"""The release's judgement: questions are laid out in shards, every contender is asked, and the gate decides.

All of an attempt lies in `releases/<digest>-<attempt>/`. A shard that was answered is not asked again, so
that whatever dies is taken up where it was.
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config

from evaluation.asking import BASE, CANDIDATE, SERVING, STATIC, Contender, ask_all, read
from evaluation.gate import Gate
from evaluation.judgement import Scored, judge
from evaluation.metrics import Answer, Question
from evaluation.page import page
from evaluation.questions import HOLDOUT, Robustness, questions, shards
from shared.clients import client, table
from shared.conversation import examples
from shared.objects import Folder
from shared.releases import EVALUATING, Release, Releases
from shared.stages import StageResult, done, failed, not_on_its_way, patient
from shared.task import Task

logger = Logger()

RETRY_SECONDS = 60
_PLAN = "plan.json"
_ASKED, _ANSWERED = "questions/", "answers/"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluation works with. `base_model` is asked for comparison, unless it is empty; for
    `slice_queries` see `questions`."""

    runtime: Any
    s3: Any
    task: Task
    robustness: Robustness
    bucket: str
    holdout_key: str
    gate: Gate
    base_model: str
    slice_queries: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Evaluation:
        """The function's own; retries with backoff absorb throttling, since a score must not depend on it."""
        config = Config(retries={"mode": "adaptive", "max_attempts": 6}, read_timeout=30)
        return cls(
            runtime=boto3.client("bedrock-runtime", config=config),
            s3=client("s3"),
            task=Task.load(),
            robustness=Robustness.load(),
            bucket=environment["DATA_BUCKET"],
            holdout_key=environment["HOLDOUT_KEY"],
            gate=Gate(**json.loads(environment["GATE"])),
            base_model=environment["BASE_MODEL"],
            slice_queries=int(environment["SLICE_QUERIES"]),
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
    folder = evaluation.folder(release)
    if folder.read(_PLAN) is None:
        body = evaluation.s3.get_object(Bucket=evaluation.bucket, Key=evaluation.holdout_key)["Body"]
        holdout = list(examples((line.decode() for line in body.iter_lines()), evaluation.task))
        asked = list(questions(holdout, evaluation.task, evaluation.robustness, evaluation.slice_queries))
        for name, rows in shards(asked):
            folder.write_rows(f"{_ASKED}{name}.jsonl", rows)
        contenders = list(_contenders(release, releases, evaluation))
        folder.write(_PLAN, {"contenders": [asdict(one) for one in contenders], "questions": len(asked)})
    plan = folder.read(_PLAN) or {}
    others = len(plan["contenders"]) - 1
    message = f"{plan['questions']} questions to the candidate and {others} others"
    return done(message) if releases.transition(digest, EVALUATING, message) else not_on_its_way(digest)


def answer(digest: str, shard: str, releases: Releases, evaluation: Evaluation) -> StageResult:
    """Ask one shard's questions, and keep the answers; nobody is asked again for what is kept."""
    release = releases.get(digest)
    if release is None or release.is_final:
        return not_on_its_way(digest)
    folder = evaluation.folder(release)
    if f"{_ANSWERED}{shard}" not in folder.names(_ANSWERED):
        plan = folder.read(_PLAN) or {}
        contenders = [Contender(**one) for one in plan["contenders"]]
        asked = [Question(**row) for row in folder.rows(f"{_ASKED}{shard}")]
        folder.write_rows(
            f"{_ANSWERED}{shard}", ask_all(contenders, asked, evaluation.runtime, evaluation.task)
        )
    return done(f"shard {shard} is answered")


def verdict(digest: str, releases: Releases, evaluation: Evaluation) -> StageResult:
    """Score all answers and keep the report."""
    release = releases.get(digest)
    if release is None or not releases.transition(digest, EVALUATING, "the answers are being scored"):
        return not_on_its_way(digest)
    folder = evaluation.folder(release)
    if left := _names(folder, _ASKED) - _names(folder, _ANSWERED):
        return failed(f"{len(left)} shards of questions were not answered: {', '.join(sorted(left)[:5])}")
    report = _report(release, folder, evaluation)
    folder.write("report.json", report)
    folder.write_page("report.html", page(report))
    scores = _summary(report)
    releases.update(digest, scores=json.dumps(scores, allow_nan=False), report=folder.uri("report.html"))
    if report["reasons"]:
        return failed(f"refused by the gate: {'; '.join(report['reasons'])}{_first_problem(report)}")
    return done(_passed(scores))


def _report(release: Release, folder: Folder, evaluation: Evaluation) -> dict[str, Any]:
    task = evaluation.task
    asked = [Question(**row) for key in folder.names(_ASKED) for row in folder.rows(key)]
    given: dict[str, dict[str, Answer]] = defaultdict(dict)
    for key in folder.names(_ANSWERED):
        for kept in folder.rows(key):
            name, one = read(kept)
            given[name][one.id] = one
    plan = folder.read(_PLAN) or {}
    scored = [
        Scored(contender, given[contender.name], asked, task)
        for contender in (Contender(**one) for one in plan["contenders"])
    ]
    counts: dict[str, int] = defaultdict(int)
    for question in asked:
        counts[question.slice] += 1
    identity = {
        "release": release.digest,
        "attempt": release.attempt,
        "model": release.model_arn,
        "endpoint": release.endpoint,
        "judged_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "holdout": f"s3://{evaluation.bucket}/{evaluation.holdout_key}",
            "questions": len(asked),
            "slices": dict(counts),
        },
    }
    return judge(scored, evaluation.gate, identity)


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
    settled = releases.route().settled
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
    return {"examples": report["data"]["slices"].get(HOLDOUT, 0), **values}


def _passed(scores: Mapping[str, Any]) -> str:
    return (
        f"{scores['examples']} queries: valid output {scores['valid_output']:.1%}, dominant label "
        f"{scores['dominant_accuracy']:.1%}, mean absolute error {scores['mean_absolute_error']:.3f}"
    )


def _first_problem(report: Mapping[str, Any]) -> str:
    problem = next((one["problem"] for one in report["worst"] if one["problem"]), "")
    return f". First problem: {problem}" if problem else ""


def _names(folder: Folder, under: str) -> set[str]:
    return {key.removeprefix(under) for key in folder.names(under)}


def _releases() -> Releases:
    return Releases(table(os.environ["TABLE_NAME"]))
