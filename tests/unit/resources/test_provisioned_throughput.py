"""ProvisionedThroughput: bought once after the gate, moved in place, never left behind by the hour."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from provisioned_throughput import handler
from shared.custom_resource import Event, begun, polled
from shared.naming import DIGEST_TAG, OWNER_TAG, bedrock_tags
from shared.releases import LIVE, SUPERSEDED, Releases
from shared.routes import Share
from shared.stages import StageResult
from tests.unit.resources import framework
from tests.unit.resources.framework import Framework
from tests.unit.resources.scenes import (
    DAY,
    DIGEST,
    HOUR,
    NEXT,
    OWNER,
    STUDENT,
    Meddled,
    World,
    refusal,
    times,
)

BUY, MOVE = "CreateProvisionedModelThroughput", "UpdateProvisionedModelThroughput"
DELETE = "DeleteProvisionedModelThroughput"
PROPERTIES = {"ProvisionedModelName": OWNER, "Owner": OWNER, "RetainModels": "true"}
SETTINGS = {
    "NAME": OWNER,
    "THROUGHPUT_NAME": OWNER,
    "MODEL_UNITS": "1",
    "COMMITMENT_DURATION": "",
    "POLL_SECONDS": "300",
    "TAGS": json.dumps({"team": "search"}),
}


class Buyer:
    """The release's step and the stack's resource, over one account and one table."""

    def __init__(self, world: World, releases: Releases) -> None:
        self.world, self.releases = world, releases

    def begin(self, digest: str = DIGEST, attempt: int = 1) -> str:
        """A release that serves from its on-demand deployment; returns its model's ARN."""
        known = self.releases.get(digest)
        model = known.model_arn if known else self.world.model(digest)
        self.releases.begin(digest, attempt=attempt, execution=f"e{attempt}", request_id=f"r{attempt}")
        self.releases.update(digest, model_arn=model, endpoint="arn:candidate", state=LIVE)
        self.route("arn:candidate", digest=digest)
        return model

    def step(self, digest: str = DIGEST, bedrock: Any = None, **settings: str) -> StageResult:
        """One call of the release's step."""
        client = bedrock or self.world.bedrock
        return handler.serve(digest, client, self.releases, {**SETTINGS, **settings}, now=self.world.utc_now)

    def serve(self, digest: str = DIGEST, **settings: str) -> StageResult:
        """The step, asked until it no longer waits."""
        for _ in range(60):
            result = self.step(digest, **settings)
            if result["outcome"] != "waiting":
                return result
            self.world.server.advance(result["seconds"])
        raise AssertionError(f"still waiting: {result['message']}")

    def route(self, endpoint: str, expires_at: int | None = None, digest: str = DIGEST) -> None:
        """Send requests to an endpoint."""
        share = Share(digest, endpoint, 1.0, expires_at)
        self.releases.set_route((share,), after=self.releases.route(), reason="test")

    def end_route(self) -> None:
        """What the release's Delete does before the throughput's."""
        self.releases.set_route((), after=self.releases.route(), reason="the stack is being deleted")

    def resource(self, bedrock: Any = None) -> Framework:
        """The custom resource behind its framework."""
        client, now = bedrock or self.world.bedrock, self.world.utc_now
        return Framework(
            lambda e: begun(partial(handler.handle, Event.parse(e), client, self.releases, now)),
            lambda e: polled(partial(handler.check, Event.parse(e), client, now)),
            tick=lambda: self.world.server.advance(60),
        )

    @property
    def bought(self) -> list[dict[str, Any]]:
        """What is paid by the hour."""
        found: list[dict[str, Any]] = self.world.server.state()["throughput"]
        return found


@pytest.fixture
def buyer(world: World, releases: Releases) -> Buyer:
    return Buyer(world, releases)


def test_the_deployment_buys_nothing_and_owns_the_name(buyer: Buyer) -> None:
    created = buyer.resource().send(framework.create(PROPERTIES))
    updated = buyer.resource().send(framework.update(OWNER, PROPERTIES, PROPERTIES))

    for response in (created, updated):
        assert (response.succeeded, response.physical_id) == (True, OWNER)
        assert response.data == {"ProvisionedModelName": OWNER}
    assert buyer.world.server.calls() == []


