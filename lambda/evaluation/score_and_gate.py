"""Step ScoreAndGate: score all answers, apply the gate, and write the report."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from statistics import pstdev
from typing import Any

from distilled_router.aws.errors import ReplacedError
from distilled_router.aws.objects import Folder
from distilled_router.aws.state_machine import StageResult, done, failed, not_in_progress
from distilled_router.data.balance import imbalances
from distilled_router.release.gate import Gate
from distilled_router.release.power import DISCORDANT_SHARE, ERROR_DEVIATION, described, effective_rows
from distilled_router.release.table import Release, Releases
from evaluation.attempt import PLAN, Evaluation, Plan, answers_of, questions_of
from evaluation.best_releases import best_releases
from evaluation.contenders import BASE, CANDIDATE, CONSTANT, LIVE, STATIC, constants, models_of
from evaluation.gate import (
    BALANCED_ERROR,
    ERROR,
    PAIRED,
    Comparison,
    Evidence,
    asked,
    checks,
    few_labels,
)
from evaluation.grade_answers import kept_grades
from evaluation.grades import Grades
from evaluation.head_report import HEAD
from evaluation.intervals import BOUNDS, Estimate, mean_of_means, means
from evaluation.label_groups import NONE, by_group
from evaluation.metrics import BALANCED, Answer, Question, distances, shown
from evaluation.page import page
from evaluation.parts import described as described_parts
from evaluation.parts import parts_of, weak
from evaluation.questions import HOLDOUT
from evaluation.scored import SHARES, Row, Scored, families_of, plain
from evaluation.unasked import Unasked

WORST = 20
_TITLES = {STATIC: "static weights", CONSTANT: "best constant answer"}
AGAIN = "Raise release.attempt to evaluate the candidate again."
# Of more findings, a message counts the others.
_MOST_FINDINGS = 8


def score(digest: str, releases: Releases, evaluation: Evaluation) -> StageResult:
    """Score all answers and write the report; return whether the candidate passes."""
    release = releases.get(digest)
    if release is None or not releases.evaluating(digest, "the answers are being scored"):
        return not_in_progress(digest)
    folder = evaluation.folder(release)
    plan = folder.read(PLAN) or {}
    asked = questions_of(folder, plan)
    given = answers_of(folder, plan)
    if left := [question for question in asked if question.id not in given[CANDIDATE]]:
        return failed(
            f"not evaluated: {len(left)} of {len(asked)} questions were not asked, starting with "
            f"{left[0].id}. AskModels was stopped, timed out or had too little memory: see its log. {AGAIN}"
        )
    scored = _scored(plan, asked, given, evaluation)
    grades = kept_grades(release, folder, evaluation.judge) if evaluation.judge else None
    best, lost = best_releases(release, scored, releases, evaluation)
    found = report_of(scored, evaluation.gate, _identity(release, asked, evaluation), grades, best)
    found["warnings"] = list(
        dict.fromkeys([*_warnings(scored, evaluation), *plan.get("warnings", ()), *lost])
    )
    if head := _head(folder, release):
        found["head"] = head
    folder.write("report.json", found)
    folder.write_page("report.html", page(found))
    result, scores = told(found)
    warnings = "; ".join(filter(None, [found["weak"], *found["warnings"]]))
    kept = {
        "scores": json.dumps(scores, allow_nan=False),
        "report": folder.uri("report.html"),
        "warnings": warnings,
    }
    # With the seal, a later evaluation still finds this one's answers when another attempt has followed.
    attempt = {**kept, "attempt": release.attempt, "seal": release.seal}
    passed = {"passed_on": release.holdout_key, "passed": json.dumps(attempt)} if found["passed"] else {}
    releases.update(digest, **kept, **passed)
    message = result["message"]
    if warnings:
        message += f"\nWarning: {warnings}"
    if release.is_reevaluated and not found["passed"]:
        message += (
            f"\nLive release {digest} was evaluated on another hold-out set, {found['data']['holdout']}, and "
            "continues to serve. To go back to the release before it: `make rollback`."
        )
    return {**result, "message": message}


def _head(folder: Folder, release: Release) -> Mapping[str, Any] | None:
    """Return what TrainHead reports, which decides nothing; None if no head was to be trained.

    An earlier life of the stack may have left a report with another seal.
    """
    try:
        found: Mapping[str, Any] | None = folder.read(HEAD)
    except ReplacedError as error:
        return {"problem": str(error)} if release.head else None
    return found


def _scored(
    plan: Plan, asked: Sequence[Question], given: Mapping[str, Mapping[str, Answer]], evaluation: Evaluation
) -> list[Scored]:
    """Return the scores of the models that were asked, and of the constant answers."""
    task = evaluation.task
    found = [Scored(contender, given[contender.name], asked, task) for contender in models_of(plan)]
    references = (question.reference for question in asked if question.slice == HOLDOUT)
    for contender in constants(references, task):
        answers = {question.id: Answer(question.id, contender.weights) for question in asked}
        found.append(Scored(contender, answers, asked, task))
    return found


def _identity(release: Release, asked: Sequence[Question], evaluation: Evaluation) -> dict[str, Any]:
    """Return what was evaluated, when, and on what data."""
    return {
        "router": evaluation.owner.removesuffix(f"-{evaluation.environment}"),
        "environment": evaluation.environment,
        "release": release.digest,
        "attempt": release.attempt,
        "student": evaluation.student,
        "teacher": evaluation.teacher,
        "model": release.model_arn,
        "endpoint": release.endpoint,
        "reevaluated": release.is_reevaluated,
        "evaluated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "holdout": f"s3://{evaluation.bucket}/{evaluation.key_of(release)}",
            "holdout_sha256": release.holdout_sha256,
            "questions": len(asked),
            "slices": dict(Counter(question.slice for question in asked)),
        },
    }


def told(report: Mapping[str, Any]) -> tuple[StageResult, dict[str, float | int | None]]:
    """Return a report's decision as the step's result, and the candidate's scores for the releases table."""
    scores = _summary(report)
    return failed(_refused(report)) if report["reasons"] else done(_passed(scores)), scores


