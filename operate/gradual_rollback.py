"""Roll back step by step: a rollout of the previous good release, with canary analysis of its requests.

As in any rollout, the release's share expires. If this process dies, the live release gets all requests again
without any other action, and no release has changed its state. Only the transaction after the last step makes
the good release the live one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from distilled_router.release.table import BY_HAND, Release, RouteChangedError
from operate.console import Terminal, say
from operate.deployed import Deployed, duration
from operate.errors import OperateError
from rollout.canary import CanaryAnalysis
from rollout.roll_out import EXPIRY_MARGIN_SECONDS


@dataclass(frozen=True)
class GradualRollback:
    """The canary analysis that decides after each step, and the console that shows the steps."""

    canary: CanaryAnalysis
    console: Terminal
    pause: Callable[[float], None] = time.sleep

    def roll_out(self, at: Deployed, digest: str, endpoint: str) -> None:
        """Increase the share of a retired release to the last step below 100%.

        Raises:
            OperateError: Another release is running, the canary analysis found a problem, or the route was
                changed by someone else. The live release then has all requests.
        """
        running = [release.digest for release in at.releases.all() if not release.is_final]
        if running:
            raise OperateError(
                f"Release {' and '.join(running)} is running and would change the shares as well.",
                advice="Run the command without GRADUAL, which ends it first, or wait until it has ended.",
            )
        known = at.releases.get(digest) or Release(digest)
        # Not its step and probes, which are those of its own rollout.
        release = Release(
            digest,
            endpoint=endpoint,
            rolling_since=int(at.now()),
            head=known.head,
            head_sha256=known.head_sha256,
        )
        try:
            for step in (step for step in self.canary.rollout.steps if step < 1):
                self._step(at, release, step)
        except RouteChangedError as error:
            at.releases.withdraw(digest, f"release {digest} was withdrawn: the route changed")
            raise OperateError(
                "The route was changed by someone else during the rollback.",
                advice=f"Check it first: make releases ENV={at.environment}",
            ) from error
        except BaseException:
            at.releases.withdraw(digest, f"release {digest} was withdrawn: the rollback did not finish")
            raise

    def _step(self, at: Deployed, release: Release, step: float) -> None:
        """Give a release the share of one step, wait, and check its metrics since the first step."""
        digest, began, dwell = release.digest, int(at.now()), self.canary.rollout.dwell_seconds
        route = at.releases.route()
        live = route.live
        share = release.share(step, expires_at=began + dwell + EXPIRY_MARGIN_SECONDS)
        rest = (replace(live, share=1.0 - step),) if live else ()
        message = f"{step:.0%} of the requests"
        route = at.releases.set_route(
            (share, *rest), after=route, reason=f"release {digest}: {message}, {BY_HAND}"
        )
        say(self.console, f"Release {digest} gets {message} for {duration(dwell)}. Ctrl-C takes it back.")
        self.pause(dwell)
        if at.releases.route().version != route.version:
            raise RouteChangedError("The route changed during a step.")
        if problem := self.canary.analyse(release, live, int(at.now())).problem:
            raise OperateError(
                f"Release {digest} was withdrawn at {message}: {problem}.",
                advice=f"To give it all requests anyway: make rollback ENV={at.environment} TO={digest}",
            )
