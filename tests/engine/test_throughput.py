"""ProvisionedThroughput through CloudFormation, bought by the deployment for an existing model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from tests.engine.apps import HOURLY_USD, MODEL, NAME, OTHER_MODEL, STACK, App, changed, logical_id, without
from tests.engine.engine import Engine

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-throughput")]

TYPE = "Custom::BedrockProvisionedThroughput"
CREATE, UPDATE, DELETE = (f"{verb}ProvisionedModelThroughput" for verb in ("Create", "Update", "Delete"))
HOURLY, COMMITTED = f"{NAME}-1mu", f"{NAME}-1mu-1m"
# The default is thirty seconds.
WAIT_SCALE = 0.02

Templates = Mapping[str, dict[str, Any]]


@pytest.fixture
def templates(app: App, models: list[str]) -> Templates:
    """Return the variants of the throughput's stack, for two models."""
    arns = dict(zip((MODEL, OTHER_MODEL), models, strict=True))
    names = ["", "-tagged", "-moved", "-broken", "-retained", "-doubled", "-committed"]
    return {name: app.template(f"throughput{name}", arns) for name in names}


@pytest.fixture
def bought(team: Engine, templates: Templates) -> Engine:
    """Return an account whose stack has hourly throughput in service."""
    deploy(team, templates[""])
    return team


def deploy(engine: Engine, template: Mapping[str, Any]) -> None:
    """Deploy successfully."""
    outcome = engine.deploy(STACK, template)
    assert outcome.succeeded, outcome


def refused(engine: Engine, template: Mapping[str, Any], status: str) -> str:
    """Deploy, expect a rollback, and return why the throughput failed first."""
    outcome = engine.deploy(STACK, template)
    assert outcome.status == status, outcome
    return [text for text in outcome.reasons if text.startswith("Throughput")][-1]


def written(engine: Engine, since: int = 0) -> list[str]:
    """Return the throughput operations that changed something other than tags."""
    return [name for name in engine.written()[since:] if name in (CREATE, UPDATE, DELETE)]


def held(engine: Engine) -> dict[str, tuple[str, str]]:
    """Return model and status of each throughput by name."""
    return {name: (item["model"], item["status"]) for name, item in engine.held("throughput").items()}


