"""The releases table's conditional writes, on the emulator's DynamoDB."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from typing import Any
from unittest.mock import Mock

import pytest
from botocore.exceptions import ClientError

from distilled_router.aws.errors import NotYetError
from distilled_router.bedrock.ownership import Claimant
from distilled_router.release.route import TIME_TO_LIVE, HeadFile, Route, Share
from distilled_router.release.table import (
    COPY_SECONDS,
    CREATING_SECONDS,
    FAILED,
    LIVE,
    RETIRED,
    ROLLING_OUT,
    SUPERSEDED,
    WAITING,
    Release,
    Releases,
    RouteChangedError,
)

RELEASE = Claimant("arn:aws:cloudformation:us-east-1:000000000000:stack/release/1", "Release")
A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def begin(releases: Releases, digest: str, attempt: int = 1) -> bool:
    return releases.begin(digest, attempt=attempt, execution=f"arn:{digest}-{attempt}", request_id="r")


def release_of(releases: Releases, digest: str) -> Release:
    release = releases.get(digest)
    assert release is not None
    return release


def test_an_attempt_begins_once(releases: Releases) -> None:
    assert begin(releases, A)
    assert not begin(releases, A)
    assert begin(releases, A, attempt=2)
    assert not begin(releases, A)
    release = release_of(releases, A)
    assert (release.attempt, release.state, release.step) == (2, WAITING, -1)


def test_attempt_that_begins_leaves_what_the_one_before_learnt(releases: Releases) -> None:
    begin(releases, A)
    releases.transition(A, FAILED, "refused", model_arn="arn:model", step=2, step_at=5)
    begin(releases, A, attempt=2)
    release = release_of(releases, A)
    assert (release.model_arn, release.state, release.step) == ("arn:model", WAITING, -1)


def test_a_final_state_is_not_left_by_a_step_that_still_ran(releases: Releases) -> None:
    begin(releases, A)
    assert releases.transition(A, SUPERSEDED, "another digest")
    assert not releases.transition(A, ROLLING_OUT, "25%")
    release = release_of(releases, A)
    assert (release.state, release.message) == (SUPERSEDED, "another digest")


def test_only_the_attempt_that_was_judged_is_ended(releases: Releases) -> None:
    begin(releases, A)
    begin(releases, A, attempt=2)
    assert not releases.transition(A, FAILED, "gone", of_execution=f"arn:{A}-1")
    assert releases.transition(A, FAILED, "gone", of_execution=f"arn:{A}-2")


def test_a_release_that_nobody_began_is_not_made_by_the_way(releases: Releases) -> None:
    assert not releases.transition(A, FAILED, "…")
    assert not releases.update(A, model_arn="arn:model")
    assert not releases.move_with_route(A, LIVE, "…", (), after=releases.route())
    assert (releases.get(A), releases.route().version) == (None, 0)


def test_every_field_comes_back_as_it_was_written(releases: Releases) -> None:
    """DynamoDB gives numbers back as Decimal, and refuses reserved words that stand in an expression."""
    begin(releases, A)
    written: dict[str, Any] = {
        field.name: {"int": index, "bool": True}.get(str(field.type), f"value {index}")
        for index, field in enumerate(fields(Release))
        if field.name not in {"digest", "updated_at"}
    }
    releases.update(A, **written)
    release = release_of(releases, A)
    assert {name: getattr(release, name) for name in written} == written
    assert {type(getattr(release, name)) for name in written} == {bool, int, str}


@pytest.mark.parametrize("word", ["state", "status", "name", "values", "size", "timestamp", "ttl", "comment"])
def test_reserved_words_are_names_like_others(releases: Releases, word: str) -> None:
    begin(releases, A)
    releases.update(A, **{word: "kept"})
    assert releases.table.get_item(Key={"id": releases.key(f"release@{A}")})["Item"][word] == "kept"


def test_a_release_that_a_human_cut_down_counts_as_running(releases: Releases) -> None:
    releases.table.put_item(Item={"id": releases.key(f"release@{A}"), "note": "oops", "attempt": Decimal(3)})
    (release,) = releases.all()
    assert (release.digest, release.attempt, release.is_final) == (A, 3, False)


HEAD = {"head": "releases/router-test/aaaaaaaaaaaa-1/head.bin", "head_sha256": "0" * 64}


def test_attempt_that_begins_has_no_head_and_no_trace_of_one(releases: Releases) -> None:
    begin(releases, A)
    before = releases.table.get_item(Key={"id": releases.key(f"release@{A}")})["Item"]
    releases.update(A, **HEAD)
    assert release_of(releases, A).share(1.0).head == HeadFile(*HEAD.values())
    begin(releases, A, attempt=2)
    assert release_of(releases, A).head_file is None
    # Items of environments without heads are as before there were any.
    assert releases.table.get_item(Key={"id": releases.key(f"release@{A}")})["Item"].keys() == before.keys()


def test_live_release_that_is_evaluated_again_keeps_its_head(releases: Releases) -> None:
    begin(releases, A)
    releases.update(A, state=LIVE, **HEAD)
    assert releases.begin_again(A, attempt=2, execution="arn:2", request_id="s", holdout_key="other")
    assert release_of(releases, A).head_file == HeadFile(*HEAD.values())


@pytest.mark.parametrize("damaged", [None, "", Decimal(7), {"key": "k"}])
@pytest.mark.parametrize("name", HEAD)
def test_damaged_head_of_a_release_is_no_head(releases: Releases, name: str, damaged: object) -> None:
    begin(releases, A)
    releases.update(A, **{**HEAD, name: damaged})
    assert release_of(releases, A).share(0.5, 9) == Share(A, "", 0.5, expires_at=9)


def test_heads_are_switched_off_and_on_and_the_shares_stay(releases: Releases) -> None:
    shares = (Share(A, "arn:a", 0.25, 9, HeadFile("key", "sha")), Share(B, "arn:b", 0.75))
    first = releases.set_route(shares, after=releases.route(), reason="step")
    off = releases.switch_heads(off=True, after=first, reason="off by hand")
    assert releases.route() == off
    assert (off.version, off.shares, off.head_off, off.reason) == (2, shares, True, "off by hand")
    kept = releases.table.get_item(Key={"id": releases.key("route@000000002")})["Item"]
    assert kept["head_off"] is True
    with pytest.raises(RouteChangedError):
        releases.switch_heads(off=False, after=first, reason="on by hand")
    releases.switch_heads(off=False, after=off, reason="on by hand")
    assert "head_off" not in releases.table.get_item(Key={"id": releases.key("route")})["Item"]


@pytest.mark.parametrize("broken", [None, {"version": "none"}, {"version": 2, "shares": "all"}])
def test_heads_stay_off_where_a_person_broke_the_route_or_deleted_it(
    releases: Releases, broken: dict[str, object] | None
) -> None:
    releases.switch_heads(off=True, after=releases.route(), reason="by hand")
    if broken is None:
        releases.table.delete_item(Key={"id": releases.key("route")})
    else:
        releases.table.put_item(Item={"id": releases.key("route"), **broken})
    releases.set_route((), after=releases.route(), reason="next")
    assert releases.route().head_off


def test_share_whose_head_is_damaged_is_in_the_effective_route_once(releases: Releases) -> None:
    live = Share(A, "arn:a", 1.0, head=HeadFile("key", "sha"))
    releases.set_route((live,), after=releases.route(), reason="live")
    item = releases.table.get_item(Key={"id": releases.key("route")})["Item"]
    releases.table.put_item(Item={**item, "shares": [{**item["shares"][0], "head": "?"}, "broken"]})
    assert releases.effective_route().shares == (Share(A, "arn:a", 1.0),)


def test_two_writers_of_the_route_do_not_both_win(releases: Releases) -> None:
    read = releases.route()
    first = releases.set_route((Share(A, "arn:a", 1.0),), after=read, reason="first")
    with pytest.raises(RouteChangedError):
        releases.set_route((Share(B, "arn:b", 1.0),), after=read, reason="second")
    assert releases.route() == first


def test_each_change_of_the_route_leaves_its_history(releases: Releases) -> None:
    route = releases.set_route(
        (Share(A, "arn:a", 0.25, expires_at=9),), after=releases.route(), reason="step"
    )
    releases.withdraw(A, "withdrawn")
    kept = releases.table.get_item(Key={"id": releases.key(f"route@{route.version:09d}")})["Item"]
    assert kept["reason"] == "step"
    assert releases.route().shares == ()
    assert releases.route().version == 2


def copies(releases: Releases) -> dict[int, dict[str, Any]]:
    """Return the route's copies by version."""
    found = releases.table.scan(ConsistentRead=True)["Items"]
    return {int(item["version"]): item for item in found if "/route@" in str(item["id"])}


