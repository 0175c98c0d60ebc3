"""This checkout's templates replace no resource with state of a recorded version, and keep its logical id.

CloudFormation's schemas say which properties can't be changed without a replacement.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER  # type: ignore[import-untyped]

from tests.stacks.assembly import Assembly, unhashed
from tests.upgrade import versions
from tests.upgrade.versions import STATEFUL

REGION = "us-east-1"
Templates = Mapping[str, Mapping[str, Any]]


@cache
def create_only(resource_type: str) -> tuple[str, ...]:
    """Return the paths of the properties of a type whose change replaces the resource, or may do so."""
    if resource_type.startswith("Custom::"):
        return ("ServiceToken",)  # another function's physical ids
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, resource_type).schema
    found = (*schema.get("createOnlyProperties", ()), *schema.get("conditionalCreateOnlyProperties", ()))
    return tuple(path.removeprefix("/properties/") for path in found)


def value(resource: Mapping[str, Any], path: str) -> Any:
    """Return a property by its path; None if it is not set."""
    found: Any = resource.get("Properties", {})
    for name in path.split("/"):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def replaced(before: Templates, after: Templates) -> Iterator[str]:
    """Yield what an update from one version to another would replace or delete, of what has state."""
    for stack, template in before.items():
        resources = after.get(stack, {}).get("Resources", {})
        for logical_id, old in template["Resources"].items():
            if old["Type"] not in STATEFUL:
                continue
            new = resources.get(logical_id)
            if new is None or new["Type"] != old["Type"]:
                yield f"{stack}/{logical_id}: gone"
                continue
            for path in create_only(old["Type"]):
                if value(old, path) != value(new, path):
                    yield f"{stack}/{logical_id}: {path}"


@pytest.fixture(scope="module", params=versions.names())
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """Return the templates of each recorded version."""
    version = versions.Version.unpack(request.param, tmp_path_factory.mktemp(request.param))
    return versions.templates(version.assembly("given"))


@pytest.fixture
def current(assemblies: Mapping[str, Assembly]) -> Templates:
    """Return the templates of this checkout's local system."""
    return assemblies["local"].templates


def test_nothing_with_state_is_replaced(recorded: Templates, current: Templates) -> None:
    assert list(replaced(recorded, current)) == []


def test_every_kind_of_state_is_compared(recorded: Templates) -> None:
    """Except a labelling, which the local system has not; `tests/upgrade/test_upgrades.py` has one."""
    found = {item["Type"] for template in recorded.values() for item in template["Resources"].values()}
    assert STATEFUL - found == {"Custom::BedrockLabelling"}


@pytest.mark.parametrize(
    ("stack", "name", "path", "told"),
    [
        ("data", "Data", "BucketName", "BucketName"),
        ("release", "Releases", "TableName", "TableName"),
        ("release", "Releases", "KeySchema", "KeySchema"),
        ("release", "ReleaseStateMachine", "StateMachineName", "StateMachineName"),
        ("router", "RouterApi", "ProtocolType", "ProtocolType"),
        ("router", "RouterFunctionLogs", "LogGroupName", "LogGroupName"),
        ("distillation", "Job", "ServiceToken", "ServiceToken"),
        ("distillation", "Job", "", "gone"),
    ],
)
def test_a_replacement_is_seen(current: Templates, stack: str, name: str, path: str, told: str) -> None:
    changed: dict[str, Any] = json.loads(json.dumps(copy.deepcopy(dict(current))))
    resources = changed[stack]["Resources"]
    logical_id = next(
        key for key, item in resources.items() if unhashed(key) == name and item["Type"] in STATEFUL
    )
    resource = resources.pop(logical_id)
    if path:
        resources[logical_id] = {**resource, "Properties": {**resource["Properties"], path: "another"}}
    assert list(replaced(current, changed)) == [f"{stack}/{logical_id}: {told}"]
