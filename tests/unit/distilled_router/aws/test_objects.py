"""Objects that somebody else replaced are recognised."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from distilled_router.aws.errors import ReplacedError
from distilled_router.aws.objects import Folder, Published, Seal
from local.bedrock.memory_s3 import MemoryS3

SEAL = Seal("the key in the table")
BODY = b"first row\nsecond row\n"


@pytest.fixture
def s3() -> MemoryS3:
    return MemoryS3()


def published(s3: MemoryS3) -> Published:
    s3.put_object(Bucket="data", Key="datasets/d/holdout.jsonl", Body=BODY)
    return Published.at("s3://data/datasets/d/holdout.jsonl", hashlib.sha256(BODY).hexdigest())


def folder(s3: Any, seal: Seal | None = SEAL, prefix: str = "releases/a-1/") -> Folder:
    return Folder(s3, "data", prefix, seal)


def replace(s3: MemoryS3, key: str, body: bytes, *, of: str = "") -> None:
    """Write an object, with the metadata of another one or of its earlier content."""
    metadata = s3.get_object(Bucket="data", Key=of or key)["Metadata"]
    s3.put_object(Bucket="data", Key=key, Body=body, Metadata=metadata)


def test_published_object_is_read_and_checked(s3: MemoryS3) -> None:
    found = published(s3)
    assert found.read(s3) == BODY
    found.check(s3)


def test_object_that_was_replaced_is_named_with_both_hashes(s3: MemoryS3) -> None:
    found = published(s3)
    s3.put_object(Bucket="data", Key=found.key, Body=b"other rows")
    for use in (found.read, found.check):
        with pytest.raises(ReplacedError) as error:
            use(s3)
        text = str(error.value)
        assert text.startswith("s3://data/datasets/d/holdout.jsonl was replaced after it was published")
        assert hashlib.sha256(b"other rows").hexdigest() in text
        assert f"expected {hashlib.sha256(BODY).hexdigest()}" in text
        assert "Delete the newer versions" in text


def test_object_that_is_gone_is_told_apart_from_one_that_nobody_hashed(s3: MemoryS3) -> None:
    found = published(s3)
    s3.objects.clear()
    with pytest.raises(ReplacedError, match="does not exist any more"):
        found.check(s3)
    # Nothing is known of it, so nothing is read.
    Published("data", "rows.jsonl").check(s3)


def test_sealed_files_are_read_back(s3: MemoryS3) -> None:
    folder(s3).write("plan.json", {"life": "1"})
    folder(s3).write_rows("rows.jsonl", [{"id": "\u2028"}, {"id": 2}])
    assert folder(s3).read("plan.json") == {"life": "1"}
    assert list(folder(s3).rows("rows.jsonl")) == [{"id": "\u2028"}, {"id": 2}]
    assert folder(s3).read("none.json") is None


@pytest.mark.parametrize("seal", [SEAL, None])
def test_bytes_are_read_back_as_they_were_written(s3: MemoryS3, seal: Seal | None) -> None:
    content = bytes(range(256))
    assert folder(s3, seal).read_bytes("state.bin") is None
    assert folder(s3, seal).write_bytes("state.bin", content) == hashlib.sha256(content).hexdigest()
    assert folder(s3, seal).read_bytes("state.bin") == content


def test_replaced_bytes_are_not_used(s3: MemoryS3) -> None:
    folder(s3).write_bytes("state.bin", b"ours")
    s3.put_object(Bucket="data", Key="releases/a-1/state.bin", Body=b"theirs")
    with pytest.raises(ReplacedError, match="was replaced"):
        folder(s3).read_bytes("state.bin")


@pytest.mark.parametrize("seal", [SEAL, None])
def test_hash_of_written_rows_is_that_of_the_object(s3: MemoryS3, seal: Seal | None) -> None:
    told = folder(s3, seal).write_rows("rows.jsonl", [{"id": 1}])
    assert told == hashlib.sha256(s3.objects["data", "releases/a-1/rows.jsonl"]).hexdigest()


def test_sealed_file_that_was_replaced_is_not_used(s3: MemoryS3) -> None:
    folder(s3).write_rows("rows.jsonl", [{"id": 1}])
    replace(s3, "releases/a-1/rows.jsonl", b'{"id": 2}\n')
    rows = folder(s3).rows("rows.jsonl")
    with pytest.raises(ReplacedError) as error:
        next(rows)
    text = str(error.value)
    assert text.startswith("s3://data/releases/a-1/rows.jsonl was not written by these functions")
    assert "found another one" in text
    assert hashlib.sha256(b'{"id": 2}\n').hexdigest() in text


def test_right_seal_of_another_content_is_never_told(s3: MemoryS3) -> None:
    """Otherwise the error would help to forge it."""
    folder(s3).write("plan.json", {"id": 1})
    s3.put_object(Bucket="data", Key="releases/a-1/plan.json", Body=b"{}")
    with pytest.raises(ReplacedError) as error:
        folder(s3).read("plan.json")
    assert "found none" in str(error.value)
    assert SEAL.of("s3://data/releases/a-1/plan.json", b"{}") not in str(error.value)
    assert "the key" not in repr(SEAL)


@pytest.mark.parametrize(("prefix", "key"), [("releases/a-1/", "b.json"), ("releases/a-2/", "a.json")])
def test_seal_is_for_one_name(s3: MemoryS3, prefix: str, key: str) -> None:
    folder(s3).write("a.json", {"id": 1})
    body = s3.objects["data", "releases/a-1/a.json"]
    s3.put_object(Bucket="data", Key=f"{prefix}{key}", Body=body)
    replace(s3, f"{prefix}{key}", body, of="releases/a-1/a.json")
    with pytest.raises(ReplacedError):
        folder(s3, prefix=prefix).read(key)


def test_content_of_another_name_is_not_part_of_the_name(s3: MemoryS3) -> None:
    """Otherwise an object without its first row would be read as that row's, under a longer name."""
    folder(s3).write_rows("rows.jsonl", [{"id": 1}, {"id": 2}])
    key = 'rows.jsonl\n{"id": 1}'
    s3.put_object(Bucket="data", Key=f"releases/a-1/{key}", Body=b"")
    replace(s3, f"releases/a-1/{key}", b'{"id": 2}\n', of="releases/a-1/rows.jsonl")
    with pytest.raises(ReplacedError):
        list(folder(s3).rows(key))


