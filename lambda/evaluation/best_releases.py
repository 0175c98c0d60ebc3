"""The best releases of the same hold-out set, from the answers that they gave in their own evaluation.

Each release may be worse than the one before by the non-inferiority margin. Compared with the best one as
well, no number of releases may lose more than that together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distilled_router.aws.errors import ReplacedError
from distilled_router.release.table import LIVE as SERVING
from distilled_router.release.table import RETIRED, Release, Releases
from evaluation.attempt import PLAN, Evaluation, kept_answers, questions_of
from evaluation.contenders import CANDIDATE, LIVE, Contender
from evaluation.gate import PAIRED
from evaluation.metrics import METRICS, Question
from evaluation.questions import HOLDOUT
from evaluation.scored import Scored


def best_releases(
    release: Release, scored: Sequence[Scored], releases: Releases, evaluation: Evaluation
) -> tuple[dict[str, Scored], list[str]]:
    """Return the kept answers of the best other release by metric, and a warning for each that is lost.

    The live release has no part in it, since it was asked again.
    """
    candidate = next(one for one in scored if one.contender.name == CANDIDATE)
    live = {one.contender.digest for one in scored if one.contender.name == LIVE}
    known = [one for one in _earlier(release, releases) if one.digest not in live]
    best = {metric: one for metric in PAIRED if (one := _best(metric, known))}
    asked = [question for question, _ in candidate.holdout]
    kept: dict[str, Scored] = {}
    problems = []
    for one in {one.digest: one for one in best.values()}.values() if evaluation.gate.not_worse else ():
        try:
            kept[one.digest] = _kept(one, asked, evaluation)
        except (LookupError, ReplacedError) as error:
            problems.append(
                f"not compared with release {one.digest}, the best so far: its answers are lost ({error})"
            )
    return {metric: kept[one.digest] for metric, one in best.items() if one.digest in kept}, problems


def _earlier(release: Release, releases: Releases) -> Iterator[Release]:
    """Yield the other releases that went live after an evaluation with the same hold-out set."""
    for one in releases.all():
        same = one.holdout_sha256 == release.holdout_sha256 != ""
        is_good = one.state in {SERVING, RETIRED} and not one.rolled_back
        if same and is_good and one.digest != release.digest:
            yield one


def _best(metric: str, known: Sequence[Release]) -> Release | None:
    sign = 1 if METRICS[metric].better == "higher" else -1
    values = [(sign * value, one) for one in known if (value := _score(one, metric)) is not None]
    return max(values, key=lambda pair: (pair[0], pair[1].started_at))[1] if values else None


def _score(release: Release, metric: str) -> float | None:
    try:
        value = json.loads(release.scores or "{}").get(metric)
    except (ValueError, AttributeError):
        return None
    return float(value) if isinstance(value, int | float) else None


def _kept(release: Release, asked: Sequence[Question], evaluation: Evaluation) -> Scored:
    """Return a release's scores on the hold-out set by its kept answers.

    Raises:
        LookupError: Its answers are gone, or it was asked other questions.
        ReplacedError: Somebody replaced its files.
    """
    folder = evaluation.folder(release)
    plan: Mapping[str, Any] | None = folder.read(PLAN)
    if plan is None:
        raise LookupError(f"there is no {folder.uri(PLAN)}")
    then = [(one.id, one.query) for one in questions_of(folder, plan) if one.slice == HOLDOUT]
    if then != [(one.id, one.query) for one in asked]:
        raise LookupError("it was asked other questions")
    answers = {
        answer.id: answer
        for shard in plan["shards"]
        for name, answer in kept_answers(folder, plan, shard)
        if name == CANDIDATE
    }
    contender = Contender(name="best", title=f"release {release.digest}")
    return Scored(contender, answers, asked, evaluation.task, evaluation.resamples)