def test_a_copy_of_the_route_ends_some_time_after_the_next_and_the_newest_never(releases: Releases) -> None:
    """If the newest expired, a deleted route would count from 1 again."""
    releases.now = lambda: 1_000_000.0
    first = releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="first")
    assert TIME_TO_LIVE not in copies(releases)[1]
    releases.now = lambda: 2_000_000.0
    second = releases.set_route((Share(B, "arn:b", 1.0),), after=first, reason="second")
    found = copies(releases)
    assert found[1][TIME_TO_LIVE] == 2_000_000 + COPY_SECONDS
    assert Route.from_item(found[1]) == first
    assert TIME_TO_LIVE not in found[2]
    assert Route.from_item(found[2]) == second
    item = releases.table.get_item(Key={"id": releases.key("route")})["Item"]
    assert TIME_TO_LIVE not in item, "the route itself never ends"
    releases.table.delete_item(Key={"id": releases.key("route@000000001")})  # as DynamoDB does
    releases.table.delete_item(Key={"id": releases.key("route")})  # as a person does
    assert releases.set_route((), after=releases.route(), reason="third").version == 3
    assert sorted(copies(releases)) == [2, 3]


def test_no_release_ever_ends(releases: Releases) -> None:
    """Rollback, comparisons and attempts need them, and each model has one item."""
    begin(releases, A)
    begin(releases, B)
    route = releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="first")
    assert releases.move_with_route(B, LIVE, "live", (Share(B, "arn:b", 1.0),), after=route, retiring=A)
    route = releases.route()
    assert releases.roll_back(A, "arn:a", after=route, reason="back", retiring=[release_of(releases, B)])
    items = releases.table.scan(ConsistentRead=True)["Items"]
    ending = {str(item["id"]) for item in items if TIME_TO_LIVE in item}
    assert ending == {releases.key("route@000000001"), releases.key("route@000000002")}


