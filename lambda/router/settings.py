"""What the router's environment variables say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The router's settings; times in seconds, prices as `router.costs.Rate` reads them."""

    name: str
    table_name: str
    base_model_id: str
    base_prices: str = ""
    student_prices: str = ""
    time_budget: float = 1.5
    batch_time_budget: float = 10.0
    cache_entries: int = 2000
    cache_seconds: float = 300.0
    route_seconds: float = 10.0
    log_queries: bool = False
    tracing: bool = False
    namespace: str = "DistilledRouter"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read them. Raises ValueError, naming the variable: a deployment's mistake shows at once."""
        return cls(
            name=_required(environment, "NAME"),
            table_name=_required(environment, "TABLE_NAME"),
            base_model_id=_required(environment, "BASE_MODEL_ID"),
            base_prices=environment.get("BASE_PRICES", "").strip(),
            student_prices=environment.get("STUDENT_PRICES", "").strip(),
            time_budget=_number(environment, "TIME_BUDGET_MS", 1500, at_least=50) / 1000,
            batch_time_budget=_number(environment, "BATCH_TIME_BUDGET_MS", 10_000, at_least=50) / 1000,
            cache_entries=int(_number(environment, "CACHE_ENTRIES", 2000)),
            cache_seconds=_number(environment, "CACHE_SECONDS", 300),
            route_seconds=_number(environment, "ROUTE_SECONDS", 10),
            log_queries=_flag(environment, "LOG_QUERIES"),
            tracing=_flag(environment, "TRACING"),
            namespace=environment.get("POWERTOOLS_METRICS_NAMESPACE") or cls.namespace,
        )


def _required(environment: Mapping[str, str], variable: str) -> str:
    value = environment.get(variable, "").strip()
    if not value:
        raise ValueError(f"The environment variable {variable} is missing.")
    return value


def _flag(environment: Mapping[str, str], variable: str) -> bool:
    text = environment.get(variable, "false").strip().lower()
    if text not in {"true", "false"}:
        raise ValueError(f"{variable} is {text!r}, expected true or false.")
    return text == "true"


def _number(environment: Mapping[str, str], variable: str, default: float, at_least: float = 0) -> float:
    text = environment.get(variable, "").strip()
    try:
        value = float(text) if text else float(default)
    except ValueError:
        value = -1.0
    if not at_least <= value <= 1_000_000:
        raise ValueError(f"{variable} is {text!r}, expected a number from {at_least:g} to 1000000.")
    return value
