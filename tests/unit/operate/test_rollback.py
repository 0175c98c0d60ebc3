"""Rolling back by one command: what becomes live, what is stopped, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from distilled_router.bedrock.naming import release_name
from distilled_router.release.route import HeadFile, Share
from distilled_router.release.table import FAILED, LIVE, RETIRED, ROLLING_OUT, SUPERSEDED, WAITING, Releases
from operate import rollback
from operate.deployed import Deployed
from operate.errors import OperateError
from operate.rollback import Outcome
from rollout.canary import CanaryAnalysis
from rollout.roll_out import advance
from tests.unit.release_world import ANY, OWNER, A, B, C, Proxy, World, live_share
from tests.unit.rollout.test_rollout import ROLLOUT

D = "dddddddddddd"


def at(world: World, **clients: Any) -> Deployed:
    table = world.releases.table
    return Deployed(
        "local",
        OWNER,
        1,
        clients.get("bedrock", world.bedrock),
        clients.get("stepfunctions", world.stepfunctions),
        table,
        lambda: world.now,
    )


def good(world: World, digest: str, state: str = RETIRED, **fields: Any) -> str:
    """Add a release that has passed the gate, with model and deployment; return the deployment's ARN."""
    model = world.train(digest)
    endpoint = world.deploy(digest, model)
    world.begin(digest, **{"state": state, "model_arn": model, "endpoint": endpoint, **fields})
    world.advance(60)
    return endpoint


def replaced(world: World) -> tuple[str, str]:
    """Let B be live in place of A; return their endpoints."""
    first, second = good(world, A), good(world, B, LIVE)
    world.settle(live_share(B, second))
    return first, second


def states(world: World) -> dict[str, str]:
    return {release.digest: release.state for release in world.releases.all()}


def everything(world: World) -> Any:
    """Return everything that a rollback could change."""
    items = world.releases.table.scan(ConsistentRead=True)["Items"]
    return sorted(items, key=lambda item: str(item["id"])), world.executions()


def refused(world: World, text: str, to: str = "") -> OperateError:
    """Return the refusal, which changed nothing."""
    before = everything(world)
    with pytest.raises(OperateError, match=text) as caught:
        rollback.roll_back(at(world), to)
    assert everything(world) == before
    return caught.value


def rolling_out(world: World, digest: str = C, share: float = 0.25) -> None:
    """Add a candidate in its rollout, beside the live release."""
    world.begin(digest, run=True, state=ROLLING_OUT, endpoint=f"arn:{digest}", step=0)
    rest = world.releases.route().live
    candidate = Share(digest, f"arn:{digest}", share, expires_at=int(world.now) + 1500)
    world.settle(candidate, *([replace(rest, share=1.0 - share)] if rest else []))


def test_previous_release_takes_all_requests(world: World) -> None:
    first, _ = replaced(world)
    outcome = rollback.roll_back(at(world))
    assert (outcome.live, outcome.endpoint, outcome.replaced, outcome.ended) == (A, first, [B], {})
    assert world.releases.route().shares == (live_share(A, first),)
    assert "serves all requests" in world.releases.route().reason
    assert states(world) == {A: LIVE, B: RETIRED}
    assert world.release(B).rolled_back > 0


def test_rollback_gives_the_previous_release_its_head_and_leaves_the_switch(world: World) -> None:
    first, second = replaced(world)
    for digest in (A, B):
        world.releases.update(digest, head=f"{digest}/head.bin", head_sha256=digest * 5)
    world.settle(world.release(B).share(1.0))
    world.releases.switch_heads(off=True, after=world.releases.route(), reason="by hand")
    rollback.roll_back(at(world))
    route = world.releases.route()
    assert route.shares == (Share(A, first, 1.0, head=HeadFile(f"{A}/head.bin", A * 5)),)
    assert route.head_off
    rollback.roll_back(at(world), B)
    assert world.releases.route().shares == (Share(B, second, 1.0, head=HeadFile(f"{B}/head.bin", B * 5)),)


