"""Properties of a release: gate, evaluation, rollout and timing."""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from cdk_distilled_router import catalogue
from cdk_distilled_router.props.base import Fraction, InferenceId, Props, not_allowed, one_of
from distilled_router.task.robustness import SLICES

Slice = Annotated[
    Literal["typos", "upper_case", "paraphrases", "injections", "very_long", "other_languages", "traffic"],
    Field(json_schema_extra={"x-allowed": one_of(SLICES)}),
]
# Checks while a release bakes, each of which writes the route once more.
MOST_BAKING = 100


class GateProps(Props):
    """What a candidate must reach on the hold-out set."""

    minimum_valid_output: Fraction = Field(
        default=0.98,
        description="Share of answers that parse and contain a weight for each label. Default: 0.98.",
    )
    minimum_dominant_accuracy: Fraction = Field(
        default=0.85,
        description="Share of examples whose largest weight is on the same label as in the reference. "
        "Default: 0.85.",
    )
    maximum_mean_absolute_error: Fraction = Field(
        default=0.10,
        description="Mean absolute difference between a weight and the reference weight. Default: 0.1.",
    )
    minimum_balanced_accuracy: Fraction | None = Field(
        default=None,
        description="Mean of the labels' accuracies; labels with fewer than 10 hold-out examples count as "
        "one. Default: no limit, but it must be clearly higher than that of a constant answer.",
    )
    minimum_worst_label_accuracy: Fraction | None = Field(
        default=None,
        description="Accuracy of the label with the lowest one; labels with fewer than 10 hold-out examples "
        "count as one (docs/evaluation.md#labels-and-slices). Default: no limit; the report names labels "
        "clearly below the rest.",
    )
    minimum_slice_accuracy: dict[Slice, Fraction] | None = Field(
        default=None,
        description="Share of right dominant labels by robustness slice, such as { injections = 0.8 }. "
        "Default: no limits; the report names slices clearly below the rest.",
        json_schema_extra={"x-allowed": "a table with a number from 0 to 1 for each slice"},
    )
    minimum_examples: int = Field(
        default=500,
        ge=1,
        description="Hold-out examples that must be evaluated for the scores to count. Default: 500.",
    )
    maximum_latency_p95_ms: float | None = Field(
        default=None,
        gt=0,
        description="Milliseconds for the 95th percentile of the latency. Default: no limit.",
    )
    maximum_cost_per_1000_usd: float | None = Field(
        default=None,
        gt=0,
        description="US dollars for the tokens of 1,000 queries and answers, by the price table. A model "
        "without a known price is refused. Default: no limit.",
    )
    minimum_judge_score: float | None = Field(
        default=None,
        ge=1,
        le=5,
        description="Mean grade from evaluation.judge, from 1 to 5. A candidate without a grade is refused. "
        "Default: no limit.",
    )
    not_worse: bool = Field(
        default=True,
        description="Refuse a candidate unless it is shown not to be worse than the live release and the "
        "best earlier one: the one-sided 95 % bound of the difference must be within the margin "
        "(docs/evaluation.md). Default: true.",
    )
    non_inferiority_margin: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.05,
        description="How much worse than these a candidate may be in valid output and dominant-label "
        "accuracy. A smaller margin needs more hold-out examples. Default: 0.05.",
    )
    error_margin: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.02,
        description="How much worse than these a candidate may be in mean absolute error. Default: 0.02.",
    )
    latency_margin: float = Field(
        default=0.25,
        ge=0,
        le=10,
        description="How much slower or more expensive than the live release a candidate may be, as a share "
        "of its median latency and of its cost. Default: 0.25.",
    )

    def to_function(self) -> dict[str, Any]:
        """Return what ScoreAndGate reads, the fields of `distilled_router.release.gate.Gate`.

        A limit that is not set is left out: a new one must not start a failed release again.
        """
        return self.model_dump(exclude_none=True)


