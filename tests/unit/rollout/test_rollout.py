"""The rollout: steps, dwell, breaches, crashes and concurrent changes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from distilled_router.aws.state_machine import StageResult
from distilled_router.env import RolloutEnv
from distilled_router.release.rollout import Rollout
from distilled_router.release.route import HeadFile, Share
from distilled_router.release.table import LIVE, RETIRED, ROLLING_OUT, SUPERSEDED, RouteChangedError
from rollout import handler
from rollout.canary import Analysis, CanaryAnalysis
from rollout.evidence import Probed
from rollout.roll_out import EXPIRY_MARGIN_SECONDS, advance
from tests.unit.release_world import ANY, A, B, World, live_share, rollout

DWELL = 600
ROLLOUT = rollout(
    0.25,
    0.5,
    1.0,
    dwell_seconds=DWELL,
    maximum_error_rate=0.05,
    maximum_fallback_rate=0.1,
    maximum_invalid_output_rate=0.05,
)
# What the reason of a breach calls the rate that each metric counts for.
RATES = {
    "CanaryErrors": "error rate",
    "CanaryFallback": "fallback rate",
    "CanaryInvalidOutput": "invalid output rate",
}


class RolloutScene:
    """A rollout of release B while A is live."""

    def __init__(self, world: World, cloudwatch: Any) -> None:
        self.world, self.cloudwatch = world, cloudwatch
        # Metrics have no table of their own: another name in each test keeps them apart.
        self.name = world.name

    def step(self, rollout: Rollout = ROLLOUT, digest: str = B) -> StageResult:
        world = self.world
        analysis = CanaryAnalysis(self.cloudwatch, self.name, rollout, ANY)
        return advance(digest, world.releases, analysis, now=world.now)

    def count(
        self,
        queries: int,
        *,
        release: str = B,
        ago: float = 0,
        processes: int = 1,
        bad: Mapping[str, int] | None = None,
        **more: int,
    ) -> None:
        """Let routers count queries, some of them as bad by one of the metrics."""
        counted = {**dict.fromkeys(RATES, 0), "CanaryProcesses": processes, **(bad or {}), **more}
        for metric, ones in counted.items():
            self.emit(metric, {1: ones, 0: queries - ones}, release, ago)

    def emit(self, metric: str, counts: dict[float, int], release: str = B, ago: float = 0) -> None:
        """Write values of a metric, by how often each occurs."""
        found = {value: number for value, number in counts.items() if number}
        if not found:
            return
        self.cloudwatch.put_metric_data(
            Namespace="DistilledRouter",
            MetricData=[
                {
                    "MetricName": metric,
                    "Dimensions": [
                        {"Name": "service", "Value": self.name},
                        {"Name": "release", "Value": release},
                    ],
                    "Timestamp": datetime.fromtimestamp(self.world.now - ago, UTC),
                    "Values": list(found),
                    "Counts": list(found.values()),
                    "Unit": "Count",
                }
            ],
        )

    def shares(self) -> list[tuple[str, float, bool]]:
        """Return release, share, and whether the share expires."""
        found = self.world.releases.route().shares
        return [(share.digest, share.share, share.expires_at is not None) for share in found]


@pytest.fixture
def scene(world: World, aws: Callable[[str], Any]) -> RolloutScene:
    world.begin(A, endpoint="arn:a", state=LIVE)
    world.settle(live_share(A, "arn:a"))
    world.begin(B, endpoint="arn:b")
    return RolloutScene(world, aws("cloudwatch"))


@contextlib.contextmanager
def around_transaction(world: World, event: str, act: Callable[..., None]) -> Iterator[None]:
    """Do something at an event of the next TransactWriteItems."""
    done: list[bool] = []

    def once(**_: Any) -> None:
        if not done:
            done.append(True)
            act()

    events = world.releases.table.meta.client.meta.events
    events.register(f"{event}.dynamodb.TransactWriteItems", once)
    try:
        yield
    finally:
        events.unregister(f"{event}.dynamodb.TransactWriteItems", once)


def test_share_grows_in_steps_up_to_all_requests(world: World, scene: RolloutScene) -> None:
    assert scene.step() == {"outcome": "waiting", "message": "25% of the requests", "seconds": DWELL}
    assert scene.shares() == [(B, 0.25, True), (A, 0.75, False)]
    assert (world.release(B).state, world.release(B).step) == (ROLLING_OUT, 0)
    world.advance(DWELL)
    scene.step()
    assert scene.shares() == [(B, 0.5, True), (A, 0.5, False)]
    world.advance(DWELL)
    scene.step()
    assert scene.shares() == [(B, 1.0, True), (A, 0.0, False)]
    assert world.release(A).state == LIVE
    world.advance(DWELL)
    assert scene.step()["outcome"] == "done"
    assert world.releases.route().shares == (Share(B, "arn:b", 1.0),)
    assert (world.release(A).state, world.release(B).state) == (RETIRED, LIVE)
    assert world.release(A).message == f"replaced by release {B}"


def test_candidate_and_live_release_have_their_own_heads(world: World, scene: RolloutScene) -> None:
    heads = {digest: HeadFile(f"{digest}/head.bin", digest * 5) for digest in (A, B)}
    for digest, head in heads.items():
        world.releases.update(digest, head=head.key, head_sha256=head.sha256)
    world.settle(world.release(A).share(1.0))
    world.releases.switch_heads(off=True, after=world.releases.route(), reason="by hand")
    for expected in ([B, A], [B, A], [B, A], [B]):
        scene.step()
        route = world.releases.route()
        assert [share.digest for share in route.shares] == expected
        assert {share.digest: share.head for share in route.shares}.items() <= heads.items()
        assert route.head_off
        world.advance(DWELL)


def test_each_step_dwells(world: World, scene: RolloutScene) -> None:
    scene.step()
    version = world.releases.route().version
    world.advance(DWELL - 1)
    assert scene.step() == {"outcome": "waiting", "message": "25% of the requests", "seconds": 1}
    assert world.releases.route().version == version


def test_first_release_is_rolled_out_from_the_empty_route(world: World, scene: RolloutScene) -> None:
    world.settle()
    scene.step()
    assert scene.shares() == [(B, 0.25, True)]
    for _ in range(3):
        world.advance(DWELL)
        outcome = scene.step()["outcome"]
    assert outcome == "done"
    assert world.releases.route().shares == (Share(B, "arn:b", 1.0),)


def test_only_partial_shares_expire_so_that_an_interrupted_rollout_falls_back(
    world: World, scene: RolloutScene
) -> None:
    scene.step()
    candidate, stays = world.releases.route().shares
    assert candidate.expires_at == int(world.now) + DWELL + EXPIRY_MARGIN_SECONDS
    assert stays.expires_at is None
    late = world.now + DWELL + EXPIRY_MARGIN_SECONDS + 1
    route = world.releases.route()
    assert {share.digest for n in range(50) if (share := route.choose(str(n), late))} == {A}


def test_step_that_comes_after_its_share_expired_continues(world: World, scene: RolloutScene) -> None:
    scene.step()
    world.advance(DWELL + EXPIRY_MARGIN_SECONDS + 60)
    assert scene.step()["message"] == "50% of the requests"


def broken(world: World) -> None:
    """Break the route item by hand; routers keep using the last one that they could read."""
    world.releases.table.put_item(
        Item={"id": world.releases.key("route"), "version": "none", "shares": "all of them"}
    )


def test_a_broken_route_is_put_right_by_the_next_step_and_the_live_release_keeps_its_part(
    world: World, scene: RolloutScene
) -> None:
    scene.step()
    for share in (0.5, 1.0):
        broken(world)
        world.advance(DWELL)
        scene.step()
        assert world.releases.route().problem is None
        assert scene.shares() == [(B, share, True), (A, 1 - share, False)]


@pytest.mark.parametrize("deleted", [False, True])
def test_the_last_step_retires_the_live_release_although_the_route_does_not_name_it(
    world: World, scene: RolloutScene, deleted: bool
) -> None:
    """Otherwise a rollback could never go back to it."""
    for _ in range(3):
        scene.step()
        world.advance(DWELL)
    if deleted:
        world.releases.table.delete_item(Key={"id": world.releases.key("route")})
    else:
        broken(world)
    assert scene.step()["outcome"] == "done"
    assert scene.shares() == [(B, 1.0, False)]
    assert (world.release(A).state, world.release(B).state) == (RETIRED, LIVE)


def test_breach_takes_the_release_back_although_the_route_is_broken(
    world: World, scene: RolloutScene
) -> None:
    scene.step()
    broken(world)
    scene.count(100, CanaryFallback=100)
    world.advance(DWELL)
    assert scene.step()["outcome"] == "failed"
    assert scene.shares() == [(A, 1.0, False)]


@pytest.mark.parametrize(
    ("metric", "bad", "text"),
    [
        ("CanaryErrors", 16, "error rate is 16.0% of 100 queries, clearly above the allowed 5.0%"),
        ("CanaryFallback", 24, "fallback rate is 24.0% of 100 queries, clearly above the allowed 10.0%"),
        (
            "CanaryInvalidOutput",
            100,
            "invalid output rate is 100.0% of 100 queries, clearly above the allowed 5.0%",
        ),
    ],
)
def test_rate_clearly_above_its_limit_takes_the_release_back(
    world: World, scene: RolloutScene, metric: str, bad: int, text: str
) -> None:
    scene.step()
    world.advance(DWELL)
    scene.count(60, bad={metric: min(bad, 60)})
    scene.count(40, bad={metric: max(bad - 60, 0)})
    result = scene.step()
    assert result["outcome"] == "failed"
    assert result["message"] == f"rolled back at 25% of the requests: {text}"
    assert world.releases.route().shares == (live_share(A, "arn:a"),)
    assert text in world.releases.route().reason


@pytest.mark.parametrize(
    ("queries", "fallbacks", "outcome"),
    [
        (100, 6, "waiting"),  # one in seventy with 2 %
        (100, 7, "failed"),
        (5_000, 160, "waiting"),  # one in five with 3 %
        (5_000, 170, "failed"),
    ],
)
def test_neither_two_thirds_of_the_limit_nor_the_limit_itself_may_explain_a_breach(
    world: World, scene: RolloutScene, queries: int, fallbacks: int, outcome: str
) -> None:
    """Where there is little evidence the first decides, and where there is much the second."""
    strict = replace(ROLLOUT, maximum_fallback_rate=0.03)
    scene.step(strict)
    world.advance(DWELL)
    scene.count(queries, CanaryFallback=fallbacks)
    assert scene.step(strict)["outcome"] == outcome


@pytest.mark.parametrize(
    ("requests", "fallbacks", "outcome"),
    [(1_000, 210, "failed"), (1_000, 190, "waiting"), (190, 180, "waiting")],
)
def test_few_queries_that_are_many_requests_fail_a_release(
    world: World, scene: RolloutScene, requests: int, fallbacks: int, outcome: str
) -> None:
    """Twenty frequent queries are a third of Zipf traffic, and 2 % of the different queries of a process."""
    scene.step()
    world.advance(DWELL)
    scene.count(500, CanaryFallback=10)
    scene.emit("Fallback", {1: fallbacks, 0: requests - fallbacks})
    result = scene.step()
    assert result["outcome"] == outcome
    if outcome == "failed":
        assert "21.0% of 1000 requests were answered by a fallback" in result["message"]


def test_requests_that_a_head_answered_are_no_fallbacks(world: World, scene: RolloutScene) -> None:
    """210 fallbacks are a tenth of what users asked for, and each query that falls back is a rare one."""
    scene.step()
    world.advance(DWELL)
    scene.emit("Fallback", {1: 210, 0: 790})
    scene.emit("HeadAnswers", {1: 1_000, 0: 1_000})
    assert scene.step()["message"] == "50% of the requests"


def test_head_that_answers_all_is_no_evidence(world: World, scene: RolloutScene) -> None:
    """Then only probes can tell something of the model."""
    scene.step()
    world.advance(DWELL)
    scene.emit("HeadAnswers", {1: 1_000})
    scene.emit("CanaryHead", {1: 500})
    scene.emit("CanaryProcesses", {1: 1, 0: 499})
    assert scene.step()["message"] == "50% of the requests"


@pytest.mark.parametrize(
    ("left", "bad", "explored", "explored_bad", "by_head", "outcome"),
    [
        (400, 40, 30, 0, 570, "waiting"),  # 4 % of all queries, where 5 % are allowed
        (400, 40, 60, 6, 540, "failed"),  # 10 % of all
        (400, 40, 0, 0, 0, "failed"),
        (400, 130, 0, 0, 600, "failed"),  # at least 11 % of all, if those that it was not asked are good
        (400, 130, 0, 0, 2_600, "waiting"),
    ],
)
def test_limit_is_for_all_queries_also_those_that_the_head_answered(
    world: World,
    scene: RolloutScene,
    left: int,
    bad: int,
    explored: int,
    explored_bad: int,
    by_head: int,
    outcome: str,
) -> None:
    """The head leaves the hard ones to the model."""
    scene.step()
    world.advance(DWELL)
    scene.count(left, CanaryInvalidOutput=bad)
    scene.emit("CanaryExploredInvalidOutput", {1: explored_bad, 0: explored - explored_bad})
    scene.emit("CanaryHead", {1: by_head})
    result = scene.step()
    assert result["outcome"] == outcome
    if explored_bad:
        told = "invalid output rate is 10.0% of 1000 queries (its model was asked 460), clearly above"
        assert told in result["message"]


@pytest.mark.parametrize(("bad", "outcome"), [(80, "waiting"), (200, "failed")])
def test_releases_with_other_heads_are_compared_by_all_queries(
    world: World, scene: RolloutScene, bad: int, outcome: str
) -> None:
    """The live release has no head, and the candidate's leaves two fifths of the queries to its model."""
    loose = replace(ROLLOUT, maximum_invalid_output_rate=0.2, maximum_fallback_rate=0.2)
    scene.step(loose)
    world.advance(DWELL)
    scene.count(2_000, release=A, CanaryInvalidOutput=40)
    scene.count(800, CanaryInvalidOutput=bad)
    scene.emit("CanaryExploredInvalidOutput", {0: 60})
    scene.emit("CanaryHead", {1: 1_140})
    result = scene.step(loose)
    assert result["outcome"] == outcome
    if outcome == "failed":
        told = "10.0% of 2000 queries (its model was asked 860), and 2.0% of 2000 of the live release"
        assert told in result["message"]


