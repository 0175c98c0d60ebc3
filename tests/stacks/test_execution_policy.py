"""The policies of CloudFormation's execution role: actions by resource type, limited to our names."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from operate import cdk, execution_policy
from operate.errors import OperateError
from tests.stacks.assembly import Assembly
from tests.stacks.environments import ENVIRONMENTS
from tests.stacks.test_cfn_lint import findings
from tests.stacks.test_ci_roles import role

PLACE = execution_policy.Place("444455556666", "us-east-1", "video-router-dev-")
BOUNDARY = "arn:aws:iam::444455556666:policy/boundary"


def policies(assembly: Assembly, boundary: str = "") -> dict[str, Any]:
    return execution_policy.policies(assembly.settings, assembly.folder, boundary)


def statements(template: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        statement
        for resource in template["Resources"].values()
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]
    ]


def allowed(template: Mapping[str, Any], action: str, resource: str) -> list[dict[str, Any]]:
    """Return the statements that allow an action on a resource."""
    return [
        statement
        for statement in statements(template)
        if action in statement["Action"]
        and any(fnmatchcase(resource, pattern) for pattern in statement["Resource"])
    ]


@pytest.fixture(params=(*ENVIRONMENTS, "hardened"))
def template(request: pytest.FixtureRequest, assemblies: Mapping[str, Assembly]) -> dict[str, Any]:
    """Return the policies of each environment in turn."""
    return policies(assemblies[request.param])


@pytest.fixture
def dev(assemblies: Mapping[str, Assembly]) -> dict[str, Any]:
    """Return the policies of dev."""
    return policies(assemblies["dev"])


def test_it_is_a_template_without_findings(template: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "policies.json"
    path.write_text(json.dumps(template))

    # cfn-lint, like the reference, doesn't know some actions.
    unknown = {
        action.partition(":")[2].lower()
        for action in execution_policy.unlisted(
            action for statement in statements(template) for action in statement["Action"]
        )
    }
    others = [
        found for found in findings(path) if not re.match(rf"W3037 .*'({'|'.join(unknown)})' is not", found)
    ]
    assert others == []


def test_no_policy_exceeds_iams_limit(template: dict[str, Any]) -> None:
    assert 1 <= len(template["Resources"]) <= 10
    for resource in template["Resources"].values():
        document = json.dumps(resource["Properties"]["PolicyDocument"], separators=(",", ":"))
        assert len(document) <= execution_policy.LONGEST


@pytest.mark.parametrize(
    ("action", "ours", "theirs"),
    [
        ("iam:CreateRole", "iam::444455556666:role/video-router-dev-r-R1", "iam::444455556666:role/admin"),
        ("iam:PassRole", "iam::444455556666:role/video-router-dev-r-R1", "iam::444455556666:role/admin"),
        (
            "lambda:UpdateFunctionCode",
            "lambda:us-east-1:444455556666:function:video-router-dev-router-R1",
            "lambda:us-east-1:444455556666:function:payments",
        ),
        ("s3:DeleteBucket", "s3:::video-router-dev-data-bucket1", "s3:::ledger"),
        (
            "dynamodb:DeleteTable",
            "dynamodb:us-east-1:444455556666:table/video-router-dev-release-T1",
            "dynamodb:us-east-1:444455556666:table/ledger",
        ),
        (
            "states:UpdateStateMachine",
            "states:us-east-1:444455556666:stateMachine:video-router-dev-release",
            "states:us-east-1:444455556666:stateMachine:video-router-prod-release",
        ),
        (
            "lambda:InvokeFunction",
            "lambda:us-east-1:444455556666:function:video-router-dev-release-F1",
            "lambda:us-east-1:444455556666:function:payments",
        ),
    ],
)
def test_only_resources_with_our_names_can_be_changed(
    dev: dict[str, Any], action: str, ours: str, theirs: str
) -> None:
    assert allowed(dev, action, f"arn:aws:{ours}")
    assert not allowed(dev, action, f"arn:aws:{theirs}")


def test_nothing_of_iam_is_changed_but_our_roles(template: dict[str, Any]) -> None:
    for statement in statements(template):
        for action in statement["Action"]:
            if action.startswith("iam:") and action != "iam:ListRoles":
                assert all(":role/video-router-" in resource for resource in statement["Resource"]), action


def test_no_whole_service_is_granted(template: dict[str, Any]) -> None:
    actions = {action for statement in statements(template) for action in statement["Action"]}

    assert len(actions) > 150
    assert not [action for action in actions if "*" in action]
    assert not [action for action in actions if action.startswith(("bedrock:", "sts:", "organizations:"))]


def test_the_cis_roles_are_not_among_what_it_may_change(dev: dict[str, Any]) -> None:
    names = {role(name)["RoleName"] for name in ("DeployRole", "DiffRole")}

    assert names == {"ci-video-router-dev-deploy", "ci-video-router-dev-diff"}
    for name in names:
        assert not allowed(dev, "iam:UpdateAssumeRolePolicy", f"arn:aws:iam::444455556666:role/{name}")


def test_a_bundle_is_read_and_never_written(dev: dict[str, Any]) -> None:
    bundle = "arn:aws:s3:::cdk-hnb659fds-assets-444455556666-us-east-1/0.zip"

    assert allowed(dev, "s3:GetObject", bundle)
    assert not allowed(dev, "s3:DeleteObject", bundle)
    assert not allowed(dev, "s3:PutObject", bundle)


def test_with_a_boundary_roles_are_given_permissions_only_if_they_have_it(
    assemblies: Mapping[str, Assembly],
) -> None:
    """Without a boundary, the deployment can give our roles any permission."""
    bounded = policies(assemblies["dev"], BOUNDARY)
    role = "arn:aws:iam::444455556666:role/video-router-dev-r-R1"

    for action in ("iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy"):
        (statement,) = allowed(bounded, action, role)
        assert statement["Condition"] == {"StringEquals": {"iam:PermissionsBoundary": BOUNDARY}}
    assert not allowed(bounded, "iam:DeleteRolePermissionsBoundary", role)
    assert allowed(bounded, "iam:DeleteRole", role)


def test_a_type_brings_what_its_schema_names() -> None:
    topic = execution_policy.needed({"AWS::SNS::Topic"}, "us-east-1")

    assert {"sns:CreateTopic", "sns:DeleteTopic", "sns:SetTopicAttributes"} <= topic
    assert not [action for action in topic if action.startswith("lambda:")]
    assert execution_policy.needed({"Custom::Thing"}, "us-east-1") == {"lambda:InvokeFunction"}
    assert execution_policy.needed({"AWS::CloudFormation::WaitCondition"}, "us-east-1") == set()


def test_an_action_that_the_reference_does_not_know_is_kept_and_told(
    dev: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A rollback was reported that lacked apigateway:TagResource on a tagged stage."""
    stage = execution_policy.needed({"AWS::ApiGatewayV2::Stage"}, "us-east-1")
    new = {"apigateway:TagResource", "apigateway:UntagResource"}

    assert new <= set(execution_policy.unlisted(stage))
    assert "apigateway:GET" not in execution_policy.unlisted(stage)
    for action in new:
        assert allowed(dev, action, "arn:aws:apigateway:us-east-1::/apis/a1/stages/$default")

    monkeypatch.setattr(cdk, "write_assembly", lambda *_: None)
    monkeypatch.setattr(execution_policy, "policies", lambda *_: dev)
    output = tmp_path / "policy.json"
    options = argparse.Namespace(environment="dev", output=output, boundary="")
    assert execution_policy.run(options) == 0
    assert "apigateway:TagResource, apigateway:UntagResource" in capsys.readouterr().out


