"""Which records of invocation logs are queries of the task, and what their answers say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from distilled_router.data.invocation_logs import MOST_RECORD_BYTES, LeftOut, Logged, Selection, model_of
from distilled_router.task.task import Task
from tests.unit.logged import TEACHER, answered, line, record, turn

TASK = Task.load()
READER = Selection(task=TASK)
LABELLED = Selection(task=TASK, teacher=TEACHER)
WEIGHTS = (0.85, 0.0, 0.05, 0.1)
FULL = '{"visual": 0.85, "audio": 0, "transcription": 0.05, "metadata": 0.1, "reasoning": "seen, not heard"}'
MARKED = Selection(task=TASK, template='Query: "{query}"')


def left_out(reader: Selection, value: object) -> str:
    with pytest.raises(LeftOut) as caught:
        reader.read(value if isinstance(value, bytes) else line(value))
    return caught.value.reason


def asked(body: Any) -> dict[str, Any]:
    return record(input={"inputContentType": "application/json", "inputBodyJson": body})


def told(body: Any) -> dict[str, Any]:
    return record(output={"outputContentType": "application/json", "outputBodyJson": body})


def test_the_users_turn_is_the_query_and_its_answer_is_read_in_any_format() -> None:
    assert LABELLED.read(line(record("  a red car "))) == Logged("a red car", WEIGHTS)
    assert LABELLED.read(line(record(answer=f"```json\n{FULL}\n```"))).weights == WEIGHTS


def test_answers_are_not_read_if_they_are_not_used() -> None:
    assert READER.read(line(record(answer="no weights", output=None, modelId="other"))) == Logged("a red car")


@pytest.mark.parametrize(
    "body",
    [
        {"schemaVersion": "messages-v1", "system": [{"text": "…"}], "messages": [turn("a red car")]},
        {"anthropic_version": "bedrock-2023-05-31", "messages": [{"role": "user", "content": "a red car"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a red car"}]}]},
        {
            "messages": [
                {"role": "user", "content": [{"text": "a red car"}, {"cachePoint": {"type": "default"}}]}
            ]
        },
    ],
    ids=["nova", "anthropic", "anthropic blocks", "cache point"],
)
def test_requests_of_converse_and_of_invoke_model_are_read(body: dict[str, Any]) -> None:
    assert READER.read(line(asked(body))).query == "a red car"


@pytest.mark.parametrize(
    "body",
    [
        {"type": "message", "content": [{"type": "text", "text": "85 0 5 10"}], "stop_reason": "end_turn"},
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"delta": {"text": "85 0"}, "contentBlockIndex": 0}},
            {"contentBlockDelta": {"delta": {"text": " 5 10"}, "contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
        ],
        [
            {"type": "message_start", "message": {"role": "assistant", "content": []}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "85 0 "}},
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "5 10"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        ],
    ],
    ids=["anthropic", "nova stream", "anthropic stream"],
)
def test_answers_of_invoke_model_and_of_streams_are_read(body: Any) -> None:
    assert LABELLED.read(line(told(body))).weights == WEIGHTS


@pytest.mark.parametrize(("begun", "answer"), [("{", FULL[1:]), ("```json\n", f"{FULL}\n")])
def test_an_answer_that_the_request_began_is_read_whole(begun: str, answer: str) -> None:
    """Nova's user guide recommends it for JSON: the model continues the assistant's turn."""
    body = {"messages": [turn("a red car"), {"role": "assistant", "content": [{"text": begun}]}]}
    found = record(answer=answer, input={"inputBodyJson": body})
    assert LABELLED.read(line(found)) == Logged("a red car", WEIGHTS)
    assert READER.read(line(found)) == Logged("a red car")


@pytest.mark.parametrize(
    "body",
    [
        {
            "output": {
                "message": {
                    "role": "assistant",
                    "content": [
                        {"text": "I use the tool."},
                        {"toolUse": {"toolUseId": "1", "name": "route", "input": json.loads(FULL)}},
                    ],
                }
            },
            "stopReason": "tool_use",
        },
        {
            "type": "message",
            "content": [{"type": "tool_use", "id": "1", "name": "route", "input": json.loads(FULL)}],
            "stop_reason": "tool_use",
        },
    ],
    ids=["converse", "anthropic"],
)
def test_weights_given_to_a_tool_are_an_answer(body: Any) -> None:
    """A tool's schema is how many callers get JSON."""
    assert LABELLED.read(line(told(body))).weights == WEIGHTS


def test_weights_in_the_text_count_beside_another_tool() -> None:
    blocks = [{"text": "85 0 5 10"}, {"toolUse": {"name": "log", "input": {"page": 1}}}]
    body = {"output": {"message": {"role": "assistant", "content": blocks}}}
    assert LABELLED.read(line(told(body))).weights == WEIGHTS


@pytest.mark.parametrize("given", [None, "text", {"name": "route"}, {"input": None}, {"input": {"page": 1}}])
def test_tools_that_get_no_weights_are_no_answer(given: Any) -> None:
    body = {"output": {"message": {"role": "assistant", "content": [{"toolUse": given}]}}}
    assert left_out(LABELLED, told(body)) == "answers without the task's weights"


@pytest.mark.parametrize(
    "text",
    [
        'Route this. Example: Query: "blue car" -> visual. Now:\nQuery: "a red car"',
        'Query: "a red car"\nAnswer in JSON only.',
        'Query: "a red car"  \n',
    ],
)
def test_the_query_is_where_the_setting_says(text: str) -> None:
    assert MARKED.read(line(record(text))).query == "a red car"
    blocks = {"messages": [{"role": "user", "content": [{"text": "Route this."}, {"text": text}]}]}
    assert MARKED.read(line(asked(blocks))).query == "a red car"