def test_evidence_is_pooled_over_the_rounds(world: World, scene: RolloutScene) -> None:
    """Seven errors of 100 may be chance where 5 % are allowed; three rounds of them are not."""
    baking = replace(ROLLOUT, bake_seconds=3 * DWELL)
    for number in range(3):
        assert scene.step(baking)["outcome"] == "waiting"
        world.advance(DWELL)
        scene.count(100, processes=int(number == 0), CanaryErrors=7)
    told = "error rate is 7.0% of 300 queries, clearly above the allowed 5.0%"
    assert told in scene.step(baking)["message"]


def test_evidence_of_an_earlier_rollout_of_the_release_does_not_count(
    world: World, scene: RolloutScene
) -> None:
    scene.count(500, CanaryErrors=500)
    world.advance(120)
    scene.step()
    world.advance(DWELL)
    assert scene.step()["message"] == "50% of the requests"


def test_rollout_that_began_under_an_older_version_goes_on(world: World, scene: RolloutScene) -> None:
    """Its item does not say when it began: only its present step counts."""
    scene.step()
    world.releases.update(B, rolling_since=0, probed="damaged")
    world.advance(DWELL)
    scene.count(100, CanaryErrors=90)
    assert scene.step()["outcome"] == "failed"


@pytest.mark.parametrize(
    ("processes", "repeated", "outcome"),
    [(1, 0, "failed"), (1, 90, "failed"), (10, 0, "failed"), (10, 30, "waiting")],
)
def test_queries_that_every_process_sees_fail_no_release(
    world: World, scene: RolloutScene, processes: int, repeated: int, outcome: str
) -> None:
    """A frequent query that fails counts in each of ten processes. Where none is repeated, all differ."""
    scene.step()
    world.advance(DWELL)
    scene.count(100, processes=processes, CanaryErrors=15, CanaryRepeated=repeated)
    assert scene.step()["outcome"] == outcome


