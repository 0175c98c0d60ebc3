"""Properties of provisioned throughput."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from cdk_distilled_router.props.base import Props, not_allowed


class ThroughputProps(Props):
    """Model units and commitment of throughput; `ProvisionedThroughput` validates the combination.

    Attributes:
        model_units: at least 1; the account's quota is 0 until AWS raises it.
        hourly_price_usd: US dollars for one model unit and hour, from the Bedrock price list. Required with a
            commitment, to report its remaining cost.
        commitment: `none` (billed by the hour), `OneMonth` or `SixMonths`.
        acknowledge_commitment: must be true with a commitment, because its whole term is charged.
    """

    model_units: int
    hourly_price_usd: float | None = None
    commitment: Literal["none", "OneMonth", "SixMonths"] = "none"
    acknowledge_commitment: bool = False

    @property
    def term(self) -> str | None:
        """Return the commitment for the API, which has no value for `none`."""
        return None if self.commitment == "none" else self.commitment


class ProvisionedProps(ThroughputProps):
    """Provisioned throughput: capacity that is billed by the hour until it is deleted."""

    model_units: int = Field(
        ge=1,
        description="Model units to buy. The account's quota is 0 until AWS raises it. A change "
        "buys new throughput: the release moves to it, and the old one is deleted (botocore: "
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
        "renews itself. A change buys new throughput, and is refused while the current term runs (botocore: "
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
                f'true, because commitment is "{commitment}": its whole term is charged, and it can\'t be '
                "deleted before"
            )
        return value
