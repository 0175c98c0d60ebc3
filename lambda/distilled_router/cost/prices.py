"""Read and check `prices.toml`: the prices of Bedrock and the other services, in US dollars."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from distilled_router.bedrock.models import base_model

FILE = Path(__file__).with_name("prices.toml")
SHOWN = "lambda/distilled_router/cost/prices.toml"
HOURS_A_MONTH = 730
"""Hours of a month in AWS's own estimates."""

_DATE = re.compile(r"\d{4}-\d{2}(-\d{2})?")
_TEXTS = ("region", "source", "date", "unit")


class PriceError(ValueError):
    """A price is unknown, or the table is invalid. The text says which, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The Region of a price, its source, and the date when it was read."""

    region: str
    source: str
    date: str

    @property
    def cited(self) -> str:
        """Return source, date and Region as text."""
        return f"{self.source} ({self.date}, {self.region})"


@dataclass(frozen=True, kw_only=True)
class TokenPrice(Entry):
    """A model's prices for a million tokens, on demand and, if known, for batch inference."""

    input: float
    output: float
    batch_input: float | None = None
    batch_output: float | None = None


@dataclass(frozen=True, kw_only=True)
class UnitPrice(Entry):
    """A single price. The table's name gives the unit."""

    usd: float


@dataclass(frozen=True, kw_only=True)
class ServicePrice(UnitPrice):
    """A service's price for `unit`, such as "a million requests"."""

    unit: str

    @property
    def shown(self) -> str:
        """Return price and unit as text."""
        return f"{self.usd:.10g} USD {self.unit}"


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A model's prices for a million tokens, either on demand or for batch inference."""

    input: float
    output: float
    cited: str

    def usd(self, input_tokens: float, output_tokens: float) -> float:
        """Return the price of a number of tokens, in US dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000


@dataclass(frozen=True, kw_only=True)
class Prices:
    """The price table.

    Attributes:
        models: prices of tokens, by inference id.
        trainings: prices of training with 1,000 tokens for one epoch, by the student's inference id.
        storage: price of storing a custom model for a month.
        services: prices of other services, by name.

    Example:
        >>> prices = Prices.load()
        >>> round(prices.tokens("us.amazon.nova-pro-v1:0", 1_000_000, 500_000), 2)
        2.4
        >>> prices.training("amazon.nova-micro-v1:0:128k", 2_000_000)
        2.0
    """

    models: Mapping[str, TokenPrice]
    trainings: Mapping[str, UnitPrice]
    storage: UnitPrice
    services: Mapping[str, ServicePrice]

    @classmethod
    def load(cls, path: Path = FILE) -> Self:
        """Read a price table.

        Raises:
            PriceError: The file is not TOML, or an entry is incomplete or invalid.
        """
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PriceError(f"{SHOWN} can't be read: {error}") from error
        if table.keys() != {"tokens", "training", "storage", "services"}:
            raise PriceError(
                f"{SHOWN} has {', '.join(table) or 'nothing'}; it needs tokens, training, storage, services"
            )
        return cls(
            models=_entries(TokenPrice, "tokens", table["tokens"]),
            trainings=_entries(UnitPrice, "training", table["training"]),
            storage=_entry(UnitPrice, "storage", table["storage"]),
            services=_services(table["services"]),
        )

    def rate(self, model: str, *, batch: bool = False) -> Rate:
        """Return what a model's tokens cost.

        Args:
            model: its id, also with a context length; a `us.` profile's id; or the ARN of a foundation
                model, an inference profile, or a custom model, which costs what its base model does.
            batch: the price of batch inference instead of on demand.

        Raises:
            PriceError: The price is unknown.
        """
        found = _found(self.models, model, "tokens")
        if not batch:
            return Rate(input=found.input, output=found.output, cited=found.cited)
        if found.batch_input is None or found.batch_output is None:
            raise _unknown(base_model(model), "batch price", "tokens")
        return Rate(input=found.batch_input, output=found.batch_output, cited=found.cited)

    def tokens(self, model: str, input_tokens: float, output_tokens: float, *, batch: bool = False) -> float:
        """Return the price of a model's tokens. Raises PriceError if it is unknown; see `rate`."""
        return self.rate(model, batch=batch).usd(input_tokens, output_tokens)

    def service(self, name: str) -> ServicePrice:
        """Return the price of another service. Raises PriceError if it is unknown."""
        if name not in self.services:
            raise PriceError(f"{SHOWN} has no price for {name}: add [services.{name}], with source and date")
        return self.services[name]

    def training_price(self, student: str) -> UnitPrice:
        """Return the price of training with 1,000 tokens for one epoch. Raises PriceError if unknown."""
        return _found(self.trainings, student, "training")

    def training(self, student: str, tokens: float) -> float:
        """Return the price of training, by the tokens of all epochs. Raises PriceError if unknown."""
        return tokens / 1_000 * self.training_price(student).usd


