"""What a step of the release's state machine answers: data that its states choose on.

Expected outcomes are data, never exceptions, so that no state depends on the name of an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Literal, TypedDict

from botocore.exceptions import BotoCoreError, ClientError

from distilled_router.aws.errors import is_transient

# A state's data is at most 262,144 bytes (Step Functions quotas); a reason needs far less.
MESSAGE_CHARACTERS = 2000


class StageResult(TypedDict):
    """`waiting` asks to be called again after `seconds`, `done` leads to the next stage."""

    outcome: Literal["waiting", "done", "failed"]
    message: str
    seconds: int


def waiting(message: str, seconds: int) -> StageResult:
    """Not yet: call again in so many seconds."""
    return {"outcome": "waiting", "message": message[:MESSAGE_CHARACTERS], "seconds": max(seconds, 1)}


def done(message: str) -> StageResult:
    """This stage has reached its aim."""
    return {"outcome": "done", "message": message[:MESSAGE_CHARACTERS], "seconds": 0}


def failed(message: str) -> StageResult:
    """The release ends here, for this reason."""
    return {"outcome": "failed", "message": message[:MESSAGE_CHARACTERS], "seconds": 0}


def not_in_progress(digest: str) -> StageResult:
    """The release has ended while this stage was asked: another one took its place, or its stack goes."""
    return failed(f"release {digest} is not on its way any more")


def wait_if_transient(step: Callable[[], StageResult], seconds: int) -> StageResult:
    """A step's answer; where AWS throttled it, broke or did not answer, it is asked again after `seconds`.

    A job that cost hours and money does not fail by a call that would succeed a minute later.
    """
    try:
        return step()
    except (ClientError, BotoCoreError) as error:
        if not is_transient(error):
            raise
        return waiting(f"asked again later: {error}", seconds)


def readable(reason: str) -> str:
    """A stage's own reason, or what an exception in it left behind as the Lambda service's JSON."""
    try:
        error = json.loads(reason)
        reason = f"{error['errorType']}: {error['errorMessage']}"
    except (ValueError, LookupError, TypeError):
        pass
    return reason[:MESSAGE_CHARACTERS]
