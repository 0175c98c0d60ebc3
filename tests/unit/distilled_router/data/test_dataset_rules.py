"""What makes a data set unusable, and how it is said."""

import pytest

from distilled_router.data.conversation import row
from distilled_router.data.dataset_rules import VALIDATION_ROWS, Report, check_dataset
from distilled_router.data.findings import Finding
from tests.unit.distilled_router.data.row_scenes import (
    HOLDOUT,
    TASK,
    TURNS,
    WEIGHTS,
    changed,
    check,
    checked_line,
    encoded,
    good,
)


def test_good_data_set_is_usable() -> None:
    report = check(good(100))
    assert report.ok
    assert report.findings == []
    assert report.summary() == (
        "Data set usable: 0 errors, 0 warnings in 100 training rows, 100 holdout rows."
    )


def test_bytes_of_the_queries_are_counted() -> None:
    rows = [encoded(row(TASK, f"a r\u00e9d kite number {number:03d}", WEIGHTS)) for number in range(100)]
    assert check(rows).query_bytes["training"] == 100 * len("a r\u00e9d kite number 000".encode())


def test_duplicate_is_a_warning() -> None:
    finding = checked_line(encoded(row(TASK, "A red  kite, number 8!", TURNS[0])))
    assert (finding.rule, finding.severity) == ("duplicate", "warning")
    assert "line 9" in finding.message


def test_conflicting_label_is_an_error() -> None:
    finding = checked_line(
        encoded(row(TASK, "A red kite number 8", {**WEIGHTS, "visual": 0.9, "metadata": 0.05}))
    )
    assert (finding.rule, finding.severity) == ("conflict", "error")
    assert "'90 0 5 5'" in finding.message
    assert "'85 5 5 5' in line 9" in finding.message


def test_trained_query_in_the_holdout_is_an_error() -> None:
    report = check(good(100), [*HOLDOUT, encoded(row(TASK, "a RED kite number 42", WEIGHTS))])
    (finding,) = report.findings
    assert (finding.file, finding.line, finding.rule) == ("holdout", 101, "contamination")
    assert "training:43" in finding.message


def test_query_near_a_trained_one_is_a_warning() -> None:
    near = encoded(row(TASK, "the Red kites: number 42", WEIGHTS))
    (finding,) = check(good(100), [*HOLDOUT, near]).findings
    assert (finding.severity, finding.line, finding.rule) == ("warning", 101, "near-contamination")
    assert "training:43 ('a red kite number 42')" in finding.message


def test_nearest_of_the_trained_queries_is_named() -> None:
    nearer, farther = "tin drum, big red box, shelf, hot", "tin drum, red box, shelf, hot"
    trained = [encoded(row(TASK, query, WEIGHTS)) for query in (farther, nearer, f"{farther} rain")]
    near = encoded(row(TASK, "tin drum, big red box on a shelf, hot lamp", WEIGHTS))
    (finding,) = check([*good(100), *trained], [*HOLDOUT, near]).findings
    assert "training:102 " in finding.message


@pytest.mark.parametrize(
    "variant",
    [
        "a man plays the gutiar in a park",
        "show me: a man plays guitar in the park",
        "aman plays the guitar in a park",
    ],
)
def test_variant_of_a_trained_query_is_a_warning(variant: str) -> None:
    trained = encoded(row(TASK, "a man plays the guitar in a park", WEIGHTS))
    (finding,) = check([*good(100), trained], [*HOLDOUT, encoded(row(TASK, variant, WEIGHTS))]).findings
    assert finding.rule == "near-contamination"
    assert "training:101 " in finding.message


def test_holdout_that_is_mostly_near_training_is_an_error() -> None:
    def report(near: int) -> Report:
        rows = [
            encoded(row(TASK, f"one red kite, number {index}", TURNS[index % 4])) for index in range(near)
        ]
        return check(good(100), [*HOLDOUT[near:], *rows])

    assert report(10).ok
    assert report(10).counts == {("warning", "near-contamination"): 10}
    assert report(11).counts["error", "contamination-share"] == 1
    assert "11 of 100 rows" in report(11).findings[-1].message


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([0, 1, 2], "no row has metadata as its largest label"),
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3], "visual is the largest label of 79% of the rows"),
        ([0], "all 140 rows have the same answer, which a student could only repeat"),
    ],
)
def test_unbalanced_labels_are_a_warning(turns: list[int], message: str) -> None:
    rows = [
        encoded(row(TASK, f"a red kite number {index}", TURNS[turns[index % len(turns)]]))
        for index in range(140)
    ]
    (finding,) = check(rows).findings
    assert (finding.severity, finding.rule) == ("warning", "balance")
    assert message in finding.message
    assert [finding.rule for finding in check(good(100), rows, "fine_tuning").findings].count("balance") == 1


def test_warnings_are_told_by_rule() -> None:
    report = Report(keep=2)
    for line in (1, 2, 3):
        report.add(Finding("training", line, "duplicate", f"the same as line {line + 7}", "warning"))
    report.add(Finding("holdout", None, "balance", "no row has audio as its largest label", "warning"))
    report.add(Finding("training", 9, "answer", "no weights"))
    assert report.warned() == [
        "3 times duplicate, first training:1 duplicate: the same as line 8",
        "holdout: no row has audio as its largest label",
    ]


def test_label_that_leads_with_others_leads() -> None:
    even = dict.fromkeys(WEIGHTS, 0.25)
    rows = [
        encoded(row(TASK, f"a red kite number {index}", WEIGHTS if index < 10 else even))
        for index in range(100)
    ]
    label = max(WEIGHTS, key=lambda name: WEIGHTS[name])
    assert {finding.message.partition(",")[0] for finding in check(rows).findings} == {
        f"{name} is the largest label of {100 if name == label else 90}% of the rows" for name in WEIGHTS
    }


