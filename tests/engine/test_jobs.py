"""DistillationJob through CloudFormation: create, update, replacement, rollback, delete.

Where a job must run during a test, a stall is ordered from the stand-in: the job then runs until it is
stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from distilled_router.bedrock.naming import OWNER_TAG
from tests.engine.apps import (
    BUCKET,
    KEY,
    NETWORK,
    OWNER,
    ROWS,
    STACK,
    STUDENT,
    TEACHER,
    App,
    changed,
    logical_id,
)
from tests.engine.engine import Engine, until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-jobs")]

TYPE = "Custom::BedrockDistillationJob"
CREATE, STOP = "CreateModelCustomizationJob", "StopModelCustomizationJob"
# CloudFormation accepts at most 4,096 bytes of response (custom resource response objects).
RESPONSE_BYTES = 4096


@pytest.fixture
def stalled(team: Engine) -> Engine:
    """Return the same account, with every job stalled."""
    team.bedrock("/_faults", {"kind": "job_stalled", "count": None})
    return team


def deploy(engine: Engine, template: Mapping[str, Any]) -> str:
    """Deploy successfully and return the job's name."""
    outcome = engine.deploy(STACK, template)
    assert outcome.succeeded, outcome
    return engine.outputs(STACK)["Id"]


def refused(engine: Engine, template: Mapping[str, Any], status: str) -> str:
    """Deploy, expect a rollback, and return why the job's resource failed."""
    outcome = engine.deploy(STACK, template)
    assert outcome.status == status, outcome
    (reason,) = [text for text in outcome.reasons if text.startswith("Job")]
    assert len(reason.encode()) < RESPONSE_BYTES
    return reason


def names_made(engine: Engine) -> list[str]:
    """Return the names of all jobs ever created, in order; Bedrock keeps them."""
    return [*engine.held("jobs")]


def statuses(engine: Engine) -> dict[str, str]:
    """Return each job's status by name."""
    return {name: job["status"] for name, job in engine.held("jobs").items()}


def sent(engine: Engine, template: Mapping[str, Any], physical_id: str) -> tuple[str, str]:
    """Send a Delete with this physical id; return the response's status and id."""
    resource = template["Resources"][logical_id(template, TYPE)]["Properties"]
    function = engine.resources(STACK)[resource["ServiceToken"]["Fn::GetAtt"][0]]
    event = {
        "RequestType": "Delete",
        "StackId": STACK,
        "LogicalResourceId": "Job",
        "ResourceType": TYPE,
        "PhysicalResourceId": physical_id,
        "ResourceProperties": resource,
    }
    answer = engine.send(function, event)
    return answer["Status"], answer["PhysicalResourceId"]


def test_a_job_is_made_once_and_stopped_with_its_stack(stalled: Engine, app: App) -> None:
    """Cases T1, T12, B10, B8, T10."""
    template = app.template("job")
    # T1: one call with the declared parameters; the deployment doesn't wait for the job's end.
    name = deploy(stalled, template)
    (made,) = stalled.calls(CREATE)
    request = made["parameters"]
    assert stalled.written() == [CREATE]
    assert request["jobName"] == request["customModelName"] == name
    assert request["baseModelIdentifier"] == STUDENT
    assert request["customizationType"] == "DISTILLATION"
    assert request["trainingDataConfig"] == {"s3Uri": f"s3://{BUCKET}/{ROWS}"}
    assert request["outputDataConfig"] == {"s3Uri": f"s3://{BUCKET}/jobs/{name}/"}
    assert request["customizationConfig"] == {
        "distillationConfig": {"teacherModelConfig": {"teacherModelIdentifier": TEACHER}}
    }
    assert not request.keys() & {
        "hyperParameters",
        "validationDataConfig",
        "vpcConfig",
        "customModelKmsKeyId",
    }
    assert stalled.outputs(STACK) == {
        "Id": name,
        "JobArn": stalled.held("jobs")[name]["arn"],
        "JobName": name,
        "Status": "InProgress",
        "BaseModel": "amazon.nova-micro-v1:0",
        "ModelArn": "",
    }
    # T12: the same event again, a new version of the function, and a property that is not part of the digest.
    calls = len(stalled.bedrock("/_calls"))
    assert deploy(stalled, template) == name
    newer = changed(template, "AWS::Lambda::Function", Description="Of the next version")
    assert deploy(stalled, newer) == name
    assert len(stalled.bedrock("/_calls")) == calls
    assert deploy(stalled, changed(template, TYPE, AllowLegacy=True)) == name
    # B10: an id that CloudFormation generated for a Create without a response.
    assert sent(stalled, template, "invented") == ("SUCCESS", "invented")
    assert stalled.written() == [CREATE]
    assert statuses(stalled) == {name: "InProgress"}
    # B8, T10: the stack is deleted once the job has stopped; a second Delete changes nothing.
    assert stalled.delete(STACK).succeeded
    assert stalled.written() == [CREATE, STOP]
    assert statuses(stalled) == {name: "Stopped"}
    assert stalled.delete(STACK).succeeded
    assert stalled.written() == [CREATE, STOP]


