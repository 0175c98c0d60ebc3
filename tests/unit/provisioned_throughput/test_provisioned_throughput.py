"""Step ServeFromThroughput: bought once after the gate, moved in place, never left behind by the hour."""

from __future__ import annotations

from typing import Any

import pytest

from distilled_router.aws.state_machine import StageResult
from distilled_router.bedrock import ownership
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, bedrock_tags, throughput_name
from distilled_router.bedrock.ownership import Claimant
from distilled_router.bedrock.throughput import CREATED_AS_TAG
from distilled_router.env import ServeFromThroughputEnv
from distilled_router.release.route import Share
from distilled_router.release.table import LIVE, SUPERSEDED, Releases
from provisioned_throughput import handler
from provisioned_throughput.serve_from_throughput import serve
from tests.unit.framework import STACK
from tests.unit.release_world import Proxy
from tests.unit.resource_scenes import (
    DAY,
    DIGEST,
    HOUR,
    NEXT,
    OWNER,
    STUDENT,
    Meddled,
    World,
    refusal,
    spec,
    times,
)

BUY, MOVE = "CreateProvisionedModelThroughput", "UpdateProvisionedModelThroughput"
DELETE = "DeleteProvisionedModelThroughput"
NAME, COMMITTED = throughput_name(OWNER, 1, None), throughput_name(OWNER, 1, "OneMonth")
VALUES: dict[str, Any] = {
    "owner": OWNER,
    "stack_id": STACK,
    "logical_id": "ReleaseResource1A2B3C4D",
    "absence_seconds": 0,
    "table_name": "releases",
    "throughput_name": NAME,
    "model_units": 1,
    "commitment": "none",
    "retain_throughput": False,
    "poll_seconds": 300,
    "tags": {"team": "search"},
}
RELEASE = Claimant(VALUES["stack_id"], VALUES["logical_id"])
MONTH: dict[str, Any] = {"throughput_name": COMMITTED, "commitment": "OneMonth"}
TWO: dict[str, Any] = {"throughput_name": throughput_name(OWNER, 2, None), "model_units": 2}
SIX: dict[str, Any] = {"throughput_name": throughput_name(OWNER, 1, "SixMonths"), "commitment": "SixMonths"}


class Buyer:
    """The release's step, over one account and one table."""

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

    @property
    def bought(self) -> list[dict[str, Any]]:
        """Return the throughput that is billed by the hour."""
        found: list[dict[str, Any]] = self.world.server.state()["throughput"]
        return found


@pytest.fixture
def buyer(world: World, releases: Releases) -> Buyer:
    return Buyer(world, Releases(releases.table, OWNER))


def test_without_a_commitment_it_is_billed_by_the_hour(buyer: Buyer) -> None:
    """Cases T20, B20."""
    model = buyer.begin()

    assert buyer.serve()["outcome"] == "done"

    (call,) = buyer.world.server.calls(BUY)
    tags = {
        "team": "search",
        **RELEASE.tags(OWNER, request="r1", digest=DIGEST),
        CREATED_AS_TAG: NAME,
    }
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

    assert result["outcome"] == "failed"
    assert "not belong to this resource" in result["message"]
    assert len(buyer.bought) == 1


@pytest.mark.parametrize("how", ["deleted", "switched", "started again", "replaced"])
def test_release_that_ends_while_the_step_looks_for_throughput_buys_nothing(buyer: Buyer, how: str) -> None:
    """Stopping an execution does not stop a running function, and a commitment could not be undone."""
    buyer.begin()
    buyer.releases.declarations.declare(RELEASE, DIGEST)

    def end() -> None:
        match how:
            case "deleted":
                buyer.releases.declarations.remove(RELEASE)
            case "switched":
                buyer.releases.update(DIGEST, throughput="")
            case "started again":
                buyer.begin(attempt=2)
            case "replaced":
                buyer.route("arn:next", digest=NEXT)

    meddled = Meddled(buyer.world.bedrock, before={"get_custom_model": end})

    result = buyer.step(bedrock=meddled, **MONTH)

    assert (result["outcome"], buyer.bought) == ("failed", [])
    assert "is no longer live" in result["message"]


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


@pytest.mark.parametrize("how", ["retained", "retained and committed", "somebody else's"])
def test_old_units_that_can_not_go_stay(buyer: Buyer, how: str) -> None:
    """Case B24."""
    buyer.begin()
    buyer.serve(**(MONTH if "committed" in how else {}))
    old = buyer.bought[0]["arn"]
    if how == "somebody else's":
        buyer.world.bedrock.untag_resource(resourceARN=old, tagKeys=[RELEASE.key])
    buyer.begin(attempt=2)
    retained: dict[str, Any] = {"retain_throughput": True} if "retained" in how else {}

    assert buyer.step(**SIX, **retained)["outcome"] == "waiting"
    assert buyer.world.server.calls(DELETE) == []
    assert sorted(found["name"] for found in buyer.bought) == sorted(
        [COMMITTED if "committed" in how else NAME, SIX["throughput_name"]]
    )


