"""The release that a rollback gives all requests to, and why others can't be chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distilled_router.bedrock import deployments, throughput
from distilled_router.bedrock.naming import release_name
from distilled_router.release.table import FAILED, LIVE, RETIRED, SUPERSEDED, Release
from operate.deployed import Deployed, duration
from operate.errors import OperateError


@dataclass(frozen=True)
class Target:
    """A release and the model endpoint that it serves from; None is the base model."""

    digest: str | None
    endpoint: str = ""


def choose(at: Deployed, to: str) -> Target:
    """Choose the release that gets all requests. This writes nothing."""
    known = {entry.release.digest: entry.release for entry in at.known()}
    route = at.releases.effective_route()
    share = route.live
    live = share.digest if share else None
    rollout = any(entry.expires_at is not None for entry in route.shares)
    if (rollout and to in {"", live}) or (route.problem and to == live):
        return Target(live, share.endpoint if share else "")
    if to:
        return _named(at, known, to, live)
    _refuse_a_second_rollback(at, known, live)
    skipped = []
    for release in _retired(known):
        if release.rolled_back:
            skipped.append(
                f"{release.digest} was itself rolled back; TO={release.digest} goes back to it anyway"
            )
        elif endpoint := model_endpoint(at, release):
            return Target(release.digest, endpoint)
        else:
            skipped.append(f"{release.digest} no longer has a model endpoint")
    raise OperateError(
        f"There is no release to go back to. {_all(known, live)}",
        advice="\n".join([*(f"{line}." for line in skipped), other_advice(at)]),
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


def _named(at: Deployed, known: Mapping[str, Release], to: str, live: str | None) -> Target:
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
        raise OperateError(
            f"Release {to} is {release.state}: {release.headline.removesuffix('.')}. {_all(known, live)}"
        )
    if release.state != RETIRED:
        raise OperateError(f"Release {to} is still running: {release.state}. {_all(known, live)}")
    endpoint = model_endpoint(at, release)
    if endpoint is None:
        raise OperateError(f"{cannot_serve(at, to)} {_all(known, live)}", advice=other_advice(at))
    return Target(to, endpoint)


def model_endpoint(at: Deployed, release: Release) -> str | None:
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


def cannot_serve(at: Deployed, digest: str) -> str:
    """Return why a release without a model endpoint can't be chosen."""
    return (
        f"Release {digest} can't serve: its deployment {release_name(at.owner, digest)} doesn't exist, is "
        "not Active, or serves another model."
    )


def retry_advice(at: Deployed) -> str:
    """Return what to do after a concurrent change."""
    return f"Check `make releases ENV={at.environment}`, then run the command again."


def other_advice(at: Deployed) -> str:
    """Return what to do instead of a rollback."""
    return (
        "You can also revert what led to the bad release (settings, data, prompts) and deploy, or switch "
        f"distillation off: docs/runbook.md. `make releases ENV={at.environment}` lists all releases."
    )
