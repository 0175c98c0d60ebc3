"""Looks at a release at the end of each step, beside what serves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from distilled_router.release.rollout import Rollout
from distilled_router.release.route import Share
from distilled_router.release.table import Release
from rollout.canary import Numbers, breach
from rollout.probes import Probes


@dataclass(frozen=True)
class Watch:
    """Watches the releases of one owner, `name`. Without probes, too few requests stay too few."""

    cloudwatch: Any
    name: str
    rollout: Rollout
    probes: Probes | None = None

    def breach(self, release: Release, settled: Share | None, at: int) -> str | None:
        """Why a release must not go on after the step that it is at, or None."""
        rollout = self.rollout
        if not rollout.maximum_rates:
            return None
        numbers = Numbers(self.cloudwatch, self.name, release.step_at, at)
        seen = {release.endpoint: numbers.of(release.digest, rollout)}
        serving = settled if settled and settled.release != release.digest else None
        if serving:
            seen[serving.endpoint] = numbers.of(serving.release, rollout)
        missing = {
            endpoint: min(math.ceil(rollout.least - found.requests), rollout.probes)
            for endpoint, found in seen.items()
            if found.requests < rollout.least
        }
        if self.probes and any(missing.values()):
            for endpoint, found in self.probes.ask(missing).items():
                seen[endpoint] += found
        return breach(seen[release.endpoint], seen[serving.endpoint] if serving else None, rollout)
