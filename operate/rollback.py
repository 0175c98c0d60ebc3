"""Roll back: the route goes to the previous good release, at once or step by step, and stays there.

What is on its way is ended first, or it would raise its share over what was just put back. For each such
release the state comes first, so that a step that still runs finds it, and the sweeper does not take the
release for a failed one; then the route; then the execution is stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from distilled_router.aws import executions
from distilled_router.bedrock import deployments, throughput
from distilled_router.bedrock.naming import release_name
from distilled_router.release.route import Route
from distilled_router.release.table import FAILED, LIVE, RETIRED, SUPERSEDED, Release, RouteChangedError
from operate.deployed import Deployed, duration, endpoint_name
from operate.errors import LocalError
from operate.gradual_rollback import Rise

REASON = "rolled back by hand"
# A step of a roll-out may change the route between a look and the write, a few times at most.
TRIES = 5


@dataclass
class Outcome:
    """What a rollback did. `serving` is None where the base model takes all requests."""

    serving: str | None
    endpoint: str = ""
    replaced: list[str] = field(default_factory=list)
    ended: dict[str, Release] = field(default_factory=dict)
    unstopped: list[str] = field(default_factory=list)


def roll_back(at: Deployed, to: str = "", rise: Rise | None = None) -> Outcome:
    """Give all requests to the previous good release, or to the one named by `to`; by a rise, step by step.

    A roll-out that is under way is taken back, and the requests stay with what serves the others. The aim is
    chosen once: whatever changes meanwhile, a second look never goes one release further back.

    Raises:
        LocalError: There is nothing to go back to, or not to that one, and nothing was changed; or somebody
            changed it meanwhile.
    """
    outcome = _aim(at, to)
    if rise and outcome.serving and outcome.serving != _serving(at):
        rise.to(at, outcome.serving, outcome.endpoint)
    stopping: list[Release] = []
    try:
        for _ in range(TRIES):
            try:
                if _reach(at, outcome, stopping):
                    return outcome
            except RouteChangedError:
                continue
        raise LocalError("The route keeps changing.", advice=_again(at))
    finally:
        if rise and outcome.serving:
            # Nothing is left of a rise that came to its end.
            with contextlib.suppress(RouteChangedError):
                at.releases.withdraw(
                    outcome.serving, f"release {outcome.serving} was taken back: the rollback did not end"
                )
        for digest in outcome.ended:
            # Nothing is left to take back, unless the rollback did not come to its end.
            with contextlib.suppress(RouteChangedError):
                at.releases.withdraw(digest, f"release {digest} was {REASON}")
        outcome.unstopped = [problem for release in stopping if (problem := _stop(at, release))]


def _serving(at: Deployed) -> str | None:
    settled = at.releases.effective_route().live
    return settled.digest if settled else None


def _stop(at: Deployed, release: Release) -> str | None:
    """Why an execution could not be stopped, if so. Its steps find that the release has ended."""
    try:
        executions.stop(at.stepfunctions, release.execution, REASON)
    except (BotoCoreError, ClientError) as error:
        return f"{release.execution}: {error}"
    return None


def _reach(at: Deployed, outcome: Outcome, stopping: list[Release]) -> bool:
    """End what is on its way, and make the aim the only one that serves.

    Raises RouteChangedError where somebody else was faster: look again.
    """
    releases = at.releases
    for release in list(releases.all()):
        if not release.is_final and releases.transition(release.digest, SUPERSEDED, REASON):
            outcome.ended[release.digest] = release
            stopping.append(release)
    read, served = releases.route(), releases.effective_route()
    settled = served.live
    if outcome.serving == (settled.digest if settled else None):
        if read.problem or any(share.expires_at is not None for share in read.shares):
            alone = (replace(settled, share=1.0),) if settled else ()
            whose = f"release {settled.digest} serves all requests" if settled else "the base model serves"
            releases.set_route(alone, after=read, reason=f"{whose}: {REASON}")
        return True
    if outcome.serving is None:
        whose = f"Release {settled.digest}" if settled else "A release"
        raise LocalError(f"{whose} went live meanwhile.", advice=_again(at))
    stopping.extend(_give(at, outcome, outcome.serving, read, served))
    return True


def _give(at: Deployed, outcome: Outcome, aim: str, read: Route, served: Route) -> list[Release]:
    """Give the aim all requests, in the place of those that are returned.

    The execution of one that is live may be on its way to throughput, which nobody wants any more.
    """
    # Looked at again: those that were ended have changed, and so may what the aim serves from.
    known = {release.digest: release for release in at.releases.all()}
    losing = [release for release in known.values() if _loses(release, served, aim)]
    endpoint = _endpoint(at, known[aim])
    if endpoint is None:
        raise LocalError(_cannot_serve(at, aim), advice=_otherwise(at))
    if not at.releases.roll_back(
        aim,
        endpoint,
        after=read,
        reason=f"release {aim} serves all requests: {REASON}",
        retiring=losing,
        **({} if throughput.is_throughput(endpoint) else {"throughput": ""}),
    ):
        raise LocalError(f"Release {aim} is not retired any more.", advice=_again(at))
    outcome.endpoint, outcome.replaced = endpoint, [release.digest for release in losing]
    return losing


def _loses(release: Release, served: Route, aim: str) -> bool:
    """Whether a release loses its place: it serves, or it would if the route had not been emptied by hand."""
    settled = served.live
    return release.digest != aim and (
        release.state == LIVE or (settled is not None and release.digest == settled.digest)
    )


def _aim(at: Deployed, to: str) -> Outcome:
    """Whom to give the requests to. Nothing is written here."""
    known = {entry.release.digest: entry.release for entry in at.known()}
    route = at.releases.effective_route()
    settled = route.live
    serving = settled.digest if settled else None
    rising = any(share.expires_at is not None for share in route.shares)
    if (rising and to in {"", serving}) or (route.problem and to == serving):
        return Outcome(serving, settled.endpoint if settled else "")
    if to:
        return _named(at, known, to, serving)
    _refuse_a_second_step(at, known, serving)
    skipped = []
    for release in _retired(known):
        if release.rolled_back:
            skipped.append(
                f"{release.digest} was itself rolled back; TO={release.digest} takes it all the same"
            )
        elif endpoint := _endpoint(at, release):
            return Outcome(release.digest, endpoint)
        else:
            skipped.append(f"{release.digest} has no endpoint any more")
    raise LocalError(
        f"There is no release to go back to. {_there_is(known, serving)}",
        advice="\n".join([*(f"{line}." for line in skipped), _otherwise(at)]),
    )


def _refuse_a_second_step(at: Deployed, known: Mapping[str, Release], serving: str | None) -> None:
    """What was rolled back to is not left without a name: the command was run twice, or nobody remembers."""
    now = [r for r in known.values() if r.digest == serving or (serving is None and r.state == LIVE)]
    bad = [r for r in known.values() if r.state == RETIRED and r.rolled_back]
    last = max(bad, key=lambda release: release.rolled_back, default=None)
    # A release that went live since then has begun since then.
    if last is None or not any(last.rolled_back >= release.started_at for release in now):
        return
    others = [release.digest for release in _retired(known)]
    raise LocalError(
        f"Release {last.digest} was rolled back already, {duration(at.now() - last.rolled_back)} ago. "
        f"{_there_is(known, serving)}",
        advice=f"To go to another one, name it: TO={' or TO='.join(others)}.",
    )


def _named(at: Deployed, known: Mapping[str, Release], to: str, serving: str | None) -> Outcome:
    release = known.get(to)
    if release is None:
        raise LocalError(f"There is no release {to}. {_there_is(known, serving)}")
    if to == serving:
        raise LocalError(f"Release {to} serves already. {_there_is(known, serving)}")
    if release.state == LIVE:
        raise LocalError(
            f"Release {to} is live, but the route was changed by hand and does not name it.",
            advice='docs/runbook.md, "Switch it on again", says how to put it back.',
        )
    if release.state in {FAILED, SUPERSEDED}:
        raise LocalError(f"Release {to} is {release.state}: {release.message}. {_there_is(known, serving)}")
    if release.state != RETIRED:
        raise LocalError(f"Release {to} is on its way: {release.state}. {_there_is(known, serving)}")
    endpoint = _endpoint(at, release)
    if endpoint is None:
        raise LocalError(f"{_cannot_serve(at, to)} {_there_is(known, serving)}", advice=_otherwise(at))
    return Outcome(to, endpoint)


def _endpoint(at: Deployed, release: Release) -> str | None:
    """What a release can serve from now, if anything.

    Its own deployment first. Throughput is moved in place from one release's model to the next one's, so that
    the ARN in an old release's item may serve another model today: only what serves this one counts.
    """
    found = deployments.find(at.bedrock, release_name(at.owner, release.digest))
    if found and found["status"] == deployments.ACTIVE and found["modelArn"] == release.model_arn:
        return str(found["customModelDeploymentArn"])
    if not release.throughput or not throughput.is_throughput(release.endpoint):
        return None
    bought = throughput.find(at.bedrock, release.endpoint)
    if bought and throughput.serves(bought, release.throughput, release.model_arn):
        return release.endpoint
    return None


def _retired(known: Mapping[str, Release]) -> Sequence[Release]:
    retired = (release for release in known.values() if release.state == RETIRED)
    return sorted(retired, key=lambda release: release.updated_at, reverse=True)


def _there_is(known: Mapping[str, Release], serving: str | None) -> str:
    now = f"Release {serving} serves now" if serving else "No release serves now"
    found = ", ".join(f"{release.digest} {release.state}" for release in known.values())
    return f"{now}. There is: {found}."


def _cannot_serve(at: Deployed, digest: str) -> str:
    return (
        f"Release {digest} can't serve: its deployment {release_name(at.owner, digest)} is not there, or not "
        "Active, or not of its model."
    )


def _again(at: Deployed) -> str:
    return f"Look with `make releases ENV={at.environment}`, and run it again."


def _otherwise(at: Deployed) -> str:
    return (
        "Or take back what led to the bad release (settings, data, prompts) and deploy; or switch "
        f"distillation off: docs/runbook.md. `make releases ENV={at.environment}` shows all releases."
    )


def show(outcome: Outcome, at: Deployed, console: Console) -> None:
    """Say what was done, what serves now, and what comes next."""
    for line in _said(outcome, at):
        console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _said(outcome: Outcome, at: Deployed) -> list[str]:
    lines = [
        f"Ended release {release.digest}, which was {release.state}. Its execution is stopped, and the "
        "sweeper removes what it made. A job that runs goes on and is paid; release.attempt starts it again."
        for release in outcome.ended.values()
    ]
    if outcome.serving is None:
        lines.append("The base model takes all requests now: no release was settled.")
    else:
        lines.append(f"Release {outcome.serving} takes all requests now, {endpoint_name(outcome.endpoint)}.")
    lines.append("Routers follow within router.route_seconds.")
    for digest in outcome.replaced:
        lines.append(
            f"Release {digest} is retired and marked as rolled back: only TO={digest} goes back to it."
        )
        lines.append(_kept(at))
    lines += [f"Not stopped, do it by hand: {problem}" for problem in outcome.unstopped]
    return [
        *lines,
        "",
        "The declared model stays, nothing is trained again. A deployment of the unchanged stack changes",
        "nothing; a new digest starts a new release. But a change of the release's own settings with the",
        "same digest starts the declared digest again: take back what led to the bad release before that.",
        f"Look: make releases ENV={at.environment}",
    ]


def _kept(at: Deployed) -> str:
    if at.keep_releases:
        return (
            f"The sweeper keeps its deployment: rollout.keep_releases = {at.keep_releases} counts the good "
            "releases besides the live one, those that changed last first."
        )
    return "With rollout.keep_releases = 0 the next sweep removes its deployment."
