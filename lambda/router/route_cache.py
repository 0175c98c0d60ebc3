"""Cache of the route in one execution environment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import code
from distilled_router.release.route import ROUTE, Route, item_key
from router.budget import Budget, OutOfTimeError, jitter

# Retry interval while the table can't be read. Retrying in every request would cost each of them time.
RETRY_SECONDS = 5.0
# Shares of a request's budget. The first read also opens the connection, and there is no route without it.
FIRST_READ, LATER_READ = 0.4, 0.2


class RouteCache:
    """Reads the route on demand when the cached one is too old, and keeps the last valid one."""

    def __init__(
        self,
        dynamodb: Any,
        table_name: str,
        owner: str,
        max_age: float,
        jitter: Callable[[float, float], float] = jitter,
    ) -> None:
        """Read an owner's route with a DynamoDB client, about every `max_age` seconds at most."""
        self._dynamodb = dynamodb
        self._table_name, self._key = table_name, item_key(owner, ROUTE)
        self._max_age = max_age
        self._jitter = jitter
        self._route = Route()
        self._known = False
        self._read_at = 0.0
        self._lifetime = 0.0
        self._lock = threading.Lock()

    def current(self, budget: Budget, now: float) -> tuple[Route, str | None]:
        """Return the route, and the result if it was read in this call: the problem, or an empty text.

        Args:
            budget: of the request.
            now: wall clock, in seconds. The monotonic clock may stand still while an environment is frozen.
        """
        if self._is_young(now):
            return self._route, None
        # One query of a batch reads; the others use the known route, and wait only if there is none.
        patience = 0.0 if self._known else budget.remaining * FIRST_READ
        if not self._lock.acquire(timeout=patience):
            return self._route, None
        try:
            if self._is_young(now):
                return self._route, None
            problem = self._refresh(budget)
            # Jitter: environments that started together must not read at the same time.
            seconds = self._max_age if problem is None else min(self._max_age, RETRY_SECONDS)
            self._read_at, self._lifetime = now, seconds * self._jitter(0.8, 1.0)
            return self._route, problem or ""
        finally:
            self._lock.release()

    @property
    def is_known(self) -> bool:
        """Return whether a route was ever read, even an empty one."""
        return self._known

    def _is_young(self, now: float) -> bool:
        # The lower bound makes the route old if the clock was set back.
        return 0 <= now - self._read_at < self._lifetime

    def _refresh(self, budget: Budget) -> str | None:
        part = LATER_READ if self._known else FIRST_READ
        try:
            route = Route.from_item(budget.call(self._read, at_most=budget.seconds * part))
        except OutOfTimeError:
            return "table_timed_out"
        except ClientError as error:
            return f"table_refused: {code(error)}"
        except Exception as error:  # any other error also leaves the last valid route in use
            return f"table_unreachable: {type(error).__name__}"
        # An invalid item must not replace a valid route. A missing item or one without shares is valid: with
        # it an operator turns distillation off.
        if route.problem is None or route.shares:
            self._route, self._known = route, True
        return route.problem

    def _read(self) -> dict[str, Any] | None:
        item = self._dynamodb.get_item(
            TableName=self._table_name, Key={"id": {"S": self._key}}, ConsistentRead=False
        ).get("Item")
        return None if item is None else {name: _plain(value) for name, value in item.items()}


def _plain(value: Mapping[str, Any]) -> Any:
    """Convert a value in DynamoDB's format, e.g. `{"S": "text"}`; boto3's converter would import boto3.

    Types other than text, number, list and map are returned unchanged; parsing the route rejects them.
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