def test_a_writer_that_loses_ends_no_copy(releases: Releases) -> None:
    read = releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="first")
    releases.set_route((Share(B, "arn:b", 1.0),), after=read, reason="second")
    with pytest.raises(RouteChangedError):
        releases.set_route((), after=read, reason="late")
    found = copies(releases)
    assert (sorted(found), TIME_TO_LIVE in found[2]) == ([1, 2], False)


@pytest.mark.parametrize(
    "version",
    [
        {},
        {"version": "three"},
        {"version": None},
        {"version": 0},
        {"version": -1},
        {"version": Decimal("1.5")},
        {"version": 10**37},
        {"version": [1]},
        {"version": {}},
        {"version": b"x"},
    ],
    ids=str,
)
def test_a_route_that_a_human_broke_can_be_replaced(releases: Releases, version: dict[str, object]) -> None:
    releases.table.put_item(Item={"id": releases.key("route"), "shares": "oops", **version})
    releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="mended")
    assert [share.digest for share in releases.route().shares] == [A]


@pytest.mark.parametrize("broken", [{"version": "none"}, {"version": 2, "shares": "all"}, None])
def test_route_that_a_human_broke_loses_no_history(
    releases: Releases, broken: dict[str, object] | None
) -> None:
    first = releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="first")
    second = releases.set_route((Share(B, "arn:b", 1.0),), after=first, reason="second")
    if broken is None:
        releases.table.delete_item(Key={"id": releases.key("route")})
    else:
        releases.table.put_item(Item={"id": releases.key("route"), **broken})
    mended = releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="mended")
    assert mended.version == 3
    kept = [
        releases.table.get_item(Key={"id": releases.key(f"route@{n:09d}")})["Item"]["reason"]
        for n in (1, 2, 3)
    ]
    assert kept == [first.reason, second.reason, "mended"]


def test_routers_serve_the_last_route_that_could_be_read(releases: Releases) -> None:
    assert releases.effective_route().shares == ()
    last = releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="last")
    assert releases.effective_route() == last
    releases.table.put_item(Item={"id": releases.key("route"), "version": "none", "shares": "oops"})
    assert releases.effective_route().shares == last.shares
    half = [{"digest": B, "endpoint": "arn:b", "share": Decimal(1)}, "oops"]
    releases.table.put_item(Item={"id": releases.key("route"), "version": 2, "shares": half})
    assert {share.digest for share in releases.effective_route().shares} == {A, B}


