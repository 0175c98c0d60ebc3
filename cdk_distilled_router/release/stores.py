"""Table, topic and dead-letter queue of a release."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk_distilled_router.common.nag import acknowledge


def releases_table(scope: Construct, construct_id: str, key: kms.IKey | None) -> dynamodb.Table:
    """Return a table for releases and route, encrypted with the key or, without one, with an AWS key."""
    table = dynamodb.Table(
        scope,
        construct_id,
        partition_key=dynamodb.Attribute(name="id", type=dynamodb.AttributeType.STRING),
        billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
        encryption=dynamodb.TableEncryption.CUSTOMER_MANAGED if key else dynamodb.TableEncryption.DEFAULT,
        encryption_key=key,
        point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
            point_in_time_recovery_enabled=True
        ),
        # Its items are of no use after the stack's deletion, which also deletes the resources of releases.
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    acknowledge(
        table,
        "DynamoDBInBackupPlan",
        "Point-in-time recovery can restore any second of the last 35 days. A backup vault with recovery "
        "points can't be deleted, and the items are of no use after the stack's deletion.",
    )
    return table


def releases_topic(scope: Construct, construct_id: str, key: kms.IKey | None) -> sns.Topic:
    """Return a topic for notifications, encrypted with the key if there is one; it requires TLS."""
    return sns.Topic(scope, construct_id, master_key=key, enforce_ssl=True)


def undelivered_queue(scope: Construct, construct_id: str) -> sqs.Queue:
    """Return a queue for undelivered events and messages, which are kept for two weeks."""
    queue = sqs.Queue(
        scope,
        construct_id,
        encryption=sqs.QueueEncryption.SQS_MANAGED,
        enforce_ssl=True,
        retention_period=cdk.Duration.days(14),
        redrive_allow_policy=sqs.RedriveAllowPolicy(redrive_permission=sqs.RedrivePermission.DENY_ALL),
    )
    acknowledge(
        queue,
        "SQSRedrivePolicy",
        "It is itself a dead-letter queue; no consumer reads it.",
    )
    acknowledge(
        queue,
        "SQSEncryptionKMS",
        "SQS encrypts it with an AWS key. EventBridge and SNS write to it, so the policy of a customer "
        "managed key would have to allow both services, and the key may belong to another team.",
    )
    return queue
