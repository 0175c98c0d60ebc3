"""Give a candidate a growing share of the requests, step by step, watched by its own metrics.

Each share but the settled one carries an expiry. If this state machine dies between two steps, the router
goes back to the settled release by itself. Each step is one transaction of route and release, so that a step
which is taken twice, or dies, is taken whole or not at all.
"""

from __future__ import annotations

import time
from dataclasses import replace

from distilled_router.aws.state_machine import StageResult, done, failed, waiting
from distilled_router.release.rollout import Rollout
from distilled_router.release.route import Share
from distilled_router.release.table import LIVE, ROLLING_OUT, Release, Releases
from rollout.canary import CanaryAnalysis

# How much longer than its dwell time a partial share may live, for a slow step in between.
EXPIRY_MARGIN_SECONDS = 900


def advance(
    digest: str, releases: Releases, analysis: CanaryAnalysis, now: float | None = None
) -> StageResult:
    """Judge the step that ends now, then take the next one; `done` once the release has all requests for
    good."""
    at, rollout = int(now or time.time()), analysis.rollout
    release = releases.get(digest)
    if release and release.state == LIVE:
        return done(_serves_all(digest))  # asked again: the first answer was lost
    if release is None or release.is_final:
        return failed(_ended(digest))
    ends_at = release.step_at + rollout.dwell_seconds
    if release.step >= 0 and at < ends_at:
        return waiting(release.message, ends_at - at)
    if release.step >= 0:
        problem = analysis.breach(release, releases.effective_route().live, at)
        if problem:
            releases.withdraw(digest, f"release {digest} was taken back: {problem}")
            return failed(f"taken back at {release.message}: {problem}")
    following = release.step + 1
    # The settings may have fewer steps than when the rise began.
    if following >= len(rollout.rounds):
        return _settle(release, releases)
    return _raise_share(release, releases, rollout, following, at)


def _raise_share(release: Release, releases: Releases, rollout: Rollout, step: int, at: int) -> StageResult:
    # Where somebody broke the route, what serves is what routers go on with.
    route, part = releases.effective_route(), rollout.rounds[step]
    expires = at + rollout.dwell_seconds + EXPIRY_MARGIN_SECONDS
    candidate = Share(digest=release.digest, endpoint=release.endpoint, share=part, expires_at=expires)
    shares = (candidate, *([replace(route.live, share=1.0 - part)] if route.live else []))
    baking = ", baking" if step >= len(rollout.steps) else ""
    message = f"{part:.0%} of the requests{baking}"
    moved = releases.move_with_route(
        release.digest, ROLLING_OUT, message, shares, after=route, step=step, step_at=at
    )
    return waiting(message, rollout.dwell_seconds) if moved else failed(_ended(release.digest))


def _settle(release: Release, releases: Releases) -> StageResult:
    route = releases.effective_route()
    previous = route.live.digest if route.live else _went_live_last(releases)
    alone = Share(release.digest, release.endpoint, 1.0, expires_at=None)
    moved = releases.move_with_route(
        release.digest,
        LIVE,
        "serves all requests",
        (alone,),
        after=route,
        retiring=previous if previous != release.digest else None,
    )
    return done(_serves_all(release.digest)) if moved else failed(_ended(release.digest))


def _went_live_last(releases: Releases) -> str | None:
    """What serves nothing only because somebody emptied the route: retired, it can be rolled back to."""
    live = (release for release in releases.all() if release.state == LIVE)
    last = max(live, key=lambda release: release.updated_at, default=None)
    return last.digest if last else None


def _serves_all(digest: str) -> str:
    return f"release {digest} serves all requests"


def _ended(digest: str) -> str:
    return f"release {digest} is not on its way any more"
