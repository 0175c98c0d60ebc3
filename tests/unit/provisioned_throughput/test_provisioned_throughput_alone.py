"""ProvisionedThroughput that the deployment buys: for one model, with no release."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distilled_router.aws.custom_resource import Event
from distilled_router.bedrock import ownership
from distilled_router.bedrock.naming import OWNER_TAG, bedrock_tags
from distilled_router.bedrock.throughput import CREATED_AS_TAG
from provisioned_throughput import handler
from tests.unit import framework, requests_table
from tests.unit.framework import MARKER
from tests.unit.local.bedrock.scenes import MINUTE
from tests.unit.provisioned_throughput.shop import (
    BUY,
    DELETE,
    LOOK,
    MONTH,
    MOVE,
    NAME,
    OTHER,
    OWNER,
    POLLS,
    RESOURCE,
    TICK,
    TWO,
    Shop,
    roomy,
    shop,
    world,
)
from tests.unit.release_world import Proxy
from tests.unit.resource_scenes import (
    DAY,
    HOUR,
    STUDENT,
    Meddled,
    logged,
    refusal,
    times,
)

__all__ = ["roomy", "shop", "world"]


def test_it_is_bought_by_the_hour_and_awaited(shop: Shop) -> None:
    """Cases T20, B20."""
    response = shop.create()

    assert (response.succeeded, response.physical_id) == (True, NAME)
    assert response.polls > 20 * MINUTE / TICK
    (found,) = shop.bought
    assert (found["status"], found["model"]) == ("InService", shop.model)
    assert response.data == {"ProvisionedModelName": NAME, "ProvisionedModelArn": found["arn"]}
    (call,) = shop.world.server.calls(BUY)
    tags = {
        "team": "search",
        OWNER_TAG: OWNER,
        CREATED_AS_TAG: NAME,
        **RESOURCE.tag,
        ownership.REQUEST_TAG: shop.created["RequestId"],
    }
    assert call["parameters"] == {
        "provisionedModelName": NAME,
        "modelId": shop.model,
        "modelUnits": 1,
        "tags": bedrock_tags(tags),
        "clientRequestToken": call["parameters"]["clientRequestToken"],
    }


def test_a_commitment_is_passed_on(shop: Shop) -> None:
    """Case T20."""
    assert shop.create(CommitmentDuration="SixMonths", units=2).physical_id == "search-router-2mu-6m"

    parameters = shop.world.server.calls(BUY)[0]["parameters"]
    assert (parameters["commitmentDuration"], parameters["modelUnits"]) == ("SixMonths", 2)


def test_on_event_of_a_create_buys_nothing(shop: Shop) -> None:
    """What it bought would be lost if it failed then: the framework drops the Delete that follows.

    Case B12.
    """
    event = Event.parse(framework.create(shop.properties()))

    assert handler.handle(event, shop.world.bedrock) == {"PhysicalResourceId": NAME}
    assert shop.bought == []


@pytest.mark.parametrize("how", ["throttled", "failed", "unavailable"])
@pytest.mark.parametrize("operation", [BUY, LOOK, "GetCustomModel", "GetFoundationModel"])
def test_temporary_errors_are_retried(shop: Shop, operation: str, how: str) -> None:
    """Cases B16, B21."""
    shop.world.server.fault(how, operation=operation, count=3)

    assert shop.create().succeeded
    assert len(shop.bought) == 1


@pytest.mark.parametrize("how", ["dropped", "error"])
def test_a_lost_answer_buys_once(shop: Shop, how: str) -> None:
    """Case B21."""
    shop.world.server.fault("lost_response", operation=BUY, answer=how)

    assert shop.create().succeeded
    assert shop.world.count(BUY) == 1


def test_a_lost_answer_is_asked_for_again_with_the_same_token(shop: Shop) -> None:
    """Case B21. Reads don't show it yet, and not each error for a name in use is documented."""
    unseen = {"get_provisioned_model_throughput": times(9, refusal("ResourceNotFoundException", status=404))}
    late = Meddled(shop.world.bedrock, before=unseen)
    shop.world.server.fault("lost_response", operation=BUY, answer="error")

    assert shop.create(late).succeeded
    calls = shop.world.server.calls(BUY)
    assert len(calls) > 1
    assert len({call["parameters"]["clientRequestToken"] for call in calls}) == 1
    assert len(shop.bought) == 1


