"""What can be set on the stand-in."""

from __future__ import annotations

from dataclasses import dataclass, field

MINUTE = 60.0
DAY = 24 * 60 * MINUTE


@dataclass(frozen=True, kw_only=True)
class Durations:
    """How long things take in Bedrock, in seconds; a scaled clock divides them.

    Job phases and deployments as accounts have reported them in 2026; a queue for training can in
    truth last for days: order a `job_stalled` fault for that.
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
    """The account and how its models answer.

    `first_token_ms` and `token_ms` are slept for: before the first output token, and per output token.
    `page_size` is what a List operation returns where the caller names no `maxResults`.
    """

    account: str = "000000000000"
    region: str = "us-east-1"
    first_token_ms: float = 0.0
    token_ms: float = 0.0
    page_size: int = 100
    durations: Durations = field(default_factory=Durations)
    quotas: Quotas = field(default_factory=Quotas)
