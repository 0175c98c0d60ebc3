"""The report page's section on the classification head, from the content of head.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distilled_router.head.calibration import MOST_RISK
from evaluation import plots
from evaluation.markup import code, definitions, table
from evaluation.wording import UNKNOWN, figure, is_number, text

# Lines of the plot: their colours are those of the contenders.
_LINES = {"candidate": "Student", "static": "Head, on what it answers", "base": "Both together"}
_QUERIES = 1_000
_TIMES = "\N{MULTIPLICATION SIGN}"
_LAST_RESORT = "Without a threshold the head answers no query first. It can still be the last resort."

type Head = Mapping[str, Any]


def head_section(head: Head | None) -> str:
    """Return the section; empty without a head.

    Args:
        head: the content of head.json. Missing parts and nulls are shown as unknown, or left out.
    """
    if not head:
        return ""
    title = "<h2>Classification head</h2>"
    if problem := head.get("problem"):
        return f'{title}<p class="note">There is no classification head: {text(problem)}</p>'
    parts = [_promise(head) if _has_threshold(head) else _no_threshold(head), definitions(_facts(head))]
    parts += [_plot(head), _by_coverage(head)]
    if _has_threshold(head):
        parts += [_slices(head), _savings(head)]
    return f"{title}{''.join(parts)}"


def _has_threshold(head: Head) -> bool:
    return is_number(head.get("threshold"))


def _promise(head: Head) -> str:
    margins = _part(head, "margins")
    return (
        '<p class="note">Promise, with 95 % confidence: where the head answers first, the mean absolute '
        f"error of all answers grows by at most {_shown(margins.get('error'), 'weight')}, and the share of "
        f"right dominant labels falls by at most {_points(margins.get('dominant'))}.</p>"
    )


def _no_threshold(head: Head) -> str:
    why = text(head.get("obstacle") or "")
    return f'<p class="note">There is no threshold that keeps the margins. {why} {_LAST_RESORT}</p>'


def _facts(head: Head) -> dict[str, str]:
    margins, bounds, holdout = (_part(head, name) for name in ("margins", "bounds", "holdout"))
    mine, student = _part(head, "head"), _part(head, "student")
    found = {}
    if _has_threshold(head):
        found = {
            "Coverage": f"{_shown(head.get('coverage'), 'share')} of the hold-out queries",
            "Threshold": f"risk {figure(head['threshold'], '')}",
            "Mean absolute error": f"larger by at most {_shown(bounds.get('error'), 'weight')}, allowed "
            f"{_shown(margins.get('error'), 'weight')}",
            "Dominant label": f"right in fewer queries by at most {_points(bounds.get('dominant'))}, allowed "
            f"{_points(margins.get('dominant'))}",
        }
    return found | {
        "Calibrated on": f"{holdout.get('rows') or 0:,} hold-out queries in {holdout.get('families') or 0:,} "
        f"families; at least {holdout.get('needed') or 0:,} families are needed",
        "KL divergence from the teacher": f"head {_shown(mine.get('kl_divergence'), 'nats')}, student "
        f"{_shown(student.get('kl_divergence'), 'nats')} nats",
        "Trained on": f"{head.get('rows') or 0:,} labelled queries, of which {head.get('sampled') or 0:,} "
        f"have several labels, and {head.get('negatives') or 0:,} texts that are no query",
        "Training": f"{_shown(head.get('seconds'), '')} s; {head.get('categories') or 0:,} categories, "
        f"softness {_shown(head.get('tau'), '')}",
        "Training rows": f"{code(head.get('training'))} SHA-256 {code(head.get('training_sha256'))}",
        "File": f"{code(head.get('key'))} {head.get('bytes') or 0:,} bytes, SHA-256 "
        f"{code(head.get('sha256'))}",
    }


def _plot(head: Head) -> str:
    rows = [one for one in head.get("table") or () if is_number(one.get("coverage"))]
    if not rows:
        return ""
    student: Any = _part(head, "student").get("error")
    lines: dict[str, Sequence[tuple[float, float]]] = {
        "static": [(one["coverage"], one["head_error"]) for one in rows if is_number(one.get("head_error"))],
        "base": [(one["coverage"], one["mixed_error"]) for one in rows if is_number(one.get("mixed_error"))],
        "candidate": [(one["coverage"], student) for one in rows] if is_number(student) else [],
    }
    drawn = {name: line for name, line in lines.items() if line}
    legend = plots.legend({name: _LINES[name] for name in drawn})
    shown = plots.by_coverage(drawn, "Mean absolute error by share of the queries that the head answers")
    return (
        '<h3>Error by coverage</h3><p class="note">Mean absolute error by the share of the hold-out queries '
        f'that the head answers, the surest first.</p><div class="pairs"><div>{legend}{shown}</div></div>'
    )


def _by_coverage(head: Head) -> str:
    rows = [
        [
            _shown(one.get("coverage"), "share"),
            _shown(one.get("threshold"), "weight"),
            _shown(one.get("head_error"), "weight"),
            _shown(one.get("mixed_error"), "weight"),
            _shown(one.get("error_bound"), "weight", signed=True),
            _shown(one.get("mixed_dominant"), "share"),
            _points(one.get("dominant_bound")),
            "yes" if one.get("ok") else '<span class="no">no</span>',
        ]
        for one in head.get("table") or ()
    ]
    titles = ("Coverage", "Risk", "Error, head", "Error, all", "Bound", "Dominant, all", "Bound", "OK")
    note = (
        "Coverages are tested one after another, up to the first whose bound exceeds a margin, or whose risk "
        f"exceeds {MOST_RISK:g}. Bounds are of how much larger the error becomes, and how much smaller the "
        "share of right dominant labels."
    )
    return f'<p class="note">{note}</p>{table("Losses by coverage", titles, rows)}'


def _slices(head: Head) -> str:
    rows = []
    for name, one in (head.get("slices") or {}).items():
        judged = one.get("judged") or 0
        wrong = f"{one.get('wrong') or 0:,} of {judged:,}" if judged else UNKNOWN
        silent = _shown(one.get("silent"), "share")
        accepted = f"{one.get('accepted') or 0:,}"
        rows.append([text(name), f"{one.get('questions') or 0:,}", silent, accepted, wrong])
    note = (
        "The head leaves questions to the student where its risk is above the threshold. A wrong answer has "
        "another dominant label than the reference."
    )
    titles = ("Slice", "Questions", "Left to the student", "Answered", "Wrong")
    return f'<h3>By slice</h3><p class="note">{note}</p>{table("Answers of the head by slice", titles, rows)}'


def _savings(head: Head) -> str:
    coverage, student = head.get("coverage") or 0.0, _part(head, "student")
    requests = round(_QUERIES * coverage)
    found = {
        "Requests of the student": f"{_QUERIES:,} {_TIMES} {_shown(coverage, 'share')} = {requests:,}",
        "Time": UNKNOWN,
        "Tokens": UNKNOWN,
    }
    latency: Any = student.get("latency_ms")
    if is_number(latency):
        found["Time"] = f"{requests:,} {_TIMES} {latency:,.0f} ms = {requests * latency:,.0f} ms"
    used = [student.get(name) for name in ("input_tokens", "output_tokens")]
    prices = [student.get(f"{name}_usd_per_million") for name in ("input", "output")]
    pairs = [
        (float(count), float(price))
        for count, price in zip(used, prices, strict=True)
        if count is not None and price is not None
    ]
    if len(pairs) == len(used):
        usd = requests * sum(count * price for count, price in pairs) / 1_000_000
        arithmetic = " + ".join(f"{count:,.1f} {_TIMES} {price:g}" for count, price in pairs)
        found["Tokens"] = f"{requests:,} {_TIMES} ({arithmetic}) / 1,000,000 = {figure(usd, 'usd')} USD"
    note = (
        f"What the head saves in {_QUERIES:,} queries like those of the hold-out set, if it answers first: "
        "by the student's mean time and tokens, and the list prices of a million input and output tokens. "
        "Queries that explore, and cached ones, save nothing; provisioned throughput is billed by the hour."
    )
    return f'<h3>Saved per {_QUERIES:,} queries</h3><p class="note">{note}</p>{definitions(found)}'


def _part(head: Head, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = head.get(name) or {}
    return found


def _shown(value: Any, unit: str, *, signed: bool = False) -> str:
    return figure(value, unit, signed=signed) if is_number(value) else UNKNOWN


def _points(value: Any) -> str:
    return f"{figure(100 * value, 'points')} points" if is_number(value) else UNKNOWN
