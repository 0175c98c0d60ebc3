"""Give a failed release its final state, and remove what it created."""

from __future__ import annotations

from aws_lambda_powertools import Logger

from distilled_router.aws.metrics import count
from distilled_router.aws.state_machine import StageResult, done
from distilled_router.bedrock.throughput import is_throughput
from distilled_router.release.sweep import Sweeper
from distilled_router.release.table import FAILED, LIVE, Releases
from distilled_router.release.wait_conditions import WaitConditions

logger = Logger(child=True)


def end(digest: str, execution: str, reason: str, sweeper: Sweeper, waits: WaitConditions) -> StageResult:
    """Set the release's final state, withdraw its share, and remove the resources it created.

    Does not change a release whose next attempt has started.
    """
    releases = sweeper.releases
    release = releases.get(digest)
    if release is None or release.execution != execution:
        logger.info("release has a newer attempt, or does not exist", release=digest)
        return done(str(sweeper.sweep()))
    moved = releases.transition(digest, FAILED, reason, of_execution=execution)
    if moved or _stays_live(releases, digest, reason):
        count("FailedReleases", sweeper.owner)
    releases.withdraw(digest, f"release {digest} failed: {reason}")
    waits.signal(releases)
    return done(str(sweeper.sweep(failed=digest)))


def _stays_live(releases: Releases, digest: str, reason: str) -> bool:
    """Record what failed for a live release: its evaluation, or its move to provisioned throughput.

    Return whether it is live. Sets the endpoint to the route's, and cancels the move.
    """
    release, live = releases.get(digest), releases.route().live
    if release is None or release.state != LIVE:
        return False
    if releases.end_again(digest, f"not passed on another hold-out set: {reason}"):
        return True
    endpoint = live.endpoint if live and live.digest == digest else ""
    if is_throughput(endpoint):
        # The move succeeded, and the step's response was lost.
        return releases.update(digest, message=f"serves all requests from {release.throughput}: {reason}")
    text = "serves all requests from its on-demand deployment" if endpoint else "serves no requests"
    return releases.update(
        digest, throughput="", endpoint=endpoint or release.endpoint, message=f"{text}: {reason}"
    )
