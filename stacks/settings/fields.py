"""Types of values used in several settings."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from cdk_distilled_router.props import not_allowed

PROJECT = Path(__file__).resolve().parents[2]
"""The project's root, to which paths in the settings are relative."""


def is_inside(folder: str, project: Path = PROJECT) -> bool:
    """Return whether a path is relative to the project and stays inside it, links included."""
    path = Path(folder)
    is_below = not path.is_absolute() and ".." not in path.parts
    return is_below and (project / path).resolve().is_relative_to(project)


def _unreserved(key: str) -> str:
    for prefix in ("aws:", "distilled-router:"):
        if key.lower().startswith(prefix):
            raise not_allowed(f'a key that doesn\'t start with "{prefix}", which is reserved')
    return key


def once(values: list[str]) -> list[str]:
    """Return the values of a list. Raise an error if one is repeated; capitals don't matter."""
    names = [value.casefold() for value in values]
    if twice := sorted({value for value, name in zip(values, names, strict=True) if names.count(name) > 1}):
        raise not_allowed(f"each value once, whatever its capitals; repeated: {', '.join(twice)}")
    return values


def unlike(tags: dict[str, str]) -> dict[str, str]:
    """Return tags. Raise an error if keys differ only in capitals, which IAM takes for the same.

    IAM refuses them on a role as "Duplicate tag keys found" (aws-cdk #26253).
    """
    keys = [key.casefold() for key in tags]
    if twice := [key for key in tags if keys.count(key.casefold()) > 1]:
        raise not_allowed(
            f"keys that differ not only in capitals, because IAM ignores these; found: {', '.join(twice)}"
        )
    return tags


Email = Annotated[
    str,
    StringConstraints(pattern=r"^[^\s@]+@[^\s@]+\.[^\s@]+$", max_length=254),
    Field(json_schema_extra={"x-allowed": "an e-mail address"}),
]

Emails = Annotated[list[Email], Field(max_length=10), AfterValidator(once)]

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
