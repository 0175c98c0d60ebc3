"""The sweeper: what it keeps, what it removes, and whose things it never touches."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

import sweeper.handler
from distilled_router.aws.errors import NotYetError, ResourceError
from distilled_router.bedrock import models, ownership
from distilled_router.bedrock.naming import OWNER_TAG, bedrock_tags, release_name, throughput_name
from distilled_router.bedrock.ownership import Claimant
from distilled_router.bedrock.throughput import CREATED_AS_TAG
from distilled_router.env import SweeperEnv
from distilled_router.release.route import Share
from distilled_router.release.sweep import START_GRACE_SECONDS, Sweep, Sweeper
from distilled_router.release.table import (
    FAILED,
    LIVE,
    RETIRED,
    ROLLING_OUT,
    SUPERSEDED,
    WAITING,
    Releases,
)
from tests.unit.local.bedrock.scenes import HOUR, MINUTE
from tests.unit.release_world import JOB, OWNER, PASSING, RELEASE, A, B, C, Proxy, World, live_share, named

D = "dddddddddddd"
Capture = pytest.CaptureFixture[str]


def made(world: World, digest: str, state: str, **fields: Any) -> str:
    """A release with model and deployment in a state; the deployment's ARN. The job's resource is gone."""
    arn = world.deploy(digest, trained(world, digest))
    world.begin(digest)
    world.releases.update(digest, state=state, **fields)
    return arn


def trained(world: World, digest: str) -> str:
    """The ARN of a model that the release claims, and no job's resource."""
    arn = world.train(digest)
    world.claim(arn)
    world.unclaim(arn)
    return arn


def _arn(world: World, digest: str) -> str:
    """The ARN of a release's model."""
    return str(world.bedrock.get_custom_model(modelIdentifier=release_name(OWNER, digest))["modelArn"])


def succeeded(world: World) -> None:
    """Another release has begun since."""
    world.advance(MINUTE)
    world.begin(D)
    world.declare(D)


def test_keeps_the_live_release_what_runs_and_the_last_good_one(world: World) -> None:
    for digest in (A, B):
        made(world, digest, RETIRED)
        world.advance(MINUTE)
    world.settle(live_share(C, made(world, C, LIVE)))
    made(world, D, ROLLING_OUT)
    world.stepfunctions.start_execution(stateMachineArn=world.machine, name=f"{D}-1")
    swept = world.sweeper(keep=1).sweep()
    assert world.deployments() == world.models() == named(B, C, D)
    assert len(swept.removed) == 2
    assert sorted(set(swept.kept.values())) == [
        "its release is in progress",
        "kept for rollback",
        "named by the route",
    ]


def test_keeps_the_configured_number_of_good_releases(world: World) -> None:
    for digest in (A, B, C):
        made(world, digest, RETIRED)
        world.advance(MINUTE)
    succeeded(world)
    world.sweeper(keep=2).sweep()
    assert world.deployments() == named(B, C)
    world.sweeper(keep=0).sweep()
    assert world.deployments() == world.models() == set()


def test_release_that_was_switched_off_by_hand_can_be_switched_on_again(world: World) -> None:
    """The runbook's emergency: an empty route. The one before it has had its day."""
    made(world, A, LIVE)
    world.advance(MINUTE)
    made(world, B, LIVE)
    succeeded(world)
    world.settle()
    assert (
        world.sweeper(keep=0).sweep().kept[world.server.state()["deployments"][0]["arn"]] == "went live last"
    )
    assert world.deployments() == world.models() == named(B)


@pytest.mark.parametrize("state", [FAILED, SUPERSEDED])
def test_removes_what_an_ended_release_created(world: World, state: str) -> None:
    made(world, A, state)
    succeeded(world)
    world.sweeper().sweep()
    assert world.deployments() == world.models() == set()


def test_removes_the_model_of_a_superseded_release_that_never_got_a_deployment(world: World) -> None:
    trained(world, A)
    world.begin(A)
    world.releases.transition(A, SUPERSEDED, "by another")
    succeeded(world)
    world.sweeper().sweep()
    assert world.models() == set()