def test_t20_b20_without_a_commitment_it_is_billed_by_the_hour(buyer: Buyer) -> None:
    model = buyer.begin()

    assert buyer.serve()["outcome"] == "done"

    (call,) = buyer.world.server.calls(BUY)
    tags = {"team": "search", OWNER_TAG: OWNER, DIGEST_TAG: DIGEST}
    assert call["parameters"] == {
        "provisionedModelName": OWNER,
        "modelId": model,
        "modelUnits": 1,
        "tags": bedrock_tags(tags),
        "clientRequestToken": call["parameters"]["clientRequestToken"],
    }
    release = buyer.releases.get(DIGEST)
    assert release is not None
    assert release.endpoint == buyer.bought[0]["arn"]
    assert [share.endpoint for share in buyer.releases.route().shares] == [buyer.bought[0]["arn"]]


def test_requests_stay_on_demand_until_the_throughput_is_in_service(buyer: Buyer) -> None:
    buyer.begin()
    buyer.step()

    assert [share.endpoint for share in buyer.releases.route().shares] == ["arn:candidate"]


def test_a_rising_successor_keeps_its_share(buyer: Buyer) -> None:
    buyer.begin()
    rising = Share(NEXT, "arn:next", 0.25, 2_000_000_000)
    route = buyer.releases.route()
    buyer.releases.set_route((rising, *route.shares), after=route, reason="test")

    assert buyer.serve()["outcome"] == "done"

    shares = buyer.releases.route().shares
    assert shares[0] == rising
    assert (shares[1].release, shares[1].endpoint) == (DIGEST, buyer.bought[0]["arn"])


def test_t20_a_commitment_is_passed_on(buyer: Buyer) -> None:
    buyer.begin()
    assert buyer.step(COMMITMENT_DURATION="OneMonth", MODEL_UNITS="2")["outcome"] == "waiting"

    parameters = buyer.world.server.calls(BUY)[0]["parameters"]
    assert (parameters["commitmentDuration"], parameters["modelUnits"]) == ("OneMonth", 2)


def test_t21_throughput_deleted_by_hand_is_no_problem_for_delete(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve()
    buyer.world.bedrock.delete_provisioned_model_throughput(provisionedModelId=OWNER)

    assert buyer.resource().send(framework.delete(OWNER, PROPERTIES)).succeeded


def test_b21_the_step_asked_twice_buys_once(buyer: Buyer) -> None:
    buyer.begin()
    buyer.step()
    buyer.step()

    assert len(buyer.world.server.calls(BUY)) == 1


@pytest.mark.parametrize("how", ["dropped", "error"])
def test_b21_a_lost_answer_buys_once(buyer: Buyer, how: str) -> None:
    buyer.begin()
    buyer.world.server.fault("lost_response", operation=BUY, answer=how)

    assert buyer.serve()["outcome"] == "done"
    assert len(buyer.bought) == 1


def test_b21_a_lost_answer_and_a_blind_look_buy_once(buyer: Buyer) -> None:
    buyer.begin()
    buyer.world.server.fault("lost_response", operation=BUY)
    missing = times(2, refusal("ResourceNotFoundException", status=404))
    late = Meddled(buyer.world.bedrock, before={"get_provisioned_model_throughput": missing})

    assert buyer.step(bedrock=late)["outcome"] == "waiting"
    assert buyer.serve()["outcome"] == "done"
    assert len(buyer.bought) == 1


def test_b21_throttling_is_waited_for(buyer: Buyer) -> None:
    buyer.begin()
    buyer.world.server.fault("throttled", operation=BUY, count=3)

    assert buyer.serve()["outcome"] == "done"


def test_b21_failed_throughput_is_told_and_deleted(buyer: Buyer) -> None:
    buyer.begin()
    buyer.world.server.fault("throughput_failed", message="No capacity.")

    result = buyer.serve()

    assert result["outcome"] == "failed"
    assert "No capacity." in result["message"]
    assert buyer.bought == []
    # The next attempt buys anew, under another token.
    buyer.begin(attempt=2)
    assert buyer.serve()["outcome"] == "done"


def test_b16_an_empty_quota_names_both_quotas(buyer: Buyer) -> None:
    buyer.begin()

    result = buyer.step(MODEL_UNITS="9")

    assert result["outcome"] == "failed"
    for text in ("no commitment model units reserved", STUDENT, "L-BE77399C", "on_demand"):
        assert text in result["message"]


def test_b26_throughput_of_a_legacy_model_is_refused(buyer: Buyer) -> None:
    buyer.begin()
    now = buyer.world.server.clock.now()
    buyer.world.server.lifecycle("amazon.nova-micro-v1:0", legacy=now - DAY, end=now + 100 * DAY)

    result = buyer.step()

    assert result["outcome"] == "failed"
    assert "LEGACY" in result["message"]
    assert buyer.bought == []


def test_somebody_elses_throughput_is_left_alone(buyer: Buyer) -> None:
    model = buyer.begin()
    buyer.world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=OWNER, modelId=model, modelUnits=1
    )

    result = buyer.step()
    response = buyer.resource().send(framework.delete(OWNER, PROPERTIES))

    assert result["outcome"] == "failed"
    assert "not this stack's" in result["message"]
    assert response.succeeded
    assert len(buyer.bought) == 1


