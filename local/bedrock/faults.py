"""Injected faults, for tests and demonstrations."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from local.bedrock.errors import CONFLICT, NOT_FOUND

#: The call is not executed: kind to the error's code and text.
CALL_ERRORS: Mapping[str, tuple[str, str]] = {
    "throttled": ("ThrottlingException", "Too many requests, please wait before trying again."),
    "denied": ("AccessDeniedException", "You don't have sufficient access to perform this action."),
    "failed": ("InternalServerException", "An internal server error occurred. Retry your request."),
    "unavailable": ("ServiceUnavailableException", "The service isn't currently available."),
    "validation": ("ValidationException", "The request is invalid."),
    "conflict": ("ConflictException", CONFLICT),
    "not_found": ("ResourceNotFoundException", NOT_FOUND),
    "not_ready": ("ModelNotReadyException", "The model is not ready to serve inference requests."),
    "model_error": (
        "ModelErrorException",
        "The system encountered an unexpected error during processing. Try your request again.",
    ),
    "model_timeout": (
        "ModelTimeoutException",
        "Model has timed out in processing the request. Try your request again.",
    ),
    "over_quota": ("ServiceQuotaExceededException", "The number of requests exceeds the service quota."),
}
#: Texts of a ValidationException while a new role or its policy takes effect.
ROLE_TEXTS = (
    "Could not assume provided IAM role. Please verify that the role exists.",
    "Could not validate GetObject permissions to access Amazon S3 bucket: data at key training.jsonl",
    "Could not validate ListBucket permissions for S3URI s3://data/in/",
    "Amazon S3 perms missing (PutObject): s3://data/out/.write_access_check_file.tmp",
)
#: The call is executed, but its response comes late, byte by byte, or not at all, or is somebody else's.
CALL_EFFECTS = ("slow", "dribble", "lost_response", "foreign")
#: What may answer with status 200 in place of Bedrock: a proxy, a gateway, a service behind a wrong name.
FOREIGN = {
    "html": b"<!doctype html><title>Sign in to continue</title>",
    "empty": b"",
    "object": b"{}",
    "list": b"[]",
    "message": b'{"message": "ok"}',
    "output": b'{"output": {"message": null}, "stopReason": "end_turn"}',
}
#: The next resource of this kind fails or stalls. `job_stalled` keeps a job in the queue, `training_stalled`
#: in training. Batch jobs, deployments and throughput stall until the faults are cleared.
RESOURCE_KINDS = (
    "job_stalled",
    "training_stalled",
    "job_failed",
    "job_stopped",
    "deployment_stalled",
    "deployment_failed",
    "deployment_update_failed",
    "throughput_stalled",
    "throughput_failed",
    "throughput_update_stalled",
    "throughput_update_failed",
    "evaluation_stalled",
    "evaluation_failed",
    "batch_stalled",
)
#: A model's next answers are malformed.
OUTPUT_KINDS = (
    "output_prose",
    "output_wrapped",
    "output_truncated",
    "output_empty",
    "output_wrong_sum",
    "output_negative",
    "output_not_numbers",
    "output_too_few",
    "output_two_blocks",
    "output_reasoning",
    "output_no_content",
    "output_cut_off",
    "output_guarded",
)
KINDS = (*CALL_ERRORS, *CALL_EFFECTS, *RESOURCE_KINDS, *OUTPUT_KINDS)


@dataclass(kw_only=True)
class Fault:
    """An injected fault.

    Args:
        kind: one of `KINDS`.
        count: how many calls, resources or answers it affects; None: all until the next reset.
        skip: how many matching calls, resources or answers pass first.
        operation: the affected operation, for faults of calls; "*" is any.
        message: replaces the usual text.
        milliseconds: the delay of `slow`, and after each byte of `dribble`.
        modelId: limits faults of calls and answers to one model: the id in the call, or the name of the
            deployment or throughput with that ARN, or the name or ARN of its custom model. A test can use a
            name before the ARN exists.
        answer: what a caller sees of `lost_response`, a "dropped" connection or an "error" 500; and of
            `foreign`, one of `FOREIGN`.
    """

    kind: str
    count: int | None = 1
    skip: int = 0
    operation: str | None = None
    message: str | None = None
    milliseconds: float | None = None
    modelId: str | None = None  # noqa: N815 - as the API spells it
    answer: str = "dropped"

    def shown(self) -> dict[str, Any]:
        """Return the fault as the control endpoint shows it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Faults:
    """The faults that are still to happen, in the order in which they were added."""

    def __init__(self, operations: set[str]) -> None:
        self._operations = operations
        self._pending: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, given: Mapping[str, Any]) -> Fault:
        """Add a fault, given by the arguments of `Fault`.

        Raises:
            ValueError: the fault is invalid; the text says what is allowed.
        """
        allowed = [field.name for field in fields(Fault)]
        if unknown := sorted(given.keys() - set(allowed)):
            raise ValueError(f"unknown members {unknown}; a fault takes {', '.join(allowed)}")
        if given.get("kind") not in KINDS:
            raise ValueError(f"unknown kind {given.get('kind')!r}; use one of {', '.join(KINDS)}")
        fault = Fault(**given)
        self._check(fault)
        with self._lock:
            self._pending.append(fault)
        return fault

    def _check(self, fault: Fault) -> None:
        of_calls = fault.kind in CALL_ERRORS or fault.kind in CALL_EFFECTS
        if of_calls and fault.operation != "*" and fault.operation not in self._operations:
            raise ValueError(
                f"{fault.kind} needs an operation's name, or '*' for any, not {fault.operation!r}"
            )
        if not of_calls and fault.operation is not None:
            raise ValueError(f"{fault.kind} takes no operation")
        if fault.count is not None and (not isinstance(fault.count, int) or fault.count < 1):
            raise ValueError(
                f"count must be a whole number from 1, or null for no limit, not {fault.count!r}"
            )
        if not isinstance(fault.skip, int) or fault.skip < 0:
            raise ValueError(f"skip must be a whole number from 0, not {fault.skip!r}")
        if fault.kind in ("slow", "dribble") and not (
            isinstance(fault.milliseconds, int | float) and 0 <= fault.milliseconds <= 600_000
        ):
            raise ValueError(f"{fault.kind} needs milliseconds from 0 to 600000, not {fault.milliseconds!r}")
        answers = tuple(FOREIGN) if fault.kind == "foreign" else ("dropped", "error")
        if fault.answer not in answers:
            allowed = " or ".join(map(repr, answers))
            raise ValueError(f"answer must be {allowed}, not {fault.answer!r}")
        for name in ("message", "modelId"):
            if not isinstance(getattr(fault, name), str | None):
                raise ValueError(f"{name} must be a string, not {getattr(fault, name)!r}")

    def take(self, *kinds: str, operation: str | None = None, models: Collection[str] = ()) -> Fault | None:
        """Return the first matching fault of these kinds, and count it down.

        `models` are all identifiers of the invoked model.
        """
        if not self._pending:
            return None
        with self._lock:
            for fault in self._pending:
                fits = (
                    fault.kind in kinds
                    and (operation is None or fault.operation in ("*", operation))
                    and (fault.modelId is None or fault.modelId in models)
                )
                if fits and fault.skip:
                    fault.skip -= 1
                elif fits:
                    self._count_down(fault)
                    return fault
        return None

    def _count_down(self, fault: Fault) -> None:
        if fault.count is not None:
            fault.count -= 1
            if fault.count == 0:
                self._pending.remove(fault)

    def pending(self) -> list[dict[str, Any]]:
        """Return the faults that are still to happen."""
        with self._lock:
            return [fault.shown() for fault in self._pending]

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._pending.clear()
