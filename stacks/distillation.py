"""Stack 2, distillation: the data set, validated and published, and the job that learns from it."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from stacks.bedrock.dataset import Dataset, DatasetFile
from stacks.bedrock.distillation_job import DistillationJob
from stacks.identity import Identity
from stacks.settings import PROJECT, Settings, split_s3_uri


class DistillationStack(cdk.Stack):
    """Attributes:
    holdout_key: where the hold-out set is published in the data bucket.
    job: the customization job, a release's source.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        identity: Identity,
        bucket: s3.IBucket,
        key: kms.IKey,
        env: cdk.Environment,
    ) -> None:
        """Declare data set and job under the identity's names."""
        super().__init__(scope, construct_id, env=env, description="Distilled router: data set and job")
        distillation, retention = settings.distillation, settings.retention
        dataset = Dataset(
            self,
            "Dataset",
            owner=settings.full_name,
            bucket=bucket,
            key=key,
            training=self._file("Training", settings.dataset.training, settings.dataset.training_version),
            holdout=self._file("Holdout", settings.dataset.holdout, settings.dataset.holdout_version),
            digest=identity.dataset_digest,
            method=distillation.method,
            retain=retention.data == "retain",
            log_days=retention.log_days,
        )
        hyperparameters = distillation.hyperparameters
        self.job = DistillationJob(
            self,
            "Job",
            owner=settings.full_name,
            digest=identity.digest,
            bucket=bucket,
            key=key,
            training_key=dataset.training_key,
            student=distillation.student,
            method=distillation.method,
            teacher=distillation.teacher if distillation.method == "distillation" else None,
            max_response_length=distillation.max_response_length,
            hyperparameters=hyperparameters.to_api() if hyperparameters else None,
            model_key=key if settings.encryption.model_key else None,
            allow_legacy=distillation.allow_legacy,
            retain_model=retention.models == "retain",
            retain_output=retention.data == "retain",
            tags=settings.tags,
            log_days=retention.log_days,
        )
        # Nothing is paid for before the data set has passed.
        self.job.resource.node.add_dependency(dataset.resource)
        self.holdout_key = dataset.holdout_key
        cdk.CfnOutput(self, "JobName", value=identity.job_name)
        cdk.CfnOutput(self, "Digest", value=identity.digest)

    def _file(self, construct_id: str, location: str, version: str | None) -> DatasetFile:
        """A local file travels as an asset; an S3 object is named with its version."""
        if location.startswith("s3://"):
            bucket, key = split_s3_uri(location)
            return DatasetFile(bucket, key, version)
        asset = assets.Asset(self, construct_id, path=str(PROJECT / location))
        return DatasetFile(asset.s3_bucket_name, asset.s3_object_key)
