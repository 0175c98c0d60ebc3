"""Settings of the data set."""

import re
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from stacks.settings.fields import Section, not_allowed

# Bedrock's own charset for keys (botocore: S3Uri), with the key required.
_S3_URI = re.compile(
    r"s3://(?P<bucket>[a-z0-9][-.a-z0-9]{1,61}[a-z0-9])/(?P<key>[-!_*'().a-z0-9A-Z]+(?:/[-!_*'().a-z0-9A-Z]+)*)"
)
_FILE = re.compile(r"([^/\\:\x00-\x1f]+/)*[^/\\:\x00-\x1f]+\.jsonl")
_VERSION = re.compile(r"[A-Za-z0-9._~+/=-]{1,1024}")


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of an S3 URI.

    Raises:
        ValueError: it isn't an S3 URI whose characters Bedrock accepts.

    >>> split_s3_uri("s3://examples/router/training.jsonl")
    ('examples', 'router/training.jsonl')
    """
    match = _S3_URI.fullmatch(uri)
    if match is None or len(uri) > 1024:
        raise ValueError(f"{uri!r} is not s3://bucket/key in the characters that Bedrock accepts")
    return match["bucket"], match["key"]


Location = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        json_schema_extra={"x-allowed": "a .jsonl path inside the project, or s3://bucket/key"},
    ),
]


class Dataset(Section):
    """Training and hold-out data, as JSON lines."""

    source: Literal["file", "s3"] = Field(
        description='Where the two files are: "file" in this project, "s3" in a versioned bucket.'
    )
    training: Location = Field(
        description="Rows that the student learns from: a .jsonl path relative to the project's root, or "
        "s3://bucket/key without spaces, colons, equals signs or double slashes (botocore: S3Uri).",
    )
    holdout: Location = Field(
        description="Rows that the release is judged on and never trained on; written like training.",
    )
    training_version: str | None = Field(
        default=None,
        validate_default=True,
        description="Version id of the training object: required for s3, because the names of job and model "
        "follow from it; refused for file. Default: none.",
    )
    holdout_version: str | None = Field(
        default=None,
        validate_default=True,
        description="Version id of the hold-out object, likewise. Default: none.",
    )

    @field_validator("training", "holdout")
    @classmethod
    def _check_location(cls, value: str, info: ValidationInfo) -> str:
        match info.data.get("source"):
            case "file" if not _FILE.fullmatch(value) or ".." in value.split("/"):
                raise not_allowed(
                    'a .jsonl path inside the project, relative to its root, because source is "file"'
                )
            case "s3" if not _S3_URI.fullmatch(value):
                raise not_allowed(
                    "s3://bucket/key whose key holds only letters, digits, single slashes and -!_*'(). "
                    '(botocore: S3Uri), because source is "s3"'
                )
        if info.field_name == "holdout" and value == info.data.get("training"):
            raise not_allowed(
                "another file than dataset.training: a hold-out set that was trained on proves nothing"
            )
        return value

    @field_validator("training_version", "holdout_version")
    @classmethod
    def _check_version(cls, value: str | None, info: ValidationInfo) -> str | None:
        source = info.data.get("source")
        if source == "file" and value is not None:
            raise not_allowed('nothing, because source is "file": a file is known by its content')
        # "null" is the version of an object that can be overwritten: the digest would not follow its content.
        if source == "s3" and (value is None or value == "null" or not _VERSION.fullmatch(value)):
            raise not_allowed('the S3 version id of the object in a versioned bucket, because source is "s3"')
        return value
