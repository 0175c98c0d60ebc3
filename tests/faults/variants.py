"""Variants of the whole system for the fault run, synthesized once."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from stacks.settings import PROJECT, load
from tests.engine.system import SHORT, Variant, changed, variant
from tests.stacks.assembly import unhashed

HOLDOUT_ROWS = 60
CHANGES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "first": {},
    "second": {"distillation": {"nonce": "second"}},
    "throughput": {
        "endpoint": {"kind": "provisioned", "provisioned": {"model_units": 1, "hourly_price_usd": 40.0}}
    },
    "moved-throughput": {
        "distillation": {"nonce": "second"},
        "endpoint": {"kind": "provisioned", "provisioned": {"model_units": 1, "hourly_price_usd": 40.0}},
    },
    "more-units": {
        "distillation": {"nonce": "second"},
        "endpoint": {"kind": "provisioned", "provisioned": {"model_units": 2, "hourly_price_usd": 40.0}},
    },
    "refused": {"distillation": {"nonce": "refused"}, "gate": {"maximum_mean_absolute_error": 0.0}},
    "retrying": {"distillation": {"nonce": "retrying"}, "release": {"retry_internal_errors": 2}},
    "with-head": {"distillation": {"nonce": "with-head"}, "head": {"mode": "first"}},
}
# Resources that fail right after ours, so that CloudFormation rolls back: variant, stack, our type.
BROKEN: Mapping[str, tuple[str, str, str]] = {
    "broken-job": ("second", "distillation", "Custom::BedrockDistillationJob"),
    "broken-release": ("second", "release", "Custom::BedrockRelease"),
}
# Resources with other logical ids, since their construct moved: variant, stack, pattern of their names.
MOVED: Mapping[str, tuple[str, str, str]] = {
    "moved-job": ("first", "distillation", "Job.*"),
    "moved-dataset": ("first", "distillation", "Dataset.*"),
    # The other resources of a release have names that can't exist twice.
    "moved-release": ("throughput", "release", "Release"),
}
NAMES = (*CHANGES, *BROKEN, *MOVED)
_HASH = 8  # digits at the end of a logical id


@dataclass(frozen=True)
class BrokenVariant(Variant):
    """A variant with an additional resource that fails after another one."""

    stack: str
    after: str

    @cached_property
    def templates(self) -> Mapping[str, Mapping[str, Any]]:
        """Return templates by stack; the broken one calls a function that does not exist."""
        made = copy.deepcopy(dict(super().templates))
        resources = made[self.stack]["Resources"]
        before = [key for key, resource in resources.items() if resource["Type"] == self.after]
        token = "arn:aws:lambda:us-east-1:000000000000:function:nobody"
        resources["Broken"] = {
            "Type": "Custom::Broken",
            "Properties": {"ServiceToken": token},
            "DependsOn": before,
        }
        return made


@dataclass(frozen=True)
class MovedVariant(Variant):
    """A variant in which resources have other logical ids."""

    stack: str
    names: str

    @cached_property
    def templates(self) -> Mapping[str, Mapping[str, Any]]:
        """Return templates by stack; the moved resources have another hash in their ids."""
        made = dict(super().templates)
        text = json.dumps(made[self.stack])
        for name in made[self.stack]["Resources"]:
            if re.fullmatch(self.names, unhashed(name)):
                text = text.replace(name, name[:-_HASH] + name[-_HASH:][::-1])
        made[self.stack] = json.loads(text)
        return made


def synthesize(folder: Path) -> dict[str, Variant]:
    """Synthesize every variant in a folder inside the project, since a data set's path must be inside it."""
    folder.mkdir(parents=True)
    holdout = folder / "holdout.jsonl"
    lines = (PROJECT / "data" / "holdout.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    holdout.write_text("".join(lines[:HOLDOUT_ROWS]), encoding="utf-8")
    rows = {"holdout": holdout.relative_to(PROJECT).as_posix()}
    made = {
        # A hold-out set that is evaluated quickly.
        name: variant(name, folder / name, changed(load("local"), {"dataset": rows}, SHORT, changes))
        for name, changes in CHANGES.items()
    }
    for name, (base, stack, after) in BROKEN.items():
        made[name] = BrokenVariant(**_fields(made[base], name), stack=stack, after=after)
    for name, (base, stack, names) in MOVED.items():
        made[name] = MovedVariant(**_fields(made[base], name), stack=stack, names=names)
    return made


def _fields(base: Variant, name: str) -> dict[str, Any]:
    """Return the fields of a variant that derives from another one."""
    return {field.name: getattr(base, field.name) for field in fields(Variant)} | {"name": name}
