"""The shell commands in the documents name stacks, outputs and resources that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import pytest

from stacks.settings import PROJECT
from tests.stacks.assembly import Assembly

ENVIRONMENT = "prod"
PAGES = tuple(sorted((PROJECT / "docs").glob("*.md")))
# The functions `output` and `resource` of the runbook, as its commands call them.
_OUTPUT = re.compile(r"\boutput ([a-z]+) ([A-Z]\w+)")
_RESOURCE = re.compile(r"\bresource ([a-z]+) ([A-Z]\w+) (AWS::\w+::\w+)")


def unknown_names(text: str, assembly: Assembly) -> Iterator[str]:
    """Yield the outputs and resources that commands ask for and that no template has."""
    for stack, key in _OUTPUT.findall(text):
        if key not in assembly.templates.get(stack, {}).get("Outputs", {}):
            yield f"output {stack} {key}"
    for stack, prefix, type_ in _RESOURCE.findall(text):
        resources = assembly.resources(type_, stack=stack)
        found = [one.logical_id for one in resources if one.logical_id.startswith(prefix)]
        # The shell function prints all that begin so; a command needs exactly one.
        if len(found) != 1:
            yield f"resource {stack} {prefix} {type_}: found {found}"


def test_outputs_and_resources_of_the_commands_exist(assemblies: Mapping[str, Assembly]) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert _OUTPUT.findall(text)
    assert _RESOURCE.findall(text)
    assert list(unknown_names(text, assemblies[ENVIRONMENT])) == []


@pytest.mark.parametrize(
    "command",
    [
        "output serving TableName",
        "output release Nothing",
        "resource release ReleaseHourly AWS::Events::Rule",
        "resource release ReleaseSweepHourly AWS::SQS::Queue",
    ],
)
def test_the_check_of_commands_can_fail(command: str, assemblies: Mapping[str, Assembly]) -> None:
    assert [found.partition(":")[0] for found in unknown_names(command, assemblies[ENVIRONMENT])]
