"""Cost of a model call in US dollars."""

from __future__ import annotations

from typing import NamedTuple, Self

from distilled_router.env import RouterEnv


class Rate(NamedTuple):
    """On-demand prices of a model, in US dollars per million tokens."""

    input: float
    output: float

    @classmethod
    def read(cls, text: str) -> Self:
        """Parse "0.035 0.14", which the construct `Router` writes. Raises ValueError."""
        input_, output = map(float, text.split())
        return cls(input_, output)

    def usd(self, input_tokens: int, output_tokens: int) -> float:
        """Return the price of these tokens in US dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000


class Costs:
    """Prices of the models that the router calls, from the function's environment variables."""

    def __init__(self, env: RouterEnv) -> None:
        """Read the prices; an empty variable means that the price is unknown."""
        self._base_model = env.base_model
        self._base = _rate("BASE_PRICES", env.base_prices)
        self._student = _rate("STUDENT_PRICES", env.student_prices)

    def usd(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        """Return a call's price; None if it is unknown, or if the model is billed by the hour."""
        rate = self._base if model == self._base_model else None
        if ":custom-model-deployment/" in model:
            rate = self._student
        return rate.usd(input_tokens, output_tokens) if rate else None


def _rate(variable: str, text: str) -> Rate | None:
    try:
        return Rate.read(text) if text else None
    except ValueError as error:
        expected = "US dollars per million input and output tokens, e.g. 0.035 0.14"
        raise ValueError(f"{variable} is {text!r}, expected {expected}.") from error