@pytest.mark.parametrize("metric", list(RATES))
def test_candidate_that_is_worse_than_the_live_release_is_rolled_back_within_its_own_limits(
    world: World, scene: RolloutScene, metric: str
) -> None:
    """4.5 % are allowed, and the live release has none."""
    scene.step()
    scene.count(2_000, bad={metric: 90})
    scene.count(6_000, release=A)
    world.advance(DWELL)
    result = scene.step()
    assert result["outcome"] == "failed"
    told = f"{RATES[metric]} is 4.5% of 2000 queries, and 0.0% of 6000 of the live release"
    assert told in result["message"]
    assert scene.shares() == [(A, 1.0, False)]


@pytest.mark.parametrize(
    ("queries", "errors", "theirs", "their_errors"),
    [
        (100, 4, 300, 0),  # may be chance
        (2, 1, 300, 0),  # may be chance
        (2_000, 90, 6_000, 240),  # the live release has them as well
        (2_000, 90, 10, 0),  # too few to decide
        (2_000, 90, 0, 0),
        (2_000, 90, 600, 0),  # which are the same twenty queries in thirty processes
    ],
)
def test_candidate_that_may_be_equal_is_rolled_out(
    world: World, scene: RolloutScene, queries: int, errors: int, theirs: int, their_errors: int
) -> None:
    scene.step()
    scene.count(queries, CanaryErrors=errors)
    again: dict[str, Any] = {"processes": min(theirs, 1)}
    if theirs == 600:
        again = {"processes": 30, "CanaryRepeated": 600}
    scene.count(theirs, release=A, CanaryErrors=their_errors, **again)
    world.advance(DWELL)
    assert scene.step()["message"] == "50% of the requests"


