"""The route as this environment knows it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import code
from distilled_router.release.route import ROUTE_ID, Route
from router.budget import Budget, OutOfTimeError, jitter

# A table that can't be reached is tried again after this, not at every request: each try costs time.
RETRY_SECONDS = 5.0
# Parts of a request's budget. The first read opens the connection, and nothing is known without it.
FIRST_READ, LATER_READ = 0.4, 0.2


class RouteCache:
    """Reads the route when a request needs one and the known one is too old; keeps the last good one."""

    def __init__(
        self,
        dynamodb: Any,
        table_name: str,
        max_age: float,
        jitter: Callable[[float, float], float] = jitter,
    ) -> None:
        """Read from that table, through a DynamoDB client, at most every `max_age` seconds."""
        self._dynamodb = dynamodb
        self._table_name = table_name
        self._max_age = max_age
        self._jitter = jitter
        self._route = Route()
        self._known = False
        self._read_at = 0.0
        self._lifetime = 0.0
        self._lock = threading.Lock()

    def current(self, budget: Budget, now: float) -> tuple[Route, str | None]:
        """The route at this time, and what was wrong with it if it was read just now."""
        # `now` is the wall clock: a frozen environment's monotonic clock may have stood still. A clock
        # that was set back makes the route old, too.
        if self._is_young(now):
            return self._route, None
        # One query of a batch reads; the others take what is known, and wait only where nothing is.
        patience = 0.0 if self._known else budget.remaining * FIRST_READ
        if not self._lock.acquire(timeout=patience):
            return self._route, None
        try:
            if self._is_young(now):
                return self._route, None
            problem = self._refresh(budget)
            # Environments that started together must not read together.
            seconds = self._max_age if problem is None else min(self._max_age, RETRY_SECONDS)
            self._read_at, self._lifetime = now, seconds * self._jitter(0.8, 1.0)
            return self._route, problem
        finally:
            self._lock.release()

    @property
    def is_known(self) -> bool:
        """Whether a route was ever read here; an empty one is a route."""
        return self._known

    @property
    def read_at(self) -> float:
        """When it was read last, or tried to be, by the caller's clock."""
        return self._read_at

    def _is_young(self, now: float) -> bool:
        return 0 <= now - self._read_at < self._lifetime

    def _refresh(self, budget: Budget) -> str | None:
        part = LATER_READ if self._known else FIRST_READ
        try:
            route = Route.from_item(budget.call(self._read, at_most=budget.seconds * part))
        except OutOfTimeError:
            return "table_timed_out"
        except ClientError as error:
            return f"table_refused: {code(error)}"
        except Exception as error:  # whatever it is, the last good route serves
            return f"table_unreachable: {type(error).__name__}"
        # A broken item is like none at all: only a route that can be read replaces a good one. An item
        # that is gone or has no shares can be read, and is how an operator turns distillation off.
        if route.problem is None or route.shares:
            self._route, self._known = route, True
        return route.problem

    def _read(self) -> dict[str, Any] | None:
        item = self._dynamodb.get_item(
            TableName=self._table_name, Key={"id": {"S": ROUTE_ID}}, ConsistentRead=False
        ).get("Item")
        return None if item is None else {name: _plain(value) for name, value in item.items()}


def _plain(value: Mapping[str, Any]) -> Any:
    """A value as DynamoDB's client gives it: `{"S": "text"}`. boto3's own reader would load all of boto3.

    What is no text, number, list or map is given as it came: no part of a route can be read from it then, and
    least of all an expiry that is not there.
    """
    match value:
        case {"S": str(text)}:
            return text
        case {"N": str(number)}:
            return Decimal(number)
        case {"L": list(values)}:
            return [_plain(one) for one in values]
        case {"M": dict(values)}:
            return {name: _plain(one) for name, one in values.items()}
    return value
