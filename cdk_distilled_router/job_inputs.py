"""The inputs of a customization job: their checks at synthesis, and their digest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import aws_cdk as cdk

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.props import JobProps
from distilled_router.bedrock import naming
from distilled_router.bedrock.naming import DIGEST_PATTERN, release_name

DISTILLATION, FINE_TUNING = "distillation", "fine_tuning"
MOST_VALIDATORS = 10  # botocore: Validators

_SCHEME = "s3://"
# botocore: S3Uri. Spaces, `=`, `:` and empty folders, for example, are not allowed.
_S3_URI = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](/[-!_*'().a-z0-9A-Z]+)*/?")


@dataclass(frozen=True, kw_only=True)
class JobData:
    """The training data of a job.

    Args:
        training_key: key of the rows in the bucket. New content needs a new key or a nonce. The job's role
            can read the whole first folder of the key.
        validators: up to 10 validation files, as keys in the bucket or as S3 URIs; Bedrock reports a loss for
            each.
        made_later: whether a state machine creates the job with `maker`, once its data exists.
        training_sha256: SHA-256 of the rows, such as a `Dataset`'s. The job is created, and its model
            deployed, only if the file has it. Default: not checked; a labelling tells its own.
        holdout_sha256: SHA-256 of the hold-out set that a release evaluates the model on; likewise.
        holdout_key: key of that hold-out set; only with it can another set get another hash. Default: the job
            has one hold-out set.
        account: owns the buckets of validators given as S3 URIs. Default: the stack's account.
    """

    training_key: str
    validators: Sequence[str] = ()
    made_later: bool = False
    training_sha256: str | None = None
    holdout_sha256: str | None = None
    holdout_key: str | None = None
    account: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobInputs:
    """Everything that decides the model: properties, data, and whether it has its own key."""

    props: JobProps
    data: JobData
    model_key: bool

    def check(self) -> None:
        """Raise ValueError for values or combinations that Bedrock doesn't accept."""
        props = self.props
        if props.method not in {DISTILLATION, FINE_TUNING}:
            raise ValueError(f"method {props.method!r}: allowed are {DISTILLATION!r} and {FINE_TUNING!r}")
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
        if is_uri(data.training_key):
            raise ValueError(f"training_key {data.training_key}: give the key in the bucket, not a URI")
        if len(data.validators) > MOST_VALIDATORS:
            raise ValueError(f"{len(data.validators)} validators; allowed are {MOST_VALIDATORS}")
        for file in (data.training_key, *data.validators):
            check_uri(file if is_uri(file) else f"{_SCHEME}bucket/{file}")

    def _check_distillation(self) -> None:
        teacher = self.props.asked_teacher
        if not teacher:
            raise ValueError("distillation needs a teacher, e.g. us.amazon.nova-pro-v1:0 for Nova Micro")
        if teacher.startswith(("eu.", "apac.", "global.")):
            raise ValueError(f"teacher {teacher}: of inference profiles, only us. profiles are supported")
        if self.props.api_hyperparameters():
            raise ValueError("Bedrock documents no hyperparameters for distillation; leave them out")

    def _check_fine_tuning(self) -> None:
        given = {
            "teacher": self.props.asked_teacher,
            "max_response_length": self.props.max_response_length,
        }
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name}: fine_tuning trains on the answers in its rows; leave it out")

    def digest(self) -> str:
        """Return 12 hex digits of all inputs.

        Unset inputs are left out, so that a new option doesn't change existing digests.

        Raises:
            ValueError: an input is known only at deployment.
        """
        props, data = self.props, self.data
        decisive = {
            "student": props.student,
            "training_key": data.training_key,
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
                    f"{name} is known only at deployment, but the job's name is needed at synthesis: pass "
                    "digest, 12 hex digits, and change it for each new model"
                )
        return naming.digest(given, 12)


def check_names(owner: str, digest: str) -> None:
    """Raise ValueError if Bedrock doesn't accept the names of owner and digest."""
    name = release_name(owner, digest)
    if cdk.Token.is_unresolved(name):
        raise ValueError("owner and digest are part of every name: give them as plain text")
    if not DIGEST_PATTERN.fullmatch(digest):
        raise ValueError(f"digest {digest!r}: allowed are 12 digits of 0-9a-f")
    if pattern := naming.violated_pattern(name):
        raise ValueError(
            f"Bedrock doesn't accept the name {name}-9 of a ninth attempt: it doesn't match "
            f"{pattern.pattern}. Choose another owner, of 48 characters at most"
        )


def is_uri(name: str) -> bool:
    """Return whether a name is an S3 URI, not a key."""
    return name.startswith(_SCHEME)


def check_uri(uri: str) -> None:
    """Raise ValueError for an S3 URI that Bedrock doesn't accept; one known only at deployment passes."""
    if not cdk.Token.is_unresolved(uri) and not (len(uri) <= 1024 and _S3_URI.fullmatch(uri)):
        raise ValueError(f"Bedrock doesn't accept the S3 location {uri!r}: allowed is {_S3_URI.pattern}")


def read_uri(uri: str, *, account: str | None) -> list[may.Permission]:
    """Return the permissions to read a file of an account's bucket."""
    bucket, _, key = uri.removeprefix(_SCHEME).partition("/")
    arn = f"arn:{cdk.Aws.PARTITION}:s3:::{bucket}"
    # Bedrock documents this condition for the role of batch jobs (user guide, batch-iam-sr). S3 checks it on
    # each request, whoever assumes the role.
    owned = may.in_account(account)
    return [
        may.Permission(["s3:GetObject"], [f"{arn}/{key}"], owned),
        may.Permission(["s3:ListBucket"], [arn], {"StringLike": {"s3:prefix": [key]}, **owned}),
    ]


def _scalars(value: object) -> Iterator[object]:
    """Yield the scalars in a nested value."""
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
