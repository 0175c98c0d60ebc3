"""End releases, and remove resources that no release needs.

Runs after a release succeeds or fails, on status events of its state machine, and every hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.clients import client, table
from distilled_router.aws.metrics import count
from distilled_router.aws.state_machine import StageResult, done, readable
from distilled_router.bedrock.throughput import is_throughput
from distilled_router.env import SweeperEnv
from distilled_router.release.sweep import Sweep, Sweeper
from distilled_router.release.table import FAILED, LIVE, Releases
from distilled_router.release.wait_conditions import WaitConditions

logger = Logger()


def retire_old(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step RetireOld: remove the resources of replaced releases, except those kept for rollback."""
    del event, context
    env = SweeperEnv.read()
    sweeper = _sweeper(env)
    _tell_waiting_stacks(env, sweeper.releases)
    return done(_counted(sweeper.sweep()))


def fail(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step Fail: set the release's final state, withdraw its share, and remove the resources it created.

    Does not change a release whose next attempt has started.
    """
    del context
    digest, reason = str(event["release"]), readable(str(event["reason"]))
    env = SweeperEnv.read()
    sweeper = _sweeper(env)
    release = sweeper.releases.get(digest)
    if release is None or release.execution != str(event["execution"]):
        logger.info("release has a newer attempt, or does not exist", release=digest)
        return done(_counted(sweeper.sweep()))
    moved = sweeper.releases.transition(digest, FAILED, reason, of_attempt=release.attempt)
    if moved or _stays_live(sweeper.releases, digest, reason):
        count("FailedReleases", sweeper.owner)
    sweeper.releases.withdraw(digest, f"release {digest} failed: {reason}")
    _tell_waiting_stacks(env, sweeper.releases)
    return done(_counted(sweeper.sweep(failed=digest)))


def sweep(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Sweep every hour, and when an execution ends without reaching its own last state."""
    del event, context
    return _shown(_sweeper(SweeperEnv.read()).sweep())


def _stays_live(releases: Releases, digest: str, reason: str) -> bool:
    """Record that a live release failed to move to provisioned throughput; return whether it is live.

    Sets the endpoint to the route's, and cancels the move.
    """
    release, live = releases.get(digest), releases.route().live
    if release is None or release.state != LIVE:
        return False
    endpoint = live.endpoint if live and live.digest == digest else ""
    if is_throughput(endpoint):
        # The move succeeded, and the step's response was lost.
        return releases.update(digest, message=f"serves all requests from {release.throughput}: {reason}")
    text = "serves all requests from its on-demand deployment" if endpoint else "serves no requests"
    return releases.update(
        digest, throughput="", endpoint=endpoint or release.endpoint, message=f"{text}: {reason}"
    )


def _tell_waiting_stacks(env: SweeperEnv, releases: Releases) -> None:
    """Signal the wait conditions of ended releases. The schedule of ReleaseWait repeats a lost signal."""
    WaitConditions(table(env.table_name)).signal(releases)


def _counted(swept: Sweep) -> str:
    return f"removed {len(swept.removed)}, to be removed later {len(swept.waiting)}"


def _shown(swept: Sweep) -> dict[str, Any]:
    return {"removed": swept.removed, "waiting": swept.waiting, "kept": swept.kept}


def _sweeper(env: SweeperEnv) -> Sweeper:
    return Sweeper(
        bedrock=client("bedrock"),
        stepfunctions=client("stepfunctions"),
        releases=Releases(table(env.table_name)),
        owner=env.owner,
        keep_releases=env.keep_releases,
        retain_models=env.retain_models,
        keep_throughput=env.throughput_name,
        retain_throughput=env.retain_throughput,
        judges=bool(env.judge),
    )
