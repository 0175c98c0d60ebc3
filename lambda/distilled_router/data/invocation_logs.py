"""Read queries and answers from Bedrock's model invocation logs.

A log object is gzip with one JSON record a line. Its key is `<folder>AWSLogs/<account>/
BedrockModelInvocationLogs/<Region>/<year>/<month>/<day>/<hour>/<name>.gz`. A body of more than 100 KB is an
object of its own below `data/`, named by `inputBodyS3Path` or `outputBodyS3Path` (Bedrock user guide,
model-invocation-logging; records published by aws-samples). The user guide tells the fields only by
examples, so nothing is taken for granted here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from distilled_router.data.labelling_plan import QUERY_MARK
from distilled_router.task.converse import Reply
from distilled_router.task.task import InvalidOutput, Task

# Longest record: two bodies of 100 KB, as JSON text in which each byte may be escaped, and the other fields.
MOST_RECORD_BYTES = 2**21

_FORM = "ModelInvocationLog"


class LeftOut(Exception):  # noqa: N818 - an expected outcome, which is counted
    """A record that doesn't count. `reason` is what many share; `example` describes this one."""

    def __init__(self, reason: str, example: str = "") -> None:
        super().__init__(reason)
        self.reason, self.example = reason, example


@dataclass(frozen=True, slots=True)
class Logged:
    """A logged query, and the weights in its answer in the order of the task's labels; None if unused."""

    query: str
    weights: tuple[float, ...] | None = None


