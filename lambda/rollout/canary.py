"""Canary analysis: compare a candidate's metrics with the limits and with the live release's metrics."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

from distilled_router.release.gate import IGNORED_LATENCY_MS
from distilled_router.release.rollout import Rollout
from distilled_router.release.route import Share
from distilled_router.release.table import Release
from rollout.metrics import Count, ReleaseMetrics, RouterMetrics
from rollout.probes import Probes


@dataclass(frozen=True)
class CanaryAnalysis:
    """Compares the candidate and the live release of one owner at the end of each step.

    `probes` add hold-out queries if there were too few requests.
    """

    cloudwatch: Any
    owner: str
    rollout: Rollout
    probes: Probes | None = None

    def analyse(self, release: Release, live_share: Share | None, at: int) -> Analysis:
        """Return what speaks against a release after its present step."""
        rollout = self.rollout
        metrics = RouterMetrics(self.cloudwatch, self.owner, release.step_at, at)
        found = {release.endpoint: metrics.of(release.digest)}
        live = live_share if live_share and live_share.digest != release.digest else None
        if live:
            found[live.endpoint] = metrics.of(live.digest)
        missing = {
            endpoint: min(math.ceil(rollout.least - one.requests), rollout.probes)
            for endpoint, one in found.items()
            if one.requests < rollout.least
        }
        if self.probes and any(missing.values()):
            for endpoint, one in self.probes.ask(missing, release.holdout_sha256).items():
                found[endpoint] += one
        mine, theirs = found[release.endpoint], found[live.endpoint] if live else None
        return Analysis(
            breach(mine, theirs, rollout),
            _unasked("the candidate", mine),
            _unasked("the live release", theirs) if theirs else "",
        )


@dataclass(frozen=True)
class Analysis:
    """Result of a canary analysis.

    Attributes:
        breach: why the release must be rolled back, or None.
        candidate_unasked, live_unasked: that, and why, the probes of a release could not be asked; empty if
            enough could.
    """

    breach: str | None = None
    candidate_unasked: str = ""
    live_unasked: str = ""

    @property
    def problem(self) -> str:
        """Return why the release must be rolled back if its probes are not repeated; empty if it must not.

        Without the live release's answers, the candidate's own limits decide.
        """
        return self.breach or self.candidate_unasked


def breach(candidate: ReleaseMetrics, live: ReleaseMetrics | None, rollout: Rollout) -> str | None:
    """Return why the candidate must be rolled back, or None; too few requests are not a reason."""
    for rate, limit in rollout.maximum_rates.items():
        mine = candidate.of(rate)
        if not _is_enough(mine.of, candidate, rollout):
            continue
        if mine.rate > limit:
            return f"{_words(rate)} is {_told(mine, candidate)}, allowed {limit:.1%}"
        if live is None or not _is_enough(live.of(rate).of, live, rollout):
            continue
        theirs = live.of(rate)
        if _surely_more(mine, theirs) > rollout.non_inferiority_margin:
            return (
                f"{_words(rate)} is {_told(mine, candidate)}, and {_told(theirs, live)} of the live release; "
                f"allowed {rollout.non_inferiority_margin:.1%} more"
            )
    return _slower(candidate, live, rollout) if live else None


def _is_enough(requests: float, metrics: ReleaseMetrics, rollout: Rollout) -> bool:
    """Return whether there are enough requests. With probes among them there are as many as possible."""
    return requests >= rollout.least or (requests > metrics.requests and not metrics.lacks_probes)


def _unasked(who: str, metrics: ReleaseMetrics) -> str:
    if not metrics.lacks_probes:
        return ""
    count = len(metrics.unasked)
    reasons = ", ".join(
        f"{number} {reason.replace('_', ' ')}" for reason, number in Counter(metrics.unasked).most_common()
    )
    return f"{who} could not be asked {count} of {count + metrics.probes} hold-out queries: {reasons}"


def _told(count: Count, metrics: ReleaseMetrics) -> str:
    probes = f" and {metrics.probes} probes" if metrics.probes and count.of > metrics.requests else ""
    return f"{count.rate:.1%} of {metrics.requests:.0f} requests{probes}"


def _slower(candidate: ReleaseMetrics, live: ReleaseMetrics, rollout: Rollout) -> str | None:
    """Return why the candidate's model is too slow compared with the live release's, or None.

    Only calls of models are compared, since cached answers take no time.
    """
    for metrics in (candidate, live):
        asked = metrics.requests + metrics.probes
        if not metrics.model.of or not _is_enough(asked, metrics, rollout):
            return None
    mine, theirs = candidate.model.rate, live.model.rate
    if mine - theirs <= IGNORED_LATENCY_MS or mine <= theirs * (1 + rollout.latency_margin):
        return None
    return (
        f"its model takes {mine:.0f} ms, and that of the live release {theirs:.0f} ms; allowed "
        f"{1 + rollout.latency_margin:.3g} times as long"
    )


def _words(rate: str) -> str:
    return rate.replace("_", " ")


def _surely_more(mine: Count, theirs: Count) -> float:
    """Return the lower bound of the 95 % confidence interval of the difference of two rates."""
    spread = sum(count.rate * (1 - min(count.rate, 1)) / count.of for count in (mine, theirs))
    return mine.rate - theirs.rate - 1.96 * math.sqrt(spread)
