"""Ask a model by Converse and read its reply.

The router, the evaluation, the probes of a rollout and the labelling all ask through this module, so a
request, a reply and a failed call mean the same to each of them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

from distilled_router.aws.errors import code, described, is_throttle
from distilled_router.task.task import InvalidOutput, Task

CONCURRENCY = 8
"""Calls at a time where many queries are asked. A deployment of Nova Micro takes 2,000 requests a minute, so
that this leaves room for live traffic."""

CUT_OFF = frozenset({"max_tokens", "model_context_window_exceeded"})
"""Stop reasons of a reply that lacks its end."""

GUARDED = frozenset({"content_filtered", "guardrail_intervened"})
"""Stop reasons of a reply that a guardrail or a content filter replaced or masked."""

FOREIGN = "the response is not Bedrock's"
"""The text of a reply with status 200 that something other than Bedrock gave."""

Reason = Literal[
    "denied",
    "error",
    "model_error",
    "not_found",
    "not_ready",
    "refused",
    "throttled",
    "timed_out",
    "unavailable",
    "unreachable",
]
"""Why a call brought no reply. With `refused`, Bedrock answered that it does not take the request."""

HOPELESS: frozenset[Reason] = frozenset({"denied", "not_found"})
"""Reasons that seldom pass by themselves, except in the first minutes of a role or of an endpoint."""

_REASONS: Mapping[str, Reason] = {
    "AccessDeniedException": "denied",
    "ExpiredTokenException": "denied",
    "InternalServerException": "unavailable",
    "ModelErrorException": "model_error",
    "ModelNotReadyException": "not_ready",
    "ModelTimeoutException": "timed_out",
    "ResourceNotFoundException": "not_found",
    "ServiceQuotaExceededException": "throttled",
    "ServiceUnavailableException": "unavailable",
    "UnrecognizedClientException": "denied",
    "ValidationException": "refused",
}
# These errors may quote the request, so their text is not logged.
_QUOTING = frozenset({"refused", "model_error"})


class NoReplyError(Exception):
    """A call brought no reply. The text may quote the query; `loggable` never does."""

    def __init__(self, reason: Reason, text: str, loggable: str = "") -> None:
        super().__init__(text)
        self.reason = reason
        self.loggable = loggable

    @classmethod
    def from_client_error(cls, error: ClientError) -> Self:
        """Return the meaning of an error that Bedrock answered with."""
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        known = "throttled" if is_throttle(error) else _REASONS.get(code(error))
        # An unknown error may quote the query, so its text is not logged.
        quotes = known is None or known in _QUOTING
        return cls(known or _by_status(status), described(error), code(error) if quotes else described(error))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A system prompt, and how its answer is generated."""

    text: str
    max_tokens: int
    temperature: float = 0.0

    @classmethod
    def student(cls, task: Task) -> Self:
        """Return the short prompt that the student was trained with."""
        return cls(task.student_prompt, task.most_tokens())

    @classmethod
    def base(cls, task: Task) -> Self:
        """Return the teacher's full prompt for the base model, with room for a short reasoning."""
        return cls(task.teacher_prompt, max(200, task.most_tokens("json")))

    @classmethod
    def teacher(cls, task: Task, *, max_tokens: int, temperature: float) -> Self:
        """Return the full prompt with the labelling's token limit and temperature."""
        return cls(task.teacher_prompt, max_tokens, temperature)


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's reply.

    Attributes:
        text: All text blocks in their order, one a line. Reasoning and other blocks are left out.
        stop_reason: Why the model stopped, as Converse spells it; empty if unknown.
        input_tokens: Tokens of the request; 0 if the response has no usage.
        output_tokens: Tokens of the reply, reasoning included; 0 if the response has no usage.
        latency_ms: Milliseconds that Bedrock took; None if the response does not say.
        retries: How often botocore repeated the call before this reply.
    """

    text: str
    stop_reason: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    latency_ms: float | None = None
    retries: int = 0

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """Read a response of Converse, or of InvokeModel in the form of Nova or Anthropic.

        Nothing is taken for granted: whatever is missing or null counts as empty.
        """
        message = _mapping(_mapping(body.get("output")).get("message")) or body
        usage, latency = _mapping(body.get("usage")), _mapping(body.get("metrics")).get("latencyMs")
        return cls(
            text=_text(message.get("content")),
            stop_reason=str(body.get("stopReason") or body.get("stop_reason") or ""),
            input_tokens=int(usage.get("inputTokens") or usage.get("input_tokens") or 0),
            output_tokens=int(usage.get("outputTokens") or usage.get("output_tokens") or 0),
            latency_ms=None if latency is None else float(latency),
            retries=int(_mapping(body.get("ResponseMetadata")).get("RetryAttempts") or 0),
        )

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Read an output record of a batch inference job.

        Raises:
            NoReplyError: Bedrock wrote an error in place of the model's output.
        """
        output, given = record.get("modelOutput"), record.get("error")
        if isinstance(output, Mapping) and not given:
            try:
                return cls.read(output)
            except (TypeError, ValueError, OverflowError):  # tokens or a latency that are no numbers
                return cls.read({**output, "usage": None, "metrics": None, "ResponseMetadata": None})
        error = _mapping(given)
        status = str(error.get("errorCode") or "")
        said = error.get("errorMessage") or next(
            (text for text in (given, output) if isinstance(text, str)), ""
        )
        text = f"{status} {said}".strip() or "no answer"
        raise NoReplyError(_by_status(int(status) if status.isdecimal() else 0), text, status)

    @property
    def is_empty(self) -> bool:
        """Return whether the model wrote no text."""
        return not self.text.strip()

    def weights(self, task: Task) -> dict[str, float]:
        """Return the weights in the text.

        The text decides, not the stop reason: a reply that was cut off after its weights, or only masked by a
        guardrail, still holds an answer.

        Raises:
            InvalidOutput: The text holds no weights. The message says if the reply was cut off or guarded.
        """
        if self.is_empty:
            raise InvalidOutput(f"empty answer ({self.stop_reason or 'no reason'})")
        try:
            return task.parse(self.text)
        except InvalidOutput as error:
            if self.stop_reason not in CUT_OFF | GUARDED:
                raise
            what = "cut off" if self.stop_reason in CUT_OFF else "guarded"
            raise InvalidOutput(f"{what} ({self.stop_reason}): {error.problem}", self.text) from None


