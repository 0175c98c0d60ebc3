"""The release's judgement: the candidate answers the hold-out set, and the gate decides."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from evaluation.scores import Answer, Gate, Scores, report, score
from shared.answers import InvalidOutput
from shared.clients import client, table
from shared.conversation import Example, examples
from shared.errors import code
from shared.releases import EVALUATING, Release, Releases
from shared.stages import StageResult, done, failed, patient
from shared.task import Task

logger = Logger()

# A deployment of Nova Micro takes 2,000 requests a minute; a few at a time leave room for live traffic.
CONCURRENCY = 8
# A denied or missing endpoint answers all queries alike: this many in a row end the evaluation.
MOST_FAILED_CALLS = 20
# At 8 a time, what fits well into the function's 15 minutes even where an answer takes two seconds.
MOST_EXAMPLES = 2000
RETRY_SECONDS = 60


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation works with."""

    runtime: Any
    s3: Any
    task: Task
    bucket: str
    holdout_key: str
    gate: Gate

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Evaluation:
        """The function's own; retries with backoff absorb throttling, since a score must not depend on it."""
        config = Config(retries={"mode": "adaptive", "max_attempts": 6}, read_timeout=30)
        return cls(
            runtime=boto3.client("bedrock-runtime", config=config),
            s3=client("s3"),
            task=Task.load(),
            bucket=environment["DATA_BUCKET"],
            holdout_key=environment["HOLDOUT_KEY"],
            gate=Gate(**json.loads(environment["GATE"])),
        )


def handler(event: Mapping[str, Any], context: Any) -> StageResult:
    """Stage "evaluation"."""
    del context
    releases = Releases(table(os.environ["TABLE_NAME"]))
    evaluation = Evaluation.from_environment(os.environ)
    return patient(lambda: evaluate(str(event["release"]), releases, evaluation), RETRY_SECONDS)


def evaluate(digest: str, releases: Releases, evaluation: Evaluation) -> StageResult:
    """Ask the candidate every hold-out query, keep the report in S3, and say whether it passed."""
    release = releases.get(digest)
    if release is None or not releases.transition(digest, EVALUATING, "the hold-out set is being asked"):
        return failed(f"release {digest} is not on its way any more")
    body = evaluation.s3.get_object(Bucket=evaluation.bucket, Key=evaluation.holdout_key)["Body"]
    holdout = spread(
        list(examples((line.decode() for line in body.iter_lines()), evaluation.task)),
        max(MOST_EXAMPLES, evaluation.gate.minimum_examples),
    )
    answers = ask_all(release, holdout, evaluation)
    scores = score(answers, evaluation.task)
    result = report(scores, evaluation.gate, answers, digest=digest, model_arn=release.model_arn)
    key = f"releases/{digest}/evaluation.json"
    evaluation.s3.put_object(
        Bucket=evaluation.bucket,
        Key=key,
        Body=json.dumps(result, indent=1, allow_nan=False).encode(),
        ContentType="application/json",
    )
    releases.update(
        digest, scores=json.dumps(result["scores"], allow_nan=False), report=f"s3://{evaluation.bucket}/{key}"
    )
    if result["reasons"]:
        return failed(f"refused by the gate: {'; '.join(result['reasons'])}{_first_problem(answers)}")
    return done(_verdict(scores))


def _verdict(scores: Scores) -> str:
    return (
        f"{scores.examples} queries: valid output {scores.valid_output:.1%}, dominant label "
        f"{scores.dominant_accuracy:.1%}, mean absolute error {scores.mean_absolute_error:.3f}"
    )


def _first_problem(answers: list[Answer]) -> str:
    problem = next((answer.problem for answer in answers if answer.problem), "")
    return f". First problem: {problem}" if problem else ""


def spread(holdout: list[Example], most: int) -> list[Example]:
    """At most so many examples, spread evenly over the file: the same ones in every attempt."""
    if len(holdout) <= most:
        return holdout
    return [holdout[place * len(holdout) // most] for place in range(most)]


def ask_all(release: Release, holdout: list[Example], evaluation: Evaluation) -> list[Answer]:
    """Ask every query, a few at a time; a row of failed calls ends it early, so that nothing is paid for."""
    answers: list[Answer] = []
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for start in range(0, len(holdout), MOST_FAILED_CALLS):
            part = holdout[start : start + MOST_FAILED_CALLS]
            answers += pool.map(lambda example: ask(release.endpoint, example, evaluation), part)
            if all(answer.input_tokens == 0 for answer in answers[-len(part) :]):
                break
    return answers + [
        Answer(example.query, example.weights, None, "not asked: the calls before it failed")
        for example in holdout[len(answers) :]
    ]


def ask(endpoint: str, example: Example, evaluation: Evaluation) -> Answer:
    """Ask one query as the router asks it: the student's prompt, temperature 0, no token more."""
    started = time.perf_counter()
    try:
        reply = evaluation.runtime.converse(
            modelId=endpoint,
            system=[{"text": evaluation.task.student_prompt}],
            messages=[{"role": "user", "content": [{"text": example.query}]}],
            inferenceConfig={"temperature": 0.0, "maxTokens": evaluation.task.most_tokens()},
        )
    except ClientError as error:
        return Answer(example.query, example.weights, None, f"{code(error)}: {error}")
    except BotoCoreError as error:
        return Answer(example.query, example.weights, None, str(error))
    elapsed = (time.perf_counter() - started) * 1000
    usage = reply.get("usage", {})
    text = "".join(block.get("text", "") for block in reply["output"]["message"]["content"])
    weights, problem = None, ""
    try:
        weights = evaluation.task.parse(text)
    except InvalidOutput as error:
        problem = str(error)
    return Answer(
        example.query,
        example.weights,
        weights,
        problem,
        latency_ms=elapsed,
        input_tokens=usage.get("inputTokens", 0),
        output_tokens=usage.get("outputTokens", 0),
    )
