"""The policies of CloudFormation's execution role: actions by resource type, limited to our names."""

from __future__ import annotations

import argparse
import itertools
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

OWNER_TAG = "distilled-router:owner"
OURS = {f"aws:ResourceTag/{OWNER_TAG}": "video-router-dev"}
NEW = {f"aws:RequestTag/{OWNER_TAG}": "video-router-dev"}
BOUNDARY = "arn:aws:iam::444455556666:policy/boundary"


def policies(assembly: Assembly) -> dict[str, Any]:
    return execution_policy.policies(assembly.settings, assembly.folder)


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
        (
            "iam:CreateRole",
            "iam::444455556666:role/video-router-dev-router-R1",
            "iam::444455556666:role/admin",
        ),
        ("iam:PassRole", "iam::444455556666:role/video-router-dev-router-R1", "iam::444455556666:role/admin"),
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


@pytest.mark.parametrize(
    "owner", ["video-router-dev2", "video-router-deveu", "video-router-de", "video-router-prod"]
)
@pytest.mark.parametrize(
    ("action", "resource"),
    [
        ("sqs:DeleteQueue", "sqs:us-east-1:444455556666:{}-release-Undelivered1-X"),
        ("cloudwatch:DeleteDashboards", "cloudwatch::444455556666:dashboard/{}"),
        ("cloudwatch:DeleteAlarms", "cloudwatch:us-east-1:444455556666:alarm:{}-Fallback"),
        ("lambda:DeleteLayerVersion", "lambda:us-east-1:444455556666:layer:{}-router-dependencies:1"),
        ("budgets:ModifyBudget", "budgets::444455556666:budget/{}"),
        ("logs:DeleteLogGroup", "logs:us-east-1:444455556666:log-group:/aws/vendedlogs/states/{}-release"),
        ("s3:PutBucketPolicy", "s3:::{}-data-bucket1"),
        ("iam:UpdateAssumeRolePolicy", "iam::444455556666:role/{}-distill-Role1-X"),
    ],
)
def test_names_that_begin_alike_are_told_apart(
    assemblies: Mapping[str, Assembly], owner: str, action: str, resource: str
) -> None:
    name = "prod" if action.startswith("budgets") else "dev"  # only prod has a budget
    found, ours = policies(assemblies[name]), assemblies[name].settings.owner
    account = assemblies[name].settings.account
    arn = f"arn:aws:{resource.replace('444455556666', account)}"

    assert allowed(found, action, arn.format(ours))
    if owner != ours:
        assert not allowed(found, action, arn.format(owner))


def test_generated_names_of_our_stacks_alone_are_ours(dev: dict[str, Any]) -> None:
    """A router called `video-router-dev` may have an environment `eu`."""
    table = "arn:aws:dynamodb:us-east-1:444455556666:table/video-router-dev-{}-Table1-X"

    assert allowed(dev, "dynamodb:DeleteTable", table.format("release"))
    assert allowed(dev, "dynamodb:DeleteTable", table.format("distill"))  # as CloudFormation may shorten it
    assert not allowed(dev, "dynamodb:DeleteTable", table.format("eu-release"))


def test_every_name_in_the_templates_is_allowed(assemblies: Mapping[str, Assembly]) -> None:
    """CloudFormation generates all other names.

    Of a state machine, it would generate one without the stack's name (aws-amplify/amplify-hosting#2597).
    """
    explicit = {"AWS::StepFunctions::StateMachine": "StateMachineName"}
    forms = {
        ("AWS::CloudWatch::Alarm", "AlarmName"): ("cloudwatch:PutMetricAlarm", "cloudwatch:{}:alarm:"),
        ("AWS::CloudWatch::Dashboard", "DashboardName"): (
            "cloudwatch:PutDashboard",
            "cloudwatch::{1}:dashboard/",
        ),
        ("AWS::Lambda::LayerVersion", "LayerName"): ("lambda:PublishLayerVersion", "lambda:{}:layer:"),
        ("AWS::Logs::LogGroup", "LogGroupName"): ("logs:CreateLogGroup", "logs:{}:log-group:"),
        ("AWS::StepFunctions::StateMachine", "StateMachineName"): (
            "states:CreateStateMachine",
            "states:{}:stateMachine:",
        ),
    }
    generated = {
        "AWS::DynamoDB::Table": "TableName",
        "AWS::Events::Rule": "Name",
        "AWS::IAM::Role": "RoleName",
        "AWS::Lambda::Function": "FunctionName",
        "AWS::S3::Bucket": "BucketName",
        "AWS::SNS::Topic": "TopicName",
        "AWS::SQS::Queue": "QueueName",
    }
    for name in (*ENVIRONMENTS, "hardened"):
        assembly = assemblies[name]
        found, account = policies(assembly), assembly.settings.account
        for resource in assembly.resources():
            assert generated.get(resource.type) not in resource.properties, resource.logical_id
            assert explicit.get(resource.type, "Type") in (*resource.properties, "Type"), resource.logical_id
            for key in resource.properties:
                if (resource.type, key) in forms:
                    action, form = forms[resource.type, key]
                    arn = f"arn:aws:{form.format(f'us-east-1:{account}', account)}{resource.properties[key]}"
                    assert allowed(found, action, arn), f"{name}: {arn}"


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


