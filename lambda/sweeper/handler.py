"""End releases, and remove resources that no release needs.

Runs after a release succeeds or fails, on status events of its state machine, and every hour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.clients import client, table
from distilled_router.aws.state_machine import StageResult, readable
from distilled_router.bedrock.ownership import Claimant
from distilled_router.env import SweeperEnv
from distilled_router.release.sweep import Sweeper
from distilled_router.release.table import Releases
from distilled_router.release.wait_conditions import WaitConditions
from sweeper.fail import end
from sweeper.retire_old import retire

logger = Logger()


def retire_old(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step RetireOld: remove the resources of replaced releases, except those kept for rollback."""
    del event, context
    env = SweeperEnv.read()
    return retire(_sweeper(env), WaitConditions(table(env.table_name), env.owner))


def fail(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step Fail: end the release, and remove the resources it created."""
    del context
    env, reason = SweeperEnv.read(), readable(str(event["reason"]))
    waits = WaitConditions(table(env.table_name), env.owner)
    return end(str(event["release"]), str(event["execution"]), reason, _sweeper(env), waits)


def sweep(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Sweep every hour, and when an execution ends without reaching its own last state."""
    del event, context
    return asdict(_sweeper(SweeperEnv.read()).sweep())


def _sweeper(env: SweeperEnv) -> Sweeper:
    return Sweeper(
        bedrock=client("bedrock"),
        stepfunctions=client("stepfunctions"),
        releases=Releases(table(env.table_name), env.owner),
        claimant=Claimant(env.stack_id, env.logical_id),
        keep_releases=env.keep_releases,
        retain_models=env.retain_models,
        throughput_name=env.throughput_name,
        retain_throughput=env.retain_throughput,
    )
