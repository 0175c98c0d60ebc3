"""ProvisionedThroughput: bought once after the gate, moved in place, never left behind by the hour."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC
from typing import Any

import pytest

from distilled_router.aws.state_machine import StageResult
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, bedrock_tags, throughput_name
from distilled_router.bedrock.throughput import CREATED_AS_TAG
from distilled_router.env import ServeFromThroughputEnv
from distilled_router.release.route import Share
from distilled_router.release.table import LIVE, SUPERSEDED, Releases
from provisioned_throughput import handler
from provisioned_throughput.serve_from_throughput import serve
from tests.unit import framework, requests_table
from tests.unit.framework import Framework
from tests.unit.release_world import Proxy
from tests.unit.requests_table import behind_framework
from tests.unit.resource_scenes import (
    DAY,
    DIGEST,
    HOUR,
    NEXT,
    OWNER,
    STUDENT,
    Meddled,
    World,
    logged,
    refusal,
    spec,
    times,
)

BUY, MOVE = "CreateProvisionedModelThroughput", "UpdateProvisionedModelThroughput"
DELETE = "DeleteProvisionedModelThroughput"
NAME, COMMITTED = throughput_name(OWNER, 1, None), throughput_name(OWNER, 1, "OneMonth")
PROPERTIES = {
    "ProvisionedModelName": NAME,
    "Owner": OWNER,
    "ModelUnits": "1",
    "HourlyPriceUsd": "50.0",
    "Retain": "false",
    "RetainModels": "true",
    "Tags": {"team": "search"},
}
MONTHLY = {**PROPERTIES, "ProvisionedModelName": COMMITTED, "CommitmentDuration": "OneMonth"}
VALUES: dict[str, Any] = {
    "owner": OWNER,
    "table_name": "releases",
    "throughput_name": NAME,
    "model_units": 1,
    "commitment": "none",
    "retain_throughput": False,
    "poll_seconds": 300,
    "tags": {"team": "search"},
}
MONTH: dict[str, Any] = {"throughput_name": COMMITTED, "commitment": "OneMonth"}
TWO: dict[str, Any] = {"throughput_name": throughput_name(OWNER, 2, None), "model_units": 2}
SIX: dict[str, Any] = {"throughput_name": throughput_name(OWNER, 1, "SixMonths"), "commitment": "SixMonths"}
DOUBLED = {**PROPERTIES, "ProvisionedModelName": TWO["throughput_name"], "ModelUnits": "2"}


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

    def step(self, digest: str = DIGEST, bedrock: Any = None, **values: Any) -> StageResult:
        """One call of the release's step."""
        client = bedrock or self.world.bedrock
        env = ServeFromThroughputEnv(**{**VALUES, **values})
        return serve(digest, client, self.releases, env, now=self.world.utc_now)

    def serve(self, digest: str = DIGEST, **values: Any) -> StageResult:
        """The step, asked until it no longer waits."""
        for _ in range(60):
            result = self.step(digest, **values)
            if result["outcome"] != "waiting":
                return result
            self.world.server.advance(result["seconds"])
        raise AssertionError(f"still waiting: {result['message']}")

    def route(self, endpoint: str, expires_at: int | None = None, digest: str = DIGEST) -> None:
        """Send requests to an endpoint."""
        share = Share(digest, endpoint, 1.0, expires_at)
        self.releases.set_route((share,), after=self.releases.route(), reason="test")

    def end_route(self) -> None:
        """Empty the route, as the release's Delete does before the throughput's."""
        self.releases.set_route((), after=self.releases.route(), reason="the stack is being deleted")

    def resource(self, bedrock: Any = None) -> Framework:
        """Return the custom resource behind its framework."""
        client, now = bedrock or self.world.bedrock, self.world.utc_now
        return behind_framework(
            self.world.requests,
            lambda event: handler.handle(event, client, self.releases, now),
            lambda event: handler.check(event, client, now),
            tick=lambda: self.world.server.advance(60),
        )

    @property
    def bought(self) -> list[dict[str, Any]]:
        """Return the throughput that is billed by the hour."""
        found: list[dict[str, Any]] = self.world.server.state()["throughput"]
        return found


