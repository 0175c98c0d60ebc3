"""The typed variables of functions: what a construct writes, the handler reads back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from distilled_router.env import Env, EnvError


@dataclass(frozen=True)
class Limits:
    """A dataclass that is stored as JSON."""

    steps: list[float]
    dwell_seconds: int


class ExampleEnv(Env):
    """Variables with one field of each kind."""

    table_name: str
    poll_seconds: int
    stall_hours: float
    stop_stalled: bool
    tags: Mapping[str, str]
    limits: Limits
    judge: str = ""


VALUES: dict[str, Any] = {
    "owner": "search",
    "table_name": "releases",
    "poll_seconds": 30,
    "stall_hours": 1.5,
    "stop_stalled": False,
    "tags": {"team": "search", "cost": "7"},
    "limits": Limits([0.5, 1.0], 60),
}


def test_what_is_written_is_what_is_read() -> None:
    env = ExampleEnv(**VALUES)
    read = ExampleEnv.read(env.variables())
    assert {name: getattr(read, name) for name in VALUES} == VALUES
    assert read.judge == ""


def test_owner_is_the_service_that_powertools_logs() -> None:
    assert Env(owner="search").variables() == {"POWERTOOLS_SERVICE_NAME": "search"}


def test_other_fields_are_variables_of_their_names() -> None:
    variables = ExampleEnv(**VALUES, judge="nova").variables()
    expected = {name.upper() for name in (*VALUES, "judge")} - {"OWNER"} | {"POWERTOOLS_SERVICE_NAME"}
    assert variables.keys() == expected
    assert variables["TAGS"] == '{"cost": "7", "team": "search"}'


def test_field_with_its_default_is_no_variable() -> None:
    assert "JUDGE" not in ExampleEnv(**VALUES).variables()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("POLL_SECONDS", "soon"),
        ("STALL_HOURS", ""),
        ("STOP_STALLED", "yes"),
        ("TAGS", "team"),
        ("LIMITS", '{"steps": [1.0]}'),
    ],
)
def test_value_that_does_not_fit_its_field_names_the_variable(name: str, text: str) -> None:
    with pytest.raises(EnvError, match=f"{name} is '"):
        ExampleEnv.read({**ExampleEnv(**VALUES).variables(), name: text})


def test_missing_variable_without_a_default_is_named() -> None:
    variables = ExampleEnv(**VALUES).variables()
    del variables["TABLE_NAME"]
    with pytest.raises(EnvError, match="TABLE_NAME is missing; ExampleEnv needs it"):
        ExampleEnv.read(variables)


def test_fields_are_given_by_name_and_stay() -> None:
    with pytest.raises(TypeError, match="needs owner"):
        ExampleEnv(table_name="releases")  # type: ignore[call-arg]  # that is the point
    with pytest.raises(TypeError, match="has no table"):
        ExampleEnv(**{**VALUES, "table": "releases"})
    with pytest.raises(AttributeError, match="ExampleEnv is frozen"):
        ExampleEnv(**VALUES).table_name = "others"  # type: ignore[misc]  # that is the point