def test_a_lookup_that_does_not_see_it_yet_buys_once(shop: Shop) -> None:
    """Case B21."""
    missing = times(3, refusal("ResourceNotFoundException", status=404), skip=1)
    late = Meddled(shop.world.bedrock, before={"get_provisioned_model_throughput": missing})

    assert shop.create(late).succeeded
    assert len(shop.bought) == 1


def test_tags_that_are_not_seen_yet_are_awaited(shop: Shop) -> None:
    """Case B21."""
    missing = times(3, refusal("ResourceNotFoundException", status=404))
    late = Meddled(shop.world.bedrock, before={"list_tags_for_resource": missing})

    assert shop.create(late).succeeded
    assert len(shop.bought) == 1


def test_an_event_that_comes_twice_buys_once(shop: Shop) -> None:
    """Cases B1, B21."""
    event = framework.create(shop.properties())
    first, second = shop.resource(polls=3).send(event), shop.resource().send(event)

    assert (first.physical_id, second.physical_id) == (NAME, NAME)
    assert second.succeeded
    assert shop.world.count(BUY) == 1


@pytest.mark.parametrize("status", ["Creating", "InService"])
def test_one_that_comes_too_late_is_deleted_by_the_rollback(shop: Shop, status: str) -> None:
    """Case B21."""
    response = shop.create(polls=3)
    assert (response.succeeded, response.reason, response.physical_id) == (False, "Operation timed out", NAME)
    if status == "InService":
        shop.world.server.advance(HOUR)
    assert shop.bought[0]["status"] == status

    assert shop.delete().succeeded
    assert shop.bought == []


def test_one_that_fails_is_reported_and_deleted(shop: Shop) -> None:
    """Case B21."""
    shop.world.server.fault("throughput_failed", message="No capacity.")

    response = shop.create()

    assert (response.succeeded, response.physical_id) == (False, NAME)
    assert "No capacity. It was deleted." in response.reason
    assert shop.bought == []
    assert shop.delete().succeeded
    # A repeated delivery of the event buys nothing.
    shop.resource(polls=3).send(shop.created)
    assert shop.bought == []
    assert shop.create().succeeded


def test_an_empty_quota_names_both_quotas(shop: Shop) -> None:
    """Case B16."""
    response = shop.create(units=10)

    assert not response.succeeded
    for text in ("no commitment model units reserved", STUDENT, "L-BE77399C"):
        assert text in response.reason


@pytest.mark.parametrize("end", [-DAY, 100 * DAY])
def test_a_model_of_a_base_at_its_end_is_refused(shop: Shop, end: int) -> None:
    """Case B26."""
    now = shop.world.server.clock.now()
    shop.world.server.lifecycle("amazon.nova-micro-v1:0", legacy=now - 2 * DAY, end=now + end)

    response = shop.create()

    assert not response.succeeded
    assert ("ended on" if end < 0 else "LEGACY") in response.reason
    assert shop.world.server.calls(BUY) == []


def test_a_model_that_does_not_exist_is_refused(shop: Shop) -> None:
    """Case B26."""
    shop.world.bedrock.delete_custom_model(modelIdentifier=shop.model)

    response = shop.create()

    assert (response.succeeded, "does not exist" in response.reason) == (False, True)
    assert shop.world.server.calls(BUY) == []


