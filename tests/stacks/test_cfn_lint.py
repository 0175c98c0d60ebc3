"""cfn-lint checks every template, for example names of properties, which CDK and emulator don't check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from stacks.settings import STACKS
from tests.stacks.assembly import Assembly
from tests.stacks.environments import ENVIRONMENTS, VARIANTS

# The CDK writes dependencies that a reference implies already.
IGNORED = ["W3005"]

BROKEN = """
Resources:
  Key:
    Type: AWS::KMS::Key
    Properties: {EnableKeyRotaton: true}
  Alias:
    Type: AWS::KMS::Alias
    Properties: {AliasName: alias/broken, TargetKeyId: !Ref Kye}
  Machine:
    Type: AWS::StepFunctions::StateMachine
    Properties:
      RoleArn: arn:aws:iam::111122223333:role/machine
      Definition: {StartAt: First, States: {Second: {Type: Sleep}}}
"""

# The other stacks of a variant are the same as those of its base environment.
CHANGED = {
    "provisioned": ("release", "router"),
    "fine-tuning": ("distillation", "release"),
    "judge": ("release",),
    "hardened": STACKS,
}
# A quick run lints the usual environment and the one with the most resources.
QUICK = ("prod", "hardened")
TEMPLATES = [
    pytest.param(name, stack, marks=() if name in QUICK else pytest.mark.slow)
    for name in (*ENVIRONMENTS, *VARIANTS)
    for stack in (STACKS if name in ENVIRONMENTS else CHANGED.get(name, ()))
]


def findings(template: Path) -> list[str]:
    # Late, because the import takes a second, in every test process.
    from cfnlint.api import ManualArgs, lint_file  # type: ignore[import-untyped]  # it ships no types

    arguments = ManualArgs(regions=["us-east-1"], ignore_checks=IGNORED)
    return [
        f"{found.rule.id} {'/'.join(map(str, found.path or ()))}: {found.message}"
        for found in lint_file(template, arguments)
    ]


@pytest.mark.parametrize(("environment", "stack"), TEMPLATES)
def test_template_has_no_findings(assemblies: Mapping[str, Assembly], environment: str, stack: str) -> None:
    found = findings(assemblies[environment].path(stack))
    assert not found, "\n".join(found)


def test_a_broken_template_fails_the_same_check(tmp_path: Path) -> None:
    template = tmp_path / "broken.yaml"
    template.write_text(BROKEN, encoding="utf-8")
    found = "\n".join(findings(template))
    assert "EnableKeyRotaton" in found
    assert "Kye" in found
    assert "Resources/Machine" in found
