"""Stack 1, data: one key, the data bucket, the bucket for its access logs, and VPC endpoints if wanted."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common.hosting import VpcConfig
from cdk_distilled_router.common.nag import acknowledge
from cdk_distilled_router.common.vpc_endpoints import Endpoints
from stacks import keys
from stacks.settings import Settings

# What somebody deletes among the access logs can be had back for so long.
LOG_VERSIONS_KEPT = cdk.Duration.days(30)


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
            description=f"{settings.owner}: data, releases and notifications",
            enable_key_rotation=True,
            pending_window=cdk.Duration.days(settings.encryption.key_deletion_days),
            removal_policy=self._removal,
        )
        runs = settings.encryption.runtime_key
        named = keys.services(cdk.Aws.ACCOUNT_ID, cdk.Aws.REGION, settings.owner, runtime=runs)
        for statement in named:
            key.add_to_resource_policy(iam.PolicyStatement.from_json(statement))
        acknowledge(
            key,
            "KMSGrants",
            "Bedrock makes the grants for its models, and its guide does not say that it does so as AWS: a "
            "denial could fail a paid job. Roles may make grants through Bedrock only.",
        )
        return key

    def _log_bucket(self, settings: Settings) -> s3.Bucket:
        """Access logs. S3 writes them late, even while the stack goes, so this bucket always stays, and
        empties itself. Its encryption is S3's own: the target of logs can't use a KMS key (S3 API,
        LoggingEnabled)."""
        bucket = s3.Bucket(
            self,
            "AccessLogs",
            versioned=True,
            encryption=s3.BucketEncryption.S3_MANAGED,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            enforce_ssl=True,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            lifecycle_rules=[
                s3.LifecycleRule(
                    expiration=cdk.Duration.days(settings.retention.log_days),
                    noncurrent_version_expiration=LOG_VERSIONS_KEPT,
                    abort_incomplete_multipart_upload_after=cdk.Duration.days(1),
                ),
                # A rule of its own: S3 takes it together with no number of days.
                s3.LifecycleRule(expired_object_delete_marker=True),
            ],
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )
        acknowledge(bucket, "S3AccessLogs", "It is where access logs go: logs of it would log themselves.")
        acknowledge(
            bucket,
            "S3EncryptionKMS",
            "S3 delivers access logs to no bucket that is encrypted with a KMS key (S3 API, LoggingEnabled).",
        )
        acknowledge(
            bucket,
            "S3ObjectLock",
            "S3 delivers access logs to no bucket that has Object Lock (S3 API, LoggingEnabled).",
        )
        acknowledge(
            bucket, "S3Notifications", "Nothing waits for a log: S3 writes them hours late, for audits."
        )
        acknowledge(
            bucket,
            "S3Replication",
            "It tells who read the data bucket, which has no copy elsewhere either; its versions guard it "
            "against deletion for a month.",
        )
        return bucket

    def _data_bucket(self, log_bucket: s3.IBucket) -> s3.Bucket:
        bucket = s3.Bucket(
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
        acknowledge(
            bucket, "S3Notifications", "Whoever needs an object is told its key by the state machine."
        )
        acknowledge(
            bucket,
            "S3ObjectLock",
            "Its objects are named by their digest and versioned. A lock would keep what a deleted stack or "
            "somebody's right to erasure has to remove.",
        )
        acknowledge(
            bucket,
            "S3Replication",
            "A copy elsewhere would serve nothing: models are trained, kept and served in this Region only, "
            "and the bucket is versioned against deletion.",
        )
        return bucket
