"""Step DeployCandidate: create an on-demand deployment for the candidate."""

from __future__ import annotations

import time
from typing import Any

from distilled_router.aws.absence import confirmed
from distilled_router.aws.errors import NotYetError, ResourceError
from distilled_router.aws.state_machine import (
    StageResult,
    done,
    failed,
    not_in_progress,
    waiting,
)
from distilled_router.bedrock import deployments
from distilled_router.bedrock.naming import release_name
from distilled_router.bedrock.ownership import Claimant
from distilled_router.env import CandidateEnv
from distilled_router.release.table import DEPLOYING, Release, Releases

# Seconds that a deployment's name may stay in use after deletion; an estimate, AWS documents no limit.
NAME_HELD_SECONDS = 900


def deploy(
    digest: str,
    bedrock: Any,
    releases: Releases,
    env: CandidateEnv,
    now: float | None = None,
) -> StageResult:
    """Create the candidate's deployment, or poll it once. An idle deployment costs nothing.

    Each candidate has its own deployment, so the live release keeps its endpoint even if this one fails.
    """
    release, name = releases.get(digest), release_name(env.owner, digest)
    if release is None or release.is_over:
        return not_in_progress(digest)
    if release.is_reevaluated:
        return done(f"release {digest} is live already")
    if release.state == DEPLOYING and not confirmed(
        lambda: deployments.find(bedrock, name), env.absence_seconds
    ):
        # This attempt can't create it again: Bedrock already knows its client request token.
        return failed(f"deployment {name} was created and then deleted; deploy again to create another one")
    try:
        with releases.creating(digest, Claimant(env.stack_id, env.logical_id)) as allowed:
            if not allowed:
                return not_in_progress(digest)
            found = _deployment(bedrock, name, release, env)
    except NotYetError as error:
        # The release was last updated when the previous step ended.
        held_for = (now or time.time()) - release.updated_at
        if isinstance(error, deployments.NameHeldError) and held_for > NAME_HELD_SECONDS:
            return failed(
                f"{error} No deployment of this name exists. Deploy again later, or set another nonce "
                "(distillation.nonce in the environment's settings) for another name and another job."
            )
        return waiting(str(error), env.poll_seconds)
    except ResourceError as error:
        return failed(str(error))
    status, arn = found["status"], found["customModelDeploymentArn"]
    if status == deployments.FAILED:
        return failed(f"deployment {name} failed: {found.get('failureMessage', 'no reason given')}")
    text, active = f"deployment {name} is {status}", status == deployments.ACTIVE
    if not releases.transition(digest, DEPLOYING, text, **({"endpoint": arn} if active else {})):
        return not_in_progress(digest)
    return done(text) if active else waiting(text, env.poll_seconds)


def _deployment(bedrock: Any, name: str, release: Release, env: CandidateEnv) -> dict[str, Any]:
    claimant = Claimant(env.stack_id, env.logical_id)
    owned = claimant.tags(env.owner, request=release.request_id, digest=release.digest)
    return deployments.ensure(
        bedrock,
        name=name,
        model_arn=release.model_arn,
        owner=env.owner,
        claimant=claimant,
        tags={**env.tags, **owned},
        token=release.token(name),
        description=f"Release {release.digest} of {env.owner}",
        absence_seconds=env.absence_seconds,
    )
