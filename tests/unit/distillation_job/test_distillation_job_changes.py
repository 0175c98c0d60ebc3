"""DistillationJob, Update under one name: changes that Bedrock can't make fail, and can be rolled back."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from distilled_router.bedrock import ownership
from distilled_router.bedrock.naming import DIGEST_TAG, HOLDOUT_TAG, OWNER_TAG, holdout_tag
from tests.unit import framework
from tests.unit.resource_scenes import (
    CREATE,
    DIGEST,
    HOUR,
    KEY,
    NAME,
    OWNER,
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


def test_another_holdout_set_is_a_tag_and_the_set_before_keeps_its_own(world: World) -> None:
    """A release stack that is rolled back alone needs its hash. Older ones go, also that without a key."""
    old = {OWNER_TAG: OWNER, DIGEST_TAG: DIGEST}
    sets = [{**old, HOLDOUT_TAG: "0" * 64}]
    sets += [{**old, holdout_tag(f"datasets/{n}/holdout.jsonl"): str(n) * 64} for n in (1, 2, 3)]
    world.jobs().send(framework.create(job_properties(Tags=sets[0])))
    world.server.advance(3 * HOUR)
    for before, after in pairwise(sets):
        event = framework.update(NAME, job_properties(Tags=after), job_properties(Tags=before))
        assert world.jobs().send(event).succeeded
    back = framework.update(NAME, job_properties(Tags=sets[2]), job_properties(Tags=sets[3]))
    assert world.jobs().send(back).succeeded
    job = world.bedrock.get_model_customization_job(jobIdentifier=NAME)
    for arn in (job["jobArn"], job["outputModelArn"]):
        found = ownership.read_tags(world.bedrock, arn) or {}
        held = {tag for tag in found if tag.startswith(HOLDOUT_TAG)}
        assert held == {holdout_tag(f"datasets/{n}/holdout.jsonl") for n in (2, 3)}
    assert world.count(CREATE) == 1


def earlier(world: World) -> tuple[dict[str, Any], str]:
    """Create a job as an earlier version named it; return the properties of this version, and the way out."""
    name, keep = f"{NAME[:-12]}{'f' * 12}", 'To keep it, set dataset.holdout_in_digest = "0a1b"'
    world.jobs().send(framework.create(job_properties()))
    given: dict[str, Any] = {
        "JobName": name,
        "CustomModelName": name,
        "Earlier": {"JobName": NAME, "Keep": keep},
    }
    tags = {OWNER_TAG: OWNER, DIGEST_TAG: "f" * 12}
    return job_properties(**given, Tags=tags), keep


@pytest.mark.parametrize("is_created_later", [{}, {"MadeLater": "true"}])
@pytest.mark.parametrize("is_running", [True, False])
def test_upgrade_that_would_train_the_same_model_again_is_refused_and_names_the_way(
    world: World, is_running: bool, is_created_later: dict[str, str]
) -> None:
    """Earlier versions counted the hold-out set in the job's name. Also after the stack was destroyed."""
    given, keep = earlier(world)
    new = {**given, **is_created_later}
    world.server.advance(0 if is_running else 3 * HOUR)
    for event in (framework.update(NAME, new, job_properties()), framework.create(new)):
        response = world.jobs().send(event)
        assert not response.succeeded
        assert f"would train the model of job {NAME} again" in response.reason
        assert f"{keep}. To train it again, set distillation.nonce." in response.reason
    assert world.jobs().send(framework.update(NAME, job_properties(), new)).succeeded
    assert (world.count(CREATE), world.count(STOP)) == (1, 0)


def test_job_that_failed_under_its_earlier_name_is_created(world: World) -> None:
    world.server.fault("job_failed", message="bad rows")
    new, _ = earlier(world)
    world.server.advance(HOUR)
    assert world.jobs().send(framework.update(NAME, new, job_properties())).physical_id == new["JobName"]
    assert world.count(CREATE) == 2
    # And then its own job counts.
    assert world.jobs().send(framework.create(new)).succeeded
