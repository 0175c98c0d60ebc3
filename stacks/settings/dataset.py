"""Settings of the data set: its source and its labels."""

import re
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from cdk_distilled_router.props import Props, not_allowed
from distilled_router.data.labelling_plan import QUERY_MARK
from stacks.settings.fields import KeyArn

# Bedrock's own charset for keys (botocore: S3Uri), with the key required.
_S3_URI = re.compile(
    r"s3://(?P<bucket>[a-z0-9][-.a-z0-9]{1,61}[a-z0-9])/(?P<key>[-!_*'().a-z0-9A-Z]+(?:/[-!_*'().a-z0-9A-Z]+)*/?)"
)
_FILE = re.compile(r"([^/\\:\x00-\x1f]+/)*[^/\\:\x00-\x1f]+\.jsonl")
_QUERIES = re.compile(r"([^/\\:\x00-\x1f]+/)*[^/\\:\x00-\x1f]+\.(jsonl|txt|csv|tsv)")
_VERSION = re.compile(r"[A-Za-z0-9._~+/=-]{1,1024}")
_CONTENT = re.compile(r"[0-9a-f]{16}")
# The SHA-256 of a file, or an object and its version.
_COUNTED = r"^([0-9a-f]{64}|s3://[^?]+\?versionId=.+)$"
_DAY = '"2026-11-01"'
_S3_ONLY = (
    "s3://bucket/key whose key holds only letters, digits, single slashes and -!_*'(). (botocore: S3Uri)"
)


