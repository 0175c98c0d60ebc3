"""Declare constructs from flat arguments, so that a test can change one of them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from constructs import Construct

from cdk_distilled_router import (
    DistillationJob,
    JobData,
    JobOptions,
    ProvisionedThroughput,
    ThroughputOptions,
)
from cdk_distilled_router.props import JobProps, ThroughputProps


def job(scope: Construct, construct_id: str, **arguments: Any) -> DistillationJob:
    """Declare a job with its own arguments and those of `JobData`, `JobProps` and `JobOptions`."""
    data, props, options = (_taken(arguments, kind) for kind in (JobData, JobProps, JobOptions))
    return DistillationJob(
        scope,
        construct_id,
        data=JobData(**data),
        props=JobProps(**props),
        options=JobOptions(**options),
        **arguments,
    )


def throughput(scope: Construct, construct_id: str, **arguments: Any) -> ProvisionedThroughput:
    """Declare throughput with its own arguments and those of `ThroughputProps` and `ThroughputOptions`."""
    props, options = (_taken(arguments, kind) for kind in (ThroughputProps, ThroughputOptions))
    return ProvisionedThroughput(
        scope, construct_id, props=ThroughputProps(**props), options=ThroughputOptions(**options), **arguments
    )


def _taken(arguments: dict[str, Any], kind: Any) -> dict[str, Any]:
    """Remove a class's fields from the arguments, and return them."""
    names = kind.model_fields if hasattr(kind, "model_fields") else [field.name for field in fields(kind)]
    return {name: arguments.pop(name) for name in list(names) if name in arguments}
