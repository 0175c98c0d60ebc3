"""Look-ups through CloudFormation: existing resources are read by ARN, never created, moved or deleted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.engine.apps import JOB, MODEL, STACK, THROUGHPUT, App, changed, logical_id
from tests.engine.engine import Engine, until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-existing")]

BASE = "amazon.nova-micro-v1:0"


@pytest.fixture
def template(team: Engine, app: App, models: list[str]) -> dict[str, Any]:
    """Return the stack that reads a job, its model and its throughput."""
    made = team.aws("bedrock").create_provisioned_model_throughput(
        provisionedModelName="search-units", modelId=models[0], modelUnits=1
    )
    until(lambda: team.held("throughput")["search-units"]["status"] == "InService")
    job = team.held("jobs")["search-a"]["arn"]
    arns = {JOB: job, MODEL: models[0], THROUGHPUT: made["provisionedModelArn"]}
    return app.template("existing", arns)


def shown(engine: Engine, prefix: str) -> Mapping[str, str]:
    """Return the outputs of one of them."""
    outputs = engine.outputs(STACK)
    return {name.removeprefix(prefix): value for name, value in outputs.items() if name.startswith(prefix)}


def test_existing_resources_are_looked_up_by_arn(team: Engine, template: dict[str, Any]) -> None:
    """Cases T3, T11, T20."""
    before = team.written(), team.bedrock("/_state")
    outcome = team.deploy(STACK, template)
    assert outcome.succeeded, outcome
    bedrock = team.aws("bedrock")
    job = bedrock.get_model_customization_job(jobIdentifier="search-a")
    model = bedrock.get_custom_model(modelIdentifier="search-a")
    throughput = bedrock.get_provisioned_model_throughput(provisionedModelId="search-units")
    assert shown(team, "Job") == {
        "Id": job["jobArn"],
        "JobArn": job["jobArn"],
        "JobName": "search-a",
        "Status": "Completed",
        "BaseModel": BASE,
        "ModelArn": job["outputModelArn"],
    }
    assert shown(team, "Model") == {
        "Id": model["modelArn"],
        "ModelArn": model["modelArn"],
        "ModelName": "search-a",
        "JobArn": job["jobArn"],
        "BaseModel": BASE,
        "Status": "Active",
    }
    assert shown(team, "Throughput") == {
        "Id": throughput["provisionedModelArn"],
        "ProvisionedModelArn": throughput["provisionedModelArn"],
        "ProvisionedModelName": "search-units",
        "ModelArn": model["modelArn"],
        "ModelUnits": "1",
        "Status": "InService",
    }
    assert team.delete(STACK).succeeded
    assert (team.written(), team.bedrock("/_state")) == before


def test_missing_resources_are_reported(team: Engine, template: dict[str, Any], models: list[str]) -> None:
    """Cases T4, T21."""
    outcome = team.deploy(STACK, template)
    assert outcome.succeeded, outcome
    team.aws("bedrock").delete_provisioned_model_throughput(provisionedModelId="search-units")
    team.aws("bedrock").delete_custom_model(modelIdentifier="search-a")
    before = team.written()
    # An update of another resource doesn't look them up again.
    unchanged = team.deploy(
        STACK, changed(template, "AWS::Lambda::Function", Description="Of another version")
    )
    assert unchanged.succeeded, unchanged
    # After a change of nonce, each missing resource is reported. The rollback fails as well, since the
    # resources
    # were deleted by hand, and is skipped.
    for kind, told in (("Model", "custom model"), ("Throughput", "provisioned throughput")):
        found = f"Custom::BedrockExisting{kind}"
        outcome = team.deploy(STACK, changed(template, found, Nonce="again"))
        assert outcome.status == "UPDATE_ROLLBACK_FAILED", outcome
        assert f"There is no {told} arn:aws:bedrock:" in " ".join(outcome.reasons)
        outcome = team.continue_rollback(STACK, skip=[logical_id(template, found)])
        assert outcome.status == "UPDATE_ROLLBACK_COMPLETE", outcome
    # Another model replaces the deleted one.
    other = json.loads(json.dumps(template).replace(models[0], models[1]))
    outcome = team.deploy(STACK, other)
    assert outcome.succeeded, outcome
    assert shown(team, "Model")["ModelName"] == "search-b"
    assert team.delete(STACK).succeeded
    assert team.written() == before