def test_what_a_platform_asks_for_later_is_paid_no_second_time(stalled: Engine, app: App) -> None:
    """Network, key and boundary are added and removed in place; the running job is kept."""
    name = deploy(stalled, app.template("job"))
    for variant in ("job-hosted", "job"):
        assert deploy(stalled, app.template(variant)) == name
    assert stalled.written() == [CREATE]
    assert statuses(stalled) == {name: "InProgress"}
    assert stalled.delete(STACK).succeeded


@pytest.mark.parametrize(
    ("variants", "are_left"),
    [(("job-leaving", "job"), False), (("job",), True)],
    ids=["two steps", "one step"],
)
def test_network_interfaces_are_deleted_if_functions_leave_in_two_steps(
    stalled: Engine, app: App, variants: tuple[str, ...], are_left: bool
) -> None:
    """In one step, the roles lose the permission to delete them first (aws-cdk #34400)."""
    name = deploy(stalled, app.template("job-hosted"))
    held = stalled.interfaces()["held"]
    assert len(held) == len(functions(stalled))
    for variant in variants:
        assert deploy(stalled, app.template(variant)) == name
        until(lambda: not stalled.interfaces()["leaving"])
    assert stalled.interfaces() == {"held": [], "leaving": [], "left": held if are_left else []}
    assert stalled.delete(STACK).succeeded


def functions(engine: Engine) -> list[str]:
    found = engine.aws("lambda").list_functions()["Functions"]
    return [function["FunctionName"] for function in found]


def test_a_job_that_is_made_in_a_network_is_told_so(stalled: Engine, app: App) -> None:
    deploy(stalled, app.template("job-hosted"))
    (made,) = stalled.calls(CREATE)
    assert made["parameters"]["vpcConfig"] == {
        "subnetIds": list(NETWORK.subnet_ids),
        "securityGroupIds": list(NETWORK.security_group_ids),
    }
    assert stalled.delete(STACK).succeeded


def test_events_that_come_twice_make_one_job_whose_tags_follow(team: Engine, app: App) -> None:
    """Cases B1, T5, T8, B15."""
    team.deliver(2)
    # B1
    name = deploy(team, app.template("kept-job"))
    assert names_made(team) == [name]
    assert len({call["parameters"]["clientRequestToken"] for call in team.calls(CREATE)}) == 1
    until(lambda: name in team.held("models"))
    # T5: change a tag and add one, then remove one; T8: the job's results so far.
    for variant, tags in (
        ("kept-job-tagged", {"team": "ads", "stage": "dev"}),
        ("kept-job-untagged", {"stage": "dev"}),
    ):
        team.settle()
        assert deploy(team, app.template(variant)) == name
        for kind in ("jobs", "models"):
            found = team.held(kind)[name]["tags"]
            assert found.pop(OWNER_TAG) == OWNER
            assert {key: found.get(key) for key in ("team", "stage") if key in found} == tags, kind
    outputs = team.outputs(STACK)
    assert (outputs["Status"], outputs["ModelArn"]) == ("Completed", team.held("models")[name]["arn"])
    # B15: model and metrics are kept by default.
    assert team.delete(STACK).succeeded
    assert names_made(team) == [name]
    assert [*team.held("models")] == [name]
    written = team.aws("s3").list_objects_v2(Bucket=BUCKET, Prefix=f"jobs/{name}/")["Contents"]
    assert any(found["Key"].endswith("step_wise_training_metrics.csv") for found in written)


def test_a_replaced_model_goes_once_its_successor_is_there(team: Engine, app: App) -> None:
    """Cases T10, B14."""
    first = deploy(team, app.template("job"))
    until(lambda: first in team.held("models"))
    second = deploy(team, app.template("job-again"))
    assert team.written() == [CREATE, CREATE, "DeleteCustomModel"]
    until(lambda: second in team.held("models"))
    assert team.delete(STACK).succeeded
    assert team.held("models") == {}
    assert names_made(team) == [first, second]