def test_withdrawn_rollout_leaves_the_live_releases_head_and_the_switch(world: World) -> None:
    _, second = replaced(world)
    live = Share(B, second, 1.0, head=HeadFile("head.bin", "0" * 64))
    world.settle(live)
    world.releases.switch_heads(off=True, after=world.releases.route(), reason="by hand")
    rolling_out(world)
    rollback.roll_back(at(world))
    assert (world.releases.route().shares, world.releases.route().head_off) == ((live,), True)


def test_sweeper_keeps_the_release_that_was_rolled_back(world: World) -> None:
    replaced(world)
    rollback.roll_back(at(world))
    assert world.sweeper(keep=1).sweep().removed == []
    assert world.deployments() == {release_name(OWNER, A), release_name(OWNER, B)}


def test_release_replaced_last_is_the_previous_one(world: World) -> None:
    good(world, D)
    first, _ = replaced(world)
    assert rollback.roll_back(at(world)).endpoint == first


def test_release_without_a_deployment_is_skipped(world: World) -> None:
    further = good(world, D)
    replaced(world)
    world.bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=release_name(OWNER, A))
    world.advance(600)
    assert rollback.roll_back(at(world)).endpoint == further


def test_second_run_is_refused_and_never_returns_to_the_bad_release(world: World) -> None:
    good(world, D)
    replaced(world)
    rollback.roll_back(at(world))
    error = refused(world, f"{B} has already been rolled back")
    assert f"TO={D}" in error.advice
    assert f"TO={B}" in error.advice


def test_second_rollback_goes_to_the_named_release(world: World) -> None:
    further = good(world, D)
    replaced(world)
    rollback.roll_back(at(world))
    assert rollback.roll_back(at(world), D).endpoint == further
    assert states(world) == {A: RETIRED, B: RETIRED, D: LIVE}


def test_release_that_was_rolled_back_can_be_named_on_purpose(world: World) -> None:
    _, second = replaced(world)
    rollback.roll_back(at(world))
    assert rollback.roll_back(at(world), B).endpoint == second
    assert (world.release(B).rolled_back, world.release(A).state) == (0, RETIRED)


def test_release_after_a_rollback_is_rolled_back_to_the_one_it_replaced(world: World) -> None:
    first, _ = replaced(world)
    rollback.roll_back(at(world))
    world.advance(60)
    endpoint = good(world, C, ROLLING_OUT)
    world.releases.move_with_route(
        C, LIVE, "serves", (live_share(C, endpoint),), after=world.releases.route(), retiring=A
    )
    outcome = rollback.roll_back(at(world))
    assert (outcome.live, outcome.endpoint) == (A, first)


def test_rollout_in_progress_is_ended_and_the_live_release_stays(world: World) -> None:
    _, second = replaced(world)
    rolling_out(world)
    outcome = rollback.roll_back(at(world))
    assert (outcome.live, list(outcome.ended)) == (B, [C])
    assert world.releases.route().shares == (live_share(B, second),)
    assert states(world) == {A: RETIRED, B: LIVE, C: SUPERSEDED}
    again = "raise release.attempt above 1 to start it again"
    assert world.release(C).message == f"rolled back by hand; {again}"
    assert world.release(C).rolled_back > 0
    assert world.executions() == {f"{C}-1": "ABORTED"}


def test_step_that_still_runs_does_not_continue_an_ended_rollout(world: World) -> None:
    replaced(world)
    rolling_out(world)
    rollback.roll_back(at(world))
    world.advance(700)
    result = advance(C, world.releases, CanaryAnalysis(None, OWNER, ROLLOUT, ANY), now=world.now)
    assert result["outcome"] == "failed"
    assert world.releases.route().digests() == {B}