def test_training_alone_is_checked_where_there_is_no_holdout() -> None:
    report = check_dataset(good(100), None, TASK, "distillation")
    assert report.findings == []
    assert report.rows == {"training": 100}


def test_findings_are_added_to_a_given_report() -> None:
    report = Report()
    report.add(Finding("queries", None, "query-count", "found none"))
    assert check_dataset(None, [b"{\n"], TASK, "distillation", report=report) is report
    assert [finding.file for finding in report.findings[:2]] == ["queries", "holdout"]


def test_validation_rows_are_checked_likewise() -> None:
    def report(validation: list[bytes], training: int = 100) -> Report:
        return check_dataset(good(training), HOLDOUT, TASK, "fine_tuning", validation=validation)

    rows = good(VALIDATION_ROWS[1] + 1, "a tin drum")
    assert report(rows[:-1]).findings == []
    assert "found 1001 rows, at most 1000" in report(rows).summary()
    assert report(good(2)).counts["error", "contamination"] == 2
    assert report(rows[:1], 20_000).counts == {("error", "row-count"): 1}
    assert "20001 rows together with training, at most 20000" in report(rows[:1], 20_000).summary()


def test_duplicate_of_a_long_query_is_found() -> None:
    long = [encoded(row(TASK, "kite " * 500, WEIGHTS))] * 2
    report = check(good(100) + long, [*HOLDOUT, long[0]])
    rules = [finding.rule for finding in report.findings if finding.rule != "query-length"]
    assert rules == ["duplicate", "contamination"]


def test_query_that_the_router_refuses_is_a_warning() -> None:
    finding = checked_line(encoded(row(TASK, "kite " * 103, WEIGHTS)))
    assert (finding.rule, finding.severity) == ("query-length", "warning")


@pytest.mark.parametrize(
    ("method", "rows", "ok"),
    [
        ("distillation", 99, False),
        ("distillation", 100, True),
        ("distillation", 15_000, True),
        ("distillation", 15_001, False),
        ("fine_tuning", 7, False),
        ("fine_tuning", 8, True),
        ("fine_tuning", 20_001, False),
    ],
)
def test_job_takes_so_many_rows(method: str, rows: int, ok: bool) -> None:
    report = check(good(rows), method=method)
    assert report.ok is ok
    assert report.rows["training"] == rows
    if not ok:
        assert [finding.rule for finding in report.findings] == ["row-count"]
        assert f"found {rows}" in report.findings[0].message


def test_broken_rows_do_not_count() -> None:
    report = check([*good(99), b"{}\n", b"{}\n"])
    assert "found 99 usable rows, at least 100" in report.findings[-1].message


def test_small_holdout_is_a_warning() -> None:
    report = check(good(100), HOLDOUT[:30])
    assert report.ok
    assert [finding.rule for finding in report.findings] == ["few-rows"]


def test_size_must_be_under_a_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distilled_router.data.dataset_rules.MAX_BYTES", sum(map(len, good(100))))
    report = check(good(100), HOLDOUT[:0] or HOLDOUT)
    assert "size" in [finding.rule for finding in report.findings]
    assert check([line.rstrip() for line in good(100)], HOLDOUT).counts["error", "size"] >= 1
    monkeypatch.setattr("distilled_router.data.dataset_rules.MAX_BYTES", sum(map(len, HOLDOUT)) + 1)
    assert check(good(100)).ok


def test_unknown_method_is_a_finding() -> None:
    assert "expected distillation or fine_tuning" in check(good(100), method="magic").summary()


def test_only_the_first_findings_of_a_rule_are_kept_and_all_are_counted() -> None:
    broken = [b"{" + b" " * number + b"\n" for number in range(70)]
    report = check_dataset([b"\n"] * 50 + broken, HOLDOUT, TASK, "distillation", keep=3)
    assert [finding.rule for finding in report.findings] == ["blank-line"] + ["json"] * 3 + ["row-count"]
    assert report.counts == {("error", "blank-line"): 50, ("error", "json"): 70, ("error", "row-count"): 1}
    assert (report.errors, report.warnings) == (121, 0)


def test_like_errors_are_told_once_with_their_number() -> None:
    wrong = [changed(schemaVersion=1), changed(schemaVersion="1")]
    report = check([*good(100), *wrong * 20], [*HOLDOUT, wrong[0]])
    assert [(each.file, each.line) for each in report.findings] == [
        ("training", 101),
        ("training", 102),
        ("holdout", 101),
    ]
    assert report.counts == {("error", "schema-version"): 41}
    assert [report.repeated(each) for each in report.findings] == [" (and 19 more like it)"] * 2 + [""]
    assert (
        "training:101 schema-version: found a number, expected 'bedrock-conversation-2024' (and 19 more"
        in (report.summary())
    )


def test_summary_names_rules_places_and_first_findings_within_its_limit() -> None:
    repeated = [good(1)[0]] * 30
    report = check([*good(100), *repeated, b"\n", b"{\n", changed(id=5), changed(schemaVersion="x" * 500)])
    summary = report.summary()
    assert len(summary) < 700
    assert summary.startswith(
        "Data set refused: 4 errors, 30 warnings in 134 training rows, 100 holdout rows."
    )
    assert "By rule: blank-line 1, json 1, keys 1, schema-version 1, duplicate 30." in summary
    assert "training:131 blank-line: found a blank line" in summary
    assert summary.index("training:134 schema-version") > summary.index("training:133 keys")
    assert len(report.summary(limit=120)) <= 120
