"""The settings of a rollout, as the construct writes them and RollOut reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The settings of a rollout.

    Attributes:
        steps: shares of the requests, one after another; the last is 1.
        dwell_seconds: how long each step lasts.
        maximum_error_rate, maximum_fallback_rate, maximum_invalid_output_rate: shares of the candidate's
            requests above which it is rolled back.
        bake_seconds: how long the candidate has all requests before it becomes the live release.
        probes: hold-out queries that candidate and live release are asked in each round.
        non_inferiority_margin: by how much a rate may exceed the live release's.
        latency_margin: by how much the candidate's model may be slower than the live release's, as a part of
            its time.
    """

    steps: tuple[float, ...]
    dwell_seconds: int
    maximum_error_rate: float
    maximum_fallback_rate: float
    maximum_invalid_output_rate: float
    bake_seconds: int = 0
    probes: int = 500
    non_inferiority_margin: float = 0.02
    latency_margin: float = 0.5

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Rollout:
        """Take the values by their names."""
        return cls(**{**data, "steps": tuple(data["steps"])})

    @property
    def maximum_rates(self) -> dict[str, float]:
        """Return the limit of each rate."""
        return {
            "error_rate": self.maximum_error_rate,
            "fallback_rate": self.maximum_fallback_rate,
            "invalid_output_rate": self.maximum_invalid_output_rate,
        }

    @property
    def rounds(self) -> tuple[float, ...]:
        """Return the share of each round of `dwell_seconds`: the steps, then the bake with all requests.

        The last step is a round with all requests itself, and the bake follows it.
        """
        return self.steps + (1.0,) * math.ceil(self.bake_seconds / self.dwell_seconds)
