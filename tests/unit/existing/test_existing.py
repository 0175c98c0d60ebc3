"""Existing: jobs, models and throughput that are managed elsewhere are looked up and never changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from distilled_router.aws.custom_resource import Event
from distilled_router.aws.errors import ResourceError, with_retries
from distilled_router.bedrock import models
from existing import handler
from tests.unit import framework
from tests.unit.local.bedrock.test_bedrock_recorded import recorded
from tests.unit.release_world import Proxy
from tests.unit.resource_scenes import (
    CREATE,
    HOUR,
    NAME,
    NEXT,
    OWNER,
    STUDENT,
    Meddled,
    World,
    refusal,
    spec,
    times,
)

JOB = f"arn:aws:bedrock:us-east-1:000000000000:model-customization-job/{STUDENT}/0123456789ab"
MODEL = f"arn:aws:bedrock:us-east-1:000000000000:custom-model/{STUDENT}/0123456789ab"
THROUGHPUT = "arn:aws:bedrock:us-east-1:000000000000:provisioned-model/0123456789ab"


def make_job(world: World) -> str:
    return str(world.bedrock.create_model_customization_job(**spec().request())["jobArn"])


def make_model(world: World) -> str:
    return world.model()


def make_throughput(world: World) -> str:
    made = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName="units", modelId=world.model(), modelUnits=2, commitmentDuration="OneMonth"
    )
    world.server.advance(HOUR)
    return str(made["provisionedModelArn"])


MAKERS = (make_job, make_model, make_throughput)
Maker = Callable[[World], str]


def looked_up(world: World, arn: str) -> framework.Response:
    return world.existing().send(framework.create({"Arn": arn, "Nonce": ""}))


def test_a_job_is_found_by_its_arn_and_not_created(world: World) -> None:
    """Case T3."""
    arn = make_job(world)
    calls = len(world.server.calls(CREATE))

    response = looked_up(world, arn)

    assert (response.succeeded, response.physical_id) == (True, arn)
    job = world.described()
    assert response.data == {
        "JobArn": job["jobArn"],
        "JobName": job["jobName"],
        "Status": job["status"],
        "BaseModel": "amazon.nova-micro-v1:0",
        "ModelArn": "",
        "TrainingLoss": "",
        "ValidationLoss": "",
    }
    assert job["baseModelArn"].endswith("/amazon.nova-micro-v1:0:128k")
    assert len(world.server.calls(CREATE)) == calls


def test_a_completed_job_returns_its_model_and_its_losses(world: World) -> None:
    """Case T8."""
    validated = spec(ValidationDataUris=["s3://data/other.jsonl"])
    arn = world.bedrock.create_model_customization_job(**validated.request())["jobArn"]
    world.server.advance(3 * HOUR)

    data = looked_up(world, arn).data

    job = world.described()
    assert data["Status"] == "Completed"
    assert data["ModelArn"] == job["outputModelArn"]
    assert float(data["TrainingLoss"]) == job["trainingMetrics"]["trainingLoss"]
    assert float(data["ValidationLoss"]) == job["validationMetrics"][0]["validationLoss"]


def test_a_model_is_looked_up_by_its_arn(world: World) -> None:
    """Case T11."""
    arn = world.model()

    response = looked_up(world, arn)

    found = world.bedrock.get_custom_model(modelIdentifier=arn)
    assert (response.succeeded, response.physical_id) == (True, arn)
    assert response.data == {
        "ModelArn": found["modelArn"],
        "ModelName": found["modelName"],
        "JobArn": found["jobArn"],
        "BaseModel": "amazon.nova-micro-v1:0",
        "Status": found["modelStatus"],
    }


def test_an_older_model_as_bedrock_really_describes_it_is_read(world: World) -> None:
    """Its answer has no modelStatus and no jobName."""
    answer = recorded("GetCustomModel")[0].answer
    bedrock = Proxy(world.bedrock, get_custom_model=lambda **_: answer)
    response = world.existing(bedrock).send(framework.create({"Arn": answer["modelArn"], "Nonce": ""}))
    assert response.data == {
        "ModelArn": answer["modelArn"],
        "ModelName": "c7n-test3",
        "JobArn": answer["jobArn"],
        "BaseModel": "amazon.titan-text-express-v1:0",
        "Status": "Active",
    }


def test_a_running_job_as_bedrock_really_describes_it_is_read(world: World) -> None:
    """Its answer has no statusDetails and no validationDataConfig."""
    answer = recorded("GetModelCustomizationJob")[0].answer
    bedrock = Proxy(world.bedrock, get_model_customization_job=lambda **_: answer)
    response = world.existing(bedrock).send(framework.create({"Arn": answer["jobArn"], "Nonce": ""}))
    assert response.data == {
        "JobArn": answer["jobArn"],
        "JobName": "c7n-test-ab",
        "Status": "InProgress",
        "BaseModel": "cohere.command-text-v14:7",
        "ModelArn": "",
        "TrainingLoss": "",
        "ValidationLoss": "",
    }


def test_all_models_are_listed_over_all_pages_as_each_is_shown(world: World) -> None:
    """Case T11."""
    digests = [f"{number:012x}" for number in range(5)]
    for digest in digests:
        world.bedrock.create_model_customization_job(**spec(digest).request())
    world.server.advance(3 * HOUR)

    listed = {model["modelName"]: model for model in models.listed(Paged(world.bedrock), OWNER)}

    assert sorted(listed) == [f"{OWNER}-{digest}" for digest in digests]
    assert len(world.server.calls("ListCustomModels")) == 3
    for name, summary in listed.items():
        shown = models.find(world.bedrock, name)
        assert shown
        fields = ("modelArn", "modelName", "baseModelArn", "creationTime", "customizationType", "modelStatus")
        assert {name: summary[name] for name in fields} == {name: shown[name] for name in fields}


class Paged:
    """A client whose lists come in pages of two."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def get_paginator(self, name: str) -> Any:
        """Return the client's paginator with smaller pages."""
        paginator = self._client.get_paginator(name)
        paginator.paginate = partial(paginator.paginate, PaginationConfig={"PageSize": 2})
        return paginator


