"""The contenders of an evaluation: the candidate, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from distilled_router.release.table import Release, Releases

CANDIDATE, LIVE, BASE, STATIC = "candidate", "live", "base", "static"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Somebody who is compared: a release's endpoint, a model, or the static weights, which need no call.

    `endpoint` is the id or ARN to invoke, `model` that of the model whose price its tokens have. With
    `full_prompt` it gets the teacher's prompt, as the router's fallback does.
    """

    name: str
    title: str
    endpoint: str = ""
    model: str = ""
    full_prompt: bool = False


def contenders(release: Release, releases: Releases, base_model: str) -> list[Contender]:
    """Return the contenders, the candidate first."""
    found = [
        Contender(
            name=CANDIDATE,
            title=f"candidate {release.digest}",
            endpoint=release.endpoint,
            model=release.model_arn,
        )
    ]
    share = releases.effective_route().live
    if share and share.digest != release.digest:
        live = releases.get(share.digest)
        title, model = f"live release {share.digest}", live.model_arn if live else ""
        found.append(Contender(name=LIVE, title=title, endpoint=share.endpoint, model=model))
    if base := base_model:
        found.append(
            Contender(name=BASE, title=f"{base}, full prompt", endpoint=base, model=base, full_prompt=True)
        )
    return [*found, Contender(name=STATIC, title="static weights")]