def _elsewhere(uri: str) -> Any:
    raise LeftOut("bodies outside the folder of the logs", uri)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which records count, and where their query is.

    Attributes:
        task: has the labels, and the longest query.
        metadata: pairs that a request must have as request metadata.
        template: the user's turn around the query, such as `Query: {query}`.
        teacher: model whose answers are used, by its id or an inference profile's; empty if none are.
        body: returns a body that is an object of its own, by its S3 URI. Raises LeftOut if it can't be read.

    Example:
        >>> reader = Selection(task=Task.load(), template="Find: {query}")
        >>> turn = {"role": "user", "content": [{"text": "Answer in JSON. Find: a red car"}]}
        >>> record = {"schemaType": "ModelInvocationLog", "input": {"inputBodyJson": {"messages": [turn]}}}
        >>> reader.read(json.dumps(record).encode()).query
        'a red car'
    """

    task: Task
    metadata: Mapping[str, str] = field(default_factory=dict)
    template: str = QUERY_MARK
    teacher: str = ""
    body: Callable[[str], Any] = _elsewhere

    def read(self, line: bytes) -> Logged:
        """Return the query of a record, with its weights if answers are used.

        Raises:
            LeftOut: The record doesn't count.
        """
        record = _record(line)
        given = _mapping(record.get("requestMetadata"))
        if any(given.get(key) != value for key, value in self.metadata.items()):
            raise LeftOut("other request metadata")
        if record.get("errorCode"):
            raise LeftOut("failed calls", str(record["errorCode"]))
        model = str(record.get("modelId") or "")
        if self.teacher and model_of(model) != model_of(self.teacher):
            raise LeftOut("answers of other models than the teacher", model)
        texts, begun = _turns(self._body(record, "input"))
        query = query_in(texts, self.template, self.task)
        return Logged(query, self._weights(self._body(record, "output"), begun) if self.teacher else None)

    def _body(self, record: Mapping[str, Any], part: str) -> Any:
        known = _mapping(record.get(part))
        if (body := known.get(f"{part}BodyJson")) is not None:
            return body
        uri = known.get(f"{part}BodyS3Path")
        if not isinstance(uri, str):
            raise LeftOut(f"no {part} in the record")
        return self.body(uri)

    def _weights(self, body: Any, begun: str) -> tuple[float, ...]:
        try:
            reply = _reply(body, self.task.labels)
            weights = replace(reply, text=f"{begun}{reply.text}").weights(self.task)
        except InvalidOutput as error:
            # Whoever asked, this is their text: it isn't quoted.
            raise LeftOut("answers without the task's weights", error.problem) from error
        except (TypeError, ValueError, OverflowError) as error:  # counts of tokens that are no numbers
            raise LeftOut("answers in an unknown form", type(error).__name__) from error
        return tuple(weights[label] for label in self.task.labels)


def query_in(texts: Sequence[str], template: str, task: Task) -> str:
    """Return the query in the text blocks of a user's turn, without spaces around it.

    Raises:
        LeftOut: They have no query that the task allows. A reason that is about the template calls it
            `dataset.log_query`.
    """
    if len(texts) > 1 and template == QUERY_MARK:
        raise LeftOut("several text blocks in the user's turn (set dataset.log_query to mark the query)")
    query = _marked("\n".join(texts), template).strip()
    if not query:
        raise LeftOut("empty queries")
    if len(query) > (most := task.max_query_characters):
        raise LeftOut(f"queries of more than {most} characters (set dataset.log_query to mark the query)")
    return query


def model_of(identifier: str) -> str:
    """Return a model's own id, given that, its ARN, or the id or ARN of one of its inference profiles.

    >>> model_of("arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.amazon.nova-pro-v1:0")
    'amazon.nova-pro-v1:0'
    """
    name = identifier.rsplit("/", 1)[-1]
    # Ids are `<provider>.<model>`; a profile's has its geography in front, e.g. `us.`, `global.`, `us-gov.`.
    geography, _, rest = name.partition(".")
    return rest if geography in _GEOGRAPHIES else name


_GEOGRAPHIES = frozenset({"us", "us-gov", "eu", "apac", "jp", "au", "ca", "global"})


def _record(line: bytes) -> Mapping[str, Any]:
    if len(line) > MOST_RECORD_BYTES:
        raise LeftOut(f"records of more than {MOST_RECORD_BYTES:,} bytes")
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LeftOut("lines that are not JSON", type(error).__name__) from error
    if not isinstance(record, dict) or record.get("schemaType") != _FORM:
        raise LeftOut(f"lines that are not of the type {_FORM}")
    return record


def _turns(body: Any) -> tuple[list[str], str]:
    """Return the text blocks of the one user turn, and how the request begins the answer.

    The body is in Converse's, Nova's or Anthropic's form. A request that ends with the assistant's turn
    begins the answer, such as "{" for JSON, and the model continues it.
    """
    messages = _mapping(body).get("messages")
    if not isinstance(messages, list) or not messages:
        raise LeftOut("requests without messages")
    turns = [_mapping(message) for message in messages]
    if [turn.get("role") for turn in turns] not in (["user"], ["user", "assistant"]):
        raise LeftOut("conversations of several turns")
    asked, *begun = (_texts(turn.get("content")) for turn in turns)
    return asked, "\n".join(begun[0]) if begun else ""


def _texts(content: Any) -> list[str]:
    """Return the text blocks of a turn that has no others."""
    if isinstance(content, str):
        return [content]
    blocks = [_mapping(block) for block in content] if isinstance(content, list) else []
    texts = [block.get("text") for block in blocks if "cachePoint" not in block]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise LeftOut("requests with more than text")
    return [str(text) for text in texts]


def _marked(text: str, template: str) -> str:
    """Return the query in a text. The last occurrence counts: prompts give examples before it."""
    before, _, after = template.partition(QUERY_MARK)
    if before and before not in text:
        raise LeftOut("user turns without the text of dataset.log_query before the query")
    query = text.rpartition(before)[2] if before else text
    if not after:
        return query
    if query.rstrip().endswith(after):
        return query.rstrip().removesuffix(after)
    if after not in query:
        raise LeftOut("user turns without the text of dataset.log_query after the query")
    return query.partition(after)[0]


def _reply(body: Any, labels: Sequence[str]) -> Reply:
    """Return the answer; a list holds the events of a stream, in Nova's or Anthropic's form.

    If weights are given to a tool, these are the text: a tool's schema is how many callers get JSON (Nova
    user guide, generating structured output).
    """
    if not isinstance(body, list):
        reply, given = Reply.read(_mapping(body)), _tool_input(_mapping(body))
        return replace(reply, text=json.dumps(given)) if given.keys() & set(labels) else reply
    events = [_mapping(event) for event in body]
    deltas = [_mapping(_mapping(event.get("contentBlockDelta") or event).get("delta")) for event in events]
    return Reply("".join(delta["text"] for delta in deltas if isinstance(delta.get("text"), str)))


def _tool_input(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the input of the first tool that an answer uses, in Converse's, Nova's or Anthropic's form."""
    message = _mapping(_mapping(body.get("output")).get("message")) or body
    content = message.get("content")
    blocks = [_mapping(block) for block in content] if isinstance(content, list) else []
    used = (block if block.get("type") == "tool_use" else _mapping(block.get("toolUse")) for block in blocks)
    return next((given for use in used if (given := _mapping(use.get("input")))), {})


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
