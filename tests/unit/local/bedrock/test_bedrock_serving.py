"""Custom models, deployments and provisioned throughput."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from local.bedrock import BedrockStandIn, Quotas, Settings
from tests.unit.local.bedrock.scenes import (
    BASE,
    DAY,
    HOUR,
    MINUTE,
    PROMPT,
    STUDENT,
    Scene,
    conflict,
    invalid,
    labelled,
    refused,
)


@pytest.fixture
def model(scene: Scene) -> str:
    return scene.train()


@pytest.fixture
def swapped(scene: Scene, model: str) -> str:
    """Return a second model with the opposite answers."""
    rows = labelled()
    for row in rows:
        answer = row["messages"][1]["content"][0]
        answer["text"] = " ".join(reversed(answer["text"].split()))
    return scene.train("swapped", rows)


def deployment(scene: Scene, name: str = "endpoint") -> dict[str, object]:
    found: dict[str, object] = scene.control.get_custom_model_deployment(customModelDeploymentIdentifier=name)
    return found


def throughput(scene: Scene, name: str = "units") -> dict[str, object]:
    found: dict[str, object] = scene.control.get_provisioned_model_throughput(provisionedModelId=name)
    return found


def test_custom_model_is_found_by_name_and_by_arn(scene: Scene, model: str) -> None:
    by_name = scene.control.get_custom_model(modelIdentifier="job")
    by_arn = scene.control.get_custom_model(modelIdentifier=model)
    assert by_name["modelArn"] == by_arn["modelArn"] == model
    assert (by_arn["modelStatus"], by_arn["customizationType"]) == ("Active", "DISTILLATION")
    assert by_arn["baseModelArn"].endswith(f"foundation-model/{STUDENT}")


def test_custom_models_are_listed(scene: Scene, model: str) -> None:
    (found,) = scene.control.list_custom_models(nameContains="jo")["modelSummaries"]
    assert (found["modelArn"], found["modelStatus"]) == (model, "Active")
    assert scene.control.list_custom_models(nameContains="other")["modelSummaries"] == []


def test_unencoded_arn_in_a_path_is_accepted(scene: Scene, model: str) -> None:
    def leave_unencoded(request: object, **_: object) -> None:
        request.url = f"{scene.bedrock.endpoint}/custom-models/{model}"  # type: ignore[attr-defined] # botocore's

    control = scene.bedrock.client("bedrock")
    control.meta.events.register("before-sign.bedrock.GetCustomModel", leave_unencoded)
    assert control.get_custom_model(modelIdentifier="any")["modelArn"] == model


def test_deployment_becomes_active(scene: Scene, model: str) -> None:
    arn = scene.deploy(model, wait=False)
    assert deployment(scene)["status"] == "Creating"
    with refused("ModelNotReadyException"):
        scene.ask(arn, PROMPT)
    scene.advance(8 * MINUTE)
    assert deployment(scene, arn)["status"] == "Active"
    assert scene.ask(arn, PROMPT) == "90 10"


def test_deployment_cannot_be_deleted_while_creating(scene: Scene, model: str) -> None:
    scene.deploy(model, wait=False)
    with invalid("mutating state"):
        scene.control.delete_custom_model_deployment(customModelDeploymentIdentifier="endpoint")
    scene.advance(8 * MINUTE)
    scene.control.delete_custom_model_deployment(customModelDeploymentIdentifier="endpoint")
    with refused("ResourceNotFoundException"):
        deployment(scene)


def test_updated_deployment_serves_the_old_model_until_it_is_done(
    scene: Scene, model: str, swapped: str
) -> None:
    arn = scene.deploy(model)
    scene.control.update_custom_model_deployment(customModelDeploymentIdentifier=arn, modelArn=swapped)
    assert deployment(scene)["updateDetails"] == {"modelArn": swapped, "updateStatus": "Updating"}
    assert scene.ask(arn, PROMPT) == "90 10"
    with invalid("mutating state"):
        scene.control.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
    scene.advance(8 * MINUTE)
    found = deployment(scene)
    assert found["updateDetails"] == {"modelArn": swapped, "updateStatus": "UpdateCompleted"}
    assert (found["modelArn"], found["status"]) == (swapped, "Active")
    assert scene.ask(arn, PROMPT) == "10 90"


def test_failed_update_leaves_the_old_model_serving(scene: Scene, model: str, swapped: str) -> None:
    arn = scene.deploy(model)
    scene.bedrock.fault("deployment_update_failed")
    scene.control.update_custom_model_deployment(customModelDeploymentIdentifier=arn, modelArn=swapped)
    scene.advance(8 * MINUTE)
    found = deployment(scene)
    assert found["updateDetails"] == {"modelArn": swapped, "updateStatus": "UpdateFailed"}
    assert found["modelArn"] == model
    assert scene.ask(arn, PROMPT) == "90 10"


def test_deployment_name_must_be_free(scene: Scene, model: str) -> None:
    scene.deploy(model)
    with invalid("in use"):
        scene.deploy(model)


def test_same_token_makes_no_second_deployment(scene: Scene, model: str) -> None:
    request = {"modelDeploymentName": "endpoint", "modelArn": model, "clientRequestToken": "token"}
    first = scene.control.create_custom_model_deployment(**request)
    second = scene.control.create_custom_model_deployment(**request)
    assert first["customModelDeploymentArn"] == second["customModelDeploymentArn"]


def test_third_deployment_in_progress_is_over_quota(scene: Scene, model: str) -> None:
    for name in ("one", "two"):
        scene.deploy(model, name, wait=False)
    with refused("ServiceQuotaExceededException", "in progress"):
        scene.deploy(model, "three", wait=False)
    scene.advance(8 * MINUTE)
    scene.deploy(model, "three")
    listed = scene.control.list_custom_model_deployments(statusEquals="Active", modelArnEquals=model)
    names = {item["customModelDeploymentName"] for item in listed["modelDeploymentSummaries"]}
    assert names == {"one", "two", "three"}


def test_deployment_of_an_unknown_model_is_refused(scene: Scene, model: str) -> None:
    with refused("ResourceNotFoundException"):
        scene.deploy(f"{model[:-12]}{'0' * 12}")
    with invalid("modelArn"):
        scene.deploy("arn:aws:bedrock:us-east-1:000000000000:custom-model/short")


def test_model_cannot_be_deleted_while_it_is_used(scene: Scene, model: str) -> None:
    scene.deploy(model)
    scene.provision(model)
    with conflict("because of a conflict"):
        scene.control.delete_custom_model(modelIdentifier=model)
    scene.control.delete_custom_model_deployment(customModelDeploymentIdentifier="endpoint")
    with conflict("because of a conflict"):
        scene.control.delete_custom_model(modelIdentifier=model)
    scene.control.delete_provisioned_model_throughput(provisionedModelId="units")
    scene.control.delete_custom_model(modelIdentifier=model)
    with refused("ResourceNotFoundException"):
        scene.control.get_custom_model(modelIdentifier=model)


def test_model_that_an_update_will_use_is_in_use(scene: Scene, model: str, swapped: str) -> None:
    arn = scene.deploy(model)
    scene.control.update_custom_model_deployment(customModelDeploymentIdentifier=arn, modelArn=swapped)
    for used in (model, swapped):
        with conflict():
            scene.control.delete_custom_model(modelIdentifier=used)
    scene.advance(8 * MINUTE)
    scene.control.delete_custom_model(modelIdentifier=model)


def test_throughput_comes_into_service(scene: Scene, model: str) -> None:
    arn = scene.provision(model, wait=False)
    assert throughput(scene)["status"] == "Creating"
    with refused("ModelNotReadyException"):
        scene.ask(arn, PROMPT)
    scene.advance(20 * MINUTE)
    found = throughput(scene, arn)
    assert (found["status"], found["modelArn"], found["desiredModelArn"]) == ("InService", model, model)
    assert "commitmentExpirationTime" not in found
    assert scene.ask(arn, PROMPT) == "90 10"


def test_throughput_can_be_updated_to_another_model(scene: Scene, model: str, swapped: str) -> None:
    arn = scene.provision(model)
    scene.control.update_provisioned_model_throughput(provisionedModelId="units", desiredModelId=swapped)
    found = throughput(scene)
    assert (found["status"], found["modelArn"], found["desiredModelArn"]) == ("Updating", model, swapped)
    assert scene.ask(arn, PROMPT) == "90 10"
    with invalid("Updating"):
        scene.control.update_provisioned_model_throughput(provisionedModelId="units", desiredModelId=model)
    with conflict("because of a conflict"):
        scene.control.delete_provisioned_model_throughput(provisionedModelId="units")
    scene.advance(20 * MINUTE)
    found = throughput(scene)
    assert (found["status"], found["modelArn"], found["desiredModelArn"]) == ("InService", swapped, swapped)
    assert scene.ask(arn, PROMPT) == "10 90"


def test_throughput_can_only_be_updated_to_a_model_of_its_base(scene: Scene, model: str) -> None:
    scene.provision(model)
    scene.control.update_provisioned_model_throughput(provisionedModelId="units", desiredModelId=STUDENT)
    scene.advance(HOUR)
    with invalid("base model"):
        scene.control.update_provisioned_model_throughput(
            provisionedModelId="units", desiredModelId="amazon.nova-lite-v1:0:300k"
        )


def test_throughput_can_be_renamed(scene: Scene, model: str) -> None:
    scene.provision(model)
    scene.control.update_provisioned_model_throughput(
        provisionedModelId="units", desiredProvisionedModelName="renamed"
    )
    scene.advance(HOUR)
    assert throughput(scene, "renamed")["status"] == "InService"


def test_throughput_name_and_model_can_change_in_one_call(scene: Scene, model: str, swapped: str) -> None:
    arn = scene.provision(model)
    scene.control.update_provisioned_model_throughput(
        provisionedModelId=arn, desiredModelId=swapped, desiredProvisionedModelName="renamed"
    )
    found = throughput(scene, arn)
    assert (found["status"], found["provisionedModelName"]) == ("Updating", "renamed")
    scene.advance(HOUR)
    found = throughput(scene, "renamed")
    assert (found["provisionedModelArn"], found["modelArn"]) == (arn, swapped)
    with refused("ResourceNotFoundException"):
        throughput(scene, "units")


def test_throughput_cannot_be_renamed_during_an_update(scene: Scene, model: str, swapped: str) -> None:
    arn = scene.provision(model)
    scene.control.update_provisioned_model_throughput(provisionedModelId=arn, desiredModelId=swapped)
    with invalid("Updating"):
        scene.control.update_provisioned_model_throughput(
            provisionedModelId=arn, desiredProvisionedModelName="renamed"
        )


def test_failed_throughput_cannot_be_updated(scene: Scene, model: str, swapped: str) -> None:
    scene.bedrock.fault("throughput_failed")
    arn = scene.provision(model)
    with invalid("Failed"):
        scene.control.update_provisioned_model_throughput(provisionedModelId=arn, desiredModelId=swapped)


def test_throughput_keeps_its_model_when_its_update_fails(scene: Scene, model: str, swapped: str) -> None:
    arn = scene.provision(model)
    scene.bedrock.fault("throughput_update_failed")
    scene.control.update_provisioned_model_throughput(provisionedModelId=arn, desiredModelId=swapped)
    scene.advance(HOUR)
    found = throughput(scene)
    assert (found["status"], found["modelArn"], found["desiredModelArn"]) == ("InService", model, model)


def test_throughput_cannot_get_a_name_in_use(scene: Scene, model: str) -> None:
    scene.provision(model)
    scene.provision(model, "more")
    with invalid("in use"):
        scene.control.update_provisioned_model_throughput(
            provisionedModelId="units", desiredProvisionedModelName="more"
        )
    # Throughput can be given its current name again.
    scene.control.update_provisioned_model_throughput(
        provisionedModelId="units", desiredProvisionedModelName="units"
    )


def test_throughput_list_is_filtered_by_name_model_and_status(scene: Scene, model: str, swapped: str) -> None:
    scene.provision(model, "one")
    scene.provision(swapped, "two", wait=False)

    def listed(**filters: str) -> list[str]:
        found = scene.control.list_provisioned_model_throughputs(**filters)["provisionedModelSummaries"]
        return [item["provisionedModelName"] for item in found]

    assert listed() == ["two", "one"]
    assert listed(sortOrder="Ascending") == ["one", "two"]
    assert listed(nameContains="on") == ["one"]
    assert listed(modelArnEquals=swapped) == ["two"]
    assert listed(statusEquals="Creating") == ["two"]
    assert listed(nameContains="on", statusEquals="Creating") == []


def test_tags_of_throughput_can_be_changed(scene: Scene, model: str) -> None:
    arn = scene.provision(model, tags=[{"key": "team", "value": "search"}])
    scene.control.tag_resource(resourceARN=arn, tags=[{"key": "cost", "value": "7"}])
    scene.control.untag_resource(resourceARN=arn, tagKeys=["team"])
    assert scene.control.list_tags_for_resource(resourceARN=arn)["tags"] == [{"key": "cost", "value": "7"}]
    scene.control.delete_provisioned_model_throughput(provisionedModelId=arn)
    with refused("ResourceNotFoundException"):
        scene.control.list_tags_for_resource(resourceARN=arn)


def test_throughput_name_must_be_free(scene: Scene, model: str) -> None:
    scene.provision(model)
    with invalid("in use"):
        scene.provision(model)


def test_committed_throughput_cannot_be_deleted_before_its_term(scene: Scene, model: str) -> None:
    scene.provision(model, commitmentDuration="OneMonth")
    assert "commitmentExpirationTime" in throughput(scene)
    with conflict("because of a conflict"):
        scene.control.delete_provisioned_model_throughput(provisionedModelId="units")
    scene.advance(31 * DAY)
    scene.control.delete_provisioned_model_throughput(provisionedModelId="units")


@pytest.fixture
def without_units() -> Iterator[Scene]:
    with BedrockStandIn(settings=Settings(quotas=Quotas(model_units=0))) as bedrock:
        yield Scene(bedrock)


def test_account_without_model_units_is_over_quota(without_units: Scene) -> None:
    model = without_units.train()
    with refused(
        "ServiceQuotaExceededException",
        f"Your account does not currently have any no commitment model units reserved for {STUDENT}.",
    ):
        without_units.provision(model)


def test_quota_of_model_units_counts_units_in_use(scene: Scene, model: str) -> None:
    scene.provision(model, units=2)
    with refused("ServiceQuotaExceededException"):
        scene.provision(model, "more")
    scene.control.delete_provisioned_model_throughput(provisionedModelId="units")
    scene.provision(model, "more")


def test_throughput_is_not_sold_for_legacy_models(scene: Scene, model: str) -> None:
    scene.bedrock.lifecycle(BASE, legacy=scene.bedrock.clock.now() - DAY, end=scene.bedrock.clock.now() + DAY)
    with invalid("LEGACY"):
        scene.provision(model)


@pytest.mark.parametrize("units", [0, -1])
def test_throughput_needs_a_model_unit(scene: Scene, model: str, units: int) -> None:
    control = scene.bedrock.client("bedrock")
    control.meta.config.parameter_validation = False
    with pytest.raises(Exception, match="modelUnits"):
        control.create_provisioned_model_throughput(provisionedModelName="u", modelId=model, modelUnits=units)


def test_endpoints_fail_with_an_injected_failure(scene: Scene, model: str) -> None:
    scene.bedrock.fault("deployment_failed", message="no capacity")
    scene.bedrock.fault("throughput_failed", message="no units left")
    arn, units = scene.deploy(model), scene.provision(model)
    assert (deployment(scene)["status"], deployment(scene)["failureMessage"]) == ("Failed", "no capacity")
    assert (throughput(scene)["status"], throughput(scene)["failureMessage"]) == ("Failed", "no units left")
    for endpoint in (arn, units):
        with invalid("failed"):
            scene.ask(endpoint, PROMPT)
    scene.control.delete_custom_model_deployment(customModelDeploymentIdentifier=arn)
    scene.control.delete_provisioned_model_throughput(provisionedModelId=units)
    assert deployment(scene, scene.deploy(model, "again"))["status"] == "Active"
