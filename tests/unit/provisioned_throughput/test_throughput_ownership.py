"""ProvisionedThroughput belongs to one logical resource, whatever CloudFormation cancels or repeats."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from distilled_router.bedrock import ownership, throughput
from distilled_router.bedrock.naming import OWNER_TAG, throughput_name
from distilled_router.bedrock.ownership import Claimant
from tests.unit import framework
from tests.unit.framework import INVENTED, Waiter
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
    TWO,
    Shop,
    roomy,
    shop,
    world,
)
from tests.unit.release_world import Proxy
from tests.unit.resource_scenes import DAY, HOUR, Meddled, logged, refusal, times

__all__ = ["roomy", "shop", "world"]


def abandoned(shop: Shop, polls: int = 1, **changes: Any) -> Waiter:
    """Return the waiter of a Create that CloudFormation stops to wait for, after some polls."""
    waiter = shop.resource().begin(framework.create(shop.properties(**changes)))
    assert waiter.poll(polls) is None
    return waiter


def test_what_a_create_without_an_answer_bought_is_deleted_by_an_invented_id(shop: Shop) -> None:
    abandoned(shop)
    assert shop.names == [NAME]

    assert shop.delete(INVENTED).succeeded
    assert shop.bought == []


def test_an_invented_id_deletes_nothing_of_other_resources(shop: Shop) -> None:
    shop.resource().send(framework.create(shop.properties("films"), **OTHER))
    shop.world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=NAME, modelId=shop.model, modelUnits=1
    )

    assert shop.delete(INVENTED).succeeded
    assert shop.names == ["films-1mu", NAME]
    assert shop.world.server.calls(DELETE) == []


@pytest.mark.parametrize("commitment", [None, "OneMonth"])
def test_what_never_answered_is_retained_only_while_it_is_committed(
    shop: Shop, commitment: str | None
) -> None:
    """Nobody has ever used it. A commitment is billed anyway."""
    abandoned(shop, CommitmentDuration=commitment)

    assert shop.delete(INVENTED, CommitmentDuration=commitment, Retain="true").succeeded
    assert shop.names == ([MONTH] if commitment else [])


def test_a_commitment_of_a_create_without_an_answer_is_reported(shop: Shop) -> None:
    abandoned(shop, CommitmentDuration="OneMonth")

    response = shop.delete(INVENTED, CommitmentDuration="OneMonth")

    assert (response.succeeded, "committed until" in response.reason) == (False, True)
    assert shop.names == [MONTH]


def test_a_commitment_does_not_keep_other_throughput_of_the_resource(shop: Shop) -> None:
    abandoned(shop, name="films")
    abandoned(shop, CommitmentDuration="OneMonth")
    abandoned(shop, name="movies")
    shop.world.server.advance(HOUR)

    response = shop.delete(INVENTED)

    assert (response.succeeded, "committed until" in response.reason) == (False, True)
    assert shop.names == [MONTH]


def test_the_waiter_of_an_abandoned_create_buys_nothing_after_the_delete(shop: Shop) -> None:
    shop.world.server.fault("throttled", operation=BUY)
    waiter = abandoned(shop)
    assert shop.delete(INVENTED).succeeded

    response = waiter.poll(POLLS)

    assert response is not None
    assert "superseded" in response.reason
    assert shop.world.count(BUY) == 0


def test_the_waiter_of_an_update_that_was_rolled_back_buys_nothing(shop: Shop) -> None:
    shop.create()
    old, new = shop.properties(), shop.properties("movies", units=2)
    shop.world.server.fault("throttled", operation=BUY)
    waiter = shop.resource().begin(framework.update(NAME, new, old))
    assert waiter.poll() is None
    assert shop.update(old, new).succeeded

    response = waiter.poll(POLLS)

    assert response is not None
    assert "superseded" in response.reason
    assert (shop.names, shop.world.count(BUY)) == ([NAME], 1)


def test_the_waiter_of_an_update_that_was_rolled_back_moves_nothing(shop: Shop) -> None:
    shop.create()
    old, new = shop.properties(), shop.properties(ModelArn=shop.other)
    shop.world.server.fault("throttled", operation=MOVE)
    waiter = shop.resource().begin(framework.update(NAME, new, old))
    assert shop.update(old, new).succeeded

    assert waiter.poll(POLLS) is not None
    assert shop.bought[0]["model"] == shop.model


@pytest.mark.parametrize("how", ["onEvent", "isComplete"])
def test_a_move_that_the_next_request_overtakes_is_not_made(shop: Shop, how: str) -> None:
    """The rollback arrives while the Update looks at the model, and has nothing to move back."""
    shop.create()
    old, new = shop.properties(), shop.properties(ModelArn=shop.other)
    update = framework.update(NAME, new, old)

    def overtake() -> None:
        shop.resource().begin(framework.update(NAME, old, new))

    late = shop.resource(Meddled(shop.world.bedrock, before={"get_foundation_model": overtake}))
    if how == "isComplete":
        shop.world.server.fault("throttled", operation=MOVE)
        response = late.poll(shop.resource().begin(update).event, 1)
    else:
        response = late.send(update)

    assert response is not None
    assert "superseded" in response.reason
    assert (shop.world.count(MOVE), shop.bought[0]["model"]) == (0, shop.model)


@pytest.mark.parametrize(
    ("hook", "purchases"),
    [
        ({"before": "get_foundation_model"}, 0),
        ({"after": "create_provisioned_model_throughput"}, 1),
    ],
)
def test_a_purchase_that_the_next_request_overtakes_is_undone(
    shop: Shop, hook: dict[str, str], purchases: int
) -> None:
    """The Delete arrives while isComplete of the Create runs, and may have looked before the purchase."""

    def overtake() -> None:
        shop.resource().begin(framework.delete(INVENTED, shop.properties()))

    hooks: dict[str, Any] = {when: {call: overtake} for when, call in hook.items()}
    waiter = shop.resource(Meddled(shop.world.bedrock, **hooks)).begin(framework.create(shop.properties()))

    response = waiter.poll()

    assert response is not None
    assert "superseded" in response.reason
    assert (shop.world.count(BUY), shop.bought) == (purchases, [])


def test_a_create_after_an_abandoned_one_adopts_what_that_bought(shop: Shop) -> None:
    abandoned(shop)

    response = shop.create()

    assert (response.succeeded, response.physical_id) == (True, NAME)
    assert shop.world.count(BUY) == 1


def test_two_creates_at_once_buy_once_and_the_other_names_the_buyer(shop: Shop) -> None:
    resource = shop.resource()
    first = resource.begin(framework.create(shop.properties()))
    second = resource.begin(framework.create(shop.properties(), **OTHER))
    assert first.poll() is None

    response = second.poll()

    assert response is not None
    assert f"claimed by resource {RESOURCE.logical_id} of stack {framework.STACK}" in response.reason
    assert resource.send(framework.delete(NAME, shop.properties(), **OTHER)).succeeded
    assert (shop.names, shop.world.count(BUY)) == ([NAME], 1)


def test_a_name_that_is_taken_between_look_and_purchase_is_refused(shop: Shop) -> None:
    def overtake() -> None:
        waiter = shop.resource().begin(framework.create(shop.properties(), **OTHER))
        assert waiter.poll() is None
        shop.world.server.advance(HOUR)

    bedrock = Meddled(shop.world.bedrock, before={"create_provisioned_model_throughput": overtake})
    # The purchase of the other resource has its own client, without the hook.
    response = shop.create(bedrock)

    assert (response.succeeded, response.physical_id) == (False, NAME)
    assert f"claimed by resource {OTHER['LogicalResourceId']}" in response.reason
    assert shop.delete().succeeded
    assert shop.names == [NAME]


def test_a_name_that_a_rename_set_free_may_be_used_by_another_resource(shop: Shop) -> None:
    """Each is deleted by its own resource, although both were created with the same name."""
    shop.create()
    assert shop.update(shop.properties("movies"), shop.properties()).succeeded
    assert shop.resource().send(framework.create(shop.properties(), **OTHER)).succeeded
    assert shop.names == ["movies-1mu", NAME]

    assert shop.delete(name="movies").succeeded
    assert shop.names == [NAME]
    assert shop.resource().send(framework.delete(NAME, shop.properties(), **OTHER)).succeeded
    assert shop.bought == []


def test_units_of_a_name_that_another_resource_holds_are_refused(shop: Shop) -> None:
    shop.create()
    held = shop.properties("movies", units=2)
    assert shop.resource().send(framework.create(held, **OTHER)).succeeded

    response = shop.update(held, shop.properties())

    assert (response.succeeded, response.physical_id) == (False, NAME)
    assert f"claimed by resource {OTHER['LogicalResourceId']}" in response.reason
    assert shop.update(shop.properties(), held).succeeded
    assert shop.names == [NAME, TWO]


def renamed(shop: Shop, name: str = "my-throughput") -> None:
    """Rename the throughput as a person does in the console."""
    shop.world.bedrock.update_provisioned_model_throughput(
        provisionedModelId=shop.bought[0]["arn"], desiredProvisionedModelName=name
    )
    shop.world.server.advance(HOUR)


def test_throughput_that_was_renamed_in_the_console_is_deleted(shop: Shop) -> None:
    shop.create()
    renamed(shop)

    assert shop.delete().succeeded
    assert shop.bought == []


def test_delete_of_throughput_without_its_owners_tag_fails(shop: Shop) -> None:
    """A person removed the tag; without it, the role may not delete what is billed."""
    shop.create()
    arn = shop.bought[0]["arn"]
    ownership.remove_tags(shop.world.bedrock, arn, [OWNER_TAG])

    response = shop.delete()
    assert (response.succeeded, shop.names) == (False, [NAME])
    assert f"{arn} lacks the tag {OWNER_TAG} = {OWNER}" in response.reason

    ownership.add_tags(shop.world.bedrock, arn, {OWNER_TAG: OWNER})
    assert shop.delete().succeeded
    assert shop.bought == []


def test_throughput_that_was_renamed_in_the_console_gets_its_name_back(shop: Shop) -> None:
    shop.create()
    arn = shop.bought[0]["arn"]
    renamed(shop)

    response = shop.update(shop.properties(ModelArn=shop.other), shop.properties())

    assert (response.succeeded, response.data["ProvisionedModelArn"]) == (True, arn)
    assert [(found["name"], found["model"]) for found in shop.bought] == [(NAME, shop.other)]
    assert shop.world.count(BUY) == 1


def test_throughput_that_was_renamed_while_it_is_created_is_not_bought_again(shop: Shop) -> None:
    waiter = abandoned(shop)
    shop.world.server.advance(HOUR)
    renamed(shop)

    assert waiter.poll(POLLS) is not None
    assert (shop.names, shop.world.count(BUY)) == ([NAME], 1)


def test_a_replacement_of_throughput_renamed_in_the_console_deletes_the_old_one(shop: Shop) -> None:
    shop.create()
    renamed(shop)

    assert shop.update(shop.properties("movies", units=2), shop.properties()).physical_id == TWO
    assert shop.delete().succeeded
    assert shop.names == [TWO]


def test_a_commitment_that_was_renamed_in_the_console_is_not_forgotten(shop: Shop) -> None:
    shop.create(CommitmentDuration="OneMonth")
    renamed(shop)

    response = shop.update(
        shop.properties(units=2), shop.properties(CommitmentDuration="OneMonth"), physical_id=MONTH
    )

    assert (response.succeeded, "committed until" in response.reason) == (False, True)
    assert shop.world.count(BUY) == 1


@pytest.mark.parametrize("how", ["throttled", "failed", "unavailable"])
@pytest.mark.parametrize("operation", [LOOK, DELETE, "ListTagsForResource"])
def test_a_temporary_error_does_not_end_a_delete(shop: Shop, operation: str, how: str) -> None:
    """In clean-up, CloudFormation abandons a resource whose Delete fails."""
    shop.create()
    shop.world.server.fault(how, operation=operation, count=3)

    assert shop.delete().succeeded
    assert shop.bought == []


def test_on_event_of_a_delete_calls_nothing(shop: Shop) -> None:
    shop.create()
    before = len(shop.world.server.calls())
    shop.resource().begin(framework.delete(NAME, shop.properties()))

    assert len(shop.world.server.calls()) == before


def test_retained_throughput_is_taken_over_by_the_next_resource_of_its_name(shop: Shop) -> None:
    """Its claim is gone, and so it is not paid twice."""
    shop.create(Retain="true")
    assert shop.delete(Retain="true").succeeded
    assert ownership.claims(shop.bought[0]["tags"]) == {}

    assert shop.resource().send(framework.create(shop.properties(), **OTHER)).succeeded
    assert (shop.names, shop.world.count(BUY)) == ([NAME], 1)
    assert shop.resource().send(framework.delete(NAME, shop.properties(), **OTHER)).succeeded
    assert shop.bought == []


def test_retained_throughput_that_another_resource_takes_over_at_the_same_time_is_its(shop: Shop) -> None:
    """With two claims on it, the first Delete would delete what the other resource uses."""
    shop.create(Retain="true")
    shop.delete(Retain="true")
    other = Claimant(framework.STACK, OTHER["LogicalResourceId"])
    claimed = partial(ownership.claim, shop.world.bedrock, shop.bought[0]["arn"], other)

    response = shop.create(Meddled(shop.world.bedrock, before={"tag_resource": claimed}))

    assert not response.succeeded
    assert f"claimed by resource {other.logical_id} of stack" in response.reason
    assert RESOURCE.logical_id not in response.reason
    assert ownership.claims(shop.bought[0]["tags"]).keys() == {other.key}


def test_a_delete_of_retained_throughput_says_until_when_it_is_committed(shop: Shop) -> None:
    shop.create(CommitmentDuration="OneMonth")
    shop.world.server.advance(10 * DAY)

    with logged(throughput.logger) as lines:
        assert shop.delete(MONTH, CommitmentDuration="OneMonth", Retain="true").succeeded

    assert "is committed until" in lines.getvalue()


@pytest.mark.parametrize("operation", ["get_provisioned_model_throughput", "list_tags_for_resource"])
def test_a_late_read_before_the_purchase_is_no_second_purchase(shop: Shop, operation: str) -> None:
    """A false 404 of the throughput that an earlier, abandoned request bought."""
    abandoned(shop)
    missing = times(1, refusal("ResourceNotFoundException", status=404))
    late = Meddled(shop.world.bedrock, before={operation: missing})

    assert shop.create(late).succeeded
    assert shop.world.count(BUY) == 1


def test_a_false_absence_of_renamed_throughput_is_no_second_purchase(shop: Shop) -> None:
    """Its name is free, so Bedrock would sell another one."""
    waiter = abandoned(shop)
    shop.world.server.advance(HOUR)
    renamed(shop)
    # The list shows it, but the read by its ARN does not.
    missing = times(1, refusal("ResourceNotFoundException", status=404), skip=1)
    late = Meddled(shop.world.bedrock, before={"get_provisioned_model_throughput": missing})

    assert shop.resource(late, absence_seconds=0.6).poll(waiter.event, POLLS) is not None
    assert (shop.names, shop.world.count(BUY)) == ([NAME], 1)


def test_a_move_that_is_seen_late_has_not_failed(shop: Shop) -> None:
    shop.create()
    before = shop.world.bedrock.get_provisioned_model_throughput(provisionedModelId=NAME)
    update = framework.update(NAME, shop.properties(ModelArn=shop.other), shop.properties())
    waiter = shop.resource().begin(update)
    stale = iter([before] * 2)

    def read(**request: Any) -> Any:
        return next(stale, None) or shop.world.bedrock.get_provisioned_model_throughput(**request)

    late = Proxy(shop.world.bedrock, get_provisioned_model_throughput=read)
    response = shop.resource(late, absence_seconds=0.6).poll(waiter.event, POLLS)

    assert response is not None
    assert response.succeeded, response.reason
    assert shop.bought[0]["model"] == shop.other


@pytest.mark.parametrize("operation", ["get_provisioned_model_throughput", "get_custom_model"])
@pytest.mark.parametrize("kind", ["missing", "throttled"])
def test_passing_error_does_not_end_an_update_in_place(shop: Shop, operation: str, kind: str) -> None:
    shop.create()
    code = "ResourceNotFoundException" if kind == "missing" else "ThrottlingException"
    for skip in range(3):
        new = shop.properties(ModelArn=shop.other if skip % 2 == 0 else shop.model)
        failing = times(1, refusal(code), skip)
        hooks = Meddled(shop.world.bedrock, before={operation: failing})
        response = shop.resource(hooks, absence_seconds=2).send(
            framework.update(NAME, new, shop.properties())
        )
        assert response.succeeded, (skip, response.reason)
        assert shop.bought[0]["model"] == new["ModelArn"]


def test_own_throughput_whose_tags_are_seen_late_is_not_taken_for_anothers(shop: Shop) -> None:
    waiter = abandoned(shop)
    # The search by name, the search by claim, and the last look.
    left = iter([True] * 3)

    def tags(**request: Any) -> Any:
        return {"tags": []} if next(left, False) else shop.world.bedrock.list_tags_for_resource(**request)

    late = Proxy(shop.world.bedrock, list_tags_for_resource=tags)
    response = shop.resource(late, absence_seconds=0.6).poll(waiter.event, POLLS)

    assert response is not None
    assert response.succeeded, response.reason


@pytest.mark.parametrize("code", ["ConflictException", "ResourceNotFoundException"])
def test_an_overtaken_purchase_that_is_too_young_to_be_deleted_is_deleted_later(
    shop: Shop, code: str
) -> None:
    def overtake() -> None:
        shop.resource().begin(framework.delete(INVENTED, shop.properties()))

    hooks = Meddled(
        shop.world.bedrock,
        before={"delete_provisioned_model_throughput": times(1, refusal(code))},
        after={"create_provisioned_model_throughput": overtake},
    )
    waiter = shop.resource(hooks, absence_seconds=0.6).begin(framework.create(shop.properties()))

    response = waiter.poll()

    assert response is not None
    assert "superseded" in response.reason
    assert (shop.world.count(BUY), shop.bought) == (1, [])


def test_throughput_of_an_update_that_is_rolled_back_is_deleted_although_it_is_found_late(shop: Shop) -> None:
    shop.create()
    old, new = shop.properties(), shop.properties("movies", units=2)
    assert shop.resource().begin(framework.update(NAME, new, old)).poll() is None
    (stranded,) = (found["arn"] for found in shop.bought if found["name"] == TWO)
    # Two looks, each by name and by ARN.
    missing = times(4, refusal("ResourceNotFoundException", status=404))

    def read(provisionedModelId: str) -> Any:  # noqa: N803 - as the API spells it
        if provisionedModelId in (TWO, stranded):
            missing()
        return shop.world.bedrock.get_provisioned_model_throughput(provisionedModelId=provisionedModelId)

    late = Proxy(shop.world.bedrock, get_provisioned_model_throughput=read)
    response = shop.resource(late, absence_seconds=0.6).send(framework.update(NAME, old, new))

    assert response.succeeded, response.reason
    assert shop.names == [NAME]


@pytest.mark.parametrize("kind", ["Update", "replacement"])
def test_false_absences_are_confirmed(shop: Shop, kind: str) -> None:
    """Neither is throughput said to be deleted, nor is a commitment forgotten."""
    term = "OneMonth" if kind == "replacement" else None
    name = throughput_name("search-router", 1, term)
    shop.create(CommitmentDuration=term)
    # Neither by name nor, once it is listed, by ARN. A replacement first looks for the new name.
    missing = times(2, refusal("ResourceNotFoundException", status=404), skip=int(kind == "replacement"))
    bedrock = Meddled(shop.world.bedrock, before={"get_provisioned_model_throughput": missing})
    old = shop.properties(CommitmentDuration=term)
    new = shop.properties(units=2) if term else shop.properties(ModelArn=shop.other)

    response = shop.resource(bedrock, absence_seconds=0.6).send(framework.update(name, new, old))

    assert response.succeeded is (kind == "Update"), response.reason
    assert ("committed until" in response.reason) is (kind == "replacement")
    assert OWNER in shop.bought[0]["tags"].values()


def test_throughput_that_never_serves_says_in_which_state_it_is(shop: Shop) -> None:
    """CloudFormation would only show "Operation timed out"."""
    shop.world.requests.now, shop.world.requests.wait_seconds = shop.world.server.clock.now, 90

    response = shop.create()

    assert not response.succeeded
    assert "was not complete after" in response.reason
    assert f"Throughput {NAME} is Creating" in response.reason
