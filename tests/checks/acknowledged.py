"""What an assembly acknowledges, and what findings of tools outside of the synthesis that covers.

The tools know a template's logical ids; what was acknowledged stands at a construct. The assembly's metadata
has both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

TEMPLATE, METADATA = ".template.json", ".metadata.json"


@dataclass(frozen=True, order=True)
class Finding:
    """A rule that a resource breaks. `rule` begins with its rule set: `checkov::CKV_AWS_18`."""

    rule: str
    template: str
    logical_id: str


@dataclass(frozen=True)
class Acknowledged:
    """The acknowledgements in the templates of a folder."""

    folder: Path

    @property
    def templates(self) -> list[Path]:
        """Return the paths of the templates."""
        return sorted(self.folder.glob(f"*{TEMPLATE}"))

    @cached_property
    def reasons(self) -> Mapping[tuple[str, str], str]:
        """Return the reasons by (construct, rule)."""
        return {
            (construct, rule): reason
            for construct, kind, data in self._metadata
            if kind == "aws:cdk:acknowledged-rules"
            for rule, reason in data.items()
        }

    @cached_property
    def constructs(self) -> Mapping[tuple[str, str], str]:
        """Return the constructs by (template, logical id)."""
        return {
            (f"{construct.partition('/')[0]}{TEMPLATE}", data): construct
            for construct, kind, data in self._metadata
            if kind == "aws:cdk:logicalId"
        }

    @cached_property
    def _metadata(self) -> list[tuple[str, str, Any]]:
        return [
            (construct.removeprefix("/"), entry["type"], entry["data"])
            for path in sorted(self.folder.glob(f"*{METADATA}"))
            for construct, entries in json.loads(path.read_text(encoding="utf-8")).items()
            for entry in entries
        ]

    def covering(self, finding: Finding) -> tuple[str, str] | None:
        """The acknowledgement of a finding, at its construct or the nearest above it; None if there is none.

        Raises KeyError for a resource that no construct made.
        """
        construct = self.constructs[finding.template, finding.logical_id]
        while construct:
            if (construct, finding.rule) in self.reasons:
                return construct, finding.rule
            construct = construct.rpartition("/")[0]
        return None

    def left(self, findings: Iterable[Finding]) -> list[Finding]:
        """Return the findings without an acknowledgement."""
        return sorted(finding for finding in findings if self.covering(finding) is None)

    def stale(self, findings: Iterable[Finding], rule_set: str) -> set[tuple[str, str]]:
        """Return the acknowledgements of a rule set that have no finding."""
        declared = {(where, rule) for where, rule in self.reasons if rule.startswith(f"{rule_set}::")}
        return declared - {self.covering(finding) for finding in findings}
