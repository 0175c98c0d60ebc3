"""Stack 1, data: one key, the data bucket, the bucket for its access logs, and VPC endpoints if wanted."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from stacks import keys
from stacks.endpoints import Endpoints
from stacks.hosting import VpcConfig
from stacks.settings import Settings


class DataStack(cdk.Stack):
    """What must outlive everything else.

    Attributes:
        key: encrypts the bucket, the releases table and the notifications; by the settings also models and
            what runs. It is made here, or the team's own.
        bucket: data sets, what jobs write, and reports.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        settings: Settings,
        vpc: VpcConfig | None,
        env: cdk.Environment,
    ) -> None:
        """Declare them by the settings' retention and encryption, and the endpoints of the functions' VPC
        where the settings want them."""
        super().__init__(scope, construct_id, env=env, description="Distilled router: key and data")
        keep = settings.retention.data == "retain"
        self._removal = cdk.RemovalPolicy.RETAIN if keep else cdk.RemovalPolicy.DESTROY
        given = settings.encryption.key_arn
        self.key = kms.Key.from_key_arn(self, "Key", given) if given else self._made_key(settings)
        self.bucket = self._data_bucket(self._log_bucket(settings))
        if vpc and settings.network and settings.network.endpoints:
            # Here, because this stack comes first and goes last: functions reach nothing without them.
            made = settings.network.endpoints
            Endpoints(self, "Endpoints", vpc_id=made.vpc_id, vpc=vpc, route_table_ids=made.route_table_ids)
        cdk.CfnOutput(self, "DataBucketName", value=self.bucket.bucket_name)

    def _made_key(self, settings: Settings) -> kms.IKey:
        key = kms.Key(
            self,
            "Key",
            description=f"{settings.full_name}: data, releases and notifications",
            enable_key_rotation=True,
            pending_window=cdk.Duration.days(settings.encryption.key_deletion_days),
            removal_policy=self._removal,
        )
        runs = settings.encryption.runtime_key
        named = keys.services(cdk.Aws.ACCOUNT_ID, cdk.Aws.REGION, settings.full_name, runtime=runs)
        for statement in named:
            key.add_to_resource_policy(iam.PolicyStatement.from_json(statement))
        return key

    def _log_bucket(self, settings: Settings) -> s3.Bucket:
        """Access logs. S3 writes them late, even while the stack goes, so this bucket always stays, and
        empties itself. Its encryption is S3's own: the target of logs can't use a KMS key (S3 API,
        LoggingEnabled)."""
        return s3.Bucket(
            self,
            "AccessLogs",
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=cdk.Duration.days(settings.retention.log_days),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(1),
                )
            ],
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )

    def _data_bucket(self, log_bucket: s3.IBucket) -> s3.Bucket:
        return s3.Bucket(
            self,
            "Data",
            versioned=True,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            # One call to KMS a bucket and a while, not one an object.
            bucket_key_enabled=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            server_access_logs_bucket=log_bucket,
            server_access_logs_prefix="data/",
            lifecycle_rules=[
                s3.LifecycleRule(
                    noncurrent_version_expiration=cdk.Duration.days(90),
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(7),
                )
            ],
            removal_policy=self._removal,
        )
