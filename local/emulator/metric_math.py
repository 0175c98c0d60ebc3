"""Alarms on metric math, which CloudFormation takes and MiniStack refuses.

MiniStack evaluates no alarm, so an alarm is kept as one on its first metric, together with its expression.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ministack.services.cloudformation import provisioners

_record = provisioners._cw_metric_alarm_record


def install() -> None:
    """Put this before MiniStack's alarms."""
    provisioners._cw_metric_alarm_record = record


def record(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return an alarm as MiniStack keeps it. Raises ValueError as CloudWatch does for unusable metrics."""
    metrics = properties.get("Metrics") or []
    if not metrics:
        plain: dict[str, Any] = _record(name, properties)
        return plain
    read = [one["MetricStat"] for one in metrics if "MetricStat" in one]
    answers = [one for one in metrics if one.get("ReturnData", True)]
    if len(answers) != 1 or not read:
        raise ValueError("An alarm on metric math needs metrics, and exactly one element that returns data.")
    first = read[0]
    kept: dict[str, Any] = _record(
        name,
        {
            **{key: value for key, value in properties.items() if key != "Metrics"},
            **first["Metric"],
            "Statistic": first["Stat"],
            "Period": first["Period"],
        },
    )
    return {**kept, "Metrics": metrics}