def test_release_and_route_move_together(releases: Releases) -> None:
    begin(releases, A)
    begin(releases, B)
    releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="live")
    moved = releases.move_with_route(
        B, LIVE, "serves all", (Share(B, "arn:b", 1.0),), after=releases.route(), retiring=A, step=1
    )
    assert moved
    route = releases.route()
    assert (route.shares, route.reason) == ((Share(B, "arn:b", 1.0),), f"release {B}: serves all")
    assert (release_of(releases, B).state, release_of(releases, B).step) == (LIVE, 1)
    assert (release_of(releases, A).state, release_of(releases, A).message) == (
        RETIRED,
        f"replaced by release {B}",
    )


@pytest.mark.parametrize("also_lost", [False, True])
def test_neither_moves_where_the_release_has_ended(releases: Releases, also_lost: bool) -> None:
    begin(releases, A)
    read = releases.route()
    if also_lost:
        releases.set_route((), after=read, reason="somebody else's")
    releases.transition(A, SUPERSEDED, "another digest")
    version = releases.route().version
    assert not releases.move_with_route(A, LIVE, "…", (Share(A, "arn:a", 1.0),), after=read, retiring=B)
    assert releases.route().version == version
    assert (release_of(releases, A).state, releases.get(B)) == (SUPERSEDED, None)


def test_neither_moves_where_the_route_changed(releases: Releases) -> None:
    begin(releases, A)
    read = releases.route()
    changed = releases.set_route((), after=read, reason="somebody else's")
    with pytest.raises(RouteChangedError):
        releases.move_with_route(A, ROLLING_OUT, "…", (Share(A, "arn:a", 1.0),), after=read)
    assert releases.route() == changed
    assert release_of(releases, A).state == WAITING


def rolled(releases: Releases) -> tuple[Release, Release]:
    """A was replaced by B, which serves; both as they are then."""
    begin(releases, A)
    begin(releases, B)
    releases.transition(A, LIVE, "serves", endpoint="arn:a")
    releases.update(A, state=ROLLING_OUT)
    releases.move_with_route(
        B, LIVE, "serves", (Share(B, "arn:b", 1.0),), after=releases.route(), retiring=A, endpoint="arn:b"
    )
    return release_of(releases, A), release_of(releases, B)


def test_rolling_back_changes_route_and_both_releases_together(releases: Releases) -> None:
    _, bad = rolled(releases)
    read = releases.route()
    releases.now = lambda: 1_800_000_000.0
    assert releases.roll_back(A, "arn:other", after=read, reason="by hand", retiring=[bad], throughput="")
    route = releases.route()
    assert (route.version, route.shares, route.reason) == (
        read.version + 1,
        (Share(A, "arn:other", 1.0),),
        "by hand",
    )
    now, before = release_of(releases, A), release_of(releases, B)
    assert (now.state, now.endpoint, now.rolled_back) == (LIVE, "arn:other", 0)
    again = "raise release.attempt above 1 to start it again"
    assert (before.state, before.message) == (RETIRED, f"rolled back by hand, to release {A}; {again}")
    assert (before.rolled_back, before.updated_at) == (1_800_000_000, 1_800_000_000)
    kept = releases.table.get_item(Key={"id": releases.key(f"route@{route.version:09d}")})["Item"]
    assert kept["reason"] == "by hand"


@pytest.mark.parametrize("state", [WAITING, LIVE, FAILED, SUPERSEDED])
def test_only_a_retired_release_is_rolled_back_to(releases: Releases, state: str) -> None:
    _, bad = rolled(releases)
    releases.update(A, state=state)
    read = releases.route()
    assert not releases.roll_back(A, "arn:a", after=read, reason="by hand", retiring=[bad])
    assert releases.route() == read
    assert (release_of(releases, A).state, release_of(releases, B)) == (state, bad)


def test_release_that_nobody_knows_is_not_rolled_back_to(releases: Releases) -> None:
    assert not releases.roll_back(A, "arn:a", after=releases.route(), reason="by hand", retiring=[])
    assert (releases.get(A), releases.route().version) == (None, 0)


def test_nothing_is_rolled_back_where_the_route_changed(releases: Releases) -> None:
    good, bad = rolled(releases)
    read = releases.route()
    changed = releases.set_route((), after=read, reason="somebody else's")
    with pytest.raises(RouteChangedError):
        releases.roll_back(A, "arn:a", after=read, reason="by hand", retiring=[bad])
    assert releases.route() == changed
    assert (release_of(releases, A), release_of(releases, B)) == (good, bad)


