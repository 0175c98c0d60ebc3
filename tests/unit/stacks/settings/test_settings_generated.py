"""The generated schema and page are current, and agree with the settings files and AWS's models."""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.loaders
import jsonschema  # type: ignore[import-untyped]  # it comes without types
import pytest

from cdk_distilled_router.props.retention import LogDays
from stacks.settings import ENVIRONMENTS, PROJECT, Settings, load
from stacks.settings.explanation import resolved, schema
from stacks.settings.reference import SAMPLE, reference_text, schema_text

FILES = sorted(ENVIRONMENTS.glob("*.toml"))


def fields(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any], bool]]:
    for name, raw in node["properties"].items():
        key = f"{prefix}{name}"
        yield key, raw, name in node.get("required", [])
        if "properties" in resolved(raw):
            yield from fields(resolved(raw), f"{key}.")


VALIDATOR = jsonschema.Draft202012Validator(json.loads(schema_text()))
FIELDS = list(fields(schema()))


@pytest.mark.parametrize(
    ("path", "text"),
    [(ENVIRONMENTS / "schema.json", schema_text), (PROJECT / "docs" / "settings.md", reference_text)],
    ids=["schema", "reference"],
)
def test_generated_files_are_current(path: Path, text: Any) -> None:
    assert path.read_text(encoding="utf-8") == text(), "run python -m stacks.settings"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_environment_validates_against_the_schema(path: Path) -> None:
    VALIDATOR.validate(tomllib.loads(path.read_text(encoding="utf-8")))


def test_the_schema_is_one() -> None:
    VALIDATOR.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_environment_tells_editors_its_schema(path: Path) -> None:
    assert path.read_text(encoding="utf-8").splitlines()[0] == "#:schema ./schema.json"


def test_the_schema_refuses_an_unknown_key() -> None:
    data = tomllib.loads(FILES[0].read_text(encoding="utf-8"))
    for broken in ({**data, "environment": "x"}, {**data, "gate": {**data["gate"], "typo": 1}}):
        with pytest.raises(jsonschema.ValidationError):
            VALIDATOR.validate(broken)


def test_every_field_is_described() -> None:
    for key, field, required in FIELDS:
        description = resolved(field).get("description", "")
        assert description.endswith("."), key
        assert ("Default: " in description) is not required, key


def test_log_days_are_those_of_cloudwatch_logs() -> None:
    model = botocore.loaders.Loader().load_service_model("logs", "service-2")
    documentation = model["shapes"]["Days"]["documentation"]
    assert all(f" {days}" in documentation for days in LogDays.__args__)  # type: ignore[attr-defined]  # Literal


def test_the_sample_of_what_a_platform_asks_for_has_all_keys_and_loads() -> None:
    sample = tomllib.loads(SAMPLE)
    settings = Settings.model_validate({**load("prod").model_dump(), **sample})
    for name, values in sample.items():
        table = getattr(settings, name)
        assert values.keys() == set(type(table).model_fields), name
    assert settings.network
    assert settings.network.endpoints
