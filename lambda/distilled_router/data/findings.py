"""Findings about a data set, and the report that collects them."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning"]
# In a summary; a folder may hold hundreds.
_NAMED_FILES = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule. `line` counts from 1, and is None for what concerns the whole file."""

    file: str
    line: int | None
    rule: str
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place} {self.rule}: {self.message}"


@dataclass
class Report:
    """What a check found. Keeps the first findings of each rule, and counts all of them.

    `rows` and `query_bytes` (UTF-8, of the usable rows) are those of each file; `unlabelled` counts rows
    without an answer.
    """

    keep: int = 5
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[Severity, str]] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    query_bytes: Counter[str] = field(default_factory=Counter)
    unlabelled: int = 0

    @property
    def errors(self) -> int:
        """How many errors, kept or not."""
        return sum(count for (severity, _), count in self.counts.items() if severity == "error")

    @property
    def warnings(self) -> int:
        """How many warnings, kept or not."""
        return self.counts.total() - self.errors

    @property
    def ok(self) -> bool:
        """Whether the data set may be used."""
        return self.errors == 0

    def add(self, finding: Finding) -> None:
        """Counts a finding, and keeps it if it is among the first of its rule."""
        key = (finding.severity, finding.rule)
        self.counts[key] += 1
        if self.counts[key] <= self.keep:
            self.findings.append(finding)

    def summary(self, limit: int = 690) -> str:
        """A text for people, short enough for CloudFormation's reason: counts, then the first findings."""
        rows = ", ".join(f"{count} {file} rows" for file, count in self.rows.items()) or "no rows"
        if len(self.rows) > _NAMED_FILES:
            rows = f"{self.rows.total()} rows of {len(self.rows)} files"
        verdict = "usable" if self.ok else "refused"
        text = f"Data set {verdict}: {self.errors} errors, {self.warnings} warnings in {rows}."
        by_rule = sorted(self.counts.items(), key=lambda item: (item[0][0] != "error", -item[1]))
        if by_rule:
            text += f" By rule: {', '.join(f'{rule} {count}' for (_, rule), count in by_rule[:10])}."
        for finding in self.by_weight():
            if len(text) + len(part := f" {finding}.") <= limit:
                text += part
        return text[:limit]

    def by_weight(self) -> list[Finding]:
        """What was kept: errors first, and of them the first of every rule before a second of any."""
        nth: Counter[tuple[Severity, str]] = Counter()
        weighed = []
        for finding in self.findings:
            key = (finding.severity, finding.rule)
            nth[key] += 1
            weighed.append((finding.severity != "error", nth[key], finding))
        return [finding for *_, finding in sorted(weighed, key=lambda entry: entry[:2])]
