"""The stand-in with deployed students, for the benchmarks, and the variables of the router's function."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stacks  # noqa: F401  # puts lambda/ on the import path

PROJECT = Path(__file__).resolve().parents[1]
FIRST_TOKEN_MS, TOKENS_A_SECOND = 380.0, 183.0
REGION, ROLE = "us-east-1", "arn:aws:iam::000000000000:role/job"
SECRET = "not-a-secret"  # noqa: S105  # the stand-in verifies no signature
# The variables of the function.
FUNCTION: Mapping[str, str] = {
    "POWERTOOLS_SERVICE_NAME": "benchmark",
    "TABLE_NAME": "releases",
    "BASE_MODEL": "us.amazon.nova-micro-v1:0",
    "BASE_PRICES": "0.035 0.14",
    "STUDENT_PRICES": "0.035 0.14",
    "TIME_BUDGET_MS": "1500",
    "BATCH_TIME_BUDGET_MS": "10000",
    "BATCH_QUERIES": "100",
    # The benchmarks measure the router and not its limits.
    "QUOTA_REQUESTS_PER_MINUTE": "10000000",
    "MEMORY_MB": "512",
    "CACHE_ENTRIES": "2000",
    "CACHE_SECONDS": "300",
    "ROUTE_SECONDS": "10",
    "LOG_QUERIES": "false",
    "TRACING": "false",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_ACCESS_KEY_ID": "AKIASTANDIN",
    "AWS_SECRET_ACCESS_KEY": SECRET,
}
# The published student answers with four weights and about 60 tokens of reasoning.
REASONING = (
    "The query names what can be seen in the clip, so the visual channel matters most and the audio channel "
    "somewhat, while spoken words and metadata add little."
)


@dataclass(frozen=True)
class Where:
    """The stand-in's URL, the student's deployment, the authorities that sign for the URL, and the token."""

    url: str
    model: str
    ca_bundle: str
    token: str = ""

    @property
    def variables(self) -> dict[str, str]:
        """Return the function's variables, with the stand-in in place of AWS."""
        return {**FUNCTION, "AWS_ENDPOINT_URL": self.url, "AWS_CA_BUNDLE": self.ca_bundle}

    def client(self, **config: Any) -> Any:
        """Return a bedrock-runtime client of boto3 for the stand-in."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "bedrock-runtime",
            endpoint_url=self.url,
            region_name=REGION,
            verify=self.ca_bundle,
            aws_access_key_id="AKIASTANDIN",
            aws_secret_access_key=SECRET,
            config=Config(**{"proxies": {}, **config}),
        )


@contextmanager
def standin(
    *, first_token_ms: float = FIRST_TOKEN_MS, tokens_a_second: float = TOKENS_A_SECOND
) -> Iterator[tuple[Where, Where]]:
    """Run the stand-in with two students: one answers with weights only, one with weights and reasoning."""
    from distilled_router.data.conversation import examples, row
    from distilled_router.task.task import Task
    from local.bedrock import BedrockStandIn, MemoryS3, Settings

    task, s3 = Task.load(), MemoryS3()
    with (PROJECT / "data" / "training.jsonl").open(encoding="utf-8") as lines:
        rows = [row(task, one.query, one.weights) for one in examples(lines, task)][:400]
    short = "".join(f"{json.dumps(one)}\n" for one in rows)
    for one in rows:
        (content,) = one["messages"][1]["content"]
        weights = task.parse(content["text"])
        content["text"] = json.dumps({**weights, "reasoning": REASONING})
    long = "".join(f"{json.dumps(one)}\n" for one in rows)
    settings = Settings(first_token_ms=first_token_ms, token_ms=1000 / tokens_a_second)
    with BedrockStandIn(s3=s3, settings=settings, tls=True) as bedrock:
        found = []
        for name, body in (("short", short), ("long", long)):
            s3.put_object(Bucket="data", Key=f"{name}.jsonl", Body=body)
            model = _student(bedrock, name)
            found.append(Where(bedrock.endpoint, model, bedrock.ca_bundle, bedrock.token))
        yield found[0], found[1]


def _student(bedrock: Any, name: str) -> str:
    control, day = bedrock.client("bedrock"), 24 * 3600
    teacher = {"teacherModelIdentifier": "us.amazon.nova-pro-v1:0", "maxResponseLengthForInference": 200}
    control.create_model_customization_job(
        jobName=name,
        customModelName=name,
        roleArn=ROLE,
        baseModelIdentifier="amazon.nova-micro-v1:0:128k",
        customizationType="DISTILLATION",
        customizationConfig={"distillationConfig": {"teacherModelConfig": teacher}},
        trainingDataConfig={"s3Uri": f"s3://data/{name}.jsonl"},
        outputDataConfig={"s3Uri": "s3://data/jobs/"},
    )
    bedrock.advance(day)
    model = control.get_model_customization_job(jobIdentifier=name)["outputModelArn"]
    created = control.create_custom_model_deployment(modelDeploymentName=name, modelArn=model)
    bedrock.advance(day)
    return str(created["customModelDeploymentArn"])