def test_second_sweep_changes_nothing(world: World) -> None:
    made(world, A, FAILED)
    world.settle(live_share(B, made(world, B, LIVE)))
    first = world.sweeper().sweep()
    second = world.sweeper().sweep()
    assert (len(first.removed), second.removed, second.waiting) == (2, [], [])
    assert second.kept == first.kept


def claims_of(world: World, arn: str) -> list[str]:
    """The logical ids that claim a resource."""
    tags = ownership.read_tags(world.bedrock, arn) or {}
    return sorted(text.rpartition(" ")[2] for text in ownership.claims(tags).values())


@pytest.mark.parametrize("state", [FAILED, SUPERSEDED, RETIRED])
def test_model_that_its_jobs_resource_claims_stays_until_that_gives_it_up(world: World, state: str) -> None:
    """Not after a refusal by the gate either, so not by the failure path: a changed gate may take it."""
    made(world, A, state)
    world.claim(_arn(world, A), JOB)
    swept = world.sweeper(keep=0).sweep()
    assert (world.deployments(), world.models()) == (set(), named(A))
    assert swept.kept == {_arn(world, A): "claimed by another resource"}
    assert claims_of(world, _arn(world, A)) == sorted([JOB.logical_id, RELEASE.logical_id])
    assert not ownership.release(world.bedrock, _arn(world, A), JOB)
    world.sweeper(keep=0).sweep()
    assert world.models() == set()


def test_model_that_its_job_gives_up_during_a_sweep_is_not_left_behind(world: World) -> None:
    """Bedrock's reads lag: each of the two still sees the claim that the other one gives up."""
    made(world, A, FAILED)
    model = _arn(world, A)
    world.claim(model, JOB)
    before = world.bedrock.list_tags_for_resource(resourceARN=model)

    def lagging(**parameters: Any) -> Any:
        return (
            before
            if parameters["resourceARN"] == model
            else world.bedrock.list_tags_for_resource(**parameters)
        )

    lags = Proxy(world.bedrock, list_tags_for_resource=lagging)
    assert not ownership.release(lags, model, JOB)
    world.sweeper(keep=0, bedrock=lags).sweep()
    assert world.models() == named(A)
    world.sweeper(keep=0).sweep()
    assert world.models() == set()


@pytest.mark.parametrize("listed", [True, False])
def test_model_keeps_the_releases_claim_while_a_deployment_uses_it(
    world: World, monkeypatch: pytest.MonkeyPatch, *, listed: bool
) -> None:
    """The job's resource may be replaced meanwhile: nobody else would delete the model later."""
    if not listed:
        monkeypatch.setattr(models, "users", lambda *_: [])
    model = world.train(A)
    world.begin(A, model_arn=model)
    world.claim(model)
    world.claim(model, JOB)
    world.bedrock.create_custom_model_deployment(
        modelDeploymentName=release_name(OWNER, A),
        modelArn=model,
        tags=bedrock_tags(RELEASE.tags(OWNER, request="r", digest=A)),
    )
    world.releases.transition(A, FAILED, "stopped")
    swept = world.sweeper(keep=0).sweep()
    assert swept.waiting  # Bedrock deletes no deployment that is being created
    assert claims_of(world, model) == sorted([JOB.logical_id, RELEASE.logical_id])
    world.unclaim(model)
    world.advance(HOUR)
    world.sweeper(keep=0).sweep()
    world.sweeper(keep=0).sweep()
    assert (world.deployments(), world.models()) == (set(), set())


def test_model_of_a_declared_job_outlives_a_serving_stack_that_was_rolled_back(world: World) -> None:
    """Rolled back to A, the serving stack is deleted while the job's stack declares B."""
    live = made(world, A, LIVE)
    world.settle(live_share(A, live))
    made(world, B, SUPERSEDED)
    world.claim(_arn(world, B), JOB)
    world.declare(A)
    world.sweeper().sweep()
    assert world.models() == named(A, B)
    world.releases.set_route((), after=world.releases.route(), reason="the stack is being deleted")
    cleared(world)
    assert (world.deployments(), world.models()) == (set(), named(B))


