"""Canary analysis: compare a candidate's metrics with the limits and with the live release's metrics.

The analysis is a group-sequential test: it looks after every round at all evidence since the rollout began,
and `FALSE_ALARMS` is spent in equal parts over all looks (decision 35).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from distilled_router.release.gate import IGNORED_LATENCY_MS, Gate
from distilled_router.release.rollout import Rollout
from distilled_router.release.route import Share
from distilled_router.release.table import Release
from rollout.bounds import lower, upper, upper_tail
from rollout.evidence import NO_PROBES, WRONG, Probed
from rollout.metrics import Count, ReleaseMetrics, RouterMetrics
from rollout.probes import Probes

FALSE_ALARMS = 0.30
"""Largest part of the rollouts in which a candidate exactly at one of its limits is rolled back for it. It is
the sum over all looks, which see much of the same evidence: simulated, it is half of that, and 0.002 for a
candidate at two thirds of its limits (`python -m benchmarks.rollout`)."""

OF_REQUESTS = 0.1
"""Part of `FALSE_ALARMS` for requests alone, so that good probes don't hide bad requests."""

MINIMUM_ANSWERS = 200
"""A model's answers in requests or in probes, below which its mean latency is not compared."""


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
        """Return what speaks against a release after its present round."""
        metrics = RouterMetrics(self.cloudwatch, self.owner, release.rolling_since or release.step_at, at)
        live = live_share if live_share and live_share.digest != release.digest else None
        found = Probed.from_text(release.probed)
        asked = NO_PROBES
        if self.probes and self.rollout.probes:
            # The hold-out set of this attempt, also if another one has just been deployed.
            asked = self.probes.ask(
                [release.endpoint, *([live.endpoint] if live else [])],
                self.rollout.probes,
                after=found.asked,
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

    candidate: ReleaseMetrics
    live: ReleaseMetrics | None
    probes: Probed


def problems(evidence: Evidence, rollout: Rollout, gate: Gate) -> Iterator[str]:
    """Yield everything that speaks against the candidate."""
    probes = evidence.probes.once()
    each_round = FALSE_ALARMS / len(rollout.rounds)
    level = each_round * OF_REQUESTS
    for rate, limit in rollout.maximum_rates.items():
        requests, probed = evidence.candidate.of(rate), probes.candidate.of(rate)
        spread, both = evidence.candidate.spread(rate), requests + probed
        allowed = f"surely above the allowed {limit:.1%}"
        if _surely_above(spread, limit, level):
            yield f"{_words(rate)} is {requests.rate:.1%} of {requests.of:.0f} queries, {allowed}"
        if _surely_above(spread + probed, limit, each_round - level):
            told = f"{requests.of:.0f} queries" + (f" and {probed.of:.0f} probes" if probed.of else "")
            yield f"{_words(rate)} is {both.rate:.1%} of {told}, {allowed}"
    yield from _quality(probes, gate, level, has_live=evidence.live is not None)
    if evidence.live is None:
        return
    # Hold-out queries differ from users', and candidate and live release get different numbers of requests.
    # So requests are compared with requests, and probes with probes.
    for rate in rollout.maximum_rates:
        for mine, theirs, what in (
            (evidence.candidate.spread(rate), evidence.live.of(rate), "queries"),
            (probes.candidate.of(rate), probes.live.of(rate), "probes"),
        ):
            yield from _more(_words(rate), mine, theirs, what, rollout, level)
    # A query that is asked again takes its time again.
    asked = evidence.probes
    yield from _slower(evidence.candidate.model, evidence.live.model, "queries", rollout)
    yield from _slower(asked.candidate.model, asked.live.model, "probes", rollout)


def _quality(probes: Probed, gate: Gate, level: float, *, has_live: bool) -> Iterator[str]:
    """Yield what is wrong with the answers to hold-out queries, by the gate's own limits.

    So probes don't refuse what the gate has just passed on the same queries, but find an endpoint that does
    not answer like the model that was evaluated.
    """
    wrong, most = probes.candidate.of(WRONG), 1 - gate.minimum_dominant_accuracy
    if _surely_above(wrong, most, level):
        yield (
            f"the dominant label is wrong in {wrong.rate:.1%} of {wrong.of:.0f} probes, surely above the "
            f"allowed {most:.1%}"
        )
    if has_live and gate.not_worse and _surely_lost(probes, gate.non_inferiority_margin, level):
        yield (
            f"of {probes.both:.0f} probes the candidate alone answers {probes.lost:.0f} wrongly and the live "
            f"release alone {probes.won:.0f}, surely more than the allowed {gate.non_inferiority_margin:.1%}"
        )


def _more(words: str, mine: Count, theirs: Count, what: str, rollout: Rollout, level: float) -> Iterator[str]:
    """Yield that a rate is surely higher than the live release's by more than the margin."""
    margin = rollout.non_inferiority_margin
    if mine.rate - theirs.rate > margin and _least_difference(mine, theirs, level) > margin:
        yield (
            f"{words} is {mine.rate:.1%} of {mine.of:.0f} {what}, and {theirs.rate:.1%} of {theirs.of:.0f} "
            f"of the live release, surely more than the allowed {margin:.1%} more"
        )


def _slower(mine: Count, theirs: Count, what: str, rollout: Rollout) -> Iterator[str]:
    """Yield that the candidate's model is too slow; only its calls count, cached answers take no time."""
    if min(mine.of, theirs.of) < MINIMUM_ANSWERS or mine.rate - theirs.rate <= IGNORED_LATENCY_MS:
        return
    if mine.rate > theirs.rate * (1 + rollout.latency_margin):
        yield (
            f"its model takes {mine.rate:.0f} ms for {what}, and that of the live release {theirs.rate:.0f} "
            f"ms; allowed {1 + rollout.latency_margin:.3g} times as long"
        )


def _surely_above(found: Count, limit: float, level: float) -> bool:
    """Return whether a share is above its limit by more than chance, by an exact binomial test."""
    return found.rate > limit and upper_tail(*_whole(found), limit) <= level


def _least_difference(mine: Count, theirs: Count, level: float) -> float:
    """Return the lower bound of the difference of two shares.

    It combines the exact bounds of both (Newcombe, 1998, method 10; Zou and Donner, 2008).
    """
    least, most = lower(*_whole(mine), level), upper(*_whole(theirs), level) if theirs.of else 1.0
    return mine.rate - theirs.rate - math.hypot(mine.rate - least, most - theirs.rate)


def _surely_lost(probes: Probed, margin: float, level: float) -> bool:
    """Return whether the candidate surely loses more than the margin, by paired answers to equal queries."""
    if not probes.both:
        return False
    loss = (probes.lost - probes.won) / probes.both
    variance = (probes.lost + probes.won) / probes.both - loss * loss
    error = math.sqrt(variance / probes.both)
    return loss - NormalDist().inv_cdf(1 - level) * error > margin


def _whole(count: Count) -> tuple[int, int]:
    """Return a count in whole numbers, rounded in the candidate's favour."""
    return math.floor(count.bad + 1e-9), math.ceil(count.of - 1e-9)


def _words(rate: str) -> str:
    return rate.replace("_", " ")
