"""What is labelled, how, and what is kept of it; and where in the bucket it lies.

The plan is the input of the labelling's executions, so that one that runs keeps its plan while another is
declared. Whatever labels cost lies under `labels/<digest of the labels>/`: other rules for what is kept, or
another student, find the same labels there and pay nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`labels` and `dataset` are digests, of what decides the answers and of what decides the rows; `digest`
    is the model's. The others are the settings of their names."""

    digest: str
    labels: str
    dataset: str
    method: str
    teacher: str
    samples: int
    temperature: float
    max_tokens: int
    tolerance: float
    minimum_agreement: float
    maximum_label_share: float
    holdout_share: float
    validation_share: float
    concurrency: int
    batch_hours: int
    poll_seconds: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The plan in an execution's input; keys that this version doesn't know are left alone."""
        return cls(**{known.name: values[known.name] for known in fields(cls)})

    def trained_share(self, *, is_holdout_given: bool) -> float:
        """Part of the queries that is trained on, of those of which the teacher is sure."""
        return 1 - (0 if is_holdout_given else self.holdout_share) - self.validation_share

    @property
    def folder(self) -> str:
        """All of these labels."""
        return labels_folder(self.labels)

    @property
    def dataset_folder(self) -> str:
        """The curated data set."""
        return dataset_folder(self.labels, self.dataset)


def labels_folder(labels: str) -> str:
    """Where everything of some labels lies."""
    return f"labels/{labels}/"


def dataset_folder(labels: str, dataset: str) -> str:
    """Where a data set that was curated from these labels lies."""
    return f"{labels_folder(labels)}datasets/{dataset}/"


def queries_folder(labels: str) -> str:
    """The raw queries, in shards."""
    return f"{labels_folder(labels)}queries/"


def shard_of(key: str) -> str:
    """A shard's name, from the key of its queries."""
    return key.rsplit("/", 1)[-1].removesuffix(".jsonl")