def test_throughput_is_found_by_its_arn_and_not_bought(world: World) -> None:
    """Case T20."""
    arn = make_throughput(world)
    bought = world.count("CreateProvisionedModelThroughput")

    response = looked_up(world, arn)

    found = world.bedrock.get_provisioned_model_throughput(provisionedModelId=arn)
    assert (response.succeeded, response.physical_id) == (True, arn)
    assert response.data == {
        "ProvisionedModelArn": arn,
        "ProvisionedModelName": "units",
        "ModelArn": found["modelArn"],
        "ModelUnits": "2",
        "Status": "InService",
        "CommitmentDuration": "OneMonth",
    }
    assert world.count("CreateProvisionedModelThroughput") == bought


def test_throughput_by_the_hour_has_no_commitment(world: World) -> None:
    """Case T20."""
    made = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName="units", modelId=world.model(), modelUnits=1
    )

    assert looked_up(world, made["provisionedModelArn"]).data["CommitmentDuration"] == ""


@pytest.mark.parametrize("maker", MAKERS)
def test_nothing_is_ever_changed(world: World, maker: Maker) -> None:
    arn = maker(world)
    before, state = world.written(), world.server.state()
    resource, properties = world.existing(), {"Arn": arn, "Nonce": ""}

    assert resource.send(framework.create(properties)).succeeded
    assert resource.send(framework.create(properties)).succeeded
    assert resource.send(framework.update(arn, {**properties, "Nonce": "2"}, properties)).succeeded
    looks = len(world.server.calls())
    assert resource.send(framework.delete(arn, properties)).succeeded

    assert len(world.server.calls()) == looks
    assert world.written() == before
    assert world.server.state() == state


def test_another_arn_is_another_resource_and_the_old_one_is_left_alone(world: World) -> None:
    old = make_job(world)
    new = str(world.bedrock.create_model_customization_job(**spec(NEXT).request())["jobArn"])

    response = world.existing().send(framework.update(old, {"Arn": new}, {"Arn": old}))
    assert response.physical_id == new
    assert world.existing().send(framework.delete(old, {"Arn": old})).succeeded
    assert world.running() == [NAME, f"{OWNER}-{NEXT}"]


