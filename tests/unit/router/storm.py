"""Thousands of requests and the faults behind the router during them, all derived from a seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from botocore.exceptions import EndpointConnectionError

from distilled_router.release.route import HeadFile, Route, Share
from local.bedrock.faults import FOREIGN
from tests.unit.router.doubles import BASE_MODEL, client_error

# Longer than any part of the time budget: the called service does not answer in time.
HANG_SECONDS = 0.4
# For each byte; a response has some 500.
DRIBBLE_MS = 20
# Faults of the stand-in, weighted by frequency.
CALLS = {
    "throttled": 4,
    "not_ready": 2,
    "failed": 2,
    "unavailable": 2,
    "lost_response": 3,
    "slow": 4,
    "dribble": 1,
    "foreign": 1,
    "denied": 1,
    "not_found": 1,
    "validation": 1,
    "over_quota": 1,
}
OUTPUTS = (
    *("output_prose", "output_wrapped", "output_truncated", "output_empty", "output_wrong_sum"),
    *("output_negative", "output_not_numbers", "output_too_few"),
    *("output_two_blocks", "output_reasoning", "output_no_content", "output_cut_off", "output_guarded"),
)
JUMPS = (-86_400.0, -3600.0, -15.0, -0.5, 0.5, 11.0, 31.0, 400.0, 86_400.0)
SUBJECTS = ("dog barking", "red car", "engine roaring", "white horse", "made in 1998")
# The first turns have no faults, so that circuits close and distilled models answer.
WEATHER, CALM = 400, 60


@dataclass(frozen=True)
class Turn:
    """A request, and the changes just before it. `table` and `route` are None if they stay as they are."""

    event: Any
    queries: int
    left_ms: int | None = None
    orders: Sequence[Mapping[str, Any]] = ()
    clears: bool = False
    jump: float = 0.0
    table: Sequence[Exception | float | None] | None = None
    route: Sequence[Route | dict[str, Any] | None] | None = None


@dataclass
class Storm:
    """Generates turns for several environments. `endpoints` are existing deployments, each with its head.

    What hangs does so `pace` times longer than on an idle machine.
    """

    seed: int
    endpoints: Sequence[str]
    heads: Sequence[HeadFile]
    environments: int
    pace: float = 1.0
    _random: Random = field(init=False)
    _versions: int = 0

    def __post_init__(self) -> None:
        self._random = Random(self.seed)

    def turns(self, count: int, now: float) -> Iterator[Turn]:
        """Return this many turns, in order."""
        for number in range(count):
            event, queries = self._event(number)
            left = self._random.choice((15, 60, 120)) if self._random.random() < 0.02 else None
            if number % WEATHER < CALM:
                first = number % WEATHER == 0
                calm: dict[str, Any] = (
                    {"table": [None], "route": [self._route(now, bad=False)]} if first else {}
                )
                yield Turn(event, queries, left, clears=first, jump=11.0 if first else 0.0, **calm)
                continue
            yield Turn(
                event,
                queries,
                left,
                orders=[self._order()] if self._random.random() < 0.3 else (),
                jump=self._random.choice(JUMPS) if self._random.random() < 0.08 else 0.0,
                table=[self._table()] if self._random.random() < 0.04 else None,
                route=[self._route(now, bad=True)] if self._random.random() < 0.02 else None,
            )

    def _event(self, number: int) -> tuple[Any, int]:
        """Return a direct invocation mostly, otherwise an HTTP request, a batch, or an invalid request."""
        kind = self._random.random()
        if kind < 0.03:
            queries: list[Any] = [self._query(number) for _ in range(self._random.randint(1, 8))]
            if self._random.random() < 0.3:
                queries[0] = self._random.choice(("", None, "d" * 600))
            return _http("/routes", {"queries": queries}), len(queries)
        if kind < 0.05:
            return self._random.choice(({}, None, {"query": 7}, _http("/route", []))), 0
        if kind < 0.20:
            return _http("/route", {"query": self._query(number)}), 1
        return {"query": self._query(number)}, 1

    def _query(self, number: int) -> str:
        """Return one of a few repeated queries, or a new one."""
        subject = self._random.choice(SUBJECTS)
        again = self._random.random() < 0.4
        return (
            f"{subject} {self._random.randrange(20)}"
            if again
            else f"{subject} {number} {self._random.random()}"
        )

    def _order(self) -> dict[str, Any]:
        order: dict[str, Any] = {
            "modelId": self._random.choice((*self.endpoints, *self.endpoints, BASE_MODEL)),
            "count": self._random.choice((1, 1, 1, 2, 4)),
        }
        if self._random.random() < 0.35:
            return {**order, "kind": self._random.choice(OUTPUTS)}
        (kind,) = self._random.choices(list(CALLS), weights=list(CALLS.values()))
        if kind == "slow":
            order["milliseconds"] = round(HANG_SECONDS * self.pace * 1000)
        if kind == "dribble":
            order["milliseconds"] = DRIBBLE_MS
        if kind == "foreign":
            order["answer"] = self._random.choice(tuple(FOREIGN))
        if kind == "lost_response":
            order["answer"] = self._random.choice(("dropped", "error"))
        return {**order, "kind": kind, "operation": "Converse"}

    def _table(self) -> Exception | float | None:
        return self._random.choice(
            (
                None,
                None,
                client_error("ProvisionedThroughputExceededException"),
                client_error("AccessDeniedException"),
                EndpointConnectionError(endpoint_url="https://dynamodb"),
                0.01,
                HANG_SECONDS * self.pace,
            )
        )

    def _route(self, now: float, *, bad: bool) -> Route | dict[str, Any] | None:
        """Return a route with a live release and perhaps a candidate; in a storm it may be malformed."""
        self._versions += 1
        live_share = Share("aaaaaaaaaaaa", self.endpoints[0], 1.0, head=self.heads[0])
        end = int(now) + self._random.choice((-100, 100, 100_000))
        candidate = Share("bbbbbbbbbbbb", self.endpoints[1], self._random.random(), end, self.heads[1])
        off = self._random.random() < 0.1
        good = (
            Route(self._versions, (live_share,), head_off=off),
            Route(self._versions, (live_share, candidate), head_off=off),
        )
        if not bad or self._random.random() < 0.7:
            return self._random.choice(good)
        deleted = Share("cccccccccccc", f"{self.endpoints[0][:-12]}zzzzzzzzzzzz", 1.0)
        return self._random.choice(
            (
                None,
                Route(self._versions),
                Route(self._versions, (deleted,)),
                {"id": "route", "version": "four", "shares": []},
                {"id": "route", "version": self._versions, "shares": [{"digest": "dddddddddddd"}]},
            )
        )


def _http(path: str, body: Any) -> dict[str, Any]:
    return {
        "version": "2.0",
        "routeKey": f"POST {path}",
        "requestContext": {"http": {"method": "POST", "path": path}},
        "body": json.dumps(body),
    }
