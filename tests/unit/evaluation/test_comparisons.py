"""What a candidate is compared with besides the live release, and the warnings that stay with it."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any

import pytest

from distilled_router.release.route import Share
from distilled_router.release.table import LIVE, RETIRED
from evaluation import best_releases
from evaluation.attempt import PLAN
from evaluation.contenders import CANDIDATE, Contender, best_constant
from evaluation.metrics import Answer
from evaluation.prepare_evaluation import prepare
from tests.unit.evaluation.court import ASKED, DATA, LAX, ROWS, Court, worse
from tests.unit.release_world import A, B, C, World

HOLDOUT = (DATA / "holdout.jsonl").read_text().splitlines()


def answered(rows: list[str], answer: str) -> list[str]:
    """Return the rows with another answer."""
    found = [json.loads(row) for row in rows]
    for row in found:
        row["messages"][1]["content"][0]["text"] = answer
    return list(map(json.dumps, found))


def mostly_visual(court: Court, rows: int = 60) -> list[str]:
    """Return hold-out rows of which five in six are visual."""
    by_label: dict[bool, list[str]] = {True: [], False: []}
    for line in HOLDOUT:
        weights = court.task.parse(json.loads(line)["messages"][1]["content"][0]["text"])
        by_label[court.task.dominant(weights) == "visual"].append(line)
    few = rows // 6
    return [*by_label[True][: rows - few], *by_label[False][:few]]


def test_student_that_always_says_the_same_is_refused(court: Court) -> None:
    """Most references have its label, so its dominant-label accuracy is high."""
    court.hold_out(mostly_visual(court))
    court.candidate(answered(ROWS[:200], "70 10 10 10"))
    result = court.evaluate()
    assert court.metrics()["dominant_accuracy"]["value"] >= 0.8
    assert result["outcome"] == "failed"
    assert " than with the best constant answer; smaller wanted" in result["message"]
    assert "more than the 50.0% of an answer that is always the same wanted" in result["message"]


def test_student_of_the_same_rows_that_reads_the_query_passes(court: Court) -> None:
    court.hold_out(mostly_visual(court))
    court.candidate(ROWS)
    assert court.evaluate()["outcome"] == "done"
    against = {check["against"] for check in court.report()["checks"]}
    assert {"static weights", "best constant answer"} <= against


def test_constant_answer_has_the_balanced_accuracy_of_chance(court: Court) -> None:
    court.candidate(ROWS)
    court.hold_out(HOLDOUT)
    court.evaluate()
    for name in ("static", "constant"):
        assert court.metrics(name)["balanced_accuracy"]["value"] == pytest.approx(0.25)
    assert court.metrics()["balanced_accuracy"]["low"] > 0.8


def test_no_constant_answer_is_nearer_than_the_best_constant() -> None:
    chance, labels = random.Random(3), "abcd"

    def weights() -> dict[str, float]:
        drawn = [chance.random() ** 3 for _ in labels]
        return {label: one / sum(drawn) for label, one in zip(labels, drawn, strict=True)}

    for _ in range(50):
        references = [weights() for _ in range(12)]
        groups = ["few"] * 3 + ["many"] * 9

        def error(
            given: Mapping[str, float], references: Sequence[Mapping[str, float]] = references
        ) -> float:
            errors = [sum(abs(one[label] - given[label]) for label in labels) for one in references]
            return fmean(errors[:3]) + fmean(errors[3:])

        best = best_constant(references, groups)
        assert sum(best.values()) == pytest.approx(1)
        tried = [weights() for _ in range(50)] + [
            {label: 0.95 * best[label] + 0.05 * other[label] for label in labels}
            for other in (weights() for _ in range(50))
        ]
        assert error(best) <= min(map(error, [*tried, *references])) + 1e-9


def test_best_constant_is_the_median_as_far_as_its_sum_allows() -> None:
    one, other = {"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}
    assert best_constant([one, one, other], [""] * 3) == {"a": 1.0, "b": 0.0}
    # Each group counts as much as another.
    few = best_constant([*[one] * 20, *[other] * 10], [*["a"] * 20, *["b"] * 10])
    assert few in ({"a": 1.0, "b": 0.0}, {"a": 0.5, "b": 0.5})
    # No label has a median above 0.
    thirds = [{"a": 1.0, "b": 0.0, "c": 0.0}, {"a": 0.0, "b": 1.0, "c": 0.0}, {"a": 0.0, "b": 0.0, "c": 1.0}]
    assert best_constant(thirds, [""] * 3) == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})


# The best release of the same hold-out set


def retire_a_good_release(court: Court) -> None:
    """Evaluate release B, and let it retire."""
    releases = court.world.releases
    model = court.world.train(B, "\n".join(ROWS).encode())
    court.world.begin(B, model_arn=model, endpoint=court.world.deploy(B, model))
    assert court.evaluate(digest=B)["outcome"] == "done"
    releases.update(B, state=RETIRED)


def test_candidate_that_is_worse_than_an_earlier_release_of_the_same_hold_out_set_is_refused(
    world: World, court: Court
) -> None:
    retire_a_good_release(court)
    court.candidate(worse(ROWS[:600]))
    asked = world.calls("Converse")
    result = court.evaluate()
    assert result["outcome"] == "failed"
    assert f"release {B}, the best so far" in result["message"]
    assert world.calls("Converse") == asked + ASKED  # the earlier release was not asked again
    assert court.evaluate(gate=replace(LAX, not_worse=False))["outcome"] == "done"


@pytest.mark.parametrize("changes", [{"rolled_back": 5}, {"state": "failed"}])
def test_other_releases_are_no_measure(court: Court, changes: dict[str, Any]) -> None:
    retire_a_good_release(court)
    court.world.releases.update(B, **changes)
    court.candidate(worse(ROWS[:600]))
    assert court.evaluate()["outcome"] == "done"


def test_lost_answers_of_the_best_release_are_told(court: Court) -> None:
    retire_a_good_release(court)
    court.world.releases.update(B, seal="another", passed="")
    court.candidate(ROWS)
    result = court.evaluate()
    assert result["outcome"] == "done"
    assert f"not compared with earlier release {B}: its answers are lost" in result["message"]


def mended(row: str) -> str:
    """Return a hold-out row with a reference that differs by one percent."""
    found = json.loads(row)
    answer = found["messages"][1]["content"][0]
    first, *others = map(int, answer["text"].split())
    step = 1 if first < 50 else -1
    place = max(range(len(others)), key=lambda one: -step * others[one] if step < 0 else others[one])
    others[place] -= step
    answer["text"] = " ".join(map(str, [first + step, *others]))
    return json.dumps(found)


@pytest.mark.parametrize("change", ["a mended reference", "one more row", "another order"])
def test_best_release_is_the_measure_also_on_nearly_the_same_hold_out_set(court: Court, change: str) -> None:
    retire_a_good_release(court)
    rows = HOLDOUT[:ASKED]
    changed = {
        "a mended reference": [mended(rows[0]), *rows[1:]],
        "one more row": [HOLDOUT[ASKED], *rows],
        "another order": rows[::-1],
    }
    court.hold_out(changed[change])
    court.candidate(worse(ROWS[:600]))
    result = court.evaluate()
    assert result["outcome"] == "failed"
    assert f"release {B}, the best so far" in result["message"]


def test_earlier_releases_with_other_questions_are_told(court: Court) -> None:
    retire_a_good_release(court)
    court.hold_out(HOLDOUT[ASKED : 2 * ASKED])
    court.candidate(ROWS)
    result = court.evaluate()
    assert result["outcome"] == "done"
    assert (
        "not compared with the best of 1 earlier releases: they answered other hold-out" in result["message"]
    )


def test_best_release_of_each_metric_is_the_measure(world: World, court: Court) -> None:
    for digest, rows in ((B, ROWS), (C, worse(ROWS[:600]))):
        model = world.train(digest, "\n".join(rows).encode())
        world.begin(digest, model_arn=model, endpoint=world.deploy(digest, model))
        assert court.evaluate(digest=digest, gate=replace(LAX, not_worse=False))["outcome"] == "done"
        world.releases.update(digest, state=RETIRED)
    court.candidate(ROWS)
    court.evaluate()
    against = [check["against"] for check in court.report()["checks"]]
    assert (against.count(f"release {B}"), against.count(f"release {C}")) == (3, 0)


def test_answers_of_others_in_the_evaluation_of_the_best_release_count_nothing(
    world: World, court: Court
) -> None:
    court.go_live(worse(ROWS[:600]))
    model = world.train(C, "\n".join(ROWS).encode())
    world.begin(C, model_arn=model, endpoint=world.deploy(C, model))
    assert court.evaluate(digest=C)["outcome"] == "done"
    world.releases.update(C, state=RETIRED)
    # As good as the live release.
    court.candidate(worse(ROWS[:600]))
    result = court.evaluate()
    assert result["outcome"] == "failed"
    assert f"release {C}, the best so far" in result["message"]
    assert "the live release" not in result["message"]


def test_release_of_a_task_with_other_labels_is_no_measure(
    court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    retire_a_good_release(court)
    other = [(CANDIDATE, Answer(f"holdout-{number:06d}", {"yes": 0.6, "no": 0.4})) for number in range(ASKED)]
    monkeypatch.setattr(best_releases, "kept_answers", lambda *_: iter(other))
    court.candidate(ROWS)
    result = court.evaluate()
    assert result["outcome"] == "done"
    assert "not compared with the best of 1 earlier releases" in result["message"]


def test_answers_count_that_the_best_release_gave_before_it_was_evaluated_again(
    world: World, court: Court
) -> None:
    retire_a_good_release(court)
    releases = world.releases
    releases.update(B, state=LIVE)
    assert releases.begin_again(
        B, attempt=2, execution="e", request_id="again", holdout_key="datasets/e/holdout.jsonl"
    )
    releases.restore(releases.get(B) or pytest.fail("it is gone"))
    releases.update(B, state=RETIRED)
    court.candidate(worse(ROWS[:600]))
    result = court.evaluate()
    assert result["outcome"] == "failed"
    assert f"release {B}, the best so far" in result["message"]


def test_second_best_is_the_measure_if_answers_of_the_best_are_lost(world: World, court: Court) -> None:
    for digest, rows in ((B, ROWS[:1_500]), (C, ROWS)):
        model = world.train(digest, "\n".join(rows).encode())
        world.begin(digest, model_arn=model, endpoint=world.deploy(digest, model))
        assert court.evaluate(digest=digest, gate=replace(LAX, not_worse=False))["outcome"] == "done"
        world.releases.update(digest, state=RETIRED)
    best = max((B, C), key=lambda one: json.loads(world.release(one).scores)["dominant_accuracy"])
    other = B if best == C else C
    for key in court.keys("answers/", best):
        world.s3.delete_object(Bucket=world.bucket, Key=key)
    court.candidate(worse(ROWS[:600]))
    result = court.evaluate()
    assert result["outcome"] == "failed"
    assert f"release {other}, the best so far" in result["message"]
    assert f"not compared with earlier release {best}: its answers are lost (0 of 40 are left)" in "; ".join(
        court.report()["warnings"]
    )


def test_equal_candidate_passes_beside_the_best_release(court: Court) -> None:
    retire_a_good_release(court)
    court.candidate(ROWS)
    assert court.evaluate()["outcome"] == "done"
    assert f"release {B}" in {check["against"] for check in court.report()["checks"]}


# Warnings


def test_warnings_of_the_data_set_reach_report_message_and_release(world: World, court: Court) -> None:
    body = json.dumps({"warnings": ["training: all 200 rows have the same answer"]}).encode()
    world.s3.put_object(Bucket=world.bucket, Key="datasets/d/warnings.json", Body=body)
    court.hold_out(mostly_visual(court))
    court.candidate(ROWS)
    result = court.evaluate()
    for text in (
        "training: all 200 rows have the same answer",
        "holdout: visual is the largest label of 83%",
    ):
        assert text in result["message"]
        assert text in world.release(A).warnings
        assert any(text in warning for warning in court.report()["warnings"])


def test_warnings_about_training_rows_in_a_folder_of_their_own_reach_the_message(
    world: World, court: Court
) -> None:
    court.hold_out(mostly_visual(court))
    court.candidate(ROWS)
    both, alone = "both folders have this one", "training: 90% of the rows have one label"
    for folder, warnings in (("d", [both]), ("t", [alone, both])):
        body = json.dumps({"warnings": warnings}).encode()
        world.s3.put_object(Bucket=world.bucket, Key=f"datasets/{folder}/warnings.json", Body=body)
    result = court.evaluate(training_key="datasets/t/training.jsonl")
    assert alone in result["message"]
    assert result["message"].count(both) == 1
    assert alone in world.release(A).warnings
    assert alone in court.report()["warnings"]


def test_warnings_stay_when_the_release_goes_live(world: World, court: Court) -> None:
    court.candidate(ROWS)
    base = "us.amazon.nova-micro-v1:0"
    world.server.fault("denied", operation="Converse", modelId=base, count=None)
    court.evaluate(base_model=base)
    releases, found = world.releases, world.release(A)
    shares = (Share(A, found.endpoint, 1.0),)
    releases.move_with_route(A, LIVE, "serves all requests", shares, after=releases.route())
    assert f"router.base_model {base} answered none of " in world.release(A).warnings
    # The next attempt starts without them.
    releases.begin(A, attempt=2, execution="e", request_id="r")
    assert world.release(A).warnings == ""


def test_report_says_what_the_hold_out_set_can_show(court: Court) -> None:
    court.candidate(ROWS)
    court.evaluate()
    power = court.report()["power"]
    assert power["rows"] == ASKED
    assert power["families"] < ASKED
    assert power["effective_rows"] < ASKED
    assert "an equal candidate passes in" in power["shown"]


def test_plan_of_an_earlier_version_also_names_the_static_weights(world: World, court: Court) -> None:
    court.candidate(ROWS)
    prepare(A, world.releases, court.evaluation())
    folder = court.evaluation().folder(world.release(A))
    plan = folder.read(PLAN)
    assert plan is not None
    del plan["warnings"]
    plan["contenders"].append(asdict(Contender(name="static", title="static weights")))
    folder.write(PLAN, plan)
    assert court.evaluate()["outcome"] == "done"
    assert list(court.report()["contenders"]) == ["candidate", "static", "constant"]
