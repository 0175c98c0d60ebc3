"""Filtering and paging for the List operations."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from local.bedrock.account import Account, Parameters, Result
from local.bedrock.errors import invalid


class Resource(Protocol):
    """What a List operation lists."""

    created: float


def list_page[T: Resource](
    account: Account,
    parameters: Parameters,
    resources: Iterable[T],
    *,
    key: str,
    summary: Callable[[T], Result],
    name: str,
    created: str = "creationTime",
    filters: dict[str, str] | None = None,
) -> Result:
    """Return one page of a List operation; resources that are too new to be seen are not listed.

    Args:
        account: has the default page size.
        parameters: the operation's parameters; the usual filters on name, status and time are applied.
        resources: all resources in the order of their creation.
        key: the result's member for the summaries.
        summary: returns a resource's summary.
        name: the summary's member with the name.
        created: the summary's member with the creation time.
        filters: further filters, parameter to summary member.
    """
    equal = {"statusEquals": "status", **(filters or {})}
    after = next((parameters[p] for p in parameters if p.endswith("After")), None)
    before = next((parameters[p] for p in parameters if p.endswith("Before")), None)

    def matches(item: Result) -> bool:
        return (
            parameters.get("nameContains", "") in item[name]
            and (after is None or item[created] > after)
            and (before is None or item[created] < before)
            and all(item.get(member) == parameters[p] for p, member in equal.items() if p in parameters)
        )

    seen = account.clock.now() - account.lag.list_seconds
    found = [item for item in (summary(each) for each in resources if each.created <= seen) if matches(item)]
    if parameters.get("sortOrder") != "Ascending":
        found.reverse()
    start = _offset(parameters.get("nextToken"))
    end = start + parameters.get("maxResults", account.settings.page_size)
    result: Result = {key: found[start:end]}
    if end < len(found):
        result["nextToken"] = base64.urlsafe_b64encode(f"from {end}".encode()).decode()
    return result


def _offset(token: Any) -> int:
    if token is None:
        return 0
    try:
        word, _, number = base64.urlsafe_b64decode(token.encode()).decode().partition(" ")
        if word == "from" and int(number) >= 0:
            return int(number)
    except ValueError:
        pass
    raise invalid("The provided next token is invalid.")