@pytest.fixture
def buyer(world: World, releases: Releases) -> Buyer:
    return Buyer(world, releases)


def test_the_deployment_buys_nothing_and_owns_the_name(buyer: Buyer) -> None:
    created = buyer.resource().send(framework.create(PROPERTIES))
    updated = buyer.resource().send(framework.update(NAME, PROPERTIES, PROPERTIES))

    for response in (created, updated):
        assert (response.succeeded, response.physical_id) == (True, NAME)
        assert response.data == {"ProvisionedModelName": NAME}
    assert buyer.world.written() == []


def test_without_a_commitment_it_is_billed_by_the_hour(buyer: Buyer) -> None:
    """Cases T20, B20."""
    model = buyer.begin()

    assert buyer.serve()["outcome"] == "done"

    (call,) = buyer.world.server.calls(BUY)
    tags = {"team": "search", OWNER_TAG: OWNER, DIGEST_TAG: DIGEST, CREATED_AS_TAG: NAME}
    assert call["parameters"] == {
        "provisionedModelName": NAME,
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


def test_a_candidate_in_rollout_keeps_its_share(buyer: Buyer) -> None:
    buyer.begin()
    candidate = Share(NEXT, "arn:next", 0.25, 2_000_000_000)
    route = buyer.releases.route()
    buyer.releases.set_route((candidate, *route.shares), after=route, reason="test")

    assert buyer.serve()["outcome"] == "done"

    shares = buyer.releases.route().shares
    assert shares[0] == candidate
    assert (shares[1].digest, shares[1].endpoint) == (DIGEST, buyer.bought[0]["arn"])


def test_a_commitment_is_passed_on(buyer: Buyer) -> None:
    """Case T20."""
    buyer.begin()
    name = throughput_name(OWNER, 2, "OneMonth")
    assert buyer.step(**{**MONTH, "model_units": 2, "throughput_name": name})["outcome"] == "waiting"

    parameters = buyer.world.server.calls(BUY)[0]["parameters"]
    assert (parameters["commitmentDuration"], parameters["modelUnits"]) == ("OneMonth", 2)
    assert parameters["provisionedModelName"] == f"{OWNER}-2mu-1m"


def test_throughput_deleted_by_hand_is_no_problem_for_delete(buyer: Buyer) -> None:
    """Case T21."""
    buyer.begin()
    buyer.serve()
    buyer.world.bedrock.delete_provisioned_model_throughput(provisionedModelId=NAME)

    assert buyer.resource().send(framework.delete(NAME, PROPERTIES)).succeeded


def test_the_step_asked_twice_buys_once(buyer: Buyer) -> None:
    """Case B21."""
    buyer.begin()
    buyer.step()
    buyer.step()

    assert len(buyer.world.server.calls(BUY)) == 1


@pytest.mark.parametrize("how", ["dropped", "error"])
def test_a_lost_answer_buys_once(buyer: Buyer, how: str) -> None:
    """Case B21."""
    buyer.begin()
    buyer.world.server.fault("lost_response", operation=BUY, answer=how)

    assert buyer.serve()["outcome"] == "done"
    assert len(buyer.bought) == 1


def test_a_lost_answer_and_a_failed_lookup_buy_once(buyer: Buyer) -> None:
    """Case B21."""
    buyer.begin()
    buyer.world.server.fault("lost_response", operation=BUY)
    missing = times(2, refusal("ResourceNotFoundException", status=404))
    late = Meddled(buyer.world.bedrock, before={"get_provisioned_model_throughput": missing})

    assert buyer.step(bedrock=late)["outcome"] == "waiting"
    assert buyer.serve()["outcome"] == "done"
    assert len(buyer.bought) == 1


def test_throttling_is_awaited(buyer: Buyer) -> None:
    """Case B21."""
    buyer.begin()
    buyer.world.server.fault("throttled", operation=BUY, count=3)

    assert buyer.serve()["outcome"] == "done"


def test_failed_throughput_is_reported_and_deleted(buyer: Buyer) -> None:
    """Case B21."""
    buyer.begin()
    buyer.world.server.fault("throughput_failed", message="No capacity.")

    result = buyer.serve()

    assert result["outcome"] == "failed"
    assert "No capacity." in result["message"]
    assert buyer.bought == []
    # The next attempt buys anew, under another token.
    buyer.begin(attempt=2)
    assert buyer.serve()["outcome"] == "done"


def test_an_empty_quota_names_both_quotas(buyer: Buyer) -> None:
    """Case B16."""
    buyer.begin()

    result = buyer.step(model_units=9)

    assert result["outcome"] == "failed"
    for text in ("no commitment model units reserved", STUDENT, "L-BE77399C", "on_demand"):
        assert text in result["message"]


def test_throughput_of_a_legacy_model_is_refused(buyer: Buyer) -> None:
    """Case B26."""
    buyer.begin()
    now = buyer.world.server.clock.now()
    buyer.world.server.lifecycle("amazon.nova-micro-v1:0", legacy=now - DAY, end=now + 100 * DAY)

    result = buyer.step()

    assert result["outcome"] == "failed"
    assert "LEGACY" in result["message"]
    assert buyer.world.server.calls(BUY) == []


def test_throughput_is_not_moved_to_a_legacy_model(buyer: Buyer) -> None:
    """Case B26."""
    buyer.begin()
    buyer.serve()
    buyer.begin(NEXT)
    now = buyer.world.server.clock.now()
    buyer.world.server.lifecycle("amazon.nova-micro-v1:0", legacy=now - DAY, end=now + 100 * DAY)

    assert buyer.step(NEXT)["outcome"] == "failed"
    assert buyer.world.server.calls(MOVE) == []


def test_throughput_of_a_model_that_is_gone_is_refused(buyer: Buyer) -> None:
    """Case B26."""
    buyer.world.bedrock.delete_custom_model(modelIdentifier=buyer.begin())

    result = buyer.step()

    assert (result["outcome"], "does not exist" in result["message"]) == ("failed", True)
    assert buyer.world.server.calls(BUY) == []


@pytest.mark.parametrize("status", ["Creating", "Failed"])
def test_throughput_of_a_model_that_is_not_active_is_refused(buyer: Buyer, status: str) -> None:
    """Case B26."""
    buyer.begin()
    model = {"modelStatus": status, "failureMessage": "no weights", "baseModelArn": "arn"}
    bedrock = Proxy(buyer.world.bedrock, get_custom_model=lambda **_: model)

    result = buyer.step(bedrock=bedrock)

    assert result["outcome"] == "failed"
    assert f"is {status} (no weights)" in result["message"]
    assert buyer.world.server.calls(BUY) == []


def test_the_base_of_a_model_made_from_a_custom_one_is_checked(buyer: Buyer) -> None:
    """Case B26."""
    first = buyer.begin()
    bedrock = Proxy(buyer.world.bedrock, get_custom_model=lambda **_: {"baseModelArn": first})

    assert buyer.step(bedrock=bedrock)["outcome"] == "waiting"
    (look,) = buyer.world.server.calls("GetFoundationModel")
    assert look["parameters"] == {"modelIdentifier": STUDENT}


def test_another_owners_throughput_is_left_alone(buyer: Buyer) -> None:
    model = buyer.begin()
    buyer.world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=NAME, modelId=model, modelUnits=1
    )

    result = buyer.step()
    response = buyer.resource().send(framework.delete(NAME, PROPERTIES))

    assert result["outcome"] == "failed"
    assert "not belong to this stack" in result["message"]
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