def test_a_replacement_comes_first_and_can_be_taken_back(stalled: Engine, app: App) -> None:
    """Cases B14, C4, T6."""
    first = deploy(stalled, app.template("job"))
    # Rolled back: a sibling fails after the new job was created.
    outcome = stalled.deploy(STACK, app.template("job-again-broken"))
    assert outcome.status == "UPDATE_ROLLBACK_COMPLETE", outcome
    (second,) = set(names_made(stalled)) - {first}
    assert stalled.written() == [CREATE, CREATE, STOP]
    assert statuses(stalled) == {first: "InProgress", second: "Stopped"}
    assert stalled.outputs(STACK)["Id"] == first
    # Completed: the old job's Delete (C4) comes when the new job, which has the key (T6), exists.
    third = deploy(stalled, app.template("job-keyed"))
    assert third not in (first, second)
    assert stalled.written() == [CREATE, CREATE, STOP, CREATE, STOP]
    assert statuses(stalled) == {first: "Stopped", second: "Stopped", third: "InProgress"}
    requests = {call["parameters"]["jobName"]: call["parameters"] for call in stalled.calls(CREATE)}
    assert requests[third]["customModelKmsKeyId"] == KEY
    assert stalled.delete(STACK).succeeded
    assert statuses(stalled)[third] == "Stopped"


def test_a_job_that_a_rollback_or_a_person_stopped_is_not_paid_again(stalled: Engine, app: App) -> None:
    """Cases B11, B7."""
    # B11
    outcome = stalled.deploy(STACK, app.template("job-broken"))
    assert outcome.status == "ROLLBACK_COMPLETE", outcome
    (name,) = names_made(stalled)
    assert statuses(stalled) == {name: "Stopped"}
    assert stalled.written() == [CREATE, STOP]
    # B7: a job with the same digest is adopted, and a new one is created only for a new nonce.
    assert stalled.delete(STACK).succeeded
    assert deploy(stalled, app.template("job")) == name
    assert stalled.outputs(STACK)["Status"] == "Stopped"
    again = deploy(stalled, app.template("job-again"))
    stalled.aws("bedrock").stop_model_customization_job(jobIdentifier=again)
    assert deploy(stalled, changed(app.template("job-again"), TYPE, AllowLegacy=True)) == again
    assert names_made(stalled) == [name, again]


def test_a_create_that_fails_after_bedrock_took_the_job_stops_it(stalled: Engine, app: App) -> None:
    """Cases B12, C2."""
    # The read that follows the create call is refused.
    denied = {"kind": "denied", "operation": "GetModelCustomizationJob", "skip": 1}
    stalled.bedrock("/_faults", denied)
    reason = refused(stalled, app.template("job"), "ROLLBACK_COMPLETE")
    assert "AccessDeniedException" in reason
    assert "Logs: /aws/lambda/" in reason
    assert stalled.written() == [CREATE, STOP]
    assert [*statuses(stalled).values()] == ["Stopped"]


def test_an_update_that_fails_leaves_the_old_job_and_nothing_else(stalled: Engine, app: App) -> None:
    """Cases B12, B16, B17."""
    first = deploy(stalled, app.template("job"))
    rolled_back = "UPDATE_ROLLBACK_COMPLETE"
    # B16, C9
    told = "Number of jobs in progress is at its quota of 2. " * 100
    stalled.bedrock("/_faults", {"kind": "over_quota", "operation": CREATE, "message": told})
    reason = refused(stalled, app.template("job-again"), rolled_back)
    assert "Number of jobs in progress is at its quota of 2." in reason
    assert "Service Quotas" in reason
    # B17
    stalled.bedrock("/_lifecycle", {"modelId": "amazon.nova-pro-v1:0", "endOfLifeTime": 1_767_225_600})
    reason = refused(stalled, app.template("job-again"), rolled_back)
    assert "amazon.nova-pro-v1:0" in reason
    assert "2026-01-01" in reason
    assert len(stalled.bedrock(f"/_calls?operation={CREATE}")) == 2
    stalled.bedrock("/_lifecycle", {"modelId": "amazon.nova-pro-v1:0", "endOfLifeTime": None})
    # B12
    stalled.bedrock("/_faults", {"kind": "denied", "operation": "GetModelCustomizationJob", "skip": 1})
    refused(stalled, app.template("job-again"), rolled_back)
    assert [name for name in stalled.written() if name in (CREATE, STOP)] == [CREATE, CREATE, STOP]
    assert sorted(statuses(stalled).values()) == ["InProgress", "Stopped"]
    assert statuses(stalled)[first] == "InProgress"