def test_with_a_boundary_roles_are_changed_only_if_they_have_it(
    assemblies: Mapping[str, Assembly],
) -> None:
    """Without a boundary, the deployment can give our roles any permission, and anybody those roles."""
    dev = assemblies["dev"]
    security = dev.settings.security.model_copy(update={"permissions_boundary": BOUNDARY})
    bounded = execution_policy.policies(dev.settings.model_copy(update={"security": security}), dev.folder)
    role = "arn:aws:iam::444455556666:role/video-router-dev-router-R1"

    for action in (
        *("iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy"),
        *("iam:UpdateAssumeRolePolicy", "iam:UpdateRole", "iam:PutRolePermissionsBoundary"),
    ):
        (statement,) = allowed(bounded, action, role)
        assert statement["Condition"]["StringEquals"] == {"iam:PermissionsBoundary": BOUNDARY}, action
    assert not allowed(bounded, "iam:DeleteRolePermissionsBoundary", role)
    assert allowed(bounded, "iam:DeleteRole", role)


@pytest.mark.parametrize("name", ["dev", "boundary"])
def test_no_role_gets_another_owners_tag(assemblies: Mapping[str, Assembly], name: str) -> None:
    """The policies of buckets trust the tag, whatever the role's name."""
    found, settings = policies(assemblies[name]), assemblies[name].settings
    role = f"arn:aws:iam::{settings.account}:role/{settings.owner}-router-R1"
    tag = f"aws:RequestTag/{OWNER_TAG}"

    for action in ("iam:CreateRole", "iam:TagRole"):
        (statement,) = allowed(found, action, role)
        assert statement["Condition"]["StringEqualsIfExists"] == {tag: settings.owner}, action
    (untagging,) = allowed(found, "iam:UntagRole", role)
    assert untagging["Condition"] == {"ForAllValues:StringNotEquals": {"aws:TagKeys": [OWNER_TAG]}}


def test_alarms_are_described_all_at_once(dev: dict[str, Any]) -> None:
    assert allowed(dev, "cloudwatch:DescribeAlarms", "arn:aws:cloudwatch:us-east-1:444455556666:alarm:*")
    assert not allowed(dev, "cloudwatch:DeleteAlarms", "arn:aws:cloudwatch:us-east-1:444455556666:alarm:*")


def test_what_our_resources_have_no_property_for_is_not_allowed(template: dict[str, Any]) -> None:
    actions = {action for statement in statements(template) for action in statement["Action"]}

    assert not actions & {
        *("iam:CreateServiceLinkedRole", "s3:PutReplicationConfiguration", "s3tables:GetTable"),
        *("dynamodb:CreateTableReplica", "dynamodb:ImportTable", "dynamodb:GetItem", "dynamodb:Scan"),
        *("dynamodb:EnableKinesisStreamingDestination", "kinesis:DescribeStream"),
        *("s3:CreateBucketMetadataTableConfiguration", "apigateway:UntagResource"),
    }


