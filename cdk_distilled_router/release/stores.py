"""Topic and dead-letter queue of a release."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk_distilled_router.common.nag import acknowledge


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