def cleared(world: World, **changes: Any) -> Sweep:
    """The last of as many calls as the end of the resource takes."""
    while (swept := world.sweeper(**changes).clear()).waiting:
        world.advance(MINUTE)
    return swept


def test_model_that_the_release_does_not_claim_is_not_seen(world: World) -> None:
    """Its distillation stack was deployed first, and its job was done before the release stack was."""
    world.settle(live_share(A, made(world, A, LIVE)))
    model = world.train(B)
    world.unclaim(model)
    swept = world.sweeper().sweep()
    assert (world.models(), model in swept.kept) == (named(A, B), False)
    cleared(world)
    assert world.models() == named(B)


def test_model_whose_release_a_person_deleted_from_the_table_is_removed(world: World) -> None:
    made(world, A, FAILED)
    world.releases.table.delete_item(Key={"id": world.releases.key(f"release@{A}")})
    world.sweeper().sweep()
    assert (world.deployments(), world.models()) == (set(), set())


def test_kept_models_lose_the_claim_at_the_end(world: World) -> None:
    made(world, A, LIVE)
    world.begin(B, source=_arn(world, A))
    kept = cleared(world).kept
    assert kept == {_arn(world, A): "adopted by a release"}
    assert claims_of(world, _arn(world, A)) == []


def test_deployment_that_is_listed_after_its_deletion_keeps_no_model(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end, a model that is kept loses its claim, and nobody would delete it later."""
    endpoint = made(world, A, LIVE)
    monkeypatch.setattr(models, "users", lambda *_: [endpoint])
    cleared(world)
    assert (world.deployments(), world.models()) == (set(), set())


def test_retained_models_stay_and_their_deployments_go(world: World) -> None:
    """Case B15."""
    made(world, A, FAILED)
    succeeded(world)
    swept = world.sweeper(retain=True).sweep()
    assert (world.deployments(), world.models()) == (set(), named(A))
    assert list(swept.kept.values()) == ["retention.models = retain"]


def test_foreign_things_are_not_touched(world: World) -> None:
    model = world.train(A)
    for name, owner in (
        (f"{OWNER}-staging-{A}", OWNER),
        (f"my-{OWNER}-{A}", OWNER),
        (f"{OWNER}-{A[:-1]}", OWNER),
        (f"{OWNER}-ABCDEFABCDEF", OWNER),
        (f"{OWNER}-{B}", None),
        (f"{OWNER}-{C}", f"{OWNER}-staging"),
    ):
        world.deploy_as(name, model, {OWNER_TAG: owner} if owner else {})
    before = world.deployments()
    made(world, D, FAILED)
    world.advance(MINUTE)
    world.begin("eeeeeeeeeeee")
    world.sweeper().sweep()
    assert world.deployments() == before
    assert world.calls("DeleteCustomModelDeployment") == 1
    assert world.models() == named(A)


def test_model_that_something_else_serves_is_kept(world: World) -> None:
    """Case B13."""
    model = trained(world, A)
    world.begin(A)
    world.releases.transition(A, FAILED, "refused")
    succeeded(world)
    endpoint = world.deploy_as("somebody-elses", model, {})
    swept = world.sweeper().sweep()
    assert swept.kept == {model: f"in use by {endpoint}"}
    assert world.calls("DeleteCustomModel") == 0


def test_model_under_throughput_is_kept(world: World) -> None:
    """Case B13."""
    model = world.train(A)
    world.begin(A)
    world.releases.transition(A, FAILED, "refused")
    succeeded(world)
    world.bedrock.create_provisioned_model_throughput(provisionedModelName=OWNER, modelId=model, modelUnits=1)
    world.sweeper().sweep()
    assert world.models() == named(A)


ONE, TWO = throughput_name(OWNER, 1, None), throughput_name(OWNER, 2, None)


def buy(
    world: World,
    model: str,
    name: str = ONE,
    claimant: Claimant | None = RELEASE,
    *,
    wait: bool = True,
    **more: Any,
) -> str:
    """Throughput that the release bought, or another resource of the same owner; its ARN."""
    made = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=name,
        modelId=model,
        modelUnits=1,
        tags=bedrock_tags({OWNER_TAG: OWNER, **(claimant.tag if claimant else {})}),
        **more,
    )
    if wait:
        world.advance(30 * MINUTE)
    return str(made["provisionedModelArn"])


def bought(world: World) -> set[str]:
    """The names of what is paid by the hour."""
    return {found["name"] for found in world.server.state()["throughput"]}


def live(world: World, digest: str = A, *, runs: bool, **fields: Any) -> str:
    """A release that serves from its deployment, whose execution runs or has ended; its model's ARN."""
    arn = made(world, digest, LIVE, **fields)
    world.stepfunctions.start_execution(stateMachineArn=world.machine, name=f"{digest}-1")
    if not runs:
        world.stepfunctions.stop_execution(executionArn=world.execution(digest))
    world.settle(live_share(digest, arn))
    return str(world.bedrock.get_custom_model(modelIdentifier=release_name(OWNER, digest))["modelArn"])


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


def test_deployment_that_is_being_created_is_removed_by_a_later_sweep(world: World) -> None:
    world.deploy(A, trained(world, A), wait=False)
    world.begin(A)
    world.releases.transition(A, SUPERSEDED, "by another")
    succeeded(world)
    swept = world.sweeper().sweep()
    assert (len(swept.waiting), swept.removed) == (1, [])
    assert world.models() == named(A)
    world.advance(10 * MINUTE)
    world.sweeper().sweep()
    assert world.deployments() == world.models() == set()


@pytest.mark.parametrize(
    ("operation", "left"),
    [("ListProvisionedModelThroughputs", False), ("ListEvaluationJobs", False), ("ListCustomModels", True)],
)
def test_sweep_that_can_not_read_one_list_does_the_rest_and_says_so(
    world: World, operation: str, left: bool
) -> None:
    made(world, A, FAILED)
    succeeded(world)
    world.server.fault("throttled", operation=operation)
    with pytest.raises(NotYetError, match=r"1 calls were refused.*ThrottlingException"):
        world.sweeper().sweep()
    assert (world.deployments(), world.models()) == (set(), named(A) if left else set())
    world.sweeper().sweep()
    assert world.deployments() == world.models() == set()


def test_deployment_that_a_sweep_can_not_see_keeps_its_model(world: World) -> None:
    made(world, A, FAILED)
    succeeded(world)
    world.server.fault("throttled", operation="ListCustomModelDeployments")
    with pytest.raises(NotYetError):
        world.sweeper().sweep()
    assert world.deployments() == world.models() == named(A)


def test_refusals_are_told_together_and_what_costs_by_the_hour_goes_first(world: World) -> None:
    made(world, A, FAILED)
    made(world, B, FAILED)
    buy(world, trained(world, C))
    succeeded(world)
    world.server.fault("denied", operation="DeleteCustomModelDeployment", count=2)
    with pytest.raises(ResourceError, match=r"2 calls were refused.*AccessDenied.*; .*Denied") as raised:
        world.sweeper().sweep()
    assert not isinstance(raised.value, NotYetError)
    assert bought(world) == set()
    operations = [
        call["operation"] for call in world.server.calls() if call["operation"].startswith("Delete")
    ]
    assert operations[0] == "DeleteProvisionedModelThroughput"
    assert world.models() == named(A, B)


def test_execution_that_can_not_be_read_does_not_keep_the_sweep_from_the_rest(world: World) -> None:
    world.begin(A)
    made(world, B, FAILED)
    buy(world, trained(world, C))
    succeeded(world)
    denied = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}

    def describe(**_: Any) -> Any:
        raise ClientError(denied, "DescribeExecution")  # type: ignore[arg-type]  # the other members play no part

    unreadable = Proxy(world.stepfunctions, describe_execution=describe)
    with pytest.raises(ResourceError, match="AccessDeniedException"):
        world.sweeper(stepfunctions=unreadable).sweep()
    assert (bought(world), world.deployments()) == (set(), set())


