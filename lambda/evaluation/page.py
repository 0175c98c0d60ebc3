"""The evaluation report as one HTML page: first the decision, then its reasons and details.

The page contains its styles and plots, loads nothing from the network, and has no script. Queries, routing
labels and answers are untrusted: `wording.text` escapes all of them. The page's content security policy keeps
a browser from running or loading anything, should one text ever escape that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation import plots
from evaluation.head_section import head_section
from evaluation.markup import code, definitions, scrolled, table
from evaluation.wording import UNITS, UNKNOWN, estimate, figure, interval, is_known, is_number, text

_CSS = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
# Plots and tables have style attributes, which can't be allowed by their hashes.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
_AGAIN = ": the live release, evaluated again on another hold-out set. It serves whatever the result is."
_NAMES = {
    "candidate": "Candidate",
    "live": "Live release",
    "base": "Base model",
    "static": "Static weights",
    "constant": "Best constant",
}
_FIGURES = ("valid_output", "dominant_accuracy", "mean_absolute_error", "latency_p50_ms", "cost_per_1000_usd")
_PARTS = ("valid_output", "dominant_accuracy", "within_0_10", "mean_absolute_error")
_SLICES = ("valid_output", "dominant_accuracy", "within_0_10", "consistency")
_INVALID = "invalid"
_TIME = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d\+00:00")

type Report = Mapping[str, Any]


def page(report: Report) -> str:
    """Return a report as an HTML document.

    Args:
        report: the content of report.json. Missing parts and nulls are shown as unknown, or left out.
    """
    decision = _decided(report).lower()
    sections = (
        _decision,
        _unasked,
        _checks,
        _judge,
        _side_by_side,
        _plots,
        _parts,
        _slices,
        lambda report: head_section(report.get("head")),
        _worst,
        _identity,
    )
    shown = "\n".join(filter(None, (section(report) for section in sections)))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>Release {text(report.get('release'))}: {decision}</title>\n"
        f"<style>\n{_CSS}</style>\n</head>\n<body>\n<main>\n{shown}\n</main>\n</body>\n</html>\n"
    )


def _decided(report: Report) -> str:
    if report.get("passed"):
        return "Passed"
    return "Refused" if report.get("decided", True) else "Not evaluated"


def _decision(report: Report) -> str:
    passed = bool(report.get("passed"))
    reasons = "".join(f"<li>{text(reason)}</li>" for reason in report.get("reasons") or ())
    note = (
        ""
        if "live" in _contenders(report)
        else '<p class="note">No release is live yet, so there is no comparison.</p>'
    )
    warnings = "".join(f"<li>{text(warning)}</li>" for warning in report.get("warnings") or ())
    if warnings:
        note += f'<h2>Warnings</h2><ul class="warnings">{warnings}</ul>'
    weak = text(report.get("weak"))
    kind = ("" if not weak else " weak") if passed else " refused"
    return (
        f'<header class="decision{kind}"><h1>{_decided(report)}</h1>'
        f"{f'<p class="remark">{weak[0].upper()}{weak[1:]}</p>' if weak else ''}"
        f"<p>Release {code(report.get('release'))}, attempt {text(report.get('attempt'))}"
        f"{_AGAIN if report.get('reevaluated') else ''}</p>{_whose(report)}"
        f"{'' if passed else _next_step(report)}{f'<ul>{reasons}</ul>' if reasons else ''}</header>\n"
        f'<ul class="figures">{"".join(_key_figure(report, name) for name in _FIGURES)}</ul>'
        f'<p class="note">The 95 % confidence interval is below each value.</p>{note}'
    )


def _next_step(report: Report) -> str:
    """Return how many checks failed and what to do; empty in a report without checks."""
    checks = report.get("checks") or ()
    failed = sum(not check.get("ok") for check in checks)
    section = "Refused by the gate" if report.get("decided", True) else "Not evaluated"
    text_ = f"{failed} of {len(checks)} checks of the gate failed. Next: see {section} in docs/runbook.md."
    return f"<p>{text_}</p>" if failed else ""


def _whose(report: Report) -> str:
    """Return router, date and models in two lines; empty in reports of earlier versions."""
    environment, student, teacher = (report.get(name) for name in ("environment", "student", "teacher"))
    if not report.get("router"):
        return ""
    where = f", environment {text(environment)}" if environment else ""
    learned = f"teacher {code(teacher)}" if teacher else f"model {code(report.get('model'))}"
    return (
        f"<p>Router {text(report['router'])}{where}, evaluated {text(_moment(report))}</p>"
        f"<p>Student {code(student)}, {learned}</p>"
    )


def _moment(report: Report) -> str:
    """Return the minute of the evaluation, e.g. `2026-11-30 10:53 UTC`."""
    return _TIME.sub(r"\1 \2 UTC", str(report.get("evaluated_at")))


def _key_figure(report: Report, name: str) -> str:
    mine, unit = _value(report, "candidate", name), _unit(report, name)
    beside = ""
    if "live" in _contenders(report):
        theirs = estimate(_value(report, "live", name), unit, suffix=True)
        beside = f'<p class="beside">Live release: {theirs}</p>'
    return (
        f"<li><h2>{_title(report, name)}</h2>"
        f'<p class="large">{estimate(mine, unit, suffix=True)}</p>{beside}</li>'
    )


def _unasked(report: Report) -> str:
    """Return the section on questions that could not be asked; empty if there are none."""
    known = {}
    for name, contender in _contenders(report).items():
        unasked = contender.get("unasked") or {}
        if count := unasked.get("count"):
            of = f"{count:,} of {unasked.get('questions') or 0:,} questions"
            known[_NAMES[name]] = f"{of}: {text(unasked.get('why'))}"
    if not known:
        return ""
    note = "The calls failed, even when they were repeated. The scores don't count these questions."
    return f'<h2>Could not be asked</h2><p class="note">{note}</p>{definitions(known)}'


def _checks(report: Report) -> str:
    rows = []
    for check in report.get("checks") or ():
        found, limit = (
            figure(check[key], "") if is_number(check.get(key)) else UNKNOWN for key in ("found", "limit")
        )
        decision = "yes" if check.get("ok") else '<span class="no">no</span>'
        against = _against(str(check.get("against")))
        bound = f"at {text(check.get('limit_is'))} {limit}" if limit != UNKNOWN else limit
        low, high = check.get("low"), check.get("high")
        between = interval(low, high, "") if low != high else ""
        name = f"{text(check.get('name'))}<small>{against}</small>"
        rows.append([name, f"<span>{found}</span>{between}", bound, decision])
    head = ("Check", "Value", "Limit", "OK")
    note = (
        "The 95 % confidence interval is below each value. Shares and weights are from 0 to 1, as in the "
        "settings of the gate. In a comparison, the candidate must pass even at the worse end of the "
        "interval, a one-sided 95 % bound."
    )
    shown = table("Checks of the gate", head, rows, kind="numbers gate")
    return f'<h2>Checks of the gate</h2><p class="note">{note}</p>{shown}{_power(report)}'


def _against(name: str) -> str:
    if name in ("threshold", "chance"):
        return name
    return f"against {'the live release' if name == 'live' else text(name)}"


def _power(report: Report) -> str:
    """Return what the hold-out set can show; empty in reports of earlier versions."""
    power = report.get("power")
    if not power:
        return ""
    how = "measured" if power.get("is_measured") else "assumed"
    differing = figure(power.get("discordance") or 0.0, "share")
    return (
        f'<p class="note">What the hold-out set can show: {power.get("rows") or 0:,} queries in '
        f"{power.get('families') or 0:,} families of similar ones count as {text(power.get('shown'))}, if "
        f"two models differ in {differing} of the queries ({how}).</p>"
    )


def _judge(report: Report) -> str:
    """Return the judge's section; empty without a judge."""
    judge = report.get("judge")
    if not judge:
        return ""
    graded = (
        f"{estimate(judge.get('score'), 'points', suffix=True)}"
        if judge.get("score")
        else f'<span class="no">no score: {text(judge.get("problem"))}</span>'
    )
    known = {
        "Judge": code(judge.get("model")),
        "Mean grade, 1 to 5": graded,
        "Answers": f"{judge.get('asked') or 0:,}, of which {judge.get('invalid') or 0:,} invalid and "
        f"{judge.get('graded') or 0:,} graded",
        "Evaluation job": code(judge.get("job")),
    }
    note = (
        "A language model graded how well the weights suit the query; an invalid answer counts as 1. A judge "
        "of the teacher's model family may prefer the answers of the teacher's student."
    )
    return f'<h2>Judge</h2><p class="note">{note}</p>{definitions(known)}'


