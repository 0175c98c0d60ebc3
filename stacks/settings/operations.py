"""Settings of what is kept, encrypted, watched and paid."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from cdk_distilled_router.props import Fraction, Props, not_allowed
from stacks.settings.fields import Emails, KeyArn

# IAM takes names of 128 characters, paths of 512 (botocore: iam policyNameType, policyPathType).
_CHARACTERS = "[A-Za-z0-9+=,.@_-]"
PolicyName = Annotated[
    str,
    StringConstraints(
        pattern=rf"^(arn:aws:iam::([0-9]{{12}}|aws):policy/({_CHARACTERS}{{1,128}}/)*)?{_CHARACTERS}{{1,128}}$"
    ),
    Field(json_schema_extra={"x-allowed": "the ARN of a managed policy, or its name"}),
]
Pack = Literal["AwsSolutions", "Serverless", "NIST80053R5", "HIPAASecurity", "PCIDSS321"]
"""A rule pack of cdk-nag, as its class is called there."""


class Checks(Props):
    """What the stacks are held against, whenever they are synthesised."""

    packs: Annotated[list[Pack], Field(min_length=1, max_length=5)] = Field(
        default=["AwsSolutions"],
        description="Rule packs of cdk-nag; a finding that nobody has acknowledged ends the synthesis. "
        'Default: ["AwsSolutions"].',
    )

    @field_validator("packs")
    @classmethod
    def _check_packs(cls, value: list[Pack]) -> list[Pack]:
        if len(set(value)) < len(value):
            raise not_allowed("each pack once")
        return value


class Security(Props):
    """What the account's platform asks of every role."""

    permissions_boundary: PolicyName | None = Field(
        default=None,
        description="Permissions boundary of every role that is made: the ARN of a managed policy of this "
        "account or of AWS's, or the name of one of this account without a path. It must allow what "
        "docs/permissions.md lists. Default: none.",
    )


class Encryption(Props):
    """Keys of our own."""

    key_arn: KeyArn | None = Field(
        default=None,
        description="A key of your own in place of the one that the data stack makes: symmetric, in this "
        "account and Region. Its policy must be what `python -m stacks.keys <environment>` prints; no stack "
        "can change it. To be decided before the first deployment. Default: none, a key is made.",
    )
    model_key: bool = Field(
        description="Encrypt the custom model too with the customer managed key, not only the data "
        "(botocore: CreateModelCustomizationJobRequest$customModelKmsKeyId)."
    )
    runtime_key: bool = Field(
        default=False,
        description="Encrypt with the key also what runs: log groups, environment variables of functions, "
        "definitions and executions of state machines. Default: false, AWS's own keys do.",
    )
    key_deletion_days: int = Field(
        ge=7,
        le=30,
        description="Days between the key's removal from the stack and its deletion, in which it can be "
        "saved; says nothing of a key of your own (botocore: "
        "ScheduleKeyDeletionRequest$PendingWindowInDays).",
    )


class Alarms(Props):
    """Limits beyond which somebody is told."""

    error_rate: Fraction = Field(description="Share of requests in error. From 0 to 1.")
    fallback_rate: Fraction = Field(
        description="Share of requests that the distilled model didn't answer. From 0 to 1."
    )
    invalid_output_rate: Fraction = Field(description="Share of model answers that don't parse. From 0 to 1.")
    latency_p95_ms: int = Field(
        ge=1, le=29_000, description="Milliseconds within which 95 of 100 answers are expected."
    )
    evaluation_periods: int = Field(
        ge=1, le=24, description="Periods in a row beyond the limit before the alarm is raised."
    )
    emails: Emails = Field(
        default_factory=list,
        description="Addresses that are told; each must confirm its subscription. Default: none, [].",
    )


class Budget(Props):
    """A monthly budget; its figures lag by hours, so that it warns and doesn't stop anything."""

    monthly_usd: float | None = Field(
        default=None, gt=0, description="US dollars a month. Default: none, and no budget is made."
    )
    emails: Emails = Field(
        default_factory=list,
        validate_default=True,
        description="Addresses that are told, at least one with monthly_usd and at most 10 (AWS Budgets). "
        "Default: none, [].",
    )

    @field_validator("emails")
    @classmethod
    def _check_emails(cls, value: list[str], info: ValidationInfo) -> list[str]:
        if info.data.get("monthly_usd") is not None and not value:
            raise not_allowed("at least one e-mail address, because budget.monthly_usd is set")
        return value
