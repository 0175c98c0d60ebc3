"""Properties of the router and its API."""

from pydantic import Field, field_validator

from cdk_distilled_router import catalogue
from cdk_distilled_router.props.base import InferenceId, Props, not_allowed, one_of


class RouterProps(Props):
    """The function that answers queries, and its API."""

    base_model: InferenceId = Field(
        description="Model that answers with the full prompt if no release does: its inference id or us. "
        "inference profile id. Ids with a context length are for training only."
    )
    time_budget_ms: int = Field(
        ge=200,
        le=25_000,
        description="Milliseconds for an answer, including retries and fallbacks. An HTTP API gives up "
        "after 29 s.",
    )
    batch_time_budget_ms: int = Field(
        default=10_000,
        ge=200,
        le=25_000,
        description="Milliseconds for all answers of a batch; each has time_budget_ms within it. Default: "
        "10000.",
    )
    memory_mb: int = Field(
        ge=128,
        le=10_240,
        description="Memory of the function in MB; its share of a CPU grows with it (AWS Lambda quotas).",
    )
    cache_entries: int = Field(
        ge=0, le=100_000, description="Answers that one execution environment caches; 0 turns the cache off."
    )
    cache_seconds: int = Field(ge=0, le=86_400, description="Seconds that a cached answer is used.")
    route_seconds: int = Field(
        ge=1, le=300, description="Seconds after which the router reads the route from the table again."
    )
    throttle_rate: float = Field(
        gt=0, le=100_000, description="Requests a second that the API allows on average."
    )
    throttle_burst: int = Field(ge=1, le=100_000, description="Requests that the API allows at once.")
    log_queries: bool = Field(
        default=False,
        description="Log the queries themselves; they may be personal data. Default: false.",
    )
    tracing: bool = Field(
        default=True,
        description="Send X-Ray traces of the requests that Lambda samples, by default one a second and 5 % "
        "of the others; X-Ray bills them. Default: true.",
    )
    reserved_concurrency: int | None = Field(
        default=None,
        ge=1,
        description="Concurrent executions reserved for the function, which are also its limit. The account "
        "must keep 100 unreserved (AWS Lambda quotas). Default: none reserved.",
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
