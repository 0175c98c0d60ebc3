"""The stand-in's settings."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """Quotas of the account."""

    deployments_in_progress: int = 2
    model_units: int = 2
    custom_models: int = 100
    batch_minimum_records: int = 100


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The account, and the delays of its models.

    `first_token_ms` is the delay before the first output token, `token_ms` the delay per output token.
    `page_size` is the default of `maxResults` in List operations.
    """

    account: str = "000000000000"
    region: str = "us-east-1"
    first_token_ms: float = 0.0
    token_ms: float = 0.0
    page_size: int = 100
    durations: Durations = field(default_factory=Durations)
    quotas: Quotas = field(default_factory=Quotas)