def unrouted(capture: Capture) -> list[int]:
    """The values of the metric in the function's log."""
    lines = [json.loads(line) for line in capture.readouterr().out.splitlines()]
    return [int(line["UnroutedThroughput"][0]) for line in lines if "UnroutedThroughput" in line]


def test_throughput_that_is_billed_but_not_routed_is_counted(world: World, capsys: Capture) -> None:
    world.sweeper().sweep()
    model = world.train(A)
    hourly = buy(world, model, ONE)
    committed = throughput_name(OWNER, 1, "OneMonth")
    buy(world, model, committed, commitmentDuration="OneMonth")
    world.sweeper(retain_throughput=True).sweep()
    world.settle(live_share(A, hourly))
    world.sweeper().sweep()
    assert unrouted(capsys) == [0, 2, 1]
    ownership.release(world.bedrock, hourly, RELEASE)
    world.settle(live_share(A, "arn:on-demand"))
    assert hourly in world.sweeper().sweep().unrouted
    assert unrouted(capsys) == [2]
    assert bought(world) == {committed, ONE}


@pytest.mark.parametrize("lag", ["delete_seconds", "list_seconds", "get_seconds"])
def test_what_a_sweep_does_not_find_the_next_one_removes(world: World, lag: str) -> None:
    """Each sweep reads the lists again, so that none of them has to wait."""
    model = trained(world, A)
    world.server.lag(**{lag: HOUR})
    world.deploy(A, model)
    buy(world, model)
    world.begin(A, state=FAILED)
    for _ in range(3):
        world.sweeper().sweep()
        world.advance(HOUR)
    assert (world.deployments(), bought(world), world.models()) == (set(), set(), set())