@pytest.mark.parametrize("whose", ["nobody's", "another owner's", "our other resource's"])
def test_a_name_that_is_taken_is_refused_and_its_throughput_outlives_the_rollback(
    shop: Shop, whose: str
) -> None:
    """Also where a construct is renamed: its new resource comes first, then the old one's Delete."""
    if whose == "our other resource's":
        assert shop.resource().send(framework.create(shop.properties(), **OTHER)).succeeded
    else:
        tags = {OWNER_TAG: "video"} if whose == "another owner's" else {}
        shop.world.bedrock.create_provisioned_model_throughput(
            provisionedModelName=NAME, modelId=shop.model, modelUnits=1, tags=bedrock_tags(tags)
        )
    (before,) = shop.bought

    response = shop.create()

    assert (response.succeeded, response.physical_id) == (False, MARKER)
    assert "exists and does not belong to this resource" in response.reason
    assert before["arn"] in response.reason
    if whose == "our other resource's":
        assert (
            f"claimed by resource {OTHER['LogicalResourceId']} of stack {framework.STACK}" in response.reason
        )
    assert shop.delete(response.physical_id).succeeded
    assert shop.bought == [before]


def test_a_name_taken_while_it_could_not_be_checked_is_refused(shop: Shop) -> None:
    shop.world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=NAME, modelId=shop.model, modelUnits=1
    )
    shop.world.server.fault("throttled", operation=LOOK)

    response = shop.create()

    assert (response.succeeded, response.physical_id) == (False, NAME)
    assert "does not belong to this resource" in response.reason
    assert shop.delete().succeeded
    assert shop.names == [NAME]


def test_another_model_moves_in_under_the_same_arn(shop: Shop) -> None:
    """Case B23."""
    shop.create()
    (before,) = shop.bought

    response = shop.update(shop.properties(ModelArn=shop.other), shop.properties())

    assert (response.succeeded, response.physical_id) == (True, NAME)
    assert response.polls > 20 * MINUTE / TICK
    assert response.data["ProvisionedModelArn"] == before["arn"]
    assert shop.bought == [{**before, "model": shop.other}]
    (call,) = shop.world.server.calls(MOVE)
    assert call["parameters"] == {"provisionedModelId": before["arn"], "desiredModelId": shop.other}


def test_it_is_not_done_before_the_desired_model_is_the_one_that_serves(shop: Shop) -> None:
    """Case B23."""
    shop.create()
    new = shop.properties(ModelArn=shop.other)
    event = framework.update(NAME, new, shop.properties())
    asked = handler.handle(Event.parse(event), shop.world.bedrock, shop.world.utc_now)
    shop.world.server.advance(HOUR)
    found = shop.world.bedrock.get_provisioned_model_throughput(provisionedModelId=NAME)
    stale = {**found, "modelArn": shop.model, "desiredModelArn": shop.other}
    leaving = {**found, "desiredModelArn": shop.model}

    for seen, complete in ((stale, False), (leaving, False), (found, True)):
        bedrock = Proxy(shop.world.bedrock, get_provisioned_model_throughput=lambda seen=seen, **_: seen)
        answer = handler.check(Event.parse({**event, **asked}), bedrock, shop.world.utc_now)
        assert answer["IsComplete"] is complete


def test_another_name_is_given_in_place_and_found_again(shop: Shop) -> None:
    """Case B23."""
    shop.create()
    (before,) = shop.bought
    renamed = shop.properties("movies")

    response = shop.update(renamed, shop.properties())

    assert (response.succeeded, response.physical_id) == (True, NAME)
    assert response.data == {"ProvisionedModelName": "movies-1mu", "ProvisionedModelArn": before["arn"]}
    assert shop.bought == [{**before, "name": "movies-1mu"}]
    assert shop.world.server.calls(MOVE)[0]["parameters"] == {
        "provisionedModelId": before["arn"],
        "desiredProvisionedModelName": "movies-1mu",
    }
    # Its next update finds it, whatever CloudFormation knows it by.
    again = shop.update(shop.properties("films", ModelArn=shop.other), renamed)
    assert (again.succeeded, again.physical_id, shop.names) == (True, NAME, ["films-1mu"])
    assert shop.delete(name="films").succeeded
    assert shop.bought == []