def test_nothing_is_rolled_back_where_the_bad_release_began_again(releases: Releases) -> None:
    """Its new attempt was not looked at, and must not be ended unseen."""
    good, bad = rolled(releases)
    read = releases.route()
    begin(releases, B, attempt=2)
    with pytest.raises(RouteChangedError):
        releases.roll_back(A, "arn:a", after=read, reason="by hand", retiring=[bad])
    assert (releases.route(), release_of(releases, A)) == (read, good)
    assert release_of(releases, B).state == WAITING


@pytest.mark.parametrize("broken", [{"version": "none"}, {"version": 2, "shares": "all"}, None])
def test_route_that_a_human_broke_can_be_rolled_back(
    releases: Releases, broken: dict[str, object] | None
) -> None:
    _, bad = rolled(releases)
    if broken is None:
        releases.table.delete_item(Key={"id": releases.key("route")})
    else:
        releases.table.put_item(Item={"id": releases.key("route"), **broken})
    assert releases.roll_back(A, "arn:a", after=releases.route(), reason="by hand", retiring=[bad])
    route = releases.route()
    assert (route.shares, route.problem) == ((Share(A, "arn:a", 1.0),), None)
    assert route.version in {2, 3}


def test_new_attempt_is_not_marked_as_rolled_back(releases: Releases) -> None:
    _, bad = rolled(releases)
    releases.roll_back(A, "arn:a", after=releases.route(), reason="by hand", retiring=[bad])
    assert release_of(releases, B).rolled_back
    begin(releases, B, attempt=2)
    assert release_of(releases, B).rolled_back == 0


def canceled(*reasons: str) -> ClientError:
    response: Any = {
        "Error": {"Code": "TransactionCanceledException"},
        "CancellationReasons": [{"Code": reason} for reason in reasons],
    }
    return ClientError(response, "TransactWriteItems")


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        (("TransactionConflict", "None", "None"), RouteChangedError),
        (("None", "None", "ThrottlingError"), RouteChangedError),
        (("None", "None", "ValidationError"), ClientError),
    ],
)
def test_transaction_that_may_be_made_again_is_no_error_and_others_are(
    releases: Releases, monkeypatch: pytest.MonkeyPatch, reasons: tuple[str, ...], expected: type[Exception]
) -> None:
    monkeypatch.setattr(
        releases.table.meta.client, "transact_write_items", Mock(side_effect=canceled(*reasons))
    )
    with pytest.raises(expected):
        releases.move_with_route(A, ROLLING_OUT, "…", (), after=releases.route())


def test_write_that_meets_a_transaction_is_made_again(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(releases, A)
    write = releases.table.update_item
    error = ClientError({"Error": {"Code": "TransactionConflictException"}}, "UpdateItem")
    answers = iter([error])

    def conflicting(**change: Any) -> Any:
        for refusal in answers:
            raise refusal
        return write(**change)

    monkeypatch.setattr("distilled_router.aws.errors.random.uniform", lambda low, high: 0.01)
    monkeypatch.setattr(releases.table, "update_item", conflicting)
    assert releases.transition(A, FAILED, "…")


def test_a_partial_share_goes_back_to_the_settled_release(releases: Releases) -> None:
    shares = (Share(A, "arn:a", 0.25, expires_at=9), Share(B, "arn:b", 0.75))
    releases.set_route(shares, after=releases.route(), reason="step")
    releases.withdraw(A, "breach")
    assert releases.route().shares == (Share(B, "arn:b", 1.0),)
    releases.withdraw(A, "again")
    assert releases.route().version == 2


def test_a_settled_share_is_only_ever_replaced(releases: Releases) -> None:
    """No failure of a release, its own included, takes away an endpoint that serves."""
    route = releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="live")
    releases.withdraw(A, "failed")
    assert releases.route() == route


