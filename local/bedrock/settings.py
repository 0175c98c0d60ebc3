"""The stand-in's settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

MINUTE = 60.0
DAY = 24 * 60 * MINUTE


@dataclass(frozen=True, kw_only=True)
class Durations:
    """Durations in Bedrock, in seconds; a scaled clock divides them.

    Job phases and deployments are as users reported them in 2026. On AWS a job can wait for training
    for days: inject the fault `job_stalled` for that.
    """

    validation: float = 3 * MINUTE
    data_processing: float = 20 * MINUTE
    training_queue: float = 5 * MINUTE
    training: float = 40 * MINUTE
    stopping: float = 2 * MINUTE
    deployment: float = 8 * MINUTE
    deployment_update: float = 8 * MINUTE
    throughput: float = 20 * MINUTE
    throughput_update: float = 20 * MINUTE
    batch_validation: float = 5 * MINUTE
    batch: float = 30 * MINUTE
    evaluation: float = 20 * MINUTE


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """Quotas of the account.

    `requests_per_minute` is of each model and deployment; None is no limit. AWS does not say how Bedrock
    counts. Here it is a token bucket of a minute's requests that fills evenly, in real time on any clock.
    """

    deployments_in_progress: int = 2
    model_units: int = 2
    custom_models: int = 100
    batch_minimum_records: int = 100
    requests_per_minute: int | None = None


@dataclass(frozen=True, kw_only=True)
class Lag:
    """How far reads lag behind writes; each member works by itself, and 0 turns it off.

    Seconds pass on the stand-in's clock and are not divided by its scale, because callers wait in real time:
    on a scaled clock these are seconds of wall-clock time, on a manual clock those that a test advances.

    Args:
        get_seconds: Get does not find a resource that is newer.
        list_seconds: List omits a resource that is newer.
        tags_seconds: ListTagsForResource shows the tags as they were before changes that are newer.
        status_seconds: Get shows a resource as it was before changes that are newer.
        delete_seconds: Delete and Stop do not find a resource that is newer.
        role_seconds: Bedrock can't use a role until so long after a call passed it for the first time.
        misses: after the first Get that finds a resource, so many do not find it, as if other replicas
            answered.
    """

    get_seconds: float = 0.0
    list_seconds: float = 0.0
    tags_seconds: float = 0.0
    status_seconds: float = 0.0
    delete_seconds: float = 0.0
    role_seconds: float = 0.0
    misses: int = 0

    def changed(self, given: Mapping[str, Any]) -> Self:
        """Return a copy with some members changed.

        Raises:
            ValueError: a member is unknown, negative or not a number.
        """
        names = [member.name for member in fields(self)]
        if unknown := sorted(given.keys() - set(names)):
            raise ValueError(f"unknown members {unknown}; the lag has {', '.join(names)}")
        for name, value in given.items():
            whole = name == "misses"
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or value < 0:
                raise ValueError(f"{name} must be a {'whole ' if whole else ''}number from 0, not {value!r}")
        return replace(self, **given)

    def shown(self) -> dict[str, Any]:
        """Return the lag as the control endpoint shows it."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The account, and the delays of its models.

    `first_token_ms` is the delay before the first output token, `token_ms` the delay per output token.
    `page_size` is the default of `maxResults` in List operations. `name_in_use` is the class of the error for
    a name in use, for which sources give ConflictException and ValidationException. `unknown_name` is that of
    the error for a name that no resource has, ResourceNotFoundException or ValidationException.
    """

    account: str = "000000000000"
    region: str = "us-east-1"
    first_token_ms: float = 0.0
    token_ms: float = 0.0
    page_size: int = 100
    name_in_use: str = "ConflictException"
    unknown_name: str = "ResourceNotFoundException"
    durations: Durations = field(default_factory=Durations)
    quotas: Quotas = field(default_factory=Quotas)
    lag: Lag = field(default_factory=Lag)