def test_model_and_name_change_by_one_call(shop: Shop) -> None:
    """Case B23."""
    shop.create()

    assert shop.update(shop.properties("movies", ModelArn=shop.other), shop.properties()).succeeded

    (call,) = shop.world.server.calls(MOVE)
    assert set(call["parameters"]) == {"provisionedModelId", "desiredModelId", "desiredProvisionedModelName"}
    assert [(found["name"], found["model"]) for found in shop.bought] == [("movies-1mu", shop.other)]


def test_after_a_rename_an_id_of_neither_name_deletes_nothing(shop: Shop) -> None:
    """Cases B10, B23."""
    shop.create()
    shop.update(shop.properties("movies"), shop.properties())
    before = shop.world.written()

    for physical_id in ("movies-1mu", "search-router-2mu"):
        assert shop.delete(physical_id, name="movies").succeeded
    assert shop.world.written() == before
    assert shop.names == ["movies-1mu"]


@pytest.mark.parametrize("renamed", [False, True])
def test_a_move_that_fails_is_reported_and_rolled_back(shop: Shop, renamed: bool) -> None:
    """Case B23."""
    shop.create()
    old = shop.properties()
    new = shop.properties("movies" if renamed else "search-router", ModelArn=shop.other)
    shop.world.server.fault("throughput_update_failed")

    response = shop.update(new, old)

    assert (response.succeeded, response.physical_id) == (False, NAME)
    assert f"did not move to {shop.other}: it still serves {shop.model}" in response.reason
    assert len(shop.world.server.calls(MOVE)) == 1
    assert shop.update(old, new).succeeded
    assert [(found["name"], found["model"]) for found in shop.bought] == [(NAME, shop.model)]


@pytest.mark.parametrize("late", [False, True])
def test_an_update_that_is_rolled_back_moves_it_back(shop: Shop, late: bool) -> None:
    """Either another resource failed, or the move took longer than CloudFormation waits. Case B23."""
    shop.create()
    old, new = shop.properties(), shop.properties("movies", ModelArn=shop.other)
    response = shop.resource(polls=3 if late else POLLS).send(framework.update(NAME, new, old))
    assert response.succeeded is not late
    assert shop.bought[0]["status"] == ("Updating" if late else "InService")

    assert shop.update(old, new).succeeded
    assert [(found["name"], found["model"]) for found in shop.bought] == [(NAME, shop.model)]
    assert len(shop.world.server.calls(MOVE)) == 2


def test_a_rename_alone_that_is_rolled_back_while_it_runs_is_no_failed_move(shop: Shop) -> None:
    """Case B23."""
    shop.create()
    old, new = shop.properties(), shop.properties("movies")
    shop.resource(polls=1).send(framework.update(NAME, new, old))
    assert shop.bought[0]["status"] == "Updating"

    assert shop.update(old, new).succeeded
    assert shop.names == [NAME]


@pytest.mark.parametrize("how", ["throttled", "failed"])
def test_a_move_that_is_throttled_is_asked_for_again(shop: Shop, how: str) -> None:
    """Cases B16, B23."""
    shop.create()
    shop.world.server.fault(how, operation=MOVE, count=3)

    assert shop.update(shop.properties(ModelArn=shop.other), shop.properties()).succeeded
    assert shop.bought[0]["model"] == shop.other


def test_a_lost_answer_moves_once(shop: Shop) -> None:
    """Case B23."""
    shop.create()
    shop.world.server.fault("lost_response", operation=MOVE)

    assert shop.update(shop.properties(ModelArn=shop.other), shop.properties()).succeeded
    assert len(shop.world.server.calls(MOVE)) == 1


def test_an_update_that_comes_twice_moves_once(shop: Shop) -> None:
    """Cases B1, B23."""
    shop.create()
    event = framework.update(NAME, shop.properties(ModelArn=shop.other), shop.properties())

    shop.resource(polls=2).send(event)
    assert shop.resource().send(event).succeeded
    assert len(shop.world.server.calls(MOVE)) == 1


