"""Plots of the report as inline SVG, without scripts, styles or external links. page.css styles them.

pygal draws them. Its scripts, styles and ids are removed, so that equal numbers give equal SVG.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import pygal
from pygal.etree import etree
from pygal.style import Style

from evaluation.wording import clean, figure

# Use the standard library's ElementTree even if lxml is installed.
etree.to_etree()

_SVG = "{http://www.w3.org/2000/svg}"
_NEEDLESS = ("script", "style", "title", "desc", "defs")
# Small, so that a phone hardly scales the text down.
_WIDTH = 420
_LETTER = 14
_STYLE = Style(
    font_family="system-ui, sans-serif",
    **{f"{part}_font_size": _LETTER for part in ("label", "major_label", "value", "value_label", "legend")},
)


def label_errors(
    errors: Mapping[str, Sequence[float]], limits: tuple[float, float], name: str, label: str
) -> str:
    """Return a box plot of five quantiles by routing label; `limits` is the range shared by several plots."""
    chart = _chart(pygal.Box, height=280, range=limits, value_formatter=lambda value: figure(value, "signed"))
    chart.x_labels = [clean(routed) for routed in errors]
    if len(errors) > 5:
        chart.x_label_rotation, chart.truncate_label = 40, 14
    for routed, (p05, p25, p50, p75, p95) in errors.items():
        # pygal computes quartiles from rows; of these eight values they are the given ones.
        chart.add(clean(routed), [p05, p25, p25, p50, p50, p75, p75, p95])
    return _svg(chart, [name] * len(errors), label)


def latency(edges: Sequence[float], counts: Mapping[str, Sequence[int]], label: str) -> str:
    """Return a line plot of the share of answers by latency range, with a line per contender."""
    shown = {name: found for name, found in counts.items() if sum(found)}
    last = max((place for found in shown.values() for place, count in enumerate(found) if count), default=-1)
    bars = range(min(last + 2, len(edges)))
    chart = _chart(pygal.Line, height=260, range=(0, None), dots_size=3)
    chart.x_labels = [f"{edges[place]:,.0f}" for place in bars]
    chart.x_labels_major_every = max(1, -(-len(bars) // 7))
    chart.show_minor_x_labels = False
    chart.value_formatter = lambda value: f"{value:.0f}%"
    for name, found in shown.items():
        rows = sum(found)
        chart.add(name, [100 * found[place] / rows if place < len(found) else 0.0 for place in bars])
    return _svg(chart, list(shown), label)


def by_coverage(lines: Mapping[str, Sequence[tuple[float, float]]], label: str) -> str:
    """Return a line plot of points of a share and a weight, with a line for each name."""
    highest = max(value for line in lines.values() for _, value in line) or 0.01
    # The last label is wider than what is left of the plot.
    chart = _chart(
        pygal.XY, height=260, margin_right=20, xrange=(0, 1), range=(0, highest * 1.1), dots_size=2
    )
    chart.x_labels = [0, 0.25, 0.5, 0.75, 1]
    chart.x_value_formatter = lambda value: f"{100 * value:.0f}%"
    chart.value_formatter = lambda value: f"{value:.3f}"
    for name, line in lines.items():
        chart.add(name, list(line))
    return _svg(chart, list(lines), label)


def bars(values: Mapping[str, float], named: Callable[[str], str], label: str) -> str:
    """Return a horizontal bar per contender, with its name and value."""
    chart = _chart(
        pygal.HorizontalBar,
        height=60 + 42 * len(values),
        margin_right=28,
        range=(0, max(values.values()) or 1),
    )
    # pygal draws from the bottom up.
    order = list(values)[::-1]
    chart.x_labels = [clean(f"{named(name)}: {figure(values[name], 'usd')}") for name in order]
    chart.value_formatter = lambda value: figure(value, "usd") if value else "0"
    chart.y_labels = [0, (max(values.values()) or 1) / 2, max(values.values()) or 1]
    chart.add("cost", [values[name] for name in order])
    return _svg(chart, ["candidate"], label)


def _chart(kind: Any, **settings: Any) -> Any:
    return kind(
        style=_STYLE,
        width=_WIDTH,
        js=[],
        css=[],
        no_prefix=True,
        show_legend=False,
        margin=4,
        max_scale=8,
        **({"truncate_label": -1} | settings),
    )


def _svg(chart: Any, names: Sequence[str], label: str) -> str:
    """Return the chart as SVG with a text alternative; each series gets the class `is-<name>`."""
    root: ElementTree.Element = chart.render_tree()
    _strip(root)
    for node in root.iter():
        classes = node.get("class", "").split()
        for place, name in enumerate(names):
            if f"serie-{place}" in classes:
                node.set("class", f"series is-{name}")
    attributes = {
        "class": "plot",
        "viewBox": root.get("viewBox", ""),
        "role": "img",
        "aria-label": clean(label),
    }
    root.attrib.clear()
    root.attrib |= attributes
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _strip(node: ElementTree.Element) -> None:
    for child in list(node):
        tag = child.tag.removeprefix(_SVG) if isinstance(child.tag, str) else None
        if tag is None or tag in _NEEDLESS or "tooltip-overlay" in child.get("class", ""):
            node.remove(child)
        else:
            _strip(child)


def legend(names: Mapping[str, str]) -> str:
    """Return a legend of colours and names."""
    items = (f'<li class="is-{name}">{html.escape(clean(title))}</li>' for name, title in names.items())
    return f'<ul class="legend">{"".join(items)}</ul>'
