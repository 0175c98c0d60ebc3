"""Every place that asks a model reads the same reply alike: router, evaluation, probes, labelling."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, get_args

import pytest
from aws_lambda_powertools import Logger
from botocore.exceptions import ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError
from botocore.parsers import ResponseParserError

from distilled_router.aws.errors import ResourceError
from distilled_router.task.converse import NoReplyError, Prompt, Reason, Reply, ask, asked, request
from distilled_router.task.task import InvalidOutput, Task
from evaluation.ask_models import ask as ask_for_evaluation
from evaluation.contenders import Contender
from evaluation.metrics import Question
from labelling import batch, calls
from labelling.records import Record
from rollout.metrics import Count
from rollout.probes import Probes
from router.budget import Budget
from router.sources import Models
from tests.unit.labelling.scenes import PLAN
from tests.unit.router.doubles import client_error

TASK = Task.load()
QUERY = "dog barking"
WEIGHTS = {"visual": 0.85, "audio": 0.0, "transcription": 0.05, "metadata": 0.1}
ANSWER = TASK.render(WEIGHTS)
BLOCKED = "Sorry, this request is blocked by our policy."
REASONING = {"reasoningContent": {"reasoningText": {"text": "A dog barks: 0 100 0 0", "signature": "x"}}}
LINE = json.dumps(
    {
        "schemaVersion": "bedrock-conversation-2024",
        "system": [{"text": TASK.student_prompt}],
        "messages": [
            {"role": "user", "content": [{"text": QUERY}]},
            {"role": "assistant", "content": [{"text": ANSWER}]},
        ],
    }
)


def reply(*content: dict[str, Any], stop: str = "end_turn", **changes: Any) -> dict[str, Any]:
    """A response of Converse with these content blocks."""
    return {
        "output": {"message": {"role": "assistant", "content": list(content)}},
        "stopReason": stop,
        "usage": {"inputTokens": 40, "outputTokens": 11, "totalTokens": 51},
        "metrics": {"latencyMs": 300},
        **changes,
    }


VALID: Mapping[str, dict[str, Any]] = {
    "one block": reply({"text": ANSWER}),
    "two blocks, the answer in the second": reply({"text": "The weights are:"}, {"text": ANSWER}),
    "two blocks, the first ends in a full stop": reply({"text": "Done."}, {"text": ANSWER}),
    "two blocks, the answer in the first": reply({"text": ANSWER}, {"text": "That's all."}),
    "two blocks, the first empty": reply({"text": ""}, {"text": ANSWER}),
    "two blocks that share the answer": reply({"text": "85 0"}, {"text": "5 10"}),
    "reasoning beside text": reply(REASONING, {"text": ANSWER}),
    "cut off after the answer": reply({"text": f"{ANSWER} be"}, stop="max_tokens"),
    "no usage": {name: value for name, value in reply({"text": ANSWER}).items() if name != "usage"},
    "usage is null": reply({"text": ANSWER}, usage=None),
}
INVALID: Mapping[str, dict[str, Any]] = {
    "no content": reply(),
    "content is null": reply(output={"message": {"role": "assistant", "content": None}}),
    "an empty block": reply({"text": ""}),
    "two blank blocks": reply({"text": " "}, {"text": "\n"}),
    "reasoning alone": reply(REASONING, stop="max_tokens"),
    "two answers that differ": reply({"text": ANSWER}, {"text": "0 100 0 0"}),
    "a number that is split": reply({"text": "85 0 5 1"}, {"text": "0"}),
    "cut off": reply({"text": "85 0"}, stop="max_tokens"),
    "stopped by a guardrail": reply({"text": BLOCKED}, stop="guardrail_intervened"),
    "filtered": reply({"text": BLOCKED}, stop="content_filtered"),
    "prose without usage": reply({"text": "mostly pictures"}, usage=None),
}
# Status 200, but from a proxy, a gateway or another service: botocore reads what it knows of it.
FOREIGN: Mapping[str, dict[str, Any]] = {
    "nothing that botocore knows": {"ResponseMetadata": {"HTTPStatusCode": 200}},
    "output is null": reply(output=None),
    "message is null": reply(output={"message": None}),
    "no stop reason": reply({"text": ANSWER}, stop=""),
    "tokens that are no numbers": reply({"text": ANSWER}, usage={"inputTokens": "many"}),
    "a latency that is no number": reply({"text": ANSWER}, metrics={"latencyMs": []}),
}


@dataclass
class Runtime:
    """Stands in for a bedrock-runtime client that gives one reply. `texts` are those that it was asked."""

    reply: dict[str, Any] | Exception
    texts: list[str] = field(default_factory=list)

    def within(self, seconds: float) -> Self:
        """Return the same client, as the router's has it."""
        return self

    def converse(self, **request: Any) -> dict[str, Any]:
        """Return the reply, or raise it."""
        self.texts.append(request["messages"][0]["content"][0]["text"])
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


