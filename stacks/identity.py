"""Compute the digest of everything that decides a model, and the names that end in it.

With the same digest, a deployment reuses the model instead of paying for it again. What a model is evaluated
on has a digest of its own.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

from distilled_router.bedrock import naming
from distilled_router.bedrock.naming import release_name, throughput_name
from distilled_router.data.conversation import InvalidRow, normalised, queries_of
from distilled_router.data.findings import Report
from distilled_router.data.line_rules import lines
from distilled_router.data.query_rules import QueryCheck
from distilled_router.links import inside
from distilled_router.task.task import Task
from stacks.settings import PROJECT, Problem, Settings, SettingsError, is_s3

# Between the URI of an S3 object and its version.
_VERSIONED = "?versionId="


@dataclass(frozen=True)
class Identity:
    """The digests of an environment's model and hold-out set, and the names derived from them.

    Args:
        settings: the environment's settings.
        task_digest: digest of the routing task: labels, prompts and output format.
        project: folder to which the paths of the data set are relative.
        teacher_digest: digest of the part of the task that decides a teacher's answers.

    Raises:
        SettingsError: a file of the data set is missing, or Bedrock doesn't accept the job's name.
    """

    settings: Settings
    task_digest: str
    project: Path = PROJECT
    teacher_digest: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the identity for the task that the settings name.

        Raises:
            TaskError: the task's folder has no valid task.
        """
        task = Task.load(settings.task_folder)
        return cls(settings, task.digest(), teacher_digest=task.teacher_digest())

    def __post_init__(self) -> None:
        if not self.task_digest:
            raise ValueError("task_digest is empty: expected the digest of the routing task")
        pattern = naming.violated_pattern(self.job_name)
        if pattern:
            allowed = f"a name that matches {pattern.pattern}, also with -9 appended for a ninth attempt"
            raise SettingsError([self._problem("name", self.job_name, allowed)])

    @cached_property
    def labels_digest(self) -> str:
        """Return 16 hex digits of everything that decides the teacher's answers to raw queries.

        Student and curation are not part of it: changing them reuses the answers, which cost money.
        """
        labelling, dataset = self.settings.labelling, self.settings.dataset
        if dataset.use_logged_answers:
            # Nobody is asked, so the settings of asking decide nothing.
            teacher = self.settings.distillation.teacher
            return naming.digest({**self._logs(), "teacher": teacher, "task": self.teacher_digest}, 16)
        return naming.digest(
            {
                "queries": self._logs() if dataset.source == "invocation_logs" else self._queries(),
                "teacher": self.settings.distillation.teacher,
                "task": self.teacher_digest,
                "samples": labelling.samples,
                "temperature": labelling.temperature,
                "max_tokens": labelling.max_tokens,
                # Answers are stored by shard: with another shard size, the stored ones can't be found.
                "queries_per_shard": labelling.queries_per_shard,
            },
            16,
        )

    @cached_property
    def dataset_digest(self) -> str:
        """Return 16 hex digits of the training data: the content of files, URI and version of S3 objects."""
        return self._dataset_digest(self._counted)

    @cached_property
    def holdout_digest(self) -> str:
        """Return 16 hex digits of the supplied hold-out set; empty if there is none."""
        return naming.digest({"holdout": self._source("holdout")}, 16) if self._has_holdout else ""

    @cached_property
    def digest(self) -> str:
        """Return 12 hex digits of everything that decides the model."""
        return self._digest(self.dataset_digest)

    @property
    def earlier_job_name(self) -> str:
        """Return the job's name by earlier versions, which counted the hold-out set; empty if equal."""
        if not self._has_holdout:
            return ""
        name = release_name(self.settings.owner, self._digest(self._dataset_digest(self._source("holdout"))))
        return "" if name == self.job_name else name

    @property
    def holdout_setting(self) -> str:
        """Return the value of dataset.holdout_in_digest that keeps the job of that name."""
        source = self._source("holdout")
        return source if isinstance(source, str) else _VERSIONED.join(source)

    @property
    def _has_holdout(self) -> bool:
        return self.settings.dataset.holdout is not None

    @property
    def _counted(self) -> object:
        """Return what counts in the model's digest of a supplied hold-out set; None if nothing does."""
        dataset = self.settings.dataset
        if given := dataset.holdout_in_digest:
            return given.split(_VERSIONED) if is_s3(given) else given
        return self._held_out_queries() if dataset.is_curated and dataset.holdout else None

    def _held_out_queries(self) -> object:
        """Return what identifies the queries to which none for training may be similar."""
        location = str(self.settings.dataset.holdout)
        if is_s3(location):
            return self._source("holdout")  # nobody knows them at synthesis
        self._check_files("holdout")
        lines = inside(self.project, location).read_text("utf-8-sig", "surrogateescape").split("\n")
        try:
            return {"queries": naming.digest({"queries": sorted(set(queries_of(lines)))}, 64)}
        except InvalidRow:
            return self._source("holdout")  # the deployment refuses it with all that is wrong

    def _dataset_digest(self, holdout: object) -> str:
        """Return 16 hex digits of the training data, with what counts of a supplied hold-out set."""
        dataset = self.settings.dataset
        if dataset.is_curated:
            return naming.digest(self._curated(holdout), 16)
        counted = {"holdout": holdout} if holdout else {}
        if dataset.source == "file":
            self._check_files("training", "holdout")
        return naming.digest({"training": self._source("training"), **counted}, 16)

    def _digest(self, dataset_digest: str) -> str:
        spec = self.settings.distillation
        return naming.digest(
            {
                "dataset": dataset_digest,
                "task": self.task_digest,
                "teacher": spec.teacher,
                "student": spec.student,
                "method": spec.method,
                "max_response_length": spec.max_response_length,
                "hyperparameters": spec.hyperparameters and spec.hyperparameters.to_api(),
                "nonce": spec.nonce,
                # Left out if unset, so that existing models keep their digests.
                **({"model_key": True} if self.settings.encryption.model_key else {}),
            },
            12,
        )

    @property
    def job_name(self) -> str:
        """Return the name of the customization job, its model and its deployment."""
        return release_name(self.settings.owner, self.digest)

    @property
    def throughput_name(self) -> str:
        """Return the name of the provisioned throughput, the same for all models; empty if there is none."""
        bought = self.settings.endpoint.provisioned
        return throughput_name(self.settings.owner, bought.model_units, bought.term) if bought else ""

    def _curated(self, holdout: object) -> dict[str, object]:
        """Return everything that decides the rows curated from labels."""
        labelling = self.settings.labelling
        return {
            "labels": self.labels_digest,
            "task": self.task_digest,
            "method": self.settings.distillation.method,
            "tolerance": labelling.tolerance,
            "minimum_agreement": labelling.minimum_agreement,
            "maximum_label_share": labelling.maximum_label_share,
            "validation_share": labelling.validation_share,
            "holdout": holdout or labelling.holdout_share,
        }

    def _queries(self) -> object:
        """Return what identifies the raw queries: those of a file without their counts, or the source."""
        location = str(self.settings.dataset.queries)
        if is_s3(location):
            return self._source("queries")  # nobody knows them at synthesis
        self._check_files("queries")
        check = QueryCheck(Task.load(self.settings.task_folder), Report())
        with inside(self.project, location).open("rb") as file:
            for _ in check.read(location, lines(file)):
                pass
        if not check.has_traffic:
            return self._source("queries")
        return {"queries": naming.digest({"queries": list(map(normalised, check.published()))}, 64)}

    def _logs(self) -> dict[str, object]:
        """Return the settings that select logged requests.

        New logs don't change the digest: the first deployment with it keeps what it reads.
        """
        dataset = self.settings.dataset
        return {
            "logs": dataset.logs,
            "from": dataset.logs_from,
            "until": dataset.logs_until,
            "filters": dataset.log_filters,
            "query": dataset.log_query,
            "answers": dataset.use_logged_answers,
        }

    def _source(self, key: str) -> str | list[str]:
        """Return what identifies a source: the SHA-256 of a file, or an S3 URI and its version."""
        location = str(getattr(self.settings.dataset, key))
        if is_s3(location):
            return [location, getattr(self.settings.dataset, f"{key}_version")]
        self._check_files(key)
        with inside(self.project, location).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _check_files(self, *keys: str) -> None:
        """Raise one SettingsError for all files that can't be read."""
        problems = []
        for key in keys:
            location = str(getattr(self.settings.dataset, key))
            try:
                with inside(self.project, location).open("rb"):
                    pass
            except OSError as error:
                reason = f"a file under {self.project} ({error.strerror})"
                problems.append(self._problem(f"dataset.{key}", location, reason))
        if problems:
            raise SettingsError(problems)

    def _problem(self, key: str, found: str, allowed: str) -> Problem:
        return Problem(self.settings.file, key, json.dumps(found), allowed)