def test_candidate_bakes_with_all_requests_before_it_becomes_the_live_release(
    world: World, scene: RolloutScene
) -> None:
    """In rounds of the dwell time, each with its own expiry: if the execution dies, the share expires."""
    rollout = replace(ROLLOUT, steps=(1.0,), bake_seconds=DWELL + 1)
    assert scene.step(rollout)["message"] == "100% of the requests"
    for _ in range(2):
        world.advance(DWELL)
        baking = scene.step(rollout)
        assert (baking["message"], baking["seconds"]) == ("100% of the requests, baking", DWELL)
        assert scene.shares() == [(B, 1.0, True), (A, 0.0, False)]
        assert world.releases.route().shares[0].expires_at == int(world.now) + DWELL + EXPIRY_MARGIN_SECONDS
        assert world.release(A).state == LIVE
    world.advance(DWELL)
    assert scene.step(rollout)["outcome"] == "done"
    assert scene.shares() == [(B, 1.0, False)]


def test_breach_while_it_bakes_takes_everything_back(world: World, scene: RolloutScene) -> None:
    rollout = replace(ROLLOUT, steps=(1.0,), bake_seconds=DWELL)
    for _ in range(2):
        scene.step(rollout)
        world.advance(DWELL)
    scene.count(100, CanaryInvalidOutput=50)
    assert scene.step(rollout)["message"].startswith("rolled back at 100% of the requests, baking: invalid")
    assert world.releases.route().shares == (live_share(A, "arn:a"),)


