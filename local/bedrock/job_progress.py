"""The progress of a customization job: validation, data processing, training, and the custom model.

A job's state is computed from the clock whenever it is read. Its work is real: the data is read, the
teacher's rules label unlabelled rows, and a student is trained. No phase ends before its work has ended.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from local.bedrock import rules
from local.bedrock.account import Account, CustomModel, Parameters, Result
from local.bedrock.student import Row, Student, train
from local.bedrock.training_data import DataError, read_objects, read_rows, write_object
from local.bedrock.work import INTERNAL_ERROR, Work


@dataclass
class Phase:
    """One phase of a job, as `statusDetails` shows it."""

    name: str
    queued: float
    duration: float
    status: str = "NotStarted"
    since: float = 0.0
    modified: float = 0.0

    def move(self, status: str, now: float) -> None:
        """Set the status."""
        self.status, self.modified = status, now


class Training:
    """A job's work: read the data, label rows without an answer, train a student."""

    def __init__(self, s3: Any, parameters: Parameters, kind: str) -> None:
        self._s3, self._parameters, self._kind = s3, parameters, kind
        self._rows: list[Row] = []
        self.student: Student | None = None

    def read(self) -> None:
        """Read and check the data, and check that output can be written."""
        data = self._parameters["trainingDataConfig"]
        if "s3Uri" not in data:
            raise DataError("This stand-in doesn't read invocation logs: give trainingDataConfig.s3Uri.")
        write_object(
            self._s3, self._parameters["outputDataConfig"]["s3Uri"], ".write_access_check_file.temp", b""
        )
        self._rows = read_rows(self._s3, data["s3Uri"], self._kind)
        for validator in self._parameters.get("validationDataConfig", {}).get("validators", ()):
            for _ in read_objects(self._s3, validator["s3Uri"]):
                pass

    def train(self) -> None:
        """Train the student."""
        rows, self._rows = self._rows, []
        self.student = _trained(tuple(row if row.answer is not None else _by_teacher(row) for row in rows))


@lru_cache(maxsize=4)
def _trained(rows: tuple[Row, ...]) -> Student:
    """Train a student; cached, because many tests train on the same rows."""
    return train(rows)


def _by_teacher(row: Row) -> Row:
    return Row(row.system, row.prompt, rules.answer(row.system, row.prompt))


@dataclass(kw_only=True)
class Job:
    """One customization job."""

    arn: str
    id: str
    parameters: Parameters
    kind: str
    base: str
    base_arn: str
    created: float
    phases: list[Phase]
    training: Training
    work: Work
    fault: str | None = None
    fault_message: str | None = None
    status: str = "InProgress"
    modified: float = 0.0
    ended: float | None = None
    failure: str | None = None
    model_arn: str | None = None
    training_metrics: Result | None = None
    validation_metrics: list[Result] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.modified = self.created
        self.phases[0].since = self.created
        self.phases[0].move("InProgress", self.created)

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.parameters["jobName"])

    @property
    def running(self) -> bool:
        """Whether the job may still create its model."""
        return self.status in ("InProgress", "Stopping")

    def details(self) -> Result:
        """Return `statusDetails`."""
        return {
            phase.name: {
                "status": phase.status,
                "creationTime": phase.since if phase.status != "NotStarted" else None,
                "lastModifiedTime": phase.modified or None,
            }
            for phase in self.phases
        }

    def phase(self) -> Phase:
        """Return the current phase."""
        return next((phase for phase in self.phases if phase.status != "Completed"), self.phases[-1])

    def stop(self, now: float) -> None:
        """Set the status Stopping."""
        self.status, self.modified = "Stopping", now
        self.phase().move("Stopping", now)

    def end(self, status: str, now: float, failure: str | None = None) -> None:
        """Set a final status."""
        self.status, self.modified, self.ended, self.failure = status, now, now, failure
        self.phase().move(status, now)


def settle(account: Account, job: Job) -> None:
    """Advance a job as far as the clock and its work allow."""
    now = account.clock.now()
    while job.status == "InProgress" and _next_step(account, job, now):
        pass
    if job.status == "Stopping":
        stopped = job.modified + account.clock.scaled(account.settings.durations.stopping)
        if stopped <= now:
            job.end("Stopped", stopped)


def _next_step(account: Account, job: Job, now: float) -> bool:
    """Advance a job by one step; return whether another may follow."""
    phase = job.phase()
    in_training = phase.name == "trainingDetails"
    if phase.status == "NotStarted":
        start = _start(job, phase)
        if start > now or (in_training and job.fault == "job_stalled"):
            return False
        phase.since = job.modified = start
        phase.move("InProgress", start)
    if in_training and job.fault == "job_stopped":
        job.stop(phase.since)
        return False
    if in_training and job.fault == "training_stalled":
        return False
    end = phase.since + phase.duration
    finished = job.work.finished(1 if in_training else 0) if end <= now else None
    if finished is None:
        return False
    end = max(end, finished)
    failure = job.work.failure
    if job.fault == "job_failed":
        failure = job.fault_message or INTERNAL_ERROR
    if failure is not None:
        job.end("Failed", end, failure)
    elif in_training:
        _complete(account, job, end)
    else:
        phase.move("Completed", end)
        job.modified = end
    return job.status == "InProgress"


def _start(job: Job, phase: Phase) -> float:
    before = job.phases[job.phases.index(phase) - 1]
    return before.modified + phase.queued


def _complete(account: Account, job: Job, now: float) -> None:
    student = job.training.student
    if student is None:
        job.end("Failed", now, INTERNAL_ERROR)
        return
    losses = student.losses or [0.0]
    try:
        _write_metrics(account, job, losses)
    except DataError as error:
        job.end("Failed", now, str(error))
        return
    job.model_arn = account.arn(f"custom-model/{job.base}/{account.new_id()}")
    job.training_metrics = {"trainingLoss": losses[-1]}
    validators = job.parameters.get("validationDataConfig", {}).get("validators", ())
    job.validation_metrics = [{"validationLoss": losses[-1]} for _ in validators]
    job.end("Completed", now)
    copied = (
        "hyperParameters",
        "trainingDataConfig",
        "validationDataConfig",
        "outputDataConfig",
        "customizationConfig",
    )
    account.models[job.model_arn] = CustomModel(
        arn=job.model_arn,
        name=job.parameters["customModelName"],
        base=job.base,
        created=now,
        student=student,
        job={
            **{name: job.parameters[name] for name in copied if name in job.parameters},
            "jobArn": job.arn,
            "baseModelArn": job.base_arn,
            "customizationType": job.kind,
            "modelKmsKeyArn": job.parameters.get("customModelKmsKeyId"),
            "trainingMetrics": job.training_metrics,
            "validationMetrics": job.validation_metrics,
        },
    )
    account.tag(job.model_arn, job.parameters.get("customModelTags"))


def _write_metrics(account: Account, job: Job, losses: list[float]) -> None:
    lines = io.StringIO()
    lines.write("step_number,epoch_number,training_loss\n")
    for index, loss in enumerate(losses):
        lines.write(f"{index},{index},{loss:.6f}\n")
    write_object(
        account.s3_as(job.parameters["roleArn"]),
        job.parameters["outputDataConfig"]["s3Uri"],
        f"model-customization-job-{job.id}/training_artifacts/step_wise_training_metrics.csv",
        lines.getvalue().encode(),
    )
