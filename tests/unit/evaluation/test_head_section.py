"""The report's section on the classification head."""

from __future__ import annotations

import copy
import html
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from distilled_router.head.calibration import calibrate
from evaluation.attempt import Evaluation
from evaluation.head_report import Margins
from evaluation.head_section import head_section
from evaluation.page import page
from evaluation.train_head import train
from tests.unit.evaluation.court import ROWS, Court
from tests.unit.evaluation.test_report_page import HOSTILE, Document, each_text, full, head
from tests.unit.release_world import A, World

TRAINING = "datasets/t/training.jsonl"


def shown(found: dict[str, Any]) -> str:
    """Return the section's text in one line."""
    document = Document(page(full() | {"head": found}))
    return re.sub(r"\s+", " ", document.text)


def test_without_a_head_the_page_is_as_before() -> None:
    assert page(full()) == page(full() | {"head": None})
    assert "Classification head" not in page(full())


def test_section_has_the_promise_in_one_sentence_and_its_bounds() -> None:
    found = head()
    text = shown(found)
    assert (
        "Promise, with 95 % confidence: where the head answers first, the mean absolute error of all answers "
        "grows by at most 0.020, and the share of right dominant labels falls by at most 3.00 points." in text
    )
    assert "Coverage 70.0% of the hold-out queries" in text
    assert f"larger by at most {found['bounds']['error']:.3f}, allowed 0.020" in text
    assert f"by at most {100 * found['bounds']['dominant']:.2f} points, allowed 3.00 points" in text
    assert "200 hold-out queries in 200 families; at least 99 families are needed" in text
    assert "head 0.345, student 0.012 nats" in text
    assert "2,200 labelled queries, of which 440 have several labels, and 60 texts" in text


def test_section_plots_the_error_by_coverage() -> None:
    source = head_section(head())
    assert source.count("<svg") == 1
    assert [source.count(f'class="series is-{name}"') > 0 for name in ("static", "base", "candidate")] == [
        True
    ] * 3
    assert "Student" in source


def test_table_by_coverage_says_where_the_tests_stop() -> None:
    document = Document(f"<div>{head_section(head())}</div>")
    decisions = [data for _, data in document.texts if data in ("yes", "no")]
    assert decisions == ["yes"] * 14 + ["no"] * 6


def test_silence_is_shown_by_slice() -> None:
    source = re.sub(' data-label="[^"]*"', "", head_section(head()))
    assert '<th scope="row">holdout</th><td>200</td><td>25.0%</td><td>150</td><td>3 of 150</td>' in source
    assert '<th scope="row">out_of_domain</th><td>40</td><td>95.0%</td><td>2</td><td><span' in source


def test_savings_show_their_arithmetic() -> None:
    """By hand: 700 queries of 50 and 10 tokens are 35,000 and 7,000 tokens."""
    text = html.unescape(head_section(head()))
    times = "\N{MULTIPLICATION SIGN}"
    assert f"1,000 {times} 70.0% = 700<" in text
    assert f"700 {times} 400 ms = 280,000 ms<" in text
    assert f"700 {times} (50.0 {times} 0.035 + 10.0 {times} 0.14) / 1,000,000 = 0.0022 USD<" in text


def test_without_a_price_or_a_latency_the_savings_are_unknown() -> None:
    found = head()
    found["student"] |= {"latency_ms": None, "input_usd_per_million": None}
    text = head_section(found)
    assert text.count('<dd><span class="unknown">unknown</span></dd>') == 2


def test_a_problem_is_told_instead() -> None:
    source = head_section({"problem": f"no rows {HOSTILE}"})
    assert "There is no classification head: no rows &lt;/svg&gt;" in source
    assert "<h3>" not in source


def test_too_few_families_say_how_many_are_needed() -> None:
    text = shown(head(rows=60, wrong_above=1.0))
    assert "There is no threshold that keeps the margins." in text
    assert "has 60 families of similar queries; its margins need at least 99" in text
    assert "It can still be the last resort." in text
    assert "Promise" not in text
    assert "Saved per" not in text


def test_a_head_that_is_too_bad_says_so() -> None:
    text = shown(head(wrong_above=0.0))
    assert "Even for the surest 5% of the hold-out queries, a bound exceeds its margin: error " in text
    assert "Add training labels" in text