def test_breach_at_the_last_step_takes_everything_back(world: World, scene: RolloutScene) -> None:
    for _ in range(3):
        scene.step()
        world.advance(DWELL)
    scene.count(100, CanaryErrors=50)
    assert scene.step()["message"].startswith("rolled back at 100% of the requests")
    assert world.releases.route().shares == (live_share(A, "arn:a"),)


def test_rate_at_its_limit_is_allowed(world: World, scene: RolloutScene) -> None:
    scene.step()
    world.advance(DWELL)
    scene.count(100, CanaryErrors=5)
    assert scene.step()["message"] == "50% of the requests"


@pytest.mark.parametrize("queries", [0, 1])
def test_too_few_queries_say_nothing_against_a_release(
    world: World, scene: RolloutScene, queries: int
) -> None:
    scene.step()
    world.advance(DWELL)
    scene.count(queries, processes=queries, CanaryFallback=queries)
    assert scene.step()["message"] == "50% of the requests"


def test_limit_of_zero_and_no_requests_is_no_division_by_zero(world: World, scene: RolloutScene) -> None:
    strict = rollout(1.0, maximum_error_rate=0.0)
    scene.step(strict)
    world.advance(DWELL)
    assert scene.step(strict)["outcome"] == "done"


def test_only_the_releases_own_metrics_count(world: World, scene: RolloutScene) -> None:
    scene.step()
    world.advance(DWELL)
    scene.count(100)
    scene.count(100, release=A, CanaryErrors=100)
    assert scene.step()["message"] == "50% of the requests"