@pytest.mark.parametrize("how", ["superseded", "replaced", "emptied"])
def test_a_release_that_does_not_serve_any_more_buys_nothing(buyer: Buyer, how: str) -> None:
    buyer.begin()
    match how:
        case "superseded":
            buyer.releases.update(DIGEST, state=SUPERSEDED)
        case "replaced":
            buyer.route("arn:next", digest=NEXT)
        case "emptied":
            buyer.end_route()

    assert buyer.step()["outcome"] == "failed"
    assert buyer.step("f" * 12)["outcome"] == "failed"
    assert buyer.world.server.calls(BUY) == []


def test_b23_another_model_moves_in_under_the_same_arn(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve()
    arn = buyer.bought[0]["arn"]
    model = buyer.begin(NEXT)

    first = buyer.step(NEXT)
    assert (first["outcome"], "Updating" in first["message"]) == ("waiting", True)
    assert buyer.serve(NEXT)["outcome"] == "done"

    assert [(found["arn"], found["model"]) for found in buyer.bought] == [(arn, model)]
    assert len(buyer.world.server.calls(MOVE)) == 1


def test_b23_a_move_that_fails_ends_the_release(buyer: Buyer) -> None:
    old = buyer.begin()
    buyer.serve()
    buyer.begin(NEXT)
    buyer.world.server.fault("throughput_update_failed", count=None)

    result = buyer.serve(NEXT)

    assert result["outcome"] == "failed"
    assert "did not move" in result["message"]
    assert len(buyer.world.server.calls(MOVE)) == 1
    assert buyer.bought[0]["model"] == old


def test_b23_another_attempt_moves_it_again(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve()
    model = buyer.begin(NEXT)
    buyer.world.server.fault("throughput_update_failed")
    assert buyer.serve(NEXT)["outcome"] == "failed"

    buyer.begin(NEXT, attempt=2)

    assert buyer.serve(NEXT)["outcome"] == "done"
    assert buyer.bought[0]["model"] == model


def test_b23_a_move_asked_for_while_another_is_under_way_waits(buyer: Buyer) -> None:
    first = buyer.begin()
    buyer.serve()
    model = buyer.begin(NEXT)

    def moved_meanwhile() -> None:
        buyer.world.bedrock.update_provisioned_model_throughput(
            provisionedModelId=OWNER, desiredModelId=first
        )

    busy = Meddled(buyer.world.bedrock, before={"update_provisioned_model_throughput": moved_meanwhile})
    assert buyer.step(NEXT, bedrock=busy)["outcome"] == "waiting"
    assert buyer.serve(NEXT)["outcome"] == "done"
    assert buyer.bought[0]["model"] == model


@pytest.mark.parametrize("status", ["Creating", "Updating", "InService"])
def test_b25_delete_waits_until_it_is_gone(buyer: Buyer, status: str) -> None:
    buyer.begin()
    if status == "Creating":
        buyer.step()
    else:
        buyer.serve()
    if status == "Updating":
        buyer.begin(NEXT)
        buyer.step(NEXT)
    assert buyer.bought[0]["status"] == status
    buyer.end_route()

    assert buyer.resource().send(framework.delete(OWNER, PROPERTIES)).succeeded
    assert buyer.bought == []


@pytest.mark.parametrize("code", ["ConflictException", "ValidationException"])
def test_b25_one_that_can_not_be_deleted_while_it_is_made_is_asked_again(buyer: Buyer, code: str) -> None:
    buyer.begin()
    buyer.step()
    busy = Meddled(
        buyer.world.bedrock, before={"delete_provisioned_model_throughput": times(3, refusal(code))}
    )

    response = buyer.resource(busy).send(framework.delete(OWNER, PROPERTIES))

    assert (response.succeeded, response.polls) == (True, 3)
    assert buyer.bought == []


def test_b22_a_commitment_is_not_deleted_before_its_term(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve(COMMITMENT_DURATION="OneMonth")
    term = buyer.world.utc_now() + timedelta(days=30)
    buyer.end_route()

    response = buyer.resource().send(framework.delete(OWNER, PROPERTIES))

    assert (response.succeeded, response.polls) == (False, 0)
    assert "bills it until then" in response.reason
    assert f"{term:%Y-%m-}" in response.reason
    assert buyer.world.server.calls(DELETE) == []

    buyer.world.server.advance(31 * DAY)
    assert buyer.resource().send(framework.delete(OWNER, PROPERTIES)).succeeded
    assert buyer.bought == []


def test_b22_a_failed_purchase_has_no_term(buyer: Buyer) -> None:
    buyer.begin()
    buyer.world.server.fault("throughput_failed")
    buyer.step(COMMITMENT_DURATION="SixMonths")
    buyer.world.server.advance(HOUR)

    assert buyer.resource().send(framework.delete(OWNER, PROPERTIES)).succeeded
    assert buyer.bought == []


def test_throughput_that_serves_is_left_to_the_sweeper(buyer: Buyer) -> None:
    """The settings went back to on-demand: the release has to move first."""
    buyer.begin()
    buyer.serve()

    assert buyer.resource().send(framework.delete(OWNER, PROPERTIES)).succeeded
    assert len(buyer.bought) == 1

    # The release's Delete empties the route; then nothing holds it.
    buyer.end_route()
    assert buyer.resource().send(framework.delete(OWNER, PROPERTIES)).succeeded
    assert buyer.bought == []


def test_a_share_that_expired_does_not_hold_throughput(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve()
    buyer.route(buyer.bought[0]["arn"], expires_at=int(buyer.world.server.clock.now()) - 1)

    assert buyer.resource().send(framework.delete(OWNER, PROPERTIES)).succeeded
    assert buyer.bought == []


@pytest.mark.parametrize(
    ("retain", "declared", "left"), [("true", None, 1), ("false", None, 0), ("false", DIGEST, 1)]
)
def test_b15_its_model_goes_last_unless_it_is_retained_or_declared(
    buyer: Buyer, retain: str, declared: str | None, left: int
) -> None:
    buyer.begin()
    buyer.serve()
    buyer.releases.declare(declared)
    buyer.end_route()

    properties = {**PROPERTIES, "RetainModels": retain}
    assert buyer.resource().send(framework.delete(OWNER, properties)).succeeded
    assert len(buyer.world.server.state()["models"]) == left


def test_b13_a_model_that_a_deployment_serves_is_kept(buyer: Buyer) -> None:
    model = buyer.begin()
    buyer.world.deploy(model)
    buyer.serve()

    properties = {**PROPERTIES, "RetainModels": "false"}
    assert buyer.resource().send(framework.delete(OWNER, properties)).succeeded
    assert len(buyer.world.server.state()["models"]) == 1


def test_b10_an_invented_id_is_a_success_without_effects(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve()
    before = buyer.world.written()

    response = buyer.resource().send(framework.delete("video-Throughput-1ABC", PROPERTIES))

    assert (response.succeeded, response.physical_id) == (True, "video-Throughput-1ABC")
    assert buyer.world.written() == before


def test_b10_a_second_delete_changes_nothing(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve()
    event = framework.delete(OWNER, {**PROPERTIES, "RetainModels": "false"})
    buyer.end_route()

    assert buyer.resource().send(event).succeeded
    assert buyer.resource().send(event).succeeded
    assert len(buyer.world.server.calls(DELETE)) == 1


def test_throttled_looks_do_not_end_a_delete(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve()
    buyer.end_route()
    throttled = times(2, refusal("ThrottlingException", status=429), skip=3)
    busy = Meddled(buyer.world.bedrock, before={"get_provisioned_model_throughput": throttled})

    assert buyer.resource(busy).send(framework.delete(OWNER, PROPERTIES)).succeeded
    assert buyer.bought == []


def test_the_entry_points_use_the_functions_own_clients(
    buyer: Buyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer.begin()
    monkeypatch.setattr(handler, "client", {"bedrock": buyer.world.bedrock}.__getitem__)
    monkeypatch.setattr(handler, "_releases", lambda: buyer.releases)
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    entry: Callable[..., Any]
    buyer.world.server.fault("throttled", operation="GetProvisionedModelThroughput")

    assert handler.stage({"release": DIGEST}, None)["outcome"] == "waiting"
    assert buyer.bought == []
    assert handler.stage({"release": DIGEST}, None)["outcome"] == "waiting"
    assert len(buyer.bought) == 1
    event = framework.delete(OWNER, PROPERTIES)
    for entry in (handler.on_event, handler.is_complete):
        event = {**event, **entry(event, None)}
    assert event["IsComplete"] is True
    assert buyer.bought == []
