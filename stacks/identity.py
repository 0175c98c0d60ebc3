"""Names that carry the digest of all that decides a model, so that the same model is never paid twice."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shared.naming import release_name, throughput_name
from stacks import names
from stacks.settings import PROJECT, Problem, Settings, SettingsError


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
        pattern = names.refused(self.job_name)
        if pattern:
            allowed = f"a name that matches {pattern.pattern}, also with -9 for a ninth attempt"
            raise SettingsError([self._problem("name", self.job_name, allowed)])

    @cached_property
    def dataset_digest(self) -> str:
        """16 hex digits for the data: of files their content, of S3 objects their URI and version."""
        dataset = self.settings.dataset
        if dataset.source == "file":
            return names.digest(self._file_digests(), 16)
        return names.digest(
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
        return names.digest(
            {
                "dataset": self.dataset_digest,
                "task": self.task_digest,
                "teacher": spec.teacher,
                "student": spec.student,
                "method": spec.method,
                "max_response_length": spec.max_response_length,
                "hyperparameters": spec.hyperparameters and spec.hyperparameters.to_api(),
                "nonce": spec.nonce,
                # Only where there is one: without it, models that were paid for keep their digests.
                **({"model_key": True} if self.settings.encryption.model_key else {}),
            },
            12,
        )

    @property
    def job_name(self) -> str:
        """Name of the customization job, used once and never again, of its model and of its deployment."""
        return release_name(self.settings.full_name, self.digest)

    @property
    def throughput_name(self) -> str:
        """Name of the provisioned throughput, which stays when the model behind it changes. Empty where the
        settings have none."""
        bought = self.settings.endpoint.provisioned
        return throughput_name(self.settings.full_name, bought.model_units, bought.term) if bought else ""

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
