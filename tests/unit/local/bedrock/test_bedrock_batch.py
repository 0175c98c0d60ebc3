"""Batch inference."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.local.bedrock.scenes import (
    HOUR,
    MINUTE,
    ROLE,
    TEACHER,
    Scene,
    conflict,
    invalid,
    lines,
    refused,
)

SYSTEM = 'Answer as {"visual": 0.5, "audio": 0.5}.'


def records(count: int = 100) -> list[Any]:
    return [
        {
            "recordId": f"record-{number}",
            "modelInput": {
                "system": [{"text": SYSTEM}],
                "messages": [{"role": "user", "content": [{"text": f"a red car number {number}"}]}],
                "inferenceConfig": {"maxTokens": 100, "temperature": 0},
            },
        }
        for number in range(count)
    ]


def create(scene: Scene, inputs: list[Any], **changes: Any) -> str:
    scene.s3.put_object(Bucket="data", Key="in/queries.jsonl", Body=lines(inputs))
    request = {
        "jobName": "batch",
        "roleArn": ROLE,
        "modelId": TEACHER,
        "inputDataConfig": {"s3InputDataConfig": {"s3Uri": "s3://data/in/queries.jsonl"}},
        "outputDataConfig": {"s3OutputDataConfig": {"s3Uri": "s3://data/out/"}},
        **changes,
    }
    return str(scene.control.create_model_invocation_job(**request)["jobArn"])


def job(scene: Scene, arn: str) -> dict[str, Any]:
    found: dict[str, Any] = scene.control.get_model_invocation_job(jobIdentifier=arn)
    return found


def outputs(scene: Scene, arn: str) -> list[Any]:
    body = scene.s3.objects["data", f"out/{arn[-12:]}/queries.jsonl.out"]
    return [json.loads(line) for line in body.splitlines()]


def test_job_answers_every_record(scene: Scene) -> None:
    arn = create(scene, records())
    seen = [job(scene, arn)["status"]]
    for minutes in (1, 5, 30):
        scene.advance(minutes * MINUTE)
        seen.append(job(scene, arn)["status"])
    assert seen == ["Submitted", "Validating", "InProgress", "Completed"]
    found = outputs(scene, arn)
    assert [line["recordId"] for line in found] == [f"record-{number}" for number in range(100)]
    weights = json.loads(found[0]["modelOutput"]["output"]["message"]["content"][0]["text"])
    assert weights["visual"] > weights["audio"]
    manifest = json.loads(scene.s3.objects["data", f"out/{arn[-12:]}/manifest.json.out"])
    assert (manifest["totalRecordCount"], manifest["errorRecordCount"]) == (100, 0)
    assert job(scene, arn[-12:])["successRecordCount"] == 100


def test_records_in_converse_form(scene: Scene) -> None:
    arn = create(scene, records(), modelInvocationType="Converse")
    scene.advance(HOUR)
    assert job(scene, arn)["status"] == "Completed"


@pytest.mark.parametrize(
    "bad", ["text", {"recordId": "x"}, {"modelInput": {"messages": []}}, {"modelInput": 1}]
)
def test_invalid_record_gets_an_error_in_its_own_line(scene: Scene, bad: Any) -> None:
    arn = create(scene, [*records(), bad])
    scene.advance(HOUR)
    found = job(scene, arn)
    assert (found["status"], found["errorRecordCount"]) == ("PartiallyCompleted", 1)
    assert outputs(scene, arn)[-1]["error"]["errorCode"] == 400


def test_too_few_records_fail_the_job(scene: Scene) -> None:
    arn = create(scene, records(99))
    scene.advance(HOUR)
    found = job(scene, arn)
    assert (found["status"], found["message"]) == (
        "Failed",
        "The job holds 99 records; at least 100 are required.",
    )


def test_malformed_answers_reach_the_output(scene: Scene) -> None:
    scene.bedrock.fault("output_empty", count=3)
    arn = create(scene, records())
    scene.advance(HOUR)
    texts = [line["modelOutput"]["output"]["message"]["content"][0]["text"] for line in outputs(scene, arn)]
    assert [text == "" for text in texts[:4]] == [True, True, True, False]


def test_job_can_be_stopped_while_it_runs(scene: Scene) -> None:
    arn = create(scene, records())
    scene.advance(MINUTE)
    scene.control.stop_model_invocation_job(jobIdentifier=arn)
    assert job(scene, arn)["status"] == "Stopping"
    scene.advance(HOUR)
    found = job(scene, arn)
    assert (found["status"], "endTime" in found) == ("Stopped", False)
    with conflict("because of a conflict"):
        scene.control.stop_model_invocation_job(jobIdentifier=arn)


def test_stalled_job_runs_until_it_is_stopped(scene: Scene) -> None:
    scene.bedrock.fault("batch_stalled")
    arn = create(scene, records())
    scene.advance(HOUR)
    assert job(scene, arn)["status"] == "InProgress"
    scene.control.stop_model_invocation_job(jobIdentifier=arn)
    scene.advance(HOUR)
    assert job(scene, arn)["status"] == "Stopped"


def test_what_create_refuses(scene: Scene) -> None:
    with invalid("timeoutDurationInHours"):
        create(scene, records(), timeoutDurationInHours=169)
    with invalid("modelId"):
        create(
            scene,
            records(),
            modelId="arn:aws:bedrock:us-east-1:000000000000:custom-model-deployment/000000000000",
        )
    with invalid("not supported"):
        create(scene, records(), modelId=scene.train())
    create(scene, records())
    with conflict("job name"):
        create(scene, records())


def test_same_token_makes_no_second_job(scene: Scene) -> None:
    first = create(scene, records(), clientRequestToken="token")
    assert create(scene, records(), clientRequestToken="token") == first
    listed = scene.control.list_model_invocation_jobs(nameContains="bat")["invocationJobSummaries"]
    assert [item["jobArn"] for item in listed] == [first]
    with refused("ResourceNotFoundException"):
        job(scene, "0" * 12)
