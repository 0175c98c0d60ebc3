"""Custom resource Release: start an execution of the release state machine, without waiting for its end.

The physical id is the owner's name and never changes, so that no update makes CloudFormation delete the live
release. Delete does not depend on it, since CloudFormation may have invented one. It ends all releases of
this owner: executions, route, and what the resource claims: throughput, evaluation jobs, deployments and
models. A model that its job's resource claims, too, stays. Where another resource declares the same owner's
releases, since the construct was moved, Delete only passes its claims on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws import executions
from distilled_router.aws.absence import confirmed
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
from distilled_router.aws.errors import NotYetError, ResourceError, code, is_transient, with_retries
from distilled_router.aws.fence import SupersededError
from distilled_router.aws.storage import PURGE_SECONDS, deadline, purge
from distilled_router.bedrock import throughput
from distilled_router.bedrock.ownership import Claimant
from distilled_router.bedrock.throughput import is_throughput
from distilled_router.env import ReleaseEnv
from distilled_router.release.route import releases_folder
from distilled_router.release.sweep import Sweeper
from distilled_router.release.table import LIVE, ROLLING_OUT, SUPERSEDED, Release, Releases, RouteChangedError

logger = Logger()

# How many execution names to try in a row: an earlier stack of the same name may have used some.
MOST_NAMES = 20
ON_DEMAND = "on_demand"


def on_event(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's onEvent."""
    del context
    request = Event.parse(event, ReleaseEnv.read())
    return answer_event(request, lambda each: handle(each, services(_owner(each))))


