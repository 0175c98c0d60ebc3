"""Names are made in one way, and recognised again."""

from __future__ import annotations

import pytest

from distilled_router.bedrock.naming import attempt_name, digest_of, first_name, release_name, throughput_name

DIGEST = "0123456789ab"
NAME = f"search-{DIGEST}"


def test_a_releases_name_is_its_owner_and_its_digest() -> None:
    assert release_name("search", DIGEST) == NAME


@pytest.mark.parametrize(("attempt", "suffix"), [(1, ""), (2, "-2"), (9, "-9")])
def test_an_attempts_name_leads_back_to_the_first_and_to_the_digest(attempt: int, suffix: str) -> None:
    name = attempt_name(NAME, attempt)

    assert name == NAME + suffix
    assert first_name(name) == NAME
    assert digest_of("search", name) == DIGEST


@pytest.mark.parametrize("attempt", [-1, 0, 10])
def test_attempts_are_one_to_nine(attempt: int) -> None:
    with pytest.raises(ValueError, match=rf"{NAME} has attempts 1 to 9, not {attempt}"):
        attempt_name(NAME, attempt)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("search", f"{NAME}-1"),
        ("search", f"{NAME}-10"),
        ("search", f"{NAME}-2-2"),
        ("search", f"{NAME}-x"),
        ("search", f"{NAME}-2mu"),
        ("search", f"search-{DIGEST[:-1]}-2"),
        ("search", f"{DIGEST}-2"),
        ("search", f"research-{DIGEST}-2"),
        ("search", f"search-team-{DIGEST}-2"),
        ("search", "search-2"),
        ("search", "search"),
        ("search", ""),
        (NAME, f"{NAME}-2"),
    ],
)
def test_other_names_have_no_digest(owner: str, name: str) -> None:
    assert digest_of(owner, name) is None


def test_an_owner_whose_name_ends_like_a_digest_is_told_from_a_shorter_one() -> None:
    assert digest_of(NAME, f"{NAME}-{DIGEST}-2") == DIGEST
    assert digest_of("search", f"{NAME}-{DIGEST}-2") is None


@pytest.mark.parametrize("name", ["search", "search-2", f"{NAME}-1", "anything-else"])
def test_a_name_that_is_no_attempt_stays(name: str) -> None:
    assert first_name(name) == name


@pytest.mark.parametrize(
    ("units", "commitment", "name"),
    [
        (1, None, "search-1mu"),
        (2, "OneMonth", "search-2mu-1m"),
        (12, "SixMonths", "search-12mu-6m"),
    ],
)
def test_throughputs_name_tells_what_can_not_be_changed(
    units: int, commitment: str | None, name: str
) -> None:
    assert throughput_name("search", units, commitment) == name
    assert digest_of("search", name) is None


def test_an_unknown_commitment_has_no_name() -> None:
    with pytest.raises(ValueError, match="'TwoWeeks' is not one of OneMonth, SixMonths"):
        throughput_name("search", 1, "TwoWeeks")
