"""What a customization job is given, checked before anything is deployed, and what its role needs for it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import aws_cdk as cdk

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.props import JobProps
from distilled_router.bedrock import naming
from distilled_router.bedrock.naming import DIGEST_PATTERN, release_name

DISTILLATION, FINE_TUNING = "distillation", "fine_tuning"
MOST_VALIDATORS = 10  # botocore: Validators
MOST_METADATA = 16  # botocore: RequestMetadataFiltersList

_SCHEME = "s3://"
# botocore: S3Uri. Among others it takes no space, no `=`, no `:` and no empty folder.
_S3_URI = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/[-!_*'().a-z0-9A-Z]+)*/?")
_METADATA = re.compile(r"[a-zA-Z0-9\s._:/=+$@-]*")  # botocore: RequestMetadataMapKeyString, …ValueString
_CHARACTERS = 256

OTHER_BUCKET = (
    "The job reads what lies in this folder of the bucket that it was given, and nothing else of it."
)


@dataclass(frozen=True, kw_only=True)
class InvocationLogs:
    """Logged requests as training data, in place of a file (Bedrock user guide, prepare your data sets for
    distillation): 100 to 15,000 of them, single-turn text.

    Args:
        uri: where model invocation logging writes, `s3://bucket/prefix`; in the job's Region.
        use_prompt_response: take the logged answers as they are, which must be the job's teacher's. By
            default the teacher answers the logged prompts anew.
        metadata: only requests that carry all these pairs as their request metadata; 16 at most.

    Raises:
        ValueError: a value that Bedrock doesn't take.
    """

    uri: str
    use_prompt_response: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_uri(self.uri)
        if len(self.metadata) > MOST_METADATA:
            raise ValueError(
                f"invocation logs: {len(self.metadata)} metadata filters, {MOST_METADATA} are allowed"
            )
        for key, value in self.metadata.items():
            for text, least in ((key, 1), (value, 0)):
                if not (least <= len(text) <= _CHARACTERS and _METADATA.fullmatch(text)):
                    raise ValueError(
                        f"invocation logs: metadata {key!r}: {value!r}; allowed are up to {_CHARACTERS} "
                        f"characters of {_METADATA.pattern}, in the key at least one"
                    )


@dataclass(frozen=True, kw_only=True)
class JobData:
    """What a job learns from: either `training_key` or `invocation_logs`.

    Args:
        training_key: the rows' key in the bucket. Other content needs another key, or a nonce. In a folder,
            the job's role may read all of its first folder.
        invocation_logs: logged requests in place of rows; distillation only.
        validators: up to 10 files, S3 keys in the bucket or URIs of others, each with a loss of its own.
        made_later: leave it to a state machine to make the job, by `maker`, once its data is there.
    """

    training_key: str | None = None
    invocation_logs: InvocationLogs | None = None
    validators: Sequence[str] = ()
    made_later: bool = False


@dataclass(frozen=True, kw_only=True)
class JobInputs:
    """All that decides the model: properties, data, and whether it is encrypted with a key of its own."""

    props: JobProps
    data: JobData
    model_key: bool

    def check(self) -> None:
        """Raise ValueError for what Bedrock doesn't take, or not together."""
        props, data = self.props, self.data
        if props.method not in {DISTILLATION, FINE_TUNING}:
            raise ValueError(f"method {props.method!r}: allowed are {DISTILLATION!r} and {FINE_TUNING!r}")
        if (data.training_key is None) == (data.invocation_logs is None):
            raise ValueError("a job learns from either training_key or invocation_logs; give one of them")
        if props.method == DISTILLATION:
            self._check_distillation()
        else:
            self._check_fine_tuning()
        for name, model in (("teacher", props.asked_teacher), ("student", props.student)):
            if model and (cdk.Token.is_unresolved(model) or "/" in model):
                raise ValueError(f"{name} {model}: give its id as plain text, e.g. amazon.nova-pro-v1:0")
        self._check_files()

    def _check_files(self) -> None:
        data = self.data
        if data.training_key and is_uri(data.training_key):
            raise ValueError(f"training_key {data.training_key}: give the key in the bucket, not a URI")
        if len(data.validators) > MOST_VALIDATORS:
            raise ValueError(f"{len(data.validators)} validators, {MOST_VALIDATORS} are allowed")
        for file in (data.training_key, *data.validators):
            if file is not None:
                check_uri(file if is_uri(file) else f"{_SCHEME}bucket/{file}")

    def _check_distillation(self) -> None:
        teacher = self.props.asked_teacher
        if not teacher:
            raise ValueError("distillation needs a teacher, e.g. us.amazon.nova-pro-v1:0 for Nova Micro")
        if teacher.startswith(("eu.", "apac.", "global.")):
            raise ValueError(f"teacher {teacher}: of inference profiles only those of us. are known here")
        if self.props.api_hyperparameters():
            raise ValueError("Bedrock documents no hyperparameters for distillation; leave them out")

    def _check_fine_tuning(self) -> None:
        given = {
            "teacher": self.props.asked_teacher,
            "max_response_length": self.props.max_response_length,
            "invocation_logs": self.data.invocation_logs,
        }
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name}: fine_tuning trains on answers that are in its rows; leave it out")

    def digest(self) -> str:
        """12 hex digits for all of this. What isn't given is left out, so that an option that comes later
        keeps all digests.

        Raises ValueError where a part of it is known only at deployment.
        """
        props, data = self.props, self.data
        decisive = {
            "student": props.student,
            "training_key": data.training_key,
            "invocation_logs": data.invocation_logs and asdict(data.invocation_logs),
            "teacher": props.asked_teacher,
            "max_response_length": props.max_response_length,
            "method": props.method,
            "nonce": props.nonce,
            "hyperparameters": props.api_hyperparameters(),
            "model_key": self.model_key,
            "validators": list(data.validators),
        }
        given = {name: value for name, value in decisive.items() if value}
        for name, value in given.items():
            if any(cdk.Token.is_unresolved(part) for part in _scalars(value)):
                raise ValueError(
                    f"{name} is known only at deployment, and the job's name is needed before: pass digest, "
                    "12 hex digits that change whenever another model is wanted"
                )
        return naming.digest(given, 12)


