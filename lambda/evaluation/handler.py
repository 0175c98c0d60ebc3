"""The evaluation of a release's candidate: prepare questions, ask all models, grade, score and gate."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.clients import client, table
from distilled_router.aws.state_machine import StageResult, wait_if_transient
from distilled_router.release.table import Releases
from evaluation.ask_models import ask_shard
from evaluation.attempt import Evaluation
from evaluation.grade_answers import grade, grading_from
from evaluation.prepare_evaluation import prepare
from evaluation.score_and_gate import score

logger = Logger()

RETRY_SECONDS = 60


def prepare_evaluation(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step PrepareEvaluation: write the questions in shards."""
    del context
    releases, evaluation = _releases(), _evaluation()
    return wait_if_transient(lambda: prepare(str(event["release"]), releases, evaluation), RETRY_SECONDS)


def ask_models(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step AskModels: ask all contenders the questions of one shard."""
    del context
    releases, evaluation = _releases(), _evaluation()
    name = str(event["shard"]).rsplit("/", 1)[-1]
    return wait_if_transient(
        lambda: ask_shard(str(event["release"]), name, releases, evaluation), RETRY_SECONDS
    )


def grade_answers(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step GradeAnswers, where a judge is set: have it grade the candidate's answers."""
    del context
    releases, evaluation = _releases(), _evaluation()
    grading = grading_from(os.environ, client("bedrock"), releases, evaluation.task)
    return wait_if_transient(
        lambda: grade(str(event["release"]), releases, evaluation, grading), RETRY_SECONDS
    )


def score_and_gate(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step ScoreAndGate: score the answers, keep the report, and say whether the candidate passed."""
    del context
    releases, evaluation = _releases(), _evaluation()
    return wait_if_transient(lambda: score(str(event["release"]), releases, evaluation), RETRY_SECONDS)


def _evaluation() -> Evaluation:
    return Evaluation.from_environment(os.environ, client("s3"))


def _releases() -> Releases:
    return Releases(table(os.environ["TABLE_NAME"]))
