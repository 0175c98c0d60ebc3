"""Properties of the router and its API."""

from math import ceil

from pydantic import Field, ValidationInfo, field_validator

from cdk_distilled_router import catalogue
from cdk_distilled_router.props.base import InferenceId, Props, not_allowed, one_of


class RouterProps(Props):
    """The function that answers queries, and its API."""

    base_model: InferenceId = Field(
        description="Model that answers with the full prompt if no release does: its inference id or us. "
        "inference profile id. Ids with a context length are for training only."
    )
    time_budget_ms: int = Field(
        default=3_000,
        ge=200,
        le=25_000,
        description="Milliseconds for an answer, including retries and fallbacks. An HTTP API gives up "
        "after 29 s. Default: 3000.",
    )
    batch_time_budget_ms: int = Field(
        default=10_000,
        ge=200,
        le=25_000,
        description="Milliseconds for all answers of a batch; each has time_budget_ms within it. Default: "
        "10000.",
    )
    memory_mb: int = Field(
        default=1_024,
        ge=128,
        le=10_240,
        description="Memory of the function in MB; its share of a CPU grows with it (AWS Lambda quotas). "
        "Default: 1024.",
    )
    cache_entries: int = Field(
        default=10_000,
        ge=0,
        le=100_000,
        description="Answers that one execution environment caches; 0 turns the cache off. Default: 10000.",
    )
    cache_seconds: int = Field(
        default=900, ge=0, le=86_400, description="Seconds that a cached answer is used. Default: 900."
    )
    route_seconds: int = Field(
        default=30,
        ge=1,
        le=300,
        description="Seconds after which the router reads the route from the table again. Default: 30.",
    )
    throttle_rate: float = Field(
        default=20.0,
        gt=0,
        le=100_000,
        description="Requests a second that the API allows on POST /route on average. Default: 20.",
    )
    throttle_burst: int = Field(
        default=40,
        ge=1,
        le=100_000,
        description="Requests that the API allows on POST /route at once. Default: 40.",
    )
    batch_queries: int = Field(
        default=20,
        ge=1,
        # Values of a metric in one document (CloudWatch user guide, embedded metric format specification).
        le=100,
        description="The most queries in a batch. Default: 20.",
    )
    batch_throttle_rate: float = Field(
        default=0.5,
        gt=0,
        le=100_000,
        description="Batches a second that the API allows on POST /routes on average. Default: 0.5.",
    )
    batch_throttle_burst: int = Field(
        default=5, ge=1, le=100_000, description="Batches that the API allows at once. Default: 5."
    )
    quota_requests_per_minute: int = Field(
        default=2_000,
        ge=1,
        le=10_000_000,
        validate_default=True,
        description="Requests a minute that the student's endpoint takes, or the base model if it takes "
        "fewer. The throttles must not allow more queries in any minute, and one caller gets five eighths "
        "of it in an execution environment. A deployment of Nova Micro takes 2000 (Bedrock user guide, "
        "on-demand custom models); Service Quotas has the base model's. Default: 2000.",
    )
    log_queries: bool = Field(
        default=False,
        description="Log the queries themselves; they may be personal data. Default: false.",
    )
    tracing: bool = Field(
        default=False,
        description="Send X-Ray traces of the requests that Lambda samples: one a second and 5 % of the "
        "others, which can't be changed (AWS Lambda developer guide, services-xray). X-Ray bills them, up to "
        "five dollars for a million requests. Default: false.",
    )
    reserved_concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Concurrent executions reserved for the function. They are also its limit, for direct "
        "invocations too. The account must keep 100 unreserved (AWS Lambda quotas). Default: none reserved.",
    )

    @field_validator("base_model")
    @classmethod
    def _check_base_model(cls, value: str) -> str:
        model = catalogue.without_profile(value)
        if model in catalogue.ENDED:
            raise not_allowed(f"a model that is available; {model} ended on {catalogue.ENDED[model]}")
        if value in catalogue.FALLBACKS:
            return value
        if ids := catalogue.fallbacks_named(value):
            raise not_allowed(f"{one_of(ids)}: Bedrock invokes this model by no other id")
        raise not_allowed(
            f"{one_of(catalogue.FALLBACKS)} (chat models of {catalogue.AS_OF}; add a newer one to FALLBACKS "
            "in cdk_distilled_router/catalogue.py)"
        )

    @field_validator("quota_requests_per_minute")
    @classmethod
    def _check_throttles(cls, value: int, info: ValidationInfo) -> int:
        """Check that no minute of requests holds more queries than a model takes.

        In the worst minute a throttle lets through its burst and a minute of its rate: API Gateway counts by
        a token bucket (developer guide, "Throttling requests to your HTTP API").
        """
        found = info.data
        if not found.keys() >= _THROTTLES:
            return value  # one of them is refused already
        single = found["throttle_burst"] + 60 * found["throttle_rate"]
        batches = found["batch_throttle_burst"] + 60 * found["batch_throttle_rate"]
        queries = single + batches * found["batch_queries"]
        if queries > value:
            raise not_allowed(
                f"throttles of at most {value:,} queries a minute (router.quota_requests_per_minute). These "
                f"allow {ceil(queries):,}: {ceil(single):,} on POST /route (burst + 60 x rate), and "
                f"{ceil(batches):,} batches of {found['batch_queries']} on POST /routes. Lower "
                "router.throttle_rate or throttle_burst, router.batch_throttle_rate, batch_throttle_burst or "
                "batch_queries; or have the quota raised and state it",
                at="router.throttle_rate",
            )
        return value


_THROTTLES = {
    *("throttle_rate", "throttle_burst"),
    *("batch_throttle_rate", "batch_throttle_burst", "batch_queries"),
}
