"""A model's quota: calls beyond it are throttled, as Bedrock does. Time goes on as the test says."""

from __future__ import annotations

import threading
from typing import Any

from botocore.exceptions import ClientError


class Quota:
    """Stands in for a bedrock-runtime client whose account may make `rate` calls a second.

    Unused calls are saved up to `burst`. With `models`, only calls of these count and are throttled.
    """

    def __init__(
        self, runtime: Any, *, rate: float, burst: int, models: frozenset[str] = frozenset()
    ) -> None:
        self.throttled = 0
        self._runtime, self._models = runtime, models
        self._rate, self._burst, self._left = rate, burst, float(burst)
        self._lock = threading.Lock()

    def wait(self, seconds: float) -> None:
        """Let time go on."""
        self._left = min(self._left + seconds * self._rate, self._burst)

    def grant(self) -> None:
        """Allow one more call."""
        self._left += 1

    def converse(self, **request: Any) -> Any:
        """Make the call, or raise ThrottlingException."""
        if not self._models or request["modelId"] in self._models:
            with self._lock:
                if self._left < 1:
                    self.throttled += 1
                    raise ClientError(
                        {"Error": {"Code": "ThrottlingException", "Message": "Too many requests."}},
                        "Converse",
                    )
                self._left -= 1
        return self._runtime.converse(**request)