def test_state_changes_before_the_route_and_the_execution_stops_last(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(world)
    rolling_out(world)
    order: list[str] = []

    def stop(**named: Any) -> Any:
        order.append("stop")
        return world.stepfunctions.stop_execution(**named)

    for name in ("transition", "set_route"):
        monkeypatch.setattr(Releases, name, noting(order, name))
    rollback.roll_back(at(world, stepfunctions=Proxy(world.stepfunctions, stop_execution=stop)))
    assert order == ["transition", "set_route", "stop"]


def noting(order: list[str], name: str) -> Any:
    method = getattr(Releases, name)

    def noted(self: Releases, *arguments: Any, **named: Any) -> Any:
        order.append(name)
        return method(self, *arguments, **named)

    return noted


def test_execution_that_cannot_be_stopped_does_not_undo_the_rollback(world: World) -> None:
    replaced(world)
    rolling_out(world)

    def denied(**_: Any) -> None:
        raise world.bedrock.exceptions.ClientError({"Error": {"Code": "AccessDenied"}}, "StopExecution")

    outcome = rollback.roll_back(at(world, stepfunctions=Proxy(world.stepfunctions, stop_execution=denied)))
    assert world.releases.route().digests() == {B}
    assert "AccessDenied" in outcome.unstopped[0]


def test_first_release_is_rolled_back_to_the_base_model(world: World) -> None:
    rolling_out(world)
    outcome = rollback.roll_back(at(world))
    assert (outcome.live, world.releases.route().shares) == (None, ())
    assert states(world) == {C: SUPERSEDED}


def test_rollout_in_progress_is_ended_also_if_another_release_is_named(world: World) -> None:
    first, _ = replaced(world)
    rolling_out(world)
    rollback.roll_back(at(world), A)
    assert world.releases.route().shares == (live_share(A, first),)
    assert states(world) == {A: LIVE, B: RETIRED, C: SUPERSEDED}
    assert world.executions() == {f"{C}-1": "ABORTED"}


def test_running_release_without_a_share_is_ended_too(world: World) -> None:
    replaced(world)
    world.begin(C, run=True)
    assert rollback.roll_back(at(world)).live == A
    assert states(world) == {A: LIVE, B: RETIRED, C: SUPERSEDED}
    assert world.executions() == {f"{C}-1": "ABORTED"}


def test_live_release_with_a_new_attempt_is_rolled_back(world: World) -> None:
    """Its model endpoint is to change, so it is running while it is live."""
    first, second = replaced(world)
    model = world.release(B).model_arn
    world.begin(B, attempt=2, run=True)
    assert (world.release(B).state, model) == (WAITING, world.release(B).model_arn)
    rollback.roll_back(at(world))
    assert world.releases.route().shares == (live_share(A, first),)
    assert states(world) == {A: LIVE, B: RETIRED}
    assert world.executions() == {f"{B}-2": "ABORTED"}
    assert world.release(B).endpoint == second


def test_last_step_of_the_bad_release_is_stopped(world: World) -> None:
    """It would buy throughput, or move it, for the bad model."""
    replaced(world)
    world.stepfunctions.start_execution(stateMachineArn=world.machine, name=f"{B}-1")
    rollback.roll_back(at(world))
    assert world.executions() == {f"{B}-1": "ABORTED"}


def test_throughput_that_serves_the_bad_model_is_not_used_for_the_good_release(world: World) -> None:
    """The item of the old release still names it."""
    first, _ = replaced(world)
    made = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=f"{OWNER}-1mu", modelId=world.release(B).model_arn, modelUnits=1
    )
    world.advance(3600)
    arn = made["provisionedModelArn"]
    for digest in (A, B):
        world.releases.update(digest, endpoint=arn, throughput=f"{OWNER}-1mu")
    world.settle(live_share(B, arn))
    outcome = rollback.roll_back(at(world))
    assert outcome.endpoint == first
    assert (world.release(A).endpoint, world.release(A).throughput) == (first, "")
    assert world.releases.route().shares == (live_share(A, first),)


@pytest.mark.parametrize("serves_it", [True, False])
def test_throughput_without_a_deployment_is_used_only_if_it_serves_the_model(
    world: World, serves_it: bool
) -> None:
    replaced(world)
    made = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=f"{OWNER}-1mu",
        modelId=world.release(A if serves_it else B).model_arn,
        modelUnits=1,
    )
    world.advance(3600)
    world.releases.update(A, endpoint=made["provisionedModelArn"], throughput=f"{OWNER}-1mu")
    world.bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=release_name(OWNER, A))
    world.advance(600)
    if not serves_it:
        refused(world, "no release to go back to")
        return
    assert rollback.roll_back(at(world)).endpoint == made["provisionedModelArn"]
    assert world.release(A).throughput == f"{OWNER}-1mu"


