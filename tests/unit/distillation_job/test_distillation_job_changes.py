"""DistillationJob, Update under one name: changes that Bedrock can't make fail, and can be rolled back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG
from tests.unit import framework
from tests.unit.resource_scenes import (
    CREATE,
    DIGEST,
    HOUR,
    KEY,
    NAME,
    ROLE,
    STOP,
    World,
    job_properties,
    spec,
)

OTHER_KEY = KEY.replace("0b8f", "1b8f")
NETWORK: Mapping[str, Any] = {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}
# Parameters of the existing job, changes of the update, and a part of the refusal's text.
FIXED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {},
        {"TrainingDataUri": "s3://data/datasets/d2/training.jsonl"},
        'TrainingDataUri is "datasets/d1/training.jsonl", not "datasets/d2/training.jsonl"',
    ),
    ({}, {"CustomModelKmsKeyId": KEY}, f'CustomModelKmsKeyId is nothing, not "{KEY}"'),
    (
        {"CustomModelKmsKeyId": KEY},
        {"CustomModelKmsKeyId": OTHER_KEY},
        f'CustomModelKmsKeyId is "{KEY}", not "{OTHER_KEY}"',
    ),
    ({"CustomModelKmsKeyId": KEY}, {}, f'CustomModelKmsKeyId is "{KEY}", not nothing'),
    (
        {},
        {"ValidationDataUris": ["s3://data/validation.jsonl", "s3://others/v.jsonl"]},
        'ValidationDataUris is nothing, not ["validation.jsonl", "s3://others/v.jsonl"]',
    ),
    (
        {},
        {"TeacherModelIdentifier": "amazon.nova-pro-v1:0"},
        'TeacherModelIdentifier is "us.amazon.nova-pro-v1:0", not "amazon.nova-pro-v1:0"',
    ),
    (
        {},
        {"MaxResponseLengthForInference": "500"},
        "MaxResponseLengthForInference is 1000, not 500",
    ),
    ({}, {"BaseModelIdentifier": "amazon.nova-lite-v1:0:300k"}, "BaseModelIdentifier is"),
    ({}, {"CustomizationType": "FINE_TUNING"}, 'CustomizationType is "DISTILLATION", not "FINE_TUNING"'),
    ({}, {"HyperParameters": {"epochCount": "3"}}, 'HyperParameters is nothing, not {"epochCount": "3"}'),
    (
        {"TrainingDataUri": None, "InvocationLogsUri": "s3://logs/a", "UsePromptResponse": "false"},
        {"TrainingDataUri": None, "InvocationLogsUri": "s3://logs/a", "UsePromptResponse": "true"},
        "UsePromptResponse is false, not true",
    ),
]


@pytest.fixture(params=FIXED, ids=lambda case: case[2].partition(" ")[0])
def case(request: pytest.FixtureRequest) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the old properties, the new ones, and a part of the refusal's text."""
    made, changed, text = request.param
    return job_properties(**made), job_properties(**changed), text


def test_a_change_that_bedrock_can_not_make_is_refused_at_once(
    world: World, case: tuple[dict[str, Any], dict[str, Any], str]
) -> None:
    old, new, text = case
    world.jobs().send(framework.create(old))
    before = world.written()

    response = world.jobs().send(framework.update(NAME, {**new, "Tags": {}}, old))

    assert (response.succeeded, response.physical_id, response.polls) == (False, NAME, 1)
    assert text in response.reason
    assert "nonce" in response.reason
    # Not even the tags change: the update fails as a whole.
    assert world.written() == before


def test_a_refused_change_is_rolled_back_and_refused_again(
    world: World, case: tuple[dict[str, Any], dict[str, Any], str]
) -> None:
    """Case B14."""
    old, new, _ = case
    world.jobs().send(framework.create(old))
    before = world.written()
    for _ in range(2):
        assert not world.jobs().send(framework.update(NAME, new, old)).succeeded

        back = world.jobs().send(framework.update(NAME, old, new))

        assert (back.succeeded, back.physical_id) == (True, NAME)
    assert world.written() == before
    assert world.running() == [NAME]


