"""Checks of the releases: which one is live, what it warns of, and its classification head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import is_missing
from distilled_router.bedrock import deployments, throughput
from distilled_router.head import artifact
from distilled_router.release.route import Route, Share
from distilled_router.release.table import FAILED, Release
from distilled_router.task.task import Task
from operate.checkup.finding import Finding, attempted
from operate.deployed import Deployed, Known
from operate.environment import Environment
from operate.errors import OperateError


def releases(at: Environment, found: Deployed) -> Iterator[Finding]:
    """Yield the state of the newest release and of the live one."""
    try:
        known = found.known()
    except OperateError as error:
        yield Finding("ok", "release", str(error), error.advice)
        return
    route = found.releases.effective_route()
    if route.problem:
        text = f"The route item is broken: {route.problem}. Routers keep the last good route."
        yield Finding("problem", "route", text, "See docs/runbook.md, Router errors.")
    for one in known:
        if not one.release.is_over and not one.release.execution:
            text = (
                f"{one.release.digest} is {one.release.state}, and names no execution: its item is damaged."
            )
            yield Finding("problem", "release", text, "See docs/runbook.md, Look for orphans.")
    newest = known[0].release
    if newest.state == FAILED:
        text = f"The newest release, {newest.digest}, failed: {newest.headline}"
        yield Finding("problem", "release", text, "See docs/runbook.md, A release failed.")
    elif newest.rolled_back:
        text = f"The newest release, {newest.digest}, is {newest.state}: {newest.message}."
        yield Finding("warning", "release", text, "Or deploy the settings of the release that is live.")
    live = route.live
    for share in route.shares:
        yield from attempted("endpoint", _endpoint(at, share), local=bool(at.variables))
    of_live = [one for one in known if live and one.release.digest == live.digest]
    if of_live:
        yield from _live(at, of_live[0], route)
    else:
        yield _none_live(at, newest)


def _endpoint(at: Environment, share: Share) -> Iterator[Finding]:
    """Yield whether the model endpoint of a share of the requests answers."""
    bedrock, arn = at.aws.bedrock, share.endpoint
    kind, needed, found = "deployment", deployments.ACTIVE, None
    if throughput.is_throughput(arn):
        kind, needed, found = "throughput", throughput.IN_SERVICE, throughput.find(bedrock, arn)
    else:
        found = deployments.find(bedrock, arn)
    whose = f"The {kind} of {share.digest}, {arn.rpartition('/')[2]},"
    step = "The base model answers instead. See docs/runbook.md, Many fallbacks, not_found."
    if found is None:
        yield Finding("problem", "endpoint", f"{whose} does not exist.", step)
        return
    status, why = str(found["status"]), str(found.get("failureMessage") or "")
    # Throughput that moves to another model serves meanwhile.
    if status not in (needed, throughput.UPDATING):
        text = f"{whose} is {status}, not {needed}{f': {why}' if why else '.'}"
        yield Finding("problem", "endpoint", text, step)
    else:
        yield Finding("ok", "endpoint", f"{whose} is {status}.")


def _none_live(at: Environment, newest: Release) -> Finding:
    if newest.is_over:
        step = "See docs/runbook.md, Switch it on again, and Start a failed release again."
    else:
        step = f"{newest.digest} is {newest.state}: `make watch ENV={at.name}` follows it."
    return Finding("warning", "release", "No release is live: the base model answers.", step)


def _live(at: Environment, one: Known, route: Route) -> Iterator[Finding]:
    """Yield what is to be known of the live release."""
    release = one.release
    if release.has_passed:
        yield Finding("ok", "release", f"{release.digest} is live.")
    else:
        text = f"{release.digest} is live, and has not passed on its hold-out set: {release.headline}"
        step = "See docs/runbook.md, The live release did not pass on another hold-out set."
        yield Finding("warning", "release", text, step)
    if release.warnings:
        step = f"`make report ENV={at.name}` shows the evaluation."
        yield Finding("warning", "release", f"{release.digest}: {release.warnings}", step)
    if at.settings.head.mode != "off":
        yield _head(at, one, route)


def _head(at: Environment, one: Known, route: Route) -> Finding:
    """Return whether the live release's head can answer as the settings say."""
    report, file = f"`make report ENV={at.name}` says why.", one.release.head_file
    if route.head_off:
        step = f"`make head-on ENV={at.name}` switches them on."
        return Finding("warning", "head", "Classification heads are switched off.", step)
    if file is None:
        return Finding("warning", "head", f"{one.release.digest} has no head.", report)
    if at.settings.head.mode != "first":
        return Finding("ok", "head", "It answers if no model does.")
    # Reports and heads are in the same bucket.
    bucket = one.report.removeprefix("s3://").partition("/")[0]
    try:
        threshold = _threshold(at, bucket, file.key)
    except artifact.HeadError as error:
        text = f"s3://{bucket}/{file.key} can't be used: {error}"
        step = "Restore the object's earlier version, if it has one; the next model gets a new head."
        return Finding("warning", "head", text, step)
    if threshold is None:
        text = "It has no threshold, so it answers no query first, although head.mode is first."
        return Finding("warning", "head", text, report)
    return Finding("ok", "head", f"It answers first up to a risk of {threshold:.3g}.")


def _threshold(at: Environment, bucket: str, key: str) -> float | None:
    """Return the largest risk at which a head answers first.

    Raises:
        HeadError: The file is missing, or no usable head.
    """
    s3: Any = at.aws.s3
    try:
        content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if is_missing(error):
            raise artifact.HeadError("it does not exist") from error
        raise
    return artifact.read(content, Task.load(at.settings.task_folder).labels)[1]
