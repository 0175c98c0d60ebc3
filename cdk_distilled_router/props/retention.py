"""What outlives the constructs."""

from typing import Literal

from pydantic import Field

from cdk_distilled_router.props.base import Props

# CloudWatch Logs takes these numbers of days only (botocore: PutRetentionPolicyRequest$retentionInDays).
LogDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]  # fmt: skip


class RetentionProps(Props):
    """What outlives the stacks."""

    data: Literal["retain", "delete"] = Field(
        description="What becomes of the data bucket, its content and the key when their stack is deleted. "
        "The releases table always goes."
    )
    models: Literal["retain", "delete"] = Field(
        description="What becomes of custom models when their stack is deleted; a model that is kept is "
        "billed for storage, one that is deleted must be paid again."
    )
    throughput: Literal["delete", "retain"] = Field(
        default="delete",
        description="What becomes of provisioned throughput when its stack is deleted, or nothing is routed "
        "to it any more. Retained, it is billed by the hour until somebody deletes it: meant for a "
        "commitment, which can't be deleted before its term, so that its stack can. "
        'Default: "delete".',
    )
    log_days: LogDays = Field(
        description="Days that logs are kept; only values that CloudWatch Logs offers "
        "(botocore: PutRetentionPolicyRequest$retentionInDays)."
    )
