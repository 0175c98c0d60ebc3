"""Give all requests to the previous good release, at once or step by step.

A running release is ended first. Nothing is trained again, and the release
that is replaced is marked, so that only --to goes back to it.
"""

# A running release is ended in this order: its state, so that a step that still runs finds it final and the
# sweeper doesn't take it for failed; the route; then its execution.

from __future__ import annotations

import argparse
import contextlib
from dataclasses import dataclass, field, replace

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws import executions
from distilled_router.bedrock import throughput
from distilled_router.release.route import Route
from distilled_router.release.table import BY_HAND, LIVE, SUPERSEDED, Release, RouteChangedError
from operate import environment
from operate.console import console as terminal
from operate.console import say
from operate.deployed import Deployed, canary_analysis, deployed, endpoint_name
from operate.errors import OperateError
from operate.gradual_rollback import GradualRollback
from operate.rollback_target import cannot_serve, choose, model_endpoint, other_advice, retry_advice

EXAMPLES = """\
  python -m operate rollback --environment prod
  python -m operate rollback --environment prod --to ce0a60b736ca
  python -m operate rollback --environment prod --gradual
"""
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

    During a rollout, the candidate's share is withdrawn instead and the live release keeps its place. The
    target is chosen once: a retry after a concurrent change never goes one release further back.

    Raises:
        OperateError: There is no such release to go back to, and nothing was changed; or someone else changed
            the releases meanwhile.
    """
    target = choose(at, to)
    outcome = Outcome(target.digest, target.endpoint)
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
        raise OperateError("The route keeps changing.", advice=retry_advice(at))
    finally:
        # After a rollback that succeeded, no share is left to withdraw.
        if gradual and outcome.live:
            with contextlib.suppress(RouteChangedError):
                at.releases.withdraw(
                    outcome.live, f"release {outcome.live} was withdrawn: the rollback did not finish"
                )
        for digest in outcome.ended:
            with contextlib.suppress(RouteChangedError):
                at.releases.withdraw(digest, f"release {digest} was {BY_HAND}")
        outcome.unstopped = [problem for release in stopping if (problem := _stop(at, release))]


def _live(at: Deployed) -> str | None:
    """Return the digest of the live release."""
    live = at.releases.effective_route().live
    return live.digest if live else None


def _stop(at: Deployed, release: Release) -> str | None:
    """Stop a release's execution; return why that failed, if it did. Its steps find the release ended."""
    try:
        executions.stop(at.stepfunctions, release.execution, BY_HAND)
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
        message = f"{BY_HAND}; {release.next_start}"
        if not release.is_final and releases.transition(
            release.digest, SUPERSEDED, message, rolled_back=int(releases.now())
        ):
            outcome.ended[release.digest] = release
            stopping.append(release)
    read, effective = releases.route(), releases.effective_route()
    live = effective.live
    if outcome.live == (live.digest if live else None):
        if read.problem or any(share.expires_at is not None for share in read.shares):
            alone = (replace(live, share=1.0),) if live else ()
            whose = f"release {live.digest} serves all requests" if live else "the base model serves"
            releases.set_route(alone, after=read, reason=f"{whose}: {BY_HAND}")
        return True
    if outcome.live is None:
        whose = f"Release {live.digest}" if live else "A release"
        raise OperateError(f"{whose} went live meanwhile.", advice=retry_advice(at))
    stopping.extend(_replace(at, outcome, outcome.live, read, effective))
    return True


def _replace(at: Deployed, outcome: Outcome, target: str, read: Route, effective: Route) -> list[Release]:
    """Give the target all requests; return the releases that it replaces.

    Their executions have to be stopped: that of a live release may still be buying throughput.
    """
    # Read again: the releases that were ended have changed, and the target's endpoint may have.
    known = {release.digest: release for release in at.releases.all()}
    replaced = [release for release in known.values() if _is_replaced(release, effective, target)]
    endpoint = model_endpoint(at, known[target])
    if endpoint is None:
        raise OperateError(cannot_serve(at, target), advice=other_advice(at))
    if not at.releases.roll_back(
        target,
        endpoint,
        after=read,
        reason=f"release {target} serves all requests: {BY_HAND}",
        retiring=replaced,
        **({} if throughput.is_throughput(endpoint) else {"throughput": ""}),
    ):
        raise OperateError(f"Release {target} is no longer retired.", advice=retry_advice(at))
    outcome.endpoint, outcome.replaced = endpoint, [release.digest for release in replaced]
    return replaced


def _is_replaced(release: Release, effective: Route, target: str) -> bool:
    """Tell whether the target replaces a release: it is live, even if the route was emptied by hand."""
    live = effective.live
    return release.digest != target and (
        release.state == LIVE or (live is not None and release.digest == live.digest)
    )


def summary(outcome: Outcome, at: Deployed) -> list[str]:
    """Return what was done, what is live now, and what to do next."""
    lines = [
        f"Release {release.digest} has been ended; it was {release.state}. Its execution is stopped, and the "
        "sweeper removes its resources. A running job continues and is billed. To start the release again, "
        f"raise release.attempt above {release.declared_attempt}."
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
    lines += [f"Still running, stop it by hand: {problem}" for problem in outcome.unstopped]
    return [
        *lines,
        "",
        "The settings still declare the same model. No deployment starts its release again, unless "
        "release.attempt is raised; a new digest starts a new release. Revert what led to the bad one.",
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
