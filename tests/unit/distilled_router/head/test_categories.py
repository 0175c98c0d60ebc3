from __future__ import annotations

import random

import pytest

from distilled_router.head.categories import MOST_CATEGORIES, Vector, categories, distance, distances


def vectors(count: int, seed: int = 1) -> list[Vector]:
    """Return vectors of four labels in steps of 0.01, most of them different."""
    chance, found = random.Random(seed), []
    for _ in range(count):
        cuts = sorted(chance.choices(range(101), k=3))
        found.append(tuple((b - a) / 100 for a, b in zip([0, *cuts], [*cuts, 100], strict=True)))
    return found


def test_distances_are_mean_absolute_errors() -> None:
    given = vectors(9)

    assert distances(given) == [[pytest.approx(distance(one, other)) for other in given] for one in given]
    assert distance((0.5, 0.5), (1.0, 0.0)) == 0.5


def test_few_labels_are_the_categories() -> None:
    assert categories([(0.5, 0.5), (1.0, 0.0), (0.5, 0.5)]) == ((0.5, 0.5), (1.0, 0.0))


def test_63_labels_are_kept_and_64_are_merged() -> None:
    given = sorted(set(vectors(200)))[: MOST_CATEGORIES + 1]

    assert categories(given[:-1]) == tuple(given[:-1])
    assert len(categories(given)) <= MOST_CATEGORIES
    assert len(set(categories(given)) & set(given)) >= MOST_CATEGORIES - 3


@pytest.mark.parametrize("count", [150, 800])
def test_merged_categories_are_near_the_labels(count: int) -> None:
    """By chance alone, the nearest of 63 labels is on average 0.06 away."""
    given = vectors(count)
    found = categories(given)

    assert len(found) <= MOST_CATEGORIES
    assert all(abs(sum(each) - 1) < 1e-4 for each in found)
    assert sum(min(distance(one, each) for each in found) for one in given) / count < 0.045


def test_order_of_the_rows_does_not_matter() -> None:
    given = vectors(150)
    other = random.Random(3).sample(given, len(given))

    assert categories(given) == categories(other)


def test_frequent_labels_are_kept() -> None:
    given = vectors(150)

    assert (
        distance(
            given[7], min(categories([*given, *[given[7]] * 500]), key=lambda one: distance(one, given[7]))
        )
        < 2e-3
    )
