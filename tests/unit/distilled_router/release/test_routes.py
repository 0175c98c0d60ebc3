"""The route item, read and written, and the choice that it makes."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilled_router.release.route import HeadFile, Route, Share

LIVE = Share("aaaaaaaaaaaa", "arn:live", 0.8)
CANDIDATE = Share("bbbbbbbbbbbb", "arn:candidate", 0.2, expires_at=1000)
KEYS = [f"query {number}" for number in range(10_000)]


def chosen(route: Route, now: float = 0.0) -> dict[str, float]:
    """The part of KEYS that each release gets; "" is the base model."""
    counts: dict[str, int] = {}
    for key in KEYS:
        share = route.choose(key, now)
        counts[share.digest if share else ""] = counts.get(share.digest if share else "", 0) + 1
    return {release: count / len(KEYS) for release, count in counts.items()}


def test_route_survives_the_table() -> None:
    route = Route(7, (LIVE, CANDIDATE), 1234, "rollout, step 1")
    item = route.to_item()
    assert Route.from_item(item) == route
    assert item["shares"][0] == {
        "digest": LIVE.digest,
        "endpoint": "arn:live",
        "share": Decimal("0.8"),
    }
    assert "expires_at" not in item["shares"][0]


def test_route_with_heads_survives_the_table() -> None:
    head = HeadFile("releases/owner/aaaaaaaaaaaa-1/head.bin", "0" * 64)
    route = Route(7, (replace(LIVE, head=head), CANDIDATE), 1234, "rollout, step 1", head_off=True)
    item = route.to_item()
    assert Route.from_item(item) == route
    assert item["shares"][0]["head"] == {"key": head.key, "sha256": head.sha256}
    assert item["head_off"] is True


def test_item_without_heads_is_as_it_was_before_there_were_any() -> None:
    item = Route(7, (LIVE, CANDIDATE), 1234, "rollout, step 1").to_item()
    assert item.keys() == {"version", "shares", "updated_at", "reason"}
    assert item["shares"][1].keys() == {"digest", "endpoint", "share", "expires_at"}


@pytest.mark.parametrize(
    "damaged",
    [
        *(None, True, "head.bin", [], {}, Decimal(1)),
        *({"key": "head.bin"}, {"sha256": "0"}, {"key": "", "sha256": "0"}, {"key": "k", "sha256": ""}),
        *({"key": 1, "sha256": "0"}, {"key": "k", "sha256": None}, {"key": ["k"], "sha256": "0"}),
    ],
)
def test_damaged_head_is_no_head_and_its_share_serves(damaged: Any) -> None:
    item = Route(3, (CANDIDATE, LIVE)).to_item()
    for share in item["shares"]:
        share["head"] = damaged
    route = Route.from_item(item)
    assert (route.shares, route.problem) == ((CANDIDATE, LIVE), None)


@pytest.mark.parametrize(
    ("stored", "is_off"),
    [
        (True, True),
        (False, False),
        (None, False),
        ("true", True),
        ("", True),
        (Decimal("sNaN"), True),
        ({}, True),
    ],
)
def test_switch_of_heads_that_a_person_damaged_is_off(stored: Any, is_off: bool) -> None:
    """They touched it to switch heads off, and the models answer without them."""
    route = Route.from_item({**Route(3, (LIVE,)).to_item(), "head_off": stored})
    assert (route.head_off, route.problem) == (is_off, None)


@pytest.mark.parametrize("broken", [{"version": "three"}, {"shares": "all to me"}, {"shares": [None]}, {}])
def test_malformed_item_still_says_that_heads_are_off(broken: dict[str, Any]) -> None:
    route = Route.from_item({**Route(3, (LIVE,), head_off=True).to_item(), **broken})
    assert route.head_off
    assert Route.from_item(broken).head_off is False


def test_no_item_is_the_empty_route() -> None:
    route = Route.from_item(None)
    assert route.shares == ()
    assert route.live is None
    assert route.problem is None
    assert route.choose("a query", 0) is None


@pytest.mark.parametrize(
    ("broken", "kept_version"),
    [
        ({"id": "route"}, 0),
        ({"version": "three", "shares": []}, 0),
        ({"version": Decimal("NaN"), "shares": []}, 0),
        ({"version": True, "shares": []}, 0),
        ({"version": Decimal("1.5"), "shares": []}, 0),
        ({"version": Decimal(-1), "shares": []}, 0),
        ({"version": Decimal(3), "shares": "all to me"}, 3),
        ({"version": Decimal(3), "shares": {"digest": "x"}}, 3),
        ([], 0),
        ("route", 0),
    ],
)
def test_broken_item_is_the_empty_route_and_says_why(broken: Any, kept_version: int) -> None:
    route = Route.from_item(broken)
    assert route.shares == ()
    assert route.version == kept_version
    assert route.problem
    assert route.reason == route.problem


@pytest.mark.parametrize(
    "malformed",
    [
        None,
        "aaaaaaaaaaaa",
        {},
        {"digest": "aaaaaaaaaaaa", "share": Decimal(1)},
        {"digest": "", "endpoint": "arn:x", "share": Decimal(1)},
        {"digest": "aaaaaaaaaaaa", "endpoint": 7, "share": Decimal(1)},
        {"digest": "aaaaaaaaaaaa", "endpoint": "arn:x", "share": "1"},
        {"digest": "aaaaaaaaaaaa", "endpoint": "arn:x", "share": True},
        {"digest": "aaaaaaaaaaaa", "endpoint": "arn:x", "share": Decimal(2)},
        {"digest": "aaaaaaaaaaaa", "endpoint": "arn:x", "share": Decimal("-0.1")},
        {"digest": "aaaaaaaaaaaa", "endpoint": "arn:x", "share": Decimal("Infinity")},
        {"digest": "aaaaaaaaaaaa", "endpoint": "arn:x", "share": 10**400},
        {"digest": "aaaaaaaaaaaa", "endpoint": "arn:x", "share": Decimal(1), "expires_at": None},
        {"digest": "aaaaaaaaaaaa", "endpoint": "arn:x", "share": Decimal(1), "expires_at": "tomorrow"},
        {"digest": "aaaaaaaaaaaa", "endpoint": "arn:x", "share": Decimal(1), "expires_at": Decimal("sNaN")},
    ],
)
def test_malformed_share_is_dropped_and_the_others_serve(malformed: Any) -> None:
    item = Route(3, (LIVE,)).to_item()
    item["shares"].insert(0, malformed)
    route = Route.from_item(item)
    assert route.shares == (LIVE,)
    assert route.problem == "malformed shares dropped, at 0"


scalars = st.none() | st.booleans() | st.text() | st.binary() | st.decimals() | st.integers()
anything = scalars | st.lists(scalars, max_size=2) | st.dictionaries(st.text(), scalars, max_size=2)


@settings(max_examples=100, deadline=None)
@given(
    anything
    | st.fixed_dictionaries(
        {"version": anything},
        optional={
            "shares": anything
            | st.lists(
                st.fixed_dictionaries(
                    {"digest": anything, "endpoint": anything, "share": anything},
                    optional={"expires_at": anything, "head": anything},
                )
            ),
            "updated_at": anything,
            "reason": anything,
            "head_off": anything,
        },
    )
)
def test_no_item_whatever_raises(item: Any) -> None:
    route = Route.from_item(item)
    route.choose("a query", 0)
    assert Route.from_item(route.to_item()) == route


def test_live_release_takes_what_no_candidate_covers() -> None:
    parts = chosen(Route(1, (LIVE, CANDIDATE)))
    assert parts[CANDIDATE.digest] == pytest.approx(0.2, abs=0.015)
    assert parts[LIVE.digest] == pytest.approx(0.8, abs=0.015)


def test_several_candidates_each_get_their_share() -> None:
    other = Share("cccccccccccc", "arn:other", 0.3, expires_at=1000)
    parts = chosen(Route(1, (CANDIDATE, LIVE, other)))
    assert parts[CANDIDATE.digest] == pytest.approx(0.2, abs=0.015)
    assert parts[other.digest] == pytest.approx(0.3, abs=0.015)
    assert parts[LIVE.digest] == pytest.approx(0.5, abs=0.015)


def test_first_candidate_leaves_the_rest_to_the_base_model() -> None:
    parts = chosen(Route(1, (CANDIDATE,)))
    assert parts[CANDIDATE.digest] == pytest.approx(0.2, abs=0.015)
    assert parts[""] == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize(("shares", "left"), [((LIVE, CANDIDATE), LIVE.digest), ((CANDIDATE,), "")])
def test_expired_candidate_gets_nothing(shares: tuple[Share, ...], left: str) -> None:
    assert chosen(Route(1, shares), now=1000.0) == {left: 1.0}


def test_candidate_with_the_whole_share_gets_everything() -> None:
    candidate = Share(CANDIDATE.digest, CANDIDATE.endpoint, 1.0, expires_at=1000)
    assert chosen(Route(1, (LIVE, candidate))) == {CANDIDATE.digest: 1.0}


def test_live_release_serves_whatever_its_number_says() -> None:
    assert chosen(Route(1, (Share("aaaaaaaaaaaa", "arn:live", 0.0),))) == {"aaaaaaaaaaaa": 1.0}


def test_one_query_sees_one_release_while_the_share_grows() -> None:
    routes = [
        Route(1, (LIVE, Share(CANDIDATE.digest, CANDIDATE.endpoint, part, 1000))) for part in (0.05, 0.3, 0.9)
    ]
    served = [
        {key for key in KEYS if (share := route.choose(key, 0)) and share.digest == CANDIDATE.digest}
        for route in routes
    ]
    assert served[0] < served[1] < served[2]


DIGESTS = st.text("0123456789abcdef", min_size=12, max_size=12).filter(lambda digest: digest != LIVE.digest)


def canaries(digest: str, part: float) -> frozenset[str]:
    """The keys that a candidate gets with this share."""
    route = Route(1, (LIVE, Share(digest, "arn:candidate", part, expires_at=1000)))
    return frozenset(key for key in KEYS if (share := route.choose(key, 0)) and share.digest == digest)


def near(count: int, part: float) -> bool:
    """Whether a count of KEYS is within five standard deviations of this part: wrong once in two million."""
    return abs(count - part * len(KEYS)) <= 5 * math.sqrt(part * (1 - part) * len(KEYS)) + 1


@settings(max_examples=10, deadline=None)
@given(DIGESTS, st.floats(0, 1))
def test_candidate_gets_its_share_whatever_its_digest(digest: str, part: float) -> None:
    assert near(len(canaries(digest, part)), part)


@settings(max_examples=10, deadline=None)
@given(st.lists(DIGESTS, min_size=2, max_size=2, unique=True), st.sampled_from([0.05, 0.25, 0.5]))
def test_canaries_of_two_releases_have_nothing_to_do_with_each_other(digests: list[str], part: float) -> None:
    """Otherwise the same callers would get each candidate first."""
    first, second = (canaries(digest, part) for digest in digests)
    assert near(len(first & second), part * part)


@settings(max_examples=10, deadline=None)
@given(DIGESTS, st.lists(st.floats(0, 1), min_size=2, max_size=4))
def test_query_that_a_candidate_got_stays_with_it_while_its_share_grows(
    digest: str, parts: list[float]
) -> None:
    served = [canaries(digest, part) for part in sorted(parts)]
    assert all(before <= after for before, after in pairwise(served))


def test_choice_is_the_same_in_every_process() -> None:
    route = Route(1, (LIVE, Share(CANDIDATE.digest, CANDIDATE.endpoint, 0.5, 1000)))
    found = "".join(route.choose(key, 0).digest[0] for key in KEYS[:16])  # type: ignore[union-attr]  # live
    assert found == "aaabbaaaaaaaabaa"


def test_of_several_live_shares_the_largest_serves() -> None:
    small, large = Share("aaaaaaaaaaaa", "arn:a", 0.1), Share("bbbbbbbbbbbb", "arn:b", 0.9)
    assert Route(1, (small, large)).live == large


def test_releases_names_expired_candidates_too() -> None:
    assert Route(1, (LIVE, CANDIDATE)).digests() == {LIVE.digest, CANDIDATE.digest}
