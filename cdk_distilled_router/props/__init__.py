"""Properties of the constructs. The settings files hold the same classes, table by table.

They load pydantic, and nothing of the CDK.
"""

from cdk_distilled_router.props.base import Fraction, InferenceId, Props, not_allowed, one_of
from cdk_distilled_router.props.release import EvaluationProps, GateProps, RolloutProps, TimingProps
from cdk_distilled_router.props.retention import RetentionProps

__all__ = [
    "EvaluationProps",
    "Fraction",
    "GateProps",
    "InferenceId",
    "Props",
    "RetentionProps",
    "RolloutProps",
    "TimingProps",
    "not_allowed",
    "one_of",
]