def test_another_model_moves_in_under_the_same_arn(buyer: Buyer) -> None:
    """Case B23."""
    buyer.begin()
    buyer.serve()
    arn = buyer.bought[0]["arn"]
    model = buyer.begin(NEXT)

    first = buyer.step(NEXT)
    assert (first["outcome"], "Updating" in first["message"]) == ("waiting", True)
    assert buyer.serve(NEXT)["outcome"] == "done"

    assert [(found["arn"], found["model"]) for found in buyer.bought] == [(arn, model)]
    assert len(buyer.world.server.calls(MOVE)) == 1


def test_a_move_that_fails_ends_the_release(buyer: Buyer) -> None:
    """Case B23."""
    old = buyer.begin()
    buyer.serve()
    buyer.begin(NEXT)
    buyer.world.server.fault("throughput_update_failed", count=None)

    result = buyer.serve(NEXT)

    assert result["outcome"] == "failed"
    assert "did not move" in result["message"]
    assert len(buyer.world.server.calls(MOVE)) == 1
    assert buyer.bought[0]["model"] == old


def test_another_attempt_moves_it_again(buyer: Buyer) -> None:
    """Case B23."""
    buyer.begin()
    buyer.serve()
    model = buyer.begin(NEXT)
    buyer.world.server.fault("throughput_update_failed")
    assert buyer.serve(NEXT)["outcome"] == "failed"

    buyer.begin(NEXT, attempt=2)

    assert buyer.serve(NEXT)["outcome"] == "done"
    assert buyer.bought[0]["model"] == model