def test_quotes_in_a_query_stay() -> None:
    assert MARKED.read(line(record('Query: "the "red" car"'))).query == 'the "red" car'


def test_bodies_of_their_own_are_read_where_the_reader_finds_them() -> None:
    bodies = {
        "s3://logs/data/1_input.json.gz": {"messages": [turn("a red car")]},
        "s3://logs/data/1_output.json.gz": answered("85 0 5 10"),
    }
    reader = Selection(task=TASK, teacher=TEACHER, body=bodies.__getitem__)
    found = record(
        input={"inputBodyS3Path": "s3://logs/data/1_input.json.gz"},
        output={"outputBodyS3Path": "s3://logs/data/1_output.json.gz"},
    )
    assert reader.read(line(found)) == Logged("a red car", WEIGHTS)
    assert left_out(LABELLED, found) == "bodies outside the folder of the logs"


CASES: list[tuple[object, str]] = [
    (b"{", "lines that are not JSON"),
    (b"[" * 100_000, "lines that are not JSON"),
    (b"x" * (MOST_RECORD_BYTES + 1), "records of more than"),
    (["a", "list"], "lines that are not of the type ModelInvocationLog"),
    ({**record(), "schemaType": "CloudTrail"}, "lines that are not of the type ModelInvocationLog"),
    (record(errorCode="ThrottlingException"), "failed calls"),
    (record(input=None), "no input in the record"),
    (record(input={"inputBodyJson": None}), "no input in the record"),
    (asked("text"), "requests without messages"),
    (asked({"prompt": "a red car"}), "requests without messages"),
    (asked({"messages": []}), "requests without messages"),
    (asked({"messages": [turn("a"), {"role": "assistant"}, turn("b")]}), "conversations of several turns"),
    (asked({"messages": [{"role": "assistant", "content": [{"text": "a"}]}]}), "conversations of several"),
    (asked({"messages": [turn("a"), turn("b")]}), "conversations of several"),
    (
        asked({"messages": [turn("a"), {"role": "assistant", "content": [{"image": {}}]}]}),
        "with more than text",
    ),
    (asked({"messages": [{"role": "user", "content": [{"image": {}}]}]}), "requests with more than text"),
    (asked({"messages": [{"role": "user", "content": [turn("a"), None]}]}), "requests with more than text"),
    (asked({"messages": [{"role": "user"}]}), "requests with more than text"),
    (asked({"messages": [{"role": "user", "content": [{"text": "a"}, {"text": "b"}]}]}), "several text"),
    (record("  "), "empty queries"),
    (record("x" * (TASK.max_query_characters + 1)), "set dataset.log_query"),
]
UNANSWERED: list[tuple[object, str]] = [
    (record(modelId="amazon.nova-micro-v1:0"), "answers of other models than the teacher"),
    (record(modelId=None), "answers of other models than the teacher"),
    (record(answer="I can't say."), "answers without the task's weights"),
    (record(output=None), "no output in the record"),
    (told({}), "answers without the task's weights"),
    (told({**answered("85 0 5 10"), "usage": {"inputTokens": "many"}}), "answers in an unknown form"),
    (told([None, 5, {"delta": 1}]), "answers without the task's weights"),
]


@pytest.mark.parametrize(("value", "reason"), CASES)
def test_what_is_no_query_of_one_turn_is_left_out(value: object, reason: str) -> None:
    assert reason in left_out(READER, value)


@pytest.mark.parametrize(("value", "reason"), UNANSWERED)
def test_what_has_no_answer_of_the_teacher_is_left_out(value: object, reason: str) -> None:
    assert reason in left_out(LABELLED, value)


def test_turns_without_the_marks_are_left_out() -> None:
    assert "before the query" in left_out(MARKED, record("a red car"))
    assert "after the query" in left_out(MARKED, record('Query: "a red car'))


@pytest.mark.parametrize("metadata", [None, {}, {"service": "ads"}, {"service": "search"}, "text"])
def test_all_filters_must_hold(metadata: Any) -> None:
    """Case B19."""
    reader = Selection(task=TASK, metadata={"service": "search", "stage": "prod"})
    assert left_out(reader, record(requestMetadata=metadata)) == "other request metadata"
    given = {"service": "search", "stage": "prod", "more": "x"}
    assert reader.read(line(record(requestMetadata=given))).query == "a red car"


@pytest.mark.parametrize(
    "identifier",
    [
        "amazon.nova-pro-v1:0",
        "us.amazon.nova-pro-v1:0",
        "global.amazon.nova-pro-v1:0",
        "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0",
        "arn:aws:bedrock:us-east-1:111122223333:inference-profile/us.amazon.nova-pro-v1:0",
    ],
)
def test_a_model_is_the_same_by_all_its_names(identifier: str) -> None:
    assert model_of(identifier) == "amazon.nova-pro-v1:0"


def test_an_application_profile_names_no_model() -> None:
    """Its ARN has an id in place of a model's, so its answers may be any model's."""
    profile = "arn:aws:bedrock:us-east-1:111122223333:application-inference-profile/abcd1234"
    with pytest.raises(LeftOut) as caught:
        LABELLED.read(line(record(modelId=profile)))
    assert caught.value.example == profile
