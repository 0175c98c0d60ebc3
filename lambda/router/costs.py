"""What an answer's tokens cost, in US dollars."""

from __future__ import annotations

from typing import NamedTuple, Self

from distilled_router.env import RouterEnv


class Rate(NamedTuple):
    """A model's prices on demand: US dollars for a million tokens of each kind."""

    input: float
    output: float

    @classmethod
    def read(cls, text: str) -> Self:
        """From "0.035 0.14", as the construct `Router` writes it. Raises ValueError."""
        input_, output = map(float, text.split())
        return cls(input_, output)

    def usd(self, input_tokens: int, output_tokens: int) -> float:
        """The price of so many tokens."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000


class Costs:
    """The prices of the models that the router asks. The stack took them from the price table."""

    def __init__(self, env: RouterEnv) -> None:
        """A price that the variables lack is unknown."""
        self._base_model = env.base_model
        self._base = _rate("BASE_PRICES", env.base_prices)
        self._student = _rate("STUDENT_PRICES", env.student_prices)

    def usd(self, model: str, input_tokens: int, output_tokens: int) -> float | None:
        """The price of a call; None where it is unknown, or where the hour is billed and not the token."""
        rate = self._base if model == self._base_model else None
        if ":custom-model-deployment/" in model:
            rate = self._student
        return rate.usd(input_tokens, output_tokens) if rate else None


def _rate(variable: str, text: str) -> Rate | None:
    try:
        return Rate.read(text) if text else None
    except ValueError as error:
        expected = "US dollars for a million tokens of input and of output, e.g. 0.035 0.14"
        raise ValueError(f"{variable} is {text!r}, expected {expected}.") from error
