"""Give all requests to the previous good release, at once or step by step.

A running release is ended first. Nothing is trained again, and the release
that is replaced is marked, so that only --to goes back to it.
"""

# A running release is ended in this order: its state, so that a step that still runs finds it final and the
# sweeper doesn't take it for failed; the route; then its execution.

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws import executions
from distilled_router.bedrock import deployments, throughput
from distilled_router.bedrock.naming import release_name
from distilled_router.release.route import Route
from distilled_router.release.table import FAILED, LIVE, RETIRED, SUPERSEDED, Release, RouteChangedError
from operate import environment
from operate.console import console as terminal
from operate.console import say
from operate.deployed import Deployed, canary_analysis, deployed, duration, endpoint_name
from operate.errors import OperateError
from operate.gradual_rollback import GradualRollback

EXAMPLES = """\
  python -m operate rollback --environment prod
  python -m operate rollback --environment prod --to ce0a60b736ca
  python -m operate rollback --environment prod --gradual
"""
REASON = "rolled back by hand"
# A step of a rollout may change the route between our read and our write, a few times at most.
TRIES = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser, default=environment.LOCAL)
    parser.add_argument(
        "--to", metavar="DIGEST", default="", help="a retired release; by default the previous good one"
    )
    parser.add_argument(
        "--gradual", action="store_true", help="by the steps of the settings, with canary analysis"
    )


def run(options: argparse.Namespace) -> int:
    """Roll back and print what was done."""
    reached = environment.reach(options.environment)
    at, console = deployed(reached), terminal()
    gradual = GradualRollback(canary_analysis(reached), console) if options.gradual else None
    try:
        outcome = roll_back(at, options.to, gradual)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"See which release is live: make releases ENV={at.environment}") from None
    say(console, *summary(outcome, at))
    return 0


@dataclass
class Outcome:
    """The result of a rollback. `live` is None if the base model takes all requests."""

    live: str | None
    endpoint: str = ""
    replaced: list[str] = field(default_factory=list)
    ended: dict[str, Release] = field(default_factory=dict)
    unstopped: list[str] = field(default_factory=list)


def roll_back(at: Deployed, to: str = "", gradual: GradualRollback | None = None) -> Outcome:
    """Give all requests to the previous good release, or to release `to`; step by step if `gradual` is given.

    During a rollout, the candidate's share is taken back instead and the live release keeps its place. The
    target is chosen once: a retry after a concurrent change never goes one release further back.

    Raises:
        OperateError: There is no such release to go back to, and nothing was changed; or someone else changed
            the releases meanwhile.
    """
    outcome = _target(at, to)
    if gradual and outcome.live and outcome.live != _live(at):
        gradual.roll_out(at, outcome.live, outcome.endpoint)
    stopping: list[Release] = []
    try:
        for _ in range(TRIES):
            try:
                if _reach(at, outcome, stopping):
                    return outcome
            except RouteChangedError:
                continue
        raise OperateError("The route keeps changing.", advice=_again(at))
    finally:
        # After a rollback that succeeded, no share is left to take back.
        if gradual and outcome.live:
            with contextlib.suppress(RouteChangedError):
                at.releases.withdraw(
                    outcome.live, f"release {outcome.live} was taken back: the rollback did not finish"
                )
        for digest in outcome.ended:
            with contextlib.suppress(RouteChangedError):
                at.releases.withdraw(digest, f"release {digest} was {REASON}")
        outcome.unstopped = [problem for release in stopping if (problem := _stop(at, release))]


def _live(at: Deployed) -> str | None:
    """Return the digest of the live release."""
    live = at.releases.effective_route().live
    return live.digest if live else None


def _stop(at: Deployed, release: Release) -> str | None:
    """Stop a release's execution; return why that failed, if it did. Its steps find the release ended."""
    try:
        executions.stop(at.stepfunctions, release.execution, REASON)
    except (BotoCoreError, ClientError) as error:
        return f"{release.execution}: {error}"
    return None


