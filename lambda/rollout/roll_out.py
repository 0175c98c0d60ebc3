"""Step RollOut: raise the candidate's share of the requests in steps, with a canary analysis after each.

A candidate's share has an expiry. If the state machine fails between two steps, the routers return to the
live release. Each step changes route and release in one transaction, so that a repeated or interrupted step
is done once or not at all. The evidence of the probes is written in it too, so no probe counts twice.
"""

from __future__ import annotations

import time
from dataclasses import replace

from distilled_router.aws.state_machine import StageResult, done, failed, not_in_progress, waiting
from distilled_router.release.rollout import Rollout
from distilled_router.release.table import LIVE, ROLLING_OUT, Release, Releases
from rollout.canary import CanaryAnalysis

# Seconds that a partial share outlives its dwell time, to allow for a slow step.
EXPIRY_MARGIN_SECONDS = 900
# Seconds after a step in which probes whose calls failed are repeated, within the share's lifetime.
UNASKED_SECONDS, RETRY_SECONDS = 600, 60


def advance(
    digest: str, releases: Releases, analysis: CanaryAnalysis, now: float | None = None
) -> StageResult:
    """Analyse the step that ends now and take the next one; return `done` once the release is live."""
    at, rollout = int(now or time.time()), analysis.rollout
    release = releases.get(digest)
    if release and release.state == LIVE:
        passes = f"passed on another hold-out set, {release.holdout_key}"
        if releases.end_again(digest, passes):
            return done(f"{_serves_all(digest)}; {passes}")
        return done(_serves_all(digest))  # repeated call: the first response was lost
    if release is None or release.is_final:
        return not_in_progress(digest)
    ends_at = release.step_at + rollout.dwell_seconds
    if release.step >= 0 and at < ends_at:
        return waiting(release.message, ends_at - at)
    if release.step >= 0:
        found = analysis.analyse(release, releases.effective_route().live, at)
        unasked = found.candidate_unasked or found.live_unasked
        if unasked and not found.breach and at < ends_at + UNASKED_SECONDS:
            return waiting(f"{release.message}; {unasked}", RETRY_SECONDS)
        if found.problem:
            releases.withdraw(digest, f"release {digest} was rolled back: {found.problem}")
            return failed(f"rolled back at {release.message}: {found.problem}")
        release = replace(release, probed=found.probes.to_text())
    following = release.step + 1
    # The settings may have fewer steps than when the rollout began.
    if following >= len(rollout.rounds):
        return _settle(release, releases)
    return _raise_share(release, releases, rollout, following, at)


def _raise_share(release: Release, releases: Releases, rollout: Rollout, step: int, at: int) -> StageResult:
    # If the route is malformed, this is the last valid one, which the routers use.
    route, part = releases.effective_route(), rollout.rounds[step]
    expires = at + rollout.dwell_seconds + EXPIRY_MARGIN_SECONDS
    shares = (release.share(part, expires), *([replace(route.live, share=1.0 - part)] if route.live else []))
    baking = ", baking" if step >= len(rollout.steps) else ""
    message = f"{part:.0%} of the requests{baking}"
    began = {"rolling_since": at, "probed": ""} if step == 0 else {"probed": release.probed}
    moved = releases.move_with_route(
        release.digest, ROLLING_OUT, message, shares, after=route, step=step, step_at=at, **began
    )
    return waiting(message, rollout.dwell_seconds) if moved else not_in_progress(release.digest)


def _settle(release: Release, releases: Releases) -> StageResult:
    route = releases.effective_route()
    previous = route.live.digest if route.live else _went_live_last(releases)
    moved = releases.move_with_route(
        release.digest,
        LIVE,
        "serves all requests",
        (release.share(1.0),),
        after=route,
        retiring=previous if previous != release.digest else None,
    )
    return done(_serves_all(release.digest)) if moved else not_in_progress(release.digest)


def _went_live_last(releases: Releases) -> str | None:
    """Return the last live release if the route was emptied: once retired, it is a target for rollback."""
    live = (release for release in releases.all() if release.state == LIVE)
    last = max(live, key=lambda release: release.updated_at, default=None)
    return last.digest if last else None


def _serves_all(digest: str) -> str:
    return f"release {digest} serves all requests"
