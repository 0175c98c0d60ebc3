"""Faults that tests and demonstrations order."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

#: Answers in place of the call: kind to error code and text.
CALL_ERRORS: Mapping[str, tuple[str, str]] = {
    "throttled": ("ThrottlingException", "Too many requests, please wait before trying again."),
    "denied": ("AccessDeniedException", "You don't have sufficient access to perform this action."),
    "failed": ("InternalServerException", "An internal server error occurred. Retry your request."),
    "unavailable": ("ServiceUnavailableException", "The service isn't currently available."),
    "validation": ("ValidationException", "The request is invalid."),
    "conflict": ("ConflictException", "Error occurred because of a conflict while performing an operation."),
    "not_found": ("ResourceNotFoundException", "The specified resource was not found."),
    "not_ready": ("ModelNotReadyException", "The model is not ready to serve inference requests."),
    "over_quota": ("ServiceQuotaExceededException", "The number of requests exceeds the service quota."),
}
#: Around the call: it is executed, late or without an answer that arrives.
CALL_EFFECTS = ("slow", "lost_response")
#: What becomes of the next resource.
RESOURCE_KINDS = (
    "job_stalled",
    "job_failed",
    "job_stopped",
    "deployment_failed",
    "deployment_update_failed",
    "throughput_failed",
    "throughput_update_failed",
    "evaluation_stalled",
    "evaluation_failed",
)
#: What becomes of a model's next answers.
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
    """An order for a fault.

    `count` is for how many calls, resources or answers it stands; None means until the next reset. `skip`
    is how many that fit it lets pass before.
    `operation` goes with faults of calls ("*" is any), `message` replaces the usual text, `milliseconds` goes
    with `slow`, and `answer` says how a lost response is lost: the connection is "dropped" or the answer is
    an "error" 500.
    `modelId` narrows faults of calls and answers: to what a call names, or to the name of the deployment or
    throughput that has that ARN, or to the name or ARN of the custom model behind it. Names are known before
    there is an ARN.
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
        """The order as the control endpoint shows it."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Faults:
    """The orders still to be carried out, first come first served."""

    def __init__(self, operations: set[str]) -> None:
        self._operations = operations
        self._orders: list[Fault] = []
        self._lock = threading.Lock()

    def order(self, wanted: Mapping[str, Any]) -> Fault:
        """Take an order.

        Raises:
            ValueError: it makes no sense; the text says what does.
        """
        allowed = [field.name for field in fields(Fault)]
        if unknown := sorted(wanted.keys() - set(allowed)):
            raise ValueError(f"unknown members {unknown}; a fault takes {', '.join(allowed)}")
        if wanted.get("kind") not in KINDS:
            raise ValueError(f"unknown kind {wanted.get('kind')!r}; there are {', '.join(KINDS)}")
        fault = Fault(**wanted)
        self._check(fault)
        with self._lock:
            self._orders.append(fault)
        return fault

    def _check(self, fault: Fault) -> None:
        of_calls = fault.kind in CALL_ERRORS or fault.kind in CALL_EFFECTS
        if of_calls and fault.operation != "*" and fault.operation not in self._operations:
            raise ValueError(
                f"{fault.kind} needs an operation's name, or '*' for any, not {fault.operation!r}"
            )
        if not of_calls and fault.operation is not None:
            raise ValueError(f"{fault.kind} goes with no operation")
        if fault.count is not None and (not isinstance(fault.count, int) or fault.count < 1):
            raise ValueError(f"count must be a whole number from 1, or null for always, not {fault.count!r}")
        if not isinstance(fault.skip, int) or fault.skip < 0:
            raise ValueError(f"skip must be a whole number from 0, not {fault.skip!r}")
        if fault.kind == "slow" and not (
            isinstance(fault.milliseconds, int | float) and 0 <= fault.milliseconds <= 600_000
        ):
            raise ValueError(f"slow needs milliseconds from 0 to 600000, not {fault.milliseconds!r}")
        if fault.answer not in ("dropped", "error"):
            raise ValueError(f"answer must be 'dropped' or 'error', not {fault.answer!r}")
        for name in ("message", "modelId"):
            if not isinstance(getattr(fault, name), str | None):
                raise ValueError(f"{name} must be a text, not {getattr(fault, name)!r}")

    def take(self, *kinds: str, operation: str | None = None, models: Collection[str] = ()) -> Fault | None:
        """The first order of one of these kinds that fits, counted down. `models` are all ids of the model
        that is asked."""
        if not self._orders:
            return None
        with self._lock:
            for fault in self._orders:
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
                self._orders.remove(fault)

    def left(self) -> list[dict[str, Any]]:
        """The orders still to be carried out."""
        with self._lock:
            return [fault.shown() for fault in self._orders]

    def clear(self) -> None:
        """Forget all orders."""
        with self._lock:
            self._orders.clear()
