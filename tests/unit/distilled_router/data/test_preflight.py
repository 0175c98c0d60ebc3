"""What job and gate need is compared with the data before anything is paid for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from distilled_router.data.conversation import examples
from distilled_router.data.dataset_rules import check_dataset
from distilled_router.data.findings import Report
from distilled_router.data.limits import HOLDOUT_ROWS, least_rows
from distilled_router.data.preflight import Needs, check_holdout, check_queries, left_out, shown, try_split
from distilled_router.data.similarity import families
from stacks.settings import PROJECT
from tests.unit.different import different
from tests.unit.distilled_router.data.row_scenes import HOLDOUT, TASK, good

NEEDS = Needs(method="distillation", minimum_examples=200, margin=0.05, holdout_share=0.1)
NOVA_2_LITE = "amazon.nova-2-lite-v1:0:256k"


def tried(queries: list[str], needs: Needs = NEEDS) -> Report:
    report = Report()
    try_split(queries, needs, report)
    return report


def messages(report: Report, rule: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.rule == rule]


def test_share_that_holds_out_too_few_is_an_error() -> None:
    report = Report()
    assert not check_queries(980, NEEDS, report)
    assert "labelling.holdout_share = 0.1 holds out at most 98 of the 980 queries" in report.summary()
    assert check_queries(2_000, NEEDS, report := Report())
    assert report.counts == {}


def test_queries_of_one_template_can_not_be_held_out() -> None:
    report = tried([f"season {number} of a Danish crime series" for number in range(3_000)])
    (message,) = messages(report, "examples")
    assert message.startswith("no query can be held out: the 3,000 share one template or a few")
    assert message.endswith("provide a hold-out file of your own in dataset.holdout")


def test_families_that_are_never_held_out_are_told() -> None:
    queries = [f"season {number} of a Danish crime series" for number in range(800)] + different(2_400)
    report = tried(queries)
    (message,) = messages(report, "families")
    assert message.startswith("25% of the queries are in families of more than 32 similar ones")
    assert report.ok


def test_split_into_large_families_shows_less_than_its_rows() -> None:
    twins = [
        f"{query} {word}" for query in different(400) for word in ("", "today", "tonight", "later", "soon")
    ]
    needs = replace(NEEDS, minimum_examples=100, margin=0.03)
    assert messages(tried(twins, needs), "power")
    assert not messages(tried(different(4_000), needs), "power")


def test_trial_of_many_queries_is_made_with_a_part_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilled_router.data.preflight.TRIED_QUERIES", 500)
    report = tried(different(5_000), replace(NEEDS, minimum_examples=0))
    assert sum(report.holdout_families) == pytest.approx(500, abs=20)


def test_families_of_a_holdout_file_are_those_of_the_evaluation() -> None:
    rows = (PROJECT / "data" / "holdout.jsonl").read_text().splitlines(keepends=True)
    asked = [example.query for example in examples(rows, TASK)]
    report = check_dataset(None, [row.encode() for row in rows], TASK, "distillation", needs=NEEDS)
    # Names begin with a capital letter and tell templates, so families need queries as they are written.
    assert sorted(report.holdout_families) == sorted(Counter(families(asked)).values())


def test_largest_holdout_is_one_number_everywhere() -> None:
    from evaluation.questions import MOST_QUESTIONS

    assert HOLDOUT_ROWS[1] == MOST_QUESTIONS
    assert check_queries(100_000, replace(NEEDS, holdout_share=0.5, minimum_examples=20_000), Report())
    assert not check_queries(100_000, replace(NEEDS, holdout_share=0.5, minimum_examples=20_001), Report())


def test_holdout_file_is_compared_with_the_gate() -> None:
    check_holdout(98, NEEDS, report := Report())
    assert "found 98 rows, and gate.minimum_examples is 200" in report.summary()
    assert "add 102 rows, or lower it" in report.summary()
    found = check_dataset(good(100), HOLDOUT, TASK, "distillation", needs=replace(NEEDS, holdout_share=0))
    assert ("error", "examples") in found.counts
    assert check_dataset(good(100), HOLDOUT, TASK, "distillation").ok


def test_holdout_file_that_shows_too_little_is_told() -> None:
    few = replace(NEEDS, holdout_share=0, minimum_examples=0)
    report = check_dataset(good(100), HOLDOUT[:20], TASK, "distillation", needs=few)
    (message,) = messages(report, "power")
    assert "provide 167 independent rows" in message
    assert "raise gate.non_inferiority_margin (0.05) and gate.error_margin (0.02)" in message
    assert sum(report.holdout_families) == 20


def test_student_decides_the_least_rows() -> None:
    needs = Needs(method="fine_tuning", student=NOVA_2_LITE)
    assert (least_rows("fine_tuning", NOVA_2_LITE), least_rows("fine_tuning")) == (200, 8)
    assert not check_dataset(good(100), None, TASK, "fine_tuning", needs=needs).ok
    assert check_dataset(good(200), None, TASK, "fine_tuning", needs=needs).ok
    check_queries(199, needs, report := Report())
    assert "found 199 usable, different queries, at least 200" in report.summary()


@pytest.mark.parametrize(
    ("share", "most", "part"), [(0.9, 0.6, 0.75), (0.5, 0.6, 0.0), (1.0, 0.6, 0.0), (0.9, 1.0, 0.0)]
)
def test_what_balancing_drops_is_computed(share: float, most: float, part: float) -> None:
    assert left_out(share, most) == pytest.approx(part)


def test_balancing_is_told_before_labels_are_paid() -> None:
    check_queries(5_000, replace(NEEDS, maximum_label_share=0.6), report := Report())
    (message,) = messages(report, "balance")
    assert message.startswith(
        "labelling.maximum_label_share = 0.6 leaves paid labels out: 75% of them if 90 %"
    )


def test_what_the_holdout_shows_is_said_in_words() -> None:
    report = tried(different(4_000))
    assert shown(report, NEEDS).startswith("Hold-out set: at most 400 rows in 400 families count as 400 ")
    assert shown(Report(), NEEDS) == ""


def test_needs_survive_a_template() -> None:
    assert Needs.read(NEEDS.written()) == NEEDS