def _side_by_side(report: Report) -> str:
    contenders, compared = _contenders(report), report.get("comparisons") or {}
    names = [
        name for name in report.get("metrics") or () if any(_has(one, name) for one in contenders.values())
    ]
    rows = []
    for name in names:
        unit, title = _unit(report, name), _title(report, name)
        row = [title if unit in title else f"{title}<small>{text(UNITS.get(unit, unit))}</small>"]
        row += [estimate(_value(report, one, name), unit) for one in contenders]
        if compared:
            row.append(estimate(compared[name], unit, signed=True) if name in compared else "")
        rows.append(row)
    head = ["Metric", *(f"{text(_NAMES.get(name, name))}" for name in contenders)]
    note = "The 95 % confidence interval is below each value."
    if compared:
        head.append("Candidate \N{MINUS SIGN} live")
        note += (
            " Differences are paired by question, for questions that both were asked; the ends of their "
            "intervals are one-sided 95 % bounds. Differences of shares are in percentage points."
        )
    return f'<h2>Side by side</h2><p class="note">{note}</p>{table("Metrics by contender", head, rows)}'


def _plots(report: Report) -> str:
    contenders = _contenders(report)
    pair = {name: one for name, one in contenders.items() if name in ("candidate", "live")}
    found = [_error_plots(pair), _confusion(pair), _latency_plot(contenders), _cost_plot(report, contenders)]
    return f"<h2>Plots</h2>{''.join(found)}"


