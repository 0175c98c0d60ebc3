"""Read lock files and their inputs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[a-z0-9,-]+\])?==([0-9][^\s;\\]*)")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """One package of a lock file."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def entries(lock: Path) -> list[Entry]:
    """Return the packages of a lock file.

    Raises:
        ValueError: A line does not pin one package by its hashes.
    """
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        package, *hashes = re.split(r"\s+(?=--hash=)", line)
        pin, _, marker = package.partition(" ; ")
        match = _PIN.fullmatch(pin)
        hashes = [each.strip() for each in hashes]
        if match is None or not hashes or not all(map(HASH.fullmatch, hashes)):
            raise ValueError(f"{lock}: {line[:100]!r} pins no package by its hashes")
        found.append(Entry(normal(match[1]), match[2], marker.strip(), tuple(hashes)))
    return found


def pinned(lock: Path) -> dict[str, str]:
    """Return the versions in a lock file by package name."""
    return {entry.name: entry.version for entry in entries(lock)}


def asked_for(source: Path) -> dict[str, str]:
    """Return the versions that an input file names, with those of the files that it includes.

    Raises:
        ValueError: A line neither pins a package nor includes another file.
    """
    found: dict[str, str] = {}
    for line in source.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found |= asked_for(source.parent / line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            match = _PIN.fullmatch(line)
            if match is None:
                raise ValueError(f"{source}: {line!r} names no exact version")
            found[normal(match[1])] = match[2]
    return found


def normal(name: str) -> str:
    """Return a package's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()
