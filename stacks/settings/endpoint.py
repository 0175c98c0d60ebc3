"""Settings of the model endpoint."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from cdk_distilled_router.props import Props, ProvisionedProps, not_allowed


class Endpoint(Props):
    """Where the released model is invoked."""

    kind: Literal["on_demand", "provisioned"] = Field(
        description='"on_demand": a custom-model deployment, billed by the token. "provisioned": '
        "provisioned throughput, billed by the hour."
    )
    provisioned: ProvisionedProps | None = Field(
        default=None,
        validate_default=True,
        description='The throughput to buy. Required if kind is "provisioned", refused otherwise. Default: '
        "none.",
    )

    @field_validator("provisioned")
    @classmethod
    def _check_provisioned(
        cls, value: ProvisionedProps | None, info: ValidationInfo
    ) -> ProvisionedProps | None:
        kind = info.data.get("kind")
        if kind == "provisioned" and value is None:
            raise not_allowed('a table [endpoint.provisioned], because endpoint.kind is "provisioned"')
        if kind == "on_demand" and value is not None:
            raise not_allowed('nothing, because endpoint.kind is "on_demand"')
        return value
