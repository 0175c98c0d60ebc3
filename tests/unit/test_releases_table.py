"""The releases table's conditional writes, on the emulator's DynamoDB."""

from __future__ import annotations

import pytest

from shared.releases import FAILED, LIVE, PROMOTING, SUPERSEDED, Releases, RouteChangedError
from shared.routes import Share

A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def begin(releases: Releases, digest: str, attempt: int = 1) -> bool:
    return releases.begin(digest, attempt=attempt, execution=f"arn:{digest}-{attempt}", request_id="r")


def test_an_attempt_begins_once(releases: Releases) -> None:
    assert begin(releases, A)
    assert not begin(releases, A)
    assert begin(releases, A, attempt=2)
    release = releases.get(A)
    assert release is not None
    assert (release.attempt, release.state, release.step) == (2, "waiting", -1)


def test_a_final_state_is_not_left_by_a_step_that_still_ran(releases: Releases) -> None:
    begin(releases, A)
    assert releases.transition(A, SUPERSEDED, "another digest")
    assert not releases.transition(A, PROMOTING, "25%")
    release = releases.get(A)
    assert release is not None
    assert (release.state, release.message) == (SUPERSEDED, "another digest")


def test_two_writers_of_the_route_do_not_both_win(releases: Releases) -> None:
    read = releases.route()
    first = releases.set_route((Share(A, "arn:a", 1.0),), after=read, reason="first")
    with pytest.raises(RouteChangedError):
        releases.set_route((Share(B, "arn:b", 1.0),), after=read, reason="second")
    assert releases.route() == first


def test_each_change_of_the_route_leaves_its_history(releases: Releases) -> None:
    route = releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="live")
    releases.drop_from_route(A, "taken back")
    kept = releases._table.get_item(Key={"id": f"route@{route.version:09d}"})["Item"]
    assert kept["reason"] == "live"
    assert releases.route().shares == ()
    assert releases.route().version == 2


@pytest.mark.parametrize("broken", [{}, {"version": "three"}, {"version": None}])
def test_a_route_that_a_human_broke_can_be_replaced(releases: Releases, broken: dict[str, object]) -> None:
    releases._table.put_item(Item={"id": "route", "shares": "oops", **broken})
    releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="mended")
    assert [share.release for share in releases.route().shares] == [A]


def test_declared_digest_comes_and_goes(releases: Releases) -> None:
    assert releases.declared() is None
    releases.declare(A)
    assert releases.declared() == A
    releases.declare(None)
    assert releases.declared() is None


def test_all_lists_releases_and_nothing_else(releases: Releases) -> None:
    begin(releases, A)
    begin(releases, B)
    releases.declare(B)
    releases.set_route((), after=releases.route(), reason="none")
    assert sorted(release.digest for release in releases.all()) == [A, B]


def test_update_sets_fields_whatever_the_state(releases: Releases) -> None:
    begin(releases, A)
    releases.transition(A, LIVE, "serves")
    releases.update(A, state=FAILED, message="by hand")
    release = releases.get(A)
    assert release is not None
    assert release.state == FAILED