def test_model_that_others_claim_stays_although_its_tags_are_not_found(world: World) -> None:
    """They were found when the sweep began."""
    model = trained(world, A)
    world.claim(model, JOB)
    world.begin(A, state=FAILED)
    missing = ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "no"}}, "ListTags")
    tags = Mock(side_effect=[world.bedrock.list_tags_for_resource(resourceARN=model), *[missing] * 9])
    world.sweeper(bedrock=Proxy(world.bedrock, list_tags_for_resource=tags)).sweep()
    assert (world.models(), claims_of(world, model)) == (
        named(A),
        sorted((JOB.logical_id, RELEASE.logical_id)),
    )


def test_sweep_follows_all_pages(world: World) -> None:
    model = world.train(A)
    digests = [f"{number:012x}" for number in range(5)]
    for digest in digests:
        world.deploy(digest, model)

    def paged(name: str) -> Any:
        real, size = world.bedrock.get_paginator(name), {"PageSize": 2}
        return Proxy(None, paginate=lambda **asked: real.paginate(**asked, PaginationConfig=size))

    world.sweeper(bedrock=Proxy(world.bedrock, get_paginator=paged)).sweep()
    assert world.deployments() == set()
    assert world.calls("ListCustomModelDeployments") >= 3


def interfering(world: World, operation: str, act: Callable[[], Any]) -> Any:
    """A Bedrock client during whose list something else happens, before its answer is used."""

    def get_paginator(name: str) -> Any:
        def paginate(**parameters: Any) -> list[Any]:
            pages = list(world.bedrock.get_paginator(name).paginate(**parameters))
            if name == operation:
                act()
            return pages

        return Proxy(None, paginate=paginate)

    return Proxy(world.bedrock, get_paginator=get_paginator)


def test_release_that_goes_live_while_the_lists_are_read_is_kept(world: World) -> None:
    """Releases and route are read after the lists, the route last."""
    arn = made(world, A, WAITING)
    world.stepfunctions.start_execution(stateMachineArn=world.machine, name=f"{A}-1")

    def live() -> None:
        world.releases.update(A, state=LIVE)
        world.settle(live_share(A, arn))

    bedrock = interfering(world, "list_custom_models", live)
    world.sweeper(keep=0, bedrock=bedrock).sweep()
    assert world.deployments() == world.models() == named(A)


