"""Settings of any environment, adapted to the local system.

The local system is an account of its own without a VPC, a team's policies or buckets, and its clock is fast.
Settings that need those are replaced; all others stay. Settings of the local account itself, such as those in
`environments/local.toml`, stay as they are.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from operate.environment import LOCAL, LOCAL_ACCOUNT
from operate.errors import OperateError
from stacks import settings
from stacks.settings import PROJECT, locate, shown

# From environments/local.toml: seconds instead of hours, and everything is deleted with the stacks.
_LOCAL = (
    "absence_seconds",
    "rollout.dwell_seconds",
    "rollout.bake_seconds",
    "rollout.probes",
    "release.poll_seconds",
    "release.timeout_hours",
    "release.stall_hours",
    "release.wait_hours",
    "router.route_seconds",
    "retention",
)
# From there as well, if the teacher labels raw queries.
_LABELLING = ("labelling.poll_seconds",)
# And if the sample data is used: the limits that suit it.
_SAMPLE = ("gate",)
# Of the team's account, or bought for months.
_REMOVED = (
    "network",
    "security",
    "encryption.key_arn",
    "endpoint.provisioned.commitment",
    "alarms.emails",
    "budget",
)
DATA_FILES = ("training.jsonl", "holdout.jsonl")
SAMPLE_TASK, SAMPLE_DATA = PROJECT / "task", PROJECT / "data"


@dataclass(frozen=True)
class Replacement:
    """A setting that has another value in the local system; None stands for no value."""

    key: str
    found: Any
    used: Any

    def lines(self) -> Iterator[str]:
        """Yield a line for the terminal, or one for each value of a table that differs."""
        if not isinstance(self.found, Mapping):
            yield f"{self.key}: {_shown(self.found)} -> {_shown(self.used)}"
            return
        used = self.used or {}
        for name in (*self.found, *(each for each in used if each not in self.found)):
            if self.found.get(name) != used.get(name):
                yield from Replacement(f"{self.key}.{name}", self.found.get(name), used.get(name)).lines()


@dataclass(frozen=True)
class Adapted:
    """Settings for the local system, as a text in TOML.

    Attributes:
        source: the environment's own file.
        replaced: what differs from it.
        is_sample: whether the data is the sample data, because the environment's is not in the project.
    """

    source: Path
    text: str
    replaced: Sequence[Replacement]
    is_sample: bool

    def lines(self) -> list[str]:
        """Return what is replaced, for the terminal."""
        if not self.replaced:
            return []
        told = [f"  {line}" for one in self.replaced for line in one.lines()]
        note = ["This is the sample data. DATA=folder uses yours, a sample of it is enough."]
        return [
            f"Replaced in {shown(self.source)}, for this machine:",
            *told,
            *(note if self.is_sample else []),
            "",
        ]


def adapt(environment: str | Path, data: Path | None = None) -> Adapted:
    """Return the settings of an environment, adapted to the local system.

    Args:
        environment: as in `stacks.settings.locate`.
        data: a folder with training.jsonl and holdout.jsonl, for an environment whose data is not in the
            project. Default: the sample data, for an environment with the sample task.

    Raises:
        SettingsError: The settings can't be used, also not in AWS.
        OperateError: The data is not in the project, and no folder is given.
    """
    source, chosen = locate(environment).resolve(), settings.load(environment)
    document = tomlkit.parse(source.read_text(encoding="utf-8"))
    is_away = chosen.account != LOCAL_ACCOUNT
    is_sample = is_away and data is None and chosen.dataset.source != "file"
    if is_sample and chosen.task_folder != SAMPLE_TASK:
        raise OperateError(
            f"{chosen.file} takes its data from outside the project, where the local system can't read it.",
            advice=f"Name a folder of the project with {' and '.join(DATA_FILES)}, rows of this task: "
            f"`make local ENV={shlex.quote(str(environment))} DATA=tasks/{chosen.name}`. A sample of your "
            "data is enough.",
        )
    local = tomlkit.parse(locate(LOCAL).read_text(encoding="utf-8")).unwrap()
    changes: dict[str, Any] = {}
    if is_away:
        changes |= {"account": LOCAL_ACCOUNT, **dict.fromkeys(_REMOVED)}
        changes |= {key: _get(local, key) for key in _LOCAL}
    if data or is_sample:
        changes["dataset"] = _dataset(data or SAMPLE_DATA)
    more = (*(_LABELLING if is_away and chosen.dataset.asks_teacher else ()), *(_SAMPLE if is_sample else ()))
    changes |= {key: _get(local, key) for key in more}
    replaced = [
        Replacement(key, found, used)
        for key, used in changes.items()
        if (found := _get(document.unwrap(), key)) != used
    ]
    for one in replaced:
        _set(document, one.key, one.used)
    return Adapted(source, tomlkit.dumps(document), replaced, is_sample)


def _dataset(folder: Path) -> dict[str, str]:
    """Return the settings of the data in a folder."""
    absolute = folder.resolve()
    if missing := [name for name in DATA_FILES if not (absolute / name).is_file()]:
        raise OperateError(
            f"{folder} has no {' and no '.join(missing)}.",
            advice="DATA names a folder with both files. `make dataset-import` writes such rows.",
        )
    if not absolute.is_relative_to(PROJECT):
        raise OperateError(f"{folder} is outside of the project.", advice=f"Copy it below {PROJECT}.")
    training, holdout = ((absolute / name).relative_to(PROJECT).as_posix() for name in DATA_FILES)
    return {"source": "file", "training": training, "holdout": holdout}


def _get(values: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key; None without one."""
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _set(document: tomlkit.TOMLDocument, key: str, value: Any) -> None:
    """Set a dotted key of a document, or remove it."""
    *tables, last = key.split(".")
    table: Any = document
    for part in tables:
        if part not in table:
            table[part] = tomlkit.table()
        table = table[part]
    if value is None:
        del table[last]
    else:
        table[last] = value


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)