def test_an_update_that_came_twice_does_not_move_it_after_it_was_rolled_back(shop: Shop) -> None:
    """The second delivery still polls for a while after the first one's response. Cases B1, B23."""
    shop.create()
    old, new = shop.properties(), shop.properties(ModelArn=shop.other)
    event = framework.update(NAME, new, old)
    asked = handler.handle(Event.parse(event), shop.world.bedrock, shop.world.utc_now)
    assert shop.resource().send(event).succeeded
    assert shop.update(old, new).succeeded

    with pytest.raises(Exception, match="did not move"):
        handler.check(Event.parse({**event, **asked}), shop.world.bedrock, shop.world.utc_now)
    assert shop.bought[0]["model"] == shop.model


def test_it_is_not_moved_to_a_model_of_a_base_at_its_end(shop: Shop) -> None:
    """Case B26."""
    shop.create()
    now = shop.world.server.clock.now()
    shop.world.server.lifecycle("amazon.nova-micro-v1:0", legacy=now - DAY, end=now + 100 * DAY)
    old, new = shop.properties(), shop.properties(ModelArn=shop.other)

    response = shop.update(new, old)

    assert (response.succeeded, "LEGACY" in response.reason) == (False, True)
    assert shop.world.server.calls(MOVE) == []
    assert shop.update(old, new).succeeded


def test_one_that_was_deleted_by_hand_is_reported_and_not_bought_again(shop: Shop) -> None:
    """Case T21."""
    shop.create()
    shop.world.bedrock.delete_provisioned_model_throughput(provisionedModelId=NAME)

    response = shop.update(shop.properties(ModelArn=shop.other), shop.properties())

    assert (response.succeeded, response.physical_id) == (False, NAME)
    assert "deleted outside of its stack. Nothing was bought in its place" in response.reason
    assert f"--resources-to-skip {RESOURCE.logical_id}" in response.reason
    assert shop.world.count(BUY) == 1
    assert shop.delete().succeeded


def test_one_that_is_deleted_while_it_moves_is_reported(shop: Shop) -> None:
    """Case T21."""
    shop.create()
    event = framework.update(NAME, shop.properties("movies"), shop.properties())
    asked = handler.handle(Event.parse(event), shop.world.bedrock, shop.world.utc_now)
    shop.world.server.advance(HOUR)
    shop.world.bedrock.delete_provisioned_model_throughput(provisionedModelId="movies-1mu")

    with pytest.raises(Exception, match="deleted outside of its stack"):
        handler.check(Event.parse({**event, **asked}), shop.world.bedrock, shop.world.utc_now)
    assert shop.world.count(BUY) == 1


def test_tags_follow_in_place(shop: Shop) -> None:
    """As T5 has it: one tag, then two with one of them changed, then one. Case T22."""
    shop.create()
    own = {
        OWNER_TAG: OWNER,
        CREATED_AS_TAG: NAME,
        **RESOURCE.tag,
        ownership.REQUEST_TAG: shop.created["RequestId"],
    }
    old = shop.properties()
    for tags in ({"team": "video", "cost": "7"}, {"cost": "7"}):
        new = shop.properties(Tags=tags)
        response = shop.update(new, old)
        assert (response.succeeded, response.physical_id, response.polls) == (True, NAME, 1)
        assert shop.bought[0]["tags"] == {**own, **tags}
        old = new
    assert (shop.world.count(BUY), shop.world.count(MOVE)) == (1, 0)


def test_an_update_that_changes_nothing_in_bedrock_calls_nothing_that_changes(shop: Shop) -> None:
    """Case T12."""
    shop.create()
    before = shop.world.written()

    assert shop.update(shop.properties(HourlyPriceUsd="60.0"), shop.properties()).succeeded
    assert shop.world.written() == before


def test_another_owner_takes_it_over_in_place(shop: Shop) -> None:
    shop.create()
    old, new = shop.properties(), shop.properties(Owner="movies")

    assert shop.update(new, old).succeeded
    assert shop.bought[0]["tags"][OWNER_TAG] == "movies"
    assert shop.update(old, new).succeeded
    assert shop.delete().succeeded
    assert shop.bought == []


