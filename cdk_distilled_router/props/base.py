"""Base class and types of all properties, and the error for a refused value."""

import json
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError


class Props(BaseModel):
    """Properties of a construct, or a table of a settings file: immutable, strict, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def not_allowed(allowed: str, at: str = "") -> PydanticCustomError:
    """Return the error for a value that the schema allows but a rule doesn't.

    Args:
        allowed: what is allowed, and why.
        at: full key to report. Default: the key of the validated field.
    """
    return PydanticCustomError("not_allowed", "{allowed}", {"allowed": allowed, "at": at})


def one_of(values: Iterable[str]) -> str:
    """Return the values as alternatives, quoted as in TOML."""
    return " or ".join(json.dumps(value) for value in values)


def _united_states(identifier: str) -> str:
    if identifier.startswith(_OTHER_PROFILES):
        raise not_allowed(
            "a model id or a us. inference profile id, because all supported Regions are in the US"
        )
    return identifier


# Prefixes of inference profiles of other geographies; the pattern below takes them for a provider.
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
"""A share, from 0 to 1."""