def test_step_that_dies_before_its_write_is_taken_again(world: World, scene: RolloutScene) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    with around_transaction(world, "before-call", die), pytest.raises(KeyboardInterrupt):
        scene.step()
    assert scene.shares() == [(A, 1.0, False)]
    assert scene.step()["message"] == "25% of the requests"


@pytest.mark.parametrize("steps", [0, 3])
def test_step_whose_answer_was_lost_is_not_taken_twice(world: World, scene: RolloutScene, steps: int) -> None:
    """Route and release change in one transaction, so no crash leaves one without the other."""

    def die() -> None:
        raise KeyboardInterrupt

    for _ in range(steps):
        scene.step()
        world.advance(DWELL)
    with around_transaction(world, "after-call", die), pytest.raises(KeyboardInterrupt):
        scene.step()
    version = world.releases.route().version
    assert scene.step()["outcome"] == ("done" if steps else "waiting")
    assert world.releases.route().version == version
    assert scene.shares() == ([(B, 1.0, False)] if steps else [(B, 0.25, True), (A, 0.75, False)])


@pytest.mark.parametrize("steps", [0, 3])
def test_lost_race_changes_nothing_and_is_decided_anew(world: World, scene: RolloutScene, steps: int) -> None:
    for _ in range(steps):
        scene.step()
        world.advance(DWELL)
    before = world.release(B)

    def other_writer() -> None:
        world.settle(live_share(A, "arn:moved"))

    with around_transaction(world, "before-call", other_writer), pytest.raises(RouteChangedError):
        scene.step()
    assert world.release(B) == before
    assert scene.shares() == [(A, 1.0, False)]
    scene.step()
    assert scene.shares() == ([(B, 1.0, False)] if steps else [(B, 0.25, True), (A, 0.75, False)])


