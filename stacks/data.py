"""Stack 1, data: the KMS key, the data bucket, its access-log bucket, and optional VPC endpoints."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from cdk_distilled_router.common.hosting import VpcConfig
from cdk_distilled_router.common.key_policy import services
from cdk_distilled_router.common.nag import acknowledge
from cdk_distilled_router.common.vpc_endpoints import VpcEndpoints
from cdk_distilled_router.protection import only_owners_write
from stacks import keys
from stacks.settings import Settings

# A deleted access log can be restored for this time.
LOG_VERSIONS_KEPT = cdk.Duration.days(30)


class DataStack(cdk.Stack):
    """Key, buckets and VPC endpoints: created first and deleted last.

    Attributes:
        key: encrypts the bucket, the releases table and the notifications. Depending on the settings, it also
            encrypts models, functions, logs and state machines. Created here, or the team's own.
        bucket: holds data sets, the output of jobs, and reports.
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
        """Declare key and buckets, and VPC endpoints if the settings ask for them."""
        super().__init__(
            scope,
            construct_id,
            env=env,
            synthesizer=cdk.DefaultStackSynthesizer(qualifier=settings.bootstrap_qualifier),
            description="Distilled router: key and data",
        )
        keep = settings.retention.data == "retain"
        self._removal = cdk.RemovalPolicy.RETAIN if keep else cdk.RemovalPolicy.DESTROY
        given = settings.encryption.key_arn
        self.key = kms.Key.from_key_arn(self, "Key", given) if given else self._new_key(settings)
        self.bucket = self._data_bucket(self._log_bucket(settings), settings.owner)
        if vpc and settings.network and settings.network.endpoints:
            # Functions need the endpoints to reach AWS; this stack is created first and deleted last.
            endpoints = settings.network.endpoints
            VpcEndpoints(
                self,
                "Endpoints",
                vpc_id=endpoints.vpc_id,
                vpc=vpc,
                route_table_ids=endpoints.route_table_ids,
            )
        cdk.CfnOutput(self, "DataBucketName", value=self.bucket.bucket_name)

    def _new_key(self, settings: Settings) -> kms.IKey:
        key = kms.Key(
            self,
            "Key",
            description=f"{settings.owner}: data, releases and notifications",
            enable_key_rotation=True,
            pending_window=cdk.Duration.days(settings.encryption.key_deletion_days),
            removal_policy=self._removal,
        )
        account, region, runtime = cdk.Aws.ACCOUNT_ID, cdk.Aws.REGION, settings.encryption.runtime_key
        for statement in (
            keys.deployment(account, region, settings.bootstrap_qualifier),
            *services(account, region, settings.owner, runtime=runtime),
        ):
            key.add_to_resource_policy(iam.PolicyStatement.from_json(statement))
        acknowledge(
            key,
            "KMSGrants",
            "Bedrock creates grants for its models. Its guide doesn't say that it calls as an AWS service, "
            "so a denial could fail a paid job. Roles can create grants only through Bedrock.",
        )
        acknowledge(
            key,
            "KMSPrincipal",
            "A condition allows one role: that of the bootstrap for CloudFormation. KMS refuses a principal "
            "that doesn't exist, and an account can be deployed without that role.",
        )
        return key

    def _log_bucket(self, settings: Settings) -> s3.Bucket:
        """Return the bucket for access logs.

        S3 delivers logs hours late, even while the stack is being deleted, so the bucket is always retained;
        its lifecycle rules empty it. It is encrypted by S3 because access logs can't be delivered to a bucket
        with a KMS key (S3 API, LoggingEnabled).
        """
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
                # A separate rule: S3 refuses it in a rule with a number of days.
                s3.LifecycleRule(expired_object_delete_marker=True),
            ],
            removal_policy=cdk.RemovalPolicy.RETAIN,
        )
        acknowledge(
            bucket,
            "S3AccessLogs",
            "This bucket receives the access logs; logging access to it would create more logs.",
        )
        acknowledge(
            bucket,
            "S3EncryptionKMS",
            "S3 can't deliver access logs to a bucket encrypted with a KMS key (S3 API, LoggingEnabled).",
        )
        acknowledge(
            bucket,
            "S3ObjectLock",
            "S3 can't deliver access logs to a bucket with Object Lock (S3 API, LoggingEnabled).",
        )
        acknowledge(
            bucket,
            "S3Notifications",
            "Logs are for audits and S3 delivers them hours late; nothing reacts to them.",
        )
        acknowledge(
            bucket,
            "S3Replication",
            "It logs access to the data bucket, which isn't replicated either. A deleted log can be restored "
            "for 30 days.",
        )
        return bucket

    def _data_bucket(self, log_bucket: s3.IBucket, owner: str) -> s3.Bucket:
        bucket = s3.Bucket(
            self,
            "Data",
            versioned=True,
            encryption=s3.BucketEncryption.KMS,
            encryption_key=self.key,
            # Far fewer calls to KMS than one per object.
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
        only_owners_write(bucket, owner)
        acknowledge(
            bucket,
            "S3Notifications",
            "The state machine passes the key of each object to the function that reads it.",
        )
        acknowledge(
            bucket,
            "S3ObjectLock",
            "Object names contain a digest, and the bucket is versioned. A lock would block deletion with "
            "the stack, and deletion of personal data on request.",
        )
        acknowledge(
            bucket,
            "S3Replication",
            "Models are trained, stored and invoked only in this Region, so a copy in another Region is of "
            "no use. The bucket is versioned, so deleted objects can be restored.",
        )
        return bucket