def is_complete(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Provider framework's isComplete."""
    del context
    request = Event.parse(event, ReleaseEnv.read())
    return answer_poll(request, lambda each: check(each, services(_owner(each))))


def _owner(event: Event) -> str:
    return str(event.properties["Owner"])


@dataclass(frozen=True)
class Services:
    """Clients and the releases table of the resource."""

    bedrock: Any
    stepfunctions: Any
    s3: Any
    releases: Releases


def services(owner: str) -> Services:
    """Return the function's clients, and an owner's releases in the table that the environment names."""
    releases = Releases(table(ReleaseEnv.read().table_name), owner)
    return Services(client("bedrock"), client("stepfunctions"), client("s3"), releases)


def handle(event: Event, aws: Services) -> dict[str, Any]:
    """Start the declared release on Create and Update. isComplete ends all releases on Delete."""
    if event.is_delete:
        return answer(str(event.physical_id))
    _check_owner(event)
    endpoint = str(event.properties.get("Endpoint", ON_DEMAND))
    if str(event.old_properties.get("Endpoint", ON_DEMAND)) not in (endpoint, ON_DEMAND):
        # isComplete could not undo what the new declaration starts.
        with_retries(
            lambda: _check_commitments(event, aws, wanted=endpoint), retryable=is_transient, seconds=30
        )
    digest = str(event.properties["Digest"])
    _declare(event, aws, digest)
    _supersede_others(aws, digest)
    problem = _start(event, aws, digest)
    # isComplete raises the problem. If onEvent raised it after writing the table, the framework would drop
    # the Delete that cleans up.
    owner = _owner(event)
    return answer(owner, {"Digest": digest, "ReleaseName": owner}, StartError=problem)


def check(event: Event, aws: Services) -> dict[str, Any]:
    """Return whether the release was started (Create, Update) or everything is deleted (Delete)."""
    if not event.is_delete:
        problem = event.raw.get("StartError")
        if problem:
            raise ResourceError(shortened(str(problem)))
        for other in _others(event, aws):
            _sweeper(event, aws).take_over(other)
        return complete()
    try:
        left = _delete(event, aws)
    except NotYetError as error:
        left = str(error)
    return pending(left) if left else complete()


def _delete(event: Event, aws: Services) -> str | None:
    """Continue the deletion; return what is left, or None."""
    if others := _others(event, aws):
        # First, so that the other one can end everything even if this Delete fails and is abandoned.
        aws.releases.declarations.remove(Claimant.of(event))
        is_creating = aws.releases.is_creating()
        _sweeper(event, aws).hand_over(others[-1])
        # Whatever a running step creates or claims for this resource, the next poll passes on.
        return "A step is still running, perhaps for this resource." if is_creating else None
    _check_commitments(event, aws, wanted="")
    # A step may still run after its execution was stopped, and create a resource.
    if not _end_all(event, aws) or aws.releases.is_creating():
        return "Executions of releases are being stopped, or a step is still running."
    waiting = _sweeper(event, aws).clear().waiting
    if waiting:
        return f"Bedrock has not deleted or stopped yet: {', '.join(waiting)}."
    if is_true(event.properties.get("RetainReports", "true")):
        return None
    bucket, folder = str(event.properties["Bucket"]), releases_folder(aws.releases.owner)
    is_purged = purge(aws.s3, bucket, folder, until=deadline(PURGE_SECONDS))
    return None if is_purged else f"Reports under {folder} are being deleted."


def _check_owner(event: Event) -> None:
    """Raise ResourceError for another owner: the roles may no longer touch what the old owner has.

    The physical id is the owner to which a rollback returns.
    """
    own = event.physical_id
    if event.request_type == "Update" and own != _owner(event):
        raise ResourceError(
            f"Nothing was changed: the owner of a Release can't change from {own} to {_owner(event)}, since "
            "its roles are limited to one owner's resources. Give the construct another id with the new "
            "owner; the old one is then deleted with all that it created."
        )


def _declare(event: Event, aws: Services, digest: str) -> None:
    """Store the digest as declared, unless CloudFormation has sent a newer request meanwhile."""
    event.check_newest()
    claimant, declarations = Claimant.of(event), aws.releases.declarations
    before = declarations.declare(claimant, digest, event.request_id)
    try:
        event.check_newest()
    except SupersededError:
        declarations.restore(claimant, event.request_id, before)
        raise


def _others(event: Event, aws: Services) -> list[Claimant]:
    """Return the other resources that declare releases of this owner, the newest last."""
    found = (declaration.claimant for declaration in aws.releases.declarations.all())
    return [claimant for claimant in found if claimant != Claimant.of(event)]


def _check_commitments(event: Event, aws: Services, *, wanted: str) -> None:
    """Raise ResourceError if throughput would be left, other than `wanted`, whose commitment has not ended.

    It would be billed and renew itself unseen. With RetainThroughput, it is left on purpose.
    """
    if is_true(event.properties.get("RetainThroughput", "false")):
        return
    price = event.properties.get("HourlyPriceUsd") or event.old_properties.get("HourlyPriceUsd")
    hourly = float(price) if price else None
    left = confirmed(
        lambda: (
            throughput.committed_besides(aws.bedrock, Claimant.of(event), wanted, _now(aws), hourly) or None
        ),
        # A poll of Delete looks again.
        0 if event.is_delete else event.absence_seconds,
    )
    if left:
        raise ResourceError(
            f"Nothing was changed, since the release would leave throughput that is billed. {' '.join(left)} "
            'To leave it on purpose, set retention.throughput = "retain", deploy, and repeat this change; it '
            "then stays until you delete it."
        )


def _now(aws: Services) -> datetime:
    return datetime.fromtimestamp(aws.releases.now(), UTC)


def _start(event: Event, aws: Services, digest: str) -> str | None:
    """Start the next attempt unless one runs or the release is already live; return the problem, or None.

    A release that an operator rolled back is left alone: its settings may still be declared, or
    CloudFormation may roll the stack back to them.
    """
    release = aws.releases.get(digest)
    # `release.attempt` of the settings; one that is lower than before counts for nothing.
    declared = max(int(event.properties.get("Attempt", 1)), release.declared_attempt if release else 1)
    if release and release.rolled_back and declared == release.declared_attempt:
        logger.info("release not started", release=digest, reason=release.message)
        return None
    repeated = release is not None and release.request_id == event.request_id
    endpoint = str(event.properties.get("Endpoint", ON_DEMAND))
    stays_live = bool(release and release.state == LIVE and _stays(aws, release, endpoint, repeated=repeated))
    if release and _is_done(aws, release, _holdout(event), repeated=repeated, stays_live=stays_live):
        if declared > release.declared_attempt:
            aws.releases.update(digest, declared_attempt=declared)
        return None
    # A repeated event continues its attempt, with the same execution.
    first = (release.attempt if release else 0) + (0 if repeated else 1)
    for attempt in range(first, first + MOST_NAMES):
        try:
            if _started(event, aws, digest, attempt, declared, stays_live=stays_live):
                _check_still_wanted(event, aws, digest, attempt)
                return None
        except ClientError as error:
            return f"Release {digest} could not be started: {error}"
        except BotoCoreError as error:
            return f"Release {digest}: Step Functions did not confirm the start: {error}"
    return f"Release {digest} could not be started: execution names up to {digest}-{attempt} are taken."


def _is_done(aws: Services, release: Release, holdout_key: str, *, repeated: bool, stays_live: bool) -> bool:
    """Return whether the release needs no call: it is live and has passed, or its attempt is running.

    An attempt on another hold-out set than the declared one is ended.
    """
    if holdout_key and not release.holdout_key and (stays_live or not release.is_over):
        # Its attempt began before this version noted on what: on the set that was declared then.
        passed_on = holdout_key if stays_live or release.state == ROLLING_OUT else ""
        aws.releases.update(release.digest, holdout_key=holdout_key, passed_on=passed_on)
        release = replace(release, holdout_key=holdout_key, passed_on=passed_on)
    is_same = release.holdout_key == holdout_key
    if stays_live and release.passed_on == holdout_key:
        if not is_same:
            executions.stop(aws.stepfunctions, release.execution, "the hold-out set before is declared again")
            aws.releases.restore(release)
        return True
    if repeated or (release.state == LIVE and not stays_live) or release.is_over:
        return False
    is_running = _is_running(aws, release.execution)
    if is_running and not is_same:
        _end_attempt(aws, release, f"superseded by its evaluation on {holdout_key}")
    return is_running and is_same


def _end_attempt(aws: Services, release: Release, reason: str) -> None:
    """End a running attempt, and give its share back. A release that is evaluated again stays live."""
    if release.is_reevaluated:
        aws.releases.end_again(release.digest, f"not evaluated: {reason}")
    else:
        # First, so that a running step sees it.
        aws.releases.transition(release.digest, SUPERSEDED, reason)
        aws.releases.withdraw(release.digest, f"release {release.digest} was {reason}")
    executions.stop(aws.stepfunctions, release.execution, reason)


def _holdout(event: Event) -> str:
    """Return the key of the declared hold-out set."""
    return str(event.properties.get("HoldoutKey", ""))


def _started(
    event: Event, aws: Services, digest: str, attempt: int, declared: int, *, stays_live: bool
) -> bool:
    """Start one attempt's execution; return False if an earlier stack has used its name.

    A release that stays live is only evaluated again.
    """
    machine, name = str(event.properties["StateMachineArn"]), f"{digest}-{attempt}"
    execution = executions.arn_of(machine, name)
    new: dict[str, Any] = {
        "attempt": attempt,
        "declared_attempt": declared,
        "execution": execution,
        "request_id": event.request_id,
        "holdout_key": _holdout(event),
    }
    if stays_live:
        is_new = aws.releases.begin_again(digest, **new)
    else:
        is_new = aws.releases.begin(digest, source=str(event.properties["Source"]), **new)
    content = {"release": digest, "stack": event.stack_id, "resource": event.logical_id}
    try:
        aws.stepfunctions.start_execution(
            stateMachineArn=machine, name=name, input=json.dumps(content, sort_keys=True)
        )
    except ClientError as error:
        if code(error) != "ExecutionAlreadyExists":
            raise
        # Either an earlier delivery of this event started it. Or the attempt is new, and an execution from
        # before the table was created has its name: Step Functions reserves names for 90 days.
        return not is_new or _is_running(aws, execution)
    logger.info("release started", release=digest, execution=execution)
    return True


def _check_still_wanted(event: Event, aws: Services, digest: str, attempt: int) -> None:
    """Stop the execution and raise SupersededError if CloudFormation has sent a newer request meanwhile."""
    try:
        event.check_newest()
    except SupersededError as error:
        arn = executions.arn_of(str(event.properties["StateMachineArn"]), f"{digest}-{attempt}")
        executions.stop(aws.stepfunctions, arn, str(error))
        raise


def _is_running(aws: Services, execution: str) -> bool:
    return executions.is_open(executions.find(aws.stepfunctions, execution))


def _stays(aws: Services, release: Release, endpoint: str, *, repeated: bool) -> bool:
    """Return whether a live release serves from the configured model endpoint, or is moving there.

    Another endpoint needs another attempt for the same model. An execution that is moving to a different
    endpoint than the configured one is stopped; the sweeper deletes the throughput that it bought.
    """
    serves = _serves(aws, release, endpoint)
    if repeated or not _is_running(aws, release.execution):
        return serves
    if release.throughput == endpoint:
        return True
    if release.throughput or not serves:
        executions.stop(
            aws.stepfunctions, release.execution, f"the endpoint in the settings is now {endpoint}"
        )
        aws.releases.update(release.digest, throughput="")
    return serves


def _serves(aws: Services, release: Release, endpoint: str) -> bool:
    """Return whether the release is live on this endpoint: a throughput's name, or `on_demand`."""
    live = aws.releases.route().live
    if live is None or live.digest != release.digest:
        return False
    name = release.throughput if is_throughput(live.endpoint) else ON_DEMAND
    return name == endpoint


def _supersede_others(aws: Services, digest: str) -> None:
    """End the releases of other digests that are in progress; the live release stays live.

    The state is set first, so that a running step sees it, and so that the sweeper, which the execution's end
    starts, does not treat the release as failed. Superseded releases are included, in case an earlier try
    crashed halfway.
    """
    reason = f"superseded by release {digest}"
    for release in list(aws.releases.all()):
        if release.digest == digest or (release.is_over and release.state != SUPERSEDED):
            continue
        _end_attempt(aws, release, reason)


def _end_all(event: Event, aws: Services) -> bool:
    """Stop all executions and empty the route; return whether both are done. Call again until then.

    Releases in a final state keep it. Their executions are only looked at, since they may not have ended yet.
    """
    aws.releases.declarations.remove(Claimant.of(event))
    closed = True
    for release in list(aws.releases.all()):
        if not release.is_final:
            aws.releases.transition(release.digest, SUPERSEDED, "the stack is being deleted")
        closed &= executions.stop(aws.stepfunctions, release.execution, "the stack is being deleted")
    route = aws.releases.route()
    try:
        # A malformed route is emptied, too: routers would otherwise keep using its last valid version.
        if route.shares or route.problem:
            aws.releases.set_route((), after=route, reason="the stack is being deleted")
    except RouteChangedError:
        return False  # a step that still ran changed it; its execution is now stopped
    return closed


def _sweeper(event: Event, aws: Services) -> Sweeper:
    return Sweeper(
        bedrock=aws.bedrock,
        stepfunctions=aws.stepfunctions,
        releases=aws.releases,
        claimant=Claimant.of(event),
        keep_releases=0,
        retain_models=is_true(event.properties.get("RetainModels", "true")),
        throughput_name="",
        retain_throughput=is_true(event.properties.get("RetainThroughput", "false")),
        now=aws.releases.now,
    )
