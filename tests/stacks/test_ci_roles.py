"""docs/ci-roles.yaml: who can assume the CI's roles, and their permissions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from stacks.settings import DEFAULT_QUALIFIER, PROJECT, STACKS
from tests.iam import iam_evaluator
from tests.stacks.assembly import Assembly
from tests.stacks.test_cfn_lint import findings

TEMPLATE = PROJECT / "docs" / "ci-roles.yaml"
ACCOUNT = "444455556666"
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"
PARAMETERS = {
    "Repository": "acme@12/router@345",
    "RepositoryId": "345",
    "Branch": "main",
    "Environment": "dev",
    "Name": "video-router",
    "Qualifier": "devq",
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


def statements(name: str) -> list[dict[str, Any]]:
    """Return the statements of a role's policies, with lists of actions and resources."""
    found = []
    for policy in role(name)["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow"
            lists = {
                key: value if isinstance(value, list) else [value]
                for key, value in statement.items()
                if key in ("Action", "Resource")
            }
            found.append({**statement, **lists})
    return found


def grants(name: str) -> set[tuple[str, str]]:
    """Return every action of a role, with its resource."""
    return {
        (action, resource)
        for statement in statements(name)
        for action in statement["Action"]
        for resource in statement["Resource"]
    }


# The claims of tokens for the roles' own jobs.
CLAIMS = {
    "DeployRole": {
        "aud": "sts.amazonaws.com",
        "sub": "repo:acme@12/router@345:environment:dev",
        "repository_id": "345",
        "ref": "refs/heads/main",
    },
    "DiffRole": {
        "aud": "sts.amazonaws.com",
        "sub": "repo:acme@12/router@345:pull_request",
        "repository_id": "345",
        "ref": "refs/pull/7/merge",
    },
}
STACKS_OF_DEV = {
    f"arn:aws:cloudformation:us-east-1:{ACCOUNT}:stack/video-router-dev-{stack}/*" for stack in STACKS
}


def test_the_template_has_no_findings() -> None:
    assert findings(TEMPLATE) == []


@pytest.mark.parametrize("name", CLAIMS)
def test_the_repositorys_own_jobs_may_take_the_role(name: str) -> None:
    assert trusts(name, **CLAIMS[name])


@pytest.mark.parametrize("name", CLAIMS)
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
    assert not trusts(name, **CLAIMS[name] | {"sub": subject})


@pytest.mark.parametrize(("name", "other"), [("DeployRole", "DiffRole"), ("DiffRole", "DeployRole")])
def test_a_role_can_not_be_assumed_by_the_other_roles_jobs(name: str, other: str) -> None:
    """A pull request can't deploy."""
    assert not trusts(name, **CLAIMS[other])
    assert not trusts(name, **CLAIMS[name] | {"sub": CLAIMS[other]["sub"]})


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize(
    ("claim", "values"),
    [
        # A repository that was deleted, and whose name somebody else took.
        ("repository_id", ["346", "3450", ""]),
        ("ref", ["refs/heads/main2", "refs/heads/feature", "refs/tags/main", "refs/heads/x/merge", ""]),
    ],
)
def test_a_role_asks_for_the_repositorys_number_and_the_ref(name: str, claim: str, values: list[str]) -> None:
    for value in values:
        assert not trusts(name, **CLAIMS[name] | {claim: value})
    assert not trusts(name, **{key: value for key, value in CLAIMS[name].items() if key != claim})


@pytest.mark.parametrize("name", CLAIMS)
def test_a_token_for_another_audience_is_refused(name: str) -> None:
    claims = CLAIMS[name]
    assert not trusts(name, **claims | {"aud": "https://github.com/acme"})
    assert not trusts(name, **{key: value for key, value in claims.items() if key != "aud"})
    assert not trusts(name, **{key: value for key, value in claims.items() if key != "sub"})
    other = PROVIDER.replace("token.actions.githubusercontent.com", "example.com")
    assert not trusts(name, other, **claims)


@pytest.mark.parametrize(
    "repository", ["acme/*", "*", "acme/router:environment", "acme", "acme/router@345:ref", "a?me/router"]
)
def test_a_repository_with_a_wildcard_is_refused(repository: str) -> None:
    pattern = template()["Parameters"]["Repository"]["AllowedPattern"]

    assert re.fullmatch(pattern, "acme/video.router_2")
    assert re.fullmatch(pattern, "acme@12/router@345")
    assert not re.fullmatch(pattern, repository)


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("Environment", ["dev", "eu1"], ["dev-eu", "1dev", "Dev", "*", ""]),
        ("Name", ["router", "video-router"], ["router-", "video--router", "video-*", ""]),
        ("Qualifier", ["hnb659fds", "dev"], ["*", "a-b", "Dev", "abcdefghijk", ""]),
        ("RepositoryId", ["345"], ["*", "", "a"]),
        ("Branch", ["main", "release/1.0"], ["*", "ma?n", "", "${branch}"]),
    ],
)
def test_parameters_hold_no_wildcards(name: str, allowed: list[str], refused: list[str]) -> None:
    pattern = template()["Parameters"][name]["AllowedPattern"]
    assert all(re.fullmatch(pattern, value) for value in allowed)
    assert not any(re.fullmatch(pattern, value) for value in refused)