def test_nothing_is_bought_beside_a_commitment(buyer: Buyer) -> None:
    """The settings changed while the last step ran; the release's Update was refused, or is about to be."""
    buyer.begin()
    buyer.serve(**MONTH)
    buyer.begin(attempt=2)

    result = buyer.step(**SIX)

    assert result["outcome"] == "failed"
    for text in ("was not bought beside another one", "is committed until"):
        assert text in result["message"]
    assert [found["name"] for found in buyer.bought] == [COMMITTED]


def bought_by(buyer: Buyer, claimant: Claimant | None, name: str = NAME) -> str:
    """Return the ARN of throughput of this owner that another resource, or nobody, claims."""
    made = buyer.world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=name,
        modelId=buyer.world.model(NEXT),
        modelUnits=1,
        tags=bedrock_tags({OWNER_TAG: OWNER, **(claimant.tag if claimant else {})}),
    )
    buyer.world.server.advance(HOUR)
    return str(made["provisionedModelArn"])


def test_throughput_that_a_deployment_bought_for_this_owner_is_neither_moved_nor_deleted(
    buyer: Buyer,
) -> None:
    other = Claimant(STACK, "ThroughputResource9F8E7D6C")
    arn = bought_by(buyer, other)
    buyer.begin()

    result = buyer.step()
    assert (result["outcome"], other.logical_id in result["message"]) == ("failed", True)
    buyer.world.server.advance(DAY)
    buyer.step(**TWO)
    assert arn in [found["arn"] for found in buyer.bought]
    assert buyer.world.server.calls(MOVE) == buyer.world.server.calls(DELETE) == []


def test_throughput_that_an_earlier_stack_kept_is_taken_over(buyer: Buyer) -> None:
    arn = bought_by(buyer, None)
    model = buyer.begin()

    assert buyer.serve()["outcome"] == "done"
    (found,) = buyer.bought
    assert (found["arn"], found["model"]) == (arn, model)
    assert ownership.claims(found["tags"]) == RELEASE.tag


def test_throughput_that_was_renamed_in_the_console_is_not_bought_again(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve()
    arn = buyer.bought[0]["arn"]
    buyer.world.bedrock.update_provisioned_model_throughput(
        provisionedModelId=arn, desiredProvisionedModelName="my-throughput"
    )
    buyer.world.server.advance(HOUR)
    model = buyer.begin(NEXT)

    assert buyer.serve(NEXT)["outcome"] == "done"
    assert [(found["arn"], found["name"], found["model"]) for found in buyer.bought] == [(arn, NAME, model)]


def test_a_false_absence_buys_nothing(buyer: Buyer) -> None:
    buyer.begin()
    buyer.serve()
    arn, model = buyer.bought[0]["arn"], buyer.begin(NEXT)
    missing = times(2, refusal("ResourceNotFoundException", status=404))
    untagged = times(2, refusal("ResourceNotFoundException", status=404))
    before = {"get_provisioned_model_throughput": missing, "list_tags_for_resource": untagged}
    bedrock = Meddled(buyer.world.bedrock, before=before)

    assert buyer.step(NEXT, bedrock, absence_seconds=0.6)["outcome"] == "waiting"
    assert buyer.serve(NEXT)["outcome"] == "done"
    assert [(found["arn"], found["model"]) for found in buyer.bought] == [(arn, model)]
    assert buyer.world.count(BUY) == 1


def test_tags_follow_with_the_next_release(buyer: Buyer) -> None:
    """Case T22."""
    buyer.begin()
    buyer.serve()
    buyer.begin(NEXT)

    assert buyer.serve(NEXT, tags={"team": "video", "cost": "7"})["outcome"] == "done"
    tags = buyer.bought[0]["tags"]
    assert (tags["team"], tags["cost"], tags[DIGEST_TAG], tags[ownership.REQUEST_TAG]) == (
        "video",
        "7",
        NEXT,
        "r1",
    )


def test_the_entry_points_use_the_functions_own_clients(
    buyer: Buyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    buyer.begin()
    monkeypatch.setattr(handler, "client", {"bedrock": buyer.world.bedrock}.__getitem__)
    monkeypatch.setattr(handler, "table", lambda _: buyer.releases.table)
    for name, value in ServeFromThroughputEnv(**VALUES).variables().items():
        monkeypatch.setenv(name, value)
    buyer.world.server.fault("throttled", operation="GetProvisionedModelThroughput")

    assert handler.serve_from_throughput({"release": DIGEST}, None)["outcome"] == "waiting"
    assert buyer.bought == []
    assert handler.serve_from_throughput({"release": DIGEST}, None)["outcome"] == "waiting"
    assert len(buyer.bought) == 1
