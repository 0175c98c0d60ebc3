"""Step ServeFromThroughput: move a live release from its on-demand deployment to provisioned throughput."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from distilled_router.aws.errors import NotYetError, ResourceError
from distilled_router.aws.fence import SupersededError
from distilled_router.aws.state_machine import StageResult, done, failed, waiting
from distilled_router.bedrock import purchase, throughput
from distilled_router.bedrock.models import base_model
from distilled_router.bedrock.naming import DIGEST_TAG
from distilled_router.bedrock.ownership import Claimant
from distilled_router.env import ServeFromThroughputEnv
from distilled_router.release.table import LIVE, Release, Releases

logger = Logger(child=True)


def _utc_now() -> datetime:
    return datetime.now(UTC)


def is_routed(releases: Releases, arn: str, at: datetime) -> bool:
    """Return whether the route has an unexpired share with this endpoint."""
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
    """Buy the throughput or move it to the release's model, one call at a time; then switch the route to it.

    If this fails, the release stays live on its on-demand deployment.
    """
    release = releases.get(digest)
    live = releases.route().live
    if release is None or release.state != LIVE or live is None or live.digest != digest:
        return failed(_not_live(digest))
    spec = _spec(env, release)
    # Stored before the purchase: the sweeper keeps the throughput that a release names.
    if release.throughput != spec.name:
        releases.update(digest, throughput=spec.name)
    try:
        if not env.retain_throughput:
            _free_units(bedrock, releases, spec, release.model_arn, now())
        with releases.creating(digest, spec.claimant) as allowed:
            if not allowed:
                return failed(_not_live(digest))
            found = purchase.ensure(
                bedrock,
                spec,
                release.model_arn,
                now=now(),
                requested=release.endpoint,
                absence_seconds=env.absence_seconds,
                check_newest=lambda: _check_wanted(releases, release, spec.name),
            )
    except NotYetError as error:
        return waiting(str(error), env.poll_seconds)
    except ResourceError as error:
        return failed(str(error))
    status, arn = found["status"], found["provisionedModelArn"]
    if status == throughput.FAILED:
        if not is_routed(releases, arn, now()):
            # It would keep the name, and the next attempt could not buy it.
            throughput.delete(bedrock, arn, spec.owner, now=now())
        return failed(f"throughput {spec.name} failed: {found.get('failureMessage', 'no reason given')}")
    if throughput.serves(found, spec.name, release.model_arn):
        throughput.sync_tags(bedrock, found, {**env.tags, DIGEST_TAG: digest})
        if live.endpoint == release.endpoint == arn:
            return done(f"release {digest} {release.message}")  # served before: it was evaluated again
        message = f"serves all requests from throughput {spec.name}"
        if not releases.move_endpoint(digest, arn, f"release {digest} {message}"):
            return failed(_not_live(digest))
        releases.update(digest, endpoint=arn, message=message)
        return done(f"release {digest} {message}")
    message = f"serves all requests; throughput {spec.name} is {status}"
    # The release's endpoint records that the throughput's move to this model was requested.
    requested = {"endpoint": arn} if found.get("desiredModelArn") == release.model_arn else {}
    releases.update(digest, message=message, **requested)
    return waiting(message, env.poll_seconds)


def _check_wanted(releases: Releases, release: Release, name: str) -> None:
    """Raise SupersededError unless the same attempt at the live release still needs this throughput.

    The search for existing throughput takes a minute. Meanwhile, the execution may be stopped, which does not
    stop this function.
    """
    now, live = releases.get(release.digest), releases.route().live
    is_same = now is not None and (now.execution, now.throughput) == (release.execution, name)
    is_live = live is not None and live.digest == release.digest
    if not (is_same and is_live) or releases.declarations.is_closed():
        raise SupersededError(_not_live(release.digest))


def _free_units(
    bedrock: Any, releases: Releases, spec: purchase.ThroughputSpec, model_arn: str, at: datetime
) -> None:
    """Delete the release's other throughput that has no share of the route.

    Other throughput has other model units, another commitment or another base model, so it can't be moved to
    this model (Bedrock user guide, edit throughput). Otherwise both would be billed and count for the quota.

    Raises NotYetError while throughput is being deleted, and ResourceError if it is committed under another
    name: the settings changed while this step ran.
    """
    for other, tags in list(throughput.claimed(bedrock, spec.claimant)):
        arn, is_wanted = other["provisionedModelArn"], throughput.created_as(other, tags) == spec.name
        is_usable = is_wanted and base_model(other["foundationModelArn"]) == base_model(model_arn)
        if is_usable or any(share.endpoint == arn for share in releases.effective_route().shares):
            continue
        if term := throughput.committed(other, at):
            if is_wanted:
                continue  # Bedrock refuses the move to another base model, and says why.
            raise ResourceError(f"Throughput {spec.name} was not bought beside another one. {term}")
        if not throughput.delete(bedrock, arn, spec.owner, now=at):
            name = other["provisionedModelName"]
            raise NotYetError(f"throughput {name}, which {spec.name} replaces, is being deleted")


def _not_live(digest: str) -> str:
    return f"release {digest} is no longer live"


def _spec(env: ServeFromThroughputEnv, release: Release) -> purchase.ThroughputSpec:
    claimant = Claimant(env.stack_id, env.logical_id)
    ours = claimant.tags(env.owner, request=release.request_id, digest=release.digest)
    return purchase.ThroughputSpec(
        name=env.throughput_name,
        model_units=env.model_units,
        owner=env.owner,
        claimant=claimant,
        token=release.token(env.throughput_name),
        commitment_duration=None if env.commitment == "none" else env.commitment,
        tags={**env.tags, **ours},
    )