def test_a_move_asked_for_while_another_is_under_way_waits(buyer: Buyer) -> None:
    """Case B23."""
    first = buyer.begin()
    buyer.serve()
    model = buyer.begin(NEXT)

    def moved_meanwhile() -> None:
        buyer.world.bedrock.update_provisioned_model_throughput(provisionedModelId=NAME, desiredModelId=first)

    busy = Meddled(buyer.world.bedrock, before={"update_provisioned_model_throughput": moved_meanwhile})
    assert buyer.step(NEXT, bedrock=busy)["outcome"] == "waiting"
    assert buyer.serve(NEXT)["outcome"] == "done"
    assert buyer.bought[0]["model"] == model


@pytest.mark.parametrize("status", ["Creating", "Updating", "InService"])
def test_delete_waits_until_it_is_gone(buyer: Buyer, status: str) -> None:
    """Case B25."""
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

    assert buyer.resource().send(framework.delete(NAME, PROPERTIES)).succeeded
    assert buyer.bought == []


@pytest.mark.parametrize("code", ["ConflictException", "ValidationException"])
def test_one_that_can_not_be_deleted_while_it_is_created_is_retried(buyer: Buyer, code: str) -> None:
    """Case B25."""
    buyer.begin()
    buyer.step()
    busy = Meddled(
        buyer.world.bedrock, before={"delete_provisioned_model_throughput": times(3, refusal(code))}
    )

    response = buyer.resource(busy).send(framework.delete(NAME, PROPERTIES))

    assert (response.succeeded, response.polls) == (True, 3)
    assert buyer.bought == []


def committed(buyer: Buyer) -> None:
    """A release serves from a month's commitment, and has ended."""
    buyer.begin()
    assert buyer.serve(**MONTH)["outcome"] == "done"
    buyer.end_route()


def test_a_commitment_is_not_deleted_before_its_term(buyer: Buyer) -> None:
    """Case B22."""
    committed(buyer)
    found = buyer.world.bedrock.get_provisioned_model_throughput(provisionedModelId=COMMITTED)
    term = found["commitmentExpirationTime"].astimezone(UTC)
    hours = math.ceil((term - buyer.world.utc_now()).total_seconds() / HOUR)

    response = buyer.resource().send(framework.delete(COMMITTED, MONTHLY))

    assert (response.succeeded, response.polls) == (False, 0)
    for text in (
        f"until {term:%Y-%m-%d %H:%M} UTC",
        "bills it until then",
        f"{hours:,} hours of 1 model units are left, {hours * 50:,} USD",
        'retention.throughput = "retain"',
        "--retain-resources JobResource5F6E7A8B",
    ):
        assert text in response.reason
    assert buyer.world.server.calls(DELETE) == []

    buyer.world.server.advance(31 * DAY)
    assert buyer.resource().send(framework.delete(COMMITTED, MONTHLY)).succeeded
    assert buyer.bought == []


