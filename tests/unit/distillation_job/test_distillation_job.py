"""DistillationJob, Create and Update: paid once despite repeated, lost or rejected calls."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, TRAINING_TAG, bedrock_tags
from distilled_router.bedrock.ownership import REQUEST_TAG
from distilled_router.bedrock.roles import NEW_ROLE_SECONDS
from local.bedrock.faults import ROLE_TEXTS
from tests.unit import framework
from tests.unit.framework import MARKER
from tests.unit.resource_scenes import (
    CREATE,
    DAY,
    DIGEST,
    HOUR,
    JOB,
    KEY,
    NAME,
    NEXT,
    OWNER,
    POLL,
    ROLE,
    ROLE_ERROR,
    STOP,
    STUDENT,
    TEACHER,
    Meddled,
    World,
    job_properties,
    refusal,
    spec,
    times,
    unclaimed,
)

NEXT_NAME = f"{OWNER}-{NEXT}"
FINE_TUNING: dict[str, Any] = {
    "CustomizationType": "FINE_TUNING",
    "TeacherModelIdentifier": None,
    "MaxResponseLengthForInference": None,
    "HyperParameters": {"epochCount": "2", "learningRate": "0.00001"},
}


def made(world: World) -> dict[str, Any]:
    """Return the parameters of the only successful create call."""
    (call,) = [call for call in world.server.calls(CREATE) if call["outcome"] in ("ok", "lost")]
    parameters: dict[str, Any] = call["parameters"]
    return parameters


def test_create_creates_one_job_and_answers_at_once(world: World) -> None:
    """Case T1."""
    event = framework.create(job_properties(**FINE_TUNING))
    response = world.jobs().send(event)

    assert (response.succeeded, response.physical_id, response.polls) == (True, NAME, 1)
    assert response.data == {
        "JobName": NAME,
        "JobArn": world.job()["arn"],
        "Status": "InProgress",
        "BaseModel": "amazon.nova-micro-v1:0",
        "ModelArn": "",
        "TrainingLoss": "",
        "ValidationLoss": "",
    }
    parameters = made(world)
    tags = bedrock_tags({**job_properties()["Tags"], REQUEST_TAG: event["RequestId"], **JOB.tag})
    assert len(spec().token) <= 256
    assert parameters == {
        "clientRequestToken": spec(**FINE_TUNING).token,
        "jobName": NAME,
        "customModelName": NAME,
        "roleArn": ROLE,
        "baseModelIdentifier": STUDENT,
        "customizationType": "FINE_TUNING",
        "trainingDataConfig": {"s3Uri": "s3://data/datasets/d1/training.jsonl"},
        "outputDataConfig": {"s3Uri": f"s3://data/jobs/{NAME}/"},
        "hyperParameters": {"epochCount": "2", "learningRate": "0.00001"},
        "jobTags": tags,
        "customModelTags": tags,
    }


def test_distillation_names_its_teacher_and_no_hyperparameters(world: World) -> None:
    """Case T2."""
    assert world.jobs().send(framework.create(job_properties())).succeeded

    parameters = made(world)
    teacher = {"teacherModelIdentifier": TEACHER, "maxResponseLengthForInference": 1000}
    assert parameters["customizationConfig"] == {"distillationConfig": {"teacherModelConfig": teacher}}
    assert "hyperParameters" not in parameters


def test_a_job_that_a_labelling_workflow_created_is_adopted(world: World) -> None:
    """Case T3."""
    arn = world.bedrock.create_model_customization_job(**spec().request())["jobArn"]

    response = world.jobs().send(framework.create(job_properties()))

    assert response.data["JobArn"] == arn
    assert world.count(CREATE) == 1


def test_a_model_deleted_by_hand_is_not_trained_again(world: World) -> None:
    """Case T4."""
    properties = job_properties()
    world.jobs().send(framework.create(properties))
    world.server.advance(3 * HOUR)
    world.bedrock.delete_custom_model(modelIdentifier=NAME)

    assert world.jobs().send(framework.update(NAME, properties, properties)).data["Status"] == "Completed"
    assert world.jobs().send(framework.create(properties)).data["Status"] == "Completed"
    assert world.count(CREATE) == 1
    assert world.server.state()["models"] == []


def test_tags_follow_on_job_and_model(world: World) -> None:
    """Case T5."""
    fixed = {OWNER_TAG: OWNER, DIGEST_TAG: DIGEST}
    first, second, third = (
        job_properties(Tags={**fixed, **more})
        for more in ({"team": "search"}, {"team": "find", "cost": "7"}, {"cost": "7"})
    )
    jobs = world.jobs()
    jobs.send(framework.create(first))
    assert unclaimed(world.job()["tags"]) == first["Tags"]

    jobs.send(framework.update(NAME, second, first))
    assert unclaimed(world.job()["tags"]) == second["Tags"]
    world.server.advance(3 * HOUR)
    response = jobs.send(framework.update(NAME, third, second))

    (model,) = world.server.state()["models"]
    assert (response.succeeded, response.physical_id) == (True, NAME)
    assert unclaimed(world.job()["tags"]) == third["Tags"]
    assert unclaimed(model["tags"]) == third["Tags"]
    assert world.count(CREATE) == 1


def test_the_models_key_is_passed_on(world: World) -> None:
    """Case T6."""
    world.jobs().send(framework.create(job_properties(CustomModelKmsKeyId=KEY)))

    assert made(world)["customModelKmsKeyId"] == KEY


def test_another_model_key_is_another_job_of_another_name(world: World) -> None:
    """Case T6."""
    old, new = job_properties(), job_properties(NEXT, CustomModelKmsKeyId=KEY)
    jobs = world.jobs()
    jobs.send(framework.create(old))

    updated = jobs.send(framework.update(NAME, new, old))
    assert (updated.succeeded, updated.physical_id) == (True, NEXT_NAME)
    assert jobs.send(framework.delete(NAME, old)).succeeded

    keys = [call["parameters"].get("customModelKmsKeyId") for call in world.server.calls(CREATE)]
    assert keys == [None, KEY]
    assert world.running() == [NEXT_NAME]


def test_validators_are_passed_on(world: World) -> None:
    """Case T7."""
    uris = ["s3://data/datasets/d1/validation.jsonl", "s3://data/other.jsonl"]
    world.jobs().send(framework.create(job_properties(ValidationDataUris=uris)))

    assert made(world)["validationDataConfig"] == {"validators": [{"s3Uri": uri} for uri in uris]}


def test_a_completed_job_returns_its_model_and_its_losses(world: World) -> None:
    """Case T8."""
    properties = job_properties(ValidationDataUris=["s3://data/other.jsonl", "s3://data/other.jsonl"])
    world.jobs().send(framework.create(properties))
    world.server.advance(3 * HOUR)

    data = world.jobs().send(framework.update(NAME, properties, properties)).data

    job = world.described()
    assert data["Status"] == "Completed"
    assert data["ModelArn"] == job["outputModelArn"]
    assert data["TrainingLoss"] == str(job["trainingMetrics"]["trainingLoss"])
    losses = [str(metrics["validationLoss"]) for metrics in job["validationMetrics"]]
    assert len(losses) == 2
    assert data["ValidationLoss"] == ",".join(losses)


def test_a_network_is_passed_on_in_one_order(world: World) -> None:
    """Case T9."""
    network: dict[str, Any] = {"SubnetIds": ["subnet-2", "subnet-1"], "SecurityGroupIds": ["sg-1"]}
    world.jobs().send(framework.create(job_properties(**network)))

    assert made(world)["vpcConfig"] == {"subnetIds": ["subnet-1", "subnet-2"], "securityGroupIds": ["sg-1"]}


def test_an_update_that_changes_nothing_calls_nothing_that_changes(world: World) -> None:
    """Case T12."""
    properties = job_properties()
    world.jobs().send(framework.create(properties))
    before = world.written()

    response = world.jobs().send(framework.update(NAME, {**properties, "AllowLegacy": "true"}, properties))

    assert (response.succeeded, response.physical_id) == (True, NAME)
    assert world.written() == before


def test_the_same_event_twice_creates_one_job(world: World) -> None:
    """Case B1."""
    event = framework.create(job_properties())

    first, second = world.jobs().send(event), world.jobs().send(event)

    assert first == second
    assert world.count(CREATE) == 1


def test_two_deliveries_at_once_make_one_job(world: World) -> None:
    """Case B1."""
    event = framework.create(job_properties())
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda _: world.jobs().send(event), range(4)))

    assert all(response.succeeded for response in responses)
    assert len({response.data["JobArn"] for response in responses}) == 1
    assert len(world.server.state()["jobs"]) == 1


def test_the_token_follows_the_specification_and_nothing_else() -> None:
    """Case B1."""
    tokens = {
        spec(**changes).token
        for changes in (
            {},
            {"BaseModelIdentifier": "amazon.nova-lite-v1:0:300k"},
            {"TrainingDataUri": "s3://data/datasets/d2/training.jsonl"},
            {"TeacherModelIdentifier": "amazon.nova-pro-v1:0"},
            {"MaxResponseLengthForInference": "500"},
            {"HyperParameters": {"epochCount": "3"}},
            {"CustomModelKmsKeyId": KEY},
            {"ValidationDataUris": ["s3://data/other.jsonl"]},
        )
    }
    assert len(tokens) == 8
    same: dict[str, Any] = {
        "RoleArn": f"{ROLE}2",
        "Tags": {},
        "OutputDataUri": "s3://data/jobs/x/",
        "SubnetIds": ["subnet-1"],
        "SecurityGroupIds": ["sg-1"],
    }
    assert spec(**same).token == spec().token
    moved = {"TrainingDataUri": "s3://b/datasets/d1/training.jsonl", "OutputDataUri": "s3://b/jobs/x/"}
    assert spec(**moved).token == spec().token


@pytest.mark.parametrize("text", ROLE_TEXTS)
def test_a_role_that_is_not_ready_is_awaited(world: World, text: str) -> None:
    """Case B2."""
    world.server.fault("validation", operation=CREATE, count=2, message=text)

    response = world.jobs().send(framework.create(job_properties()))

    assert (response.succeeded, response.polls) == (True, 3)
    assert world.count(CREATE) == 1


def test_a_role_that_is_never_ready_fails_with_its_arn_and_bedrocks_text(world: World) -> None:
    """Case B3."""
    world.server.fault("validation", operation=CREATE, count=None, message=ROLE_ERROR)
    began = world.server.clock.now()

    response = world.jobs().send(framework.create(job_properties()))

    assert not response.succeeded
    assert ROLE in response.reason
    assert ROLE_ERROR in response.reason
    waited = world.server.clock.now() - began
    assert NEW_ROLE_SECONDS <= waited <= NEW_ROLE_SECONDS + 2 * POLL
    assert world.server.state()["jobs"] == []


def test_a_name_in_use_by_our_own_job_is_adopted(world: World) -> None:
    """Case B4."""
    # The job appears between the read and the create call, because the first event is still being processed.
    other = world.bedrock.create_model_customization_job
    hooks = {
        "create_model_customization_job": lambda: other(**{**spec().request(), "clientRequestToken": "t"})
    }

    response = world.jobs(Meddled(world.bedrock, before=hooks)).send(framework.create(job_properties()))

    assert response.succeeded
    assert world.server.calls(CREATE)[-1]["outcome"] == "ConflictException"
    assert world.count(CREATE) == 1


def test_a_job_with_our_tags_is_ours_even_if_its_data_lay_elsewhere(world: World) -> None:
    """Case B4."""
    elsewhere = job_properties(TrainingDataUri="s3://old/datasets/d1/training.jsonl")
    world.jobs().send(framework.create(elsewhere))

    assert world.jobs().send(framework.create(job_properties())).succeeded
    assert world.count(CREATE) == 1


def test_a_name_in_use_by_a_foreign_job_fails_and_the_job_lives_on(world: World) -> None:
    """Case B5."""
    arn = world.foreign_job()

    response = world.jobs().send(framework.create(job_properties()))
    rollback = world.jobs().send(framework.delete(response.physical_id, job_properties()))

    assert not response.succeeded
    assert arn in response.reason
    assert "distillation.nonce" in response.reason
    assert rollback.succeeded
    assert world.count(CREATE) == 1
    assert world.running() == [NAME]
    assert world.count(STOP) == 0


def test_tags_of_a_foreign_job_are_left_alone(world: World) -> None:
    """Case B5."""
    world.foreign_job()
    new = job_properties(Tags={OWNER_TAG: OWNER, DIGEST_TAG: DIGEST, "team": "x"})
    world.jobs().send(framework.update(NAME, new, job_properties()))

    assert unclaimed(world.job()["tags"]) == {}


@pytest.mark.parametrize(("fault", "status"), [("job_failed", "Failed"), ("job_stopped", "Stopped")])
def test_a_job_that_ended_without_a_model_is_not_paid_again(world: World, fault: str, status: str) -> None:
    """Case B7."""
    world.server.fault(fault)
    properties = job_properties()
    world.jobs().send(framework.create(properties))
    world.server.advance(3 * HOUR)

    for event in (framework.update(NAME, properties, properties), framework.create(properties)):
        assert world.jobs().send(event).data["Status"] == status
    assert world.count(CREATE) == 1


def test_stopped_job_is_not_paid_again(world: World) -> None:
    """Case B7."""
    world.jobs().send(framework.create(job_properties()))
    world.bedrock.stop_model_customization_job(jobIdentifier=NAME)
    world.server.advance(HOUR)

    world.jobs().send(framework.create(job_properties()))

    assert world.count(CREATE) == 1
    assert world.running() == []


@pytest.mark.parametrize("how", ["dropped", "error"])
@pytest.mark.parametrize("attempts", [1, 2])
def test_a_lost_answer_is_found_again_by_name(world: World, how: str, attempts: int) -> None:
    """Case B12."""
    # With two attempts it is botocore that repeats the call, with the same token.
    world.server.fault("lost_response", operation=CREATE, answer=how)
    client = world.server.client("bedrock", attempts=attempts)

    response = world.jobs(client).send(framework.create(job_properties()))

    assert response.data["JobArn"] == world.job()["arn"]
    assert len(world.server.state()["jobs"]) == 1


def test_a_lost_answer_and_a_failed_lookup_end_in_one_job(world: World) -> None:
    """Case B12."""
    # Bedrock can't be reached at all for a while after the job was made.
    world.server.fault("lost_response", operation=CREATE)
    blind = {"get_model_customization_job": times(3, refusal("ThrottlingException", status=429), skip=1)}

    response = world.jobs(Meddled(world.bedrock, before=blind)).send(framework.create(job_properties()))

    assert response.succeeded
    assert len(world.server.state()["jobs"]) == 1


def test_a_job_that_is_not_visible_at_once_is_awaited(world: World) -> None:
    """Case B12."""
    missing = refusal("ResourceNotFoundException", status=404)
    late = Meddled(world.bedrock, before={"get_model_customization_job": times(2, missing)})

    assert world.jobs(late).send(framework.create(job_properties())).succeeded
    assert world.count(CREATE) == 1


def test_a_refusal_after_a_lost_answer_does_not_hide_the_job(world: World) -> None:
    """Case B12."""
    # The first try made the job and used up the quota; botocore's second try is refused for it.
    real = world.bedrock.create_model_customization_job
    hooks = {"create_model_customization_job": lambda: _lose(real)}

    response = world.jobs(Meddled(world.bedrock, before=hooks)).send(framework.create(job_properties()))

    assert response.succeeded
    assert world.count(CREATE) == 1


def _lose(real: Any) -> None:
    real(**spec().request())
    raise refusal("ServiceQuotaExceededException")


def test_a_crash_after_the_job_was_created_leaves_cloudformation_its_name(world: World) -> None:
    """Case B12."""

    def crash() -> None:
        raise MemoryError("Runtime exited with error: signal: killed")

    broken = Meddled(world.bedrock, after={"create_model_customization_job": crash})
    response = world.jobs(broken).send(framework.create(job_properties()))
    assert (response.succeeded, response.physical_id) == (False, NAME)
    assert world.running() == [NAME]

    assert world.jobs().send(framework.delete(response.physical_id, job_properties())).succeeded
    assert world.running() == []


def test_on_event_creates_nothing_that_the_framework_could_forget(world: World) -> None:
    """Case B12."""
    # Where onEvent fails, the framework drops CloudFormation's Delete.
    jobs = world.jobs()
    jobs.is_complete = None
    jobs.send(framework.create(job_properties()))
    assert world.server.calls() == []

    broken = {key: value for key, value in job_properties().items() if key != "RoleArn"}
    assert world.jobs().send(framework.create(broken)).physical_id == MARKER
    assert world.server.calls() == []


def test_a_replacement_creates_the_new_job_before_the_old_one_goes(world: World) -> None:
    """Case B14."""
    old, new = job_properties(), job_properties(NEXT)
    jobs = world.jobs()
    jobs.send(framework.create(old))

    updated = jobs.send(framework.update(NAME, new, old))
    assert updated.physical_id == NEXT_NAME
    assert sorted(world.running()) == sorted([NAME, NEXT_NAME])

    assert jobs.send(framework.delete(NAME, old)).succeeded
    assert world.running() == [NEXT_NAME]


@pytest.mark.parametrize("known", [NAME, NEXT_NAME])
def test_a_replacement_that_is_rolled_back_leaves_only_the_old_job(world: World, known: str) -> None:
    """Case B14."""
    # After a failed update CloudFormation may know either name; nothing may run that it doesn't know.
    old, new = job_properties(), job_properties(NEXT)
    jobs = world.jobs()
    jobs.send(framework.create(old))
    jobs.send(framework.update(NAME, new, old))

    back = jobs.send(framework.update(known, old, new))
    assert (back.succeeded, back.physical_id) == (True, NAME)
    if known != NAME:
        jobs.send(framework.delete(known, new))
    world.server.advance(600)

    assert world.running() == [NAME]
    assert world.count(CREATE) == 2


def test_throttling_is_awaited(world: World) -> None:
    """Case B16."""
    world.server.fault("throttled", operation=CREATE, count=5)

    response = world.jobs().send(framework.create(job_properties()))

    assert response.succeeded
    assert response.polls > 1
    assert world.count(CREATE) == 1


def test_throttled_polls_do_not_fail_what_was_paid(world: World) -> None:
    """Case B16."""
    world.server.fault("throttled", operation="GetModelCustomizationJob", count=5)

    assert world.jobs().send(framework.create(job_properties())).succeeded
    assert world.count(STOP) == 0


def test_throttling_for_ever_fails_with_bedrocks_text(world: World) -> None:
    """Case B16."""
    world.server.fault("throttled", operation=CREATE, count=None)

    response = world.jobs().send(framework.create(job_properties()))

    assert not response.succeeded
    assert "Too many requests" in response.reason
    assert NAME in response.reason


def test_a_full_quota_names_the_quota(world: World) -> None:
    """Case B16."""
    world.server.fault("over_quota", operation=CREATE, message="You have 2 jobs in progress.")

    response = world.jobs().send(framework.create(job_properties()))

    assert not response.succeeded
    for text in ("You have 2 jobs in progress.", "quotas of customization jobs", "Service Quotas", STUDENT):
        assert text in response.reason


def test_a_refused_request_fails_with_bedrocks_text_at_once(world: World) -> None:
    """Case B16."""
    wrong = job_properties(BaseModelIdentifier="amazon.nova-micro-v1:0:24k")

    response = world.jobs().send(framework.create(wrong))

    assert (response.succeeded, response.polls) == (False, 1)
    assert "customization type" in response.reason


def test_an_ended_teacher_is_refused_before_any_money(world: World) -> None:
    """Case B17."""
    premier = job_properties(TeacherModelIdentifier="us.amazon.nova-premier-v1:0")

    response = world.jobs().send(framework.create(premier))

    assert not response.succeeded
    for text in ("us.amazon.nova-premier-v1:0", "2026-09-14", "us.amazon.nova-pro-v1:0"):
        assert text in response.reason
    assert world.server.calls(CREATE) == []


@pytest.mark.parametrize("model", ["amazon.nova-pro-v1:0", "amazon.nova-micro-v1:0"])
@pytest.mark.parametrize("allowed", ["false", "true"])
def test_a_legacy_model_is_refused_unless_the_settings_allow_it(
    world: World, model: str, allowed: str
) -> None:
    """Case B17."""
    now = world.server.clock.now()
    world.server.lifecycle(model, legacy=now - DAY, end=now + 100 * DAY)

    response = world.jobs().send(framework.create(job_properties(AllowLegacy=allowed)))

    assert response.succeeded is (allowed == "true")
    assert len(world.server.calls(CREATE)) == (allowed == "true")
    if allowed == "false":
        end = datetime.fromtimestamp(now + 100 * DAY, UTC)
        assert f"{end:%Y-%m-%d}" in response.reason
        assert "distillation.allow_legacy" in response.reason


def test_an_ended_model_does_not_hinder_a_job_that_is_there(world: World) -> None:
    """Case B17."""
    world.jobs().send(framework.create(job_properties()))
    world.server.lifecycle("amazon.nova-pro-v1:0", legacy=0, end=1)

    assert world.jobs().send(framework.create(job_properties())).succeeded


def test_an_unknown_model_is_named(world: World) -> None:
    """Case B17."""
    response = world.jobs().send(
        framework.create(job_properties(TeacherModelIdentifier="us.amazon.nova-9:0"))
    )

    assert "us.amazon.nova-9:0 is unknown" in response.reason
    assert world.server.calls(CREATE) == []


# Somebody else writes to the bucket


def hashed(world: World) -> dict[str, Any]:
    """Return the properties of a job whose training file has a known hash."""
    body = world.s3.get_object(Bucket="data", Key="datasets/d1/training.jsonl")["Body"].read()
    tags = job_properties()["Tags"]
    return job_properties(Tags={**tags, TRAINING_TAG: hashlib.sha256(body).hexdigest()})


def test_job_of_the_published_file_is_created(world: World) -> None:
    assert world.jobs().send(framework.create(hashed(world))).succeeded


@pytest.mark.parametrize("body", [b"other rows", None])
def test_job_of_a_replaced_file_is_not_created(world: World, rows: bytes, body: bytes | None) -> None:
    properties, key = hashed(world), ("data", "datasets/d1/training.jsonl")
    try:
        if body:
            world.s3.put_object(Bucket=key[0], Key=key[1], Body=body)
        else:
            del world.s3.objects[key]
        response = world.jobs().send(framework.create(properties))
    finally:
        world.s3.put_object(Bucket=key[0], Key=key[1], Body=rows)
    assert not response.succeeded
    assert "s3://data/datasets/d1/training.jsonl" in response.reason
    assert properties["Tags"][TRAINING_TAG] in response.reason
    assert world.server.calls(CREATE) == []
