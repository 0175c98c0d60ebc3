"""What a batch inference job wrote is read as it is, since it is paid for: nothing in it raises."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from distilled_router.aws.objects import Folder, json_lines
from labelling import batch
from labelling.answers import Answer
from local.bedrock.memory_s3 import MemoryS3
from tests.unit.labelling.scenes import BUCKET, TASK

WEIGHTS = dict(zip(TASK.labels, (0.85, 0.0, 0.05, 0.1), strict=True))
GOOD = {"output": {"message": {"content": [{"text": TASK.render(WEIGHTS)}]}}, "stopReason": "end_turn"}
USAGE = {"inputTokens": 40, "outputTokens": 11}


def answers(*lines: Any) -> dict[str, Answer]:
    """Return the answers in a job's output; a line is an object, or its text."""
    s3 = MemoryS3()
    content = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    s3.put_object(Bucket=BUCKET, Key="labels/output/x/input.jsonl.out", Body=content.encode(errors="replace"))
    s3.put_object(Bucket=BUCKET, Key="labels/output/x/manifest.json.out", Body=b"{}")
    return batch.answers(Folder(s3, BUCKET, "labels/"), "output/", TASK)


def test_odd_records_are_no_answers_and_the_others_count() -> None:
    found = answers(
        {"recordId": "Q1", "modelOutput": {**GOOD, "usage": USAGE}},
        {"recordId": "Q2", "modelOutput": None},
        {"recordId": "Q3", "error": "the model timed out"},
        {"recordId": "Q4", "modelOutput": {**GOOD, "usage": {"inputTokens": None, "outputTokens": "many"}}},
        {"recordId": "Q5", "modelOutput": {**GOOD, "usage": None, "metrics": None}},
        {"recordId": "Q6", "modelOutput": {"output": None, "stopReason": None}},
        {"modelOutput": GOOD},
        {"recordId": None, "modelOutput": GOOD},
        "null",
        "[1]",
        '{"recordId": "Q7", "modelOu',
    )
    assert list(found) == ["Q1", "Q2", "Q3", "Q4", "Q5", "Q6"]
    assert found["Q1"] == Answer(WEIGHTS, input_tokens=40, output_tokens=11)
    assert found["Q2"] == Answer(reason="no answer", asked=False)
    assert found["Q3"] == Answer(reason="the model timed out", asked=False)
    assert found["Q4"] == found["Q5"] == Answer(WEIGHTS)
    assert found["Q6"] == Answer(reason="empty answer (no reason)")


def test_half_a_character_in_an_answer_can_be_kept() -> None:
    """An answer that is cut within an emoji; the shard's file is written with all reasons."""
    cut = {"message": {"content": [{"text": "visual \ud83d"}]}}
    found = answers(
        {"recordId": "Q1", "modelOutput": {"output": cut, "stopReason": "max_tokens"}},
        {"recordId": "Q2", "error": {"errorCode": 400, "errorMessage": "bad \ud83d"}},
    )
    assert len(list(json_lines(asdict(one) for one in found.values()))) == 2
    assert "bad ?" in found["Q2"].reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["output", "message", "content", "text", "usage", "inputTokens", "metrics", "latencyMs"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.fixed_dictionaries({}, optional={"recordId": JSON, "modelOutput": JSON, "error": JSON}))
def test_no_output_raises(record: dict[str, Any]) -> None:
    found = answers(record, {"recordId": "last", "modelOutput": GOOD})
    assert found["last"] == Answer(WEIGHTS)
