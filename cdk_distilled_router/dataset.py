"""Construct Dataset: training and hold-out files, validated and published under their digest."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common import permissions as may
from cdk_distilled_router.common.callers import FRAMEWORK
from cdk_distilled_router.common.functions import Function, FunctionProps
from cdk_distilled_router.common.hosting import DEFAULT, Hosting
from cdk_distilled_router.common.provider import ResourceProvider
from cdk_distilled_router.props import RETAIN, JobProps, RetentionProps
from distilled_router.cost.estimate import Spec
from distilled_router.env import Env


@dataclass(frozen=True)
class DatasetFile:
    """Where a file lies before it is published; `version` is an S3 version id, or None for an asset."""

    bucket: str
    key: str
    version: str | None = None

    def properties(self) -> dict[str, str]:
        """As a custom resource's property."""
        known = {"Bucket": self.bucket, "Key": self.key}
        return {**known, "VersionId": self.version} if self.version else known

    def permissions(self) -> list[may.Permission]:
        """Reading it."""
        arn = f"arn:{cdk.Aws.PARTITION}:s3:::{self.bucket}/{self.key}"
        return [may.Permission(["s3:GetObject", "s3:GetObjectVersion"], [arn])]


@dataclass(frozen=True)
class QueriesFolder:
    """All .txt and .jsonl files under a prefix; `content` stands for their names and ETags."""

    bucket: str
    prefix: str
    content: str

    def properties(self) -> dict[str, str]:
        """As a custom resource's property."""
        return {"Bucket": self.bucket, "Prefix": self.prefix, "Content": self.content}

    def permissions(self) -> list[may.Permission]:
        """Listing it, and reading what is in it."""
        arn = f"arn:{cdk.Aws.PARTITION}:s3:::{self.bucket}"
        because = "The files of this folder are read, whatever their names."
        return [
            may.Permission(["s3:ListBucket"], [arn], {"StringLike": {"s3:prefix": [self.prefix]}}),
            may.Permission(["s3:GetObject"], [f"{arn}/{self.prefix}*"], {}, because),
        ]


@dataclass(frozen=True, kw_only=True)
class DatasetFiles:
    """The files of a data set.

    Args:
        digest: that of the files' content or versions.
        holdout, training: where the files lie. Without `training` the job learns from something else.
        source_key: ARN of the key that encrypts the files where they lie, if it is another than the bucket's.
        use_logged_answers: where the job learns from logs, whether the teacher need not answer them.
    """

    digest: str
    holdout: DatasetFile
    training: DatasetFile | None = None
    source_key: str | None = None
    use_logged_answers: bool = False

    def properties(self) -> dict[str, object]:
        """Return the files as properties of the custom resource."""
        return {
            "Digest": self.digest,
            **({"UseLoggedAnswers": True} if self.use_logged_answers else {}),
            **({"Training": self.training.properties()} if self.training else {}),
            "Holdout": self.holdout.properties(),
        }

    def permissions(self) -> list[may.Permission]:
        """Return what reading them takes."""
        return [
            *(self.training.permissions() if self.training else []),
            *self.holdout.permissions(),
            may.others_key(self.source_key),
        ]


class Dataset(Construct):
    """Validates the files against Bedrock's rules before anything is spent, and publishes them.

    Attributes:
        training_key, holdout_key: keys in the data bucket, under `datasets/<digest>/`.
        resource: the custom resource; what reads the files depends on it.
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
            owner: name of whoever owns what is made.
            bucket: gets the files, under `datasets/<digest>/`.
            files: what is published.
            props: the job's. Limits differ by its method, and an estimate above its `maximum_cost_usd`
                refuses the deployment.
            cost: what an estimate is made from, before anything is published. Default: none is made.
            retention: `data` says whether published files stay when the resource goes.
            hosting: where functions run, with which key, and how long their logs are kept.
        """
        super().__init__(scope, construct_id)
        self.training_key = f"datasets/{files.digest}/training.jsonl"
        self.holdout_key = f"datasets/{files.digest}/holdout.jsonl"
        role = may.function_role(self, "Role", [*files.permissions(), *self._publishing(bucket)])
        handler = Function(
            self,
            "Handler",
            handler="dataset.on_event",
            role=role,
            environment=Env(owner=owner),
            hosting=hosting,
            description="Validates a data set and publishes it under its digest",
            caller=FRAMEWORK,
            props=FunctionProps(timeout=cdk.Duration.minutes(10), memory_mb=1024),
        )
        provider = ResourceProvider(self, "Provider", on_event=handler, hosting=hosting)
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockDataset",
            service_token=provider.service_token,
            properties={
                "Bucket": bucket.bucket_name,
                "Method": props.method,
                **cost_properties(cost, props.maximum_cost_usd),
                **files.properties(),
                "Retain": retention.data == "retain",
            },
        )
        # The first event may come before IAM knows the role's policy.
        self.resource.node.add_dependency(role)

    def _publishing(self, bucket: s3.IBucket) -> list[may.Permission]:
        """Return what writing the files and deleting them takes."""
        return [
            may.objects(bucket, self, ["PutObject"], ["datasets/*"]),
            *may.purge(bucket, self, "datasets/*"),
            may.encrypted(bucket.encryption_key, "s3"),
        ]


def cost_properties(cost: Spec | None, maximum_usd: float) -> dict[str, object]:
    """The properties by which a resource holds an estimate against a limit."""
    if cost is None:
        return {}
    # One text: CloudFormation would make texts of all numbers.
    return {"Cost": json.dumps(asdict(cost), sort_keys=True), "MaximumCostUsd": maximum_usd}
