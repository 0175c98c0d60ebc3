"""Step TrainHead: train the release's classification head, and choose the threshold of its answers.

The head learns from the labels of the training rows, and is calibrated by the candidate's answers to the
hold-out questions. So no model is called. Training takes passes; their state is kept in the attempt's folder,
so that an interrupted training continues there and ends in the same bytes.

No release fails for want of a head: any fault ends the step with its reason in `head.json`, which the report
shows.
"""

from __future__ import annotations

import hashlib
import math
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from aws_lambda_powertools import Logger
from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.errors import ReplacedError, code, described, is_missing, is_transient
from distilled_router.aws.objects import Folder, Published
from distilled_router.aws.state_machine import StageResult, done, not_in_progress, pause, waiting
from distilled_router.data.conversation import InvalidRow, examples, query_key
from distilled_router.data.files import SAMPLES
from distilled_router.head import artifact
from distilled_router.head.artifact import HeadError
from distilled_router.head.calibration import calibrate
from distilled_router.head.defer import negatives
from distilled_router.head.model import Head
from distilled_router.head.training import Labelled, NoLabelsError, Training
from distilled_router.release.route import HEAD_FILE, HeadFile
from distilled_router.release.table import Release, Releases
from distilled_router.task.parsing import weights_problem
from distilled_router.task.task import Task, TaskError
from evaluation.attempt import PLAN, Evaluation, answers_of, questions_of
from evaluation.contenders import CANDIDATE
from evaluation.head_report import HEAD, Margins, Tested

# Seconds after which an invocation begins no further pass. A pass takes a second or few; reading the rows
# and calibrating take a minute at most, and the function's timeout is 15 minutes.
PASS_SECONDS = 240
# Seconds of training that a crash loses at most.
CHECKPOINT_SECONDS = 30
# Seconds before a call that failed temporarily is repeated for the first time.
RETRY_SECONDS = 30
# After so many seconds the release goes on without a head: the last invocation then ends within an hour.
MOST_SECONDS = 2_700
AGAIN = "The next model is trained with one again; so is a failed release with a higher release.attempt."

logger = Logger(child=True)


class NoHeadError(Exception):
    """There is no head. The text says why, and what to do."""


def train(
    digest: str,
    releases: Releases,
    evaluation: Evaluation,
    margins: Margins,
    waited: float = 0.0,
    pass_seconds: float = PASS_SECONDS,
) -> StageResult:
    """Take the training further, or write the trained head and its report.

    Args:
        digest: of the release.
        releases: the releases table.
        evaluation: clients and settings.
        margins: how much worse the head's answers may make all answers.
        waited: seconds since the step began.
        pass_seconds: after these, no further pass begins.
    """
    step: _Step | None = None
    try:
        release = releases.get(digest)
        if release is None or release.is_over:
            return not_in_progress(digest)
        if release.is_reevaluated:
            return done("the live release keeps its classification head")
        step = _Step(release, releases, evaluation, margins, waited)
        return step.run(pass_seconds)
    except (ClientError, BotoCoreError) as error:
        if is_transient(error) and waited < MOST_SECONDS:
            return waiting(f"AWS call failed temporarily; retrying: {error}", pause(waited, RETRY_SECONDS))
        problem = f"{described(error)}. {AGAIN}"
    except (NoHeadError, ReplacedError) as error:
        problem = str(error)
    except (NoLabelsError, InvalidRow, HeadError, TaskError) as error:
        problem = f"{error}. {AGAIN}"
    except Exception as error:
        problem = _unknown(error)
    return step.give_up(problem) if step else done(_without(problem))


@dataclass(frozen=True)
class _Rows:
    """What the head learns from.

    Attributes:
        uri: where the training rows are.
        sha256: of their file.
        labelled: queries and the teacher's answers.
        negatives: texts that are no query.
    """

    uri: str
    sha256: str
    labelled: Sequence[Labelled]
    negatives: Sequence[str]

    def document(self) -> dict[str, Any]:
        """Return the report's part on the rows."""
        return {
            "training": self.uri,
            "training_sha256": self.sha256,
            "rows": len(self.labelled),
            "sampled": sum(len(row.samples) > 1 for row in self.labelled),
            "negatives": len(self.negatives),
        }