def test_without_a_price_the_hours_are_reported(buyer: Buyer) -> None:
    """Case B22."""
    committed(buyer)
    properties = {key: value for key, value in MONTHLY.items() if key != "HourlyPriceUsd"}

    response = buyer.resource().send(framework.delete(COMMITTED, properties))

    assert "hours of 1 model units are left. " in response.reason
    assert "USD" not in response.reason


@pytest.mark.parametrize("properties", [PROPERTIES, MONTHLY])
def test_retained_throughput_and_its_model_are_left_and_that_is_logged(
    buyer: Buyer, properties: dict[str, Any]
) -> None:
    """Cases B15, B22."""
    buyer.begin()
    buyer.serve(**({} if properties is PROPERTIES else MONTH))
    buyer.end_route()
    name = properties["ProvisionedModelName"]
    event = framework.delete(name, {**properties, "Retain": "true", "RetainModels": "false"})

    with logged(handler.logger) as lines:
        assert buyer.resource().send(event).succeeded

    assert [found["name"] for found in buyer.bought] == [name]
    assert len(buyer.world.server.state()["models"]) == 1
    assert "billed until you delete it" in lines.getvalue()
    assert buyer.bought[0]["arn"] in lines.getvalue()


def test_a_failed_purchase_has_no_term(buyer: Buyer) -> None:
    """Case B22."""
    buyer.begin()
    buyer.world.server.fault("throughput_failed")
    buyer.step(**MONTH)
    buyer.world.server.advance(HOUR)

    assert buyer.resource().send(framework.delete(COMMITTED, MONTHLY)).succeeded
    assert buyer.bought == []


def test_throughput_that_serves_is_left_to_the_sweeper(buyer: Buyer) -> None:
    """The settings went back to on-demand: the release has to move first."""
    buyer.begin()
    buyer.serve()

    assert buyer.resource().send(framework.delete(NAME, PROPERTIES)).succeeded
    assert len(buyer.bought) == 1

    # The release's Delete empties the route; then nothing holds it.
    buyer.end_route()
    assert buyer.resource().send(framework.delete(NAME, PROPERTIES)).succeeded
    assert buyer.bought == []


