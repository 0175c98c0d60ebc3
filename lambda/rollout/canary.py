"""Canary analysis: compare a candidate's metrics with the limits and with the live release's metrics.

It is a sequential test: after every round it looks at all evidence since the rollout began. Each look has a
fixed level; `python -m benchmarks.rollout` shows what that means for a whole rollout (decision 35).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from distilled_router.release.gate import Gate
from distilled_router.release.rollout import Rollout
from distilled_router.release.route import Share
from distilled_router.release.table import Release
from rollout.bounds import upper_tail
from rollout.evidence import NO_PROBES, WRONG, Probed
from rollout.metrics import Count, Estimate, ReleaseMetrics, RequestMetrics, RouterMetrics, whole
from rollout.probes import Probes

AT_LIMIT = 0.12
"""How often, at most, one look rolls back a candidate that is exactly at a limit, by chance."""

WITHIN, LEVEL = 2 / 3, 0.005
"""The same for a candidate that is well within a limit, at two thirds of it: so little evidence does not roll
it back, however many looks there are. Also the level of all other tests."""


MOST_FALLBACKS, MINIMUM_REQUESTS = 0.2, 200
"""Share of fallbacks, among so many requests, above which a candidate is rolled back even if a few frequent
queries cause it. With Zipf traffic, one in 250 equal candidates reaches it by chance."""


@dataclass(frozen=True)
class CanaryAnalysis:
    """Compares the candidate and the live release of one owner at the end of each round.

    `gate` has the limits for the answers to hold-out queries, which `probes` asks both.
    """

    cloudwatch: Any
    owner: str
    rollout: Rollout
    gate: Gate
    probes: Probes | None = None

    def analyse(self, release: Release, live_share: Share | None, at: int) -> Analysis:
        """Return why a release must be rolled back after its present round, if it must."""
        metrics = RouterMetrics(self.cloudwatch, self.owner, release.rolling_since or release.step_at, at)
        live = live_share if live_share and live_share.digest != release.digest else None
        found = Probed.from_text(release.probed).against(live.digest if live else "")
        asked = NO_PROBES
        if self.probes and self.rollout.probes:
            # The hold-out set of this attempt, also if another one has just been deployed.
            asked = self.probes.ask(
                [release.endpoint, *([live.endpoint] if live else [])],
                self.rollout.probes,
                after=found.asked,
                latency_margin=self.rollout.latency_margin,
                digest=release.digest,
                holdout_key=release.holdout_key,
                holdout_sha256=release.holdout_sha256,
            )
        evidence = Evidence(
            metrics.of(release.digest), metrics.of(live.digest) if live else None, found + asked
        )
        return Analysis(
            next(problems(evidence, self.rollout, self.gate), None),
            asked.missing("the candidate", 0),
            asked.missing("the live release", 1),
            evidence.probes,
        )


@dataclass(frozen=True)
class Analysis:
    """Result of a canary analysis.

    Attributes:
        breach: why the release must be rolled back, or None.
        candidate_unasked, live_unasked: that, and why, the probes of a release could not be asked; empty if
            enough could.
        probes: evidence of all probes so far.
    """

    breach: str | None = None
    candidate_unasked: str = ""
    live_unasked: str = ""
    probes: Probed = NO_PROBES

    @property
    def problem(self) -> str:
        """Return why the release must be rolled back if its probes are not repeated; empty if it must not.

        Without the live release's answers, the candidate's own limits decide.
        """
        return self.breach or self.candidate_unasked


@dataclass(frozen=True)
class Evidence:
    """All evidence since the rollout began.

    Attributes:
        candidate, live: metrics of their requests; `live` is None without a live release.
        probes: what the probes found.
    """

    candidate: RequestMetrics
    live: RequestMetrics | None
    probes: Probed


def problems(evidence: Evidence, rollout: Rollout, gate: Gate) -> Iterator[str]:
    """Yield each reason to roll the candidate back."""
    probes = evidence.probes.once()
    for rate, limit in rollout.maximum_rates.items():
        requests, probed = evidence.candidate.estimate(rate), probes.candidate.of(rate)
        queries, allowed = evidence.candidate.told(rate, "queries"), f"clearly above the allowed {limit:.1%}"
        # Good probes must not hide bad requests.
        if requests.rate > limit and requests.least(LEVEL) > limit:
            yield f"{_words(rate)} is {requests.rate:.1%} of {queries}, {allowed}"
        # Where a head leaves only hard queries to the model, probes are the better evidence alone.
        is_alone = evidence.candidate.is_of_hard_queries(rate)
        both = probed if is_alone else evidence.candidate.effective(rate) + probed
        if _is_above(both, limit, AT_LIMIT) and _is_above(both, limit * WITHIN, LEVEL):
            told = [queries] * (not is_alone) + [f"{probed.of:.0f} probes"] * (probed.of > 0)
            yield f"{_words(rate)} is {both.rate:.1%} of {' and '.join(told)}, {allowed}"
    users = evidence.candidate.requests
    if users.of >= MINIMUM_REQUESTS and users.rate > max(MOST_FALLBACKS, rollout.maximum_fallback_rate):
        yield (
            f"{users.rate:.1%} of {users.of:.0f} requests were answered by a fallback, more than "
            f"{max(MOST_FALLBACKS, rollout.maximum_fallback_rate):.1%}, perhaps for a few frequent queries"
        )
    yield from _quality(probes, gate, has_live=evidence.live is not None)
    if evidence.live is None:
        return
    # Hold-out queries differ from users', and candidate and live release get different numbers of requests.
    # So requests are compared with requests, and probes with probes.
    for rate in rollout.maximum_rates:
        yield from _more(rate, evidence.candidate, evidence.live, "queries", rollout)
        yield from _more(rate, probes.candidate, probes.live, "probes", rollout)
    slower = probes.slower
    if _is_above(slower, 0.5, LEVEL):
        yield (
            f"its model takes more than {1 + rollout.latency_margin:.3g} times as long as that of the live "
            f"release for {slower.bad:.0f} of {slower.of:.0f} probes, clearly more than half"
        )


def _quality(probes: Probed, gate: Gate, *, has_live: bool) -> Iterator[str]:
    """Yield what is wrong with the answers to hold-out queries, by the gate's own limits.

    Probes find an endpoint that doesn't answer like the evaluated model; they must not refuse what the gate
    has just passed on the same queries. The gate counts all rows, and probes count each family once, so the
    share of wrong answers gets the gate's margin.
    """
    wrong = probes.candidate.of(WRONG)
    most = min(1 - gate.minimum_dominant_accuracy + gate.non_inferiority_margin, 1.0)
    if _is_above(wrong, most, LEVEL):
        yield (
            f"the dominant label is wrong in {wrong.rate:.1%} of {wrong.of:.0f} probes, clearly above the "
            f"allowed {most:.1%}"
        )
    if has_live and gate.not_worse and _has_lost(probes, gate.non_inferiority_margin):
        yield (
            f"of {probes.both:.0f} probes the candidate alone answers {probes.lost:.0f} wrongly and the live "
            f"release alone {probes.won:.0f}, clearly more than the allowed {gate.non_inferiority_margin:.1%}"
        )


def _more(
    rate: str, candidate: ReleaseMetrics, live: ReleaseMetrics, what: str, rollout: Rollout
) -> Iterator[str]:
    """Yield that a rate is clearly higher than the live release's by more than the margin."""
    mine, theirs, margin = candidate.estimate(rate), live.estimate(rate), rollout.non_inferiority_margin
    if mine.rate - theirs.rate <= margin:
        return
    if _least_difference(mine, theirs) > margin:
        yield (
            f"{_words(rate)} is {mine.rate:.1%} of {candidate.told(rate, what)}, and {theirs.rate:.1%} of "
            f"{live.told(rate)} of the live release, clearly more than the allowed {margin:.1%} more"
        )


def _is_above(found: Count, limit: float, level: float) -> bool:
    """Return whether a share is above its limit by more than chance, by an exact binomial test."""
    return found.rate > limit and upper_tail(*whole(found), limit) <= level


def _least_difference(mine: Estimate, theirs: Estimate) -> float:
    """Return the lower bound of the difference of two shares.

    It combines the exact bounds of both (Newcombe, 1998, method 10; Zou and Donner, 2008).
    """
    least, most = mine.least(LEVEL), theirs.most(LEVEL)
    return mine.rate - theirs.rate - math.hypot(mine.rate - least, most - theirs.rate)


def _has_lost(probes: Probed, margin: float) -> bool:
    """Return whether the candidate clearly loses more than the margin, by paired answers to equal queries."""
    if not probes.both:
        return False
    loss = (probes.lost - probes.won) / probes.both
    variance = (probes.lost + probes.won) / probes.both - loss * loss
    error = math.sqrt(variance / probes.both)
    return loss - NormalDist().inv_cdf(1 - LEVEL) * error > margin


def _words(rate: str) -> str:
    return rate.replace("_", " ")