def check_names(owner: str, digest: str) -> None:
    """Raise ValueError where Bedrock wouldn't take the names that are made from these."""
    name = release_name(owner, digest)
    if cdk.Token.is_unresolved(name):
        raise ValueError("owner and digest begin every name: give them as plain text")
    if not DIGEST_PATTERN.fullmatch(digest):
        raise ValueError(f"digest {digest!r}: allowed are 12 digits of 0-9a-f")
    if pattern := naming.violated_pattern(name):
        raise ValueError(
            f"Bedrock takes no job or model named {name}-9, a ninth attempt's name: it doesn't match "
            f"{pattern.pattern}. Choose another owner, of 48 characters at most"
        )


def is_uri(name: str) -> bool:
    """Whether a file is named by its S3 URI, and not by its key."""
    return name.startswith(_SCHEME)


def check_uri(uri: str) -> None:
    """Raise ValueError for an S3 URI that Bedrock doesn't take. What is known only at deployment passes."""
    if not cdk.Token.is_unresolved(uri) and not (len(uri) <= 1024 and _S3_URI.fullmatch(uri)):
        raise ValueError(f"{uri!r} is no S3 location for Bedrock: allowed is {_S3_URI.pattern}")


def elsewhere(uri: str, *, folder: bool) -> list[may.Permission]:
    """Reading a file, or a folder with all below it, of a bucket that is known by name only."""
    bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
    arn, names = f"arn:{cdk.Aws.PARTITION}:s3:::{bucket}", key
    if folder:
        names = f"{key.rstrip('/')}/*" if key.strip("/") else "*"
    return [
        may.Permission(["s3:GetObject"], [f"{arn}/{names}"], {}, OTHER_BUCKET),
        may.Permission(["s3:ListBucket"], [arn], {"StringLike": {"s3:prefix": [names]}}),
    ]


def _scalars(value: object) -> Iterator[object]:
    """A value's parts that are no collections themselves."""
    match value:
        case str():
            yield value
        case Mapping():
            for pair in value.items():
                yield from _scalars(pair)
        case Sequence():
            for item in value:
                yield from _scalars(item)
        case _:
            yield value