def test_roles_are_passed_to_the_services_that_the_stacks_pass_them_to(
    template: dict[str, Any], assemblies: Mapping[str, Assembly]
) -> None:
    (statement,) = [one for one in statements(template) if "iam:PassRole" in one["Action"]]
    services = {
        "AWS::Lambda::Function": "lambda.amazonaws.com",
        "AWS::StepFunctions::StateMachine": "states.amazonaws.com",
    }

    passing = {
        resource.type
        for assembly in assemblies.values()
        for resource in assembly.resources()
        if {"Role", "RoleArn", "CredentialsArn", "SubscriptionRoleArn"} & resource.properties.keys()
    }
    assert {services[kind] for kind in passing if not kind.startswith("Custom::")} == set(
        statement["Condition"]["StringEquals"]["iam:PassedToService"]
    )


def test_every_condition_key_is_one_that_the_reference_lists_for_the_action(template: dict[str, Any]) -> None:
    for statement in statements(template):
        for operator, values in statement.get("Condition", {}).items():
            for key, action in itertools.product(values, statement["Action"]):
                known = execution_policy.keys(action)
                # The reference does not know the action, or the key only where the service passes it on.
                is_optional = operator.endswith("IfExists")
                assert key.partition("/")[0] in known or is_optional, f"{action}: {key}"


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
    new = "apigateway:TagResource"

    assert new in execution_policy.unlisted(stage)
    assert "apigateway:GET" not in execution_policy.unlisted(stage)
    (statement,) = allowed(dev, new, "arn:aws:apigateway:us-east-1::/apis/a1/stages/$default")
    assert statement["Condition"] == {"StringEqualsIfExists": {**OURS, **NEW}}

    monkeypatch.setattr(cdk, "write_assembly", lambda *_: None)
    monkeypatch.setattr(execution_policy, "policies", lambda *_: dev)
    output = tmp_path / "policy.json"
    options = argparse.Namespace(environment="dev", output=output)
    assert execution_policy.run(options) == 0
    assert "apigateway:TagResource" in capsys.readouterr().out


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


def test_a_key_that_is_created_is_used_and_managed_by_its_tag(dev: dict[str, Any]) -> None:
    key = "arn:aws:kms:us-east-1:444455556666:key/0b8f1c7e-1111-4222-8333-444455556666"
    for action in (*USES, "kms:ScheduleKeyDeletion", "kms:PutKeyPolicy", "kms:UntagResource"):
        (statement,) = allowed(dev, action, key)
        assert statement["Condition"] == {"StringEquals": OURS}, action
        assert not allowed(dev, action, key.replace("444455556666:key", "111122223333:key"))
    (creating,) = allowed(dev, "kms:CreateKey", "anything")
    assert creating["Condition"] == {"StringEquals": NEW}


def test_a_key_is_tagged_as_ours_unless_it_is_somebody_elses(dev: dict[str, Any]) -> None:
    key = "arn:aws:kms:us-east-1:444455556666:key/0b8f1c7e-1111-4222-8333-444455556666"
    conditions = [statement["Condition"] for statement in allowed(dev, "kms:TagResource", key)]

    assert conditions == [
        {"StringEquals": NEW, "StringEqualsIfExists": OURS},
        {"StringEquals": OURS, "StringEqualsIfExists": NEW},
    ]


def test_an_api_is_created_with_our_tag_and_changed_by_it(dev: dict[str, Any]) -> None:
    root = "arn:aws:apigateway:us-east-1::/apis"

    (creating,) = allowed(dev, "apigateway:POST", root)
    assert creating["Condition"] == {"StringEquals": NEW}
    for action in ("apigateway:POST", "apigateway:PATCH", "apigateway:DELETE"):
        for part in ("a1", "a1/routes", "a1/stages/$default"):
            (statement,) = allowed(dev, action, f"{root}/{part}")
            assert statement["Condition"] == {"StringEquals": OURS}, (action, part)
        assert not allowed(dev, action, "arn:aws:apigateway:us-east-1::/restapis/a1")


def test_tags_of_an_api_are_changed_though_the_request_has_no_tags_of_it(dev: dict[str, Any]) -> None:
    """The reference has no tags as keys of `/tags`."""
    tags = "arn:aws:apigateway:us-east-1::/tags/arn:aws:apigateway:us-east-1::/apis/a1"

    for action in ("apigateway:POST", "apigateway:PUT"):
        (statement,) = allowed(dev, action, tags)
        assert statement["Condition"] == {"StringEquals": NEW, "StringEqualsIfExists": OURS}, action
    (statement,) = allowed(dev, "apigateway:DELETE", tags)
    assert statement["Condition"] == {"StringEqualsIfExists": OURS}
    assert not allowed(dev, "apigateway:PATCH", tags)