def asked(query: str) -> str:
    """Return the text that a model is asked for a query: single spaces, Unicode's composed form (NFC).

    The router's cache uses the same text as its key: queries that are answered alike are asked alike. Letter
    case and look-alike characters stay as they are, because models answer by them (decision 29).
    """
    return " ".join(unicodedata.normalize("NFC", query).split())


def request(prompt: Prompt, query: str) -> dict[str, Any]:
    """Return a request in Converse's form, without a model: a batch record's `modelInput`.

    The query is the user's turn and nothing else, as in the training rows.
    """
    return {
        "system": [{"text": prompt.text}],
        "messages": [{"role": "user", "content": [{"text": asked(query)}]}],
        "inferenceConfig": {"maxTokens": prompt.max_tokens, "temperature": prompt.temperature},
    }


def ask(runtime: Any, model: str, prompt: Prompt, query: str) -> Reply:
    """Ask a model once. `runtime` is a bedrock-runtime client, `model` an id or ARN that can be invoked.

    Raises:
        NoReplyError: The call failed.
    """
    try:
        response = runtime.converse(modelId=model, **request(prompt, query))
    except ClientError as error:
        raise NoReplyError.from_client_error(error) from error
    except (ConnectTimeoutError, ReadTimeoutError) as error:
        raise NoReplyError("timed_out", str(error)) from error
    except BotoCoreError as error:
        # Resets and refused connections; an idle connection that was cut looks like this too.
        raise NoReplyError("unreachable", str(error), type(error).__name__) from error
    except Exception as error:
        # Imported here: it loads urllib3, which the router does without.
        from botocore.parsers import ResponseParserError

        # botocore's parser fails with AttributeError if the response is JSON and no object.
        if isinstance(error, ResponseParserError | AttributeError):
            raise NoReplyError("unavailable", FOREIGN, FOREIGN) from error
        raise
    if not _is_converse(response):
        raise NoReplyError("unavailable", FOREIGN, FOREIGN)
    try:
        return Reply.read(response)
    except (TypeError, ValueError, OverflowError) as error:  # tokens or a latency that are no numbers
        raise NoReplyError("unavailable", FOREIGN, FOREIGN) from error


def _is_converse(response: Any) -> bool:
    """Return whether a response with status 200 is Bedrock's, and not that of a proxy or another service."""
    body = _mapping(response)
    return bool(_mapping(_mapping(body.get("output")).get("message"))) and bool(body.get("stopReason"))


def _by_status(status: int) -> Reason:
    return "unavailable" if status >= 500 else "throttled" if status == 429 else "error"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(content: Any) -> str:
    blocks = content if isinstance(content, list) else []
    texts = (block.get("text") for block in blocks if isinstance(block, Mapping))
    return "\n".join(text for text in texts if isinstance(text, str))
