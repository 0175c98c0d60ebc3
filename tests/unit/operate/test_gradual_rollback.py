"""Rolling back step by step: its steps, what withdraws the share, and the state if the command dies."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from distilled_router.bedrock.naming import release_name
from distilled_router.release.route import HeadFile, Route, Share
from distilled_router.release.table import LIVE, RETIRED
from operate import rollback
from operate.console import Terminal
from operate.errors import OperateError
from operate.gradual_rollback import GradualRollback
from rollout.canary import CanaryAnalysis
from rollout.roll_out import EXPIRY_MARGIN_SECONDS
from tests.unit.operate.test_rollback import at, everything, replaced, rolling_out, states
from tests.unit.release_world import ANY, OWNER, A, B, C, World, live_share, rollout
from tests.unit.rollout.test_rollout import RolloutScene

DWELL = 600
ROLLOUT = rollout(0.25, 0.5, 1.0, maximum_fallback_rate=0.1, probes=50)


class Command:
    """The command while B is live and A is the previous good release. `during` happens in each step."""

    def __init__(self, world: World, cloudwatch: Any) -> None:
        self.world = world
        self.first, self.second = replaced(world)
        self.rollout = RolloutScene(world, cloudwatch)
        self.seen: list[list[tuple[str, float, int | None]]] = []
        self.during: Callable[[], object] = lambda: None
        self.told = io.StringIO()

    def run(self, to: str = "") -> rollback.Outcome:
        canary = CanaryAnalysis(self.rollout.cloudwatch, self.rollout.name, ROLLOUT, ANY)
        console = Terminal(file=self.told, width=200)
        return rollback.roll_back(at(self.world), to, GradualRollback(canary, console, self._pause))

    def _pause(self, seconds: float) -> None:
        shares = self.world.releases.route().shares
        self.seen.append(
            [(s.digest, s.share, s.expires_at and int(s.expires_at - self.world.now)) for s in shares]
        )
        self.during()
        self.world.advance(seconds)


@pytest.fixture
def command(world: World, aws: Callable[[str], Any]) -> Command:
    return Command(world, aws("cloudwatch"))


def test_previous_release_gets_its_share_by_steps_and_is_live_at_the_end(
    world: World, command: Command
) -> None:
    outcome = command.run()
    expiry = DWELL + EXPIRY_MARGIN_SECONDS
    assert command.seen == [
        [(A, 0.25, expiry), (B, 0.75, None)],
        [(A, 0.5, expiry), (B, 0.5, None)],
    ]
    assert (outcome.live, outcome.endpoint, outcome.replaced) == (A, command.first, [B])
    assert world.releases.route().shares == (live_share(A, command.first),)
    assert states(world) == {A: LIVE, B: RETIRED}
    assert world.release(B).rolled_back > 0
    assert f"Release {A} gets 25% of the requests for 10 min 0 s." in command.told.getvalue()


def test_each_step_gives_both_releases_their_heads(world: World, command: Command) -> None:
    heads = {digest: HeadFile(f"{digest}/head.bin", digest * 5) for digest in (A, B)}
    for digest, head in heads.items():
        world.releases.update(digest, head=head.key, head_sha256=head.sha256)
    world.settle(world.release(B).share(1.0))
    routes: list[Route] = []
    command.during = lambda: routes.append(world.releases.route())
    command.run()
    assert [{share.digest: share.head for share in route.shares} for route in routes] == [heads, heads]
    assert world.releases.route().shares == (Share(A, command.first, 1.0, head=heads[A]),)


def test_no_state_changes_before_the_last_step(world: World, command: Command) -> None:
    command.during = lambda: seen.append(states(world))
    seen: list[dict[str, str]] = []
    command.run()
    assert seen == [{A: RETIRED, B: LIVE}] * 2


def test_release_in_its_steps_is_not_swept(world: World, command: Command) -> None:
    command.during = lambda: removed.extend(world.sweeper(keep=0).sweep().removed)
    removed: list[Any] = []
    command.run()
    assert removed == []


def test_bad_metrics_take_the_share_back_and_are_named(world: World, command: Command) -> None:
    def fall_back() -> None:
        command.rollout.count(40, release=A, CanaryFallback=15)

    command.during = fall_back
    with pytest.raises(
        OperateError, match=r"25% of the requests: fallback rate is 37\.5% of 40 queries"
    ) as caught:
        command.run()
    assert f"TO={A}" in caught.value.advice
    assert len(command.seen) == 1
    assert world.releases.route().shares == (live_share(B, command.second),)
    assert states(world) == {A: RETIRED, B: LIVE}


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_command_takes_the_share_back(
    world: World, command: Command, error: type[BaseException]
) -> None:
    def interrupt() -> None:
        raise error

    command.during = interrupt
    with pytest.raises(error):
        command.run()
    assert world.releases.route().shares == (live_share(B, command.second),)
    assert states(world) == {A: RETIRED, B: LIVE}


def test_killed_command_leaves_a_share_that_expires(world: World, command: Command) -> None:
    """A killed process withdraws nothing: the route stays as it is in each step."""
    left: list[Any] = []
    command.during = lambda: left.append(world.releases.route())
    command.run()
    late = world.now + DWELL + EXPIRY_MARGIN_SECONDS + 1
    for route in left:
        assert {share.digest for n in range(50) if (share := route.choose(str(n), late))} == {B}


def test_deployment_deleted_in_the_last_step_leaves_no_share(world: World, command: Command) -> None:
    """Queries of its share would fail until it expires."""

    def delete() -> None:
        if len(command.seen) == 2:
            world.bedrock.delete_custom_model_deployment(
                customModelDeploymentIdentifier=release_name(OWNER, A)
            )

    command.during = delete
    with pytest.raises(OperateError, match=f"Release {A} can't serve"):
        command.run()
    assert world.releases.route().shares == (live_share(B, command.second),)
    assert states(world) == {A: RETIRED, B: LIVE}


def test_changed_route_ends_the_gradual_rollback(world: World, command: Command) -> None:
    command.during = lambda: rolling_out(world)
    with pytest.raises(OperateError, match="changed by someone else"):
        command.run()
    assert [share.digest for share in world.releases.route().shares] == [C, B]
    assert states(world)[A] == RETIRED


def test_gradual_rollback_is_refused_while_a_release_is_running(world: World, command: Command) -> None:
    rolling_out(world)
    world.settle(Share(B, command.second, 1.0))
    before = everything(world)
    with pytest.raises(OperateError, match=f"Release {C} is running"):
        command.run()
    assert everything(world) == before


def test_rollout_in_progress_is_withdrawn_at_once(world: World, command: Command) -> None:
    """The live release gets all requests at once; no other release is rolled out."""
    rolling_out(world)
    outcome = command.run()
    assert (outcome.live, list(outcome.ended), command.seen) == (B, [C], [])
    assert world.releases.route().shares == (live_share(B, command.second),)


def test_refused_target_gets_no_share(world: World, command: Command) -> None:
    before = everything(world)
    with pytest.raises(OperateError, match=f"Release {B} is already live"):
        command.run(to=B)
    assert everything(world) == before
