"""Emit metrics of the release, in the namespace and with the `service` dimension of the router's."""

from __future__ import annotations

from aws_lambda_powertools.metrics import MetricUnit, single_metric

from distilled_router.env import METRICS_NAMESPACE


def count(metric: str, service: str, number: int = 1) -> None:
    """Add a number to a metric, through the function's log (CloudWatch embedded metric format)."""
    with single_metric(metric, MetricUnit.Count, number, namespace=METRICS_NAMESPACE) as single:
        single.add_dimension("service", service)
