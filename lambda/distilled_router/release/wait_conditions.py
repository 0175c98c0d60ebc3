"""Signal CloudFormation's wait conditions, by which a stack waits for its release.

A WaitCondition lasts at most 12 hours, and its handle's URL is valid for 24 hours after the handle's
creation, so a longer wait is a chain of windows. Every window except the last is signalled with success
shortly before its end, and the next one continues to wait. Only the last one can time out.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aws_lambda_powertools import Logger
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session

from distilled_router.aws.custom_resource import shortened
from distilled_router.release.route import WAIT, item_key, whole
from distilled_router.release.table import FAILED, LIVE, RETIRED, SUPERSEDED, Releases

logger = Logger(child=True)


@dataclass(frozen=True)
class Window:
    """The window of one wait condition.

    Attributes:
        digest: the release that the stack waits for.
        holdout: 8 hex digits of the hold-out set on which it is evaluated; empty for an earlier version.
        number: position in the chain.
        last: whether no window follows.
        url: URL of the handle. It is a secret: anyone who has it can end the wait.
        ends_at: epoch second at which the wait condition times out.
    """

    digest: str
    number: int
    last: bool
    url: str
    ends_at: int
    holdout: str = ""

    @property
    def name(self) -> str:
        """Return the name under which the window is registered."""
        return f"{self.digest}{self.holdout and f'-{self.holdout}'}@{self.number}"


def send_signal(url: str, body: bytes) -> bool:
    """PUT a signal to a handle's URL. Return whether it arrived.

    The content type must be empty, or the URL's signature does not match. AWS_CA_BUNDLE is used as in every
    AWS client.
    """
    verify: Any = os.environ.get("AWS_CA_BUNDLE") or True
    session = URLLib3Session(verify=verify, timeout=10)
    request = AWSRequest("PUT", url, headers={"Content-Type": ""}, data=body).prepare()
    try:
        return bool(session.send(request).status_code < 300)
    except BotoCoreError:
        return False


class WaitConditions:
    """An owner's wait conditions that are registered in the releases table."""

    def __init__(
        self,
        table: Any,
        owner: str,
        now: Callable[[], float] = time.time,
        put: Callable[[str, bytes], bool] = send_signal,
    ) -> None:
        """Wrap the releases table."""
        self._table, self._now, self._put = table, now, put
        self._prefix = item_key(owner, WAIT)

    def register(self, window: Window) -> None:
        """Register a window. Registering it twice changes nothing."""
        self._table.put_item(Item={"id": self._key(window.name), **asdict(window)})

    def remove(self, name: str) -> None:
        """Remove the window of that name: its stack no longer waits."""
        self._table.delete_item(Key={"id": self._key(name)})

    def windows(self) -> Iterator[Window]:
        """Yield every registered window; those that a person damaged are left out."""
        pages = self._table.meta.client.get_paginator("scan").paginate(
            TableName=self._table.name, ConsistentRead=True
        )
        for page in pages:
            for item in page["Items"]:
                if str(item["id"]).startswith(self._prefix) and (window := _window(item)):
                    yield window

    def signal(self, releases: Releases, margin_seconds: float = 0) -> int:
        """Signal each window whose release is live or has ended, and each that ends within the margin.

        The last window of a chain is not signalled for its own end. Return the number of signalled windows. A
        window whose signal did not arrive stays registered, and the next call signals it again.
        """
        ended = 0
        for window in self.windows():
            outcome = self._outcome(window, releases, margin_seconds)
            if outcome and self._send(window, *outcome):
                self.remove(window.name)
                ended += 1
        return ended

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _outcome(self, window: Window, releases: Releases, margin: float) -> tuple[bool, str] | None:
        release = releases.get(window.digest)
        if release and release.state == LIVE and release.is_over and not release.has_passed:
            return False, f"release {release.digest} {release.message}"
        if release and release.rolled_back:
            return False, f"release {release.digest} {release.state}: {release.message}"
        if release and release.state in {LIVE, RETIRED} and release.is_over:
            warning = f". Warning: {release.warnings}" if release.warnings else ""
            return True, f"release {release.digest} is live{warning}"
        if release and release.state in {FAILED, SUPERSEDED}:
            return False, f"release {release.digest} {release.state}: {release.message}"
        if not window.last and window.ends_at - self._now() < margin:
            return True, f"release {window.digest} is in progress; the next window waits for it"
        return None

    def _send(self, window: Window, succeeded: bool, reason: str) -> bool:
        status = "SUCCESS" if succeeded else "FAILURE"
        # A status reason is a single line: sentences instead of a list.
        reason = " ".join(line.removeprefix("- ") for line in reason.splitlines())
        signal = {
            "Status": status,
            "UniqueId": window.name.replace("@", "-"),
            "Data": reason[:200],
            "Reason": shortened(reason),
        }
        arrived = self._put(window.url, json.dumps(signal).encode())
        logger.info(
            "wait condition signalled",
            release=window.digest,
            window=window.number,
            status=status,
            arrived=arrived,
        )
        return arrived


def _window(item: Mapping[str, Any]) -> Window | None:
    digest, url = str(item.get("digest")), str(item.get("url"))
    number, ends_at = whole(item.get("number")), whole(item.get("ends_at"))
    if number is None or ends_at is None:
        return None
    return Window(digest, number, bool(item.get("last")), url, ends_at, str(item.get("holdout", "")))