def test_a_security_group_may_be_tagged_after_its_rules_are_set(assemblies: Mapping[str, Assembly]) -> None:
    found, owner = policies(assemblies["hardened"]), assemblies["hardened"].settings.owner
    group = "arn:aws:ec2:us-east-1:111122223333:security-group/sg-1"
    ours, new = ({f"aws:{kind}Tag/{OWNER_TAG}": owner} for kind in ("Resource", "Request"))

    (creating,) = allowed(found, "ec2:CreateSecurityGroup", group)
    assert creating["Condition"] == {"StringEqualsIfExists": new}
    for action in ("ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupEgress"):
        (statement,) = allowed(found, action, group)
        assert statement["Condition"] == {"StringEqualsIfExists": ours}, action
    assert [statement["Condition"] for statement in allowed(found, "ec2:CreateTags", group)] == [
        {"StringEquals": new, "StringEqualsIfExists": ours},
        {"StringEquals": ours, "StringEqualsIfExists": new},
    ]
    assert allowed(found, "route53:AssociateVPCWithHostedZone", "arn:aws:route53:::hostedzone/Z1")


def test_endpoints_and_security_groups_are_changed_by_our_tag(assemblies: Mapping[str, Assembly]) -> None:
    found, owner = policies(assemblies["hardened"]), assemblies["hardened"].settings.owner
    root = "arn:aws:ec2:us-east-1:111122223333"
    ours = {"StringEquals": {f"aws:ResourceTag/{OWNER_TAG}": owner}}

    for action, resource in (
        ("ec2:DeleteSecurityGroup", f"{root}:security-group/sg-1"),
        ("ec2:DeleteVpcEndpoints", f"{root}:vpc-endpoint/vpce-1"),
        ("ec2:DeleteTags", f"{root}:vpc-endpoint/vpce-1"),
    ):
        (statement,) = allowed(found, action, resource)
        assert statement["Condition"] == ours, action


def test_what_is_changed_by_its_tag_has_it(assemblies: Mapping[str, Assembly]) -> None:
    tagged = ("AWS::KMS::Key", "AWS::ApiGatewayV2::Api", "AWS::EC2::VPCEndpoint", "AWS::EC2::SecurityGroup")
    for assembly in assemblies.values():
        for resource in assembly.resources(*tagged):
            tags = resource.properties["Tags"]
            found = tags if isinstance(tags, dict) else {tag["Key"]: tag["Value"] for tag in tags}
            assert found[OWNER_TAG] == assembly.settings.owner, resource.name


def test_the_bootstraps_version_is_read_and_no_other_parameter(template: dict[str, Any]) -> None:
    (reading,) = [s for s in statements(template) if s["Action"] == ["ssm:GetParameters"]]
    (parameter,) = reading["Resource"]
    assert parameter.endswith(":parameter/cdk-bootstrap/hnb659fds/version")


def test_a_type_without_a_schema_is_named() -> None:
    with pytest.raises(OperateError, match="no schema of AWS::No::Such"):
        execution_policy.needed({"AWS::No::Such"}, "us-east-1")


def test_a_name_that_generated_names_would_not_hold_is_refused(assemblies: Mapping[str, Assembly]) -> None:
    """`search-platform-router-dev` and `-prod` would get one policy."""
    dev = assemblies["dev"]
    long = dev.settings.model_copy(update={"name": "search-platform-router"})
    longest = dev.settings.model_copy(update={"name": "n" * (execution_policy.KEPT - 1 - len("-dev"))})

    with pytest.raises(OperateError, match=r"search-platform-router-dev has 26 characters\. Allowed are 23 "):
        execution_policy.policies(long, dev.folder)
    assert execution_policy.policies(longest, dev.folder)


def test_statements_that_are_too_long_come_in_parts() -> None:
    actions = [f"dynamodb:Action{number:04}" for number in range(1000)]
    statement = {"Effect": "Allow", "Action": actions, "Resource": ["*"]}

    made = execution_policy.template("router", [statement])

    assert len(made["Resources"]) > 1
    assert sorted(action for part in statements(made) for action in part["Action"]) == actions
