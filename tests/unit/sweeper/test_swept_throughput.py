"""Throughput: the sweeper removes what is billed and gets no requests."""

from __future__ import annotations

from typing import Any

import pytest

from distilled_router.aws.errors import ResourceError
from distilled_router.bedrock import ownership
from distilled_router.bedrock.naming import throughput_name
from distilled_router.bedrock.ownership import Claimant
from distilled_router.bedrock.throughput import CREATED_AS_TAG
from distilled_router.release.route import Share
from distilled_router.release.table import (
    FAILED,
    LIVE,
    ROLLING_OUT,
    WAITING,
    Releases,
)
from tests.unit.local.bedrock.scenes import MINUTE
from tests.unit.release_world import OWNER, RELEASE, A, B, C, Proxy, World, live_share, named
from tests.unit.sweeper.scenes import (
    ONE,
    TWO,
    Capture,
    bought,
    buy,
    claims_of,
    live,
    made,
    succeeded,
    trained,
    unrouted,
)


def test_model_under_throughput_is_kept(world: World) -> None:
    """Case B13."""
    model = world.train(A)
    world.begin(A)
    world.releases.transition(A, FAILED, "refused")
    succeeded(world)
    world.bedrock.create_provisioned_model_throughput(provisionedModelName=OWNER, modelId=model, modelUnits=1)
    world.sweeper().sweep()
    assert world.models() == named(A)


def test_throughput_that_nothing_is_routed_to_is_removed(world: World) -> None:
    """The settings went back to on-demand while it served; now the release serves on demand."""
    model = world.train(A)
    world.begin(A)
    arn = buy(world, model)
    world.settle(live_share(A, arn))
    assert world.sweeper().sweep().kept[arn] == "named by the route"

    world.settle(live_share(A, "arn:on-demand"))
    assert arn in world.sweeper().sweep().removed
    assert bought(world) == set()


@pytest.mark.parametrize("partial", [False, True])
def test_throughput_that_the_route_names_is_kept_whatever_the_settings_want(
    world: World, partial: bool
) -> None:
    model = live(world, runs=False)
    arn = buy(world, model, TWO)
    rest = (live_share(B),) if partial else ()
    world.settle(Share(A, arn, 0.1, expires_at=2**40) if partial else live_share(A, arn), *rest)
    world.begin(A, 2, run=True)
    assert world.sweeper(throughput_name=ONE).sweep().kept[arn] == "named by the route"


def test_throughput_that_the_settings_want_is_not_kept_for_that(world: World) -> None:
    """It can't be moved to the live release, so it serves no requests until the next deployment."""
    buy(world, live(world, runs=False))
    world.sweeper(throughput_name=ONE).sweep()
    assert bought(world) == set()


@pytest.mark.parametrize("state", [WAITING, ROLLING_OUT])
def test_throughput_that_a_release_in_progress_will_move_to_is_kept(world: World, state: str) -> None:
    arn = buy(world, live(world, runs=False))
    world.begin(B, run=True, state=state)
    assert world.sweeper(throughput_name=ONE).sweep().kept[arn] == "a release is moving to it"
    assert arn in world.sweeper(throughput_name=TWO).sweep().removed


@pytest.mark.parametrize("seen", ["", ONE])
@pytest.mark.parametrize("status", ["Creating", "InService"])
def test_throughput_of_a_live_release_whose_last_step_is_not_over_is_kept(
    world: World, seen: str, status: str
) -> None:
    """It is bought, or moved, while the release is live and the route does not name it yet. At first not even
    the release does."""
    arn = buy(world, live(world, runs=True, throughput=seen), wait=status == "InService")
    assert world.sweeper(throughput_name=ONE).sweep().kept[arn] == "a release is moving to it"
    assert bought(world) == {ONE}


def test_throughput_that_is_bought_by_other_settings_than_the_sweepers_is_kept(world: World) -> None:
    """A deployment changes functions one after another."""
    arn = buy(world, live(world, runs=True, throughput=TWO), TWO)
    assert world.sweeper(throughput_name=ONE).sweep().kept[arn] == "a release is moving to it"
    assert world.sweeper(throughput_name="").sweep().kept[arn] == "a release is moving to it"


