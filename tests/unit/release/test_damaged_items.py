"""Items of the releases table that a person damaged fail no sweep and no Delete, and lose nothing paid."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from distilled_router.aws.custom_resource import Event
from distilled_router.bedrock.naming import OWNER_TAG, bedrock_tags, throughput_name
from distilled_router.release.needs import DAMAGED, MOVING
from distilled_router.release.route import Route
from distilled_router.release.table import FAILED, LIVE, RETIRED, ROLLING_OUT, Release
from distilled_router.release.wait_conditions import WaitConditions, Window
from release.handler import Services, check
from tests.unit import framework
from tests.unit.local.bedrock.scenes import HOUR
from tests.unit.release_world import OWNER, RELEASE, A, B, C, World, live_share

D, E, RUNNING = "dddddddddddd", "eeeeeeeeeeee", "123412341234"
UNITS = throughput_name(OWNER, 1, None)
MISSING = object()
DAMAGE = st.sampled_from(
    [
        MISSING,
        None,
        True,
        b"bytes",
        *("", "text", "not a name!", "arn:aws:bedrock", "x" * 3000, "\x00", LIVE, RETIRED),
        *([], [None, 1], [{}], [{"stack_id": 1, "logical_id": "x", "digest": "d"}], {}, {"a": "b"}),
        *(Decimal(text) for text in ("-7", "0", "1.5", "1E+12", "1E+37", "1E-37")),
    ]
)
FIELDS = ["id", *sorted(set(Release.__dataclass_fields__) - {"digest"}), "trained_at"]
ITEM = st.dictionaries(st.sampled_from(FIELDS[1:]), DAMAGE, min_size=1, max_size=6)
ROUTE = st.dictionaries(
    st.sampled_from(["version", "shares", "updated_at", "reason", "head_off"]), DAMAGE, max_size=2
)
DECLARED = st.dictionaries(st.sampled_from(["declared_by", "version", "digest"]), DAMAGE, max_size=2)
NUMBERS = st.sampled_from([float("nan"), float("inf"), -1.0, 1e300, Decimal("NaN"), Decimal("-Infinity")])
quickly = settings(
    max_examples=30,
    derandomize=True,
    database=None,
    # An example takes half a second.
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
attempts = count(1)


def deployed(world: World) -> dict[str, str]:
    """The ARNs of a live, a failed, a retired, a running and two more releases' deployments by digest."""
    world.server.reset()
    with world.releases.table.batch_writer() as batch:
        for item in world.releases.table.scan()["Items"]:
            batch.delete_item(Key={"id": item["id"]})
    model = world.train(A)
    world.claim(model)
    world.unclaim(model)
    arns = {digest: world.deploy(digest, model) for digest in (A, B, C, RUNNING, D, E)}
    for digest, state in ((A, LIVE), (B, FAILED), (C, RETIRED), (D, ROLLING_OUT), (E, FAILED)):
        world.begin(digest, state=state, endpoint=arns[digest], model_arn=model)
    world.begin(RUNNING, next(attempts), run=True, state=ROLLING_OUT)
    world.declare(A)
    world.settle(live_share(A, arns[A]))
    return arns


def buy(world: World) -> str:
    """The ARN of throughput that the release buys."""
    tags = bedrock_tags({OWNER_TAG: OWNER, **RELEASE.tag})
    (model,) = (item["arn"] for item in world.server.state()["models"])
    bought = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=UNITS, modelId=model, modelUnits=1, tags=tags
    )
    return str(bought["provisionedModelArn"])


def damage(world: World, name: str, changes: Mapping[str, Any]) -> None:
    """Overwrite or remove fields of an item."""
    key = {"id": world.releases.key(name)}
    item = {**world.releases.table.get_item(Key=key)["Item"], **changes}
    world.releases.table.put_item(Item={field: item[field] for field in item if item[field] is not MISSING})


def is_deleted(world: World, polls: int = 6) -> bool:
    """Poll the Delete of the Release resource; return whether it completed."""
    properties = {"Owner": OWNER, "RetainModels": "false"}
    event = framework.delete(OWNER, properties, LogicalResourceId=RELEASE.logical_id)
    aws = Services(world.bedrock, world.stepfunctions, world.s3, world.releases)
    for _ in range(polls):
        if check(Event.parse(event), aws)["IsComplete"]:
            return True
        world.advance(HOUR)
    return False


