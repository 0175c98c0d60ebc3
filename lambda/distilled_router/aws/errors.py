"""Classify the errors of AWS, and retry calls that failed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as UnreachableError

THROTTLES = frozenset({"ThrottlingException", "TooManyRequestsException", "Throttling"})
_MISSING = frozenset({"ResourceNotFoundException", "NoSuchKey", "NoSuchVersion", "NoSuchBucket", "404"})


class ResourceError(Exception):
    """A custom resource or a release can't continue.

    The text names the resource, what was found, what is allowed and the next step. CloudFormation and the
    notification show it as the reason.
    """


class NotYetError(ResourceError):
    """The call failed temporarily, and repeating it costs nothing. The text says why it failed."""


class ReplacedError(ResourceError):
    """An object is not the one that was published: somebody replaced it, or it is gone."""


def code(error: ClientError) -> str:
    """Return the error's code, e.g. `ConflictException`."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


def message(error: ClientError) -> str:
    """Return the error's text as the service wrote it."""
    return str(error.response.get("Error", {}).get("Message", error))


def is_missing(error: ClientError) -> bool:
    """Return whether the service says that the resource does not exist.

    Some of Bedrock's look-ups call the identifier of an unknown resource invalid, for example
    GetFoundationModel: "The provided model identifier is invalid."
    """
    if code(error) == "ValidationException":
        return "identifier is invalid" in message(error).lower()
    return code(error) in _MISSING


def is_gone(error: ClientError, read: Callable[[], object | None]) -> bool:
    """Return whether a call failed because its resource is gone. `read` returns None if it is.

    A deleted resource has no tags. Where a role may touch only resources with the owner's tag, IAM can refuse
    the call before the service reports that the resource is missing, so a refusal is checked by reading.
    """
    return is_missing(error) or (code(error) == "AccessDeniedException" and read() is None)


def is_conflict(error: ClientError) -> bool:
    """Return whether the resource is in use, or in a state that forbids the call."""
    return code(error) == "ConflictException"


def is_throttle(error: ClientError) -> bool:
    """Return whether the call was throttled and can be repeated later."""
    return code(error) in THROTTLES


def is_transient(error: Exception) -> bool:
    """Return whether the call failed temporarily: throttled, an error of the service, or no response.

    If no response arrived, the call may have taken effect.
    """
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        return is_throttle(error) or status >= 500
    return isinstance(error, UnreachableError | HTTPClientError)


def described(error: ClientError | BotoCoreError) -> str:
    """Return the code and text of a service's error, or the text of a failed connection."""
    return f"{code(error)}: {message(error)}" if isinstance(error, ClientError) else str(error)


def is_name_in_use(error: ClientError) -> bool:
    """Return whether a resource of that name exists. AWS does not document the error's class."""
    return code(error) in {"ConflictException", "ValidationException"} and "in use" in message(error).lower()


def is_mutating(error: ClientError) -> bool:
    """Return whether a deployment is being created or updated, so it can't be changed or deleted yet."""
    return code(error) == "ValidationException" and "mutating state" in message(error).lower()


def or_none[T](call: Callable[..., T], **parameters: Any) -> T | None:
    """Return the call's response, or None if the service says that the resource does not exist."""
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
    """Return the result of a call, repeated with full jitter while its error is retryable.

    Raises the last error once `seconds` have passed, so the caller's deadline is overrun by one call at most.
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
