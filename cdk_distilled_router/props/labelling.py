"""Properties of the labelling: how the teacher answers raw queries, and which answers are kept."""

from pydantic import Field, ValidationInfo, field_validator

from cdk_distilled_router.props.base import Fraction, Props, not_allowed
from distilled_router.cost.batch_limits import BATCH_MAXIMUM, BATCH_MINIMUM


class LabellingProps(Props):
    """Labels by the teacher's full prompt, through batch inference at half the price."""

    samples: int = Field(
        default=3,
        ge=1,
        le=10,
        description="Answers that the teacher gives to each query. How far they agree is how sure it is. "
        "Each is paid for. Default: 3.",
    )
    temperature: Fraction = Field(
        default=0.5,
        validate_default=True,
        description="Temperature of the teacher's answers: 0 makes several samples pointless. Default: 0.5.",
    )
    max_tokens: int = Field(
        default=300,
        ge=16,
        le=5_000,
        description="Tokens that one answer may have (botocore: InferenceConfiguration$maxTokens). "
        "Default: 300.",
    )
    tolerance: Fraction = Field(
        default=0.10,
        description="Answers agree if no weight differs by more than this, and the largest weight is of the "
        "same label. Default: 0.10.",
    )
    minimum_agreement: Fraction = Field(
        default=0.6,
        description="Part of a query's samples that must agree for its label to be kept. Default: 0.6, two "
        "of three.",
    )
    maximum_label_share: Fraction = Field(
        default=0.6,
        gt=0,
        description="Training rows in which one label has the largest weight, at most, as a part of all; "
        "what is above is left out, least sure first. Default: 0.6.",
    )
    holdout_share: float = Field(
        default=0.1,
        gt=0,
        le=0.5,
        description="Part of the labelled queries that is held out, by whole families of queries, where "
        "dataset.holdout names no file. Default: 0.1.",
    )
    validation_share: float = Field(
        default=0.0,
        ge=0,
        le=0.3,
        description="Part that Bedrock validates with, for fine_tuning only; at most 1,000 rows of it are "
        "used. Default: 0.",
    )
    queries_per_shard: int = Field(
        default=2_000,
        ge=20,
        le=BATCH_MAXIMUM,
        validate_default=True,
        description="Queries that are labelled together, as one batch job. Times samples at least "
        f"{BATCH_MINIMUM:,} and at most {BATCH_MAXIMUM:,} records. Default: 2000.",
    )
    concurrency: int = Field(
        default=4,
        ge=1,
        le=20,
        description="Batch jobs at a time, and calls at a time where a set is too small for a batch. "
        "Default: 4.",
    )
    batch_hours: int = Field(
        default=24,
        ge=24,
        le=168,
        description="Hours after which Bedrock ends a batch job (botocore: "
        "CreateModelInvocationJobRequest$timeoutDurationInHours). Default: 24.",
    )
    poll_seconds: int = Field(
        default=120, ge=1, le=3_600, description="How often batch jobs are looked at. Default: 120."
    )

    @field_validator("temperature")
    @classmethod
    def _check_temperature(cls, value: float, info: ValidationInfo) -> float:
        if value == 0 and info.data.get("samples", 1) > 1:
            raise not_allowed("a number above 0, because samples is above 1: they would all be the same")
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
