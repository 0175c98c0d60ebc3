"""Step ScoreAndGate: score all answers, apply the gate, and write the report."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from distilled_router.aws.state_machine import StageResult, done, failed, not_in_progress
from distilled_router.cost.prices import PriceError, Prices
from distilled_router.release.gate import Gate
from distilled_router.release.table import Release, Releases
from distilled_router.task.task import Task
from evaluation.attempt import PLAN, Evaluation, answers_of, questions_of
from evaluation.contenders import BASE, CANDIDATE, LIVE, Contender
from evaluation.gate import PAIRED, asked, checks
from evaluation.grade_answers import kept_grades
from evaluation.grades import Grades
from evaluation.intervals import RESAMPLES, Estimate, means, quantile
from evaluation.metrics import LATENCIES, METRICS, NEAR, Answer, Question, distances, shown, values
from evaluation.page import page
from evaluation.questions import HOLDOUT
from evaluation.unasked import Unasked

WORST = 20
# Largest numbers of words of the first two length groups; the third has longer queries.
LENGTHS = (3, 7)
# Lower bounds of the latency ranges in milliseconds; the last range is open.
LATENCY_EDGES = (
    0,
    10,
    20,
    30,
    50,
    75,
    100,
    150,
    200,
    300,
    400,
    500,
    600,
    800,
    1_000,
    1_500,
    2_000,
    3_000,
    5_000,
)
QUANTILES = (0.05, 0.25, 0.50, 0.75, 0.95)
AGAIN = "Raise release.attempt to evaluate the candidate again."

type Values = Mapping[str, float | None]


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
    scored = [
        Scored(contender, given[contender.name], asked, evaluation.task, evaluation.resamples)
        for contender in (Contender(**one) for one in plan["contenders"])
    ]
    grades = kept_grades(release, folder, evaluation.judge) if evaluation.judge else None
    found = report_of(scored, evaluation.gate, _identity(release, asked, evaluation), grades)
    folder.write("report.json", found)
    folder.write_page("report.html", page(found))
    result, scores = told(found)
    kept = {"scores": json.dumps(scores, allow_nan=False), "report": folder.uri("report.html")}
    passed = {"passed_on": release.holdout_key, "passed": json.dumps(kept)} if found["passed"] else {}
    releases.update(digest, **kept, **passed)
    message = f"{result['message']}{_silent_fallback(scored)}"
    if release.is_reevaluated and not found["passed"]:
        message += (
            f". Live release {digest} was evaluated on another hold-out set, {found['data']['holdout']}, and "
            "continues to serve. To go back to the release before it: make rollback."
        )
    return {**result, "message": message}


def _identity(release: Release, asked: Sequence[Question], evaluation: Evaluation) -> dict[str, Any]:
    """Return what was evaluated, when, and on what data."""
    return {
        "release": release.digest,
        "attempt": release.attempt,
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
    reasons = "; ".join(report["reasons"])
    if not report["decided"]:
        return f"not evaluated: {reasons}. {AGAIN}"
    return f"refused by the gate: {reasons}{_first_problem(report)}"


def _silent_fallback(scored: Sequence[Scored]) -> str:
    """Return the part of the message that names a base model without any answer; '' if it has one."""
    base = next((one for one in scored if one.contender.name == BASE), None)
    answers = [base.answer(question) for question, _ in base.rows] if base else []
    if base is None or any(answer.weights for answer in answers):
        return ""
    return (
        f". router.base_model {base.contender.endpoint} answered none of {len(answers)} questions, so static "
        f"weights are the only fallback: {answers[0].problem if answers else 'not asked'}"
    )


def _first_problem(report: Mapping[str, Any]) -> str:
    problem = next((one["problem"] for one in report["worst"] if one["problem"]), "")
    return f". First problem: {problem}" if problem else ""


class Scored:
    """One contender's scored answers. `rows` holds each question with its answer's values, in order."""

    def __init__(
        self,
        contender: Contender,
        answers: Mapping[str, Answer],
        questions: Sequence[Question],
        task: Task,
        resamples: int = RESAMPLES,
    ) -> None:
        """Score the answers; a question without one could not be asked."""
        self.contender = contender
        self.resamples = resamples
        self._task = task
        self._answers = answers
        self._cost = _cost(contender)
        self.rows: list[tuple[Question, Values]] = [
            (question, values(question, self.answer(question), task, self._cost)) for question in questions
        ]

    def answer(self, question: Question) -> Answer:
        """Return the answer to a question."""
        return self._answers.get(question.id) or Answer(question.id, None, unavailable="not_asked")

    def was_asked(self, question: Question) -> bool:
        """Return whether the question could be asked."""
        return self.answer(question).was_asked

    def unasked(self, rows: Iterable[tuple[Question, Values]]) -> Unasked:
        """Return what could not be asked of these rows."""
        return Unasked.among(self.answer(question) for question, _ in rows)

    @cached_property
    def holdout(self) -> list[tuple[Question, Values]]:
        """Return the rows of the hold-out set."""
        return [row for row in self.rows if row[0].slice == HOLDOUT]

    @cached_property
    def overall(self) -> dict[str, Estimate]:
        """Return the scores on the hold-out set."""
        return self.scores(self.holdout)

    def means(self, columns: Mapping[str, Sequence[float | None]]) -> dict[str, Estimate]:
        """Return the mean of every column with its interval, by this evaluation's number of resamples."""
        return means(columns, resamples=self.resamples)

    def scores(self, rows: Sequence[tuple[Question, Values]]) -> dict[str, Estimate]:
        """Return the scores of these rows by metric, with latencies."""
        found = self.means({name: [value[name] for _, value in rows] for name in METRICS})
        times = [answer.latency_ms for question, _ in rows if (answer := self.answer(question)).was_given]
        return found | {name: quantile(times, part) for name, part in LATENCIES.items()}

    def document(self) -> dict[str, Any]:
        """Return the contender's part of the report."""
        rows, task = self.holdout, self._task
        by_label, by_length = defaultdict(list), defaultdict(list)
        for row in rows:
            assert row[0].reference is not None
            by_label[task.dominant(dict(row[0].reference))].append(row)
            by_length[_length(row[0].query)].append(row)
        lengths = [name for name in _LENGTH_NAMES if name in by_length]
        return {
            "title": self.contender.title,
            "endpoint": self.contender.endpoint,
            "unasked": self.unasked(self.rows).document(),
            "metrics": plain(self.overall),
            "by_label": {label: self._part(by_label[label]) for label in task.labels if label in by_label},
            "by_length": {name: self._part(by_length[name]) for name in lengths},
            "slices": self._slices(),
            "confusion": self._confusion(rows),
            "label_errors": self._label_errors(rows),
            "latency": self._latency(rows),
        }

    def _part(self, rows: Sequence[tuple[Question, Values]]) -> dict[str, Any]:
        return {"rows": self.unasked(rows).asked, "metrics": plain(self.scores(rows))}

    def _slices(self) -> dict[str, Any]:
        by_slice: dict[str, list[tuple[Question, Values]]] = defaultdict(list)
        for row in self.rows:
            if row[0].slice != HOLDOUT:
                by_slice[row[0].slice].append(row)
        found = {}
        for name, rows in by_slice.items():
            part = self._part(rows)
            same = self.means({"consistency": [self._is_consistent(question) for question, _ in rows]})
            part["metrics"] |= plain(same)
            found[name] = part
        return found

    def _is_consistent(self, question: Question) -> float | None:
        """Return 1 if a variant's weights are within 0.10 of its original's, else 0.

        None for an original, and if one of both could not be asked.
        """
        mine, first = self.answer(question), self._answers.get(question.variant_of)
        if first is None or not (mine.was_asked and first.was_asked):
            return None
        if mine.weights is None or first.weights is None:
            return 0.0
        return float(max(distances(first.weights, mine.weights)) <= 0.10 + NEAR)

    def _confusion(self, rows: Iterable[tuple[Question, Values]]) -> dict[str, dict[str, int]]:
        """Return the confusion matrix: counts of answered labels by the reference's dominant label."""
        found: dict[str, Counter[str]] = {label: Counter() for label in self._task.labels}
        for question, _ in rows:
            if not self.was_asked(question):
                continue
            assert question.reference is not None
            weights, tied = self.answer(question).weights, self._task.dominants(dict(question.reference))
            given = self._task.dominant(dict(weights)) if weights else "invalid"
            # If the answered label is one of the reference's tied labels, it counts as right.
            found[given if given in tied else self._task.dominant(dict(question.reference))][given] += 1
        return {label: dict(counts) for label, counts in found.items()}

    def _label_errors(self, rows: Iterable[tuple[Question, Values]]) -> dict[str, list[float]]:
        """Return quantiles of the signed error, weight minus reference, by label."""
        errors: dict[str, list[float]] = {label: [] for label in self._task.labels}
        for question, _ in rows:
            weights, reference = self.answer(question).weights, question.reference
            if weights is None or reference is None:
                continue
            for label, found in errors.items():
                found.append(weights[label] - reference[label])
        return {
            label: [round(quantile(found, part).value, 4) for part in QUANTILES]
            for label, found in errors.items()
            if found
        }

    def _latency(self, rows: Iterable[tuple[Question, Values]]) -> dict[str, list[int]]:
        counts = [0] * len(LATENCY_EDGES)
        for question, _ in rows:
            answer = self.answer(question)
            if answer.was_given:
                counts[bisect_right(LATENCY_EDGES, answer.latency_ms) - 1] += 1
        return {"edges_ms": list(LATENCY_EDGES), "counts": counts}


