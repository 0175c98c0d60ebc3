"""Cache of the route in one execution environment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

from distilled_router.aws.errors import code, is_transient
from distilled_router.release.route import ROUTE, Route, item_key
from router.budget import Budget, OutOfTimeError, jitter

# Retry interval while the table can't be read. Retrying in every request would cost each of them time.
RETRY_SECONDS = 5.0
# Shares of a request's budget. The first read also opens the connection, and there is no route without it.
FIRST_READ, LATER_READ = 0.4, 0.2
# A read takes a few milliseconds. It has half of its time for the first attempt, so that one on a connection
# that died unnoticed, as in a freeze, leaves time for another.
FIRST_ATTEMPT = 0.5
_RETRY_PAUSE = (0.01, 0.04)
# DynamoDB's own, besides `errors.THROTTLES` (DynamoDB developer guide, "error handling").
_THROTTLES = frozenset({"ProvisionedThroughputExceededException", "RequestLimitExceeded"})


class RouteCache:
    """Reads the route on demand when the cached one is too old, and keeps the last valid one."""

    def __init__(
        self,
        dynamodb: Any,
        table_name: str,
        owner: str,
        max_age: float,
        jitter: Callable[[float, float], float] = jitter,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Read an owner's route about every `max_age` seconds at most.

        `dynamodb` is `router.services.DynamoDb`, or what has its methods.
        """
        self._dynamodb = dynamodb
        self._table_name, self._key = table_name, item_key(owner, ROUTE)
        self._max_age = max_age
        self._jitter = jitter
        self._pause = pause
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
    def latest(self) -> Route:
        """Return the route that was read last."""
        return self._route

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
            route = Route.from_item(self._item(budget, budget.seconds * part))
        except (OutOfTimeError, ConnectTimeoutError, ReadTimeoutError):
            return "table_timed_out"
        except ClientError as error:
            return f"table_refused: {code(error)}"
        except Exception as error:  # any other error also leaves the last valid route in use
            return f"table_unreachable: {type(error).__name__}"
        # An item of which a part can't be read must not replace a valid route, and is better than none. A
        # missing item or one without shares is valid: with it an operator turns distillation off.
        has_valid = self._known and self._route.problem is None
        if route.problem is None or (route.shares and not has_valid):
            self._route, self._known = route, True
        return route.problem

    def _item(self, budget: Budget, seconds: float) -> dict[str, Any] | None:
        """Return the item, read once more if the first attempt failed and left time for another."""
        ends = budget.spent + seconds
        try:
            return budget.call(self._read, at_most=seconds * FIRST_ATTEMPT)
        except (OutOfTimeError, BotoCoreError, ClientError) as error:
            if not _may_help(error):
                raise
        self._pause(jitter(*_RETRY_PAUSE))
        return budget.call(self._read, at_most=ends - budget.spent)

    def _read(self, seconds: float) -> dict[str, Any] | None:
        table = self._dynamodb.within(seconds)
        item = table.get_item(
            TableName=self._table_name, Key={"id": {"S": self._key}}, ConsistentRead=False
        ).get("Item")
        return None if item is None else {name: _plain(value) for name, value in item.items()}


def _may_help(error: Exception) -> bool:
    """Return whether a second attempt may succeed."""
    throttled = isinstance(error, ClientError) and code(error) in _THROTTLES
    return throttled or isinstance(error, OutOfTimeError) or is_transient(error)


def _plain(value: Mapping[str, Any]) -> Any:
    """Convert a value in DynamoDB's format, e.g. `{"S": "text"}`; boto3's converter would import boto3.

    Types other than text, flag, number, list and map are returned unchanged; parsing the route rejects them.
    """
    match value:
        case {"S": str(text)}:
            return text
        case {"BOOL": bool(flag)}:
            return flag
        case {"N": str(number)}:
            return Decimal(number)
        case {"L": list(values)}:
            return [_plain(one) for one in values]
        case {"M": dict(values)}:
            return {name: _plain(one) for name, one in values.items()}
    return value
