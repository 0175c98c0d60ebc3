"""Variants of the whole system for the fault run, synthesized once."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stacks.settings import PROJECT, load
from tests.engine.system import SHORT, Variant, changed, variant

HOLDOUT_ROWS = 60
CHANGES: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "first": {},
    "second": {"distillation": {"nonce": "second"}},
    "throughput": {
        "endpoint": {"kind": "provisioned", "provisioned": {"model_units": 1, "hourly_price_usd": 40.0}}
    },
    "more-units": {
        "distillation": {"nonce": "second"},
        "endpoint": {"kind": "provisioned", "provisioned": {"model_units": 2, "hourly_price_usd": 40.0}},
    },
    "refused": {"distillation": {"nonce": "refused"}, "gate": {"maximum_mean_absolute_error": 0.0}},
    "retrying": {"distillation": {"nonce": "retrying"}, "release": {"retry_internal_errors": 2}},
}
# Resources that fail right after ours, so that CloudFormation rolls back: variant, stack, our type.
BROKEN: Mapping[str, tuple[str, str, str]] = {
    "broken-job": ("second", "distillation", "Custom::BedrockDistillationJob"),
    "broken-release": ("second", "release", "Custom::BedrockRelease"),
}
NAMES = (*CHANGES, *BROKEN)


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
        of = made[base]
        made[name] = BrokenVariant(
            name, of.assembly, of.owner, of.digest, of.throughput, of.retries, stack, after
        )
    return made
