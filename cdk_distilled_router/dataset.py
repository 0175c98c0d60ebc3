"""Construct Dataset: training and hold-out files, validated and published under their digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import DEFAULT, Hosting
from cdk_distilled_router.common.ownership import registering, resource_env
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.job_inputs import JobData
from cdk_distilled_router.needs import needs
from cdk_distilled_router.props import RETAIN, GateProps, JobProps, RetentionProps
from distilled_router.bedrock import naming
from distilled_router.cost.estimate import Spec
from distilled_router.data.labelling_plan import QUERY_MARK

TRAINING, HOLDOUT = "training", "holdout"


@dataclass(frozen=True)
class DatasetFile:
    """The S3 location of a file before publishing.

    Args:
        bucket: name of the bucket.
        key: key of the file.
        version: S3 version id. Default: the newest version, as of an asset.
        account: owns the bucket. Default: the stack's account.
        content: text that identifies the content, such as its SHA-256. Default: bucket, key and version.
    """

    bucket: str
    key: str
    version: str | None = None
    account: str | None = None
    content: str = ""

    @classmethod
    def from_asset(cls, asset: assets.Asset) -> Self:
        """Return the location of a local file, which the deployment uploads."""
        return cls(asset.s3_bucket_name, asset.s3_object_key, content=asset.asset_hash)

    def digest(self) -> str:
        """Return 16 hex digits of what identifies the content.

        Raises:
            ValueError: nothing does.
        """
        if self.content:
            return naming.digest({"content": self.content}, 16)
        place = [self.bucket, self.key, self.version]
        if self.version is None or any(map(cdk.Token.is_unresolved, place)):
            raise ValueError(
                f"file {self.key}: its content is known by neither an S3 version nor a hash; give `version` "
                "or `content` as plain text, or the digest of the data set"
            )
        return naming.digest({"place": place}, 16)

    def properties(self) -> dict[str, str]:
        """Return the location as a property of a custom resource."""
        known = {"Bucket": self.bucket, "Key": self.key}
        return {**known, "VersionId": self.version} if self.version else known

    def permissions(self) -> list[may.Permission]:
        """Return the permissions to read the file."""
        arn = f"arn:{cdk.Aws.PARTITION}:s3:::{self.bucket}/{self.key}"
        return [may.Permission(["s3:GetObject", "s3:GetObjectVersion"], [arn], may.in_account(self.account))]


@dataclass(frozen=True)
class QueriesFolder:
    """All files with raw queries under a prefix.

    Args:
        bucket: name of the bucket.
        prefix: beginning of the files' keys, such as `queries/`.
        content: 16 hex digits of the files' names and ETags.
        account: owns the bucket. Default: the stack's account.
    """

    bucket: str
    prefix: str
    content: str
    account: str | None = None

    def properties(self) -> dict[str, str]:
        """Return the location as a property of a custom resource."""
        return {"Bucket": self.bucket, "Prefix": self.prefix, "Content": self.content}

    def permissions(self) -> list[may.Permission]:
        """Return the permissions to list the folder and to read its files."""
        return _reading_folder(self.bucket, self.prefix, self.account)


@dataclass(frozen=True, kw_only=True)
class InvocationLogs:
    """Queries that Bedrock logged for a large model, as raw queries for a `Labelling`.

    Args:
        uri: folder that model invocation logging writes to, `s3://bucket/folder/`.
        use_answers: take the labels from the logged answers of the job's teacher. Default: the teacher is
            asked, and its answers are paid.
        metadata: use only requests with all these pairs as request metadata.
        query: the user's turn around the query, such as `Query: {query}`. Default: the turn is the query.
        first_day: use only requests of this day and later ones (UTC), such as `2026-11-01`.
        last_day: use only requests of this day and earlier ones.
        account: owns the bucket; default: the stack's account.

    Raises:
        ValueError: `query` has no place for the query, or `uri` names no folder.
    """

    uri: str
    use_answers: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    query: str = QUERY_MARK
    first_day: str | None = None
    last_day: str | None = None
    account: str | None = None

    def __post_init__(self) -> None:
        if not self.uri.startswith("s3://") or not self.uri.endswith("/"):
            raise ValueError(f"invocation logs {self.uri!r}: allowed is a folder, s3://bucket/folder/")
        if self.query.count(QUERY_MARK) != 1:
            raise ValueError(f"invocation logs: query {self.query!r} must contain {QUERY_MARK} once")

    def properties(self) -> dict[str, object]:
        """Return the logs as a property of a custom resource."""
        bucket, prefix = self._place
        given = {
            "Metadata": dict(self.metadata),
            "UseAnswers": self.use_answers,
            "From": self.first_day,
            "Until": self.last_day,
        }
        named = {"Bucket": bucket, "Prefix": prefix, "Query": self.query}
        return {**named, **{name: value for name, value in given.items() if value}}

    def permissions(self) -> list[may.Permission]:
        """Return the permissions to list the folder and to read its files."""
        return _reading_folder(*self._place, self.account, listed="*")

    @property
    def _place(self) -> tuple[str, str]:
        bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        return bucket, prefix


def _reading_folder(
    bucket: str, prefix: str, account: str | None, *, listed: str = ""
) -> list[may.Permission]:
    """Return the permissions to read a folder, and to list it, or what `listed` matches in it."""
    arn = f"arn:{cdk.Aws.PARTITION}:s3:::{bucket}"
    because = "All files of this folder are read; their names aren't known at synthesis."
    owned = may.in_account(account)
    return [
        may.Permission(
            ["s3:ListBucket"], [arn], {"StringLike": {"s3:prefix": [f"{prefix}{listed}"]}, **owned}
        ),
        may.Permission(["s3:GetObject"], [f"{arn}/{prefix}*"], owned, because),
    ]


@dataclass(frozen=True, kw_only=True)
class DatasetFiles:
    """The files of a data set.

    Args:
        holdout: location of the hold-out set.
        training: location of the training rows; None for a hold-out set alone.
        digest: hex digits of all that decides the training file. Default: those of its location and version.
        holdout_digest: hex digits of the hold-out set's content. Default: likewise.
        source_key: ARN of the key that encrypts the source files, if it isn't the data bucket's.
        gate: what a candidate must reach on the hold-out set. Default: the set is not compared with a gate.

    Raises:
        ValueError: a digest is neither given nor known.
    """

    holdout: DatasetFile
    training: DatasetFile | None = None
    digest: str = ""
    holdout_digest: str = ""
    source_key: str | None = None
    gate: GateProps | None = None

    def __post_init__(self) -> None:
        if self.training and not self.digest:
            object.__setattr__(self, "digest", self.training.digest())
        if not self.holdout_digest:
            object.__setattr__(self, "holdout_digest", self.holdout.digest())

    def properties(self, published: str) -> dict[str, object]:
        """Return the files as properties of the custom resource that publishes one of them."""
        is_training = published == TRAINING
        return {
            "Digest": self.digest if is_training else self.holdout_digest,
            "Publishes": published,
            # The resource of the training file also checks it against the hold-out set.
            **({"Training": self.training.properties()} if self.training and is_training else {}),
            "Holdout": self.holdout.properties(),
            # A new property sends an Update at the upgrade, which adds the attributes with the hashes.
            "Hashes": "sha256",
        }

    def permissions(self) -> list[may.Permission]:
        """Return the permissions to read the files."""
        return [
            *(self.training.permissions() if self.training else []),
            *self.holdout.permissions(),
            may.source_key(self.source_key),
        ]


class Dataset(Construct):
    """Training rows and hold-out set: validated before anything costs money, and published for a job.

    The files are read and checked against Bedrock's rules, and against each other for near duplicates. A
    file that breaks a rule fails the deployment with its line; nothing is published then. Each file has a
    custom resource of its own, so that another hold-out set leaves the training file alone.

    Example::

        dataset = Dataset(
            self,
            "Dataset",
            owner="search",
            bucket=bucket,
            files=DatasetFiles(
                training=DatasetFile("search-uploads", "training.jsonl", version="3sL4kqtJlcpXroDTDmJ"),
                holdout=DatasetFile("search-uploads", "holdout.jsonl", version="QUpfdndhfd8438MNFDN"),
            ),
            props=JobProps(teacher="us.amazon.nova-pro-v1:0", student="amazon.nova-micro-v1:0:128k"),
        )

    A `DistillationJob` takes `data=dataset.job_data`: with its hashes, neither the job nor an evaluation uses
    a file that was replaced.

    Attributes:
        training_key: key of the training rows in the data bucket, under `datasets/<digest>/`.
        holdout_key: key of the hold-out set.
        job_data: both keys and hashes, for a job.
        training_sha256: SHA-256 of the published training rows; known at deployment.
        holdout_sha256: SHA-256 of the published hold-out set; known at deployment.
        resource: the custom resource that ends last; resources that read the files must depend on it.

    Cost:
        S3 storage. With `cost`, the deployment fails if the job would exceed `props.maximum_cost_usd`.

    Permissions:
        The function reads exactly the files that are named, and writes and deletes under `datasets/` of the
        data bucket. A source in another Region is refused.

    Delete:
        The published files are deleted with all their versions, unless `retention.data` keeps them or another
        data set with the same content uses them. Use a versioned bucket: files that are published again
        meanwhile stay.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        owner: str,
        bucket: s3.IBucket,
        files: DatasetFiles,
        props: JobProps,
        cost: Spec | None = None,
        retention: RetentionProps = RETAIN,
        hosting: Hosting = DEFAULT,
    ) -> None:
        """Declare the data set of a job.

        Args:
            owner: owner of the resources, used as a tag.
            bucket: receives the files, under `datasets/<digest>/`.
            files: the files to publish.
            props: the job's: its method decides the validation, `maximum_cost_usd` limits the estimate.
            cost: input of the estimate for the training rows; if it names the `job`, the limit counts
                earlier ones, too. Default: no estimate and no limit.
            retention: `data` decides whether published files stay when the resource is deleted.
            hosting: VPC, key and log retention of the functions.
        """
        super().__init__(scope, construct_id)
        self.training_key = f"datasets/{files.digest}/training.jsonl"
        self.holdout_key = f"datasets/{files.holdout_digest}/holdout.jsonl"
        role, provider = self._provider(owner, bucket, [*files.permissions(), *spending(cost)], hosting)

        def resource(construct_id: str, published: str, limit: Spec | None) -> cdk.CustomResource:
            properties = {
                "Bucket": bucket.bucket_name,
                "Method": props.method,
                "Needs": needs(props, files.gate).written(),
                **cost_properties(limit, props),
                **files.properties(published),
                "Retain": retention.data == "retain",
            }
            declared = cdk.CustomResource(
                self,
                construct_id,
                resource_type="Custom::BedrockDataset",
                service_token=provider.service_token,
                properties=properties,
            )
            # The policy must exist before the first event.
            declared.node.add_dependency(role)
            return declared

        self._training = resource("Resource", TRAINING, cost) if files.training else None
        self.resource = resource("Holdout", HOLDOUT, None)
        if self._training:
            # Nothing is published unless both files are valid together.
            self.resource.node.add_dependency(self._training)
        may.tag_roles(self, owner)

    def _provider(
        self, owner: str, bucket: s3.IBucket, permissions: list[may.Permission], hosting: Hosting
    ) -> tuple[iam.Role, ResourceProvider]:
        """Declare the function with its role and its provider; return role and provider."""
        granted = [*permissions, *self._publishing(bucket), *registering(self, hosting)]
        role = may.function_role(self, "Role", granted)
        handler = Function(
            self,
            "Handler",
            handler="dataset.on_event",
            role=role,
            environment=resource_env(self, owner, hosting),
            hosting=hosting,
            description="Validates a data set and publishes it under its digest",
            caller=FRAMEWORK,
            props=FunctionProps(timeout=cdk.Duration.minutes(10), memory_mb=1024),
        )
        return role, ResourceProvider(self, "Provider", on_event=handler, hosting=hosting)

    @property
    def job_data(self) -> JobData:
        """The data of a job that learns from the training rows, with keys and hashes of both files."""
        return JobData(
            training_key=self.training_key,
            training_sha256=self.training_sha256,
            holdout_key=self.holdout_key,
            holdout_sha256=self.holdout_sha256,
        )

    @property
    def training_sha256(self) -> str:
        """The SHA-256 of the published training file, for `JobData`; known at deployment."""
        if self._training is None:
            raise ValueError(f"{self.node.path} has no training file.")
        return self._training.get_att_string("TrainingSha256")

    @property
    def holdout_sha256(self) -> str:
        """The SHA-256 of the published hold-out set, for `JobData`; known at deployment."""
        return self.resource.get_att_string("HoldoutSha256")

    def _publishing(self, bucket: s3.IBucket) -> list[may.Permission]:
        """Return the permissions to write and delete the files."""
        return [
            may.objects(bucket, self, ["PutObject"], ["datasets/*"]),
            # Claims on a folder are listed.
            may.listing(bucket, ["ListBucket"], ["datasets/*"]),
            *may.purge(bucket, self, "datasets/*"),
            may.encrypted(bucket.encryption_key, "s3"),
        ]


def cost_properties(cost: Spec | None, props: JobProps) -> dict[str, object]:
    """Return the properties with which a resource compares an estimate with a limit."""
    if cost is None:
        return {}
    return {
        # As JSON text: CloudFormation turns numbers into strings.
        "Cost": json.dumps(asdict(cost), sort_keys=True),
        "MaximumCostUsd": props.maximum_cost_usd,
        "MaximumCostDays": props.maximum_cost_days,
    }


def spending(cost: Spec | None) -> list[may.Permission]:
    """Return the permissions to see the jobs that an owner has paid for."""
    if cost is None or not cost.job:
        return []
    return [
        may.bedrock(["GetModelCustomizationJob"], [may.account_arn(may.JOBS)]),
        may.bedrock(["ListModelCustomizationJobs"], ["*"]),
    ]
