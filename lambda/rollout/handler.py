"""Entry point of the step RollOut: raise the candidate's share of the requests in steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.clients import client, table
from distilled_router.aws.state_machine import StageResult, wait_if_transient, waiting
from distilled_router.env import RolloutEnv
from distilled_router.release.gate import Gate
from distilled_router.release.rollout import Rollout
from distilled_router.release.table import Releases, RouteChangedError
from rollout.canary import CanaryAnalysis
from rollout.probes import Probes
from rollout.roll_out import advance

logger = Logger()

RETRY_SECONDS = 30


def roll_out(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step RollOut: take the rollout one step further, or roll it back."""
    del context
    env = RolloutEnv.read()
    releases, probes = Releases(table(env.table_name), env.owner), Probes.of(env, client("s3"))
    gate = Gate(**env.gate)
    analysis = CanaryAnalysis(client("cloudwatch"), env.owner, Rollout.of(env.rollout), gate, probes)
    try:
        return wait_if_transient(lambda: advance(str(event["release"]), releases, analysis), RETRY_SECONDS)
    except RouteChangedError as error:
        return waiting(str(error), 1)
