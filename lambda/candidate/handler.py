"""Entry points of the steps WatchJob and DeployCandidate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from candidate.deploy_candidate import deploy
from candidate.watch_job import Clients, watch
from distilled_router.aws.clients import client, table
from distilled_router.aws.state_machine import StageResult, pause, wait_if_transient, waited
from distilled_router.env import CandidateEnv
from distilled_router.release.table import Releases

logger = Logger()


def watch_job(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step WatchJob: wait until the release has its model."""
    del context
    digest, env = str(event["release"]), CandidateEnv.read()
    env = env.changed(poll_seconds=pause(waited(event), env.poll_seconds))
    clients = Clients(client("bedrock"), client("stepfunctions"), client("s3"))
    releases = Releases(table(env.table_name), env.owner)
    return wait_if_transient(lambda: watch(digest, clients, releases, env), env.poll_seconds)


def deploy_candidate(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step DeployCandidate: wait until the model's on-demand deployment is active."""
    del context
    digest, env = str(event["release"]), CandidateEnv.read()
    env = env.changed(poll_seconds=pause(waited(event), env.poll_seconds))
    releases = Releases(table(env.table_name), env.owner)
    return wait_if_transient(lambda: deploy(digest, client("bedrock"), releases, env), env.poll_seconds)
