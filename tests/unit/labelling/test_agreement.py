"""Agreement between the teacher's samples for a query."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilled_router.task.parsing import apportioned, weights_problem
from labelling.agreement import consensus
from tests.unit.labelling.scenes import TASK


def weights(*percents: int) -> dict[str, float]:
    return {label: percent / 100 for label, percent in zip(TASK.labels, percents, strict=True)}


def test_samples_that_agree_give_their_mean() -> None:
    found = consensus([weights(80, 10, 10, 0), weights(90, 10, 0, 0)], TASK, 0.1)
    assert found is not None
    assert found.agreement == 1
    assert found.weights == pytest.approx(weights(85, 10, 5, 0))


def test_sample_that_differs_is_left_out() -> None:
    found = consensus([weights(0, 0, 100, 0), weights(80, 20, 0, 0), weights(85, 15, 0, 0)], TASK, 0.1)
    assert found is not None
    assert found.agreement == pytest.approx(2 / 3)
    assert found.weights == pytest.approx(weights(82, 18, 0, 0), abs=0.01)


def test_samples_without_weights_count_against_it() -> None:
    found = consensus([weights(100, 0, 0, 0), None, None], TASK, 0.1)
    assert found is not None
    assert found.agreement == pytest.approx(1 / 3)


def test_without_weights_there_is_no_consensus() -> None:
    assert consensus([None, None], TASK, 0.1) is None


def test_near_weights_with_another_largest_label_do_not_agree() -> None:
    found = consensus([weights(51, 49, 0, 0), weights(49, 51, 0, 0)], TASK, 0.1)
    assert found is not None
    assert found.agreement == 0.5
    assert found.weights == weights(51, 49, 0, 0)


def test_tied_labels_agree_with_either() -> None:
    found = consensus([weights(50, 50, 0, 0), weights(55, 45, 0, 0)], TASK, 0.1)
    assert found is not None
    assert found.agreement == 1


def test_tolerance_holds_at_its_edge() -> None:
    """In floating point, 0.9 - 0.8 is more than 0.1."""
    found = consensus([weights(90, 10, 0, 0), weights(80, 20, 0, 0)], TASK, 0.1)
    assert found is not None
    assert found.agreement == 1


PARTS = st.lists(st.integers(0, 100), min_size=4, max_size=4).filter(any)


@given(st.lists(PARTS, min_size=1, max_size=6), st.floats(0, 1))
def test_consensus_is_a_valid_label(samples: list[list[int]], tolerance: float) -> None:
    answers = [
        dict(zip(TASK.labels, (part / 100 for part in apportioned(sample, 100)), strict=True))
        for sample in samples
    ]
    found = consensus(answers, TASK, tolerance)
    assert found is not None
    assert weights_problem(found.weights, TASK.labels) is None
    assert TASK.written_as_asked(TASK.render(found.weights))
    assert 1 / len(samples) <= found.agreement <= 1