def test_other_units_are_bought_before_the_old_ones_go(shop: Shop) -> None:
    """Case B24."""
    shop.create()
    old, new = shop.properties(), shop.properties("movies", units=2)

    response = shop.update(new, old)

    assert (response.succeeded, response.physical_id) == (True, TWO)
    assert response.data["ProvisionedModelArn"] == shop.bought[1]["arn"]
    assert [(found["name"], found["status"]) for found in shop.bought] == [
        (NAME, "InService"),
        (TWO, "InService"),
    ]
    assert shop.delete().succeeded
    assert shop.names == [TWO]


def test_after_a_rename_the_old_one_is_found_by_what_it_was_created_as(shop: Shop) -> None:
    """Case B24."""
    shop.create()
    shop.update(shop.properties("movies"), shop.properties())

    assert shop.update(shop.properties("movies", units=2), shop.properties("movies")).physical_id == TWO
    assert shop.delete(name="movies").succeeded
    assert shop.names == [TWO]


def test_a_replacement_that_comes_twice_buys_once(shop: Shop) -> None:
    """Cases B1, B24."""
    shop.create()
    event = framework.update(NAME, shop.properties("movies", units=2), shop.properties())

    shop.resource(polls=2).send(event)
    assert shop.resource().send(event).physical_id == TWO
    assert shop.world.count(BUY) == 2


@pytest.mark.parametrize("how", ["fails", "is late", "is followed by another failure"])
def test_a_replacement_that_is_rolled_back_leaves_no_new_one_behind(shop: Shop, how: str) -> None:
    """CloudFormation may never have learnt the new one's id, so that no Delete for it need come. Case B24."""
    shop.create()
    shop.update(shop.properties("films"), shop.properties())
    (before,) = shop.bought
    old, new = shop.properties("films"), shop.properties("movies", units=2, ModelArn=shop.other)
    if how == "fails":
        shop.world.server.fault("throughput_failed", message="No capacity.")
    polls = 3 if how == "is late" else POLLS
    response = shop.resource(polls=polls).send(framework.update(NAME, new, old))
    assert response.succeeded is (how == "is followed by another failure")

    back = shop.update(old, new)

    assert (back.succeeded, back.physical_id, shop.bought) == (True, NAME, [before])
    assert back.data == {"ProvisionedModelName": "films-1mu", "ProvisionedModelArn": before["arn"]}
    # Should the Delete come: it finds nothing.
    assert shop.delete(TWO, name="movies", units=2).succeeded
    assert shop.bought == [before]


def test_a_new_one_that_is_still_being_created_is_awaited_when_it_is_rolled_back(shop: Shop) -> None:
    """Case B24."""
    shop.create()
    old, new = shop.properties(), shop.properties("movies", units=2)
    shop.resource(polls=3).send(framework.update(NAME, new, old))
    busy = Meddled(
        shop.world.bedrock,
        before={"delete_provisioned_model_throughput": times(5, refusal("ConflictException"))},
    )

    back = shop.update(old, new, bedrock=busy)

    assert (back.succeeded, back.polls, shop.names) == (True, 6, [NAME])


def test_an_update_that_is_rolled_back_by_the_new_ones_id_leads_to_the_old_one(shop: Shop) -> None:
    """The other way in which CloudFormation may ask; its clean-up then deletes the id that it asked with.

    Case B24.
    """
    shop.create()
    shop.update(shop.properties("films"), shop.properties())
    (before,) = shop.bought
    old, new = shop.properties("films"), shop.properties("movies", units=2)
    shop.update(new, old)

    back = shop.update(old, new, physical_id=TWO)

    assert (back.succeeded, back.physical_id) == (True, NAME)
    assert back.data["ProvisionedModelArn"] == before["arn"]
    assert shop.delete(TWO, name="movies", units=2).succeeded
    assert shop.bought == [before]


def test_a_replacement_that_came_twice_is_not_bought_again_after_it_was_rolled_back(shop: Shop) -> None:
    """Case B24."""
    shop.create()
    old, new = shop.properties(), shop.properties("movies", units=2)
    event = framework.update(NAME, new, old)
    shop.resource(polls=3).send(event)
    assert shop.update(old, new).succeeded

    shop.resource(polls=3).send(event)
    assert shop.names == [NAME]