def test_lost_race_is_no_failure_of_the_release(
    world: World, scene: RolloutScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = RolloutEnv(
        owner=world.releases.owner,
        table_name="releases",
        bucket="data",
        holdout_key="holdout.jsonl",
        rollout=asdict(rollout(1.0)),
        gate=asdict(ANY),
    )
    for name, value in env.variables().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(handler, "table", lambda _: world.releases.table)
    monkeypatch.setattr(handler, "client", lambda _: scene.cloudwatch)
    with around_transaction(world, "before-call", lambda: world.settle(live_share(A, "arn:moved"))):
        assert handler.roll_out({"release": B}, None)["outcome"] == "waiting"
    assert handler.roll_out({"release": B}, None)["message"] == "100% of the requests"


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_release_that_is_superseded_during_a_step_gets_no_share(
    world: World, scene: RolloutScene, steps: int
) -> None:
    for _ in range(steps):
        scene.step()
        world.advance(DWELL)

    def supersede() -> None:
        world.releases.transition(B, SUPERSEDED, "by another")

    with around_transaction(world, "before-call", supersede):
        assert scene.step()["outcome"] == "failed"
    world.releases.withdraw(B, "superseded")
    assert world.releases.route().shares == (live_share(A, "arn:a"),)
    assert (world.release(A).state, world.release(B).state) == (LIVE, SUPERSEDED)
    assert scene.step()["outcome"] == "failed"


def test_unknown_release_is_not_rolled_out(scene: RolloutScene) -> None:
    assert scene.step(digest="dddddddddddd")["outcome"] == "failed"


def test_fewer_steps_in_new_settings_end_the_rollout(world: World, scene: RolloutScene) -> None:
    scene.step()
    world.advance(DWELL)
    scene.step()
    world.advance(DWELL)
    assert scene.step(rollout(1.0))["outcome"] == "done"


def test_breach_after_the_settings_lost_steps_is_reported(world: World, scene: RolloutScene) -> None:
    scene.step()
    world.advance(DWELL)
    scene.step()
    world.advance(DWELL)
    scene.count(10, CanaryErrors=10)
    result = scene.step(rollout(1.0, maximum_error_rate=0.1))
    assert result["message"].startswith("rolled back at 50% of the requests")


def test_live_release_that_the_table_lost_is_replaced_all_the_same(world: World, scene: RolloutScene) -> None:
    world.releases.table.delete_item(Key={"id": world.releases.key(f"release@{A}")})
    at_once = rollout(1.0)
    scene.step(at_once)
    world.advance(DWELL)
    assert scene.step(at_once)["outcome"] == "done"
    assert world.release(A).state == RETIRED


@dataclass(frozen=True, kw_only=True)
class Given(CanaryAnalysis):
    """An analysis whose result the test gives."""

    found: Analysis

    @classmethod
    def of(cls, scene: RolloutScene, found: Analysis) -> Given:
        return cls(cloudwatch=scene.cloudwatch, owner=scene.name, rollout=ROLLOUT, gate=ANY, found=found)

    def analyse(self, *_: Any) -> Analysis:
        return self.found


def rounds(world: World, scene: RolloutScene, found: Analysis) -> tuple[StageResult, float]:
    """Return the first result that is not about failed probes, and the seconds until it."""
    scene.step()
    world.advance(DWELL)
    began = world.now
    while True:
        result = advance(B, world.releases, Given.of(scene, found), now=world.now)
        if "could not be asked" not in result["message"] or result["outcome"] != "waiting":
            return result, world.now - began
        assert (B, 0.25, True) in scene.shares()
        world.advance(result["seconds"])


def test_candidate_whose_probes_fail_for_long_is_rolled_back(world: World, scene: RolloutScene) -> None:
    result, seconds = rounds(world, scene, Analysis(None, "the candidate could not be asked", ""))
    assert result["message"] == "rolled back at 25% of the requests: the candidate could not be asked"
    # The share has not expired meanwhile.
    assert 600 <= seconds < EXPIRY_MARGIN_SECONDS - 120
    assert scene.shares() == [(A, 1.0, False)]


def test_live_release_whose_probes_fail_for_long_holds_up_no_candidate(
    world: World, scene: RolloutScene
) -> None:
    result, seconds = rounds(world, scene, Analysis(None, "", "the live release could not be asked"))
    assert (result["outcome"], result["message"]) == ("waiting", "50% of the requests")
    assert 600 <= seconds < EXPIRY_MARGIN_SECONDS - 120


def test_breach_waits_for_no_probes(world: World, scene: RolloutScene) -> None:
    found = Analysis("its model is slow", "the candidate could not be asked", "nor the live release")
    assert (
        rounds(world, scene, found)[0]["message"] == "rolled back at 25% of the requests: its model is slow"
    )


def test_evidence_of_probes_is_kept_with_the_step_that_it_led_to(world: World, scene: RolloutScene) -> None:
    """In its transaction: a step that dies, or loses a race, counts no probe, so none counts twice."""
    found = Given.of(scene, Analysis(probes=Probed(asked=500, families=900, live_digest=A)))
    scene.step()
    world.advance(DWELL)

    def other_writer() -> None:
        world.settle(live_share(A, "arn:moved"))

    with around_transaction(world, "before-call", other_writer), pytest.raises(RouteChangedError):
        advance(B, world.releases, found, now=world.now)
    assert Probed.from_text(world.release(B).probed).asked == 0
    assert advance(B, world.releases, found, now=world.now)["message"] == "50% of the requests"
    assert Probed.from_text(world.release(B).probed) == replace(found.found.probes, unasked=())
    # A repeated call finds the new step, and asks nothing.
    assert advance(B, world.releases, found, now=world.now)["outcome"] == "waiting"
    assert Probed.from_text(world.release(B).probed).asked == 500
    # Another attempt begins without it.
    world.releases.update(B, step=-1)
    advance(B, world.releases, found, now=world.now)
    assert world.release(B).probed == ""