class HoldOut:
    """Stands in for an S3 client with one object: a hold-out set of one line."""

    def get_object(self, **_: Any) -> dict[str, Any]:
        """Return the object."""
        return {"Body": Lines(LINE.encode())}


class Lines(io.BytesIO):
    """The body of an object, as botocore streams it."""

    def iter_lines(self) -> Iterator[bytes]:
        """Yield the lines."""
        yield from self


class Output:
    """Stands in for the folder that a batch job wrote to: one record."""

    def __init__(self, row: dict[str, Any]) -> None:
        self._row = row

    def names(self, target: str) -> list[str]:
        """Return the one file's key."""
        return [f"{target}x/input.jsonl.out"]

    def bedrock_rows(self, _: str) -> list[dict[str, Any]]:
        """Return its one record."""
        return [self._row]


type Weights = dict[str, float] | None
RECORD = Record(number=1, sample=0, query=QUERY)


def by_router(given: dict[str, Any]) -> Weights:
    models = Models(Runtime(given), TASK, Logger(), quota=2000)
    return models.ask(
        "m", Prompt.student(TASK), QUERY, caller="direct", budget=Budget(60.0), at_most=60.0, now=0.0
    ).weights


def by_evaluation(given: dict[str, Any]) -> Weights:
    question = Question("q", "holdout", QUERY, WEIGHTS)
    answer = ask_for_evaluation(Contender(name="candidate", title=""), question, Runtime(given), TASK)
    # A reply that is no answer counts as a wrong answer, never as a failed call.
    assert answer.was_given
    return None if answer.weights is None else dict(answer.weights)


def by_probes(given: dict[str, Any]) -> Weights:
    probes = Probes(runtime=Runtime(given), s3=HoldOut(), task=TASK, bucket="b", holdout_key="k")
    asked = probes.ask(["endpoint"], 1, latency_margin=0.5, digest="d")
    found = asked.candidate
    assert found.counts["fallback_rate"] == found.counts["invalid_output_rate"]
    return WEIGHTS if found.counts["fallback_rate"] == Count(0, 1) else None


def by_single_calls(given: dict[str, Any]) -> Weights:
    answer = calls.ask(Runtime(given), [RECORD], PLAN, TASK)[0][RECORD.id]
    assert answer.asked
    return answer.weights


def by_batch(given: dict[str, Any]) -> Weights:
    output: Any = Output({"recordId": RECORD.id, "modelInput": {}, "modelOutput": given})
    answer = batch.answers(output, "output/", TASK)[RECORD.id]
    assert answer.asked
    return answer.weights


USERS: tuple[Callable[[dict[str, Any]], Weights], ...] = (
    by_router,
    by_evaluation,
    by_probes,
    by_single_calls,
    by_batch,
)


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.__name__)
def test_every_user_finds_the_same_weights_in_a_reply(user: Callable[[dict[str, Any]], Weights]) -> None:
    found = {name: user(given) for name, given in VALID.items()}
    assert found == dict.fromkeys(VALID, WEIGHTS)


@pytest.mark.parametrize("user", USERS, ids=lambda user: user.__name__)
def test_every_user_refuses_the_same_replies(user: Callable[[dict[str, Any]], Weights]) -> None:
    found = {name: user(given) for name, given in INVALID.items()}
    assert found == dict.fromkeys(INVALID)


# What a reply without weights, and a call without a reply, mean.


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ("no content", "empty answer (end_turn)"),
        ("reasoning alone", "empty answer (max_tokens)"),
        ("cut off", "cut off (max_tokens): "),
        ("stopped by a guardrail", "guarded (guardrail_intervened): "),
        ("filtered", "guarded (content_filtered): "),
    ],
)
def test_problem_says_whether_a_reply_is_empty_cut_off_or_guarded(shape: str, problem: str) -> None:
    with pytest.raises(InvalidOutput) as caught:
        Reply.read(INVALID[shape]).weights(TASK)
    assert str(caught.value).startswith(problem)


