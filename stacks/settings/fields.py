"""Types of values used in several settings."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from cdk_distilled_router.props import not_allowed

PROJECT = Path(__file__).resolve().parents[2]
"""The project's root, to which paths in the settings are relative."""


def _unreserved(key: str) -> str:
    for prefix in ("aws:", "distilled-router:"):
        if key.lower().startswith(prefix):
            raise not_allowed(f'a key that doesn\'t start with "{prefix}", which is reserved')
    return key


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
"""A KMS key, not an alias: IAM policies accept keys only."""