def _reach(at: Deployed, outcome: Outcome, stopping: list[Release]) -> bool:
    """End running releases and give the target all requests; return whether that is done.

    Raises:
        RouteChangedError: Someone else was faster. Try again.
    """
    releases = at.releases
    for release in list(releases.all()):
        if not release.is_final and releases.transition(release.digest, SUPERSEDED, REASON):
            outcome.ended[release.digest] = release
            stopping.append(release)
    read, effective = releases.route(), releases.effective_route()
    live = effective.live
    if outcome.live == (live.digest if live else None):
        if read.problem or any(share.expires_at is not None for share in read.shares):
            alone = (replace(live, share=1.0),) if live else ()
            whose = f"release {live.digest} serves all requests" if live else "the base model serves"
            releases.set_route(alone, after=read, reason=f"{whose}: {REASON}")
        return True
    if outcome.live is None:
        whose = f"Release {live.digest}" if live else "A release"
        raise OperateError(f"{whose} went live meanwhile.", advice=_again(at))
    stopping.extend(_replace(at, outcome, outcome.live, read, effective))
    return True


def _replace(at: Deployed, outcome: Outcome, target: str, read: Route, effective: Route) -> list[Release]:
    """Give the target all requests; return the releases that it replaces.

    Their executions have to be stopped: that of a live release may still be buying throughput.
    """
    # Read again: the releases that were ended have changed, and the target's endpoint may have.
    known = {release.digest: release for release in at.releases.all()}
    replaced = [release for release in known.values() if _is_replaced(release, effective, target)]
    endpoint = _endpoint(at, known[target])
    if endpoint is None:
        raise OperateError(_cannot_serve(at, target), advice=_otherwise(at))
    if not at.releases.roll_back(
        target,
        endpoint,
        after=read,
        reason=f"release {target} serves all requests: {REASON}",
        retiring=replaced,
        **({} if throughput.is_throughput(endpoint) else {"throughput": ""}),
    ):
        raise OperateError(f"Release {target} is no longer retired.", advice=_again(at))
    outcome.endpoint, outcome.replaced = endpoint, [release.digest for release in replaced]
    return replaced


def _is_replaced(release: Release, effective: Route, target: str) -> bool:
    """Tell whether the target replaces a release: it is live, even if the route was emptied by hand."""
    live = effective.live
    return release.digest != target and (
        release.state == LIVE or (live is not None and release.digest == live.digest)
    )


def _target(at: Deployed, to: str) -> Outcome:
    """Choose the release that gets all requests. This writes nothing."""
    known = {entry.release.digest: entry.release for entry in at.known()}
    route = at.releases.effective_route()
    share = route.live
    live = share.digest if share else None
    rollout = any(entry.expires_at is not None for entry in route.shares)
    if (rollout and to in {"", live}) or (route.problem and to == live):
        return Outcome(live, share.endpoint if share else "")
    if to:
        return _named(at, known, to, live)
    _refuse_a_second_rollback(at, known, live)
    skipped = []
    for release in _retired(known):
        if release.rolled_back:
            skipped.append(
                f"{release.digest} was itself rolled back; TO={release.digest} goes back to it anyway"
            )
        elif endpoint := _endpoint(at, release):
            return Outcome(release.digest, endpoint)
        else:
            skipped.append(f"{release.digest} no longer has a model endpoint")
    raise OperateError(
        f"There is no release to go back to. {_all(known, live)}",
        advice="\n".join([*(f"{line}." for line in skipped), _otherwise(at)]),
    )


def _refuse_a_second_rollback(at: Deployed, known: Mapping[str, Release], live: str | None) -> None:
    """Refuse to roll back once more without `to`: the command may have been run twice by mistake."""
    now = [r for r in known.values() if r.digest == live or (live is None and r.state == LIVE)]
    bad = [r for r in known.values() if r.state == RETIRED and r.rolled_back]
    last = max(bad, key=lambda release: release.rolled_back, default=None)
    # A release that went live later has also begun later.
    if last is None or not any(last.rolled_back >= release.started_at for release in now):
        return
    others = [release.digest for release in _retired(known)]
    raise OperateError(
        f"Release {last.digest} has already been rolled back, {duration(at.now() - last.rolled_back)} ago. "
        f"{_all(known, live)}",
        advice=f"To go back further, name a release: TO={' or TO='.join(others)}.",
    )