def _summary(report: Mapping[str, Any]) -> dict[str, float | int | None]:
    """Return the candidate's scores for the releases table."""
    metrics = report["contenders"][CANDIDATE]["metrics"]
    values = {name: found["value"] if found else None for name, found in metrics.items()}
    if grades := report.get("judge"):
        values["judge_score"] = grades["score"]["value"] if grades["score"] else None
    return {"examples": report["data"]["slices"].get(HOLDOUT, 0), **values}


def _passed(scores: Mapping[str, Any]) -> str:
    grade = scores.get("judge_score")
    return (
        f"{scores['examples']} queries: valid output {scores['valid_output']:.1%}, dominant label "
        f"{scores['dominant_accuracy']:.1%}, mean absolute error {scores['mean_absolute_error']:.3f}"
        f"{f', judge {grade:.2f} of 5' if grade is not None else ''}"
    )


def _refused(report: Mapping[str, Any]) -> str:
    """Return what was refused and the next step; below it, each finding in a line."""
    reasons, checks = report["reasons"], report["checks"]
    first = (
        f"refused by the gate: {len(reasons)} of {len(checks)} checks failed. Next: read its report "
        '(`make report`), and "Refused by the gate" in docs/runbook.md.'
        if report["decided"]
        else 'not evaluated. Next: remove the cause, then raise release.attempt; see "Not evaluated" in '
        "docs/runbook.md."
    )
    # A text of AWS or of a judge may have line breaks.
    findings = [" ".join(reason.split()) for reason in reasons[:_MOST_FINDINGS]]
    if left := len(reasons) - len(findings):
        findings.append(f"And {left} more, in the report.")
    problem = _first_problem(report) if report["decided"] else []
    return "\n".join([first, *(f"- {finding}" for finding in findings), *problem])