def test_reply_has_usage_and_latency() -> None:
    assert Reply.read(VALID["reasoning beside text"]) == Reply(ANSWER, "end_turn", 40, 11, 300.0)
    assert Reply.read({"metrics": {}}) == Reply("")


@pytest.mark.parametrize(
    "body",
    [
        {
            "output": {"message": {"role": "assistant", "content": [{"text": ANSWER}]}},
            "stopReason": "end_turn",
            "usage": {"inputTokens": 40, "outputTokens": 11, "totalTokens": 51},
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "0 100 0 0"}, {"type": "text", "text": ANSWER}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": 40, "output_tokens": 11},
        },
    ],
    ids=["Converse and Nova", "Anthropic"],
)
def test_batch_record_is_read_in_each_form(body: dict[str, Any]) -> None:
    record = {"recordId": RECORD.id, "modelInput": {}, "modelOutput": body}
    assert Reply.from_record(record) == Reply(ANSWER, "end_turn", 40, 11)


@pytest.mark.parametrize(
    ("record", "reason", "text"),
    [
        ({"error": {"errorCode": 400, "errorMessage": "bad request"}}, "error", "400 bad request"),
        ({"error": {"errorCode": 429, "errorMessage": "too many"}}, "throttled", "429 too many"),
        ({"error": {"errorCode": "503"}}, "unavailable", "503"),
        ({"error": {"errorCode": 400}, "modelOutput": VALID["one block"]}, "error", "400"),
        ({"modelOutput": None}, "error", "no answer"),
        ({"modelOutput": None, "error": None}, "error", "no answer"),
        ({"error": "the model timed out", "modelOutput": None}, "error", "the model timed out"),
        ({"modelOutput": "the model timed out"}, "error", "the model timed out"),
        ({"error": {"errorCode": None, "errorMessage": None}}, "error", "no answer"),
        ({"error": ["bad"], "modelOutput": []}, "error", "no answer"),
        ({}, "error", "no answer"),
    ],
)
def test_batch_record_without_a_reply_says_why(record: dict[str, Any], reason: str, text: str) -> None:
    with pytest.raises(NoReplyError) as caught:
        Reply.from_record(record)
    assert (caught.value.reason, str(caught.value)) == (reason, text)


@pytest.mark.parametrize("count", [None, "many", [], {}, float("nan"), float("inf"), "1e999"])
def test_batch_answer_counts_whatever_its_numbers_are(count: Any) -> None:
    usage = {"inputTokens": count, "outputTokens": count}
    record = {"modelOutput": {**VALID["one block"], "usage": usage, "metrics": {"latencyMs": count}}}
    found = Reply.from_record(record)
    assert found.text == Reply.read(VALID["one block"]).text
    assert (found.input_tokens, found.output_tokens) == (0, 0)


FAILURES: tuple[tuple[Exception, Reason], ...] = (
    (client_error("AccessDeniedException", 403), "denied"),
    (client_error("ExpiredTokenException", 403), "denied"),
    (client_error("UnrecognizedClientException", 403), "denied"),
    (client_error("InternalServerException", 500), "unavailable"),
    (client_error("ServiceUnavailableException", 503), "unavailable"),
    (client_error("SomethingNew", 502), "unavailable"),
    (client_error("ModelErrorException", 424), "model_error"),
    (client_error("ModelNotReadyException", 429), "not_ready"),
    (client_error("ModelTimeoutException", 408), "timed_out"),
    (client_error("ResourceNotFoundException", 404), "not_found"),
    (client_error("ServiceQuotaExceededException"), "throttled"),
    (client_error("ThrottlingException", 429), "throttled"),
    (client_error("TooManyRequestsException", 429), "throttled"),
    (client_error("SomethingNew", 429), "throttled"),
    (client_error("ValidationException"), "refused"),
    (client_error("SomethingNew"), "error"),
    (ConnectTimeoutError(endpoint_url="https://x"), "timed_out"),
    (ReadTimeoutError(endpoint_url="https://x"), "timed_out"),
    (EndpointConnectionError(endpoint_url="https://x"), "unreachable"),
    (ResponseParserError("<html>a proxy's page</html>"), "unavailable"),
    (AttributeError("'list' object has no attribute 'get'"), "unavailable"),
)


