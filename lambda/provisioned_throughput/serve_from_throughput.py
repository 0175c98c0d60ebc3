"""The release's last step: throughput for a model that serves already, from its on-demand deployment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.errors import NotYetError, ResourceError
from distilled_router.aws.state_machine import StageResult, done, failed, waiting
from distilled_router.bedrock import throughput
from distilled_router.bedrock.models import base_model
from distilled_router.bedrock.naming import DIGEST_TAG
from distilled_router.env import ServeFromThroughputEnv
from distilled_router.release.table import LIVE, Release, Releases

logger = Logger(child=True)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def is_routed(releases: Releases, arn: str, at: datetime) -> bool:
    """Whether the router may send requests to it."""
    return any(
        share.endpoint == arn and share.counts(at.timestamp()) for share in releases.effective_route().shares
    )


def serve(
    digest: str,
    bedrock: Any,
    releases: Releases,
    env: ServeFromThroughputEnv,
    now: Callable[[], datetime] = _utc_now,
) -> StageResult:
    """Move the throughput towards the release's model by one call, and the route to it once it serves.

    The release is live on its on-demand deployment, and stays so where this fails.
    """
    release = releases.get(digest)
    settled = releases.route().live
    if release is None or release.state != LIVE or settled is None or settled.digest != digest:
        return failed(f"release {digest} does not serve any more")
    spec = _spec(env, release)
    # Said before anything is paid for: the sweeper spares what a release is on its way to.
    if release.throughput != spec.name:
        releases.update(digest, throughput=spec.name)
    try:
        _free_units(bedrock, releases, spec, release.model_arn, env, now())
        with releases.creating(digest) as allowed:
            if not allowed:
                return failed(f"release {digest} does not serve any more")
            found = throughput.ensure(bedrock, spec, release.model_arn, now=now(), requested=release.endpoint)
    except NotYetError as error:
        return waiting(str(error), env.poll_seconds)
    except ResourceError as error:
        return failed(str(error))
    status, arn = found["status"], found["provisionedModelArn"]
    if status == throughput.FAILED:
        if not is_routed(releases, arn, now()):
            # It would keep the name, and the next attempt from buying another.
            throughput.delete(bedrock, arn, spec.owner, now=now())
        return failed(f"throughput {spec.name} failed: {found.get('failureMessage', 'no reason given')}")
    if throughput.serves(found, spec.name, release.model_arn):
        message = f"serves all requests from throughput {spec.name}"
        if not releases.move_endpoint(digest, arn, f"release {digest} {message}"):
            return failed(f"release {digest} does not serve any more")
        releases.update(digest, endpoint=arn, message=message)
        return done(f"release {digest} {message}")
    message = f"serves all requests; throughput {spec.name} is {status}"
    # The endpoint says from now on that the throughput was asked for this model.
    asked = {"endpoint": arn} if found.get("desiredModelArn") == release.model_arn else {}
    releases.update(digest, message=message, **asked)
    return waiting(message, env.poll_seconds)


def _free_units(
    bedrock: Any,
    releases: Releases,
    spec: throughput.ThroughputSpec,
    model_arn: str,
    env: ServeFromThroughputEnv,
    at: datetime,
) -> None:
    """Delete this owner's throughput of other model units or another commitment that nothing is routed to any
    more, since the release went live on demand. Otherwise both are paid for, and both count for the quota.
    So does throughput of another base: it can't be moved to this model (Bedrock user guide, edit throughput).

    Raises NotYetError while one goes.
    """
    if env.retain_throughput:
        return
    for other in list(throughput.owned(bedrock, spec.owner)):
        arn, name = other["provisionedModelArn"], other["provisionedModelName"]
        is_usable = name == spec.name and base_model(other["foundationModelArn"]) == base_model(model_arn)
        if is_usable or any(share.endpoint == arn for share in releases.effective_route().shares):
            continue
        if throughput.committed(other, at):
            logger.warning("throughput kept: it is committed", arn=arn)
        elif not throughput.delete(bedrock, arn, spec.owner, now=at):
            raise NotYetError(f"throughput {name}, which {spec.name} takes the place of, is being removed")


def _spec(env: ServeFromThroughputEnv, release: Release) -> throughput.ThroughputSpec:
    return throughput.ThroughputSpec(
        name=env.throughput_name,
        model_units=env.model_units,
        owner=env.owner,
        token=release.token(env.throughput_name),
        commitment_duration=None if env.commitment == "none" else env.commitment,
        tags={**env.tags, DIGEST_TAG: release.digest},
    )
