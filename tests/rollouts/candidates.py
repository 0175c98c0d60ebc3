"""Versions of the whole system, each with its own model, deployed one after another."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

from distilled_router.bedrock.naming import release_name
from distilled_router.data.conversation import Example, examples
from distilled_router.release.gate import Gate
from distilled_router.release.rollout import Rollout
from distilled_router.task.task import Task
from stacks.settings import PROJECT, Settings, load
from tests import real_data
from tests.engine.system import SHORT, Variant, changed, variant

# Enough rows for a student that passes the gate, and few enough to be quick.
TRAINING_ROWS, HOLDOUT_ROWS = 800, 60
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    # Only requests count: there are no probes.
    "rollout": {
        **SHORT["rollout"],
        "probes": 0,
        "bake_seconds": 0,
        "keep_releases": 1,
    },
}
# A rollout whose steps end only when a test lets the dwell time pass, so that a step can be observed. The
# state machine waits a fiftieth of it before it looks again.
PATIENT: Mapping[str, Any] = {"dwell_seconds": 120}
# A rollout that never leaves its first step.
STANDING: Mapping[str, Any] = {"dwell_seconds": 600}


@dataclass(frozen=True)
class Candidate:
    """A version whose digest differs by a nonce; `gate` and `rollout` override its release's settings.

    Nonce, gate and rollout change nothing else in the templates, so the templates need no new synthesis.
    """

    variant: Variant
    nonce: str
    gate: Mapping[str, Any]
    rollout: Mapping[str, Any]

    @cached_property
    def digest(self) -> str:
        """Return the digest of its release."""
        return hashlib.sha256(f"{self.variant.digest} {self.nonce}".encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """Return the name of its job, model and deployment."""
        return release_name(self.variant.owner, self.digest)

    @cached_property
    def templates(self) -> Mapping[str, Mapping[str, Any]]:
        """Return templates by stack, in order of dependency."""
        text = json.dumps(self.variant.templates).replace(self.variant.digest, self.digest)
        templates: dict[str, dict[str, Any]] = json.loads(text)
        for resource in templates["release"]["Resources"].values():
            properties = resource.get("Properties", {})
            variables = properties.get("Environment", {}).get("Variables", {})
            for values, names in ((variables, ("GATE", "ROLLOUT")), (properties, ("Gate", "Rollout"))):
                for name, kind, changes in zip(
                    names, (Gate, Rollout), (self.gate, self.rollout), strict=True
                ):
                    if name in values:
                        values[name] = _merged(values[name], kind, changes)
        return templates


def _merged(text: str, kind: type[Gate | Rollout], changes: Mapping[str, Any]) -> str:
    """Return the JSON of a gate or rollout with changes. A limit that is not set is not in it."""
    values, known = copy.deepcopy(json.loads(text)), {field.name for field in fields(kind)}
    for name, value in changes.items():
        assert name in known, f"{name} is none of {', '.join(sorted(known))}"
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    return json.dumps(values, sort_keys=True)


def synthesize(folder: Path) -> tuple[Variant, Variant]:
    """Synthesize the system with good labels and with randomly shuffled labels.

    `folder` must be inside the project, since a data set's path must be inside it.
    """
    folder.mkdir(parents=True)
    task = Task.load()
    rows = list(examples(_lines("training", TRAINING_ROWS), task))
    labels = [example.weights for example in rows]
    Random(1).shuffle(labels)
    shuffled = [Example(example.query, weights) for example, weights in zip(rows, labels, strict=True)]
    for name, found in (("training", rows), ("shuffled", shuffled)):
        real_data.write(folder / f"{name}.jsonl", task, found)
    holdout = folder / "holdout.jsonl"
    holdout.write_text("".join(f"{line}\n" for line in _lines("holdout", HOLDOUT_ROWS)), encoding="utf-8")
    return (
        variant("good", folder / "good", _settings(folder / "training.jsonl", holdout)),
        variant("worse", folder / "worse", _settings(folder / "shuffled.jsonl", holdout)),
    )


def _lines(name: str, rows: int) -> list[str]:
    return (PROJECT / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()[:rows]


def _settings(training: Path, holdout: Path) -> Settings:
    dataset = {
        name: path.relative_to(PROJECT).as_posix()
        for name, path in (("training", training), ("holdout", holdout))
    }
    return changed(load("local"), {"dataset": dataset}, SHORT, SETTINGS)
