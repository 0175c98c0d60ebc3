"""Table, topic and queue of a release."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk_distilled_router.common.nag import acknowledge


def releases_table(scope: Construct, construct_id: str, key: kms.IKey | None) -> dynamodb.Table:
    """Return a table of releases and route, encrypted with the key, or with AWS's own."""
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
        # It names what releases made, all of which goes with them.
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    acknowledge(
        table,
        "DynamoDBInBackupPlan",
        "Point-in-time recovery keeps each second of the last 35 days. A vault that holds recovery points "
        "can't be deleted, and what the table names goes with its stack.",
    )
    return table


def releases_topic(scope: Construct, construct_id: str, key: kms.IKey | None) -> sns.Topic:
    """Return a topic for messages of releases, encrypted with the key if there is one; it takes TLS only."""
    return sns.Topic(scope, construct_id, master_key=key, enforce_ssl=True)


def undelivered_queue(scope: Construct, construct_id: str) -> sqs.Queue:
    """Return a queue for what could not be delivered."""
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
        "It is itself where undelivered events and messages end; nothing reads them.",
    )
    acknowledge(
        queue,
        "SQSEncryptionKMS",
        "SQS encrypts it with a key of its own. EventBridge and SNS write to it as services, which the "
        "policy of a customer's key would have to name, and such a key may be another team's.",
    )
    return queue
