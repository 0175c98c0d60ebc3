"""The sweeper: what it keeps, what it removes, and whose things it never touches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from distilled_router.aws.errors import NotYetError, ResourceError
from distilled_router.bedrock import models, ownership
from distilled_router.bedrock.naming import OWNER_TAG, bedrock_tags, release_name
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
from tests.unit.release_world import JOB, OWNER, RELEASE, A, B, C, Proxy, World, live_share, named
from tests.unit.sweeper.scenes import (
    D,
    bought,
    buy,
    claims_of,
    cleared,
    made,
    model_of,
    succeeded,
    trained,
)


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


@pytest.mark.parametrize("state", [FAILED, SUPERSEDED, RETIRED])
def test_model_that_its_jobs_resource_claims_stays_until_that_gives_it_up(world: World, state: str) -> None:
    """Not after a refusal by the gate either, so not by the failure path: a changed gate may take it."""
    made(world, A, state)
    world.claim(model_of(world, A), JOB)
    swept = world.sweeper(keep=0).sweep()
    assert (world.deployments(), world.models()) == (set(), named(A))
    assert swept.kept == {model_of(world, A): "claimed by another resource"}
    assert claims_of(world, model_of(world, A)) == sorted([JOB.logical_id, RELEASE.logical_id])
    assert not ownership.release(world.bedrock, model_of(world, A), JOB)
    world.sweeper(keep=0).sweep()
    assert world.models() == set()


def test_model_that_its_job_gives_up_during_a_sweep_is_not_left_behind(world: World) -> None:
    """Bedrock's reads lag: each of the two still sees the claim that the other one gives up."""
    made(world, A, FAILED)
    model = model_of(world, A)
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
    world.claim(model_of(world, B), JOB)
    world.declare(A)
    world.sweeper().sweep()
    assert world.models() == named(A, B)
    world.releases.set_route((), after=world.releases.route(), reason="the stack is being deleted")
    cleared(world)
    assert (world.deployments(), world.models()) == (set(), named(B))


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
    world.begin(B, source=model_of(world, A))
    kept = cleared(world).kept
    assert kept == {model_of(world, A): "adopted by a release"}
    assert claims_of(world, model_of(world, A)) == []


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
