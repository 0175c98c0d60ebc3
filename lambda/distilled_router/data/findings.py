"""Findings about a data set, and the report that collects them."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Literal

# A data set's warnings, beside its training rows and its hold-out set. The evaluation shows them with its
# decision.
WARNINGS = "warnings.json"
Severity = Literal["error", "warning"]
# Files that a summary names; a folder may contain hundreds.
_NAMED_FILES = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken rule. `line` counts from 1, and is None if the finding concerns the whole file."""

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
    """The findings of a check. Counts all findings, and keeps the first different ones of each rule.

    Attributes:
        keep: how many findings of each rule are kept.
        findings: the kept findings.
        counts: number of findings, by severity and rule.
        repeats: number of further lines of the same file with the same finding, by the kept one.
        rows: number of rows, by file.
        query_bytes: bytes (UTF-8) of all usable queries, by file.
        unlabelled: number of rows without an answer.
        holdout_families: rows of each family of the hold-out set; empty if nobody looked.
    """

    keep: int = 5
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[Severity, str]] = field(default_factory=Counter)
    repeats: Counter[Finding] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    query_bytes: Counter[str] = field(default_factory=Counter)
    unlabelled: int = 0
    holdout_families: list[int] = field(default_factory=list)
    _kept: dict[Finding, Finding] = field(default_factory=dict, repr=False)
    _different: Counter[tuple[Severity, str]] = field(default_factory=Counter, repr=False)

    @property
    def errors(self) -> int:
        """Return the number of errors, kept or not."""
        return sum(count for (severity, _), count in self.counts.items() if severity == "error")

    @property
    def warnings(self) -> int:
        """Return the number of warnings, kept or not."""
        return self.counts.total() - self.errors

    @property
    def ok(self) -> bool:
        """Return whether the data set has no error."""
        return self.errors == 0

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it if it is among the first different ones of its rule."""
        key = (finding.severity, finding.rule)
        self.counts[key] += 1
        anywhere = replace(finding, line=None)
        if anywhere in self._kept:
            self.repeats[self._kept[anywhere]] += 1
        elif self._different[key] < self.keep:
            self._different[key] += 1
            self._kept[anywhere] = finding
            self.findings.append(finding)

    def repeated(self, finding: Finding) -> str:
        """Return how often a kept finding is repeated, in words to follow it; empty if it is not."""
        times = self.repeats[finding]
        return f" (and {times:,} more like it)" if times else ""

    def summary(self, limit: int = 690) -> str:
        """Return counts and first findings as text, short enough for CloudFormation's reason."""
        rows = ", ".join(f"{count} {file} rows" for file, count in self.rows.items()) or "no rows"
        if len(self.rows) > _NAMED_FILES:
            rows = f"{self.rows.total()} rows of {len(self.rows)} files"
        result = "usable" if self.ok else "refused"
        text = f"Data set {result}: {self.errors} errors, {self.warnings} warnings in {rows}."
        by_rule = sorted(self.counts.items(), key=lambda item: (item[0][0] != "error", -item[1]))
        if by_rule:
            text += f" By rule: {', '.join(f'{rule} {count}' for (_, rule), count in by_rule[:10])}."
        for finding in self.by_weight():
            if len(text) + len(part := f" {finding}{self.repeated(finding)}.") <= limit:
                text += part
        return text[:limit]

    def warned(self) -> list[str]:
        """Return the warnings in words, one for each rule and file; those of single lines are counted."""
        found = {}
        for finding in self.findings:
            if finding.severity == "warning" and finding.line is None:
                found[finding.file, finding.message] = f"{finding.file}: {finding.message}"
            elif finding.severity == "warning":
                count = self.counts["warning", finding.rule]
                found.setdefault((finding.rule, ""), f"{count} times {finding.rule}, first {finding}")
        return list(found.values())

    def by_weight(self) -> list[Finding]:
        """Return the kept findings: errors first, and the first of every rule before a second of any."""
        nth: Counter[tuple[Severity, str]] = Counter()
        weighed = []
        for finding in self.findings:
            key = (finding.severity, finding.rule)
            nth[key] += 1
            weighed.append((finding.severity != "error", nth[key], finding))
        return [finding for *_, finding in sorted(weighed, key=lambda entry: entry[:2])]