def test_route_that_was_emptied_by_hand_is_filled_again(world: World) -> None:
    first, _ = replaced(world)
    world.settle()
    rollback.roll_back(at(world))
    assert world.releases.route().shares == (live_share(A, first),)
    assert states(world) == {A: LIVE, B: RETIRED}


@pytest.mark.parametrize(
    "broken",
    [
        {"version": "none", "shares": "oops"},
        {"version": Decimal(1), "shares": "oops"},
        {"version": Decimal(1), "shares": [{"digest": B, "endpoint": "arn:b", "share": Decimal(1)}, "oops"]},
    ],
)
@pytest.mark.parametrize("to", ["", A])
def test_broken_route_is_replaced(world: World, broken: dict[str, Any], to: str) -> None:
    first, _ = replaced(world)
    world.releases.table.put_item(Item={"id": world.releases.key("route"), **broken})
    rollback.roll_back(at(world), to)
    route = world.releases.route()
    assert (route.shares, route.problem, route.version) == ((live_share(A, first),), None, 2)
    assert states(world) == {A: LIVE, B: RETIRED}


def test_naming_the_live_release_repairs_a_broken_route(world: World) -> None:
    _, second = replaced(world)
    world.releases.table.put_item(Item={"id": world.releases.key("route"), "version": "none"})
    assert rollback.roll_back(at(world), B).replaced == []
    assert (world.releases.route().shares, world.releases.route().problem) == ((live_share(B, second),), None)
    assert states(world) == {A: RETIRED, B: LIVE}


def test_rollback_without_a_previous_release_is_refused(world: World) -> None:
    world.settle(live_share(B, good(world, B, LIVE)))
    world.begin(A, state=FAILED, message="refused by the gate")
    error = refused(world, f"no release to go back to. Release {B} is live")
    assert f"{A} failed" in str(error)


def test_release_without_a_model_endpoint_is_refused(world: World) -> None:
    replaced(world)
    world.bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=release_name(OWNER, A))
    world.advance(600)
    assert f"{A} no longer has a model endpoint" in refused(world, "no release to go back to").advice
    refused(world, f"{A} can't serve", A)


def test_deployment_that_is_not_active_or_serves_another_model_is_refused(world: World) -> None:
    replaced(world)
    model = world.release(A).model_arn
    world.releases.update(A, model_arn=f"{model}other")
    refused(world, f"{A} can't serve", A)
    world.releases.update(A, model_arn=model)
    real = world.bedrock.get_custom_model_deployment
    creating = Proxy(
        world.bedrock, get_custom_model_deployment=lambda **named: {**real(**named), "status": "Creating"}
    )
    with pytest.raises(OperateError, match="can't serve"):
        rollback.roll_back(at(world, bedrock=creating), A)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (FAILED, "is failed: because"),
        (SUPERSEDED, "is superseded: because"),
        (ROLLING_OUT, "is still running: rolling_out"),
        (LIVE, "out of the route by hand"),
    ],
)
def test_release_that_is_not_retired_is_refused(world: World, state: str, text: str) -> None:
    replaced(world)
    world.begin(C, state=state, message="because")
    refused(world, f"{C} {text}" if state != LIVE else text, C)


def test_live_release_and_unknown_release_are_refused(world: World) -> None:
    replaced(world)
    refused(world, f"{B} is already live", B)
    refused(world, f"no release {D}. Release {B} is live. All releases: ", D)


def test_environment_without_releases_says_so(world: World) -> None:
    with pytest.raises(OperateError, match="No release has begun"):
        rollback.roll_back(at(world))


