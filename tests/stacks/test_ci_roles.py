"""docs/ci-roles.yaml: who can assume the CI's roles, and their permissions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from stacks.settings import PROJECT
from tests.iam import iam_evaluator
from tests.stacks.assembly import Assembly
from tests.stacks.test_cfn_lint import findings

TEMPLATE = PROJECT / "docs" / "ci-roles.yaml"
ACCOUNT = "444455556666"
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"
PARAMETERS = {
    "Repository": "acme@12/router@345",
    "Environment": "dev",
    "Name": "video-router",
    "Qualifier": "hnb659fds",
    "Provider": PROVIDER,
    "AWS::Partition": "aws",
    "AWS::AccountId": ACCOUNT,
    "AWS::Region": "us-east-1",
}


@cache
def template() -> Any:
    # Late, because the import takes a second, in every test process.
    from cfnlint.decode import decode  # type: ignore[import-untyped]  # it ships no types

    return decode(TEMPLATE)[0]


def resolved(value: Any) -> Any:
    """Return a value of the template for an account that has the provider."""
    match value:
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{([\w:]+)\}", lambda found: PARAMETERS[found[1]], text)
        case {"Ref": name}:
            return PARAMETERS[name]
        case {"Fn::If": [_, _, otherwise]}:
            return resolved(otherwise)
        case dict():
            return {key: resolved(inner) for key, inner in value.items()}
        case list():
            return [resolved(inner) for inner in value]
    return value


def role(name: str) -> Any:
    return resolved(template()["Resources"][name]["Properties"])


def trusts(name: str, provider: str = PROVIDER, **claims: str) -> bool:
    """Return whether a token with these claims can assume a role."""
    keys = {f"token.actions.githubusercontent.com:{key}": value for key, value in claims.items()}
    context = iam_evaluator.EvalContext(
        principal_arn=provider,
        principal_type="FederatedUser",
        principal_account=ACCOUNT,
        action="sts:AssumeRoleWithWebIdentity",
        resource_arn="*",
        region="us-east-1",
        service_context=keys,
    )
    return bool(
        iam_evaluator.evaluate_trust_policy(role(name)["AssumeRolePolicyDocument"], provider, context)
    )


def grants(name: str) -> set[tuple[str, str]]:
    """Return every action of a role, with its resource."""
    found = set()
    for policy in role(name)["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow"
            actions, resources = statement["Action"], statement["Resource"]
            for action in [actions] if isinstance(actions, str) else actions:
                for resource in [resources] if isinstance(resources, str) else resources:
                    found.add((action, resource))
    return found


SUBJECT = {
    "DeployRole": "repo:acme@12/router@345:environment:dev",
    "DiffRole": "repo:acme@12/router@345:pull_request",
}


def test_the_template_has_no_findings() -> None:
    assert findings(TEMPLATE) == []


@pytest.mark.parametrize("name", SUBJECT)
def test_the_repositorys_own_jobs_may_take_the_role(name: str) -> None:
    assert trusts(name, aud="sts.amazonaws.com", sub=SUBJECT[name])


@pytest.mark.parametrize("name", SUBJECT)
@pytest.mark.parametrize(
    "subject",
    [
        "repo:acme@12/router@345:ref:refs/heads/main",
        "repo:acme@12/router@345:environment:prod",
        "repo:acme@12/router@999:environment:dev",
        "repo:acme@12/router@999:pull_request",
        "repo:else@12/router@345:environment:dev",
        "repo:acme@12/router@345:environment:dev2",
        "",
    ],
)
def test_other_subjects_can_not_assume_it(name: str, subject: str) -> None:
    assert not trusts(name, aud="sts.amazonaws.com", sub=subject)


@pytest.mark.parametrize(("name", "other"), [("DeployRole", "DiffRole"), ("DiffRole", "DeployRole")])
def test_a_role_can_not_be_assumed_by_the_other_roles_jobs(name: str, other: str) -> None:
    """A pull request can't deploy."""
    assert not trusts(name, aud="sts.amazonaws.com", sub=SUBJECT[other])


@pytest.mark.parametrize("name", SUBJECT)
def test_a_token_for_another_audience_is_refused(name: str) -> None:
    assert not trusts(name, aud="https://github.com/acme", sub=SUBJECT[name])
    assert not trusts(name, sub=SUBJECT[name])
    assert not trusts(name, aud="sts.amazonaws.com")
    other = PROVIDER.replace("token.actions.githubusercontent.com", "example.com")
    assert not trusts(name, other, aud="sts.amazonaws.com", sub=SUBJECT[name])


@pytest.mark.parametrize(
    "repository", ["acme/*", "*", "acme/router:environment", "acme", "acme/router@345:ref", "a?me/router"]
)
def test_a_repository_with_a_wildcard_is_refused(repository: str) -> None:
    pattern = template()["Parameters"]["Repository"]["AllowedPattern"]

    assert re.fullmatch(pattern, "acme/video.router_2")
    assert re.fullmatch(pattern, "acme@12/router@345")
    assert not re.fullmatch(pattern, repository)


def test_a_deployment_takes_the_roles_that_the_assembly_names_and_does_nothing_else(
    assemblies: Mapping[str, Assembly],
) -> None:
    """The deploy role passes CloudFormation's role, and the app builds no image."""
    folder = assemblies["dev"].folder
    named = {
        found
        for path in folder.glob("*.json")
        if path.name == "manifest.json" or path.name.endswith(".assets.json")
        for found in re.findall(
            r'"(?:assumeRoleArn|arn)": "([^"]+)"', json.dumps(json.loads(path.read_text(encoding="utf-8")))
        )
    }
    named = {arn.replace("${AWS::Partition}", "aws") for arn in named if ":role/" in arn}

    assert len(named) == 3
    assert grants("DeployRole") == {("sts:AssumeRole", arn) for arn in named}


def test_a_pull_request_reads_the_environments_templates_and_nothing_else(
    assemblies: Mapping[str, Assembly],
) -> None:
    stacks = f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/video-router-dev-*"

    assert grants("DiffRole") == {
        ("cloudformation:DescribeStacks", stacks),
        ("cloudformation:GetTemplate", stacks),
    }
    assert assemblies["dev"].settings.owner == "video-router-dev"