def test_the_qualifier_of_all_apps_is_refused_unless_there_is_one_app() -> None:
    (rule,) = template()["Rules"].values()

    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "Qualifier"}, DEFAULT_QUALIFIER]}
    (assertion,) = rule["Assertions"]
    assert assertion["Assert"] == {"Fn::Equals": [{"Ref": "OnlyAppInAccount"}, "true"]}
    assert "bootstrap_qualifier" in assertion["AssertDescription"]
    assert template()["Parameters"]["OnlyAppInAccount"]["Default"] == "false"
    assert "Default" not in template()["Parameters"]["Qualifier"]


def test_the_export_names_the_qualifier_alone() -> None:
    """Names of exports are unique, so a second environment with the same qualifier is refused."""
    outputs = template()["Outputs"].values()

    assert [resolved(one["Export"]["Name"]) for one in outputs if "Export" in one] == [
        "environment-of-cdk-devq"
    ]


def test_a_deployment_changes_the_environments_stacks_and_assumes_one_role(
    assemblies: Mapping[str, Assembly],
) -> None:
    """The bootstrap's deploy role may change all stacks of the account."""
    by_action: dict[str, set[str]] = {}
    for action, resource in grants("DeployRole"):
        by_action.setdefault(action, set()).add(resource)
    roles = f"arn:aws:iam::{ACCOUNT}:role/cdk-devq"

    for action in [action for action in by_action if action.startswith("cloudformation:")]:
        assert by_action.pop(action) == STACKS_OF_DEV, action
    version = {f"arn:aws:ssm:us-east-1:{ACCOUNT}:parameter/cdk-bootstrap/devq/version"}
    assert by_action == {
        "sts:AssumeRole": {f"{roles}-file-publishing-role-{ACCOUNT}-us-east-1"},
        "iam:PassRole": {f"{roles}-cfn-exec-role-{ACCOUNT}-us-east-1"},
        "s3:GetObject": {f"arn:aws:s3:::cdk-devq-assets-{ACCOUNT}-us-east-1/*"},
        "ssm:GetParameter": version,
        "ssm:GetParameters": version,
    }
    (passing,) = [one for one in statements("DeployRole") if "iam:PassRole" in one["Action"]]
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "cloudformation.amazonaws.com"}}
    assert assemblies["dev"].settings.owner == "video-router-dev"


def test_the_reason_of_a_change_set_that_fails_early_is_read() -> None:
    """The CDK's command line (2.1148) asks for it."""
    read = {action for action, _ in grants("DeployRole")}
    assert {"cloudformation:DescribeEvents", "cloudformation:ListHookResults"} <= read


def test_the_app_publishes_files_and_no_images(assemblies: Mapping[str, Assembly]) -> None:
    """The assembly names no role that the deployment needs and can't assume."""
    found = {
        role
        for path in assemblies["dev"].folder.glob("*.assets.json")
        for role in re.findall(r"cdk-hnb659fds-([a-z-]+)-role", path.read_text(encoding="utf-8"))
    }
    assert found == {"file-publishing"}


def test_a_pull_request_reads_the_environments_templates_and_nothing_else() -> None:
    assert grants("DiffRole") == {
        (f"cloudformation:{action}", stack)
        for action in ("DescribeStacks", "GetTemplate")
        for stack in STACKS_OF_DEV
    }
