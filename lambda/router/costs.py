"""What an answer's tokens cost, in US dollars, by the price table."""

from __future__ import annotations

from collections.abc import Mapping

from router.settings import Settings
from shared.prices import PriceError, Prices, Rate


class Costs:
    """Prices of the models that the router asks, looked up once."""

    def __init__(self, rates: Mapping[str, Rate], student: Rate | None) -> None:
        """`rates` is by model id; `student` is the price of every release that is billed by the token."""
        self._rates = rates
        self._student = student

    @classmethod
    def of(cls, settings: Settings) -> Costs:
        """By the price table that travels with the function. A price that it lacks is unknown."""
        prices, base = Prices.load(), settings.base_model_id
        rate = _rate(prices, base)
        return cls(
            {base: rate} if rate else {}, _rate(prices, settings.student) if settings.student else None
        )

    def usd(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        """The price of a call; None where it is unknown, or where the hour is billed and not the token."""
        rate = self._rates.get(model)
        if ":custom-model-deployment/" in model:
            rate = self._student
        return rate.usd(input_tokens, output_tokens) if rate else None


def _rate(prices: Prices, model: str) -> Rate | None:
    try:
        return prices.rate(model)
    except PriceError:
        return None