def _error_plots(pair: Report) -> str:
    errors = {
        name: {label: five for label, five in (one.get("label_errors") or {}).items() if len(five) == 5}
        for name, one in pair.items()
    }
    values = [value for one in errors.values() for five in one.values() for value in five]
    limits = (min([*values, -0.05]) * 1.05, max([*values, 0.05]) * 1.05)
    figures = [
        f"<div>{plots.legend({name: _NAMES[name]})}"
        f"{plots.label_errors(one, limits, name, f'Signed weight error by label, {_NAMES[name]}')}</div>"
        for name, one in errors.items()
        if one
    ]
    note = (
        "Weight of the answer minus weight of the reference. The line is the median, the box holds the "
        "middle half of the answers, and the whiskers end at the 5th and 95th percentiles."
    )
    return _figures("Signed weight error by label", note, figures)


def _confusion(pair: Report) -> str:
    figures = []
    for name, one in pair.items():
        counts = one.get("confusion") or {}
        answered = list(dict.fromkeys([*counts, *(label for row in counts.values() for label in row)]))
        answered.sort(key=lambda label: label == _INVALID)
        rows = []
        for label, row in counts.items():
            whole = sum(row.values()) or 1
            cells = [
                f'<td style="--share:{row.get(to, 0) / whole:.3f}">{row.get(to, 0):,}</td>' for to in answered
            ]
            rows.append(f'<tr><th scope="row">{text(label)}</th>{"".join(cells)}</tr>')
        if rows:
            head = "".join(f'<th scope="col">{text(to)}</th>' for to in ["Reference", *answered])
            heat = scrolled(
                f"Dominant labels, {_NAMES[name]}", f"<thead><tr>{head}</tr></thead>", rows, "heat"
            )
            figures.append(f"<div>{plots.legend({name: _NAMES[name]})}{heat}</div>")
    note = "Number of questions by dominant label of the reference (rows) and of the answer (columns)."
    return _figures("Dominant labels", note, figures)


