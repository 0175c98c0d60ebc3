"""Custom resource Release: starts one execution of the release state machine and returns at once.

Its physical id is the owner's name and never changes, so that an update can't make CloudFormation delete
what serves. Delete ends every release of this owner: executions, route, deployments and models, in this order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from shared.clients import client, table
from shared.custom_resource import Event, answer, complete, pending, shortened, truth
from shared.errors import ResourceError, code
from shared.releases import LIVE, SUPERSEDED, Release, Releases
from shared.storage import deadline, purge
from shared.sweep import Sweeper, or_none_execution, stop_execution

logger = Logger()


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    return handle(Event.parse(event), services())


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    return check(Event.parse(event), services())


@dataclass(frozen=True)
class Services:
    """What the resource works with."""

    bedrock: Any
    stepfunctions: Any
    s3: Any
    releases: Releases


def services() -> Services:
    """The function's own clients; the table's name comes from its environment."""
    releases = Releases(table(os.environ["TABLE_NAME"]))
    return Services(client("bedrock"), client("stepfunctions"), client("s3"), releases)


def handle(event: Event, aws: Services) -> dict[str, Any]:
    """Start the declared release on Create and Update; begin the end of all on Delete."""
    owner = str(event.properties["Owner"])
    if event.is_delete:
        if event.physical_id == owner:
            _end_all(aws)
        return answer(str(event.physical_id))
    digest = str(event.properties["Digest"])
    aws.releases.declare(digest)
    _supersede_others(aws, digest)
    problem = _start(event, aws, digest)
    # An error after the table was written must not be raised here: the framework would swallow the Delete
    # that cleans up. isComplete fails instead, and CloudFormation then deletes what this began.
    return answer(owner, {"Digest": digest, "ReleaseName": owner}, StartError=problem)


def check(event: Event, aws: Services) -> dict[str, Any]:
    """Whether the release was started (Create, Update), or all is gone (Delete)."""
    if not event.is_delete:
        problem = event.raw.get("StartError")
        if problem:
            raise ResourceError(shortened(str(problem)))
        return complete()
    if event.physical_id != event.properties["Owner"]:
        return complete()
    if not _end_all(aws):
        return pending()
    if _sweeper(event, aws).clear().waiting:
        return pending()
    if truth(event.properties.get("RetainReports", "true")):
        return complete()
    gone = purge(aws.s3, str(event.properties["Bucket"]), "releases/", until=deadline(60))
    return complete() if gone else pending()


def _start(event: Event, aws: Services, digest: str) -> str | None:
    """Start the next attempt, unless one runs or the release is live; the problem, if there is one."""
    release = aws.releases.get(digest)
    if release and release.state == LIVE and _is_routed(aws, digest):
        return None
    if release and release.request_id == event.request_id:
        attempt = release.attempt  # the same event again: the same execution
    elif release and not release.is_final and _is_running(aws, release):
        return None
    else:
        attempt = (release.attempt if release else 0) + 1
    machine = str(event.properties["StateMachineArn"])
    name = f"{digest}-{attempt}"
    execution = f"{machine.replace(':stateMachine:', ':execution:')}:{name}"
    aws.releases.begin(digest, attempt=attempt, execution=execution, request_id=event.request_id)
    try:
        aws.stepfunctions.start_execution(
            stateMachineArn=machine, name=name, input=json.dumps({"release": digest}, sort_keys=True)
        )
    except ClientError as error:
        if code(error) != "ExecutionAlreadyExists":
            return f"Release {digest} could not be started: {error}"
        # It ran and ended before this repetition of the event arrived.
    except BotoCoreError as error:
        return f"Release {digest}: Step Functions did not confirm the start: {error}"
    logger.info("release started", release=digest, execution=execution)
    return None


def _is_running(aws: Services, release: Release) -> bool:
    execution = or_none_execution(aws.stepfunctions, release.execution)
    return execution is not None and execution["status"] == "RUNNING"


def _is_routed(aws: Services, digest: str) -> bool:
    settled = aws.releases.route().settled
    return settled is not None and settled.release == digest


def _supersede_others(aws: Services, digest: str) -> None:
    """Stop the releases of other digests that are still on their way; what serves goes on serving."""
    for release in aws.releases.all():
        if release.digest == digest or release.is_final:
            continue
        reason = f"superseded by release {digest}"
        if aws.releases.transition(release.digest, SUPERSEDED, reason):
            aws.releases.drop_from_route(release.digest, f"release {release.digest} was {reason}")
        stop_execution(aws.stepfunctions, release.execution, reason)


def _end_all(aws: Services) -> bool:
    """Stop every execution and empty the route; True once no execution runs."""
    aws.releases.declare(None)
    closed = True
    for release in list(aws.releases.all()):
        aws.releases.transition(release.digest, SUPERSEDED, "the stack is being deleted")
        closed &= stop_execution(aws.stepfunctions, release.execution, "the stack is being deleted")
    route = aws.releases.route()
    if route.shares:
        aws.releases.set_route((), after=route, reason="the stack is being deleted")
    return closed


def _sweeper(event: Event, aws: Services) -> Sweeper:
    return Sweeper(
        bedrock=aws.bedrock,
        stepfunctions=aws.stepfunctions,
        releases=aws.releases,
        owner=str(event.properties["Owner"]),
        keep_releases=0,
        retain_models=truth(event.properties.get("RetainModels", "true")),
    )