def test_release_that_goes_live_while_the_table_is_read_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was still running when the releases were read, or it is in the route, which is read after them."""
    arn = made(world, A, ROLLING_OUT)
    world.stepfunctions.start_execution(stateMachineArn=world.machine, name=f"{A}-1")
    route = Releases.route
    reads: list[bool] = []

    def read(self: Releases) -> Any:
        reads.append(True)
        if len(reads) == 2:
            world.releases.update(A, state=LIVE)
            self.set_route((live_share(A, arn),), after=route(self), reason="live")
        return route(self)

    monkeypatch.setattr(Releases, "route", read)
    world.sweeper(keep=0).sweep()
    assert len(reads) == 2
    assert world.deployments() == world.models() == named(A)


def test_release_that_begins_again_during_the_sweep_is_kept(world: World) -> None:
    made(world, A, FAILED)
    succeeded(world)
    route, reads = Releases.effective_route, list[bool]()

    def again(self: Releases) -> Any:
        reads.append(True)
        if len(reads) == 2:  # after the releases were read
            world.begin(A, 2, run=True)
        return route(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Releases, "effective_route", again)
        swept = world.sweeper().sweep()
    assert world.deployments() == world.models() == named(A)
    assert set(swept.kept.values()) == {"its release has started again"}


def test_release_that_an_operator_restores_during_the_sweep_is_kept(world: World) -> None:
    endpoint = made(world, A, RETIRED)
    succeeded(world)

    route, reads = Releases.effective_route, list[bool]()

    def restored(self: Releases) -> Any:
        found = route(self)
        reads.append(True)
        if len(reads) == 2:  # after the route was read for the last time
            world.settle(live_share(A, endpoint))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Releases, "effective_route", restored)
        swept = world.sweeper(keep=0).sweep()
    assert named(A) <= world.deployments()
    assert swept.kept[endpoint] == "named by the route"


def failures(capture: Capture) -> int:
    lines = [json.loads(line) for line in capture.readouterr().out.splitlines()]
    return sum("FailedReleases" in line for line in lines if "_aws" in line)


def test_stopped_release_fails_and_its_share_is_withdrawn(world: World, capsys: Capture) -> None:
    world.settle(live_share(A, "arn:a"))
    arn = made(world, B, ROLLING_OUT)
    world.stepfunctions.start_execution(stateMachineArn=world.machine, name=f"{B}-1")
    world.settle(Share(B, arn, 0.5, expires_at=int(world.now) + 900), Share(A, "arn:a", 0.5))
    world.stepfunctions.stop_execution(executionArn=world.execution(B))
    world.claim(_arn(world, B), JOB)
    world.sweeper().sweep()
    assert world.release(B).state == FAILED
    assert world.release(B).message == f"its execution is ABORTED: {world.execution(B)}"
    assert world.releases.route().shares == (live_share(A, "arn:a"),)
    assert (world.deployments(), world.models()) == (set(), named(B))
    assert failures(capsys) == 1
    world.sweeper().sweep()
    assert failures(capsys) == 0


@pytest.mark.parametrize("status", ["TIMED_OUT", "FAILED", "SUCCEEDED"])
def test_release_whose_execution_ended_without_it_is_failed(world: World, status: str) -> None:
    world.begin(A)
    ended = Proxy(world.stepfunctions, describe_execution=lambda **_: {"status": status})
    world.sweeper(stepfunctions=ended).sweep()
    assert (world.release(A).state, status in world.release(A).message) == (FAILED, True)


@pytest.mark.parametrize("status", ["RUNNING", "PENDING_REDRIVE"])
def test_release_whose_execution_runs_is_left_alone(world: World, status: str) -> None:
    world.begin(A)
    world.advance(10 * START_GRACE_SECONDS)
    running = Proxy(world.stepfunctions, describe_execution=lambda **_: {"status": status})
    world.sweeper(stepfunctions=running).sweep()
    assert world.release(A).state == WAITING


def test_execution_that_was_never_started_fails_its_release_after_a_while(world: World) -> None:
    world.begin(A)
    world.advance(START_GRACE_SECONDS - 1)
    world.sweeper().sweep()
    assert world.release(A).state == WAITING
    world.advance(1)
    world.sweeper().sweep()
    assert world.release(A).state == FAILED
    assert "is gone" in world.release(A).message


def test_attempt_that_begins_while_its_predecessor_ends_is_left_alone(world: World) -> None:
    world.change_machine(PASSING)
    world.begin(A, run=True)

    def describe(**parameters: Any) -> Any:
        world.change_machine({"Type": "Wait", "Seconds": 1000, "End": True})
        world.begin(A, 2, run=True)
        return {"status": "ABORTED", **parameters}

    world.sweeper(stepfunctions=Proxy(world.stepfunctions, describe_execution=describe)).sweep()
    assert (world.release(A).attempt, world.release(A).state) == (2, WAITING)


@pytest.mark.parametrize("state", [FAILED, SUPERSEDED, RETIRED, None])
def test_partial_share_of_an_ended_release_is_withdrawn(world: World, state: str | None) -> None:
    if state:
        world.begin(B)
        world.releases.transition(B, state, "ended")
    world.settle(Share(B, "arn:b", 0.25, expires_at=1), Share(A, "arn:a", 0.75))
    world.sweeper().sweep()
    assert world.releases.route().shares == (live_share(A, "arn:a"),)


def test_partial_share_in_use_despite_a_malformed_route_is_withdrawn(world: World) -> None:
    world.begin(B)
    world.settle(Share(B, "arn:b", 0.25, expires_at=int(world.now) + 900), Share(A, "arn:a", 0.75))
    world.releases.transition(B, FAILED, "ended")
    world.releases.table.put_item(
        Item={"id": world.releases.key("route"), "version": "none", "shares": "all of them"}
    )
    world.sweeper().sweep()
    assert world.releases.route().problem is None
    assert world.releases.route().shares == (live_share(A, "arn:a"),)


def test_partial_share_of_a_retired_release_is_a_rollbacks_and_stays_until_it_expires(world: World) -> None:
    world.begin(B, state=RETIRED)
    shares = (Share(B, "arn:b", 0.25, expires_at=int(world.now) + 900), Share(A, "arn:a", 0.75))
    world.settle(*shares)
    world.sweeper().sweep()
    assert world.releases.route().shares == shares
    world.advance(901)
    world.sweeper().sweep()
    assert world.releases.route().shares == (live_share(A, "arn:a"),)


@pytest.fixture
def entries(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The world, with the functions' own clients being its."""
    clients = {"bedrock": world.bedrock, "stepfunctions": world.stepfunctions}
    monkeypatch.setattr(sweeper.handler, "client", clients.__getitem__)
    monkeypatch.setattr(sweeper.handler, "table", lambda _: world.releases.table)
    monkeypatch.setattr(sweeper.handler, "Sweeper", partial(Sweeper, now=lambda: world.now))
    env = SweeperEnv(
        owner=OWNER,
        table_name="releases",
        keep_releases=0,
        retain_models=False,
        retain_throughput=False,
        throughput_name=ONE,
        stack_id=RELEASE.stack_id,
        logical_id=RELEASE.logical_id,
    )
    for name, value in env.variables().items():
        monkeypatch.setenv(name, value)
    return world