def _latency_plot(contenders: Report) -> str:
    found = {
        name: one["latency"]
        for name, one in contenders.items()
        if name in ("candidate", "live", "base") and sum((one.get("latency") or {}).get("counts", ()))
    }
    edges: Sequence[float] = max((one["edges_ms"] for one in found.values()), key=len, default=())
    figures = []
    if found:
        counts = {name: one["counts"] for name, one in found.items()}
        label = "Share of answers by latency in milliseconds"
        legend = plots.legend({name: _NAMES[name] for name in found})
        figures = [f"<div>{legend}{plots.latency(edges, counts, label)}</div>"]
    note = "Share of answers by latency range, in milliseconds. The ranges have different widths."
    return _figures("Latency", note, figures)


def _cost_plot(report: Report, contenders: Report) -> str:
    costs = {
        name: float(found["value"])
        for name in contenders
        if is_known(found := _value(report, name, "cost_per_1000_usd")) and found is not None
    }
    figures = []
    if costs:
        label = "Cost of 1,000 queries in US dollars"
        figures = [f"<div>{plots.bars(costs, lambda name: _NAMES.get(name, name), label)}</div>"]
    return _figures("Cost of 1,000 queries", "US dollars for input and output tokens.", figures)


def _figures(title: str, note: str, figures: Sequence[str]) -> str:
    if not figures:
        return f'<h3>{title}</h3><p class="note">No data.</p>'
    return f'<h3>{title}</h3><p class="note">{note}</p><div class="pairs">{"".join(figures)}</div>'


def _parts(report: Report) -> str:
    by_label = _grouped(report, "by_label", "Label", _PARTS)
    by_length = _grouped(report, "by_length", "Length", _PARTS)
    found = f"<h2>By label</h2>{by_label}\n<h2>By query length</h2>{by_length}"
    if not any(one.get("by_traffic") for one in _contenders(report).values()):
        return found
    note = (
        "Each query counts as often as it was asked, as in the slice traffic; in all other scores, and in "
        "the gate, it counts once."
    )
    by_traffic = _grouped(report, "by_traffic", "Queries", _PARTS)
    return f'{found}\n<h2>By traffic</h2><p class="note">{note}</p>{by_traffic}'


def _slices(report: Report) -> str:
    note = (
        "Questions outside the hold-out set. An answer is consistent if its weights are within 0.10 of those "
        "for the original query."
    )
    found = _grouped(report, "slices", "Slice", _SLICES)
    return f'<h2>Robustness</h2><p class="note">{note}</p>{found}'


def _grouped(report: Report, part: str, heading: str, metrics: Iterable[str]) -> str:
    """Return a table of groups, with columns for candidate and live release by metric."""
    contenders = _contenders(report)
    pair = [name for name in ("candidate", "live") if name in contenders]
    groups = {name: contenders[name].get(part) or {} for name in pair}
    shown = list(metrics)
    rows = []
    for group in dict.fromkeys(group for one in groups.values() for group in one):
        found = [groups[name].get(group) or {} for name in pair]
        row = [text(group), f"{max(one.get('rows') or 0 for one in found):,}"]
        for metric in shown:
            row += [estimate((one.get("metrics") or {}).get(metric), _unit(report, metric)) for one in found]
        rows.append(row)
    titles = [_title(report, metric) for metric in shown]
    label = f"Scores by {heading.lower()}"
    if len(pair) < 2:
        return table(label, [heading, "Rows", *titles], rows)
    columns = [heading, "Rows", *(f"{title}, {_NAMES[name]}" for title in titles for name in pair)]
    above = "".join(f'<th scope="colgroup" colspan="{len(pair)}">{title}</th>' for title in titles)
    below = "".join(f'<th scope="col">{_NAMES[name]}</th>' for _ in titles for name in pair)
    head = f'<tr><th scope="col" rowspan="2">{heading}</th><th scope="col" rowspan="2">Rows</th>{above}</tr>'
    return table(label, columns, rows, head=f"{head}<tr>{below}</tr>", kind="numbers stacked paired")


