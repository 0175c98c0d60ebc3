"""The schemas of docs/openapi.yaml as validators."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

PATH = Path(__file__).parents[3] / "docs" / "openapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


def validator(reference: str) -> Any:
    """Return a validator for a reference in the document, e.g. `#/components/schemas/Answer`."""
    return Draft202012Validator({"$ref": reference, "components": DOCUMENT["components"]})


def response_schema(path: str, status: int) -> str:
    """Return the reference of the schema for a path's response with this status."""
    response = DOCUMENT["paths"][path]["post"]["responses"][str(status)]
    if "$ref" in response:
        response = DOCUMENT["components"]["responses"][response["$ref"].rpartition("/")[2]]
    reference: str = response["content"]["application/json"]["schema"]["$ref"]
    return reference


def check(path: str, status: int, body: object) -> None:
    """Raise jsonschema's ValidationError if a body does not match the document."""
    validator(response_schema(path, status)).validate(body)