class Meanwhile:
    """A change between read and write, a number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, happens: Any, times: int) -> None:
        self.left = times
        original = getattr(Releases, method)

        def interrupted(releases: Releases, *arguments: Any, **named: Any) -> Any:
            if self.left:
                self.left -= 1
                happens()
            return original(releases, *arguments, **named)

        monkeypatch.setattr(Releases, method, interrupted)


def test_changed_route_is_read_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = replaced(world)
    Meanwhile(monkeypatch, "roll_back", lambda: world.settle(live_share(B, second)), 2)
    rollback.roll_back(at(world))
    assert world.releases.route().shares == (live_share(A, first),)


def test_route_that_keeps_changing_ends_the_rollback(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, second = replaced(world)
    Meanwhile(monkeypatch, "roll_back", lambda: world.settle(live_share(B, second)), 99)
    with pytest.raises(OperateError, match="keeps changing"):
        rollback.roll_back(at(world))
    assert states(world) == {A: RETIRED, B: LIVE}
    assert world.releases.route().digests() == {B}


def test_target_with_a_new_attempt_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(world)
    Meanwhile(monkeypatch, "roll_back", lambda: world.begin(A, attempt=2), 1)
    with pytest.raises(OperateError, match="no longer retired"):
        rollback.roll_back(at(world))
    assert states(world)[B] == LIVE
    assert world.releases.route().digests() == {B}


def test_share_of_an_ended_release_is_taken_back_also_if_the_rollback_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, second = replaced(world)
    rolling_out(world)
    Meanwhile(monkeypatch, "roll_back", lambda: world.begin(A, attempt=2), 1)
    with pytest.raises(OperateError, match="no longer retired"):
        rollback.roll_back(at(world), A)
    assert world.releases.route().shares == (live_share(B, second),)
    assert (states(world)[B], states(world)[C]) == (LIVE, SUPERSEDED)
    assert world.executions() == {f"{C}-1": "ABORTED"}


def test_candidate_that_goes_live_during_the_rollback_is_rolled_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, second = replaced(world)
    rolling_out(world)
    settle = world.releases.move_with_route

    def goes_live() -> None:
        settle(C, LIVE, "serves", (live_share(C, "arn:c"),), after=world.releases.route(), retiring=B)

    Meanwhile(monkeypatch, "transition", goes_live, 1)
    assert rollback.roll_back(at(world)).replaced == [C]
    assert world.releases.route().shares == (live_share(B, second),)
    assert states(world) == {A: RETIRED, B: LIVE, C: RETIRED}


def test_candidate_that_fails_during_the_rollback_leaves_the_live_release(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, second = replaced(world)
    rolling_out(world)

    def fails() -> None:
        world.releases.table.update_item(
            Key={"id": world.releases.key(f"release@{C}")},
            UpdateExpression="SET #s = :s",
            ExpressionAttributeNames={"#s": "state"},
            ExpressionAttributeValues={":s": FAILED},
        )
        world.releases.withdraw(C, "failed")

    Meanwhile(monkeypatch, "transition", fails, 1)
    rollback.roll_back(at(world))
    assert world.releases.route().shares == (live_share(B, second),)
    assert states(world) == {A: RETIRED, B: LIVE, C: FAILED}


def said(outcome: Outcome, world: World) -> str:
    return "\n".join(rollback.summary(outcome, at(world)))


def test_summary_names_ended_replaced_and_live_releases(world: World) -> None:
    replaced(world)
    world.begin(C, run=True)
    text = said(rollback.roll_back(at(world)), world)
    assert f"Release {C} has been ended; it was waiting" in text
    assert f"Release {A} takes all requests now, on demand" in text
    assert f"only TO={B} goes back to it" in text
    assert "rollout.keep_releases = 1" in text
    assert "a new digest starts a new release" in text


def test_summary_without_a_live_release_names_the_base_model() -> None:
    where = Deployed("dev", OWNER, 0, None, None, None)
    text = "\n".join(rollback.summary(Outcome(None, replaced=[B], unstopped=["arn:x: denied"]), where))
    assert "The base model takes all requests" in text
    assert "keep_releases = 0" in text
    assert "arn:x: denied" in text