@quickly
@given(damaged=st.tuples(ITEM, ITEM), route=ROUTE, declared=DECLARED)
def test_neither_sweep_nor_delete_fails_and_nothing_paid_is_lost(
    world: World, damaged: tuple[dict[str, Any], ...], route: dict[str, Any], declared: dict[str, Any]
) -> None:
    """Good items are treated as if there were no damaged ones."""
    arns, throughput = deployed(world), buy(world)
    for digest, changes in zip((D, E), damaged, strict=True):
        damage(world, f"release@{digest}", {"throughput": UNITS, **changes})
    damage(world, "route", route)
    damage(world, "declared", declared)

    swept = world.sweeper(keep=9, throughput_name=UNITS).sweep()

    assert swept.kept.keys() >= {arns[A], arns[C], arns[RUNNING]}
    assert arns[B] in swept.removed
    assert {arns[D], arns[E], throughput} <= {*swept.removed, *swept.waiting, *swept.kept}
    assert is_deleted(world)
    state = world.server.state()
    assert (state["deployments"], state["throughput"], state["models"]) == ([], [], [])


@settings(max_examples=100, derandomize=True, database=None)
@given(st.dictionaries(st.sampled_from([*FIELDS, "version", "shares"]), DAMAGE | NUMBERS))
def test_items_are_readable_whatever_they_hold(item: dict[str, Any]) -> None:
    """Also with numbers that DynamoDB refuses and other tables may hold."""
    release = Release.from_item({"id": f"{OWNER}/release@{A}", **item})
    assert all(
        type(getattr(release, name)).__name__ == f.type for name, f in release.__dataclass_fields__.items()
    )
    assert Route.from_item(item).version >= 0


def test_release_in_progress_without_an_execution_is_kept_and_told(world: World) -> None:
    """Nobody can tell whether it runs. Its throughput is counted as billed but not routed."""
    arns = deployed(world)
    throughput = buy(world)
    world.stepfunctions.stop_execution(executionArn=world.release(RUNNING).execution)
    damage(world, f"release@{D}", {"execution": None, "throughput": UNITS})
    swept = world.sweeper(throughput_name=UNITS).sweep()
    assert swept.kept[arns[D]] == swept.kept[throughput] == DAMAGED
    assert swept.unrouted == [throughput]


def test_throughput_for_a_release_that_runs_is_not_told_because_of_another_items_damage(world: World) -> None:
    deployed(world)
    throughput = buy(world)
    damage(world, f"release@{D}", {"execution": None, "throughput": UNITS})
    swept = world.sweeper(throughput_name=UNITS).sweep()
    assert (swept.kept[throughput], swept.unrouted) == (MOVING, [])


@pytest.mark.parametrize("started_at", [10**12, 10**37, "text"])
def test_start_in_the_future_does_not_keep_a_release_for_ever(world: World, started_at: Any) -> None:
    arns = deployed(world)
    damage(world, f"release@{D}", {"started_at": started_at})
    assert arns[D] in world.sweeper().sweep().removed
    assert world.release(D).state == FAILED


@pytest.mark.parametrize("attempt", [Decimal("1.5"), 10**37, "text"])
def test_release_with_a_damaged_attempt_is_ended(world: World, attempt: Any) -> None:
    arns = deployed(world)
    world.advance(HOUR)
    damage(world, f"release@{D}", {"attempt": attempt})
    assert arns[D] in world.sweeper().sweep().removed
    assert world.release(D).state == FAILED


def test_update_in_the_future_does_not_take_a_good_releases_place(world: World) -> None:
    arns = deployed(world)
    damage(world, f"release@{E}", {"state": RETIRED, "updated_at": 10**12})
    swept = world.sweeper(keep=1).sweep()
    assert swept.kept[arns[C]] == "kept for rollback"
    assert arns[E] in swept.removed


def test_item_with_another_key_does_not_speak_for_a_release(world: World) -> None:
    """A failed release whose item was copied to another key."""
    arns = deployed(world)
    item = world.releases.table.get_item(Key={"id": world.releases.key(f"release@{A}")})["Item"]
    copied = {**item, "id": world.releases.key(f"release@copy@{B}"), "state": ROLLING_OUT}
    world.releases.table.put_item(Item=copied)
    assert arns[B] in world.sweeper().sweep().removed


@pytest.mark.parametrize("field", ["number", "ends_at", "url"])
def test_damaged_window_keeps_no_other_from_its_signal(world: World, field: str) -> None:
    sent = list[str]()

    def put(url: str, body: bytes) -> bool:
        sent.append(url)
        return True

    waits = WaitConditions(world.releases.table, OWNER, now=lambda: world.now, put=put)
    deployed(world)
    for number in range(2):
        waits.register(Window(A, number, last=True, url=f"https://{number}", ends_at=int(world.now)))
    damage(world, f"wait@{A}@0", {field: MISSING if field == "url" else "text"})
    waits.signal(world.releases)
    assert sent[-1] == "https://1"
