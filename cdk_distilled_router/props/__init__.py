"""Properties of the constructs. The tables of a settings file use the same classes.

Importing them imports pydantic, but not the CDK.
"""

from cdk_distilled_router.props.base import Fraction, InferenceId, Props, not_allowed, one_of
from cdk_distilled_router.props.distillation import DistillationProps, HyperparametersProps, JobProps
from cdk_distilled_router.props.head import HeadProps
from cdk_distilled_router.props.labelling import LabellingProps
from cdk_distilled_router.props.release import EvaluationProps, GateProps, RolloutProps, TimingProps
from cdk_distilled_router.props.retention import RETAIN, RetentionProps
from cdk_distilled_router.props.router import RouterProps
from cdk_distilled_router.props.throughput import ProvisionedProps, ThroughputProps

__all__ = [
    "RETAIN",
    "DistillationProps",
    "EvaluationProps",
    "Fraction",
    "GateProps",
    "HeadProps",
    "HyperparametersProps",
    "InferenceId",
    "JobProps",
    "LabellingProps",
    "Props",
    "ProvisionedProps",
    "RetentionProps",
    "RolloutProps",
    "RouterProps",
    "ThroughputProps",
    "TimingProps",
    "not_allowed",
    "one_of",
]