def fails(world: World, digest: str, reason: str, attempt: int = 1) -> Mapping[str, Any]:
    """The failure path of an attempt's execution."""
    execution = world.execution(digest, attempt)
    event = {"release": digest, "reason": reason, "execution": execution}
    return sweeper.handler.fail(event, None)


def test_failure_path_of_an_earlier_attempt_leaves_its_successor_alone(
    entries: World, capsys: Capture
) -> None:
    arn = made(entries, A, ROLLING_OUT)
    entries.begin(A, 2)
    entries.releases.update(A, state=ROLLING_OUT)
    entries.settle(Share(A, arn, 0.25, expires_at=2**40), Share(B, "arn:b", 0.75))
    before = entries.releases.route()
    fails(entries, A, "of the first attempt", attempt=1)
    assert (entries.release(A).state, entries.releases.route()) == (ROLLING_OUT, before)
    assert failures(capsys) == 0
    fails(entries, A, "of the second attempt", attempt=2)
    assert (entries.release(A).state, entries.release(A).message) == (FAILED, "of the second attempt")


def test_failure_path_ends_the_release_and_removes_all_but_its_model(entries: World, capsys: Capture) -> None:
    arn = made(entries, B, ROLLING_OUT)
    entries.settle(Share(B, arn, 0.25, expires_at=2**40), Share(A, "arn:a", 0.75))
    entries.claim(_arn(entries, B), JOB)
    result = fails(entries, B, "refused by the gate")
    assert result["message"] == "removed 1, to be removed later 0"
    assert (entries.release(B).state, entries.release(B).message) == (FAILED, "refused by the gate")
    assert entries.releases.route().shares == (live_share(A, "arn:a"),)
    assert (entries.deployments(), entries.models()) == (set(), named(B))
    assert failures(capsys) == 1
    fails(entries, B, "again")
    assert (entries.release(B).message, failures(capsys)) == ("refused by the gate", 0)


