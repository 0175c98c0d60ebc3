"""Custom resource ProvisionedThroughput, and the release's step that buys it.

The stack owns the throughput by its deterministic name from the first deployment on, while it is bought only
after a release's gate: Create makes nothing, Delete removes what exists under the name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger

from shared import models, throughput
from shared.clients import client, table
from shared.custom_resource import Event, answer, complete, pending, shortened, truth
from shared.errors import ResourceError
from shared.naming import DIGEST_TAG, OWNER_TAG
from shared.releases import DEPLOYING, Releases
from shared.stages import StageResult, done, failed, release_tags, waiting

logger = Logger()


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event)
    try:
        return handle(request, client("bedrock"), _releases())
    except ResourceError as error:
        raise ResourceError(shortened(str(error))) from error


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event)
    try:
        return check(request, client("bedrock"))
    except ResourceError as error:
        raise ResourceError(shortened(str(error))) from error


def stage(event: Mapping[str, Any], context: Any) -> StageResult:
    """The release's step: buy the throughput, or move it to the release's model in place."""
    del context
    return serve(str(event["release"]), client("bedrock"), _releases(), os.environ)


def _releases() -> Releases:
    return Releases(table(os.environ["TABLE_NAME"]))


def handle(event: Event, bedrock: Any, releases: Releases) -> dict[str, Any]:
    """Own the name on Create and Update; on Delete ask for the throughput's end, if nothing is routed to it."""
    if not event.is_delete:
        return answer(str(event.properties["ProvisionedModelName"]))
    name = str(event.physical_id)
    if name != event.properties.get("ProvisionedModelName"):
        return answer(name)
    existing = throughput.find(bedrock, name)
    if existing is None:
        return answer(name)
    arn = existing["provisionedModelArn"]
    if any(share.endpoint == arn for share in releases.route().shares):
        raise ResourceError(
            f"Provisioned throughput {name} serves requests now ({arn} is in the route). It is not deleted. "
            'Let a release with endpoint.kind = "on_demand" go live first, or delete the whole stack.'
        )
    throughput.delete(bedrock, name, str(event.properties["Owner"]), now=datetime.now(UTC))
    return answer(name, ModelArn=existing["modelArn"])


def check(event: Event, bedrock: Any) -> dict[str, Any]:
    """Whether the throughput is gone, and with it the model that only it served."""
    if not event.is_delete:
        return complete({"ProvisionedModelName": str(event.physical_id)})
    name, owner = str(event.physical_id), str(event.properties.get("Owner", ""))
    if name != event.properties.get("ProvisionedModelName"):
        return complete()
    if not throughput.delete(bedrock, name, owner, now=datetime.now(UTC)):
        return pending()
    model_arn = event.raw.get("ModelArn")
    if model_arn and not truth(event.properties.get("RetainModels", "true")):
        # On the way down the release could not delete the model under a throughput; nobody comes after us.
        if models.users(bedrock, model_arn):
            logger.info("model kept: it is in use", model=model_arn)
        elif not models.delete(bedrock, model_arn):
            return pending()
    return complete()


def serve(digest: str, bedrock: Any, releases: Releases, settings: Mapping[str, str]) -> StageResult:
    """Move the throughput towards the release's model by one call, and say whether it serves it."""
    release = releases.get(digest)
    if release is None:
        return failed(f"release {digest} is unknown")
    spec = throughput.ThroughputSpec(
        name=settings["THROUGHPUT_NAME"],
        model_units=int(settings["MODEL_UNITS"]),
        owner=settings["NAME"],
        commitment_duration=settings.get("COMMITMENT_DURATION") or None,
        tags={**release_tags(settings), OWNER_TAG: settings["NAME"], DIGEST_TAG: digest},
    )
    try:
        found = throughput.ensure(bedrock, spec, release.model_arn)
    except ResourceError as error:
        return failed(str(error))
    status = found["status"]
    if status == throughput.FAILED:
        return failed(f"throughput {spec.name} failed: {found.get('failureMessage', 'no reason given')}")
    if status == throughput.IN_SERVICE and found["modelArn"] == release.model_arn:
        releases.update(digest, endpoint=found["provisionedModelArn"])
        return done(f"throughput {spec.name} serves the model")
    message = f"throughput {spec.name} is {status}"
    releases.transition(digest, DEPLOYING, message)
    return waiting(message, int(settings["POLL_SECONDS"]))