@pytest.mark.parametrize("change", [{"units": 2}, {}, {"CommitmentDuration": "SixMonths"}])
def test_nothing_is_bought_beside_a_commitment_that_runs(shop: Shop, change: dict[str, Any]) -> None:
    """Case B24."""
    shop.create(CommitmentDuration="OneMonth")
    shop.world.server.advance(10 * DAY)
    old, new = shop.properties(CommitmentDuration="OneMonth"), shop.properties(**change)

    response = shop.update(new, old, physical_id=MONTH)

    assert (response.succeeded, response.physical_id, response.polls) == (False, MONTH, 0)
    hours = 20 * 24
    for text in ("was not bought", "committed until", f"{hours} hours of 1 model units are left"):
        assert text in response.reason
    assert f"{hours * 50:,} USD at 50 USD for a model unit and hour" in response.reason
    assert shop.world.count(BUY) == 1
    assert shop.update(old, new, physical_id=MONTH).succeeded
    assert shop.names == [MONTH]


@pytest.mark.parametrize("where", ["old", "new", "nowhere, the term is over"])
def test_a_commitment_that_may_be_let_go_can_be_replaced(shop: Shop, where: str) -> None:
    """Case B24."""
    shop.create(CommitmentDuration="OneMonth")
    old, new = shop.properties(CommitmentDuration="OneMonth"), shop.properties()
    if where in ("old", "new"):
        (old if where == "old" else new)["Retain"] = "true"
    else:
        shop.world.server.advance(31 * DAY)

    response = shop.update(new, old, physical_id=MONTH)

    assert (response.succeeded, response.physical_id) == (True, NAME)
    assert shop.resource().send(framework.delete(MONTH, old)).succeeded is (where != "new")
    assert shop.names == ([MONTH, NAME] if where in ("old", "new") else [NAME])


@pytest.mark.parametrize("retain", ["true", "false"])
def test_a_commitment_that_is_rolled_back_is_reported_unless_it_is_retained(shop: Shop, retain: str) -> None:
    """It is in service, and another resource failed: it can't be deleted, and must not be forgotten.

    Case B24.
    """
    shop.create()
    old, new = shop.properties(Retain=retain), shop.properties("movies", CommitmentDuration="OneMonth")
    assert shop.update(new, old).succeeded

    with logged(handler.logger) as lines:
        back = shop.update(old, new)

    assert back.succeeded is (retain == "true")
    assert "committed" in (lines.getvalue() if back.succeeded else back.reason)
    assert shop.names == [NAME, "movies-1mu-1m"]


def test_a_commitment_is_not_deleted_before_its_term(shop: Shop) -> None:
    """Case B22."""
    shop.create(CommitmentDuration="OneMonth")
    shop.world.server.advance(10 * DAY)

    response = shop.delete(MONTH, CommitmentDuration="OneMonth")

    assert (response.succeeded, response.polls) == (False, 1)
    for text in (
        "is committed until",
        "bills it until then",
        "480 hours of 1 model units are left, 24,000 USD",
        "set retain",
        "--retain-resources JobResource5F6E7A8B",
    ):
        assert text in response.reason
    assert shop.world.server.calls(DELETE) == []
    shop.world.server.advance(21 * DAY)
    assert shop.delete(MONTH, CommitmentDuration="OneMonth").succeeded
    assert shop.bought == []


@pytest.mark.parametrize("commitment", ["OneMonth", None])
def test_retained_throughput_is_left_and_that_is_logged(shop: Shop, commitment: str | None) -> None:
    """Cases B15, B22."""
    shop.create(CommitmentDuration=commitment)
    name = shop.names[0]

    with logged(handler.logger) as lines:
        assert shop.delete(name, CommitmentDuration=commitment, Retain="true").succeeded

    assert shop.names == [name]
    assert "billed until you delete it" in lines.getvalue()


