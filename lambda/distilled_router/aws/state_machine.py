"""Build the results of a state machine's steps: data that its Choice states read.

Expected outcomes are data, never exceptions, so no state depends on the name of an error.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.errors import ReplacedError, is_transient

# A state's data is at most 262,144 bytes (Step Functions quotas); a reason needs far less.
MESSAGE_CHARACTERS = 2000
# The pause before the next try, as a share of the time so far, and its maximum. Nine events of a try (Step
# Functions: 25,000 in a history) then suffice for 900 in a month, however short the first pause is.
PAUSE_SHARE = 0.05
LONGEST_PAUSE_SECONDS = 3_600


class StageResult(TypedDict):
    """The result of a step: `waiting` repeats it after `seconds`, `done` leads to the next step.

    `files` holds the SHA-256 of the files that the step published, by name.
    """

    outcome: Literal["waiting", "done", "failed"]
    message: str
    seconds: int
    files: NotRequired[dict[str, str]]


def waiting(message: str, seconds: int) -> StageResult:
    """Return the result of a step that must be repeated after `seconds`."""
    return {"outcome": "waiting", "message": message[:MESSAGE_CHARACTERS], "seconds": max(seconds, 1)}


def done(message: str) -> StageResult:
    """Return the result of a step that is done."""
    return {"outcome": "done", "message": message[:MESSAGE_CHARACTERS], "seconds": 0}


def failed(message: str) -> StageResult:
    """Return the result of a step that ends the release or the labelling, with the reason."""
    return {"outcome": "failed", "message": message[:MESSAGE_CHARACTERS], "seconds": 0}


def not_in_progress(digest: str) -> StageResult:
    """Return the result of a step whose release ended meanwhile: superseded, or its stack is deleted."""
    return failed(f"release {digest} has already ended")


def waited(event: Mapping[str, Any], now: Callable[[], float] = time.time) -> float:
    """Return for how many seconds the stage of this event has run.

    It is 0 for an event without `since`, of an execution that began before its stages had it.
    """
    since = event.get("since")
    return max(now() - datetime.fromisoformat(str(since)).timestamp(), 0.0) if since else 0.0


def pause(seconds: float, least: int) -> int:
    """Return the pause before the next try of a step that has waited for some seconds.

    It grows, so that the events of a long wait fit into the execution's history.
    """
    return max(least, min(round(seconds * PAUSE_SHARE), LONGEST_PAUSE_SECONDS))


def wait_if_transient(step: Callable[[], StageResult], seconds: int) -> StageResult:
    """Return a step's result, or `waiting` if AWS throttled a call, failed or did not respond.

    A job that cost hours and money must not fail because of a call that would succeed a minute later. An
    object that somebody replaced is no reason to wait: the result is `failed`.
    """
    try:
        return step()
    except ReplacedError as error:
        return failed(str(error))
    except (ClientError, BotoCoreError) as error:
        if not is_transient(error):
            raise
        return waiting(f"AWS call failed temporarily; retrying: {error}", seconds)


def readable(reason: str) -> str:
    """Return a failed step's reason as text, also if it is the Lambda service's JSON of an exception."""
    try:
        error = json.loads(reason)
        reason = f"{error['errorType']}: {error['errorMessage']}"
    except (ValueError, LookupError, TypeError):
        pass
    return reason[:MESSAGE_CHARACTERS]