def _warnings(scored: Sequence[Scored], evaluation: Evaluation) -> Iterator[str]:
    """Yield what a reader of the decision should know, whatever it is."""
    by_name, task = {one.contender.name: one for one in scored}, evaluation.task
    candidate = by_name[CANDIDATE]
    yield from _silent_fallback(by_name.get(BASE))
    references = Counter(tuple((question.reference or {}).items()) for question, _ in candidate.holdout)
    groups = [(task.dominants(dict(weights)), count) for weights, count in references.items()]
    yield from (f"holdout: {problem}" for problem in imbalances(groups, task.labels))
    if not candidate.overall[BALANCED].is_known:
        yield f"holdout: {few_labels()}, so the balanced accuracy is unknown"


def _silent_fallback(base: Scored | None) -> Iterator[str]:
    """Yield the warning about a base model without any answer."""
    answers = [base.answer(question) for question, _ in base.rows] if base else []
    if base is None or any(answer.weights for answer in answers):
        return
    yield (
        f"router.base_model {base.contender.endpoint} answered none of {len(answers)} questions, so static "
        f"weights are the only fallback: {answers[0].problem if answers else 'not asked'}"
    )


def _first_problem(report: Mapping[str, Any]) -> list[str]:
    problem = next((one["problem"] for one in report["worst"] if one["problem"]), "")
    return [f"First problem: {' '.join(problem.split())}"] if problem else []


def unasked_of_both(candidate: Scored, other: Scored) -> Unasked:
    """Return what could not be asked of one of two contenders on the hold-out set."""
    questions = [question for question, _ in candidate.holdout]
    return Unasked.among(
        other.answer(question) if candidate.was_asked(question) else candidate.answer(question)
        for question in questions
    )


def differences(candidate: Scored, other: Scored) -> dict[str, Estimate]:
    """Return paired differences, candidate minus other, of the PAIRED metrics on the hold-out set.

    Only questions that both could be asked are paired. The ends of the intervals are one-sided bounds.
    """
    return means(
        {name: _paired(candidate, other, name) for name in PAIRED},
        families_of(candidate.holdout),
        shares=SHARES,
        paired=PAIRED,
        confidence=BOUNDS,
    )


def _paired(candidate: Scored, other: Scored, name: str) -> list[float | None]:
    pairs = zip(candidate.holdout, other.holdout, strict=True)
    return [_less(mine[name], theirs[name]) for (_, mine), (_, theirs) in pairs]


def report_of(
    scored: Sequence[Scored],
    gate: Gate,
    identity: Mapping[str, Any],
    grades: Grades | None = None,
    best: Mapping[str, Scored] | None = None,
) -> dict[str, Any]:
    """Return the report, the decision first.

    Args:
        scored: the contenders.
        gate: the gate's settings.
        identity: what was evaluated, when, and on what data.
        grades: those of a judge, where one is set.
        best: the kept answers of the release that was best in a metric, by metric.
    """
    by_name = {one.contender.name: one for one in scored}
    candidate, live = by_name[CANDIDATE], by_name.get(LIVE)
    rows, parts = candidate.holdout, parts_of(candidate)
    compared = differences(candidate, live) if live else {}
    found = asked(gate, candidate.unasked(rows), unasked_of_both(candidate, live) if live else None)
    if all(check.ok for check in found):
        evidence = Evidence(
            questions=len(rows),
            candidate=candidate.overall,
            live=live.overall if live else None,
            groups=len(set(candidate.groups) - {NONE}),
            parts=parts,
            releases=[
                *([Comparison(against=LIVE, whose="the live release", differences=compared)] if live else []),
                *_beside_best(candidate, best or {}),
            ],
            constants=[_beside(candidate, one) for one in scored if one.contender.weights],
            grades=grades,
        )
        found += checks(gate, evidence)
    reasons = [check.reason for check in found if not check.ok]
    return {
        "passed": not reasons,
        "decided": not reasons or any(not check.ok and check.is_known for check in found),
        "reasons": reasons,
        "weak": described_parts(weak(parts, candidate.overall, gate), candidate.overall),
        **identity,
        "gate": asdict(gate),
        "checks": [_plain_numbers(asdict(check)) for check in found],
        "contenders": {one.contender.name: one.document() for one in scored},
        "comparisons": plain(compared),
        "power": _power(candidate, live, gate),
        **({"judge": _graded(grades)} if grades else {}),
        "worst": _worst(candidate, rows),
        "metrics": shown(),
    }


