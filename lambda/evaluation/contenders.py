"""Contenders of an evaluation: the candidate, the live release, the base model and two constant answers."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from distilled_router.release.table import Release, Releases
from distilled_router.task.task import Task
from evaluation.label_groups import NONE, label_groups

CANDIDATE, LIVE, BASE, STATIC = "candidate", "live", "base", "static"
# The constant weights that are nearest to the hold-out set's references, label by label.
CONSTANT = "constant"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model endpoint, or constant weights.

    Attributes:
        endpoint: id or ARN to invoke.
        model: id or ARN of the model that decides the token price.
        digest: the release's digest; empty if it is none.
        full_prompt: whether it gets the teacher's full prompt, like the router's fallback.
        weights: the answer to every question, without a call; None for a model.
    """

    name: str
    title: str
    endpoint: str = ""
    model: str = ""
    digest: str = ""
    full_prompt: bool = False
    weights: Mapping[str, float] | None = None


def contenders(release: Release, releases: Releases, base_model: str) -> list[Contender]:
    """Return the models to ask, the candidate first."""
    share = releases.effective_route().live
    is_live = share is not None and share.digest == release.digest
    found = [
        Contender(
            name=CANDIDATE,
            title=f"{'live release' if is_live else 'candidate'} {release.digest}",
            endpoint=share.endpoint if share and is_live else release.endpoint,
            model=release.model_arn,
            digest=release.digest,
        )
    ]
    if share and share.digest != release.digest:
        live = releases.get(share.digest)
        title, model = f"live release {share.digest}", live.model_arn if live else ""
        endpoint = share.endpoint
        found.append(Contender(name=LIVE, title=title, endpoint=endpoint, model=model, digest=share.digest))
    if base := base_model:
        found.append(
            Contender(name=BASE, title=f"{base}, full prompt", endpoint=base, model=base, full_prompt=True)
        )
    return found


def models_of(plan: Mapping[str, Any]) -> list[Contender]:
    """Return the models of an evaluation's plan. Plans of earlier versions also name the static weights."""
    return [Contender(**one) for one in plan["contenders"] if one["endpoint"]]


def constants(references: Iterable[Mapping[str, float] | None], task: Task) -> list[Contender]:
    """Return the contenders that give every question the same answer.

    Args:
        references: the right weights of the hold-out questions.
        task: has the static weights.
    """
    static = Contender(name=STATIC, title="static weights", weights=task.static_weights)
    known = [reference for reference in references if reference is not None]
    if not known:
        return [static]
    weights = best_constant(known, label_groups(known, task))
    shown = ", ".join(f"{label} {weight:.2f}" for label, weight in weights.items())
    return [static, Contender(name=CONSTANT, title=f"best constant answer: {shown}", weights=weights)]


def best_constant(references: Sequence[Mapping[str, float]], groups: Sequence[str]) -> dict[str, float]:
    """Return the constant weights that are nearest to the references, where each group counts alike.

    Without their sum, each label's median would be the best. Since it must be 1, the labels take their
    quantiles at one common level: to raise any of them further costs as much as another.
    """
    sizes = Counter(groups)
    counted = sizes.keys() - {NONE}
    parts = [1 / sizes[group] if group in counted else 0.0 for group in groups]
    if len(counted) < 2:
        parts = [1.0] * len(references)
    whole = math.fsum(parts)
    weights: dict[str, float] = {}
    rises: dict[float, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for label in references[0]:
        ordered = sorted(zip((reference[label] for reference in references), parts, strict=True))
        weights[label], level = ordered[0][0], 0.0
        for (value, part), (following, _) in pairwise(ordered):
            level += part / whole
            rises[round(level, 9)][label] += following - value
    missing = 1 - math.fsum(weights.values())
    for _, rise in sorted(rises.items()):
        total = math.fsum(rise.values())
        share = min(missing / total, 1.0) if total else 0.0
        for label, value in rise.items():
            weights[label] += share * value
        missing -= share * total
    return weights