def test_another_key_opens_no_seal(s3: MemoryS3) -> None:
    folder(s3, Seal("another key")).write("plan.json", {"id": 1})
    with pytest.raises(ReplacedError):
        folder(s3).read("plan.json")


def test_only_what_was_there_before_needs_no_seal(s3: MemoryS3) -> None:
    folder(s3, None).write("plan.json", {"id": 1})
    now = datetime.now(UTC).timestamp()
    assert folder(s3, Seal("key", since=now + 3600)).read("plan.json") == {"id": 1}
    with pytest.raises(ReplacedError):
        folder(s3, Seal("key", since=now - 3600)).read("plan.json")


def test_what_bedrock_writes_is_read_without_a_seal(s3: MemoryS3) -> None:
    s3.put_object(Bucket="data", Key="releases/a-1/out.jsonl", Body=b"{}\n")
    assert list(folder(s3).unsealed.rows("out.jsonl")) == [{}]


def test_lines_of_bedrock_that_are_no_objects_are_left_out(s3: MemoryS3) -> None:
    lines = b'{"a": 1}\n\nnull\n[]\n"x"\n\xff\n' + b"[" * 100_000 + b'\n{"b": 2}\n{"cut": "o'
    s3.put_object(Bucket="data", Key="releases/a-1/out.jsonl", Body=lines)
    assert list(folder(s3).bedrock_rows("out.jsonl")) == [{"a": 1}, {"b": 2}]


def test_existing_file_is_not_created_again(s3: MemoryS3) -> None:
    assert folder(s3).create("life.json", {"life": 1})
    assert not folder(s3).create("life.json", {"life": 2})
    assert folder(s3).read("life.json") == {"life": 1}


def test_rows_with_half_a_character_are_written(s3: MemoryS3) -> None:
    """A model's answer may be cut within an emoji; nothing that is paid for is lost by it."""
    folder(s3).write_rows("answers.jsonl", [{"text": "visual \ud83d"}, {"text": "audio"}])
    assert list(folder(s3).rows("answers.jsonl")) == [{"text": "visual ?"}, {"text": "audio"}]