@pytest.mark.parametrize("maker", MAKERS)
def test_a_generated_id_is_a_success_without_calls(world: World, maker: Maker) -> None:
    """Case B10."""
    arn = maker(world)
    calls = len(world.server.calls())

    response = world.existing().send(framework.delete("stack-Existing-1ABC", {"Arn": arn}))

    assert (response.succeeded, response.physical_id) == (True, "stack-Existing-1ABC")
    assert len(world.server.calls()) == calls


@pytest.mark.parametrize(
    ("arn", "kind"),
    [(JOB, "customization job"), (MODEL, "custom model"), (THROUGHPUT, "provisioned throughput")],
)
def test_missing_resources_are_reported(world: World, arn: str, kind: str) -> None:
    """Cases T4, T21."""
    response = looked_up(world, arn)

    assert not response.succeeded
    assert response.reason.startswith(f"There is no {kind} {arn} in this account and Region.")


def test_a_model_that_disappeared_is_reported_at_the_next_poll_and_its_resource_still_goes(
    world: World,
) -> None:
    """Case T4."""
    arn = world.model()
    looked_up(world, arn)
    world.bedrock.delete_custom_model(modelIdentifier=arn)

    again = world.existing().send(framework.update(arn, {"Arn": arn, "Nonce": "2"}, {"Arn": arn}))

    assert not again.succeeded
    assert "may have been deleted" in again.reason
    assert world.existing().send(framework.delete(arn, {"Arn": arn})).succeeded
    assert world.count(CREATE) == 1


def test_another_kind_of_arn_is_refused_without_a_call(world: World) -> None:
    response = looked_up(world, "arn:aws:bedrock:us-east-1:000000000000:guardrail/0123456789ab")

    kinds = "customization job, custom model, provisioned throughput"
    assert f"is not an ARN of one of: {kinds}" in response.reason
    assert world.server.calls() == []


def test_a_policy_that_iam_does_not_know_yet_is_awaited(world: World) -> None:
    arn, pauses = make_job(world), list[float]()
    denied = Meddled(
        world.bedrock,
        before={"get_model_customization_job": times(2, refusal("AccessDeniedException", status=403))},
    )

    result = handler.handle(_event(arn), denied, partial(with_retries, sleep=pauses.append))

    assert result["Data"]["JobArn"] == arn
    assert len(pauses) == 2


def test_access_that_stays_denied_fails_with_bedrocks_text(world: World) -> None:
    world.server.fault("denied", operation="GetModelCustomizationJob", message="not authorized: bedrock:Get")

    response = looked_up(world, JOB)

    assert not response.succeeded
    assert "not authorized: bedrock:Get" in response.reason


def test_throttling_is_left_to_the_client(world: World) -> None:
    """Case B16."""
    arn = make_job(world)
    world.server.fault("throttled", operation="GetModelCustomizationJob", count=1)

    patient = world.server.client("bedrock", attempts=2)
    assert world.existing(patient).send(framework.create({"Arn": arn})).succeeded


def test_the_entry_point_uses_the_functions_own_client(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = make_job(world)
    monkeypatch.setattr(handler, "client", {"bedrock": world.bedrock}.__getitem__)

    answer = handler.on_event(framework.create({"Arn": arn}), None)
    assert answer["PhysicalResourceId"] == arn
    with pytest.raises(ResourceError, match="There is no custom model"):
        handler.on_event(framework.create({"Arn": MODEL}), None)


def _event(arn: str) -> Event:
    return Event.parse(framework.create({"Arn": arn}))


@pytest.mark.parametrize(
    ("arn", "base"),
    [
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0:128k", "amazon.nova-micro-v1:0"),
        ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-micro-v1:0", "amazon.nova-micro-v1:0"),
        (MODEL, "amazon.nova-micro-v1:0"),
        ("amazon.titan-text-express-v1:0:8k", "amazon.titan-text-express-v1:0"),
        ("", ""),
    ],
)
def test_a_base_model_is_named_as_for_inference(arn: str, base: str) -> None:
    """Case T3."""
    assert models.base_model(arn) == base
