"""Construct Dataset: training and hold-out files, validated and published under their digest."""

from __future__ import annotations

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks.bedrock import permissions as may
from stacks.bedrock.provider import ResourceProvider
from stacks.functions import Function


@dataclass(frozen=True)
class DatasetFile:
    """Where a file lies before it is published; `version` is an S3 version id, or None for an asset."""

    bucket: str
    key: str
    version: str | None = None


class Dataset(Construct):
    """Validates both files against Bedrock's rules before anything is spent, and publishes them.

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
        training: DatasetFile,
        holdout: DatasetFile,
        digest: str,
        key: kms.IKey | None = None,
        method: str = "distillation",
        retain: bool = True,
        log_days: int = 90,
    ) -> None:
        """`digest` is that of both files' content or versions. `key` encrypts the bucket, by default its own
        if it has one. `method` is `distillation` or `fine_tuning`: their limits differ. `retain` keeps the
        published files when the resource goes; what Bedrock trained no longer needs them."""
        super().__init__(scope, construct_id)
        self.training_key = f"datasets/{digest}/training.jsonl"
        self.holdout_key = f"datasets/{digest}/holdout.jsonl"
        permissions = self._permissions(bucket, key or bucket.encryption_key, training, holdout)
        role = may.function_role(self, "Role", permissions)
        handler = Function(
            self,
            "Handler",
            folder="dataset",
            entry="on_event",
            role=role,
            environment={"POWERTOOLS_SERVICE_NAME": owner},
            log_days=log_days,
            timeout=cdk.Duration.minutes(10),
            memory_mb=1024,
            description="Validates a data set and publishes it under its digest",
        )
        provider = ResourceProvider(self, "Provider", on_event=handler, log_days=log_days)
        self.resource = cdk.CustomResource(
            self,
            "Resource",
            resource_type="Custom::BedrockDataset",
            service_token=provider.service_token,
            properties={
                "Bucket": bucket.bucket_name,
                "Digest": digest,
                "Method": method,
                "Training": _properties(training),
                "Holdout": _properties(holdout),
                "Retain": retain,
            },
        )
        # The first event may come before IAM knows the role's policy.
        self.resource.node.add_dependency(role)

    def _permissions(
        self, bucket: s3.IBucket, key: kms.IKey | None, training: DatasetFile, holdout: DatasetFile
    ) -> list[may.Permission]:
        sources = [f"arn:{cdk.Aws.PARTITION}:s3:::{file.bucket}/{file.key}" for file in (training, holdout)]
        return [
            may.Permission(["s3:GetObject", "s3:GetObjectVersion"], sorted(set(sources))),
            may.objects(bucket, self, ["GetObject", "PutObject"], ["datasets/*"]),
            *may.purge(bucket, self, "datasets/*"),
            may.encrypted(key, "s3"),
        ]


def _properties(file: DatasetFile) -> dict[str, str]:
    known = {"Bucket": file.bucket, "Key": file.key}
    return {**known, "VersionId": file.version} if file.version else known
