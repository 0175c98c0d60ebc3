"""Customization jobs: refused requests, and the progress of a job."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from local.bedrock import BedrockStandIn
from tests.unit.local.bedrock.scenes import (
    BREAD,
    DAY,
    FRUIT,
    HOUR,
    MINUTE,
    ROLE,
    Scene,
    conflict,
    invalid,
    labelled,
    lines,
    record,
    refused,
)

LLAMA = "meta.llama3-1-8b-instruct-v1:0:128k"
LEGACY_TEACHER = "meta.llama3-1-405b-instruct-v1:0"


def test_job_moves_through_its_phases_to_a_model(scene: Scene) -> None:
    arn = scene.create_job()
    assert arn.startswith(
        "arn:aws:bedrock:us-east-1:000000000000:model-customization-job/amazon.nova-micro-v1:0:128k/"
    )
    seen = [scene.phases()]
    for minutes in (4, 20, 5, 40):
        scene.advance(minutes * MINUTE)
        seen.append(scene.phases())
    assert [tuple(phases.values()) for phases in seen] == [
        ("InProgress", "NotStarted", "NotStarted"),
        ("Completed", "InProgress", "NotStarted"),
        ("Completed", "Completed", "NotStarted"),
        ("Completed", "Completed", "InProgress"),
        ("Completed", "Completed", "Completed"),
    ]
    job = scene.job(arn)
    assert job["status"] == "Completed"
    assert job["outputModelArn"].startswith(
        "arn:aws:bedrock:us-east-1:000000000000:custom-model/amazon.nova-micro-v1:0:128k/"
    )
    assert job["trainingMetrics"]["trainingLoss"] > 0
    assert (job["endTime"] - job["creationTime"]).total_seconds() == 68 * MINUTE


def test_no_model_shows_before_the_job_is_completed(scene: Scene) -> None:
    scene.create_job()
    scene.advance(67 * MINUTE)
    assert "outputModelArn" not in scene.job()
    assert scene.control.list_custom_models()["modelSummaries"] == []


def test_fine_tuning_has_no_data_processing(scene: Scene) -> None:
    scene.create_job(
        customizationType="FINE_TUNING", customizationConfig=None, hyperParameters={"epochCount": "2"}
    )
    assert list(scene.phases()) == ["validationDetails", "trainingDetails"]
    scene.advance(HOUR)
    assert scene.job()["status"] == "Completed"


def test_job_name_stays_in_use_forever(scene: Scene) -> None:
    scene.train()
    scene.control.delete_custom_model(modelIdentifier="job")
    with conflict("The provided job name is currently in use."):
        scene.create_job()


def test_same_token_makes_no_second_job(scene: Scene) -> None:
    first = scene.create_job(clientRequestToken="token-1")
    assert scene.create_job(clientRequestToken="token-1") == first
    assert scene.create_job("other", clientRequestToken="token-2") != first
    assert len(scene.bedrock.state()["jobs"]) == 2


def test_custom_model_name_must_be_free(scene: Scene) -> None:
    scene.create_job("first", customModelName="same")
    with conflict("custom model name"):
        scene.create_job("second", customModelName="same")
    scene.advance(2 * HOUR)
    with conflict("custom model name"):
        scene.create_job("third", customModelName="same")
    scene.control.delete_custom_model(modelIdentifier="same")
    scene.create_job("fourth", customModelName="same")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"jobName": "under_score"}, "'jobName' failed to satisfy constraint: Member must satisfy regular"),
        ({"jobName": "n" * 64}, "length less than or equal to 63"),
        ({"customModelName": "double--hyphen"}, "customModelName"),
        ({"customizationType": "NOPE"}, "enum value set"),
        ({"roleArn": "role/x"}, "roleArn"),
        ({"trainingDataConfig": {"s3Uri": "s3://data/dt=2026/rows.jsonl"}}, "trainingDataConfig.s3Uri"),
        ({"trainingDataConfig": {}}, "exactly one of s3Uri and invocationLogsConfig"),
        ({"jobTags": [{"key": "a", "value": "b" * 257}]}, "jobTags.1.member.value"),
        ({"clientRequestToken": "-starts-with-hyphen"}, "clientRequestToken"),
        ({"customizationConfig": None}, "needs customizationConfig.distillationConfig"),
        ({"hyperParameters": {"epochCount": "2"}}, "takes no hyperParameters"),
        ({"baseModelIdentifier": "amazon.nova-micro-v1:0"}, "doesn't support the customization type"),
        ({"baseModelIdentifier": "amazon.no-such-v1:0"}, "The provided model identifier is invalid."),
        ({"teacher": "amazon.nova-lite-v1:0"}, "can't be used with the student"),
        ({"teacher": "us.amazon.nova-premier-v1:0"}, "The provided model identifier is invalid."),
    ],
)
def test_create_refuses(scene: Scene, changes: dict[str, Any], text: str) -> None:
    with invalid(text):
        scene.create_job(**changes)
    assert scene.bedrock.state()["jobs"] == []


VALIDATOR = {"s3Uri": "s3://data/training.jsonl"}
NETWORK = {"subnetIds": ["subnet-1", "subnet-2"], "securityGroupIds": ["sg-1"]}
SOURCE = {"s3Uri": "s3://logs/bedrock"}


def logs(**filters: Any) -> dict[str, Any]:
    """Return a trainingDataConfig of invocation logs."""
    chosen = {"requestMetadataFilters": filters} if filters else {}
    return {"invocationLogsConfig": {"invocationLogSource": SOURCE, "usePromptResponse": True, **chosen}}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"validationDataConfig": {"validators": [VALIDATOR] * 11}}, "length less than or equal to 10"),
        ({"validationDataConfig": {"validators": [{"s3Uri": "data"}]}}, "validators.1.member.s3Uri"),
        ({"vpcConfig": {**NETWORK, "subnetIds": ["s"] * 17}}, "length less than or equal to 16"),
        ({"vpcConfig": {**NETWORK, "securityGroupIds": ["g"] * 6}}, "length less than or equal to 5"),
        ({"vpcConfig": {**NETWORK, "subnetIds": ["subnet_1"]}}, "vpcConfig.subnetIds.1.member"),
        ({"trainingDataConfig": logs(equals={"a": "1", "b": "2"})}, "length less than or equal to 1"),
        ({"trainingDataConfig": logs(andAll=[{"equals": {"a": "1"}}] * 17)}, "less than or equal to 16"),
        ({"trainingDataConfig": logs(equals={"a": "1,2"})}, "requestMetadataFilters.equals.a"),
        ({"trainingDataConfig": {**logs(), **VALIDATOR}}, "exactly one of s3Uri and invocationLogsConfig"),
        (
            {
                "trainingDataConfig": logs(),
                "customizationType": "FINE_TUNING",
                "customizationConfig": None,
            },
            "takes no invocation logs",
        ),
    ],
)
def test_create_refuses_options_beyond_their_limits(scene: Scene, changes: dict[str, Any], text: str) -> None:
    with invalid(text):
        scene.create_job(**changes)
    assert scene.bedrock.state()["jobs"] == []


@pytest.mark.parametrize(
    "options",
    [
        {"validationDataConfig": {"validators": [VALIDATOR] * 10}},
        {"vpcConfig": {"subnetIds": ["s"] * 16, "securityGroupIds": ["g"] * 5}},
        {"trainingDataConfig": logs()},
        {"trainingDataConfig": logs(equals={"team": "search"})},
        {"trainingDataConfig": logs(andAll=[{"equals": {f"k{n}": ""}} for n in range(16)])},
    ],
)
def test_options_within_their_limits_are_returned(scene: Scene, options: dict[str, Any]) -> None:
    scene.create_job(**options)
    assert options.items() <= scene.job().items()


def test_each_validator_has_a_loss(scene: Scene) -> None:
    scene.train(validationDataConfig={"validators": [VALIDATOR] * 2})
    assert [list(metrics) for metrics in scene.job()["validationMetrics"]] == [["validationLoss"]] * 2


def test_missing_validation_data_fails_the_job(scene: Scene) -> None:
    scene.create_job(validationDataConfig={"validators": [{"s3Uri": "s3://data/missing.jsonl"}]})
    scene.advance(HOUR)
    assert "at key missing.jsonl" in scene.job()["failureMessage"]


def test_job_fails_with_an_injected_failure(scene: Scene) -> None:
    scene.bedrock.fault("job_failed")
    scene.create_job()
    scene.advance(HOUR)
    job = scene.job()
    assert (job["status"], job["failureMessage"]) == (
        "Failed",
        "Encountered an internal error when processing the request.",
    )
    scene.bedrock.fault("job_failed", message="Unable to parse Amazon S3 file.")
    scene.create_job("other")
    scene.advance(HOUR)
    assert scene.job("other")["failureMessage"] == "Unable to parse Amazon S3 file."


@pytest.mark.parametrize(
    "values", [{"epochCount": "6"}, {"learningRate": "0.1"}, {"batchSize": "1"}, {"epochCount": "two"}]
)
def test_fine_tuning_refuses_hyperparameters(scene: Scene, values: dict[str, str]) -> None:
    with invalid("yperparameter"):
        scene.create_job(customizationType="FINE_TUNING", customizationConfig=None, hyperParameters=values)


def test_hyphens_in_a_job_name_take_no_time(scene: Scene) -> None:
    with invalid("jobName"):
        scene.create_job("a" + "-" * 61 + "_", customModelName="model")
    scene.create_job("a" + "-" * 61 + "b", customModelName="model")


def test_role_that_bedrock_cannot_assume_is_refused() -> None:
    roles: set[str] = set()
    with BedrockStandIn(role_exists=roles.__contains__) as bedrock:
        scene = Scene(bedrock)
        with invalid("Could not assume provided IAM role"):
            scene.create_job()
        roles.add(ROLE)
        scene.create_job()


def test_teacher_is_refused_from_its_end_of_life_on(scene: Scene) -> None:
    now = scene.bedrock.clock.now()
    scene.bedrock.lifecycle("amazon.nova-pro-v1:0", legacy=now - DAY, end=now + DAY)
    scene.create_job("while-legacy")
    scene.advance(2 * DAY)
    with invalid("The provided model identifier is invalid."):
        scene.create_job("after-the-end")


def test_legacy_teacher_still_teaches_its_own_students(scene: Scene) -> None:
    arn = scene.create_job(teacher=LEGACY_TEACHER, baseModelIdentifier=LLAMA)
    assert LLAMA in arn


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (labelled()[:99], "holds 99 valid records of 99"),
        ([*labelled()[:99], {"schemaVersion": "other"}], "holds 99 valid records of 100"),
        ([*labelled(), record("see <video> of apples")], "'<video>'"),
        ([*labelled(), record("User: apples")], "'User:'"),
    ],
)
def test_job_fails_on_its_data(scene: Scene, rows: list[Any], message: str) -> None:
    scene.create_job(rows=rows)
    scene.advance(4 * MINUTE)
    job = scene.job()
    assert (job["status"], job["statusDetails"]["validationDetails"]["status"]) == ("Failed", "Failed")
    assert message in job["failureMessage"]
    assert "outputModelArn" not in job


@pytest.mark.parametrize("spoilt", [b"not json\n", b"\n", b'{"unclosed": \n'])
def test_job_fails_on_a_line_that_is_not_json(scene: Scene, spoilt: bytes) -> None:
    scene.create_job(rows=labelled())
    scene.s3.put_object(
        Bucket="data", Key="training.jsonl", Body=lines(labelled()) + spoilt + lines(labelled())
    )
    scene.advance(HOUR)
    assert "every line must be one JSON object" in scene.job()["failureMessage"]


def test_job_fails_on_a_missing_file(scene: Scene) -> None:
    scene.create_job(trainingDataConfig={"s3Uri": "s3://data/missing.jsonl"})
    scene.advance(HOUR)
    assert "Could not validate GetObject permissions" in scene.job()["failureMessage"]


def test_job_reads_all_files_below_a_prefix(scene: Scene) -> None:
    for half in (0, 1):
        body = lines(labelled()[half::2])
        scene.s3.put_object(Bucket="data", Key=f"rows/{half}.jsonl", Body=body)
    assert scene.train(trainingDataConfig={"s3Uri": "s3://data/rows/"})


def test_failed_job_frees_the_model_name_but_not_the_job_name(scene: Scene) -> None:
    scene.create_job(rows=labelled()[:5], customModelName="model")
    scene.advance(HOUR)
    with conflict("job name"):
        scene.create_job(rows=labelled(), customModelName="model")
    scene.create_job("again", customModelName="model")


def test_stopped_job_passes_through_stopping_and_leaves_no_model(scene: Scene) -> None:
    scene.create_job()
    scene.advance(30 * MINUTE)
    scene.control.stop_model_customization_job(jobIdentifier="job")
    assert scene.job()["status"] == "Stopping"
    scene.advance(5 * MINUTE)
    assert scene.job()["status"] == scene.phases()["trainingDetails"] == "Stopped"
    scene.advance(DAY)
    assert "outputModelArn" not in scene.job()


def test_only_a_running_job_can_be_stopped(scene: Scene) -> None:
    arn = scene.create_job()
    scene.advance(2 * HOUR)
    with conflict("because of a conflict"):
        scene.control.stop_model_customization_job(jobIdentifier=arn)
    with refused("ResourceNotFoundException"):
        scene.control.stop_model_customization_job(jobIdentifier="unknown")


def test_job_writes_the_same_objects_as_bedrock(scene: Scene) -> None:
    arn = scene.create_job()
    scene.advance(4 * MINUTE)
    assert scene.s3.objects["data", "output/.write_access_check_file.temp"] == b""
    scene.advance(2 * HOUR)
    folder = f"output/model-customization-job-{arn.rpartition('/')[2]}/training_artifacts"
    metrics = scene.s3.objects["data", f"{folder}/step_wise_training_metrics.csv"].decode().splitlines()
    assert metrics[0] == "step_number,epoch_number,training_loss"
    assert float(metrics[-1].split(",")[2]) < float(metrics[1].split(",")[2])


def test_unlabelled_rows_are_labelled_by_the_teacher(scene: Scene) -> None:
    system = (
        "Weigh visual, audio, transcription, metadata: four whole percents in that order, summing to 100."
    )
    things = [
        f"{thing} number {number}" for thing in ("barking dog sound", "red car") for number in range(60)
    ]
    model = scene.train(rows=[record(thing, system=system) for thing in things])
    weights = scene.ask(scene.deploy(model), "barking dog sound number 99", system).split()
    assert sum(map(int, weights)) == 100
    assert max(weights, key=int) == weights[1]


def test_tags_of_job_and_model_can_be_read_and_changed(scene: Scene) -> None:
    arn = scene.create_job(
        jobTags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}],
        customModelTags=[{"key": "model", "value": "yes"}],
    )
    scene.control.tag_resource(resourceARN=arn, tags=[{"key": "a", "value": "3"}, {"key": "c", "value": "4"}])
    scene.control.untag_resource(resourceARN=arn, tagKeys=["b"])
    assert scene.control.list_tags_for_resource(resourceARN=arn)["tags"] == [
        {"key": "a", "value": "3"},
        {"key": "c", "value": "4"},
    ]
    scene.advance(2 * HOUR)
    model = scene.job()["outputModelArn"]
    tags = scene.control.list_tags_for_resource(resourceARN=model)["tags"]
    assert tags == [{"key": "model", "value": "yes"}]
    with refused("ResourceNotFoundException"):
        scene.control.list_tags_for_resource(resourceARN=f"{model[:-12]}{'0' * 12}")


def test_lists_are_filtered_sorted_and_paged(scene: Scene) -> None:
    for number in range(5):
        scene.create_job(f"job-{number}")
        scene.advance(MINUTE)
    scene.control.stop_model_customization_job(jobIdentifier="job-3")
    pages = list(
        scene.control.get_paginator("list_model_customization_jobs").paginate(
            PaginationConfig={"PageSize": 2}
        )
    )
    names = [[job["jobName"] for job in page["modelCustomizationJobSummaries"]] for page in pages]
    assert names == [["job-4", "job-3"], ["job-2", "job-1"], ["job-0"]]

    def found(**filters: Any) -> list[str]:
        answer = scene.control.list_model_customization_jobs(sortOrder="Ascending", **filters)
        return [job["jobName"] for job in answer["modelCustomizationJobSummaries"]]

    assert found(statusEquals="Stopping") == ["job-3"]
    assert found(nameContains="b-1") == ["job-1"]
    created = scene.job("job-1")["creationTime"]
    assert found(creationTimeAfter=created) == ["job-2", "job-3", "job-4"]
    assert found(creationTimeBefore=datetime(2026, 1, 1, tzinfo=UTC)) == []
    with invalid("next token"):
        scene.control.list_model_customization_jobs(nextToken="nonsense")


def test_bad_rows_give_a_bad_student(scene: Scene) -> None:
    good = scene.deploy(scene.train("good"), "good")
    swapped = [json.loads(json.dumps(row)) for row in labelled()]
    for number, row in enumerate(swapped):
        row["messages"][1]["content"][0]["text"] = ("90 10", "10 90")[number % 2]
    bad = scene.deploy(scene.train("bad", swapped), "bad")

    def right(endpoint: str) -> int:
        answers = [(scene.ask(endpoint, f"my {thing} today"), thing in FRUIT) for thing in (*FRUIT, *BREAD)]
        return sum((int(answer.split()[0]) > 50) == fruit for answer, fruit in answers)

    assert right(good) == 20
    assert right(bad) < 15
