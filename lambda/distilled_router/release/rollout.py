"""The settings of a rollout, as the construct writes them and the rollout step reads them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rollout:
    """The settings of a rise.

    Attributes:
        steps: shares of the requests, one after another; the last is 1.
        dwell_seconds: how long each step lasts.
        minimum_requests: fewer say nothing of a release.
        maximum_rates: by metric of the router, what part of the candidate's requests may count for it.
        worse_by, slower_by: hold the candidate against what serves, in the same time.
        bake_seconds: how long the candidate has all requests before it takes the place of what served.
        probes: questions that are asked at most where there are too few requests.
    """

    steps: tuple[float, ...]
    dwell_seconds: int
    minimum_requests: int
    maximum_rates: Mapping[str, float]
    worse_by: float = 0.02
    slower_by: float = 0.5
    bake_seconds: int = 0
    probes: int = 0

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Rollout:
        """Take the values by their names."""
        return cls(**{**data, "steps": tuple(data["steps"])})

    @property
    def rounds(self) -> tuple[float, ...]:
        """Return the share of each round of `dwell_seconds`: the steps, then the bake with all requests.

        The last step is a round with all requests itself, and the bake follows it.
        """
        return self.steps + (1.0,) * math.ceil(self.bake_seconds / self.dwell_seconds)

    @property
    def least(self) -> int:
        """Return the minimum number of requests or probes for a comparison."""
        return max(self.minimum_requests, 1)
