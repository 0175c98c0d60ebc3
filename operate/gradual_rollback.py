"""Roll back step by step: the previous good release rises as a new one does, watched by its requests.

The shares expire as those of a roll-out do: if this command dies, what served gets all requests again by
itself, and no release has changed. Only the last step, which gives it everything, makes it the live one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.console import Console

from distilled_router.release.route import Share
from distilled_router.release.table import Release, RouteChangedError
from operate.deployed import Deployed, duration
from operate.errors import LocalError
from rollout.canary import CanaryAnalysis
from rollout.roll_out import EXPIRY_MARGIN_SECONDS


@dataclass(frozen=True)
class Rise:
    """How to go step by step: `watch` judges each step, `console` is told of it."""

    watch: CanaryAnalysis
    console: Console
    pause: Callable[[float], None] = time.sleep

    def to(self, at: Deployed, digest: str, endpoint: str) -> None:
        """Raise a retired release's share to just below all requests.

        Raises:
            LocalError: A release is on its way, this one's numbers are bad, or somebody else changed the
                route. What served has all requests then.
        """
        on_their_way = [release.digest for release in at.releases.all() if not release.is_final]
        if on_their_way:
            raise LocalError(
                f"Release {' and '.join(on_their_way)} is on its way, and would raise its own share.",
                advice="Without GRADUAL the command ends it first. Or wait until it has ended.",
            )
        steps = [part for part in self.watch.rollout.steps if part < 1]
        try:
            for part in steps:
                self._step(at, digest, endpoint, part)
        except RouteChangedError as error:
            at.releases.withdraw(digest, f"release {digest} was taken back: the route changed")
            raise LocalError(
                "Somebody else changed the route meanwhile.",
                advice=f"Look at it first: make releases ENV={at.environment}",
            ) from error
        except BaseException:
            at.releases.withdraw(digest, f"release {digest} was taken back: the rollback was given up")
            raise

    def _step(self, at: Deployed, digest: str, endpoint: str, part: float) -> None:
        began, dwell = int(at.now()), self.watch.rollout.dwell_seconds
        route = at.releases.route()
        settled = route.live
        share = Share(digest, endpoint, part, expires_at=began + dwell + EXPIRY_MARGIN_SECONDS)
        rest = (replace(settled, share=1.0 - part),) if settled else ()
        message = f"{part:.0%} of the requests"
        route = at.releases.set_route(
            (share, *rest), after=route, reason=f"release {digest}: {message}, rolled back by hand"
        )
        self.console.print(f"Release {digest} gets {message} for {duration(dwell)}. Ctrl-C takes it back.")
        self.pause(dwell)
        if at.releases.route().version != route.version:
            raise RouteChangedError("The route changed during a step.")
        release = Release(digest, endpoint=endpoint, step_at=began)
        if problem := self.watch.breach(release, settled, int(at.now())):
            raise LocalError(
                f"Release {digest} was taken back at {message}: {problem}.",
                advice=f"To give it all requests whatever its numbers: make rollback ENV={at.environment} "
                f"TO={digest}",
            )