def _named(at: Deployed, known: Mapping[str, Release], to: str, live: str | None) -> Outcome:
    """Return the release `to` as the target, if it can serve."""
    release = known.get(to)
    if release is None:
        raise OperateError(f"There is no release {to}. {_all(known, live)}")
    if to == live:
        raise OperateError(f"Release {to} is already live. {_all(known, live)}")
    if release.state == LIVE:
        raise OperateError(
            f"Release {to} is live, but someone has taken it out of the route by hand.",
            advice='See "Switch it on again" in docs/runbook.md.',
        )
    if release.state in {FAILED, SUPERSEDED}:
        raise OperateError(f"Release {to} is {release.state}: {release.message}. {_all(known, live)}")
    if release.state != RETIRED:
        raise OperateError(f"Release {to} is still running: {release.state}. {_all(known, live)}")
    endpoint = _endpoint(at, release)
    if endpoint is None:
        raise OperateError(f"{_cannot_serve(at, to)} {_all(known, live)}", advice=_otherwise(at))
    return Outcome(to, endpoint)


def _endpoint(at: Deployed, release: Release) -> str | None:
    """Return the model endpoint that a release can serve from now, if there is one.

    That is its on-demand deployment if it exists. Provisioned throughput moves from one release's model to
    the next one's, so it counts only if it serves this release's model.
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


def _all(known: Mapping[str, Release], live: str | None) -> str:
    """Return a sentence about the live release, and one about all."""
    now = f"Release {live} is live" if live else "No release is live"
    found = ", ".join(f"{release.digest} {release.state}" for release in known.values())
    return f"{now}. All releases: {found}."


def _cannot_serve(at: Deployed, digest: str) -> str:
    return (
        f"Release {digest} can't serve: its deployment {release_name(at.owner, digest)} doesn't exist, is "
        "not Active, or serves another model."
    )


def _again(at: Deployed) -> str:
    return f"Check `make releases ENV={at.environment}`, then run the command again."


def _otherwise(at: Deployed) -> str:
    return (
        "You can also revert what led to the bad release (settings, data, prompts) and deploy, or switch "
        f"distillation off: docs/runbook.md. `make releases ENV={at.environment}` lists all releases."
    )


def summary(outcome: Outcome, at: Deployed) -> list[str]:
    """Return what was done, what is live now, and what to do next."""
    lines = [
        f"Release {release.digest} has been ended; it was {release.state}. Its execution is stopped, and the "
        "sweeper removes its resources. A running job continues and is billed. A higher release.attempt "
        "starts the release again."
        for release in outcome.ended.values()
    ]
    if outcome.live is None:
        lines.append("The base model takes all requests now: no release was live.")
    else:
        lines.append(f"Release {outcome.live} takes all requests now, {endpoint_name(outcome.endpoint)}.")
    lines.append("Routers follow within router.route_seconds.")
    for digest in outcome.replaced:
        lines.append(
            f"Release {digest} is retired and marked as rolled back: only TO={digest} goes back to it."
        )
        lines.append(_kept(at))
    lines += [f"Not stopped, please stop it by hand: {problem}" for problem in outcome.unstopped]
    return [
        *lines,
        "",
        "The settings still declare the same model, and nothing is trained again. Deploying the unchanged",
        "stack changes nothing, and a new digest starts a new release. But a change of the release's own",
        "settings starts the declared digest again: first revert what led to the bad release.",
        f"See all releases: make releases ENV={at.environment}",
    ]


def _kept(at: Deployed) -> str:
    """Return whether the sweeper keeps the deployment of a release that was rolled back."""
    if at.keep_releases:
        return (
            f"The sweeper keeps its deployment: rollout.keep_releases = {at.keep_releases} counts the good "
            "releases besides the live one, by their last change."
        )
    return "With rollout.keep_releases = 0 the next sweep removes its deployment."
