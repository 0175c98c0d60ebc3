"""The release's first steps: wait for its model, then give it a candidate deployment of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from aws_lambda_powertools import Logger

from candidate.deploy_candidate import deploy
from candidate.watch_job import watch
from distilled_router.aws.clients import client, table
from distilled_router.aws.state_machine import StageResult, wait_if_transient
from distilled_router.release.table import Releases

logger = Logger()


def watch_job(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step WatchJob: wait until the release has its model."""
    del context
    digest, seconds = str(event["release"]), int(os.environ["POLL_SECONDS"])
    bedrock, stepfunctions = client("bedrock"), client("stepfunctions")
    return wait_if_transient(lambda: watch(digest, bedrock, stepfunctions, _releases(), os.environ), seconds)


def deploy_candidate(event: Mapping[str, Any], context: Any) -> StageResult:
    """Step DeployCandidate: wait until the model's on-demand deployment is active."""
    del context
    digest, seconds = str(event["release"]), int(os.environ["POLL_SECONDS"])
    return wait_if_transient(lambda: deploy(digest, client("bedrock"), _releases(), os.environ), seconds)


def _releases() -> Releases:
    return Releases(table(os.environ["TABLE_NAME"]))
