"""What a job and its release need of the data."""

from __future__ import annotations

from dataclasses import replace

from cdk_distilled_router.props import GateProps, JobProps, LabellingProps
from distilled_router.data.preflight import Needs


def needs(
    props: JobProps,
    gate: GateProps | None,
    labelling: LabellingProps | None = None,
    *,
    is_holdout_given: bool = True,
) -> Needs:
    """Return what a job and its release need of the data; `labelling` if it is made of raw queries."""
    found = Needs(
        method=props.method,
        student=props.student,
        minimum_examples=gate.minimum_examples if gate else 0,
        margin=gate.non_inferiority_margin if gate and gate.not_worse else 0.0,
        error_margin=gate.error_margin if gate else 0.0,
    )
    if labelling is None:
        return found
    return replace(
        found,
        holdout_share=0.0 if is_holdout_given else labelling.holdout_share,
        validation_share=labelling.validation_share,
        maximum_label_share=labelling.maximum_label_share,
    )