@pytest.mark.parametrize(
    "refused",
    [
        {"MaxResponseLengthForInference": "many"},
        {"RoleArn": None},
        {"TrainingDataUri": None},
        {"OutputDataUri": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_update_is_rolled_back_whatever_was_refused(world: World, refused: dict[str, Any]) -> None:
    """Case B14."""
    world.jobs().send(framework.create(job_properties()))
    broken = job_properties(**refused)
    assert not world.jobs().send(framework.update(NAME, broken, job_properties())).succeeded

    assert world.jobs().send(framework.update(NAME, job_properties(), broken)).succeeded
    assert world.running() == [NAME]


@pytest.mark.parametrize(
    "changes",
    [
        {"RoleArn": f"{ROLE}2"},
        {"OutputDataUri": "s3://data/jobs/elsewhere/"},
        {"AllowLegacy": "true"},
        {"RetainModel": "true"},
        {"RetainOutput": "false"},
        {"Tags": {OWNER_TAG: "video-router-prod", DIGEST_TAG: DIGEST}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_does_not_decide_the_model_may_change(world: World, changes: dict[str, Any]) -> None:
    world.jobs().send(framework.create(job_properties()))

    response = world.jobs().send(framework.update(NAME, job_properties(**changes), job_properties()))

    assert response.succeeded
    assert world.count(CREATE) == 1
    assert world.count(STOP) == 0


def test_the_same_data_in_another_bucket_is_no_change(world: World) -> None:
    moved = {
        "TrainingDataUri": "s3://new/datasets/d1/training.jsonl",
        "OutputDataUri": f"s3://new/jobs/{NAME}/",
    }
    world.jobs().send(framework.create(job_properties()))

    assert world.jobs().send(framework.update(NAME, job_properties(**moved), job_properties())).succeeded

    other = job_properties(**{**moved, "TrainingDataUri": "s3://new/datasets/d2/training.jsonl"})
    response = world.jobs().send(framework.update(NAME, other, job_properties(**moved)))
    assert 'not "datasets/d2/training.jsonl"' in response.reason


@pytest.mark.parametrize("network", [{}, NETWORK, {**NETWORK, "SubnetIds": ["subnet-2"]}])
def test_another_network_is_no_other_job_and_nothing_is_paid_for_it(
    world: World, network: dict[str, Any]
) -> None:
    """The network is not part of the digest. A running job stays in its network; the next one uses the new
    one."""
    old, new = job_properties(**NETWORK), job_properties(**network)
    world.jobs().send(framework.create(old))
    before = world.written()

    response = world.jobs().send(framework.update(NAME, new, old))

    assert (response.succeeded, response.physical_id) == (True, NAME)
    assert world.written() == before


def test_a_job_that_was_adopted_may_be_declared_as_it_is(world: World) -> None:
    # Created by a labelling workflow with a key; found by its tags, and first declared without one.
    made = {**spec(CustomModelKmsKeyId=KEY).request(), "clientRequestToken": "theirs"}
    world.bedrock.create_model_customization_job(**made)
    world.jobs().send(framework.create(job_properties()))

    right = job_properties(CustomModelKmsKeyId=KEY)
    assert world.jobs().send(framework.update(NAME, right, job_properties())).succeeded
    assert world.jobs().send(framework.update(NAME, job_properties(), right)).succeeded


def test_a_rejection_costs_one_read_and_no_change_costs_two(world: World) -> None:
    world.jobs().send(framework.create(job_properties()))
    looks = len(world.server.calls())

    world.jobs().send(framework.update(NAME, job_properties(AllowLegacy="true"), job_properties()))
    # The reads of every event: the job for its attributes, and whether there is a second attempt.
    asked = [call["operation"] for call in world.server.calls()[looks:]]
    assert asked == ["GetModelCustomizationJob"] * 2
    world.jobs().send(framework.update(NAME, job_properties(CustomModelKmsKeyId=KEY), job_properties()))
    asked = [call["operation"] for call in world.server.calls()[looks + 2 :]]
    assert asked == ["GetModelCustomizationJob"]


def test_a_finished_job_can_not_be_changed_either(world: World) -> None:
    world.jobs().send(framework.create(job_properties()))
    world.server.advance(3 * HOUR)

    changed = job_properties(CustomModelKmsKeyId=KEY)
    assert not world.jobs().send(framework.update(NAME, changed, job_properties())).succeeded
