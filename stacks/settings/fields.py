"""What all parts of the settings share: the base model, the recurring types, and one way to say no."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

PROJECT = Path(__file__).resolve().parents[2]
"""The project's root, to which paths in the settings are relative."""


class Section(BaseModel):
    """A table of the settings file: immutable, without unknown keys, and without silent conversions."""

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


def _unreserved(key: str) -> str:
    for prefix in ("aws:", "distilled-router:"):
        if key.lower().startswith(prefix):
            raise not_allowed(f'a key that doesn\'t start with "{prefix}", which is reserved')
    return key


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

Email = Annotated[
    str,
    StringConstraints(pattern=r"^[^\s@]+@[^\s@]+\.[^\s@]+$", max_length=254),
    Field(json_schema_extra={"x-allowed": "an e-mail address"}),
]

Emails = Annotated[list[Email], Field(max_length=10)]

TagKey = Annotated[
    str,
    StringConstraints(pattern=r"^[a-zA-Z0-9 ._:/=+@-]{1,128}$"),
    AfterValidator(_unreserved),
    Field(json_schema_extra={"x-allowed": "1 to 128 letters, digits, spaces or any of ._:/=+@-"}),
]

TagValue = Annotated[
    str,
    StringConstraints(pattern=r"^[a-zA-Z0-9 ._:/=+@-]{0,256}$"),
    Field(json_schema_extra={"x-allowed": "up to 256 letters, digits, spaces or any of ._:/=+@-"}),
]

KeyArn = Annotated[
    str,
    StringConstraints(pattern=r"^arn:aws:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]{1,64}$"),
    Field(json_schema_extra={"x-allowed": "the ARN of a KMS key"}),
]
"""A KMS key, not an alias: policies take keys only."""
