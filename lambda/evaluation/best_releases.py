"""Find the best earlier release for each metric, by the answers that it gave in its own evaluation.

Each release may be worse than the one before by the non-inferiority margin. Comparing with the best one as
well keeps many releases together from losing more than that. Answers are matched by query and scored by the
present references, so references may be corrected and a few rows added.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from distilled_router.aws.errors import ReplacedError
from distilled_router.release.gate import MINIMUM_ASKED
from distilled_router.release.table import LIVE as SERVING
from distilled_router.release.table import RETIRED, Release, Releases
from evaluation.attempt import PLAN, Evaluation, kept_answers, questions_of
from evaluation.contenders import CANDIDATE, LIVE, Contender
from evaluation.gate import PAIRED
from evaluation.metrics import METRICS, Question
from evaluation.questions import HOLDOUT
from evaluation.scored import Scored

# Releases whose answers are read, which bounds the time.
MOST_READ = 20


def best_releases(
    release: Release, scored: Sequence[Scored], releases: Releases, evaluation: Evaluation
) -> tuple[dict[str, Scored], list[str]]:
    """Return the best other release by metric, and warnings about those that can't be compared.

    The live release is left out, since it was asked again.
    """
    candidate = next(one for one in scored if one.contender.name == CANDIDATE)
    live = {one.contender.digest for one in scored if one.contender.name == LIVE}
    known = [one for one in _earlier(release, releases) if one.digest not in live]
    if not (evaluation.gate.not_worse and known):
        return {}, []
    # By their own scores, so that the best are read of too many.
    known.sort(key=lambda one: (_score(one), one.started_at), reverse=True)
    asked = [question for question, _ in candidate.holdout]
    best: dict[str, Scored] = {}
    problems, compared = [], 0
    for one in known[:MOST_READ]:
        try:
            kept = _answered(one, asked, evaluation)
        except (LookupError, ReplacedError) as error:
            problems.append(f"not compared with earlier release {one.digest}: its answers are lost ({error})")
            continue
        if kept is not None:
            compared += 1
            best |= {metric: kept for metric in PAIRED if _is_better(kept, best.get(metric), metric)}
    if not compared and not problems:
        problems.append(
            f"not compared with the best of {len(known)} earlier releases: they answered other hold-out sets"
        )
    return best, problems


def _earlier(release: Release, releases: Releases) -> Iterator[Release]:
    """Yield the other releases that went live after an evaluation, and were not rolled back."""
    for one in releases.all():
        is_good = one.state in {SERVING, RETIRED} and not one.rolled_back and one.scores
        if is_good and one.digest != release.digest:
            yield one


def _score(release: Release) -> float:
    try:
        value = json.loads(release.scores).get("dominant_accuracy")
    except (ValueError, AttributeError):
        return 0.0
    return float(value) if isinstance(value, int | float) else 0.0


def _is_better(one: Scored, other: Scored | None, metric: str) -> bool:
    mine = one.overall[metric]
    if other is None or not mine.is_known:
        return mine.is_known
    sign = 1 if METRICS[metric].better == "higher" else -1
    return sign * mine.value > sign * other.overall[metric].value


def _answered(release: Release, asked: Sequence[Question], evaluation: Evaluation) -> Scored | None:
    """Return a release's scores by what it answered in its last attempt, or in the one in which it passed.

    They differ if it was evaluated again on another hold-out set. None if it was asked other questions.
    """
    lost: LookupError | ReplacedError | None = None
    for attempt in dict.fromkeys((release, _as_passed(release))):
        try:
            if kept := _kept(attempt, asked, evaluation):
                return kept
        except (LookupError, ReplacedError) as error:
            lost = error
    if lost is not None:
        raise lost
    return None


def _as_passed(release: Release) -> Release:
    """Return the release with the attempt in which it passed; unchanged if an earlier version noted none."""
    try:
        kept = json.loads(release.passed)
        return replace(release, attempt=int(kept["attempt"]), seal=str(kept["seal"]))
    except (ValueError, LookupError, TypeError):
        return release


def _kept(release: Release, asked: Sequence[Question], evaluation: Evaluation) -> Scored | None:
    """Return a release's scores by its kept answers to these questions; None if it was asked too few of them.

    Raises:
        LookupError: Its answers are gone.
        ReplacedError: Somebody replaced its files.
    """
    folder, least = evaluation.folder(release), math.ceil(MINIMUM_ASKED * len(asked))
    plan: Mapping[str, Any] | None = folder.read(PLAN)
    if plan is None:
        raise LookupError(f"there is no {folder.uri(PLAN)}")
    queries = {one.id: one.query for one in questions_of(folder, plan) if one.slice == HOLDOUT}
    then = set(queries.values())
    if sum(one.query in then for one in asked) < least:
        return None
    given = {
        queries[answer.id]: answer
        for shard in plan["shards"]
        for name, answer in kept_answers(folder, plan, shard)
        if name == CANDIDATE and answer.id in queries
    }
    labels = set(evaluation.task.labels)
    if any(answer.weights and answer.weights.keys() != labels for answer in given.values()):
        return None  # the task had other labels
    answers = {one.id: replace(given[one.query], id=one.id) for one in asked if one.query in given}
    if len(answers) < least:
        raise LookupError(f"{len(answers)} of {len(asked)} are left")
    contender = Contender(name="best", title=f"release {release.digest}")
    return Scored(contender, answers, asked, evaluation.task)