def hurried(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a template whose waiter polls once and then gives up."""
    # Its polls are retries after any error; the retries of a call that fails are others.
    polls = r'(States\.ALL[^\[\]]*\][^\[\]]*MaxAttempts\\":)\d+'
    text, waiters = re.subn(polls, r"\g<1>0", json.dumps(template))
    assert waiters == 1
    made: dict[str, Any] = json.loads(text)
    return made


def term(engine: Engine, name: str) -> datetime:
    """Return until when throughput is committed."""
    shown = engine.aws("bedrock").get_provisioned_model_throughput(provisionedModelId=name)
    found: datetime = shown["commitmentExpirationTime"]
    return found


def test_the_life_cycle_of_hourly_throughput(team: Engine, templates: Templates, models: list[str]) -> None:
    """Cases B1, T20, B20, T22, B23, T21."""
    first, second = models
    team.deliver(2)
    # T20, B20, B1
    deploy(team, templates[""])
    (request,) = {json.dumps(call["parameters"]) for call in team.calls(CREATE)}
    asked = json.loads(request)
    assert {name: asked[name] for name in ("provisionedModelName", "modelId", "modelUnits")} == {
        "provisionedModelName": HOURLY,
        "modelId": first,
        "modelUnits": 1,
    }
    assert "commitmentDuration" not in asked
    assert held(team) == {HOURLY: (first, "InService")}
    arn = team.held("throughput")[HOURLY]["arn"]
    in_place = {"Id": HOURLY, "ProvisionedModelArn": arn}
    assert team.outputs(STACK) == {**in_place, "ProvisionedModelName": HOURLY}
    # T22
    team.settle()
    deploy(team, templates["-tagged"])
    assert team.held("throughput")[HOURLY]["tags"]["team"] == "search"
    team.settle()
    deploy(team, templates[""])
    assert "team" not in team.held("throughput")[HOURLY]["tags"]
    assert not [name for name in written(team) if name != CREATE]
    # B23: change model and name at once; ARN and physical id stay.
    team.settle()
    deploy(team, templates["-moved"])
    assert held(team) == {"search-ranker-1mu": (second, "InService")}
    assert team.held("throughput")["search-ranker-1mu"]["arn"] == arn
    assert team.outputs(STACK) == {**in_place, "ProvisionedModelName": "search-ranker-1mu"}
    assert [name for name in written(team) if name != CREATE] == [UPDATE]
    # B23: a move that fails is rolled back.
    team.settle()
    team.bedrock("/_faults", {"kind": "throughput_update_failed"})
    assert second in refused(team, templates[""], "UPDATE_ROLLBACK_COMPLETE")
    assert held(team) == {"search-ranker-1mu": (second, "InService")}
    assert team.held("throughput")["search-ranker-1mu"]["arn"] == arn
    # T21: an update reports that the throughput is missing, and buys no other. The rollback fails as well,
    # since
    # the throughput was deleted by hand, and is skipped.
    team.settle()
    team.aws("bedrock").delete_provisioned_model_throughput(provisionedModelId=arn)
    reason = refused(team, changed(templates["-moved"], TYPE, HourlyPriceUsd=1), "UPDATE_ROLLBACK_FAILED")
    assert "deleted outside of its stack" in reason
    assert held(team) == {}
    resource = logical_id(templates[""], TYPE)
    assert team.continue_rollback(STACK, skip=[resource]).status == "UPDATE_ROLLBACK_COMPLETE"
    # T21: its Delete succeeds, and throughput can be bought again.
    deploy(team, without(templates[""], TYPE))
    assert written(team).count(DELETE) == 1  # by hand
    deploy(team, templates[""])
    assert held(team) == {HOURLY: (first, "InService")}
    assert team.held("throughput")[HOURLY]["arn"] != arn


def test_a_commitment_replaces_hourly_throughput_and_is_not_given_up(
    bought: Engine, templates: Templates, models: list[str]
) -> None:
    """Cases B24, B22."""
    model = models[0]
    # B24: the account's two model units suffice for one of each, but not for two beside the old one.
    reason = refused(bought, templates["-doubled"], "UPDATE_ROLLBACK_COMPLETE")
    assert "L-BE77399C" in reason
    assert held(bought) == {HOURLY: (model, "InService")}
    # B24: the new one serves before the old one goes.
    deploy(bought, templates["-committed"])
    assert bought.outputs(STACK)["Id"] == COMMITTED
    assert written(bought) == [CREATE, CREATE, DELETE]
    assert held(bought) == {COMMITTED: (model, "InService")}
    # B24: a change back would be paid in addition to the commitment.
    until = f"{term(bought, COMMITTED):%Y-%m-%d %H:%M} UTC"
    calls = len(bought.written())
    reason = refused(bought, templates[""], "UPDATE_ROLLBACK_COMPLETE")
    assert "was not bought" in reason
    assert until in reason
    assert written(bought, calls) == []
    # B22
    outcome = bought.delete(STACK)
    assert outcome.status == "DELETE_FAILED"
    (reason,) = [text for text in outcome.reasons if text.startswith("Throughput")]
    assert until in reason
    assert f"{720 * HOURLY_USD:,.0f} USD" in reason
    assert "--retain-resources" in reason
    # Only the throughput is left of the stack: when it is retained, it stays.
    assert bought.delete(STACK, retain=[logical_id(templates[""], TYPE)]).succeeded
    assert bought.status(STACK) is None
    assert held(bought) == {COMMITTED: (model, "InService")}


@pytest.mark.parametrize("committed", [False, True])
def test_retained_throughput_outlives_its_stack(
    team: Engine, templates: Templates, models: list[str], committed: bool
) -> None:
    """Cases B15, B22."""
    deploy(team, changed(templates["-committed"], TYPE, Retain=True) if committed else templates["-retained"])
    assert team.delete(STACK).succeeded
    assert held(team) == {COMMITTED if committed else HOURLY: (models[0], "InService")}


def test_throughput_that_fails_is_reported_and_deleted(team: Engine, templates: Templates) -> None:
    """Case B21."""
    team.bedrock("/_faults", {"kind": "throughput_failed", "message": "No capacity in this Region."})
    reason = refused(team, templates[""], "ROLLBACK_COMPLETE")
    assert "No capacity in this Region." in reason
    assert held(team) == {}
    assert written(team) == [CREATE, DELETE]


def test_throughput_that_comes_too_late_is_deleted(team: Engine, templates: Templates) -> None:
    """Cases C6, B21."""
    team.bedrock("/_faults", {"kind": "throughput_stalled"})
    reason = refused(team, hurried(templates[""]), "ROLLBACK_COMPLETE")
    assert "Operation timed out" in reason
    assert held(team) == {}
    assert written(team) == [CREATE, DELETE]


def test_a_rollback_waits_until_the_throughput_is_deleted(team: Engine, templates: Templates) -> None:
    """Cases B11, B25."""
    team.bedrock("/_faults", {"kind": "conflict", "operation": DELETE, "count": 2})
    outcome = team.deploy(STACK, templates["-broken"])
    assert outcome.status == "ROLLBACK_COMPLETE", outcome
    assert held(team) == {}
    asked = [call["outcome"] for call in team.bedrock(f"/_calls?operation={DELETE}")]
    assert asked == ["ConflictException", "ConflictException", "ok"]
