"""Custom resource Release: starts one execution of the release state machine and returns at once.

Its physical id is the owner's name and never changes, so that an update can't make CloudFormation delete
what serves. Delete ends every release of this owner: executions, route, deployments and models, in this
order. The declared digest's model is its job's resource's, and goes with that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws import executions
from distilled_router.aws.clients import client, table
from distilled_router.aws.custom_resource import (
    Event,
    answer,
    answer_event,
    answer_poll,
    complete,
    is_true,
    pending,
    shortened,
)
from distilled_router.aws.errors import ResourceError, code
from distilled_router.aws.storage import PURGE_SECONDS, deadline, purge
from distilled_router.bedrock.throughput import is_throughput
from distilled_router.env import ReleaseEnv
from distilled_router.release.sweep import Sweeper
from distilled_router.release.table import LIVE, SUPERSEDED, Release, Releases, RouteChangedError

logger = Logger()

# How many execution names in a row are tried where earlier lives of the stack have used some up.
MOST_NAMES = 20
ON_DEMAND = "on_demand"


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    return answer_event(lambda: handle(Event.parse(event), services()))


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    return answer_poll(lambda: check(Event.parse(event), services()))


@dataclass(frozen=True)
class Services:
    """What the resource works with."""

    bedrock: Any
    stepfunctions: Any
    s3: Any
    releases: Releases


def services() -> Services:
    """The function's own clients; the table's name comes from its environment."""
    releases = Releases(table(ReleaseEnv.read().table_name))
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
    return complete() if _all_gone(event, aws) else pending()


def _all_gone(event: Event, aws: Services) -> bool:
    """Take all that releases made one step further to its end; True once nothing is left."""
    # A step that still runs, though its execution was stopped, may be about to make something.
    if not _end_all(aws) or aws.releases.is_creating():
        return False
    if _sweeper(event, aws).clear(declared=str(event.properties["Digest"])).waiting:
        return False
    if is_true(event.properties.get("RetainReports", "true")):
        return True
    return purge(aws.s3, str(event.properties["Bucket"]), "releases/", until=deadline(PURGE_SECONDS))


def _start(event: Event, aws: Services, digest: str) -> str | None:
    """Start the next attempt, unless one runs or the release serves as asked; the problem, if any."""
    release = aws.releases.get(digest)
    repeated = release is not None and release.request_id == event.request_id
    endpoint = str(event.properties.get("Endpoint", ON_DEMAND))
    if release and release.state == LIVE and _stays(aws, release, endpoint, repeated=repeated):
        return None
    if release and not repeated and not release.is_final and _is_running(aws, release.execution):
        return None
    # The same event again is the same attempt, and so the same execution.
    first = (release.attempt if release else 0) + (0 if repeated else 1)
    for attempt in range(first, first + MOST_NAMES):
        try:
            if _started(event, aws, digest, attempt):
                return None
        except ClientError as error:
            return f"Release {digest} could not be started: {error}"
        except BotoCoreError as error:
            return f"Release {digest}: Step Functions did not confirm the start: {error}"
    return f"Release {digest} could not be started: execution names up to {digest}-{attempt} are taken."


def _started(event: Event, aws: Services, digest: str, attempt: int) -> bool:
    """Start one attempt's execution; False where its name belongs to an execution of another life."""
    machine, name = str(event.properties["StateMachineArn"]), f"{digest}-{attempt}"
    execution = executions.arn_of(machine, name)
    answer_event = aws.releases.begin(
        digest,
        attempt=attempt,
        execution=execution,
        request_id=event.request_id,
        source=str(event.properties["Source"]),
    )
    try:
        aws.stepfunctions.start_execution(
            stateMachineArn=machine, name=name, input=json.dumps({"release": digest}, sort_keys=True)
        )
    except ClientError as error:
        if code(error) != "ExecutionAlreadyExists":
            raise
        # Either this event came before, and its execution has even ended by now. Or the attempt is new to
        # the table while its name was used before the table was made: names are taken for 90 days.
        return not answer_event or _is_running(aws, execution)
    logger.info("release started", release=digest, execution=execution)
    return True


def _is_running(aws: Services, execution: str) -> bool:
    return executions.is_open(executions.find(aws.stepfunctions, execution))


def _stays(aws: Services, release: Release, endpoint: str, *, repeated: bool) -> bool:
    """Whether a live release serves from the endpoint that the settings ask for, or is on its way there.

    Another endpoint is another way to production for the same model. A last step that buys another one than
    the settings ask for now is stopped; the sweeper removes what it bought.
    """
    serves = _serves(aws, release, endpoint)
    if repeated or not _is_running(aws, release.execution):
        return serves
    if release.throughput == endpoint:
        return True
    if release.throughput or not serves:
        executions.stop(aws.stepfunctions, release.execution, f"the settings ask for {endpoint}")
        aws.releases.update(release.digest, throughput="")
    return serves


def _serves(aws: Services, release: Release, endpoint: str) -> bool:
    """Whether the release takes the requests from this endpoint: a throughput's name, or `on_demand`."""
    settled = aws.releases.route().live
    if settled is None or settled.digest != release.digest:
        return False
    named = release.throughput if is_throughput(settled.endpoint) else ON_DEMAND
    return named == endpoint


def _supersede_others(aws: Services, digest: str) -> None:
    """Stop the releases of other digests that are still on their way; what serves goes on serving.

    The state comes first: a step that still runs finds it, and the sweeper, which an execution's end calls,
    does not take the release for a failed one. Ended ones are looked at too, in case this died halfway.
    """
    reason = f"superseded by release {digest}"
    for release in list(aws.releases.all()):
        if release.digest == digest or (release.is_final and release.state != SUPERSEDED):
            continue
        aws.releases.transition(release.digest, SUPERSEDED, reason)
        aws.releases.withdraw(release.digest, f"release {release.digest} was {reason}")
        executions.stop(aws.stepfunctions, release.execution, reason)


def _end_all(aws: Services) -> bool:
    """Stop every execution and empty the route; True once both are done. Call again until then."""
    aws.releases.declare(None)
    closed = True
    for release in list(aws.releases.all()):
        aws.releases.transition(release.digest, SUPERSEDED, "the stack is being deleted")
        closed &= executions.stop(aws.stepfunctions, release.execution, "the stack is being deleted")
    route = aws.releases.route()
    try:
        # One that somebody broke stands for the last that could be read, and keeps what that named.
        if route.shares or route.problem:
            aws.releases.set_route((), after=route, reason="the stack is being deleted")
    except RouteChangedError:
        return False  # by a step that still ran; its execution is stopped by now
    return closed


def _sweeper(event: Event, aws: Services) -> Sweeper:
    return Sweeper(
        bedrock=aws.bedrock,
        stepfunctions=aws.stepfunctions,
        releases=aws.releases,
        owner=str(event.properties["Owner"]),
        keep_releases=0,
        retain_models=is_true(event.properties.get("RetainModels", "true")),
        keep_throughput="",
        retain_throughput=is_true(event.properties.get("RetainThroughput", "false")),
        judges=bool(event.properties.get("Judge")),
    )
