"""Recorded versions: what the local system was for each of them, so that tests can upgrade from it.

A clean checkout has neither history nor tags, so a version is a file: templates and assets, and the settings,
data and task that they were synthesized from, since these belong to the user and stay in an upgrade.
"""

from __future__ import annotations

import copy
import json
import shutil
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aws_cdk as cdk

from stacks.application import declare
from stacks.settings import PROJECT, STACKS, Settings
from tests.engine import layers

FOLDER = Path(__file__).parent
ENDING = ".tar.xz"
OWNER = "video-router-local"
Changes = Mapping[str, Mapping[str, Any]]

KINDS: Mapping[str, Changes] = {
    "given": {},
    # Few rows are held out of 440 queries.
    "labelled": {
        "dataset": {"labels": "teacher", "training": None, "holdout": None, "queries": "data/queries.txt"},
        "endpoint": {"kind": "provisioned", "provisioned": {"model_units": 1, "hourly_price_usd": 40.0}},
        "gate": {"minimum_examples": 20, "non_inferiority_margin": 0.4},
    },
}
"""Changes of `environments/local.toml` by kind of system; None removes a setting.

Together they pay for all that a system can: labels, a job, a deployment and throughput.
"""

STATEFUL = {
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Stage",
    "AWS::DynamoDB::Table",
    "AWS::KMS::Key",
    "AWS::Lambda::Alias",
    "AWS::Lambda::Function",
    "AWS::Logs::LogGroup",
    "AWS::S3::Bucket",
    "AWS::SNS::Topic",
    "AWS::StepFunctions::StateMachine",
    "Custom::BedrockDataset",
    "Custom::BedrockDistillationJob",
    "Custom::BedrockLabelling",
    "Custom::BedrockRelease",
}
"""Types of resources that hold data, are paid for, or are known to others by their ids."""

_FILES = ("training", "holdout", "queries")
_INPUTS = ("data/training.jsonl", "data/holdout.jsonl", "data/queries.txt", "task")
# Only the CDK reads them.
_LEFT_OUT = ("manifest.json", "tree.json", "cdk.out", "validation-report.json")
# Any time that fits into a zip file: after 1980.
_TIME = 946_684_800


def names() -> list[str]:
    """Return the names of all recorded versions."""
    return sorted(path.name.removesuffix(ENDING) for path in FOLDER.glob(f"*{ENDING}"))


@dataclass(frozen=True)
class Version:
    """A recorded version, unpacked into a folder inside the project, where settings may name its files."""

    folder: Path

    @classmethod
    def unpack(cls, name: str, folder: Path) -> Version:
        """Unpack the version of this name."""
        with tarfile.open(FOLDER / f"{name}{ENDING}") as archive:
            archive.extractall(folder, filter="data")
        return cls(folder)

    def assembly(self, kind: str) -> Path:
        """Return the folder with templates and assets."""
        return self.folder / kind

    def settings(self, kind: str, *changes: Changes) -> Settings:
        """Return the settings with changes, for this version's data and task."""
        raw = json.loads((self.folder / f"{kind}.json").read_text(encoding="utf-8"))
        inputs = self.folder.relative_to(PROJECT).as_posix()
        files = {key: f"{inputs}/{raw['dataset'][key]}" for key in _FILES if key in raw["dataset"]}
        raw = merged({**raw, "task": f"{inputs}/task"}, {"dataset": files}, *changes)
        return Settings.model_validate({**raw, "environment": "local"})


def merged(raw: Mapping[str, Any], *changes: Changes) -> dict[str, Any]:
    """Return settings with other values by section; None removes a setting."""
    made = copy.deepcopy(dict(raw))
    for section, values in (item for each in changes for item in each.items()):
        kept = {**made.get(section, {}), **values}
        made[section] = {key: value for key, value in kept.items() if value is not None}
    return made


def synthesize(settings: Settings, folder: Path) -> Path:
    """Synthesize the stacks into a folder, with empty layers; return it."""
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    app = cdk.App(context=context, outdir=str(folder), analytics_reporting=False)
    declare(app, settings)
    app.synth()
    layers.empty(folder)
    return folder


def templates(assembly: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return an assembly's templates by stack, such as `release`."""
    return {
        stack: json.loads((assembly / f"{OWNER}-{stack}.template.json").read_text(encoding="utf-8"))
        for stack in STACKS
    }


def record(name: str) -> Path:
    """Write this checkout's version into a file, and return it. The same content makes the same file.

    Compiled modules and the layers' packages are left out: the emulator's functions have these of their own.
    """
    path = FOLDER / f"{name}{ENDING}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = tomllib.loads((PROJECT / "environments" / "local.toml").read_text(encoding="utf-8"))
        for kind, changes in KINDS.items():
            given = merged(raw, changes)
            (folder / f"{kind}.json").write_text(json.dumps(given, indent=1), encoding="utf-8")
            synthesize(Settings.model_validate({**given, "environment": "local"}), folder / kind)
        for file in _INPUTS:
            source, target = PROJECT / file, folder / file
            target.parent.mkdir(exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        with tarfile.open(path, "w:xz", preset=9) as archive:
            for found in _wanted(folder):
                archive.add(found, found.relative_to(folder).as_posix(), recursive=False, filter=_anonymous)
    return path


def _wanted(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        is_left_out = path.name in _LEFT_OUT or path.name.endswith(".metadata.json")
        if path.is_file() and not is_left_out and "__pycache__" not in path.parts:
            yield path


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a member without times, owners and rights, which differ between machines."""
    member.mtime, member.uid, member.gid, member.uname, member.gname = _TIME, 0, 0, "", ""
    member.mode = 0o644
    return member
