"""DynamoDB tables of items that are found by one id."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from constructs import Construct

from cdk_distilled_router.common.nag import acknowledge


def items_table(
    scope: Construct, construct_id: str, key: kms.IKey | None, *, time_to_live: str | None = None
) -> dynamodb.Table:
    """Return a table whose items have an `id`, encrypted with the key or, without one, with an AWS key.

    `time_to_live` is the attribute with the epoch second after which DynamoDB deletes an item.
    """
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
        time_to_live_attribute=time_to_live,
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
