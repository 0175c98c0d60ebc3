"""What the fault run deploys: the whole system in several variants, synthesized once."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import aws_cdk as cdk

from stacks.application import declare
from stacks.identity import Identity
from stacks.settings import PROJECT, Settings, load
from tests.engine import layers
from tests.stacks.assembly import unhashed

HOLDOUT_ROWS = 60
STACKS = ("data", "distillation", "serving", "router")
"""In order of dependency. Operations watches these, and owns nothing that costs."""

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
# A resource that fails right after ours, so that CloudFormation takes it back: variant, stack, our type.
BROKEN: Mapping[str, tuple[str, str, str]] = {
    "broken-job": ("second", "distillation", "Custom::BedrockDistillationJob"),
    "broken-release": ("second", "serving", "Custom::BedrockRelease"),
}
NAMES = (*CHANGES, *BROKEN)
# Waits as short as they can be.
SHORT: Mapping[str, Mapping[str, Any]] = {
    "evaluation": {"slice_queries": 0, "compare_base": False},
    "rollout": {"steps": [0.5, 1.0], "dwell_seconds": 1},
    "release": {"poll_seconds": 1, "wait_hours": 0},
}


@dataclass(frozen=True)
class Variant:
    """One variant's assembly."""

    name: str
    assembly: Path
    owner: str
    digest: str
    throughput: str
    retries: int

    @cached_property
    def templates(self) -> Mapping[str, Mapping[str, Any]]:
        """Stack to template, in order of dependency."""
        return {
            stack: json.loads((self.assembly / f"{self.owner}-{stack}.template.json").read_text())
            for stack in STACKS
        }

    def logical_id(self, stack: str, name: str) -> str:
        """The logical id of a resource, which is its name and the CDK's hash."""
        resources: Mapping[str, Any] = self.templates[stack]["Resources"]
        return next(key for key in resources if unhashed(key) == name)


@dataclass(frozen=True)
class BrokenVariant(Variant):
    """The same with a resource that fails after another one."""

    stack: str
    after: str

    @cached_property
    def templates(self) -> Mapping[str, Mapping[str, Any]]:
        """Stack to template; the broken one asks for a function that nobody has."""
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
    """Make every variant's assembly in a folder inside the project, since a data set's path is inside it."""
    folder.mkdir(parents=True)
    holdout = folder / "holdout.jsonl"
    lines = (PROJECT / "data" / "holdout.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    holdout.write_text("".join(lines[:HOLDOUT_ROWS]), encoding="utf-8")
    rows = {"holdout": holdout.relative_to(PROJECT).as_posix()}
    made = {
        # A hold-out set that is judged in a moment.
        name: variant(name, folder / name, changed(load("local"), {"dataset": rows}, SHORT, changes))
        for name, changes in CHANGES.items()
    }
    for name, (base, stack, after) in BROKEN.items():
        of = made[base]
        made[name] = BrokenVariant(
            name, of.assembly, of.owner, of.digest, of.throughput, of.retries, stack, after
        )
    return made


def changed(settings: Settings, *changes: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Settings with other values, by section."""
    values = settings.model_dump()
    for source in changes:
        for section, fields in source.items():
            values[section] = {**values[section], **fields}
    return Settings.model_validate(values)


def variant(name: str, assembly: Path, settings: Settings) -> Variant:
    """Make one variant's assembly."""
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    app = cdk.App(context=context, outdir=str(assembly), analytics_reporting=False)
    declare(app, settings)
    app.synth()
    layers.empty(assembly)
    identity = Identity.of(settings)
    provisioned = settings.endpoint.kind == "provisioned"
    return Variant(
        name,
        assembly,
        settings.full_name,
        identity.digest,
        identity.throughput_name if provisioned else "",
        settings.release.retry_internal_errors,
    )