@dataclass(frozen=True)
class _Step:
    """The step for one attempt of a release."""

    release: Release
    releases: Releases
    evaluation: Evaluation
    margins: Margins
    waited: float

    @property
    def _folder(self) -> Folder:
        return self.evaluation.folder(self.release)

    @property
    def _state(self) -> str:
        # An earlier life of the stack may have left a state under the same digest and attempt.
        return f"head/{self.release.life}/state.bin"

    def run(self, pass_seconds: float) -> StageResult:
        """Take the training further; at its end, write the head."""
        digest = self.release.digest
        if kept := self._kept():
            return self._publish(kept)
        if not self.releases.evaluating(digest, "the classification head is being trained"):
            return not_in_progress(digest)
        if self.waited >= MOST_SECONDS:
            raise NoHeadError(
                f"the training did not end within {MOST_SECONDS // 60} minutes, after which a release goes "
                f"on without a head. The log of TrainHead says what was retried. {AGAIN}"
            )
        rows = self._rows()
        training, seconds = self._continued(rows)
        begun = saved = time.monotonic()
        while not training.is_finished:
            training.run_pass()
            now = time.monotonic()
            is_up = now - begun >= pass_seconds
            if training.is_finished or is_up or now - saved >= CHECKPOINT_SECONDS:
                self._keep(training, seconds + now - begun)
                saved = now
            if is_up and not training.is_finished:
                return waiting("the classification head is being trained", 1)
        return self._finish(training, rows, seconds + time.monotonic() - begun)

    def give_up(self, problem: str) -> StageResult:
        """Say in the attempt's folder why there is no head. A head that was trained meanwhile stays."""
        try:
            if not self._kept():
                self._folder.write(HEAD, {"problem": problem})
        except Exception as error:
            logger.warning("head.json not written", error=_unknown(error))
        return done(_without(problem))

    def _kept(self) -> Mapping[str, Any] | None:
        """Return the head.json of this attempt. One of an earlier life of the stack has another seal."""
        try:
            return cast("Mapping[str, Any] | None", self._folder.read(HEAD))
        except ReplacedError:
            return None

    def _rows(self) -> _Rows:
        """Return what the head learns from."""
        evaluation, task = self.evaluation, self.evaluation.task
        if not evaluation.training_key:
            raise NoHeadError(
                "the training rows are unknown, since the release takes an existing job or model: there are "
                "no labels to learn from. A head needs a model that this stack trains from labelled rows."
            )
        source = Published(evaluation.bucket, evaluation.training_key, self.release.training_sha256)
        content = source.read(evaluation.s3)
        samples = _samples(evaluation)
        labelled = [
            Labelled(one.query, _confirmed(samples.get(query_key(one.query), ()), one.weights, task))
            for one in examples((line.decode() for line in content.splitlines()), task)
        ]
        if not labelled:
            raise NoHeadError(
                f"no row of {source} has an answer of the teacher, so there is nothing to learn: the "
                "teacher answers them within Bedrock's job. Let [labelling] label the queries, or give the "
                "rows answers."
            )
        return _Rows(str(source), hashlib.sha256(content).hexdigest(), labelled, negatives())

    def _continued(self, rows: _Rows) -> tuple[Training, float]:
        """Return the training as it was last kept, and for how many seconds it has run."""
        kept, task = self._folder.read_bytes(self._state), self.evaluation.task
        if kept is None:
            return Training.start(rows.labelled, rows.negatives, task), 0.0
        seconds, _, state = kept.partition(b"\n")
        return Training.resume(state, rows.labelled, rows.negatives, task), float(seconds)

    def _keep(self, training: Training, seconds: float) -> None:
        self._folder.write_bytes(self._state, f"{seconds:.1f}\n".encode() + training.state())

    def _finish(self, training: Training, rows: _Rows, seconds: float) -> StageResult:
        """Calibrate the head, and write its file and its report."""
        folder, release, task = self._folder, self.release, self.evaluation.task
        about = {
            "release": release.digest,
            "attempt": release.attempt,
            "training_sha256": rows.sha256,
            "model": release.model_arn,
        }
        trained = training.trained()
        # What is calibrated is what will answer, with its weights rounded to bytes.
        head = Head.read(artifact.write(trained, threshold=None, about=about), task.labels)
        plan = folder.read(PLAN) or {}
        tested = Tested(head, questions_of(folder, plan), answers_of(folder, plan)[CANDIDATE], task)
        found = calibrate(tested.cases(), self.margins.error, self.margins.dominant, len(task.labels))
        content = artifact.write(trained, threshold=found.threshold, about=about)
        if not self._is_current():
            return not_in_progress(release.digest)
        sha256 = folder.write_bytes(HEAD_FILE, content)
        report = {
            "release": release.digest,
            "attempt": release.attempt,
            "key": f"{folder.prefix}{HEAD_FILE}",
            "sha256": sha256,
            "bytes": len(content),
            **rows.document(),
            "categories": len(trained.categories),
            "tau": trained.about.get("tau"),
            "seconds": round(seconds, 1),
            **tested.document(found, self.margins, release.model_arn),
        }
        folder.write(HEAD, report)
        return self._publish(report)

    def _publish(self, report: Mapping[str, Any]) -> StageResult:
        """Note the head on the release's item, unless the attempt has ended."""
        if problem := report.get("problem"):
            return done(_without(str(problem)))
        told = _told(report)
        is_noted = self.releases.give_head(
            self.release.digest,
            told,
            HeadFile(str(report["key"]), str(report["sha256"])),
            of_execution=self.release.execution,
        )
        return done(told) if is_noted else not_in_progress(self.release.digest)

    def _is_current(self) -> bool:
        """Return whether this attempt goes on: a running function continues after a stop of its execution."""
        now = self.releases.get(self.release.digest)
        return now is not None and not now.is_over and now.execution == self.release.execution