def test_exception_of_a_stage_is_described(entries: World) -> None:
    entries.begin(A)
    cause = {"errorType": "KeyError", "errorMessage": "'GATE'", "stackTrace": ["…"] * 3000}
    fails(entries, A, json.dumps(cause))
    assert entries.release(A).message == "KeyError: 'GATE'"


def test_failure_after_a_release_went_live_is_reported_and_takes_nothing_from_it(
    entries: World, capsys: Capture
) -> None:
    arn = made(entries, A, LIVE)
    entries.settle(live_share(A, arn))
    fails(entries, A, "no model units reserved")
    assert entries.release(A).state == LIVE
    assert entries.release(A).message.endswith("on-demand deployment: no model units reserved")
    assert entries.releases.route().shares == (live_share(A, arn),)
    assert entries.deployments() == named(A)
    assert failures(capsys) == 1


def test_failure_of_the_last_step_takes_back_the_way_to_the_throughput_and_removes_it(entries: World) -> None:
    """It was asked for the release's model: the release's endpoint is its ARN, the route's is not."""
    buy(entries, live(entries, runs=True))
    (deployment,) = entries.releases.route().shares
    (throughput,) = entries.server.state()["throughput"]
    entries.releases.update(A, endpoint=throughput["arn"], throughput=ONE)
    result = fails(entries, A, "did not move")
    assert result["message"] == "removed 1, to be removed later 0"
    release = entries.release(A)
    assert (release.state, release.throughput, release.endpoint) == (LIVE, "", deployment.endpoint)
    assert (bought(entries), entries.deployments()) == (set(), named(A))


def test_lost_answer_of_the_last_step_takes_nothing_from_the_release(entries: World) -> None:
    arn = buy(entries, live(entries, runs=True))
    entries.settle(live_share(A, arn))
    entries.releases.update(A, endpoint=arn, throughput=ONE)
    fails(entries, A, "States.Timeout")
    release = entries.release(A)
    assert (release.state, release.throughput, release.endpoint) == (LIVE, ONE, arn)
    assert release.message == f"serves all requests from {ONE}: States.Timeout"
    assert bought(entries) == {ONE}


def test_failure_of_the_last_step_of_a_release_that_was_replaced_by_hand_says_so(entries: World) -> None:
    live(entries, runs=True)
    entries.settle(live_share(B))
    fails(entries, A, "does not serve any more")
    assert entries.release(A).message == "serves no requests: does not serve any more"


def test_failure_of_an_unknown_release_creates_none(entries: World) -> None:
    fails(entries, A, "…")
    assert entries.releases.get(A) is None


def test_retiring_removes_what_was_replaced(entries: World) -> None:
    made(entries, A, RETIRED)
    entries.settle(live_share(B, made(entries, B, LIVE)))
    result = sweeper.handler.retire_old({"release": B}, None)
    assert result["message"] == "removed 2, to be removed later 0"
    assert entries.deployments() == named(B)


def test_hourly_sweep_says_what_it_did(entries: World) -> None:
    arn = made(entries, A, FAILED)
    model = entries.bedrock.get_custom_model(modelIdentifier=release_name(OWNER, A))["modelArn"]
    swept = sweeper.handler.sweep({}, None)
    others = {"leaving": False, "kept": {}, "refused": {}}
    assert swept == {**{name: [] for name in swept}, **others, "removed": [arn, model]}
