"""Retries of every task of every state machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_stepfunctions as sfn

FAILED: Mapping[str, Any] = {
    "ErrorEquals": ["States.TaskFailed"],
    "IntervalSeconds": 5,
    "MaxAttempts": 4,
    "BackoffRate": 2,
    "JitterStrategy": "FULL",
}
"""Retries of a task that failed."""

NOT_STARTED: Mapping[str, Any] = {
    "ErrorEquals": [
        f"Lambda.{name}Exception"
        for name in (
            *("TooManyRequests", "Service", "AWSLambda", "SdkClient", "ClientExecutionTimeout"),
            *("ResourceConflict", "ResourceNotReady", "CodeArtifactUserPending"),
            *("EC2Throttled", "EC2Unexpected", "ENINotReady", "ENILimitReached"),
            "SubnetIPAddressLimitReached",
        )
    ],
    "IntervalSeconds": 5,
    # With full jitter a pause is half of its maximum on average, so these retries take ten minutes.
    "MaxAttempts": 24,
    "BackoffRate": 2,
    "MaxDelaySeconds": 60,
    "JitterStrategy": "FULL",
}
"""Retries of a call that Lambda did not take, or whose answer was lost.

Lambda is throttled (a new account may run ten functions at once), or the function is new or was idle for
weeks and is made ready again, which takes a minute or two (botocore: errors of Lambda's Invoke; Lambda
developer guide, function states; accelerated-intelligent-document-processing-on-aws issue 801).
"""

OF_FUNCTION = (NOT_STARTED, FAILED)
"""Retries of a task that invokes a function."""


def retry(state: sfn.TaskStateBase, *rules: Mapping[str, Any]) -> None:
    """Add retries to a task. They are safe after any error: every task is idempotent."""
    for rule in rules:
        longest = rule.get("MaxDelaySeconds")
        state.add_retry(
            errors=list(rule["ErrorEquals"]),
            interval=cdk.Duration.seconds(rule["IntervalSeconds"]),
            max_attempts=rule["MaxAttempts"],
            backoff_rate=rule["BackoffRate"],
            max_delay=cdk.Duration.seconds(longest) if longest else None,
            jitter_strategy=sfn.JitterType[rule["JitterStrategy"]],
        )
