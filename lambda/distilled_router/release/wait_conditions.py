"""Stacks that wait for a release: the windows that they registered, and the signal that ends each.

A WaitCondition lasts 12 hours at most and its handle's URL 24 hours from the handle's creation, so a longer
wait is a chain of windows. A window that is not the last is ended with success a while before its time, and
the next one goes on waiting; only the last one can time out.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from aws_lambda_powertools import Logger
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session

from distilled_router.aws.custom_resource import shortened
from distilled_router.release.table import FAILED, LIVE, RETIRED, SUPERSEDED, Releases

logger = Logger(child=True)

_PREFIX = "wait@"


@dataclass(frozen=True)
class Window:
    """One WaitCondition's window. `url` is a secret: whoever has it can end the wait."""

    digest: str
    number: int
    last: bool
    url: str
    ends_at: int

    @property
    def key(self) -> str:
        """The item's id in the releases table."""
        return f"{_PREFIX}{self.digest}@{self.number}"


def send_signal(url: str, body: bytes) -> bool:
    """PUT a signal to a handle's URL; whether it arrived. The content type must be empty, or the URL's
    signature does not match. AWS_CA_BUNDLE is followed as every AWS client follows it."""
    verify: Any = os.environ.get("AWS_CA_BUNDLE") or True
    session = URLLib3Session(verify=verify, timeout=10)
    request = AWSRequest("PUT", url, headers={"Content-Type": ""}, data=body).prepare()
    try:
        return bool(session.send(request).status_code < 300)
    except BotoCoreError:
        return False


class WaitConditions:
    """The registered windows, in the releases table."""

    def __init__(
        self,
        table: Any,
        now: Callable[[], float] = time.time,
        put: Callable[[str, bytes], bool] = send_signal,
    ) -> None:
        """Wrap the releases table."""
        self._table, self._now, self._put = table, now, put

    def register(self, window: Window) -> None:
        """Remember a window; registering it again changes nothing."""
        self._table.put_item(Item={"id": window.key, **asdict(window)})

    def remove(self, digest: str, number: int) -> None:
        """Forget a window: its stack no longer waits."""
        self._table.delete_item(Key={"id": f"{_PREFIX}{digest}@{number}"})

    def windows(self) -> Iterator[Window]:
        """Every window that still waits."""
        pages = self._table.meta.client.get_paginator("scan").paginate(
            TableName=self._table.name, ConsistentRead=True
        )
        for page in pages:
            for item in page["Items"]:
                if str(item["id"]).startswith(_PREFIX):
                    yield Window(
                        str(item["digest"]),
                        int(item["number"]),
                        bool(item["last"]),
                        str(item["url"]),
                        int(item["ends_at"]),
                    )

    def settle(self, releases: Releases, margin_seconds: float = 0) -> int:
        """End each window whose release has ended, or whose time ends within the margin while others follow.

        Returns how many were ended. A signal that does not arrive stays registered, and is sent again by the
        next call.
        """
        ended = 0
        for window in self.windows():
            outcome = self._outcome(window, releases, margin_seconds)
            if outcome and self._signal(window, *outcome):
                self.remove(window.digest, window.number)
                ended += 1
        return ended

    def _outcome(self, window: Window, releases: Releases, margin: float) -> tuple[bool, str] | None:
        release = releases.get(window.digest)
        if release and release.state in {LIVE, RETIRED}:
            return True, f"release {release.digest} is live"
        if release and release.state in {FAILED, SUPERSEDED}:
            return False, f"release {release.digest} {release.state}: {release.message}"
        if not window.last and window.ends_at - self._now() < margin:
            return True, f"release {window.digest} goes on; the next window waits for it"
        return None

    def _signal(self, window: Window, succeeded: bool, reason: str) -> bool:
        status = "SUCCESS" if succeeded else "FAILURE"
        signal = {
            "Status": status,
            "UniqueId": f"{window.digest}-{window.number}",
            "Data": reason[:200],
            "Reason": shortened(reason),
        }
        arrived = self._put(window.url, json.dumps(signal).encode())
        logger.info(
            "window ended", release=window.digest, window=window.number, status=status, arrived=arrived
        )
        return arrived
