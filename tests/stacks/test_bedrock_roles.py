"""The roles that Bedrock assumes: of customization jobs, batch jobs and evaluation jobs."""

from __future__ import annotations

from collections.abc import Mapping

from tests.stacks.assembly import Assembly, Resource, Statement

ASSUMED = {"JobJobRole", "LabellingBatchRole", "ReleaseJudgeRole"}


def bedrocks(assembly: Assembly) -> dict[str, Resource]:
    """Return the roles whose trust policy names Bedrock."""
    return {
        role.name: role
        for role in assembly.resources("AWS::IAM::Role")
        if "bedrock.amazonaws.com" in str(role.properties["AssumeRolePolicyDocument"])
    }


def statements(assembly: Assembly, role: Resource, action: str) -> list[Statement]:
    return [found for found in assembly.role_statements(role) if action in found.actions]


def test_they_are_these(assemblies: Mapping[str, Assembly]) -> None:
    assert set().union(*(bedrocks(assembly) for assembly in assemblies.values())) == ASSUMED


def test_they_invoke_models_without_a_condition(assembly: Assembly) -> None:
    """AWS documents no condition here: with one on the profile, jobs failed at the end of InProgress."""
    for name, role in bedrocks(assembly).items():
        for found in assembly.role_statements(role):
            assert "bedrock:InferenceProfileArn" not in str(found.conditions), name
        for found in statements(assembly, role, "bedrock:InvokeModel"):
            assert not found.conditions, name


def test_functions_invoke_a_profiles_models_only_through_it(assembly: Assembly) -> None:
    for role in assembly.resources("AWS::IAM::Role"):
        if role.name in bedrocks(assembly):
            continue
        for found in statements(assembly, role, "bedrock:InvokeModel"):
            through = "bedrock:InferenceProfileArn" in str(found.conditions)
            behind = any(":us-*::foundation-model/" in resource for resource in found.resources)
            assert through == behind, role.name


def test_the_judges_role_may_describe_the_key(assembly: Assembly) -> None:
    """Bedrock user guide, model-evaluation-security-kms."""
    role = bedrocks(assembly).get("ReleaseJudgeRole")
    if role is None:
        assert assembly.settings.evaluation.judge is None
        return
    (found,) = statements(assembly, role, "kms:DescribeKey")
    assert found.resources == {"<Key.Arn>"}
    assert not found.conditions