def split_s3_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an S3 URI; the key of a folder ends in a slash.

    Raises:
        ValueError: it is not an S3 URI, or has a character that Bedrock doesn't accept.

    >>> split_s3_uri("s3://examples/router/training.jsonl")
    ('examples', 'router/training.jsonl')
    """
    match = _S3_URI.fullmatch(uri)
    if match is None or len(uri) > 1024:
        raise ValueError(f"{uri!r} is not s3://bucket/key in the characters that Bedrock accepts")
    return match["bucket"], match["key"]


def is_s3(location: str | None) -> bool:
    """Return whether a location is an S3 URI and not a path in the project."""
    return bool(location and location.startswith("s3://"))


def is_folder(location: str) -> bool:
    """Return whether a location is an S3 folder."""
    return location.endswith("/")


Location = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1024,
        json_schema_extra={"x-allowed": "a .jsonl path inside the project, or s3://bucket/key"},
    ),
]
Day = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    Field(json_schema_extra={"x-allowed": f"a date in quotes, such as {_DAY}"}),
]
Metadata = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9\s._:/=+$@-]{1,256}$")]
"""A key or a value of request metadata (botocore: RequestMetadataMapKeyString)."""


class Dataset(Props):
    """Training and hold-out data, as JSON lines."""

    source: Literal["file", "s3", "invocation_logs"] = Field(
        description='"file": files in this project. "s3": objects in a versioned bucket. "invocation_logs": '
        "requests to a large model that Bedrock logged, as raw queries."
    )
    labels: Literal["given", "teacher"] = Field(
        default="given",
        validate_default=True,
        description='"given": the rows contain the answers, or Bedrock\'s own teacher run creates them. '
        '"teacher": the deployment asks the teacher with its full prompt to label raw queries, keeps the '
        "labels on which its answers agree, and splits off the hold-out set; see [labelling]. For "
        'invocation_logs, use_logged_answers decides. Default: "given".',
    )
    training: Location | None = Field(
        default=None,
        validate_default=True,
        description="Training rows: a .jsonl path relative to the project's root, or s3://bucket/key "
        "without spaces, colons, equals signs or double slashes (botocore: S3Uri). For given labels only. "
        "Default: none.",
    )
    queries: Location | None = Field(
        default=None,
        validate_default=True,
        description="Raw queries for the teacher to label: a .txt path (one query a line), a .csv or .tsv "
        'path (with columns "query" and "count"), a .jsonl path (objects with a string "query"), '
        "s3://bucket/key of such a file, or s3://bucket/folder/ for all files in a folder. Default: none.",
        json_schema_extra={
            "x-allowed": "a .txt, .csv, .tsv or .jsonl path inside the project, s3://bucket/key, or "
            "s3://bucket/folder/"
        },
    )
    logs: Location | None = Field(
        default=None,
        validate_default=True,
        description="For invocation_logs: the folder that model invocation logging writes to, "
        "s3://bucket/folder/, in the stack's Region. The account's logging configuration is never changed. "
        "Default: none.",
        json_schema_extra={"x-allowed": "s3://bucket/folder/"},
    )
    logs_from: Day | None = Field(
        default=None,
        description="For invocation_logs: first day (UTC) whose requests are used. Default: none, all days.",
    )
    logs_until: Day | None = Field(
        default=None,
        description="For invocation_logs: last day (UTC) whose requests are used. Logs are read once for "
        "the same settings, so choose another window for new requests. Default: none, until the deployment.",
    )
    log_filters: Annotated[dict[Metadata, Metadata], Field(max_length=16)] = Field(
        default_factory=dict,
        description="For invocation_logs: use only requests that have all these pairs as request metadata. "
        "Default: none, all requests of the account.",
    )
    log_query: Annotated[str, StringConstraints(max_length=1000)] = Field(
        default=QUERY_MARK,
        description="For invocation_logs: the text around the query in the user's turn, such as \"Query: "
        '{query}". The turn may have more text before that. With text after the query, give its beginning '
        'too, such as "Query: {query}\\n". Default: "{query}", the turn is the query.',
        json_schema_extra={"x-allowed": "text with {query} once"},
    )
    use_logged_answers: bool = Field(
        default=False,
        description="For invocation_logs: take the labels from the logged answers of distillation.teacher. "
        "Default: false, the teacher labels the logged queries as raw ones.",
    )
    holdout: Location | None = Field(
        default=None,
        validate_default=True,
        description="Hold-out rows for the evaluation, which are never trained on; written like training. "
        "Optional for raw queries: without it, some of them are held out. Default: none.",
    )
    training_version: str | None = Field(
        default=None,
        validate_default=True,
        description="Version id of the training object. Required for s3, because the names of job and model "
        "depend on it; refused for file. Default: none.",
    )
    queries_version: str | None = Field(
        default=None,
        validate_default=True,
        description="Version id of the queries object, with the same rules. For a folder, 16 hex digits "
        "over its content; a deployment with other content is refused and prints the right digits. Default: "
        "none.",
    )
    holdout_version: str | None = Field(
        default=None,
        validate_default=True,
        description="Version id of the hold-out object, with the same rules. Default: none.",
    )
    holdout_in_digest: Annotated[str, StringConstraints(pattern=_COUNTED)] | None = Field(
        default=None,
        description="Keeps a model of an earlier version, whose digest covers the hold-out set of that time: "
        "this value names that set. A deployment that would train the model again is refused and prints the "
        "value. Remove it when you train another model. Default: none.",
        json_schema_extra={"x-allowed": "64 hex digits, or s3://bucket/key?versionId=version"},
    )
    source_key: KeyArn | None = Field(
        default=None,
        description="KMS key that encrypts the S3 sources, if you use one; its policy must allow this "
        "account to use it. Default: none.",
    )

    source_account: Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")] | None = Field(
        default=None,
        description="Account that owns the buckets of the S3 sources and of the invocation logs. Roles read "
        "them only there, so that nobody else's bucket of the same name is read. Default: none, this "
        "account.",
        json_schema_extra={"x-allowed": "12 digits"},
    )

    @property
    def is_curated(self) -> bool:
        """Whether the rows are made of raw queries."""
        return self.labels == "teacher" or self.source == "invocation_logs"

    @property
    def asks_teacher(self) -> bool:
        """Whether the deployment asks the teacher to label raw queries."""
        return self.is_curated and not self.use_logged_answers

    @field_validator("training", "queries", "logs", "holdout")
    @classmethod
    def _check_location(cls, value: str | None, info: ValidationInfo) -> str | None:
        name, source, labels = str(info.field_name), info.data.get("source"), info.data.get("labels")
        if source is None or labels is None:
            return value
        applies = {
            "training": labels == "given" and source != "invocation_logs",
            "queries": labels == "teacher",
            "logs": source == "invocation_logs",
            "holdout": (labels == "given" and source != "invocation_logs") or value is not None,
        }[name]
        if not applies:
            if value is None:
                return None
            raise not_allowed(f'nothing, because source is "{source}" and labels are "{labels}"')
        folder = name == "logs" or (name == "queries" and is_folder(value or ""))
        in_s3 = name == "logs" or source == "s3" or (source == "invocation_logs" and is_s3(value))
        if in_s3:
            if value is None or not _S3_URI.fullmatch(value) or is_folder(value) != folder:
                shown = _S3_ONLY.replace("/key whose key", "/folder/ whose name") if folder else _S3_ONLY
                raise not_allowed(f'{shown}, because source is "{source}"')
        else:
            pattern, kinds = (
                (_QUERIES, ".txt, .csv, .tsv or .jsonl") if name == "queries" else (_FILE, ".jsonl")
            )
            if value is None or not pattern.fullmatch(value) or ".." in value.split("/"):
                raise not_allowed(
                    f"a {kinds} path inside the project, relative to its root, because source is "
                    f'"{source}" and labels are "{labels}"'
                )
        if name == "holdout" and value == info.data.get("training"):
            raise not_allowed(
                "a file other than dataset.training: rows that the model was trained on can't evaluate it"
            )
        return value

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, value: str, info: ValidationInfo) -> str:
        if value == "teacher" and info.data.get("source") == "invocation_logs":
            raise not_allowed(
                '"given", because source is "invocation_logs": dataset.use_logged_answers says who labels'
            )
        return value

    @field_validator("source_account")
    @classmethod
    def _check_account(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and info.data.get("source") == "file":
            raise not_allowed('nothing, because source is "file"')
        return value

    @field_validator("log_query")
    @classmethod
    def _check_query(cls, value: str) -> str:
        if value.count(QUERY_MARK) != 1:
            raise not_allowed(f"text with {QUERY_MARK} once")
        return value

    @field_validator("logs_from", "logs_until")
    @classmethod
    def _check_day(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        try:
            date.fromisoformat(value)
        except ValueError as error:
            raise not_allowed(f"a date of the calendar, such as {_DAY}") from error
        if info.field_name == "logs_until" and value < (info.data.get("logs_from") or ""):
            raise not_allowed(f"{info.data['logs_from']} or later, because logs_from is that day")
        return value

    @field_validator("logs_from", "logs_until", "log_filters", "log_query", "use_logged_answers")
    @classmethod
    def _check_logs(cls, value: object, info: ValidationInfo) -> object:
        if value and value != QUERY_MARK and info.data.get("source") in ("file", "s3"):
            raise not_allowed('nothing, because source is not "invocation_logs"')
        return value

    @field_validator("training_version", "queries_version", "holdout_version")
    @classmethod
    def _check_version(cls, value: str | None, info: ValidationInfo) -> str | None:
        name = str(info.field_name).removesuffix("_version")
        if name not in info.data:
            return value  # its location has already been refused
        location = info.data[name]
        if not is_s3(location):
            if value is not None:
                raise not_allowed(
                    f"nothing, because {name} is not in S3: a local file is identified by its content"
                )
            return None
        if is_folder(str(location)):
            if value is None or not _CONTENT.fullmatch(value):
                raise not_allowed(
                    "16 hex digits of the folder's content; begin with any, such as "
                    '"0000000000000000": the deployment is refused and prints the right ones'
                )
        # An object with version "null" can be overwritten, and the digest would stay the same.
        elif value is None or value == "null" or not _VERSION.fullmatch(value):
            raise not_allowed(
                f"the S3 version id of the object in a versioned bucket, because {name} is in S3"
            )
        return value
