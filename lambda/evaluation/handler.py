"""Entry points of the evaluation's steps: prepare, ask all models, train the head, grade, score and gate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.clients import client, table
from distilled_router.aws.state_machine import StageResult, pause, wait_if_transient, waited
from distilled_router.env import EvaluationEnv, GradeAnswersEnv, TrainHeadEnv
from distilled_router.release.table import Releases
from evaluation.ask_models import ask_shard
from evaluation.attempt import Evaluation, evaluation_of
from evaluation.grade_answers import grade, grading_of
from evaluation.head_report import Margins
from evaluation.prepare_evaluation import prepare
from evaluation.score_and_gate import score
from evaluation.train_head import train

logger = Logger()

RETRY_SECONDS = 60


def prepare_evaluation(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step PrepareEvaluation: write the questions in shards."""
    del context
    releases, evaluation = _given()
    return wait_if_transient(
        lambda: prepare(str(event["release"]), releases, evaluation), _retry_seconds(event)
    )


def ask_models(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step AskModels: ask all contenders the questions of one shard."""
    del context
    releases, evaluation = _given()
    name = str(event["shard"]).rsplit("/", 1)[-1]
    return wait_if_transient(
        lambda: ask_shard(str(event["release"]), name, releases, evaluation),
        _retry_seconds(event),
    )


def train_head(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step TrainHead: train the release's classification head, and choose its threshold."""
    del context
    env = TrainHeadEnv.read()
    releases = Releases(table(env.table_name), env.owner)
    margins = Margins(env.margin_error, env.margin_dominant)
    evaluation = evaluation_of(env, client("s3"))
    return train(str(event["release"]), releases, evaluation, margins, waited(event))


def grade_answers(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step GradeAnswers, only with a judge: let it grade the candidate's answers."""
    del context
    env = GradeAnswersEnv.read()
    grading = grading_of(env, client("bedrock"), client("s3"), Releases(table(env.table_name), env.owner))
    return wait_if_transient(lambda: grade(str(event["release"]), grading), _retry_seconds(event))


def score_and_gate(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step ScoreAndGate: score the answers, write the report, and decide whether the candidate passes."""
    del context
    releases, evaluation = _given()
    return wait_if_transient(
        lambda: score(str(event["release"]), releases, evaluation), _retry_seconds(event)
    )


def _retry_seconds(event: Mapping[str, Any]) -> int:
    return pause(waited(event), RETRY_SECONDS)


def _given() -> tuple[Releases, Evaluation]:
    env = EvaluationEnv.read()
    return Releases(table(env.table_name), env.owner), evaluation_of(env, client("s3"))