def _found[E: Entry](known: Mapping[str, E], model: str, table: str) -> E:
    """Return a model's entry: that of its inference profile, or else the model's own.

    AWS bills a call through a profile at the price of the calling Region (Bedrock user guide, cross-Region
    inference).
    """
    name = base_model(model)
    for candidate in (name, name.removeprefix("us.")):
        if candidate in known:
            return known[candidate]
    kind = "training price" if table == "training" else "price"
    raise _unknown(name.removeprefix("us.") if table == "training" else name, kind, table)


def _unknown(name: str, kind: str, table: str) -> PriceError:
    return PriceError(
        f"{SHOWN} has no {kind} for {name}: add it to [{table}.{_quoted(name)}], with source and date, from "
        "the Bedrock price page"
    )


def _entries[E: Entry](kind: type[E], table: str, entries: object) -> dict[str, E]:
    if not isinstance(entries, dict):
        raise PriceError(f"{SHOWN}: {table} must be a table of models")
    for name in entries:
        if base_model(name) != name:
            raise PriceError(
                f"{SHOWN}: [{table}.{_quoted(name)}]: name the model as {_quoted(base_model(name))}"
            )
    return {name: _entry(kind, f"{table}.{_quoted(name)}", values) for name, values in entries.items()}


def _services(entries: object) -> dict[str, ServicePrice]:
    if not isinstance(entries, dict):
        raise PriceError(f"{SHOWN}: services must be a table of prices")
    return {name: _entry(ServicePrice, f"services.{name}", values) for name, values in entries.items()}


def _entry[E: Entry](kind: type[E], name: str, values: object) -> E:
    if not isinstance(values, dict):
        raise PriceError(f"{SHOWN}: [{name}] must be a table")
    known = {field.name: field.default for field in fields(kind)}
    if unknown := values.keys() - known.keys():
        raise PriceError(f"{SHOWN}: [{name}] has {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    for key, default in known.items():
        if key not in values and default is None:
            continue
        if problem := _problem(key, values.get(key)):
            raise PriceError(f"{SHOWN}: [{name}] {key}: {problem}")
    if ("batch_input" in values) != ("batch_output" in values):
        raise PriceError(f"{SHOWN}: [{name}] needs both batch_input and batch_output, or neither")
    return kind(**values)


def _problem(key: str, value: Any) -> str | None:
    """Return why a value is invalid, or None."""
    found = "nothing" if value is None else repr(value)
    if key not in _TEXTS:
        usable = type(value) in (int, float) and math.isfinite(value) and value >= 0
        return None if usable else f"found {found}, expected US dollars, 0 or more"
    if not isinstance(value, str) or not value.strip():
        return f"found {found}, expected a text"
    if key == "date" and not _DATE.fullmatch(value):
        return f'found {found}, expected "YYYY-MM" or "YYYY-MM-DD"'
    return None


def _quoted(name: str) -> str:
    return f'"{name}"'
