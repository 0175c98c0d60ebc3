"""Evaluation jobs: a judge grades precomputed answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.session import get_session

from local.bedrock import BedrockStandIn
from local.bedrock.checks import check
from local.bedrock.errors import ServiceError
from local.bedrock.evaluations import MAX_PROMPTS, grade
from tests.unit.local.bedrock.scenes import DAY, HOUR, MINUTE, ROLE, Scene, conflict, invalid, lines, refused

JUDGE = "us.amazon.nova-pro-v1:0"
VALUES = [1.0, 2.0, 3.0, 4.0, 5.0]


def record(response: str = '{"a": 0.5, "b": 0.5}', **changes: Any) -> dict[str, Any]:
    return {
        "prompt": "a red car",
        "referenceResponse": '{"a": 0.5, "b": 0.5}',
        "category": "a",
        "modelResponses": [{"response": response, "modelIdentifier": "candidate"}],
        **changes,
    }


def request(**changes: Any) -> dict[str, Any]:
    judge = {"bedrockEvaluatorModels": [{"modelIdentifier": changes.pop("judge", JUDGE)}]}
    scale = [{"definition": f"grade {value}", "value": {"floatValue": value}} for value in VALUES]
    metric = {"name": "Weights", "instructions": "Grade {{prediction}}.", "ratingScale": scale}
    dataset = {"name": "holdout", "datasetLocation": {"s3Uri": "s3://data/in/prompts.jsonl"}}
    asked = {
        "taskType": changes.pop("task_type", "General"),
        "dataset": dataset,
        "metricNames": changes.pop("metric_names", ["Weights"]),
    }
    automated = {
        "datasetMetricConfigs": [asked],
        "evaluatorModelConfig": judge,
        "customMetricConfig": {
            "customMetrics": [{"customMetricDefinition": metric}],
            "evaluatorModelConfig": judge,
        },
    }
    source = {"precomputedInferenceSource": {"inferenceSourceIdentifier": "candidate"}}
    return {
        "jobName": "judged",
        "roleArn": ROLE,
        "applicationType": "ModelEvaluation",
        "evaluationConfig": {"automated": automated},
        "inferenceConfig": {"models": [source]},
        "outputDataConfig": {"s3Uri": "s3://data/out/"},
        **changes,
    }


def create(scene: Scene, rows: list[Any] | None = None, **changes: Any) -> str:
    scene.s3.put_object(Bucket="data", Key="in/prompts.jsonl", Body=lines(rows or [record()]))
    return str(scene.control.create_evaluation_job(**request(**changes))["jobArn"])


def job(scene: Scene, arn: str) -> dict[str, Any]:
    found: dict[str, Any] = scene.control.get_evaluation_job(jobIdentifier=arn)
    return found


def test_job_grades_every_answer_and_writes_to_bedrocks_key(scene: Scene) -> None:
    rows = [record(), record('{"a": 0.2, "b": 0.8}'), record("no weights")]
    arn = create(scene, rows, jobTags=[{"key": "team", "value": "search"}])
    assert job(scene, arn)["status"] == "InProgress"
    scene.advance(HOUR)
    found = job(scene, arn)
    assert (found["status"], found["jobType"]) == ("Completed", "Automated")
    (key,) = [key for _, key in scene.s3.objects if key.startswith("out/")]
    folder, _, name = key.rpartition("/")
    job_id = arn.rpartition("/")[2]
    assert folder == f"out/judged/{job_id}/models/candidate/taskTypes/General/datasets/holdout"
    assert name.endswith("_output.jsonl")
    written = [json.loads(line) for line in scene.s3.objects["data", key].splitlines()]
    scores = [row["automatedEvaluationResult"]["scores"] for row in written]
    assert [(score["metricName"], score["result"]) for (score,) in scores] == [
        ("Weights", 5.0),
        ("Weights", 2.0),
        ("Weights", 1.0),
    ]
    assert written[0]["inputRecord"]["prompt"] == "a red car"
    (held,) = scene.bedrock.state()["evaluations"]
    assert (held["name"], held["status"], held["tags"]) == ("judged", "Completed", {"team": "search"})


@pytest.mark.parametrize(
    ("off", "expected"),
    [(0.0, 5), (0.05, 5), (0.1, 4), (0.15, 4), (0.2, 3), (0.3, 2), (0.4, 1), (0.9, 1)],
)
def test_grade_falls_with_the_distance(off: float, expected: int) -> None:
    assert grade(json.dumps({"a": off}), '{"a": 0}', VALUES) == expected


def test_job_can_be_stopped_while_it_runs(scene: Scene) -> None:
    arn = create(scene)
    scene.control.stop_evaluation_job(jobIdentifier=arn)
    assert job(scene, arn)["status"] == "Stopping"
    scene.advance(HOUR)
    assert job(scene, arn)["status"] == "Stopped"
    with conflict("because of a conflict"):
        scene.control.stop_evaluation_job(jobIdentifier=arn)


def test_jobs_fail_and_stall_when_a_fault_is_injected(scene: Scene) -> None:
    scene.bedrock.fault("evaluation_failed", message="The judge is tired.")
    scene.bedrock.fault("evaluation_stalled")
    failed, stalled = create(scene), create(scene, jobName="stalled")
    scene.advance(3 * DAY)
    found = job(scene, failed)
    assert (found["status"], found["failureMessages"]) == ("Failed", ["The judge is tired."])
    assert job(scene, stalled)["status"] == "InProgress"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([record()] * (MAX_PROMPTS + 1), "the maximum is 1000"),
        ([record(modelResponses=[])], "one model response"),
        ([record(modelResponses=[{"response": "x", "modelIdentifier": "another"}])], "of candidate"),
        ([record(prompt="")], "must hold a prompt"),
        ([record(extra=1)], "are not allowed"),
        (["text"], "one model response"),
    ],
)
def test_invalid_data_fails_the_job(scene: Scene, rows: list[Any], message: str) -> None:
    arn = create(scene, rows)
    scene.advance(HOUR)
    found = job(scene, arn)
    assert found["status"] == "Failed"
    assert message in found["failureMessages"][0]


def test_unreadable_data_fails_the_job(scene: Scene) -> None:
    arn = create(scene)
    del scene.s3.objects["data", "in/prompts.jsonl"]
    scene.advance(HOUR)
    assert "GetObject" in job(scene, arn)["failureMessages"][0]


def test_what_create_refuses(scene: Scene) -> None:
    deployment = "arn:aws:bedrock:us-east-1:000000000000:custom-model-deployment/0123456789ab"
    for name in ("Judged", "under_score", "-judged", "j" * 64):
        with invalid("jobName"):
            create(scene, jobName=name)
    with invalid("modelIdentifier"):
        create(scene, inferenceConfig={"models": [{"bedrockModel": {"modelIdentifier": deployment}}]})
    for judge in ("us.amazon.nova-premier-v1:0", "amazon.nova-lite-v1:0", "amazon.nova-9-v1:0"):
        with invalid("can't be an evaluator"):
            create(scene, judge=judge)
    with invalid("must be General"):
        create(scene, task_type="Generation")
    with invalid("taskType"):
        create(scene, task_type="Anything")
    with invalid("metric names"):
        create(scene, metric_names=["Another"])
    with invalid("s3Uri"):
        create(scene, outputDataConfig={"s3Uri": "s3://data/a=b/"})
    without_roles = Scene(BedrockStandIn(s3=scene.s3, role_exists=lambda _: False))
    with invalid("Could not assume provided IAM role"):
        create(without_roles)
    assert scene.bedrock.state()["evaluations"] == []
    create(scene)
    with conflict("job name"):
        create(scene)


def test_judge_past_its_end_of_life_is_refused(scene: Scene) -> None:
    scene.bedrock.lifecycle("amazon.nova-pro-v1:0", end=1.0)
    with invalid("can't be an evaluator"):
        create(scene)


def test_job_is_found_by_its_arn_only(scene: Scene) -> None:
    arn = create(scene)
    with invalid("jobIdentifier"):
        job(scene, "judged")
    with refused("ResourceNotFoundException"):
        job(scene, f"{arn[:-12]}{'0' * 12}")


def test_same_token_makes_no_second_job(scene: Scene) -> None:
    first = create(scene, clientRequestToken="token")
    assert create(scene, clientRequestToken="token") == first
    create(scene, jobName="another")
    scene.advance(MINUTE)
    listed = scene.control.list_evaluation_jobs(nameContains="judg")["jobSummaries"]
    assert [item["jobArn"] for item in listed] == [first]
    assert listed[0]["customMetricsEvaluatorModelIdentifiers"] == [JUDGE]


def test_general_is_accepted_beside_the_published_task_types() -> None:
    shape = get_session().get_service_model("bedrock").operation_model("CreateEvaluationJob").input_shape
    assert shape is not None
    check(shape, request())
    with pytest.raises(ServiceError, match="enum value set"):
        check(shape, request(applicationType="General"))
