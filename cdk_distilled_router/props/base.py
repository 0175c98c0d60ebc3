"""What all properties share: the base class, the recurring types, and one way to refuse a value."""

import json
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError


class Props(BaseModel):
    """Properties of constructs, and a table of a settings file: immutable, without unknown keys, and without
    silent conversions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def not_allowed(allowed: str, at: str = "") -> PydanticCustomError:
    """The error for a value that its type allows and another setting doesn't.

    Args:
        allowed: what would be allowed, and why.
        at: full key to report, where it isn't the validated field's own.
    """
    return PydanticCustomError("not_allowed", "{allowed}", {"allowed": allowed, "at": at})


def one_of(values: Iterable[str]) -> str:
    """The values as a list of alternatives, quoted as in TOML."""
    return " or ".join(json.dumps(value) for value in values)


def _united_states(identifier: str) -> str:
    if identifier.startswith(_OTHER_PROFILES):
        raise not_allowed("a model id or a us. inference profile id: the Regions we deploy to are American")
    return identifier


# Inference profiles of other geographies look like a provider's name in front of a model id.
_OTHER_PROFILES = ("global.", "eu.", "apac.", "jp.", "au.", "ca.", "us-gov.")

InferenceId = Annotated[
    str,
    StringConstraints(pattern=r"^(us\.)?[a-z0-9-]{1,63}\.[a-z0-9.-]{1,63}(:[0-9]{1,2})?$"),
    AfterValidator(_united_states),
    Field(
        json_schema_extra={"x-allowed": "a model id or its us. inference profile id, without context length"}
    ),
]
"""A model to invoke, such as `amazon.nova-micro-v1:0` or `us.amazon.nova-micro-v1:0`."""

Fraction = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole, from 0 to 1."""
