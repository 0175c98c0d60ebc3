"""Curation: which of the teacher's answers are kept, why others are rejected, and the split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from string import ascii_lowercase
from typing import Any

import pytest

from benchmarks import similarity as benchmark
from distilled_router.data.conversation import normalised
from distilled_router.data.similarity import families
from distilled_router.data.split import trained_share
from labelling.curation import HOLDOUT, TRAFFIC, TRAINING, VALIDATION, Curated, curate
from tests.unit.different import different
from tests.unit.labelling.scenes import PLAN, TASK

LOOKS = ("kite", "boat", "horse", "lantern", "bridge", "tractor", "violin", "market", "statue", "parrot")
PLACES = ("harbour", "desert", "kitchen", "stadium", "forest", "tunnel", "garden", "airport", "castle")
SIGHTS = [f"{look} beside the old {place} wall" for look in LOOKS for place in PLACES]


def weights(label: str, share: float = 0.9) -> dict[str, float]:
    rest = (1 - share) / (len(TASK.labels) - 1)
    return {name: share if name == label else rest for name in TASK.labels}


def row(query: str, *answers: Mapping[str, float] | str) -> dict[str, Any]:
    """Return a query with its samples: weights, or the reason why there are none."""
    given = [{"reason": a} if isinstance(a, str) else {"weights": dict(a)} for a in answers]
    return {"number": 0, "query": query, "answers": given, "input_tokens": 10, "output_tokens": 2}


def sure(query: str, label: str = "visual") -> dict[str, Any]:
    return row(query, weights(label), weights(label))


def curated(rows: Sequence[Mapping[str, Any]], held_out: Sequence[str] | None = None, **plan: Any) -> Curated:
    return curate(rows, replace(PLAN, **plan), TASK, held_out)


def kept(result: Curated) -> set[str]:
    return {one.query for part in result.parts.values() for one in part}


def reasons(result: Curated) -> dict[str, str]:
    return {reject.query: reject.reason for reject in result.rejects}


def test_every_query_is_kept_or_has_a_reason() -> None:
    rows = [sure(query) for query in SIGHTS]
    rows.append(row("a query that nobody understood", "empty answer", "no 4 weights found"))
    rows.append(row("the teacher is of two minds", weights("audio"), weights("visual")))
    result = curated(rows, minimum_agreement=0.6)
    assert kept(result) | set(reasons(result)) == {str(each["query"]) for each in rows}
    assert reasons(result) == {
        "a query that nobody understood": "no valid answer",
        "the teacher is of two minds": "the samples disagree",
    }
    report = result.report()
    assert (report["queries"], report["kept"]) == (len(rows), len(SIGHTS))
    assert report["left_out"] == {"no valid answer": 1, "the samples disagree": 1}
    assert report["agreement"] == {"0.00": 1, "0.50": 1, "1.00": len(SIGHTS)}
    assert report["teacher_tokens"] == {"input": 10 * len(rows), "output": 2 * len(rows)}


def test_kept_query_has_all_its_valid_samples_also_those_that_disagree() -> None:
    given = [weights("visual"), weights("audio"), weights("visual", 0.84)]
    rows = [row("a doubtful query about boats", *given[:2], "empty answer", given[2])]
    (one,) = curated(rows, minimum_agreement=0.5).parts[TRAINING]
    assert one.each_sample() == given
    assert one.weights == pytest.approx(weights("visual", 0.87))


def test_only_answer_of_a_query_is_its_only_sample() -> None:
    (one,) = curated([row("a red car", weights("visual"))]).parts[TRAINING]
    assert (one.each_sample(), len(one.samples)) == ([one.weights], 0)


@pytest.mark.parametrize(("least", "is_kept"), [(0.5, True), (0.51, False)])
def test_threshold_of_agreement_is_a_setting(least: float, is_kept: bool) -> None:
    rows = [row("a doubtful query about boats", weights("audio"), weights("visual"))]
    assert ("a doubtful query about boats" in kept(curated(rows, minimum_agreement=least))) == is_kept


@pytest.mark.parametrize(("holdout", "validation"), [(0.1, 0.0), (0.2, 0.1), (0.5, 0.3)])
def test_so_many_queries_are_trained_on_as_is_said_before_labels_are_paid(
    holdout: float, validation: float
) -> None:
    queries = different(1_000)
    result = curated([sure(query) for query in queries], holdout_share=holdout, validation_share=validation)
    trained = len(result.parts[TRAINING]) / len(queries)
    assert trained == pytest.approx(trained_share(holdout, validation), abs=0.01)


def test_no_family_is_in_two_parts() -> None:
    words = distinct(120)
    queries = [variant for query in words for variant in (query, f"the {query}")]
    result = curated([sure(query) for query in queries], holdout_share=0.3, validation_share=0.1)
    place = {one.query: name for name, part in result.parts.items() for one in part}
    assert set(place.values()) == {TRAINING, VALIDATION, HOLDOUT, TRAFFIC}
    numbers = families(queries)
    assert len(set(numbers)) == len(words)
    for number in set(numbers):
        members = [query for query, own in zip(queries, numbers, strict=True) if own == number]
        assert len({place[query] for query in members} - {TRAFFIC}) <= 1, members
        assert {HOLDOUT, TRAFFIC} - {place[query] for query in members}, members


@pytest.mark.parametrize("vary", [benchmark.typo, benchmark.any_phrase])
def test_no_variant_of_a_held_out_query_is_trained_on(vary: Callable[[str, Random], str]) -> None:
    chance = Random(5)
    words = ["".join(chance.choices(ascii_lowercase, k=8)) for _ in range(800)]
    queries = [" ".join(words[start : start + 4]) for start in range(0, 800, 4)]
    twins = {query: vary(query, chance) for query in queries}
    twins |= {variant: query for query, variant in twins.items()}
    result = curated([sure(query) for query in twins], holdout_share=0.2)
    trained, held_out = ({one.query for one in result.parts[part]} for part in (TRAINING, HOLDOUT))
    assert len(held_out) > 60
    assert not {twins[query] for query in held_out} & trained


def distinct(count: int) -> list[str]:
    """Return queries with hardly a word in common."""
    return [f"{word}ing {word}ers {word}ness" for word in _words(count)]


def _words(count: int) -> list[str]:
    letters = "bcdfglmnprst"
    return [f"{a}o{b}a{c}" for a in letters for b in letters for c in letters][:count]


def test_parts_have_their_shares_label_by_label() -> None:
    queries = distinct(400)
    labels = ["visual"] * 300 + ["audio"] * 100
    rows = [sure(query, label) for query, label in zip(queries, labels, strict=True)]
    result = curated(rows, holdout_share=0.2)
    held_out = [one.label for one in result.parts[HOLDOUT]]
    assert held_out.count("visual") == pytest.approx(60, abs=3)
    assert held_out.count("audio") == pytest.approx(20, abs=3)
    assert VALIDATION not in result.parts


def test_split_follows_from_the_labels_and_nothing_else() -> None:
    rows = [sure(query) for query in distinct(200)]
    first, again = curated(rows), curated(rows)
    assert first.parts == again.parts
    other = curated(rows, labels="f" * 16)
    assert other.parts[HOLDOUT] != first.parts[HOLDOUT]


def test_large_family_is_trained_on_and_not_held_out() -> None:
    """Held out, it would dominate the evaluation."""
    rows = [sure(f"season {number} of a Danish crime series") for number in range(300)]
    rows += [sure(query) for query in distinct(300)]
    result = curated(rows, holdout_share=0.1)
    assert result.largest_family >= 300
    assert not any("Danish" in one.query for one in result.parts[HOLDOUT])


def test_part_of_the_queries_is_kept_from_training_whatever_their_family() -> None:
    rows = [sure(f"season {number} of a Danish crime series") for number in range(300)]
    rows += [sure(query) for query in distinct(300)]
    result = curated(rows, holdout_share=0.2)
    apart = {one.query for one in result.parts[TRAFFIC]}
    assert len(apart) == 60
    assert 20 < sum("Danish" in query for query in apart) < 50
    assert apart.isdisjoint(one.query for part in (TRAINING, HOLDOUT) for one in result.parts[part])
    assert curated(rows, holdout_share=0.2).parts[TRAFFIC] == result.parts[TRAFFIC]


def test_report_says_what_the_holdout_stands_for() -> None:
    """Large families are never held out, and queries without a sure label are gone before the split."""
    rows = [sure(f"season {number} of a Danish crime series") for number in range(300)]
    rows += [sure(query) for query in distinct(600)]
    rows += [row(query, weights("audio"), weights("visual")) for query in SIGHTS]
    result = curated(rows, holdout_share=0.1, minimum_agreement=0.6)
    found = result.report()["holdout"]
    assert found["in_large_families"]["queries"] == pytest.approx(300 / 990, abs=1e-4)
    assert found["without_a_sure_label"]["queries"] == pytest.approx(90 / 990, abs=1e-4)
    assert found["stands_for"]["queries"] == pytest.approx(600 / 990, abs=1e-3)
    (note,) = result.notes(replace(PLAN, holdout_share=0.1))
    assert "the hold-out set stands for 61% of the queries and 61% of the traffic" in note
    assert "30% of the queries are in families of more than 9 similar ones" in note
    assert "of 9% the teacher's answers were invalid or disagreed" in note


def test_labels_that_balancing_left_out_are_told() -> None:
    rows = [sure(query) for query in distinct(100)]
    rows += [sure(query, "audio") for query in SIGHTS[:10]]
    plan = replace(PLAN, maximum_label_share=0.6)
    (note,) = curated(rows, held_out=[], maximum_label_share=0.6).notes(plan)
    assert "labelling.maximum_label_share = 0.6 left out 85 labels that were paid for" in note


def test_holdout_is_never_larger_than_a_release_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelling.curation.HOLDOUT_ROWS", (1, 20))
    result = curated([sure(query) for query in distinct(300)], holdout_share=0.5)
    assert len(result.parts[HOLDOUT]) == 20


def test_given_holdout_is_kept_out_of_the_training() -> None:
    queries = distinct(50)
    rows = [sure(query) for query in queries]
    rows.append(sure("a red car, parked at night outside a small hotel"))
    held_out = [queries[3].upper(), "a red car parked at night outside the small hotel"]
    result = curated(rows, held_out=held_out)
    assert set(result.parts) == {TRAINING}
    assert reasons(result) == {
        queries[3]: "in the hold-out set",
        "a red car, parked at night outside a small hotel": "nearly in the hold-out set",
    }
    assert {normalised(query) for query in held_out}.isdisjoint(map(normalised, kept(result)))


def test_label_that_dominates_is_cut_back_least_sure_first() -> None:
    queries = distinct(200)
    rows = [sure(query) for query in queries[:100]]
    rows += [row(query, weights("visual"), "empty answer") for query in queries[100:150]]
    rows += [sure(query, "audio") for query in queries[150:]]
    result = curated(rows, held_out=[], maximum_label_share=0.6, minimum_agreement=0.5)
    labels = [one.label for one in result.parts[TRAINING]]
    assert labels.count("visual") == 75
    assert labels.count("audio") == 50
    out = {query for query, reason in reasons(result).items() if reason == "too many of visual"}
    assert set(queries[100:150]) <= out
    assert len(out) == 75


def test_no_more_rows_than_a_job_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelling.curation.ROWS", {"distillation": (1, 40)})
    queries = distinct(60)
    rows = [row(query, weights("visual"), "empty answer") for query in queries[:30]]
    rows += [sure(query) for query in queries[30:]]
    result = curated(rows, held_out=[], minimum_agreement=0.5)
    assert len(result.parts[TRAINING]) == 40
    assert set(queries[30:]) <= kept(result)
    assert set(reasons(result).values()) == {"more than 40 rows"}


def test_without_labels_nothing_is_kept() -> None:
    result = curated([])
    assert result.parts == {TRAINING: []}
    assert result.report()["kept"] == 0
