"""Step PrepareEvaluation: write the questions in shards, and the evaluation's plan."""

from __future__ import annotations

from dataclasses import asdict

from distilled_router.aws.state_machine import StageResult, done, not_in_progress
from distilled_router.data.conversation import examples
from distilled_router.release.table import EVALUATING, Releases
from evaluation.attempt import PLAN, QUESTIONS, Evaluation
from evaluation.contenders import contenders
from evaluation.questions import questions, shards


def prepare(digest: str, releases: Releases, evaluation: Evaluation) -> StageResult:
    """Write the questions and the plan, which fixes the live release to compare the candidate with."""
    release = releases.get(digest)
    if release is None or not releases.transition(digest, EVALUATING, "preparing the questions"):
        return not_in_progress(digest)
    folder, life = evaluation.folder(release), release.life
    plan = folder.read(PLAN)
    if plan is None or plan["life"] != life:
        body = evaluation.s3.get_object(Bucket=evaluation.bucket, Key=evaluation.holdout_key)["Body"]
        holdout = list(examples((line.decode() for line in body.iter_lines()), evaluation.task))
        asked = list(questions(holdout, evaluation.task, evaluation.robustness, evaluation.slice_queries))
        names = []
        for name, rows in shards(asked):
            folder.write_rows(f"{QUESTIONS}{name}.jsonl", rows)
            names.append(name)
        asked_of = [asdict(one) for one in contenders(release, releases, evaluation.base_model)]
        plan = {"life": life, "contenders": asked_of, "shards": names, "questions": len(asked)}
        folder.write(PLAN, plan)
    others = len(plan["contenders"]) - 1
    message = f"{plan['questions']} questions to the candidate and {others} others"
    return done(message) if releases.transition(digest, EVALUATING, message) else not_in_progress(digest)