def test_an_unknown_action_is_limited_to_our_names_where_there_are_any(dev: dict[str, Any]) -> None:
    assert allowed(dev, "s3:DeleteBucketCors", "arn:aws:s3:::video-router-dev-data-bucket1")
    assert not allowed(dev, "s3:DeleteBucketCors", "arn:aws:s3:::ledger")
    names = {action for statement in statements(dev) for action in statement["Action"]}
    assert "s3:REST.PUT.OBJECT" not in names


USES = ("kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey")


def test_a_key_of_the_teams_own_is_used_and_not_managed(assemblies: Mapping[str, Assembly]) -> None:
    """The creator of a table, a function or a state machine uses its key, also one of no template."""
    own = policies(assemblies["hardened"])
    key = str(assemblies["hardened"].settings.encryption.key_arn)
    other = key.replace(key.rpartition("/")[2], "another")
    for action in USES:
        assert allowed(own, action, key), action
        assert not allowed(own, action, other), action
    for action in ("kms:CreateKey", "kms:ScheduleKeyDeletion", "kms:PutKeyPolicy"):
        assert not allowed(own, action, key)


def test_a_key_that_is_created_is_used_and_managed(dev: dict[str, Any]) -> None:
    key = "arn:aws:kms:us-east-1:444455556666:key/0b8f1c7e-1111-4222-8333-444455556666"
    for action in (*USES, "kms:ScheduleKeyDeletion"):
        assert allowed(dev, action, key), action
        assert not allowed(dev, action, key.replace("444455556666:key", "111122223333:key"))
    assert allowed(dev, "kms:CreateKey", "anything")


def test_the_bootstraps_version_is_read_and_no_other_parameter(template: dict[str, Any]) -> None:
    (reading,) = [s for s in statements(template) if s["Action"] == ["ssm:GetParameters"]]
    (parameter,) = reading["Resource"]
    assert parameter.endswith(":parameter/cdk-bootstrap/hnb659fds/version")


def test_a_type_without_a_schema_is_named() -> None:
    with pytest.raises(OperateError, match="no schema of AWS::No::Such"):
        execution_policy.needed({"AWS::No::Such"}, "us-east-1")


def test_a_long_name_is_cut_to_what_cloudformation_keeps(
    assemblies: Mapping[str, Assembly], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution_policy, "KEPT", 12)
    cut = policies(assemblies["dev"])

    assert allowed(cut, "iam:CreateRole", "arn:aws:iam::444455556666:role/video-router-x")


def test_statements_that_are_too_long_come_in_parts() -> None:
    actions = [f"dynamodb:Action{number:04}" for number in range(1000)]
    statement = {"Effect": "Allow", "Action": actions, "Resource": ["*"]}

    made = execution_policy.template("router", [statement])

    assert len(made["Resources"]) > 1
    assert sorted(action for part in statements(made) for action in part["Action"]) == actions