def test_throughput_left_by_other_units_is_removed_while_the_new_ones_are_on_their_way(world: World) -> None:
    model = live(world, runs=True, throughput=TWO)
    new, old = buy(world, model, TWO), buy(world, model)
    swept = world.sweeper(throughput_name=TWO).sweep()
    assert (swept.kept[new], bought(world)) == ("a release is moving to it", {TWO})
    assert old in swept.removed


def test_throughput_goes_at_once_when_the_last_step_failed(world: World) -> None:
    """The execution runs still: this is its way down."""
    arn = buy(world, live(world, runs=True, throughput=ONE))
    swept = world.sweeper(throughput_name=ONE).sweep(failed=A)
    assert arn in swept.removed
    assert world.deployments() == named(A)


def test_throughput_stays_when_another_release_is_in_progress_after_a_failure(world: World) -> None:
    arn = buy(world, live(world, runs=True, throughput=ONE))
    world.begin(B, run=True)
    assert world.sweeper(throughput_name=ONE).sweep(failed=A).kept[arn] == "a release is moving to it"


def test_throughput_that_comes_into_service_during_the_sweep_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The execution ends after it has moved the route: who sees it ended reads the route after that."""
    arn = buy(world, live(world, runs=True, throughput=ONE))
    route, done = Releases.route, list[bool]()

    def described(**asked: Any) -> Any:
        found = world.stepfunctions.describe_execution(**asked)
        if not done:
            # Between this answer and the sweeper's next read, the last step does all that it still had to do.
            done.append(True)
            world.settle(live_share(A, arn))
            world.releases.update(A, endpoint=arn)
            world.stepfunctions.stop_execution(executionArn=world.execution(A))
            return {**found, "status": "SUCCEEDED"}
        return found

    reads: list[bool] = []

    def read(self: Releases) -> Any:
        reads.append(bool(done))
        return route(self)

    monkeypatch.setattr(Releases, "route", read)
    stepfunctions = Proxy(world.stepfunctions, describe_execution=described)
    swept = world.sweeper(throughput_name=ONE, stepfunctions=stepfunctions).sweep()
    assert swept.kept[arn] == "named by the route"
    assert reads[-1]


def test_throughput_of_a_release_that_was_switched_off_by_hand_is_kept(world: World) -> None:
    """The runbook's emergency, an empty route: to be switched on again."""
    model = live(world, runs=False)
    arn = buy(world, model)
    world.releases.update(A, endpoint=arn, throughput=ONE)
    world.settle()
    assert world.sweeper(throughput_name=ONE).sweep().kept[arn] == "went live last"
    world.advance(MINUTE)
    made(world, B, LIVE)
    assert arn in world.sweeper(throughput_name=ONE).sweep().removed


@pytest.mark.parametrize("wanted", ["", ONE])
def test_endpoints_of_a_route_that_a_human_broke_are_kept(world: World, wanted: str) -> None:
    """Routers go on with the last route that they could read."""
    arn = buy(world, live(world, runs=False))
    world.settle(Share(A, arn, 1.0))
    world.releases.update(A, endpoint=arn, throughput=ONE)
    made(world, B, LIVE)  # which the route never named: it was lost with the item
    failed = made(world, C, FAILED)
    world.releases.table.put_item(
        Item={"id": world.releases.key("route"), "version": "none", "shares": "all of them"}
    )
    swept = world.sweeper(throughput_name=wanted).sweep()
    assert swept.kept[arn] == "named by the route"
    assert failed in swept.removed
    assert bought(world) == {ONE}


def test_throughput_that_was_switched_off_by_hand_goes_with_the_settings(world: World) -> None:
    arn = buy(world, live(world, runs=False))
    world.releases.update(A, endpoint=arn, throughput=ONE)
    world.settle()
    assert arn in world.sweeper(throughput_name="").sweep().removed


