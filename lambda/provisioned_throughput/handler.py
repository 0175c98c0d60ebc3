"""Custom resource ProvisionedThroughput, and the release's step that buys it.

The stack owns the throughput by its deterministic name from the first deployment on, while it is bought only
for a release that serves already, from its on-demand deployment: Create makes nothing, Delete removes what
exists under the name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from shared import models, throughput
from shared.clients import client, table
from shared.custom_resource import Event, answer, begun, complete, pending, polled, truth
from shared.errors import NotYetError, ResourceError, is_transient
from shared.naming import DIGEST_TAG, OWNER_TAG
from shared.releases import LIVE, Release, Releases, RouteChangedError
from shared.stages import StageResult, done, failed, release_tags, waiting

logger = Logger()


def _utc_now() -> datetime:
    return datetime.now(UTC)


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event)
    return begun(lambda: handle(request, client("bedrock"), _releases()))


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event)
    return polled(lambda: check(request, client("bedrock")))


def stage(event: Mapping[str, Any], context: Any) -> StageResult:
    """The release's last step: buy the throughput, or move it to the release's model in place."""
    del context
    try:
        return serve(str(event["release"]), client("bedrock"), _releases(), os.environ)
    except RouteChangedError as error:
        return waiting(str(error), 1)
    except (ClientError, BotoCoreError) as error:
        # A release that fails here leaves paid throughput behind: what passes is waited for.
        if not is_transient(error):
            raise
        return waiting(f"asked again later: {error}", int(os.environ["POLL_SECONDS"]))


def _releases() -> Releases:
    return Releases(table(os.environ["TABLE_NAME"]))


def handle(
    event: Event, bedrock: Any, releases: Releases, now: Callable[[], datetime] = _utc_now
) -> dict[str, Any]:
    """Own the name on Create and Update; on Delete ask for the throughput's end.

    One that serves now is left alone: the settings went back to on-demand, the release moves there, and the
    sweeper then removes the throughput.
    """
    if not event.is_delete:
        return answer(str(event.properties["ProvisionedModelName"]))
    name = str(event.physical_id)
    if name != event.properties.get("ProvisionedModelName"):
        return answer(name)
    existing = throughput.find(bedrock, name)
    if existing is None:
        return answer(name)
    arn = existing["provisionedModelArn"]
    if _serves(releases, arn, now()):
        logger.info("throughput kept: it serves, and goes when the release serves on demand", arn=arn)
        return answer(name, Serves=arn)
    throughput.delete(bedrock, name, str(event.properties["Owner"]), now=now())
    # While a release is declared its model may be needed again, on another endpoint: training it was paid.
    return answer(name) if releases.declared() else answer(name, ModelArn=existing["modelArn"])


def _serves(releases: Releases, arn: str, now: datetime) -> bool:
    """Whether the router may send requests to it."""
    return any(share.endpoint == arn and share.live(now.timestamp()) for share in releases.route().shares)


def check(event: Event, bedrock: Any, now: Callable[[], datetime] = _utc_now) -> dict[str, Any]:
    """Whether the throughput is gone, and with it the model that only it served."""
    if not event.is_delete:
        return complete({"ProvisionedModelName": str(event.physical_id)})
    name, owner = str(event.physical_id), str(event.properties.get("Owner", ""))
    if name != event.properties.get("ProvisionedModelName"):
        return complete()
    if event.raw.get("Serves"):
        return complete()
    if not throughput.delete(bedrock, name, owner, now=now()):
        return pending()
    model_arn = event.raw.get("ModelArn")
    if model_arn and not truth(event.properties.get("RetainModels", "true")):
        # On the way down the release could not delete the model under a throughput; nobody comes after us.
        if models.users(bedrock, model_arn):
            logger.info("model kept: it is in use", model=model_arn)
        elif not models.delete(bedrock, model_arn):
            return pending()
    return complete()


def serve(
    digest: str,
    bedrock: Any,
    releases: Releases,
    settings: Mapping[str, str],
    now: Callable[[], datetime] = _utc_now,
) -> StageResult:
    """Move the throughput towards the release's model by one call, and the route to it once it serves.

    The release is live on its on-demand deployment, and stays so where this fails.
    """
    release = releases.get(digest)
    settled = releases.route().settled
    if release is None or release.state != LIVE or settled is None or settled.release != digest:
        return failed(f"release {digest} does not serve any more")
    poll_seconds = int(settings["POLL_SECONDS"])
    spec = _spec(settings, release)
    try:
        found = throughput.ensure(bedrock, spec, release.model_arn, asked=release.endpoint)
    except NotYetError as error:
        return waiting(str(error), poll_seconds)
    except ResourceError as error:
        return failed(str(error))
    status, arn = found["status"], found["provisionedModelArn"]
    if status == throughput.FAILED:
        if not _serves(releases, arn, now()):
            # It would keep the name, and the next attempt from buying another.
            throughput.delete(bedrock, spec.name, spec.owner, now=now())
        return failed(f"throughput {spec.name} failed: {found.get('failureMessage', 'no reason given')}")
    if status == throughput.IN_SERVICE and found["modelArn"] == release.model_arn:
        message = f"serves all requests from throughput {spec.name}"
        if not releases.serve_from(digest, arn, f"release {digest} {message}"):
            return failed(f"release {digest} does not serve any more")
        releases.update(digest, endpoint=arn, message=message)
        return done(f"release {digest} {message}")
    message = f"serves all requests; throughput {spec.name} is {status}"
    # The endpoint says from now on that the throughput was asked for this model.
    asked = {"endpoint": arn} if found.get("desiredModelArn") == release.model_arn else {}
    releases.update(digest, message=message, **asked)
    return waiting(message, poll_seconds)


def _spec(settings: Mapping[str, str], release: Release) -> throughput.ThroughputSpec:
    name, owner = settings["THROUGHPUT_NAME"], settings["NAME"]
    return throughput.ThroughputSpec(
        name=name,
        model_units=int(settings["MODEL_UNITS"]),
        owner=owner,
        token=release.token(name),
        commitment_duration=settings.get("COMMITMENT_DURATION") or None,
        tags={**release_tags(settings), OWNER_TAG: owner, DIGEST_TAG: release.digest},
    )