def _worst(report: Report) -> str:
    rows = []
    for one in report.get("worst") or ():
        given, problem = one.get("weights"), one.get("problem")
        answer = _weights(given) if given else f'<span class="no">{text(problem or "no answer")}</span>'
        error = figure(one["error"], "weight") if is_number(one.get("error")) else UNKNOWN
        rows.append((f"<bdi>{text(one.get('query'))}</bdi>", _weights(one.get("reference")), answer, error))
    columns = ("Query", "Reference", "Answer", "Largest error")
    return f"<h2>Worst queries</h2>{table('Worst queries', columns, rows, kind='worst stacked')}"


def _weights(weights: Mapping[str, float] | None) -> str:
    if not weights:
        return UNKNOWN
    # Leave out zeros: there may be many labels.
    some = {label: weight for label, weight in weights.items() if weight} or weights
    return ", ".join(f"{text(label)} {weight:.2f}" for label, weight in some.items())


def _identity(report: Report) -> str:
    contenders, data = _contenders(report), report.get("data") or {}

    def who(name: str, otherwise: str) -> str:
        one = contenders.get(name)
        return f"{text(one.get('title'))} {code(one.get('endpoint'))}" if one else otherwise

    slices = ", ".join(f"{text(name)} {rows:,}" for name, rows in (data.get("slices") or {}).items())
    known = {
        "Release": code(report.get("release")),
        "Model": code(report.get("model")),
        "Endpoint": code(report.get("endpoint")),
        "Hold-out set": f"{code(data.get('holdout'))} {text(data.get('questions'))} questions",
        "SHA-256 of the hold-out set": code(data.get("holdout_sha256")),
        "Questions by slice": slices or UNKNOWN,
        "Live release": who("live", "none"),
        "Base model": who("base", UNKNOWN),
        "Evaluated at": text(report.get("evaluated_at")),
    }
    gate = {text(name): text(str(limit).lower()) for name, limit in _limits(report.get("gate") or {})}
    meanings = {
        text(one.get("title") or name): text(one.get("meaning"))
        for name, one in (report.get("metrics") or {}).items()
    }
    return (
        f"<h2>Identity</h2>{definitions(known)}<h3>Settings of the gate</h3>{definitions(gate)}"
        f"<h3>What each metric means</h3>{definitions(meanings)}"
    )


def _limits(gate: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the settings of the gate by name; those of slices each by itself."""
    for name, limit in gate.items():
        if isinstance(limit, Mapping):
            yield from ((f"{name}.{slice_}", least) for slice_, least in limit.items())
        else:
            yield name, limit


def _contenders(report: Report) -> dict[str, Mapping[str, Any]]:
    """Return the report's contenders in the order of the page."""
    found = report.get("contenders") or {}
    return {name: found[name] for name in _NAMES if found.get(name)}


def _has(contender: Mapping[str, Any], metric: str) -> bool:
    return metric in (contender.get("metrics") or {})


def _value(report: Report, contender: str, metric: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] = _contenders(report).get(contender, {}).get("metrics") or {}
    return found.get(metric)


def _unit(report: Report, metric: str) -> str:
    return str(((report.get("metrics") or {}).get(metric) or {}).get("unit", ""))


def _title(report: Report, metric: str) -> str:
    return text(((report.get("metrics") or {}).get(metric) or {}).get("title") or metric)
