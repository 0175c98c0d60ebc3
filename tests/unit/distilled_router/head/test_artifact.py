from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distilled_router.head import artifact
from distilled_router.head.artifact import MOST_BYTES, HeadError, Trained
from distilled_router.head.features import BUCKETS
from distilled_router.head.model import Head
from distilled_router.task.task import Task
from tests.unit.cpu_time import takes_less
from tests.unit.distilled_router.head.scenes import rows, signed

FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


def changed(content: bytes, **values: Any) -> bytes:
    """Return a head's file with other values in its first line, and the right SHA-256."""
    line, _, body = content.partition(b"\n")
    fields = {**json.loads(line), **values}
    del fields["sha256"]
    return signed(('", ' + json.dumps(fields)[1:] + "\n").encode() + body)


def test_a_read_head_is_the_written_one(content: bytes, small: Trained, task: Task) -> None:
    found, threshold = artifact.read(content, task.labels)

    assert (found.rows, found.categories, found.scale, threshold) == (
        *(small.rows, small.categories, small.scale),
        0.03,
    )
    assert found.about["release"] == "0123456789ab"
    assert artifact.write(found, threshold=0.03, about={}) == content


def test_the_file_has_no_text_of_a_query(content: bytes, task: Task) -> None:
    assert not [row.query for row in rows(task) if row.query.encode() in content]
    assert b"barking" not in content


@given(data=st.data())
@FILES
def test_cut_or_changed_files_are_refused(content: bytes, task: Task, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 2_000))
    flipped = bytearray(content)
    flipped[place] ^= data.draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]))

    for wrong in (content[:place], content[place:] if place else b"", bytes(flipped), content + b"\x00"):
        with pytest.raises(HeadError):
            Head.read(wrong, task.labels)


@given(st.binary(max_size=2_000))
@FILES
def test_any_bytes_are_refused(task: Task, wrong: bytes) -> None:
    for content in (wrong, signed(wrong), signed(b'", ' + wrong)):
        with pytest.raises(HeadError):
            Head.read(content, task.labels)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("format", "features", "labels", "categories", "scale", "longest", "threshold", "about", "bytes")


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, min_size=1))
@FILES
def test_first_lines_that_are_written_by_hand_are_refused_or_harmless(
    content: bytes, task: Task, values: dict[str, Any]
) -> None:
    try:
        head = Head.read(changed(content, **values), task.labels)
    except HeadError:
        return
    answer = head.answer("a red car")
    assert abs(sum(answer.weights.values()) - 1) < 1e-3
    assert answer.risk >= 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 2}, "another version of the project"),
        ({"features": 99}, "another version of the project"),
        ({"labels": ["billing", "technical", "account"]}, "of another task"),
        ({"scale": float("nan")}, "first line"),
        ({"scale": 0}, "scale 0"),
        ({"threshold": -0.1}, "threshold -0.1"),
        ({"longest": -1}, "longest -1"),
        ({"categories": [[0.5, 0.5, 0.5, 0.0]]}, "whose sum is 1"),
        ({"categories": []}, "0 categories"),
        ({"categories": [[1.0, 0.0, 0.0, 0.0]] * 64}, "64 categories"),
        ({"categories": [[1.0, 0.0, 0.0, 0.0]]}, "bytes of weights"),
        ({"about": []}, "about list"),
    ],
)
def test_errors_name_the_value(content: bytes, task: Task, values: dict[str, Any], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        Head.read(changed(content, **values), task.labels)


def test_deep_and_large_files_are_refused_at_once(content: bytes, task: Task) -> None:
    def refuse() -> None:
        for wrong in (b"[" * 900_000, signed(b'", "a": ' + b"[" * 30_000), bytes(50_000_000), content * 3):
            with pytest.raises(HeadError):
                Head.read(wrong, task.labels)

    assert takes_less(refuse, 0.5)


def test_largest_head_is_within_the_limit(task: Task) -> None:
    category = tuple(0.123456 for _ in range(20))
    labels = tuple(f"label_{number}_{'x' * 30}" for number in range(20))
    largest = Trained(
        labels=labels,
        categories=(category,) * 63,
        rows=bytes(BUCKETS * 64),
        scale=0.012345678901234567,
        longest=512,
        about={"training": "0" * 64},
    )

    assert len(artifact.write(largest, threshold=0.0123456789, about={"a": "0" * 500})) <= MOST_BYTES
    with pytest.raises(HeadError, match="bytes, expected at most"):
        artifact.write(largest, threshold=None, about={"a": "0" * 40_000})