def test_a_share_that_expired_does_not_hold_throughput(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve()
    buyer.route(buyer.bought[0]["arn"], expires_at=int(buyer.world.server.clock.now()) - 1)

    assert buyer.resource().send(framework.delete(NAME, PROPERTIES)).succeeded
    assert buyer.bought == []


@pytest.mark.parametrize(
    ("retain", "declared", "left"), [("true", None, 1), ("false", None, 0), ("false", DIGEST, 1)]
)
def test_its_model_goes_last_unless_it_is_retained_or_declared(
    buyer: Buyer, retain: str, declared: str | None, left: int
) -> None:
    """Case B15."""
    buyer.begin()
    buyer.serve()
    buyer.releases.declare(declared)
    buyer.end_route()

    properties = {**PROPERTIES, "RetainModels": retain}
    assert buyer.resource().send(framework.delete(NAME, properties)).succeeded
    assert len(buyer.world.server.state()["models"]) == left


def test_a_model_that_a_deployment_serves_is_kept(buyer: Buyer) -> None:
    """Case B13."""
    model = buyer.begin()
    buyer.world.deploy(model)
    buyer.serve()

    properties = {**PROPERTIES, "RetainModels": "false"}
    assert buyer.resource().send(framework.delete(NAME, properties)).succeeded
    assert len(buyer.world.server.state()["models"]) == 1


def test_an_adopted_model_is_never_deleted(buyer: Buyer) -> None:
    """Its name is not one that this owner's jobs have. Case B15."""
    buyer.begin()
    found = buyer.world.bedrock.get_custom_model(modelIdentifier=f"{OWNER}-{DIGEST}")
    adopted = {**found, "modelName": "somebody-elses"}
    buyer.serve()
    buyer.end_route()
    foreign = Proxy(buyer.world.bedrock, get_custom_model=lambda **_: adopted)

    event = framework.delete(NAME, {**PROPERTIES, "RetainModels": "false"})
    assert buyer.resource(foreign).send(event).succeeded
    assert (buyer.bought, len(buyer.world.server.state()["models"])) == ([], 1)


def test_the_release_says_where_it_goes_before_anything_is_paid(buyer: Buyer) -> None:
    buyer.begin()
    seen: list[str] = []

    def look() -> None:
        release = buyer.releases.get(DIGEST)
        assert release is not None
        seen.append(release.throughput)

    watched = Meddled(buyer.world.bedrock, before={"create_provisioned_model_throughput": look})
    assert buyer.step(bedrock=watched)["outcome"] == "waiting"
    assert seen == [NAME]
    buyer.begin(attempt=2)
    look()
    assert seen == [NAME, ""]


def test_other_units_are_another_resource_and_the_old_one_goes_by_its_own_delete(buyer: Buyer) -> None:
    """Case B24."""
    buyer.begin()
    buyer.serve()

    response = buyer.resource().send(framework.update(NAME, DOUBLED, PROPERTIES))

    assert (response.succeeded, response.physical_id) == (True, f"{OWNER}-2mu")
    assert response.data == {"ProvisionedModelName": f"{OWNER}-2mu"}
    assert [found["name"] for found in buyer.bought] == [NAME]
    # It serves: its Delete leaves it to the release that moves away, and to the sweeper.
    assert buyer.resource().send(framework.delete(NAME, PROPERTIES)).succeeded
    assert [found["name"] for found in buyer.bought] == [NAME]
    buyer.end_route()
    assert buyer.resource().send(framework.delete(NAME, PROPERTIES)).succeeded
    assert buyer.bought == []


def test_other_units_reach_production_by_the_releases_last_step(buyer: Buyer) -> None:
    """The model has gone live on demand once more: nothing is routed to the old units, which make room.

    Case B24.
    """
    buyer.begin()
    buyer.serve()
    old = buyer.bought[0]["arn"]
    buyer.begin(attempt=2)

    assert buyer.serve(**TWO)["outcome"] == "done"

    (found,) = buyer.bought
    assert (found["name"], found["units"], found["arn"] != old) == (f"{OWNER}-2mu", 2, True)
    assert [share.endpoint for share in buyer.releases.route().shares] == [found["arn"]]
    release = buyer.releases.get(DIGEST)
    assert release is not None
    assert (release.throughput, release.endpoint) == (f"{OWNER}-2mu", found["arn"])


def test_units_that_something_is_routed_to_are_left(buyer: Buyer) -> None:
    """Case B24."""
    buyer.begin()
    buyer.serve()
    old = buyer.bought[0]["arn"]
    buyer.begin(NEXT)
    route = buyer.releases.route()
    canary = Share(DIGEST, old, 0.1, expires_at=1)
    buyer.releases.set_route((canary, *route.shares), after=route, reason="test")

    # Both do not fit into the quota, and the one that may be asked stays.
    assert buyer.step(NEXT, **TWO)["outcome"] == "failed"
    assert [found["arn"] for found in buyer.bought] == [old]


def test_old_units_that_are_being_moved_are_awaited(buyer: Buyer) -> None:
    """Case B24."""
    buyer.begin()
    buyer.serve()
    model = buyer.begin(NEXT)
    buyer.world.bedrock.update_provisioned_model_throughput(provisionedModelId=NAME, desiredModelId=model)

    first = buyer.step(NEXT, **TWO)

    assert (first["outcome"], "is being deleted" in first["message"]) == ("waiting", True)
    assert len(buyer.world.server.calls(BUY)) == 1
    assert buyer.serve(NEXT, **TWO)["outcome"] == "done"
    assert [found["units"] for found in buyer.bought] == [2]


def of_another_student(buyer: Buyer) -> str:
    """A release whose model has another base; its model's ARN."""
    job = spec(NEXT, BaseModelIdentifier="amazon.nova-lite-v1:0:300k")
    buyer.world.bedrock.create_model_customization_job(**job.request())
    buyer.world.server.advance(3 * HOUR)
    model = str(buyer.world.job(job.job_name)["model"])
    buyer.releases.begin(NEXT, attempt=1, execution="e", request_id="r")
    buyer.releases.update(NEXT, model_arn=model, state=LIVE)
    buyer.route("arn:candidate", digest=NEXT)
    return model


def test_throughput_of_another_student_is_bought_in_place_of_the_old_ones(buyer: Buyer) -> None:
    """Bedrock moves throughput only to models of its own base."""
    buyer.begin()
    buyer.serve()
    old = buyer.bought[0]["arn"]
    model = of_another_student(buyer)

    assert buyer.serve(NEXT)["outcome"] == "done"
    (found,) = buyer.bought
    assert (found["model"], found["name"], found["arn"] != old) == (model, NAME, True)
    assert len(buyer.world.server.calls(MOVE)) == 0


def test_a_commitment_for_another_student_ends_the_last_step(buyer: Buyer) -> None:
    """Case B22."""
    buyer.begin()
    buyer.serve(**MONTH)
    of_another_student(buyer)

    result = buyer.step(NEXT, **MONTH)

    assert (result["outcome"], "must have the base model" in result["message"]) == ("failed", True)
    assert [found["name"] for found in buyer.bought] == [COMMITTED]


@pytest.mark.parametrize("how", ["retained", "committed", "somebody else's"])
def test_old_units_that_can_not_go_stay(buyer: Buyer, how: str) -> None:
    """Case B24."""
    buyer.begin()
    buyer.serve(**(MONTH if how == "committed" else {}))
    old = buyer.bought[0]["arn"]
    if how == "somebody else's":
        buyer.world.bedrock.untag_resource(resourceARN=old, tagKeys=[OWNER_TAG])
    buyer.begin(attempt=2)
    retained: dict[str, Any] = {"retain_throughput": True} if how == "retained" else {}

    assert buyer.step(**SIX, **retained)["outcome"] == "waiting"
    assert buyer.world.server.calls(DELETE) == []
    assert sorted(found["name"] for found in buyer.bought) == sorted(
        [COMMITTED if how == "committed" else NAME, SIX["throughput_name"]]
    )


def test_units_or_commitment_are_not_changed_beside_a_commitment_that_runs(buyer: Buyer) -> None:
    """Case B24."""
    buyer.begin()
    buyer.serve(**MONTH)

    response = buyer.resource().send(framework.update(COMMITTED, DOUBLED, MONTHLY))

    assert (response.succeeded, response.physical_id, response.polls) == (False, COMMITTED, 0)
    for text in (f"{OWNER}-2mu was not bought", "committed until", "hours of 1 model units are left", "USD"):
        assert text in response.reason
    # CloudFormation rolls it back.
    back = buyer.resource().send(framework.update(COMMITTED, MONTHLY, DOUBLED))
    assert (back.succeeded, back.physical_id) == (True, COMMITTED)
    assert [found["name"] for found in buyer.bought] == [COMMITTED]


@pytest.mark.parametrize("where", ["old", "new"])
def test_a_commitment_that_is_retained_may_be_replaced(buyer: Buyer, where: str) -> None:
    """Case B24."""
    buyer.begin()
    buyer.serve(**MONTH)
    old, new = MONTHLY, DOUBLED
    if where == "old":
        old = {**old, "Retain": "true"}
    else:
        new = {**new, "Retain": "true"}

    response = buyer.resource().send(framework.update(COMMITTED, new, old))

    assert (response.succeeded, response.physical_id) == (True, f"{OWNER}-2mu")


def test_a_commitment_whose_term_is_over_may_be_replaced(buyer: Buyer) -> None:
    """Case B24."""
    buyer.begin()
    buyer.serve(**MONTH)
    buyer.world.server.advance(31 * DAY)

    assert buyer.resource().send(framework.update(COMMITTED, DOUBLED, MONTHLY)).physical_id == f"{OWNER}-2mu"


def test_tags_follow_in_place(buyer: Buyer) -> None:
    """As T5 has it: one tag, then two with one of them changed, then one. Case T22."""
    buyer.begin()
    buyer.serve()
    resource, own = buyer.resource(), {OWNER_TAG: OWNER, DIGEST_TAG: DIGEST, CREATED_AS_TAG: NAME}
    old = PROPERTIES
    for tags in ({"team": "video", "cost": "7"}, {"cost": "7"}):
        new = {**PROPERTIES, "Tags": tags}
        response = resource.send(framework.update(NAME, new, old))
        assert (response.succeeded, response.physical_id) == (True, NAME)
        assert buyer.bought[0]["tags"] == {**own, **tags}
        old = new
    assert buyer.world.count(BUY) == 1
    before = buyer.world.written()
    assert resource.send(framework.update(NAME, old, old)).succeeded
    assert buyer.world.written() == before


def test_a_generated_id_is_a_success_without_effects(buyer: Buyer) -> None:
    """Case B10."""
    buyer.begin()
    buyer.serve()
    before = buyer.world.written()

    response = buyer.resource().send(framework.delete("video-Throughput-1ABC", PROPERTIES))

    assert (response.succeeded, response.physical_id) == (True, "video-Throughput-1ABC")
    assert buyer.world.written() == before


def test_a_second_delete_changes_nothing(buyer: Buyer) -> None:
    """Case B10."""
    buyer.begin()
    buyer.serve()
    event = framework.delete(NAME, {**PROPERTIES, "RetainModels": "false"})
    buyer.end_route()

    assert buyer.resource().send(event).succeeded
    assert buyer.resource().send(event).succeeded
    assert len(buyer.world.server.calls(DELETE)) == 1


def test_throttled_polls_do_not_end_a_delete(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve()
    buyer.end_route()
    throttled = times(2, refusal("ThrottlingException", status=429), skip=3)
    busy = Meddled(buyer.world.bedrock, before={"get_provisioned_model_throughput": throttled})

    assert buyer.resource(busy).send(framework.delete(NAME, PROPERTIES)).succeeded
    assert buyer.bought == []


def test_the_entry_points_use_the_functions_own_clients(
    buyer: Buyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer.begin()
    monkeypatch.setattr(handler, "client", {"bedrock": buyer.world.bedrock}.__getitem__)
    monkeypatch.setattr(handler, "table", lambda _: buyer.releases.table)
    requests_table.provide(monkeypatch)
    for name, value in ServeFromThroughputEnv(**VALUES).variables().items():
        monkeypatch.setenv(name, value)
    entry: Callable[..., Any]
    buyer.world.server.fault("throttled", operation="GetProvisionedModelThroughput")

    assert handler.serve_from_throughput({"release": DIGEST}, None)["outcome"] == "waiting"
    assert buyer.bought == []
    assert handler.serve_from_throughput({"release": DIGEST}, None)["outcome"] == "waiting"
    assert len(buyer.bought) == 1
    event = framework.delete(NAME, PROPERTIES)
    for entry in (handler.on_event, handler.is_complete):
        event = {**event, **entry(event, None)}
    assert event["IsComplete"] is True
    assert buyer.bought == []
