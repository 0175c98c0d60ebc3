"""Properties of the labelling: sampling, curation and batches."""

from pydantic import Field, ValidationInfo, field_validator

from cdk_distilled_router.props.base import Fraction, Props, not_allowed
from distilled_router.cost.batch_limits import BATCH_MAXIMUM, BATCH_MINIMUM


class LabellingProps(Props):
    """How the teacher labels raw queries, with its full prompt and batch inference at half the price."""

    samples: int = Field(
        default=3,
        ge=1,
        le=10,
        description="Answers that the teacher gives to each query, to measure how well they agree. Each is "
        "paid for. Default: 3.",
    )
    temperature: Fraction = Field(
        default=0.5,
        validate_default=True,
        description="Temperature of the teacher's answers. With 0, several samples are pointless. Default: "
        "0.5.",
    )
    max_tokens: int = Field(
        default=300,
        ge=16,
        le=5_000,
        description="Tokens of one answer, at most (botocore: InferenceConfiguration$maxTokens). Default: "
        "300.",
    )
    tolerance: Fraction = Field(
        default=0.10,
        description="Answers agree if no weight differs by more than this and the same label has the "
        "largest weight. Default: 0.10.",
    )
    minimum_agreement: Fraction = Field(
        default=0.6,
        description="Share of a query's samples that must agree to keep its label. Default: 0.6, two of "
        "three.",
    )
    maximum_label_share: Fraction = Field(
        default=1.0,
        gt=0,
        description="Maximum share of the training rows in which the same label has the largest weight. "
        "Rows above it are left out although their labels are paid for, those with the least agreement "
        "first; a student then learns less (docs/data.md). Default: 1, none is left out.",
    )
    holdout_share: float = Field(
        default=0.1,
        gt=0,
        le=0.5,
        description="Share of the labelled queries to hold out, by whole families of similar queries, if "
        "dataset.holdout names no file. Default: 0.1.",
    )
    validation_share: float = Field(
        default=0.0,
        ge=0,
        le=0.3,
        description="Share of the rows that Bedrock validates with, at most 1,000 of them; for fine_tuning "
        "only. Default: 0.",
    )
    queries_per_shard: int = Field(
        default=2_000,
        ge=20,
        le=BATCH_MAXIMUM,
        validate_default=True,
        description="Queries labelled together in one batch job. Multiplied by samples, at least 100 and at "
        "most 50,000 records. Default: 2000.",
    )
    concurrency: int = Field(
        default=4,
        ge=1,
        le=20,
        description="Batch jobs in parallel, and parallel calls for sets too small for a batch. Default: 4.",
    )
    batch_hours: int = Field(
        default=24,
        ge=24,
        le=168,
        description="Hours after which Bedrock ends a batch job (botocore: "
        "CreateModelInvocationJobRequest$timeoutDurationInHours). Default: 24.",
    )
    poll_seconds: int = Field(
        default=120,
        ge=1,
        le=3_600,
        description="Seconds between two polls of a batch job; more after a long wait: 5 % of the time so "
        "far, at most an hour. Default: 120.",
    )

    @field_validator("temperature")
    @classmethod
    def _check_temperature(cls, value: float, info: ValidationInfo) -> float:
        if value == 0 and info.data.get("samples", 1) > 1:
            raise not_allowed(
                "a number above 0, because samples is above 1: with 0, all samples would be the same"
            )
        return value

    @field_validator("queries_per_shard")
    @classmethod
    def _check_shard(cls, value: int, info: ValidationInfo) -> int:
        samples = info.data.get("samples", 1)
        if not BATCH_MINIMUM <= value * samples <= BATCH_MAXIMUM:
            least, most = -(-BATCH_MINIMUM // samples), BATCH_MAXIMUM // samples
            raise not_allowed(
                f"an integer from {least} to {most}, so that with {samples} samples a shard has "
                f"{BATCH_MINIMUM} to {BATCH_MAXIMUM} records"
            )
        return value
