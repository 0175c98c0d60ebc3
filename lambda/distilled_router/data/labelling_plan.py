"""The plan of a labelling, and the folders of the bucket that it uses.

The plan is the input of the labelling's executions, so a running one keeps its plan while another is
declared. All paid labels are under `labels/<owner>/<digest of the labels>/`: other curation settings, or
another student, find the same labels there and pay nothing. Another owner has another folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

QUERY_MARK = "{query}"
"""Where the query is in a logged user's turn, in the setting `dataset.log_query`."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a labelling.

    Attributes:
        owner: whose the labels are.
        digest: of all that decides the model.
        labels: digest of all that decides the teacher's answers.
        dataset: digest of all that decides the rows.
        holdout_key, holdout_sha256: of a supplied hold-out set; empty if there is none.
        shards: number of the shards; 0 in executions of earlier versions.

    The other fields are the settings of the same names.
    """

    owner: str
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
    holdout_key: str = ""
    holdout_sha256: str = ""
    shards: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Read the plan from an execution's input. Keys that this version does not know are ignored."""
        return cls(
            **{
                known.name: values[known.name]
                for known in fields(cls)
                if known.name in values or known.default is MISSING
            }
        )

    @property
    def folder(self) -> str:
        """Return the folder of the labels."""
        return labels_folder(self.owner, self.labels)

    @property
    def dataset_folder(self) -> str:
        """Return the folder of the curated data set."""
        return dataset_folder(self.owner, self.labels, self.dataset)


def labels_folder(owner: str, labels: str) -> str:
    """Return the folder of an owner's labels, by their digest."""
    return f"labels/{owner}/{labels}/"


def dataset_folder(owner: str, labels: str, dataset: str) -> str:
    """Return the folder of a data set that was curated from labels."""
    return f"{labels_folder(owner, labels)}datasets/{dataset}/"


def queries_folder(owner: str, labels: str) -> str:
    """Return the folder of the raw queries, in shards."""
    return f"{labels_folder(owner, labels)}queries/"


def shard_name(number: int) -> str:
    """Return the name of a shard."""
    return f"{number:05d}"


def shard_of(key: str) -> str:
    """Return a shard's name, from the key of its queries."""
    return key.rsplit("/", 1)[-1].removesuffix(".jsonl")
