"""Format numbers and untrusted texts for the report page."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from typing import Any

from distilled_router.cost.estimate import dollars

UNKNOWN = '<span class="unknown">unknown</span>'
# Not allowed in HTML: controls, lone surrogates and noncharacters.
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_DECIMALS = {"weight": 3, "nats": 3, "points": 2, "ms": 0, "tokens": 1, "signed": 2}
_SUFFIXES = {"ms": " ms", "usd": " USD"}
UNITS = {"share": "%", "usd": "USD"}


def clean(value: object) -> str:
    """Return a text with characters that HTML can't hold replaced."""
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", "" if value is None else str(value))


def text(value: object) -> str:
    """Escape an untrusted text for use between tags and in quoted attributes."""
    return html.escape(clean(value))


def figure(value: float, unit: str, *, signed: bool = False, suffix: bool = False) -> str:
    """Format a number by its unit; `signed` adds a plus sign to positive differences, `suffix` the unit."""
    size = abs(value)
    if unit == "share":
        written = f"{100 * size:.1f}" + ("" if signed else "%")
    elif unit == "usd":
        written = dollars(size)
    elif unit in _DECIMALS:
        written = f"{size:,.{_DECIMALS[unit]}f}"
    else:
        written = f"{size:,.4g}"
    after = _SUFFIXES.get(unit, "") if suffix else ""
    if not written.strip("0.,%"):
        return written + after  # no sign for a value that rounds to zero
    return ("\N{MINUS SIGN}" if value < 0 else "+" if signed or unit == "signed" else "") + written + after


def estimate(
    found: Mapping[str, Any] | None, unit: str, *, signed: bool = False, suffix: bool = False
) -> str:
    """Return HTML for a value with its confidence interval below; `suffix` appends the unit."""
    if not is_known(found):
        return UNKNOWN
    assert found is not None
    value = figure(found["value"], unit, signed=signed, suffix=suffix)
    low, high = (found.get(end) for end in ("low", "high"))
    return f"<span>{value}</span>{interval(low, high, unit, signed=signed)}"


def interval(low: float | None, high: float | None, unit: str, *, signed: bool = False) -> str:
    """Return HTML for an interval in small type; empty if it is unknown."""
    if not (is_number(low) and is_number(high)):
        return ""
    assert low is not None
    assert high is not None
    ends = [figure(end, unit, signed=signed) for end in (low, high)]
    return f"<small>{ends[0].removesuffix('%')} to {ends[1]}</small>"


def is_known(found: Mapping[str, Any] | None) -> bool:
    """Return whether an estimate has a value."""
    return found is not None and is_number(found.get("value"))


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
