"""What AWS's errors mean to us, and how long a call that failed is tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as UnreachableError

THROTTLES = frozenset({"ThrottlingException", "TooManyRequestsException", "Throttling"})
# IAM is eventually consistent: Bedrock refuses a role that was made seconds ago with this text.
ROLE_NOT_READY = "could not assume provided iam role"


class ResourceError(Exception):
    """A custom resource or a release can't go on. The text names the resource, what was found, what is
    allowed and the next step; it becomes the reason that CloudFormation or the notification shows."""


class NotYetError(ResourceError):
    """The same call may succeed soon, and may be made again at no cost. The text says what stood in the way,
    for whoever has waited long enough."""


def code(error: ClientError) -> str:
    """The error's code, e.g. `ConflictException`."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def message(error: ClientError) -> str:
    """The error's text as the service wrote it."""
    return str(error.response.get("Error", {}).get("Message", error))


def is_missing(error: ClientError) -> bool:
    """Whether the service says that the thing does not exist."""
    return code(error) in {
        "ResourceNotFoundException",
        "NoSuchKey",
        "NoSuchVersion",
        "NoSuchBucket",
        "404",
    }


def is_gone(error: ClientError, look: Callable[[], object | None]) -> bool:
    """Whether a call failed because its thing is no longer there; `look` answers None where it is not.

    What has gone has no tags: where a role may touch only what carries the owner's, IAM may refuse the call
    before the service can say that there is no such thing. So a refusal is looked into.
    """
    return is_missing(error) or (code(error) == "AccessDeniedException" and look() is None)


def is_conflict(error: ClientError) -> bool:
    """Whether the thing is in use, or in a state that forbids the call."""
    return code(error) == "ConflictException"


def is_throttle(error: ClientError) -> bool:
    """Whether the call may simply be made again, later."""
    return code(error) in THROTTLES


def is_transient(error: Exception) -> bool:
    """Whether the call failed for a reason that passes: it was throttled, the service broke, or the answer
    did not arrive, in which case the call may have been carried out."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        return is_throttle(error) or status >= 500
    return isinstance(error, UnreachableError | HTTPClientError)


def described(error: ClientError | BotoCoreError) -> str:
    """Code and text of a service's error, or what went wrong on the way to it."""
    return f"{code(error)}: {message(error)}" if isinstance(error, ClientError) else str(error)


def is_role_not_ready(error: ClientError) -> bool:
    """Whether Bedrock could not assume a role, which is normal in the first minute of the role's life."""
    return code(error) == "ValidationException" and ROLE_NOT_READY in message(error).lower()


def is_mutating(error: ClientError) -> bool:
    """Whether a deployment is being created or updated, so that it can't be changed or deleted yet."""
    return code(error) == "ValidationException" and "mutating state" in message(error).lower()


def or_none[T](call: Callable[..., T], **parameters: Any) -> T | None:
    """The call's answer, or None where the service says that the thing does not exist."""
    try:
        return call(**parameters)
    except ClientError as error:
        if is_missing(error):
            return None
        raise


def with_retries[T](
    call: Callable[[], T],
    *,
    retryable: Callable[[ClientError], bool],
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> T:
    """Make a call again, with full jitter, while its error is retryable and the time lasts.

    Raises the last error once `seconds` have passed, so a caller's own deadline is never overrun by more
    than one call.
    """
    end = now() + seconds
    pause = 1.0
    while True:
        try:
            return call()
        except ClientError as error:
            wait = random.uniform(pause / 2, pause)  # noqa: S311  # jitter, not a secret
            if not retryable(error) or now() + wait > end:
                raise
            sleep(wait)
            pause = min(pause * 2, 15.0)
