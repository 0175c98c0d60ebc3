"""Ends releases and removes what none of them needs: on a release's success or failure, on status events of
its state machine, and every hour."""

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
    """Step RetireOld: remove what the release replaced, except releases kept for rollback."""
    del event, context
    env = SweeperEnv.read()
    sweeper = _sweeper(env)
    _tell_waiting_stacks(env, sweeper.releases)
    return done(_counted(sweeper.sweep()))


def fail(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step Fail: give the release its final state, take its share back, and remove what it created.

    A release that has begun again since is its next execution's.
    """
    del context
    digest, reason = str(event["release"]), readable(str(event["reason"]))
    env = SweeperEnv.read()
    sweeper = _sweeper(env)
    release = sweeper.releases.get(digest)
    if release is None or release.execution != str(event["execution"]):
        logger.info("it has begun again, or is gone", release=digest)
        return done(_counted(sweeper.sweep()))
    moved = sweeper.releases.transition(digest, FAILED, reason, of_attempt=release.attempt)
    if moved or _stays_live(sweeper.releases, digest, reason):
        count("FailedReleases", sweeper.owner)
    sweeper.releases.withdraw(digest, f"release {digest} failed: {reason}")
    _tell_waiting_stacks(env, sweeper.releases)
    return done(_counted(sweeper.sweep(failed=digest)))


def sweep(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Every hour, and when an execution ends in any other way than by its own last state."""
    del event, context
    return _shown(_sweeper(SweeperEnv.read()).sweep())


def _stays_live(releases: Releases, digest: str, reason: str) -> bool:
    """Whether it serves already, and failed in its last step: moving to provisioned throughput. It is on its
    way there no more, and its endpoint is the one that the route names."""
    release, settled = releases.get(digest), releases.route().live
    if release is None or release.state != LIVE:
        return False
    endpoint = settled.endpoint if settled and settled.digest == digest else ""
    if is_throughput(endpoint):
        # The move was made, and the step's answer was lost.
        return releases.update(digest, message=f"serves all requests from {release.throughput}: {reason}")
    text = "serves all requests from its on-demand deployment" if endpoint else "serves no requests"
    return releases.update(
        digest, throughput="", endpoint=endpoint or release.endpoint, message=f"{text}: {reason}"
    )


def _tell_waiting_stacks(env: SweeperEnv, releases: Releases) -> None:
    """A stack that waits for its release goes on, or fails, with it. A signal that is lost here is sent
    again by the wait's own schedule."""
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
