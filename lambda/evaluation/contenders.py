"""Contenders of an evaluation: the candidate, the live release, the base model and the static weights."""

from __future__ import annotations

from dataclasses import dataclass

from distilled_router.release.table import Release, Releases

CANDIDATE, LIVE, BASE, STATIC = "candidate", "live", "base", "static"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model endpoint, or the static weights, which need no call.

    Attributes:
        endpoint: id or ARN to invoke.
        model: id or ARN of the model that decides the token price.
        full_prompt: whether it gets the teacher's full prompt, like the router's fallback.
    """

    name: str
    title: str
    endpoint: str = ""
    model: str = ""
    full_prompt: bool = False


def contenders(release: Release, releases: Releases, base_model: str) -> list[Contender]:
    """Return the contenders, the candidate first."""
    share = releases.effective_route().live
    is_live = share is not None and share.digest == release.digest
    found = [
        Contender(
            name=CANDIDATE,
            title=f"{'live release' if is_live else 'candidate'} {release.digest}",
            endpoint=share.endpoint if share and is_live else release.endpoint,
            model=release.model_arn,
        )
    ]
    if share and share.digest != release.digest:
        live = releases.get(share.digest)
        title, model = f"live release {share.digest}", live.model_arn if live else ""
        found.append(Contender(name=LIVE, title=title, endpoint=share.endpoint, model=model))
    if base := base_model:
        found.append(
            Contender(name=BASE, title=f"{base}, full prompt", endpoint=base, model=base, full_prompt=True)
        )
    return [*found, Contender(name=STATIC, title="static weights")]
