"""Properties of provisioned throughput."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from cdk_distilled_router.props.base import Props, not_allowed


class ThroughputProps(Props):
    """How much throughput, and for how long; `ProvisionedThroughput` checks that it fits together.

    Attributes:
        model_units: at least 1; the account's quota is 0 until AWS raises it.
        hourly_price_usd: of one model unit, from the Bedrock price list; needed with a commitment, whose rest
            is told in USD wherever it can't be deleted.
        commitment: `none` (billed by the hour), `OneMonth` or `SixMonths`.
        acknowledge_commitment: says that the whole term will be paid.
    """

    model_units: int
    hourly_price_usd: float | None = None
    commitment: Literal["none", "OneMonth", "SixMonths"] = "none"
    acknowledge_commitment: bool = False

    @property
    def term(self) -> str | None:
        """The commitment as the API has it: none is to name none."""
        return None if self.commitment == "none" else self.commitment


class ProvisionedProps(ThroughputProps):
    """Provisioned throughput: capacity by the hour, billed until it is deleted."""

    model_units: int = Field(
        ge=1,
        description="Model units to buy. The account's quota is 0 until AWS raises it. Another number is "
        "other throughput: the release moves to it, and the old one is deleted (botocore: "
        "CreateProvisionedModelThroughputRequest$modelUnits).",
    )
    hourly_price_usd: float = Field(
        gt=0,
        le=10_000,
        description="US dollars for one model unit and hour, from the Bedrock price list; stating it "
        "accepts it.",
    )
    commitment: Literal["none", "OneMonth", "SixMonths"] = Field(
        default="none",
        description="Term of the commitment. The throughput can't be deleted before the term ends, and "
        "renews itself. A change is other throughput, and is refused while the current term runs (botocore: "
        'CommitmentDuration). Default: "none", by the hour.',
    )
    acknowledge_commitment: bool = Field(
        default=False,
        validate_default=True,
        description="Must be true with a commitment, because the whole term will be charged. Default: false.",
    )

    @field_validator("acknowledge_commitment")
    @classmethod
    def _check_acknowledged(cls, value: bool, info: ValidationInfo) -> bool:
        commitment = info.data.get("commitment", "none")
        if commitment != "none" and not value:
            raise not_allowed(
                f'true, because commitment is "{commitment}": it is paid to the end of its term and '
                "can't be deleted before"
            )
        return value
