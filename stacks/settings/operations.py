"""Settings of compliance checks, security, encryption, alarms and budgets."""

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
"""A rule pack of cdk-nag, by the name of its class there."""


class Checks(Props):
    """Compliance checks of every synthesis."""

    packs: Annotated[list[Pack], Field(min_length=1, max_length=5)] = Field(
        default=["AwsSolutions"],
        description="Rule packs of cdk-nag. A finding without an acknowledgement stops the synthesis. "
        'Default: ["AwsSolutions"].',
    )

    @field_validator("packs")
    @classmethod
    def _check_packs(cls, value: list[Pack]) -> list[Pack]:
        if len(set(value)) < len(value):
            raise not_allowed("each pack once")
        return value


class Security(Props):
    """Rules of your platform for every role."""

    permissions_boundary: PolicyName | None = Field(
        default=None,
        description="Permissions boundary of every role: the ARN of a managed policy of this account or of "
        "AWS, or the name of one in this account without a path. It must allow what docs/permissions.md "
        "lists. Default: none.",
    )


class Encryption(Props):
    """KMS keys."""

    key_arn: KeyArn | None = Field(
        default=None,
        description="Your own KMS key instead of the one that the data stack creates: symmetric, in this "
        "account and Region. `python -m stacks.keys <environment>` prints the policy that it needs; the "
        "stacks can't change it. Choose it before the first deployment. Default: none, a key is created.",
    )
    model_key: bool = Field(
        description="Encrypt the custom model with the customer managed key, not only the data (botocore: "
        "CreateModelCustomizationJobRequest$customModelKmsKeyId)."
    )
    runtime_key: bool = Field(
        default=False,
        description="Also encrypt log groups, the functions' environment variables, and the definitions and "
        "executions of state machines with the key. Default: false, AWS's own keys.",
    )
    key_deletion_days: int = Field(
        ge=7,
        le=30,
        description="Days before KMS deletes the key after it is removed from the stack; until then you can "
        "cancel the deletion. Doesn't apply to your own key (botocore: "
        "ScheduleKeyDeletionRequest$PendingWindowInDays).",
    )


class Alarms(Props):
    """Thresholds of the alarms, and who is notified."""

    error_rate: Fraction = Field(
        description="Share of requests with an error, and of failed reads of the route."
    )
    fallback_rate: Fraction = Field(
        description="Share of requests that the distilled model didn't answer; and, for the alarm "
        "CallerFallback, of those that it didn't answer because of the caller's own use."
    )
    static_rate: Fraction = Field(
        default=0.01,
        description="Share of requests that static weights, or the head as a last resort, answered, because "
        "no model did. Default: 0.01.",
    )
    invalid_output_rate: Fraction = Field(
        description="Share of the queries that a model was asked, whose output doesn't parse."
    )
    latency_p95_ms: int = Field(
        ge=1, le=29_000, description="95th percentile of the latency, in milliseconds."
    )
    hourly_cost_usd: float = Field(
        default=1.0,
        gt=0,
        description="US dollars that the tokens of the router's requests may cost in an hour, by the prices "
        "in lambda/distilled_router/cost/prices.toml. Default: 1.",
    )
    hourly_requests: int = Field(
        default=50_000,
        ge=1,
        description="Requests in an hour; each query of a batch counts. Default: 50000.",
    )
    evaluation_periods: int = Field(
        ge=1,
        le=24,
        description="Consecutive periods of 5 minutes above the threshold before the alarm is raised. The "
        "hourly alarms CostUsd and Requests need one hour, and HeadDifference so many consecutive hours.",
    )
    emails: Emails = Field(
        default_factory=list,
        description="Addresses to notify; each must confirm its subscription. Default: none, [].",
    )


class Budget(Props):
    """Monthly budgets. Their figures lag by hours: they warn, but stop nothing."""

    monthly_usd: float | None = Field(
        default=None,
        gt=0,
        description="US dollars a month for all resources with the owner's tag, which the account that pays "
        "must activate as a cost allocation tag: see docs/costs.md. Default: none, no budget is created.",
    )
    bedrock_monthly_usd: float | None = Field(
        default=None,
        gt=0,
        description="Optional second budget of the whole account: US dollars a month for all of its use of "
        "Bedrock, also by other teams and environments. It counts requests to models, which have no tags. "
        "Default: none.",
    )
    emails: Emails = Field(
        default_factory=list,
        validate_default=True,
        description="Addresses to notify: at least one with monthly_usd, at most 10 (AWS Budgets). Default: "
        "none, [].",
    )

    @field_validator("bedrock_monthly_usd")
    @classmethod
    def _check_bedrock(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and info.data.get("monthly_usd") is None:
            raise not_allowed("a value only with budget.monthly_usd, without which there is no budget")
        return value

    @field_validator("emails")
    @classmethod
    def _check_emails(cls, value: list[str], info: ValidationInfo) -> list[str]:
        if info.data.get("monthly_usd") is not None and not value:
            raise not_allowed("at least one e-mail address, because budget.monthly_usd is set")
        return value
