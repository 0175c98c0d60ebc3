"""Properties of a release's classification head."""

from typing import Annotated, Literal

from pydantic import Field

from cdk_distilled_router.props.base import Fraction, Props


class HeadProps(Props):
    """The classification head: a small classifier that answers in the router's own process."""

    mode: Literal["off", "last_resort", "first"] = Field(
        default="last_resort",
        description='"first": the head answers the queries that it is sure of, and the student the others. '
        '"last_resort": it answers only if no model does, instead of static weights. "off": none is trained '
        'or used. Default: "last_resort".',
    )
    margin_error: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.02,
        description="How much larger the mean absolute error may become if the head answers first: its "
        "threshold is the highest for which the one-sided 95 % bound on the hold-out set is within this "
        "margin. Default: 0.02.",
    )
    margin_dominant: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.03,
        description="How much smaller the share of right dominant labels may become, by the same bound. A "
        "smaller margin needs more hold-out examples. Default: 0.03.",
    )
    explore_share: Fraction = Field(
        default=0.05,
        description="Share of the queries that the head is sure of and the student answers, so that both "
        "can be compared; their tokens are billed. With 0 a rollout judges the student by probes, and by "
        "the queries that the head leaves to it. Default: 0.05.",
    )
    maximum_difference: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.05,
        description="Mean absolute difference between the weights of head and student on these queries "
        "above which an alarm is raised. Default: 0.05.",
    )

    @property
    def is_off(self) -> bool:
        """Return whether no head is trained or used."""
        return self.mode == "off"