@pytest.mark.parametrize("status", ["Creating", "Updating", "InService"])
def test_delete_waits_until_it_is_gone(shop: Shop, status: str) -> None:
    """Case B25."""
    shop.create(polls=3 if status == "Creating" else POLLS)
    if status == "Updating":
        event = framework.update(NAME, shop.properties(ModelArn=shop.other), shop.properties())
        shop.resource(polls=2).send(event)
    assert shop.bought[0]["status"] == status

    assert shop.delete().succeeded
    assert shop.bought == []
    # Its model goes by its own resource, and nothing is in its way.
    shop.world.bedrock.delete_custom_model(modelIdentifier=shop.model)


@pytest.mark.parametrize("code", ["ConflictException", "ValidationException"])
def test_one_that_can_not_be_deleted_while_it_is_created_is_retried(shop: Shop, code: str) -> None:
    """Case B25."""
    shop.create(polls=1)
    busy = Meddled(
        shop.world.bedrock, before={"delete_provisioned_model_throughput": times(3, refusal(code))}
    )

    response = shop.resource(busy).send(framework.delete(NAME, shop.properties()))

    assert (response.succeeded, response.polls) == (True, 4)
    assert shop.bought == []


def test_without_a_price_the_hours_are_reported(shop: Shop) -> None:
    """Case B22."""
    shop.create(CommitmentDuration="OneMonth")

    response = shop.delete(MONTH, CommitmentDuration="OneMonth", HourlyPriceUsd=None)

    assert "hours of 1 model units are left. " in response.reason
    assert "USD" not in response.reason


def test_a_failed_purchase_has_no_term(shop: Shop) -> None:
    """Case B22."""
    shop.world.server.fault("throughput_failed")
    shop.create(polls=1, CommitmentDuration="OneMonth")
    shop.world.server.advance(HOUR)
    assert shop.bought[0]["status"] == "Failed"

    assert shop.delete(MONTH, CommitmentDuration="OneMonth").succeeded
    assert shop.bought == []


def test_one_that_is_still_to_be_seen_is_awaited(shop: Shop) -> None:
    """Case B25."""
    shop.create()
    seen = shop.world.bedrock.get_provisioned_model_throughput(provisionedModelId=NAME)
    looks: list[str] = []

    def look(**asked: str) -> Any:
        looks.append(asked["provisionedModelId"])
        if len(looks) < 4:
            return seen
        return shop.world.bedrock.get_provisioned_model_throughput(**asked)

    bedrock = Proxy(shop.world.bedrock, get_provisioned_model_throughput=look)
    response = shop.resource(bedrock).send(framework.delete(NAME, shop.properties()))

    assert (response.succeeded, response.polls) == (True, 2)
    assert shop.bought == []


def test_one_whose_tags_can_not_be_seen_for_a_moment_is_not_taken_for_gone(shop: Shop) -> None:
    """Case B25."""
    shop.create()
    missing = times(3, refusal("ResourceNotFoundException", status=404), skip=1)
    bedrock = Meddled(shop.world.bedrock, before={"list_tags_for_resource": missing})

    assert shop.resource(bedrock).send(framework.delete(NAME, shop.properties())).succeeded
    assert shop.bought == []


def test_a_second_delete_changes_nothing(shop: Shop) -> None:
    """Case B10."""
    shop.create()

    assert shop.delete().succeeded
    assert shop.delete().succeeded
    assert len(shop.world.server.calls(DELETE)) == 1
    assert len(shop.world.server.state()["models"]) == 2


def test_the_entry_points_use_the_functions_own_client(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    requests_table.provide(monkeypatch)
    monkeypatch.setattr(handler, "client", {"bedrock": shop.world.bedrock}.__getitem__)
    entry: Callable[..., Any]
    event = framework.create(shop.properties())
    for entry in (handler.on_event, handler.is_complete):
        event = {**event, **entry(event, None)}
    assert (event["PhysicalResourceId"], event["IsComplete"], shop.names) == (NAME, False, [NAME])
    event = framework.delete(NAME, shop.properties())
    for entry in (handler.on_event, handler.is_complete):
        event = {**event, **entry(event, None)}
    assert (event["IsComplete"], shop.bought) == (True, [])
