"""Evidence of the probes of all rounds: what candidate and live release answered to hold-out queries."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from distilled_router.release.gate import IGNORED_LATENCY_MS, MINIMUM_ASKED
from rollout.metrics import NOTHING, Count, ReleaseMetrics

WRONG = "wrong_answers"
"""The rate of answers whose dominant label is not the reference's. Answers without weights are wrong."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A release's answer to a probe. As in the router's metrics, one without weights counts as a fallback.

    Attributes:
        error: the router's code could not read the answer.
        refused: Bedrock does not take the query.
        invalid: the output has no weights.
        wrong: its dominant label is not the reference's.
        latency_ms: of the model, if Bedrock says it.
        unasked: why the call failed. Such a call says nothing about the release.
    """

    error: bool = False
    refused: bool = False
    invalid: bool = False
    wrong: bool = False
    latency_ms: float | None = None
    unasked: str = ""

    @property
    def metrics(self) -> ReleaseMetrics:
        """Return the metrics of this answer."""
        fallback = self.error or self.refused or self.invalid
        counts = {
            "error_rate": Count(self.error, 1),
            "fallback_rate": Count(fallback, 1),
            "invalid_output_rate": Count(self.invalid, 1),
            WRONG: Count(self.is_wrong, 1),
        }
        return ReleaseMetrics(counts)

    @property
    def is_wrong(self) -> bool:
        """Return whether the answer's dominant label is wrong, or there is none."""
        return self.error or self.refused or self.invalid or self.wrong

    def slower_than(self, live: Answer, margin: float) -> Count:
        """Count the answer as slower if its model took longer than the live release's and the margin."""
        if self.latency_ms is None or live.latency_ms is None:
            return Count()
        ignored = self.latency_ms - live.latency_ms <= IGNORED_LATENCY_MS
        return Count(not ignored and self.latency_ms > live.latency_ms * (1 + margin), 1)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What the probes of some rounds found.

    Attributes:
        asked: queries that were asked, repetitions included.
        families: of near duplicates in the hold-out set. All are asked once before one is asked again.
        candidate, live: metrics of the answers.
        lost, won: queries that the candidate answers wrongly and the live release rightly, and the opposite.
        both: queries that both answered.
        slower: queries for which the candidate's model took longer than the margin allows, of those for which
            both times are known. Most of them decide, not a mean: a few very slow answers don't change it.
        live_digest: the live release.
        unasked: how often the candidate and the live release could not be asked, by reason; only of a round.
    """

    asked: int = 0
    families: int = 0
    candidate: ReleaseMetrics = NOTHING
    live: ReleaseMetrics = NOTHING
    lost: float = 0
    won: float = 0
    both: float = 0
    slower: Count = field(default_factory=Count)
    live_digest: str = ""
    unasked: tuple[Mapping[str, int], ...] = ()

    @classmethod
    def of(cls, answers: Sequence[Sequence[Answer]], families: int, latency_margin: float) -> Probed:
        """Count the answers to each query: the candidate's, and the live release's if there is one."""
        pairs = [row for row in answers if len(row) > 1 and not any(one.unasked for one in row)]
        by_release = list(zip(*answers, strict=True))
        metrics = [_sum(one.metrics for one in of if not one.unasked) for of in by_release]
        return cls(
            asked=len(answers),
            families=families,
            candidate=metrics[0] if metrics else NOTHING,
            live=metrics[1] if len(metrics) > 1 else NOTHING,
            lost=sum(mine.is_wrong and not theirs.is_wrong for mine, theirs in pairs),
            won=sum(theirs.is_wrong and not mine.is_wrong for mine, theirs in pairs),
            both=len(pairs),
            slower=sum((mine.slower_than(theirs, latency_margin) for mine, theirs in pairs), Count()),
            unasked=tuple(Counter(one.unasked for one in of if one.unasked) for of in by_release),
        )

    def __add__(self, later: Probed) -> Probed:
        return Probed(
            asked=self.asked + later.asked,
            families=later.families or self.families,
            candidate=self.candidate + later.candidate,
            live=self.live + later.live,
            lost=self.lost + later.lost,
            won=self.won + later.won,
            both=self.both + later.both,
            slower=self.slower + later.slower,
            live_digest=self.live_digest,
        )

    def once(self) -> Probed:
        """Return the evidence with each family of the hold-out set counted once.

        A query that is asked again gets the same answer, and a near duplicate often a similar one, so neither
        says much that is new.
        """
        part = self._part
        return Probed(
            asked=round(self.asked * part),
            families=self.families,
            candidate=self.candidate * part,
            live=self.live * part,
            lost=self.lost * part,
            won=self.won * part,
            both=self.both * part,
            slower=self.slower * part,
            live_digest=self.live_digest,
        )

    @property
    def _part(self) -> float:
        """Return the effective number of probes as a part of those asked (Kish, 1965).

        After one and a half turns, half of the families weigh twice as much as the others.
        """
        if not 0 < self.families < self.asked:
            return 1.0
        turns, rest = divmod(self.asked, self.families)
        squares = (self.families - rest) * turns**2 + rest * (turns + 1) ** 2
        return self.asked / squares

    def against(self, digest: str) -> Probed:
        """Return the evidence for a comparison with a live release; what another one answered is dropped."""
        if digest == self.live_digest:
            return self
        return replace(self, live=NOTHING, lost=0.0, won=0.0, both=0.0, slower=Count(), live_digest=digest)

    def missing(self, who: str, release: int) -> str:
        """Return that too few of a round's probes could be asked of a release; empty if enough could.

        With fewer than `MINIMUM_ASKED`, the others may not be representative. `release` is 0 for the
        candidate and 1 for the live release.
        """
        unasked = self.unasked[release] if release < len(self.unasked) else {}
        count = sum(unasked.values())
        if count <= (1 - MINIMUM_ASKED) * self.asked:
            return ""
        reasons = ", ".join(
            f"{number} {reason.replace('_', ' ')}" for reason, number in Counter(unasked).most_common()
        )
        return f"{who} could not be asked {count} of {self.asked} hold-out queries: {reasons}"

    def to_text(self) -> str:
        """Return the evidence as the release's item keeps it."""
        return json.dumps({**asdict(self), "unasked": []})

    @classmethod
    def from_text(cls, text: str) -> Probed:
        """Read the evidence from a release's item; an empty text, or one that a person damaged, has none."""
        try:
            data = json.loads(text)
            known = {name: data[name] for name in _KEPT}
            mine, theirs = _metrics(data["candidate"]), _metrics(data["live"])
            return cls(**known, candidate=mine, live=theirs, slower=Count(**data["slower"]))
        except (LookupError, AttributeError, TypeError, ValueError):
            return cls()


_KEPT = ("asked", "families", "lost", "won", "both", "live_digest")

NO_PROBES = Probed()
"""The evidence before the first probe."""


def _metrics(data: Mapping[str, Any]) -> ReleaseMetrics:
    counts = {str(name): Count(**count) for name, count in data["counts"].items()}
    return ReleaseMetrics(counts)


def _sum(metrics: Iterable[ReleaseMetrics]) -> ReleaseMetrics:
    return sum(metrics, NOTHING)