def _beside(candidate: Scored, other: Scored) -> Comparison:
    """Return the comparison with a constant answer, in which each label counts as much as another."""
    name, values = _TITLES[other.contender.name], _paired(candidate, other, ERROR)
    families, columns = families_of(candidate.holdout), by_group(values, candidate.groups)
    found = mean_of_means(columns, families, are_paired=True, confidence=BOUNDS)
    if columns:
        return Comparison(against=name, whose=f"the {name}", differences={BALANCED_ERROR: found})
    plain_ = means({ERROR: values}, families, paired=[ERROR], confidence=BOUNDS)
    return Comparison(against=name, whose=f"the {name}", differences=plain_)


def _beside_best(candidate: Scored, best: Mapping[str, Scored]) -> Iterator[Comparison]:
    """Yield the comparison with the best release of each metric."""
    for metric, other in best.items():
        title = other.contender.title
        found = differences(candidate, other)[metric]
        yield Comparison(against=title, whose=f"{title}, the best so far", differences={metric: found})


def _power(candidate: Scored, live: Scored | None, gate: Gate) -> dict[str, Any]:
    """Return what the hold-out set can show, by how often and how much both models differ."""
    families = Counter(families_of(candidate.holdout))
    rows, discordance, deviation = effective_rows(families.values()), DISCORDANT_SHARE, ERROR_DEVIATION
    if live:
        found = [value for value in _paired(candidate, live, "dominant_accuracy") if value is not None]
        discordance = max(sum(map(bool, found)), 1) / max(len(found), 1)
        deviation = pstdev([value for value in _paired(candidate, live, ERROR) if value is not None] or [0.0])
    return {
        "rows": len(candidate.holdout),
        "families": len(families),
        "effective_rows": round(rows, 1),
        "discordance": round(discordance, 4),
        "is_measured": live is not None,
        "error_deviation": round(deviation, 4),
        "shown": described(rows, gate.non_inferiority_margin, gate.error_margin, discordance, deviation),
    }


def _graded(grades: Grades) -> dict[str, Any]:
    return {
        "model": grades.judge,
        "job": grades.job,
        "asked": grades.asked,
        "invalid": grades.invalid,
        "graded": len(grades.grades),
        "problem": grades.problem,
        **plain({"score": grades.score}),
    }


def _worst(candidate: Scored, rows: Iterable[Row]) -> list[dict[str, Any]]:
    ranked = []
    for place, (question, _) in enumerate(rows):
        answer = candidate.answer(question)
        if not answer.was_asked:
            continue
        assert question.reference is not None
        error = max(distances(question.reference, answer.weights)) if answer.weights else None
        ranked.append((-(math.inf if error is None else error), place, question, answer, error))
    return [
        {
            "query": question.query,
            "reference": question.reference,
            "weights": answer.weights,
            "problem": answer.problem,
            "error": error,
        }
        for _, _, question, answer, error in sorted(ranked, key=lambda one: one[:2])[:WORST]
    ]


def _less(mine: float | None, theirs: float | None) -> float | None:
    return None if mine is None or theirs is None else mine - theirs


def _plain_numbers(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in document.items()
    }