def test_each_failure_has_one_meaning_and_no_reason_is_unused() -> None:
    for error, reason in FAILURES:
        with pytest.raises(NoReplyError) as caught:
            ask(Runtime(error), "m", Prompt.student(TASK), QUERY)
        assert caught.value.reason == reason, error
    assert {reason for _, reason in FAILURES} == set(get_args(Reason))


@pytest.mark.parametrize("code", ["ValidationException", "ModelErrorException", "SomethingNew"])
def test_text_of_an_error_that_may_quote_the_query_is_not_loggable(code: str) -> None:
    with pytest.raises(NoReplyError) as caught:
        ask(Runtime(client_error(code, message=f"{QUERY} is not allowed")), "m", Prompt.student(TASK), QUERY)
    assert caught.value.loggable == code
    assert str(caught.value) == f"{code}: {QUERY} is not allowed"


def test_no_user_takes_a_failed_call_for_an_answer() -> None:
    """A page that a proxy answers with, too, which botocore raises outside of its own errors."""
    question, contender = Question("q", "holdout", QUERY, WEIGHTS), Contender(name="candidate", title="")
    foreign: list[tuple[Any, Reason]] = [(given, "unavailable") for given in FOREIGN.values()]
    for given, reason in [*FAILURES, *foreign]:
        runtime = Runtime(given)
        evaluated = ask_for_evaluation(contender, question, runtime, TASK)
        assert (evaluated.weights, evaluated.was_given) == (None, False)
        probes = Probes(runtime=runtime, s3=HoldOut(), task=TASK, bucket="b", holdout_key="k")
        asked = probes.ask(["endpoint"], 1, latency_margin=0.5, digest="d")
        found = asked.candidate
        is_refusal = reason == "refused"
        assert evaluated.unavailable == reason
        assert asked.unasked == ({} if is_refusal else {reason: 1},)
        assert found.of("fallback_rate") == (Count(1, 1) if is_refusal else Count())
        assert not found.of("invalid_output_rate").bad
        if reason in {"denied", "not_found"}:
            with pytest.raises(ResourceError, match="can't be called"):
                calls.ask(runtime, [RECORD], PLAN, TASK)
        else:
            answers, later = calls.ask(runtime, [RECORD], PLAN, TASK)
            assert (answers | later)[RECORD.id].asked is False
            assert bool(later) == (reason in calls.PASSING)


@pytest.mark.parametrize("given", FOREIGN.values(), ids=FOREIGN)
def test_reply_that_is_not_bedrocks_is_a_failed_call_and_no_output_of_the_model(
    given: dict[str, Any],
) -> None:
    with pytest.raises(NoReplyError) as caught:
        ask(Runtime(given), "m", Prompt.student(TASK), QUERY)
    assert caught.value.reason == "unavailable"


# The text that is asked.


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("dog  barking", "dog barking"),
        (" dog\u00a0barking\n", "dog barking"),
        ("cafe\u0301", "caf\u00e9"),
        ("The Who live in the US", "The Who live in the US"),
        ("\uff44og \ufb01ght \u2122", "\uff44og \ufb01ght \u2122"),
    ],
)
def test_text_differs_from_its_query_by_spaces_and_composed_characters_only(query: str, text: str) -> None:
    assert asked(query) == text
    assert asked(text) == text


@pytest.mark.parametrize("user", [by_router, by_evaluation, by_probes, by_single_calls])
def test_every_user_asks_the_same_text(
    user: Callable[[Any], Weights], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the evaluation would judge answers that no caller gets."""
    query = " The  Cafe\u0301 \uff34V"
    asking: list[Runtime] = []
    create = Runtime

    def runtime(given: Any) -> Runtime:
        asking.append(create(given))
        return asking[-1]

    monkeypatch.setattr(f"{__name__}.Runtime", runtime)
    monkeypatch.setattr(f"{__name__}.LINE", LINE.replace(QUERY, query))
    monkeypatch.setattr(f"{__name__}.QUERY", query)
    monkeypatch.setattr(f"{__name__}.RECORD", Record(number=1, sample=0, query=query))
    user(VALID["one block"])
    assert asking[0].texts == [asked(query)]
    assert request(Prompt.student(TASK), query)["messages"][0]["content"] == [{"text": asked(query)}]
