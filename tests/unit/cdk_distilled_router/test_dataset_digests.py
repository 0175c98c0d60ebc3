"""The folders in which a data set is published, if their digests are not given."""

from __future__ import annotations

import aws_cdk as cdk
import pytest

from cdk_distilled_router import DatasetFile, DatasetFiles

ROWS = DatasetFile("uploads", "training.jsonl", version="v1")
HOLDOUT = DatasetFile("uploads", "holdout.jsonl", version="v1")


def test_files_with_versions_have_digests_of_16_hex_digits() -> None:
    files = DatasetFiles(training=ROWS, holdout=HOLDOUT)
    assert len({files.digest, files.holdout_digest}) == 2
    assert all(len(digest) == 16 and int(digest, 16) for digest in (files.digest, files.holdout_digest))


def test_another_version_changes_its_own_digest_only() -> None:
    before = DatasetFiles(training=ROWS, holdout=HOLDOUT)
    after = DatasetFiles(training=ROWS, holdout=DatasetFile("uploads", "holdout.jsonl", version="v2"))
    assert (after.digest, after.holdout_digest == before.holdout_digest) == (before.digest, False)


def test_content_counts_wherever_the_file_is() -> None:
    one = DatasetFile("uploads", "a.jsonl", content="0f3a")
    other = DatasetFile(cdk.Token.as_string({"Ref": "Bucket"}), "b.jsonl", content="0f3a")
    assert one.digest() == other.digest() != ROWS.digest()


def test_given_digests_are_kept() -> None:
    unknown = DatasetFile("uploads", "rows.jsonl")
    files = DatasetFiles(training=unknown, holdout=unknown, digest="a" * 16, holdout_digest="b" * 16)
    assert (files.digest, files.holdout_digest) == ("a" * 16, "b" * 16)


@pytest.mark.parametrize(
    "file",
    [
        DatasetFile("uploads", "rows.jsonl"),
        DatasetFile(cdk.Token.as_string({"Ref": "Bucket"}), "rows.jsonl", version="v1"),
    ],
)
def test_a_file_of_unknown_content_is_refused_with_what_to_give(file: DatasetFile) -> None:
    with pytest.raises(ValueError, match=r"file rows\.jsonl: .* give `version` or `content`"):
        DatasetFiles(holdout=file)