def test_retained_throughput_stays_and_so_does_its_model(world: World) -> None:
    """Cases B15, B22."""
    model = trained(world, A)
    world.begin(A)
    world.releases.transition(A, FAILED, "refused")
    succeeded(world)
    arn = buy(world, model)
    swept = world.sweeper(retain_throughput=True).sweep()
    assert swept.kept == {arn: "retention.throughput = retain", model: f"in use by {arn}"}
    cleared = world.sweeper(retain_throughput=True).clear()
    assert (cleared.waiting, cleared.kept) == ([], swept.kept)
    assert claims_of(world, arn) == claims_of(world, model) == []
    assert (bought(world), world.models()) == ({ONE}, named(A))


def test_end_of_all_removes_throughput_of_every_name(world: World) -> None:
    """Also what the settings want, and what a release that was stopped a moment ago has bought."""
    model = live(world, runs=True, throughput=TWO)
    buy(world, model)
    buy(world, model, TWO)
    world.settle()
    cleared = world.sweeper(throughput_name=TWO).clear()
    assert (len(cleared.removed), cleared.waiting, bought(world)) == (4, [], set())


def test_end_of_all_waits_for_throughput_that_moves(world: World) -> None:
    model = world.train(A)
    world.begin(A)
    arn = buy(world, model)
    world.bedrock.update_provisioned_model_throughput(provisionedModelId=arn, desiredModelId=world.train(B))
    assert world.sweeper().clear().waiting == [arn]
    world.advance(30 * MINUTE)
    assert world.sweeper().clear().waiting == []
    assert bought(world) == set()


@pytest.mark.parametrize("claimant", [None, Claimant(RELEASE.stack_id, "Throughput")])
def test_throughput_that_the_release_does_not_claim_is_kept(world: World, claimant: Claimant | None) -> None:
    """A deployment bought it for the same owner, also under a name that releases give; or it was left."""
    buy(world, world.train(A), ONE, claimant)
    assert world.sweeper().sweep().removed == []
    assert world.sweeper().clear().removed == []
    assert bought(world) == {ONE}


def test_throughput_that_was_renamed_is_found(world: World) -> None:
    arn = buy(world, world.train(A))
    world.bedrock.update_provisioned_model_throughput(
        provisionedModelId=arn, desiredProvisionedModelName="by-hand"
    )
    world.advance(30 * MINUTE)
    assert arn in world.sweeper(throughput_name=ONE).sweep().removed


def test_throughput_that_was_renamed_is_kept_while_a_release_moves_to_it(world: World) -> None:
    """The settings name what it was created as."""
    arn = buy(world, live(world, runs=True), "by-hand")
    ownership.add_tags(world.bedrock, arn, {CREATED_AS_TAG: ONE})
    assert world.sweeper(throughput_name=ONE).sweep().kept[arn] == "a release is moving to it"


@pytest.mark.parametrize("term", ["OneMonth", "SixMonths"])
def test_committed_throughput_is_kept_with_its_date_and_not_left_at_the_end(world: World, term: str) -> None:
    """Case B22."""
    arn = buy(world, world.train(A), throughput_name(OWNER, 1, term), commitmentDuration=term)
    assert "committed until" in world.sweeper().sweep().kept[arn]
    with pytest.raises(ResourceError, match="committed until"):
        world.sweeper().clear()
    assert claims_of(world, arn) == [RELEASE.logical_id]


def test_throughput_that_is_billed_but_not_routed_is_counted(world: World, capsys: Capture) -> None:
    world.sweeper().sweep()
    model = world.train(A)
    hourly = buy(world, model, ONE)
    committed = throughput_name(OWNER, 1, "OneMonth")
    buy(world, model, committed, commitmentDuration="OneMonth")
    world.sweeper(retain_throughput=True).sweep()
    world.settle(live_share(A, hourly))
    world.sweeper().sweep()
    assert unrouted(capsys) == [2, 1]
    ownership.release(world.bedrock, hourly, RELEASE)
    world.settle(live_share(A, "arn:on-demand"))
    assert hourly in world.sweeper().sweep().unrouted
    assert unrouted(capsys) == [2]
    assert bought(world) == {committed, ONE}