def test_taking_back_outlives_other_writers_but_not_endless_ones(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases.set_route((Share(A, "arn:a", 0.5, expires_at=9),), after=releases.route(), reason="step")
    write, refusals = releases.set_route, [RouteChangedError("…")] * 4

    def lost(*arguments: Any, **named: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return write(*arguments, **named)

    monkeypatch.setattr(releases, "set_route", lost)
    releases.withdraw(A, "failed")
    assert releases.route().shares == ()
    monkeypatch.undo()
    releases.set_route((Share(A, "arn:a", 0.5, expires_at=9),), after=releases.route(), reason="step")
    monkeypatch.setattr(releases, "set_route", Mock(side_effect=RouteChangedError("…")))
    with pytest.raises(RouteChangedError, match="keeps changing"):
        releases.withdraw(A, "failed")


def test_declared_digest_comes_and_goes(releases: Releases) -> None:
    assert releases.declared() is None
    releases.declarations.declare(RELEASE, A)
    assert releases.declared() == A
    releases.declarations.remove(RELEASE)
    assert releases.declared() is None


def test_either_a_step_sees_the_end_of_the_stack_or_the_end_sees_the_step(releases: Releases) -> None:
    begin(releases, A)
    with releases.creating(A, RELEASE) as allowed:
        assert allowed
        releases.declarations.remove(RELEASE)
        assert releases.is_creating()
    assert not releases.is_creating()
    with releases.creating(A, RELEASE) as allowed:
        assert not allowed
        assert releases.is_creating()
    releases.declarations.declare(RELEASE, B)
    with releases.creating(A, RELEASE) as allowed:
        assert allowed


def test_step_waits_while_only_a_moved_resource_declares_releases(releases: Releases) -> None:
    """Its function has the other logical id before that is declared, and a running one keeps the old id."""
    begin(releases, A)
    moved = Claimant(RELEASE.stack_id, "ReleaseMoved")
    releases.declarations.declare(RELEASE, A)
    refused = pytest.raises(
        NotYetError, match="ReleaseMoved does not declare releases of router-test: Release d"
    )
    with refused, releases.creating(A, moved):
        pytest.fail("a step created something for a resource that is not declared")
    assert not releases.is_creating()
    releases.declarations.declare(moved, A)
    for claimant in (RELEASE, moved):
        with releases.creating(A, claimant) as allowed:
            assert allowed
    releases.declarations.remove(RELEASE)
    with pytest.raises(NotYetError), releases.creating(A, RELEASE):
        pytest.fail("a step created something for a resource that was deleted")


def test_step_that_was_killed_is_waited_for_no_longer_than_its_function_may_run(releases: Releases) -> None:
    begin(releases, A)
    step = releases.creating(A, RELEASE)
    step.__enter__()
    started = releases.now()
    releases.now = lambda: started + CREATING_SECONDS - 60
    assert releases.is_creating()
    releases.now = lambda: started + CREATING_SECONDS + 60
    assert not releases.is_creating()
    step.__exit__(None, None, None)


def test_making_something_does_not_count_as_progress_of_the_release(releases: Releases) -> None:
    begin(releases, A)
    before = release_of(releases, A)
    releases.now = lambda: before.updated_at + 50
    with releases.creating(A, RELEASE):
        pass
    assert release_of(releases, A) == before


def test_all_lists_releases_and_nothing_else_from_every_page(releases: Releases) -> None:
    digests = [f"{number:012x}" for number in range(7)]
    for digest in digests:
        begin(releases, digest)
    releases.declarations.declare(RELEASE, B)
    releases.set_route((), after=releases.route(), reason="none")
    pages: list[bool] = []

    def two_a_page(params: dict[str, Any], **_: Any) -> dict[str, Any]:
        pages.append(True)
        return {**params, "Limit": 2}

    events = releases.table.meta.client.meta.events
    events.register("provide-client-params.dynamodb.Scan", two_a_page)
    assert sorted(release.digest for release in releases.all()) == digests
    assert len(pages) == 6
    assert {type(release.attempt) for release in releases.all()} == {int}


def test_update_sets_fields_whatever_the_state(releases: Releases) -> None:
    begin(releases, A)
    releases.transition(A, LIVE, "serves")
    assert releases.update(A, state=FAILED, message="by hand")
    assert release_of(releases, A).state == FAILED


def test_owners_of_one_table_share_no_item(releases: Releases) -> None:
    other = Releases(releases.table, "router")  # begins the first owner's name
    for one, digest in ((releases, A), (other, B)):
        one.declarations.declare(RELEASE, digest)
        one.begin(digest, attempt=1, execution=f"arn:{digest}", request_id="r")
        one.set_route((Share(digest, f"arn:{digest}", 1.0),), after=one.route(), reason="first")
    assert (releases.declared(), other.declared()) == (A, B)
    assert ([one.digest for one in releases.all()], [one.digest for one in other.all()]) == ([A], [B])
    assert other.get(A) is None
    other.declarations.remove(RELEASE)
    other.set_route((), after=other.route(), reason="deleted")
    assert releases.declared() == A
    assert releases.route().digests() == {A}
    with releases.creating(A, RELEASE) as allowed:
        assert allowed
    releases.table.put_item(Item={"id": releases.key("route"), "version": "none"})
    assert releases.effective_route().digests() == {A}