def test_without_answers_of_the_candidate_it_says_so() -> None:
    none = calibrate([], 0.02, 0.03, 4)
    found = head() | {"threshold": None, "obstacle": none.obstacle, "table": []}
    assert "The student answered none of the hold-out queries" in shown(found)


def emptied(found: dict[str, Any]) -> None:
    found.clear()
    found["key"] = "x"


def nulls(found: dict[str, Any]) -> None:
    for name in list(found):
        found[name] = None
    found["threshold"] = 0.1


def null_rows(found: dict[str, Any]) -> None:
    found["table"] = [dict.fromkeys(one) for one in found["table"]]
    found["slices"] = {"holdout": {}}
    found["student"] = dict.fromkeys(found["student"])


@pytest.mark.parametrize("change", [emptied, nulls, null_rows], ids=lambda change: change.__name__)
def test_what_is_missing_is_no_error(change: Callable[[dict[str, Any]], None]) -> None:
    found = head()
    change(found)
    kept = copy.deepcopy(found)
    text = shown(found)
    assert found == kept
    assert "Classification head" in text
    assert "None" not in text.replace("None.", "")
    assert "nan" not in text.lower().split()


def test_hostile_texts_stay_texts() -> None:
    found = each_text(head(), lambda text: f"{text} {HOSTILE}")
    found["slices"] = {HOSTILE: found["slices"]["holdout"]}
    document = Document(page(full() | {"head": found}))
    assert not document.named("script", "img")
    assert HOSTILE in document.text


def with_head(court: Court, evaluation: Evaluation, patch: pytest.MonkeyPatch) -> None:
    """Let the step train a head between the questions and the score."""
    real = court.answer

    def answer(*given: Any) -> Any:
        answered = real(*given)
        assert train(A, court.world.releases, evaluation, Margins(0.5, 0.5))["outcome"] == "done"
        return answered

    patch.setattr(court, "answer", answer)


def test_report_holds_what_the_step_found(
    world: World, court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the questions to the report, with a candidate that the stand-in trained."""
    court.candidate(ROWS)
    world.s3.put_object(Bucket=world.bucket, Key=TRAINING, Body="\n".join(ROWS[:3]).encode())
    with_head(court, court.evaluation(training_key=TRAINING), monkeypatch)
    assert court.evaluate()["outcome"] == "done"
    found = court.report()["head"]
    assert (found["rows"], found["holdout"]["rows"]) == (3, 40)
    assert found["student"]["latency_ms"] > 0
    (key,) = court.keys("head.json")
    assert found == json.loads(world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read())
    (key,) = court.keys("report.html")
    assert b"Classification head" in world.s3.get_object(Bucket=world.bucket, Key=key)["Body"].read()
    assert world.release(A).warnings == ""


def test_report_without_the_step_has_no_head(court: Court) -> None:
    court.candidate()
    court.evaluate()
    assert "head" not in court.report()


def test_a_problem_of_the_head_changes_no_decision(court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
    court.candidate()
    without = court.evaluate()
    first = court.report()
    with_head(court, court.evaluation(training_key="missing"), monkeypatch)
    assert court.evaluate() == without
    report = court.report()
    assert "NoSuchKey" in report.pop("head")["problem"]
    changing = ("evaluated_at",)
    assert {name: one for name, one in report.items() if name not in changing} == {
        name: one for name, one in first.items() if name not in changing
    }


def test_a_replaced_report_of_the_head_fails_no_release(world: World, court: Court) -> None:
    """Where a head is noted on the release, the report says it; otherwise an earlier stack left the file."""
    court.candidate()
    court.evaluate()
    prefix = court.keys("report.json")[0].removesuffix("report.json")
    world.s3.put_object(Bucket=world.bucket, Key=f"{prefix}head.json", Body=b'{"problem": "forged"}')
    assert court.evaluate()["outcome"] == "done"
    assert "head" not in court.report()
    world.releases.update(A, head=f"{prefix}head.bin")
    assert court.evaluate()["outcome"] == "done"
    assert "was replaced" in court.report()["head"]["problem"]