class EvaluationProps(Props):
    """How a candidate is evaluated, and what it is compared with."""

    slice_queries: int = Field(
        default=100,
        ge=0,
        le=1_000,
        description="Hold-out queries to vary for each robustness slice: typos, upper case, and those of "
        "the task's robustness.toml. 0 for no slices. Default: 100.",
    )
    compare_base: bool = Field(
        default=True,
        description="Also ask router.base_model with the full prompt; its tokens are billed. Default: true.",
    )
    concurrency: int = Field(
        default=2,
        ge=1,
        le=40,
        description="Shards of 500 questions to ask in parallel, each with 8 questions at a time. A "
        "deployment of Nova Micro takes 2,000 requests a minute, including live traffic. Default: 2.",
    )
    outage_minutes: float = Field(
        default=60,
        gt=0,
        le=720,
        description="Minutes that the evaluation waits for a model that can't be called, such as a throttled "
        "one, before it fails. Default: 60.",
    )
    judge: InferenceId | None = Field(
        default=None,
        description="Model that grades up to 1,000 of the candidate's answers from 1 to 5 in a Bedrock "
        "evaluation job; its tokens are billed. A model from the teacher's family prefers the teacher's "
        "style. Default: none.",
        json_schema_extra={"x-allowed": one_of(catalogue.JUDGES) + ", each with us. before it or without"},
    )
    judge_hours: float = Field(
        default=6,
        gt=0,
        le=24,
        description="Hours after which the evaluation job is stopped, without a grade. Default: 6.",
    )

    @field_validator("judge", mode="before")
    @classmethod
    def _check_none(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("judge")
    @classmethod
    def _check_judge(cls, value: str | None) -> str | None:
        model = catalogue.without_profile(value or "")
        if model in catalogue.ENDED:
            raise not_allowed(f"a model that is available; {model} ended on {catalogue.ENDED[model]}")
        if value and model not in catalogue.JUDGES:
            raise not_allowed(f"{one_of(catalogue.JUDGES)}, each with us. before it or without")
        return value


class RolloutProps(Props):
    """How a candidate that passed the gate takes over the requests."""

    steps: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=1, max_length=20)] = Field(
        default=[0.05, 0.25, 0.5, 1.0],
        description="Shares of the requests that the candidate gets, one after another: ascending, the last "
        "1.0. Default: [0.05, 0.25, 0.5, 1.0].",
    )
    dwell_seconds: int = Field(
        default=1_800,
        ge=1,
        le=86_400,
        description="Seconds that each step lasts before its metrics are checked. Default: 1800.",
    )
    maximum_error_rate: Fraction = Field(
        default=0.01,
        description="Share of the candidate's different queries with an error; clearly above it, the "
        "candidate is rolled back. Default: 0.01.",
    )
    maximum_fallback_rate: Fraction = Field(
        default=0.03,
        description="Share of the candidate's different queries answered by a fallback; clearly above it, "
        "the candidate is rolled back. Default: 0.03.",
    )
    maximum_invalid_output_rate: Fraction = Field(
        default=0.02,
        description="Share of the candidate's different queries whose answers don't parse; clearly above it, "
        "the candidate is rolled back. Default: 0.02.",
    )
    bake_seconds: int = Field(
        default=0,
        ge=0,
        le=1_209_600,
        description="Seconds that the candidate keeps all requests after the last step before it replaces "
        "the live release. Checked every dwell_seconds, at most 100 times. Default: 0.",
    )
    probes: int = Field(
        default=500,
        ge=0,
        le=500,
        description="Hold-out queries sent to both candidate and live release in each round, in turn from up "
        "to 3,000 hold-out rows; their tokens are billed. With 0, neither quality nor latency is compared. "
        "Default: 500.",
    )
    non_inferiority_margin: Fraction = Field(
        default=0.02,
        description="How much higher each of these rates may be than the live release's since the rollout "
        "began; clearly more, and the candidate is rolled back. Default: 0.02.",
    )
    latency_margin: float = Field(
        default=0.5,
        ge=0,
        le=10,
        description="How much longer the candidate's model may take than the live release's for most probes, "
        "as a share of its time; 50 ms are always allowed. Default: 0.5.",
    )
    keep_releases: int = Field(
        default=1,
        ge=0,
        le=10,
        description="Releases kept for rollback in addition to the live one. Each keeps its model, whose "
        "storage is billed. Default: 1.",
    )

    def to_function(self) -> dict[str, Any]:
        """Return what RollOut reads, the fields of `distilled_router.release.rollout.Rollout`."""
        return self.model_dump(exclude={"keep_releases"})

    @field_validator("steps")
    @classmethod
    def _check_steps(cls, value: list[float]) -> list[float]:
        if value[-1] != 1.0 or any(a >= b for a, b in pairwise(value)):
            raise not_allowed("shares above 0 that ascend to 1.0, such as [0.1, 0.5, 1.0]")
        return value

    @field_validator("bake_seconds")
    @classmethod
    def _check_baking(cls, value: int, info: ValidationInfo) -> int:
        dwell = info.data.get("dwell_seconds")
        if dwell and value > dwell * MOST_BAKING:
            most = f"up to {dwell * MOST_BAKING} with rollout.dwell_seconds {dwell}, or a longer dwell"
            raise not_allowed(f"{most}: each check is a step of the state machine and a change of the route")
        return value


class TimingProps(Props):
    """Time limits and retries of a release."""

    poll_seconds: int = Field(
        default=300,
        ge=1,
        le=3_600,
        description="Seconds between two polls of a job or an endpoint; more after a long wait: 5 % of the "
        "time so far, at most an hour. Default: 300.",
    )
    timeout_hours: float = Field(
        default=120,
        gt=0,
        le=720,
        description="Hours that a release waits for its job. The later steps have limits of their own. "
        "Default: 120.",
    )
    stall_hours: float = Field(
        default_factory=lambda before: min(48.0, before.get("timeout_hours", 48.0)),
        gt=0,
        le=720,
        description="Hours that a job may stay in NotStarted before it counts as stalled. Queues of one or "
        "two days occur. Default: 48, or timeout_hours if that is less.",
    )
    stop_stalled: bool = Field(
        default=False,
        description="Stop a stalled job and fail its release. Tokens used are charged, and the job's name "
        "is used up. Default: false, the job stays in its queue.",
    )
    retry_internal_errors: int = Field(
        default=0,
        ge=0,
        le=3,
        description="How often a job is created again, under another name, after an internal error of "
        "Bedrock; counted per digest. Default: 0.",
    )
    attempt: int = Field(
        default=1,
        ge=1,
        le=1_000,
        description="Raise it and deploy to start a release again that failed or was rolled back by hand, or "
        "to continue a stopped labelling. Paid jobs and answers are used again. Default: 1.",
    )
    wait_hours: float = Field(
        default=0,
        ge=0,
        le=72,
        description="Hours that the deployment waits for the release, in windows of up to 12 hours "
        "(CloudFormation: WaitCondition). Default: 0, the deployment ends and the release continues.",
    )

    @field_validator("stall_hours")
    @classmethod
    def _check_stall(cls, value: float, info: ValidationInfo) -> float:
        timeout = info.data.get("timeout_hours")
        if timeout and value > timeout:
            raise not_allowed(f"up to release.timeout_hours, which is {timeout:g}")
        return value
