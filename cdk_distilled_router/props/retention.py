"""Properties of retention: what stays after deletion."""

from typing import Literal

from pydantic import Field

from cdk_distilled_router.props.base import Props

# CloudWatch Logs accepts only these numbers of days (botocore: PutRetentionPolicyRequest$retentionInDays).
LogDays = Literal[
    1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653
]  # fmt: skip


class RetentionProps(Props):
    """What stays when the stacks are deleted."""

    data: Literal["retain", "delete"] = Field(
        description="What happens to the data bucket, its content and the key when their stack is deleted. "
        "The releases table is always deleted."
    )
    models: Literal["retain", "delete"] = Field(
        description="What happens to custom models when their stack is deleted. Storage of a kept model is "
        "billed; a deleted model must be paid for again."
    )
    throughput: Literal["delete", "retain"] = Field(
        default="delete",
        description="What happens to provisioned throughput when its stack is deleted or the route no "
        'longer uses it. If retained, it is billed by the hour until you delete it. Use "retain" to delete '
        'a stack, or leave its throughput, before the commitment has ended. Default: "delete".',
    )
    log_days: LogDays = Field(
        default=90,
        description="Days to keep logs; CloudWatch Logs allows only these values (botocore: "
        "PutRetentionPolicyRequest$retentionInDays). Default: 90.",
    )


RETAIN = RetentionProps(data="retain", models="retain")
"""Data and models stay; throughput, which is billed by the hour, is deleted."""