def unasked_of_both(candidate: Scored, other: Scored) -> Unasked:
    """Return what could not be asked of one of two contenders on the hold-out set."""
    questions = [question for question, _ in candidate.holdout]
    return Unasked.among(
        other.answer(question) if candidate.was_asked(question) else candidate.answer(question)
        for question in questions
    )


def differences(candidate: Scored, other: Scored) -> dict[str, Estimate]:
    """Return paired differences, candidate minus other, of the PAIRED metrics on the hold-out set.

    Only questions that both could be asked are paired.
    """
    pairs = list(zip(candidate.holdout, other.holdout, strict=True))
    return candidate.means(
        {name: [_less(mine[name], theirs[name]) for (_, mine), (_, theirs) in pairs] for name in PAIRED}
    )


def report_of(
    scored: Sequence[Scored], gate: Gate, identity: Mapping[str, Any], grades: Grades | None = None
) -> dict[str, Any]:
    """Return the report, the decision first.

    Args:
        scored: the contenders.
        gate: the gate's settings.
        identity: what was evaluated, when, and on what data.
        grades: those of a judge, where one is set.
    """
    by_name = {one.contender.name: one for one in scored}
    candidate, live = by_name[CANDIDATE], by_name.get(LIVE)
    rows = candidate.holdout
    compared = differences(candidate, live) if live else {}
    found = asked(gate, candidate.unasked(rows), unasked_of_both(candidate, live) if live else None)
    if all(check.ok for check in found):
        others = checks(gate, candidate.overall, live.overall if live else None, compared, len(rows), grades)
        found += others
    reasons = [check.reason for check in found if not check.ok]
    return {
        "passed": not reasons,
        "decided": not reasons or any(not check.ok and check.is_known for check in found),
        "reasons": reasons,
        **identity,
        "gate": asdict(gate),
        "checks": [_plain_numbers(asdict(check)) for check in found],
        "resamples": candidate.resamples,
        "contenders": {one.contender.name: one.document() for one in scored},
        "comparisons": plain(compared),
        **({"judge": _graded(grades)} if grades else {}),
        "worst": _worst(candidate, rows),
        "metrics": shown(),
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


def plain(scores: Mapping[str, Estimate]) -> dict[str, dict[str, float] | None]:
    """Return scores for JSON, with null for an unknown value."""
    return {name: asdict(found) if found.is_known else None for name, found in scores.items()}


def _worst(candidate: Scored, rows: Iterable[tuple[Question, Values]]) -> list[dict[str, Any]]:
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


def _cost(contender: Contender) -> Callable[[Answer], float | None]:
    """Return a function for an answer's cost in US dollars; it returns None if the price is unknown."""
    try:
        rate = Prices.load().rate(contender.model) if contender.model else None
    except PriceError:
        rate = None

    def cost(answer: Answer) -> float | None:
        return rate.usd(answer.input_tokens, answer.output_tokens) if rate else None

    return cost


def _less(mine: float | None, theirs: float | None) -> float | None:
    return None if mine is None or theirs is None else mine - theirs


_LENGTH_NAMES = (
    f"1 to {LENGTHS[0]} words",
    f"{LENGTHS[0] + 1} to {LENGTHS[1]} words",
    f"more than {LENGTHS[1]} words",
)


def _length(query: str) -> str:
    words = len(query.split())
    return _LENGTH_NAMES[sum(words > most for most in LENGTHS)]


def _plain_numbers(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in document.items()
    }
