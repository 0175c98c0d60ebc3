"""Names that carry the digest of all that decides a model, so that the same model is never paid twice."""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stacks.settings import PROJECT, Problem, Settings, SettingsError

# Bedrock's patterns, written to match in linear time: the published one of job names is exponential.
_JOB_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9+.\-]{0,62}")  # botocore: JobName
_MODEL_NAME = re.compile(r"(?!.{64})([0-9a-zA-Z][_-]?)+")  # botocore: CustomModelName, ModelDeploymentName
_THROUGHPUT_NAME = _MODEL_NAME  # botocore: ProvisionedModelName


@dataclass(frozen=True)
class Identity:
    """What a spec is called: one digest for all that decides the model, and the names made from it.

    Args:
        settings: the environment's settings.
        task_digest: digest of the routing task: labels, prompts and output format.
        project: folder to which the paths of the data set are relative.

    Raises:
        SettingsError: a file of the data set is missing, or a name is not one that Bedrock takes.
    """

    settings: Settings
    task_digest: str
    project: Path = PROJECT

    def __post_init__(self) -> None:
        if not self.task_digest:
            raise ValueError("task_digest is empty: expected the digest of the routing task")
        names = (
            (_JOB_NAME, self.job_name),
            (_MODEL_NAME, self.model_name),
            (_THROUGHPUT_NAME, self.throughput_name),
        )
        for pattern, name in names:
            if not pattern.fullmatch(name):
                raise SettingsError([self._problem("name", name, f"a name that matches {pattern.pattern}")])

    @cached_property
    def dataset_digest(self) -> str:
        """16 hex digits for the data: of files their content, of S3 objects their URI and version."""
        dataset = self.settings.dataset
        if dataset.source == "file":
            return _digest(self._file_digests(), 16)
        return _digest(
            {
                "training": [dataset.training, dataset.training_version],
                "holdout": [dataset.holdout, dataset.holdout_version],
            },
            16,
        )

    @cached_property
    def digest(self) -> str:
        """12 hex digits for all that decides the model."""
        spec = self.settings.distillation
        return _digest(
            {
                "dataset": self.dataset_digest,
                "task": self.task_digest,
                "teacher": spec.teacher,
                "student": spec.student,
                "method": spec.method,
                "max_response_length": spec.max_response_length,
                "hyperparameters": spec.hyperparameters and spec.hyperparameters.to_api(),
                "nonce": spec.nonce,
            },
            12,
        )

    @property
    def job_name(self) -> str:
        """Name of the customization job, used once and never again."""
        return f"{self.settings.full_name}-{self.digest}"

    @property
    def model_name(self) -> str:
        """Name of the custom model: the job's."""
        return self.job_name

    @property
    def deployment_name(self) -> str:
        """Name of the on-demand deployment: the job's."""
        return self.job_name

    @property
    def throughput_name(self) -> str:
        """Name of the provisioned throughput, which stays when the model behind it changes."""
        return self.settings.full_name

    def _file_digests(self) -> dict[str, str]:
        dataset, digests, problems = self.settings.dataset, {}, []
        for key, name in (("training", dataset.training), ("holdout", dataset.holdout)):
            try:
                with (self.project / name).open("rb") as file:
                    digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                reason = f"a file under {self.project} ({error.strerror})"
                problems.append(self._problem(f"dataset.{key}", name, reason))
        if problems:
            raise SettingsError(problems)
        return digests

    def _problem(self, key: str, found: str, allowed: str) -> Problem:
        return Problem(f"environments/{self.settings.environment}.toml", key, json.dumps(found), allowed)


def _digest(content: dict[str, Any], length: int) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]
