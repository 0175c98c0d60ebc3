"""Rows, jobs and endpoints that the tests of the stand-in share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local.bedrock import BedrockStandIn, MemoryS3

MINUTE, HOUR, DAY = 60, 3600, 24 * 3600
SYSTEM = "Give fruit and bread as two percents that sum to 100."
ROLE = "arn:aws:iam::000000000000:role/customization"
STUDENT = "amazon.nova-micro-v1:0:128k"
TEACHER = "us.amazon.nova-pro-v1:0"
BASE = "amazon.nova-micro-v1:0"
FRUIT = ("apple", "pear", "plum", "cherry", "melon", "lemon", "fig", "grape", "quince", "peach")
BREAD = ("loaf", "bun", "bagel", "toast", "crust", "roll", "rye", "baguette", "pretzel", "crumb")
PROMPT = "a plum in the garden"
PLACES = ("shop", "garden", "kitchen", "market", "table", "basket")

Row = dict[str, Any]


def record(prompt: str, answer: str | None = None, system: str = SYSTEM) -> Row:
    """Return a training row."""
    messages = [{"role": "user", "content": [{"text": prompt}]}]
    if answer is not None:
        messages.append({"role": "assistant", "content": [{"text": answer}]})
    return {"schemaVersion": "bedrock-conversation-2024", "system": [{"text": system}], "messages": messages}


def labelled() -> list[Row]:
    """Return 120 rows that teach to tell fruit from bread."""
    return [
        record(f"a {thing} in the {place}", answer)
        for things, answer in ((FRUIT, "90 10"), (BREAD, "10 90"))
        for thing in things
        for place in PLACES
    ]


def lines(rows: Sequence[Any]) -> bytes:
    """Return rows as the content of a JSONL file."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


class Scene:
    """A stand-in with its clients."""

    def __init__(self, bedrock: BedrockStandIn) -> None:
        self.bedrock = bedrock
        self.s3: MemoryS3 = bedrock.s3
        self.control = bedrock.client("bedrock", attempts=1)
        self.runtime = bedrock.client("bedrock-runtime", attempts=1)
        self.advance: Callable[[float], None] = bedrock.advance

    def create_job(self, name: str = "job", rows: Sequence[Any] | None = None, **changes: Any) -> str:
        """Start a distillation job and return its ARN."""
        if rows is not None or ("data", "training.jsonl") not in self.s3.objects:
            self.s3.put_object(
                Bucket="data", Key="training.jsonl", Body=lines(labelled() if rows is None else rows)
            )
        teacher = {"teacherModelIdentifier": changes.pop("teacher", TEACHER)}
        request = {
            "jobName": name,
            "customModelName": name,
            "roleArn": ROLE,
            "baseModelIdentifier": STUDENT,
            "customizationType": "DISTILLATION",
            "customizationConfig": {"distillationConfig": {"teacherModelConfig": teacher}},
            "trainingDataConfig": {"s3Uri": "s3://data/training.jsonl"},
            "outputDataConfig": {"s3Uri": "s3://data/output/"},
            **changes,
        }
        request = {key: value for key, value in request.items() if value is not None}
        return str(self.control.create_model_customization_job(**request)["jobArn"])

    def job(self, name: str = "job") -> dict[str, Any]:
        """Call GetModelCustomizationJob."""
        found: dict[str, Any] = self.control.get_model_customization_job(jobIdentifier=name)
        return found

    def phases(self, name: str = "job") -> dict[str, str]:
        """Return the statuses of a job's phases."""
        return {phase: detail["status"] for phase, detail in self.job(name)["statusDetails"].items()}

    def train(self, name: str = "job", rows: Sequence[Any] | None = None, **changes: Any) -> str:
        """Run a job to its end and return the model's ARN."""
        self.create_job(name, rows, **changes)
        self.advance(2 * HOUR)
        return str(self.job(name)["outputModelArn"])

    def deploy(self, model: str, name: str = "endpoint", *, wait: bool = True) -> str:
        """Deploy a model and return the deployment's ARN."""
        answer = self.control.create_custom_model_deployment(modelDeploymentName=name, modelArn=model)
        if wait:
            self.advance(10 * MINUTE)
        return str(answer["customModelDeploymentArn"])

    def provision(self, model: str, name: str = "units", *, wait: bool = True, **changes: Any) -> str:
        """Buy throughput for a model and return its ARN."""
        answer = self.control.create_provisioned_model_throughput(
            provisionedModelName=name, modelId=model, modelUnits=changes.pop("units", 1), **changes
        )
        if wait:
            self.advance(30 * MINUTE)
        return str(answer["provisionedModelArn"])

    def converse(self, model: str, prompt: str, system: str = SYSTEM, **config: Any) -> dict[str, Any]:
        """Call Converse at temperature 0."""
        answer: dict[str, Any] = self.runtime.converse(
            modelId=model,
            system=[{"text": system}],
            messages=[{"role": "user", "content": [{"text": prompt}]}],
            inferenceConfig={"temperature": 0, **config},
        )
        return answer

    def ask(self, model: str, prompt: str, system: str = SYSTEM, **config: Any) -> str:
        """Return the text of a model's answer."""
        return text_of(self.converse(model, prompt, system, **config))


def text_of(answer: dict[str, Any]) -> str:
    """Return the text of a response of Converse."""
    return str(answer["output"]["message"]["content"][0]["text"])


@contextmanager
def refused(code: str, text: str = "") -> Iterator[None]:
    """Expect a service error with this code and this text in its message."""
    with pytest.raises(ClientError) as caught:
        yield
    error = caught.value.response["Error"]
    assert (error["Code"], text in error["Message"]) == (code, True), error


invalid = partial(refused, "ValidationException")
conflict = partial(refused, "ConflictException")