def _samples(evaluation: Evaluation) -> dict[str | bytes, tuple[Mapping[str, float], ...]]:
    """Return the teacher's answers to queries that it was asked several times, by the query's key.

    A labelling may have left them beside the training rows. No hash is known of the file, so a query's
    samples count only where they confirm its label.
    """
    folder = evaluation.training_key.rpartition("/")[0]
    try:
        rows = list(Folder(evaluation.s3, evaluation.bucket, f"{folder}/").rows(SAMPLES))
        found = {query_key(str(row["query"])): tuple(row["samples"]) for row in rows}
    except ClientError as error:
        # S3 also denies access to a missing object, unless the caller may list the bucket.
        if is_missing(error) or code(error) == "AccessDenied":
            return {}
        raise
    except (ValueError, LookupError, TypeError):
        return {}
    return {key: samples for key, samples in found.items() if _are_weights(samples, evaluation.task)}


def _confirmed(
    samples: tuple[Mapping[str, float], ...], label: Mapping[str, float], task: Task
) -> tuple[Mapping[str, float], ...]:
    """Return the samples if half of them or more have the label's dominant label, else the label alone."""
    alike = sum(task.is_dominant_right(label, sample) for sample in samples)
    return samples if samples and 2 * alike >= len(samples) else (label,)


def _are_weights(samples: Sequence[Any], task: Task) -> bool:
    return all(
        isinstance(sample, dict)
        and all(type(weight) in (int, float) and math.isfinite(weight) for weight in sample.values())
        and weights_problem(sample, task.labels, tolerance=1e-3) is None
        for sample in samples
    )


def _told(report: Mapping[str, Any]) -> str:
    if report["threshold"] is None:
        return "the classification head is trained; no threshold keeps its margins"
    return f"the classification head is trained, and is sure of {report['coverage']:.0%} of the queries"


def _without(problem: str) -> str:
    return f"there is no classification head: {problem}"


def _unknown(error: Exception) -> str:
    """Return the kind of an unexpected error and its place. Its text may quote a query, so it is left out."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}. {AGAIN}"
