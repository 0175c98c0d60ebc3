"""Requirements of a platform for all resources: a permissions boundary, a VPC, one key for everything."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Template

from cdk_distilled_router import (
    ExistingJob,
    HeadSource,
    Hosting,
    Release,
    ReleaseReference,
    Router,
    VpcConfig,
    VpcEndpoints,
)
from cdk_distilled_router.common.key_policy import services
from cdk_distilled_router.common.vpc_services import GATEWAYS, INTERFACES
from stacks import keys
from stacks.application import Application, declare
from stacks.settings import PROJECT, Checks, Settings, SettingsError, load
from tests.stacks import declaring
from tests.stacks.assembly import Assembly, Resource, unhashed, walk
from tests.stacks.environments import settings_of

HARDENED = "hardened"
# The VPC endpoint for an action's service; None if the function itself doesn't call the service.
SERVICES: Mapping[str, str | None] = {
    "bedrock": "bedrock",
    "cloudwatch": "monitoring",
    "dynamodb": "dynamodb",
    "lambda": "lambda",
    "s3": "s3",
    "states": "states",
    "ec2": None,  # Lambda, for the function's interfaces
    "iam": None,  # PassRole is a permission and no call
    "kms": None,  # S3, DynamoDB, Bedrock, Lambda and Step Functions, with the caller's permissions
    "logs": None,  # Lambda delivers
    "sqs": None,  # as well, what every try of a function failed
    "xray": None,  # as well
}


def functions(assembly: Assembly) -> list[Resource]:
    """Return all functions, including those of the Provider framework."""
    return assembly.resources("AWS::Lambda::Function")


def role_of(assembly: Assembly, function: Resource) -> Resource:
    name = function.properties["Role"]["Fn::GetAtt"][0]
    (role,) = [r for r in assembly.resources("AWS::IAM::Role", stack=function.stack) if r.logical_id == name]
    return role


# The data


def test_data_that_the_gate_would_refuse_is_told_before_anything_is_declared() -> None:
    values = load("dev").model_dump()
    values["gate"]["minimum_examples"] = 253
    with pytest.raises(SettingsError, match=r"found 252 rows, and gate\.minimum_examples is 253"):
        declare(cdk.App(), Settings.model_validate(values))


# The boundary


def test_every_role_has_the_boundary_or_none_has(assembly: Assembly) -> None:
    roles = assembly.resources("AWS::IAM::Role")
    assert len(roles) > 15
    found = {role.properties.get("PermissionsBoundary") for role in roles}
    assert found == {assembly.settings.permissions_boundary}


def test_a_boundary_is_given_by_name_and_by_arn_among_the_environments(
    assemblies: Mapping[str, Assembly],
) -> None:
    assert assemblies["boundary"].settings.permissions_boundary == (
        "arn:aws:iam::444455556666:policy/TeamBoundary"
    )
    assert "policy/platform/" in str(assemblies[HARDENED].settings.permissions_boundary)


def test_the_hardened_environment_has_every_kind_of_role(assemblies: Mapping[str, Assembly]) -> None:
    """Tests of its roles thus cover all but that of the data set, which the labelling replaces."""
    roles = {name: {r.name for r in a.resources("AWS::IAM::Role")} for name, a in assemblies.items()}
    others = set().union(*roles.values()) - roles[HARDENED]
    assert all(name.startswith("Dataset") for name in others), others


def test_a_scopes_boundary_covers_what_the_cdk_makes_by_itself() -> None:
    """These are roles of its Provider framework, of its singletons, and of L1 resources."""
    app = cdk.App()
    stack = cdk.Stack(app, "team")
    bucket = s3.Bucket(stack, "Bucket", auto_delete_objects=True, removal_policy=cdk.RemovalPolicy.DESTROY)
    ExistingJob(
        stack,
        "Job",
        "arn:aws:bedrock:us-east-1:111122223333:model-customization-job/amazon.nova-micro-v1:0:128k/"
        "0123456789ab",
    )
    cdk.CfnResource(stack, "Raw", type="AWS::IAM::Role", properties={"AssumeRolePolicyDocument": {}})
    policy = iam.ManagedPolicy.from_managed_policy_arn(stack, "P", "arn:aws:iam::111122223333:policy/B")
    iam.PermissionsBoundary.of(app).apply(policy)
    found = Template.from_stack(stack).find_resources("AWS::IAM::Role")
    assert bucket
    assert len(found) == 4
    assert {role["Properties"]["PermissionsBoundary"] for role in found.values()} == {
        policy.managed_policy_arn
    }


# The network


def test_every_function_is_in_the_network_or_none_is(assembly: Assembly) -> None:
    network = assembly.settings.network
    expected = (
        {
            "SubnetIds": network.subnet_ids,
            "SecurityGroupIds": network.security_group_ids,
        }
        if network
        else None
    )
    assert [f.name for f in functions(assembly) if f.properties.get("VpcConfig") != expected] == []


def test_lambda_manages_the_interfaces_and_creates_them_only_in_the_network(assembly: Assembly) -> None:
    """Roles have no managed policy for it. That Lambda accepts the policies: `tests/permissions/`."""
    network, account = assembly.settings.network, assembly.settings.account
    arn = f"arn:aws:ec2:us-east-1:{account}"
    for function in functions(assembly):
        statements = [
            statement
            for statement in assembly.role_statements(role_of(assembly, function))
            if any(action.startswith("ec2:") for action in statement.actions)
        ]
        if network is None:
            assert statements == []
            continue
        (denied,) = [statement for statement in statements if statement.effect == "Deny"]
        allowed = [statement for statement in statements if statement.effect == "Allow"]
        placed = {
            f"{arn}:network-interface/*",
            *(f"{arn}:subnet/{name}" for name in network.subnet_ids),
            *(f"{arn}:security-group/{name}" for name in network.security_group_ids),
        }
        assert {(a, r) for s in allowed for a in s.actions for r in s.resources if a.startswith("ec2:")} == {
            *(("ec2:CreateNetworkInterface", name) for name in placed),
            ("ec2:DeleteNetworkInterface", "*"),
            ("ec2:AssignPrivateIpAddresses", "*"),
            ("ec2:UnassignPrivateIpAddresses", "*"),
            ("ec2:DescribeNetworkInterfaces", "*"),
            ("ec2:DescribeSubnets", "*"),
        }
        assert [statement.conditions for statement in allowed] == [{}] * len(allowed)
        # The function's code is kept from all of it.
        assert denied.actions == {
            action for s in allowed for action in s.actions if action.startswith("ec2:")
        }
        assert denied.resources == {"*"}
        code = f"arn:aws:lambda:us-east-1:{account}:function:*"
        assert denied.conditions == {"ArnLike": {"lambda:SourceFunctionArn": code}}


@pytest.fixture(scope="module")
def leaving() -> Application:
    """Return the stacks of the hardened environment on their way out of the network."""
    inside = settings_of(HARDENED)
    assert inside.network
    network = inside.network.model_copy(update={"attached": False})
    settings = inside.model_copy(update={"network": network, "checks": Checks()})
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    return declare(cdk.App(context=context), settings)


def test_functions_that_leave_the_network_keep_their_roles_permissions(leaving: Application) -> None:
    """The roles delete the interfaces after that (aws-cdk #34400); see also `tests/engine/test_jobs.py`."""
    count = 0
    for stack in leaving.stacks:
        template, managing = Template.from_stack(stack), roles_for_interfaces(stack)
        for name, function in template.find_resources("AWS::Lambda::Function").items():
            assert "VpcConfig" not in function["Properties"], name
            assert function["Properties"]["Role"]["Fn::GetAtt"][0] in managing, name
            count += 1
    assert count > 20


def test_jobs_begin_outside_a_network_that_is_left_and_keep_their_roles_permissions(
    leaving: Application,
) -> None:
    template = Template.from_stack(leaving.distillation)
    (job,) = template.find_resources("Custom::BedrockDistillationJob").values()
    assert not {"SubnetIds", "SecurityGroupIds"} & job["Properties"].keys()
    (labels,) = (
        function["Properties"]
        for name, function in template.find_resources("AWS::Lambda::Function").items()
        if unhashed(name) == "LabellingLabelQueries"
    )
    assert json.loads(labels["Environment"]["Variables"]["NETWORK"]) == {}
    managing = {unhashed(role) for role in roles_for_interfaces(leaving.distillation)}
    assert {"JobJobRole", "LabellingBatchRole"} <= managing


def test_the_endpoints_stay_until_the_network_is_left(leaving: Application) -> None:
    found = Template.from_stack(leaving.data).find_resources("AWS::EC2::VPCEndpoint")
    assert len(found) == len(INTERFACES) + len(GATEWAYS)


def roles_for_interfaces(stack: cdk.Stack) -> set[str]:
    """Return the logical ids of the roles that may delete network interfaces."""
    return {
        role["Ref"]
        for policy in Template.from_stack(stack).find_resources("AWS::IAM::Policy").values()
        if any(
            statement["Effect"] == "Allow" and "ec2:DeleteNetworkInterface" in statement["Action"]
            for statement in policy["Properties"]["PolicyDocument"]["Statement"]
        )
        for role in policy["Properties"]["Roles"]
    }


def test_no_function_is_made_before_its_role_may_make_interfaces(assembly: Assembly) -> None:
    for function in functions(assembly):
        role = role_of(assembly, function)
        policies = {
            policy.logical_id
            for policy in assembly.resources("AWS::IAM::Policy", stack=function.stack)
            if {"Ref": role.logical_id} in policy.properties["Roles"]
        }
        assert policies <= set(function.raw["DependsOn"]), function.name


def test_jobs_are_in_the_network_with_the_permissions_that_bedrock_asks_for(assembly: Assembly) -> None:
    network = assembly.settings.network
    job = assembly.one("Custom::BedrockDistillationJob").properties
    assert job.get("SubnetIds") == (network.subnet_ids if network else None)
    assert job.get("SecurityGroupIds") == (network.security_group_ids if network else None)
    roles = {"JobJobRole": "BedrockModelCustomizationJobArn"}
    if assembly.is_labelled_here:
        roles["LabellingBatchRole"] = "BedrockModelInvocationJobArn"
    for name, tag in roles.items():
        role = assembly.one("AWS::IAM::Role", name)
        statements = [s for s in assembly.role_statements(role) if "ec2:" in str(sorted(s.actions))]
        assert len(statements) == (5 if network else 0), name
        if network:
            assert sum(tag in str(statement.conditions) for statement in statements) == 3


def test_what_makes_batch_jobs_knows_the_network(assemblies: Mapping[str, Assembly]) -> None:
    for name, expected in ((HARDENED, True), ("raw-queries", False)):
        (function,) = [f for f in functions(assemblies[name]) if f.name == "LabellingLabelQueries"]
        variables = function.properties["Environment"]["Variables"]
        network = assemblies[name].settings.network if expected else None
        assert json.loads(variables["NETWORK"]) == (
            {"subnetIds": network.subnet_ids, "securityGroupIds": network.security_group_ids}
            if network
            else {}
        )


def test_another_network_names_the_same_job_and_starts_no_release(assemblies: Mapping[str, Assembly]) -> None:
    plain = assemblies["dev"]
    for name in ("boundary", "network", "keys"):
        changed = assemblies[name]
        assert changed.identity.digest == plain.identity.digest
        for kind, names in (
            ("Custom::BedrockDistillationJob", {"JobName", "TrainingDataUri", "CustomModelKmsKeyId"}),
            ("Custom::BedrockRelease", set(plain.one("Custom::BedrockRelease").properties)),
            (
                "Custom::BedrockDataset",
                set(plain.one("Custom::BedrockDataset", "Dataset").properties),
            ),
        ):
            name_ = "Dataset" if kind == "Custom::BedrockDataset" else None
            old, new = (assembly.one(kind, name_).properties for assembly in (plain, changed))
            for key in names - {"ServiceToken"}:
                assert changed.plain(new.get(key)) == plain.plain(old.get(key)), f"{name}: {kind} {key}"


# The endpoints


def test_endpoints_are_those_of_the_services_that_functions_may_call(assembly: Assembly) -> None:
    """`cdk_distilled_router.common.vpc_endpoints` lists exactly the services that functions call."""
    needed = {
        "bedrock-runtime" if action == "bedrock:InvokeModel" else SERVICES[action.partition(":")[0]]
        for function in functions(assembly)
        for statement in assembly.role_statements(role_of(assembly, function))
        for action in statement.actions
    } - {None}
    assert needed == INTERFACES.keys() | GATEWAYS.keys()


def test_the_page_tells_of_these_endpoints() -> None:
    page = (PROJECT / "docs" / "platform.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (interface|gateway) \| (.+) \|$", page, re.MULTILINE)
    assert {name: text for name, kind, text in rows if kind == "interface"} == INTERFACES
    assert {name: text for name, kind, text in rows if kind == "gateway"} == GATEWAYS


def test_endpoints_are_made_where_the_settings_want_them(assembly: Assembly) -> None:
    network = assembly.settings.network
    found = assembly.resources("AWS::EC2::VPCEndpoint")
    if network is None or network.endpoints is None:
        assert found == assembly.resources("AWS::EC2::SecurityGroup") == []
        return
    shown: dict[str, set[str]] = {endpoint.properties["VpcEndpointType"]: set() for endpoint in found}
    for endpoint in found:
        assert endpoint.stack == "data"
        assert endpoint.properties["VpcId"] == network.endpoints.vpc_id
        kind = endpoint.properties["VpcEndpointType"]
        shown[kind].add(
            assembly.plain(endpoint.properties["ServiceName"]).removeprefix("com.amazonaws.us-east-1.")
        )
        if kind == "Gateway":
            assert endpoint.properties["RouteTableIds"] == network.endpoints.route_table_ids
        else:
            assert endpoint.properties["PrivateDnsEnabled"] is True
            assert endpoint.properties["SubnetIds"] == network.subnet_ids
            assert assembly.plain(endpoint.properties["SecurityGroupIds"]) == [
                "<EndpointsSecurityGroup.GroupId>"
            ]
    assert shown == {"Interface": set(INTERFACES), "Gateway": set(GATEWAYS)}


def test_endpoints_take_https_from_the_functions_and_let_nothing_out(
    assemblies: Mapping[str, Assembly],
) -> None:
    assembly = assemblies[HARDENED]
    group, network = assembly.one("AWS::EC2::SecurityGroup"), assembly.settings.network
    assert network
    rules = group.properties["SecurityGroupIngress"]
    assert [(r["IpProtocol"], r["FromPort"], r["ToPort"], r["SourceSecurityGroupId"]) for r in rules] == [
        ("tcp", 443, 443, name) for name in network.security_group_ids
    ]
    assert [rule["CidrIp"] for rule in group.properties["SecurityGroupEgress"]] == ["255.255.255.255/32"]


def test_endpoints_are_for_this_account_and_s3s_for_answers_to_cloudformation(
    assemblies: Mapping[str, Assembly],
) -> None:
    assembly = assemblies[HARDENED]
    for endpoint in assembly.resources("AWS::EC2::VPCEndpoint"):
        own, *others = assembly.statements(endpoint.properties["PolicyDocument"])
        account = {"aws:PrincipalAccount": assembly.settings.account}
        assert own.conditions == {"StringEquals": account}
        if not assembly.plain(endpoint.properties["ServiceName"]).endswith(".s3"):
            assert others == []
            continue
        (answers,) = others
        assert answers.actions == {"s3:PutObject"}
        assert not answers.conditions
        region = "{'Fn::Join': ['', {'Fn::Split': ['-', 'us-east-1']}]}"
        assert {resource.replace(region, "useast1") for resource in answers.resources} == {
            "arn:aws:s3:::cloudformation-custom-resource-response-useast1/*",
            "arn:aws:s3:::cloudformation-waitcondition-us-east-1/*",
        }


# The key


def test_everything_that_runs_is_encrypted_with_the_key_or_nothing_is(assembly: Assembly) -> None:
    key = "<Key.Arn>" if assembly.settings.encryption.runtime_key else None
    for kind, name in (("AWS::Logs::LogGroup", "KmsKeyId"), ("AWS::Lambda::Function", "KmsKeyArn")):
        found = assembly.resources(kind)
        assert len(found) > 15
        assert {assembly.plain(resource.properties.get(name)) for resource in found} == {key}
    machines = assembly.resources("AWS::StepFunctions::StateMachine")
    assert len(machines) > 2
    for machine in machines:
        shown = assembly.plain(machine.properties.get("EncryptionConfiguration"))
        assert shown == (
            {"Type": "CUSTOMER_MANAGED_KMS_KEY", "KmsKeyId": key, "KmsDataKeyReusePeriodSeconds": 300}
            if key
            else None
        ), machine.name


def test_a_key_of_the_teams_own_is_used_everywhere_and_none_is_made(
    assemblies: Mapping[str, Assembly],
) -> None:
    assembly = assemblies[HARDENED]
    own = assembly.settings.encryption.key_arn
    used = {
        value
        for resource in assembly.resources()
        for value in walk(resource.properties)
        if isinstance(value, str) and value.startswith("arn:aws:kms:")
    }
    assert used == {own}
    assert assembly.resources("AWS::KMS::Key", "AWS::KMS::Alias") == []
    tables = assembly.resources("AWS::DynamoDB::Table")
    assert {table.properties["SSESpecification"]["KMSMasterKeyId"] for table in tables} == {own}
    assert assembly.one("AWS::SNS::Topic").properties["KmsMasterKeyId"] == own
    job = assembly.one("Custom::BedrockDistillationJob").properties
    assert job["CustomModelKmsKeyId"] == own


def test_tables_have_the_stacks_key(assembly: Assembly) -> None:
    """One holds the keys of labels' seals: with AWS's key, `ReadOnlyAccess` was enough to forge them."""
    for table in assembly.resources("AWS::DynamoDB::Table"):
        found = assembly.plain(table.properties.get("SSESpecification", {}))
        assert (found.get("SSEEnabled"), found.get("SSEType")) == (True, "KMS"), table.name
        assert found["KMSMasterKeyId"] == "<Key.Arn>", table.name


def test_the_printed_policy_is_that_of_a_key_that_is_made(assembly: Assembly) -> None:
    """Apart from CloudFormation's role, which may not manage a key of the team's own."""
    made = assembly.resources("AWS::KMS::Key")
    if not made:
        return
    printed, policy = keys.policy(assembly.settings), assembly.plain(made[0].properties["KeyPolicy"])
    creates = [one for one in policy["Statement"] if one.get("Sid") == "CloudFormationDeploys"]
    assert len(creates) == 1
    rest = {**policy, "Statement": [one for one in policy["Statement"] if one not in creates]}
    assert assembly.statements(printed) == assembly.statements(rest)


def test_log_groups_have_the_names_that_the_keys_policy_allows(assembly: Assembly) -> None:
    """CloudFormation begins the name of a log group with the stack's name if the template has none."""
    owner = assembly.settings.owner
    names = {
        str(assembly.plain(group.properties.get("LogGroupName", f"{owner}-{group.stack}-Name-1")))
        for group in assembly.resources("AWS::Logs::LogGroup")
    }
    statements = services(assembly.settings.account, "us-east-1", owner, runtime=True)
    (allowed,) = [s["Condition"]["ArnLike"] for s in statements if s["Sid"] == "LogGroups"]
    patterns = [
        re.escape(pattern.partition(":log-group:")[2]).replace(r"\*", ".*")
        for pattern in allowed["kms:EncryptionContext:aws:logs:arn"]
    ]
    assert {name for name in names if not any(re.fullmatch(p, name) for p in patterns)} == set()


def test_the_policy_is_printed_for_an_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("sys.argv", ["keys", "prod"])
    keys.main()
    assert json.loads(capsys.readouterr().out) == keys.policy(load("prod"))


def test_an_environment_that_is_not_there_has_no_policy(monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.argv", ["keys", "production"])
    with pytest.raises(SystemExit, match='"dev" or "local" or "prod"'):
        keys.main()


# Another team's app


def test_the_constructs_take_the_same_by_themselves() -> None:
    stack = cdk.Stack(cdk.App(), "team", env=cdk.Environment(account="111122223333", region="us-east-1"))
    vpc = VpcConfig(subnet_ids=["subnet-1", "subnet-2"], security_group_ids=["sg-1"])
    endpoints = VpcEndpoints(stack, "Endpoints", vpc_id="vpc-1", vpc=vpc, route_table_ids=["rtb-1"])
    hosting = Hosting(log_days=7, vpc=vpc, key=kms.Key(stack, "Key"))
    bucket = s3.Bucket.from_bucket_name(stack, "Bucket", "search-data")
    job = declaring.job(
        stack,
        "Job",
        owner="team",
        bucket=bucket,
        training_key="rows/training.jsonl",
        student="amazon.nova-micro-v1:0:128k",
        teacher="us.amazon.nova-pro-v1:0",
        vpc=vpc,
        hosting=hosting,
    )
    release = Release(
        stack, "Release", owner="team", job=job, bucket=bucket, holdout_key="rows/h.jsonl", hosting=hosting
    )
    job.resource.node.add_dependency(endpoints)
    assert release.machine
    template = Template.from_stack(stack)
    made = template.find_resources("AWS::Lambda::Function")
    assert len(made) > 10
    for function in made.values():
        assert function["Properties"]["VpcConfig"]["SubnetIds"] == ["subnet-1", "subnet-2"]
        assert function["Properties"]["KmsKeyArn"]
    for group in template.find_resources("AWS::Logs::LogGroup").values():
        assert (group["Properties"]["RetentionInDays"], "KmsKeyId" in group["Properties"]) == (7, True)
    assert len(template.find_resources("AWS::EC2::VPCEndpoint")) == 7


def test_a_router_may_read_heads_in_a_bucket_that_does_not_know_its_key() -> None:
    stack = cdk.Stack(cdk.App(), "team", env=cdk.Environment(account="111122223333", region="us-east-1"))
    key = kms.Key(stack, "Key")
    Router(
        stack,
        "Router",
        release=ReleaseReference(
            owner="team",
            table=dynamodb.Table.from_table_name(stack, "Table", "releases"),
            student="amazon.nova-micro-v1:0:128k",
            heads=HeadSource(bucket=s3.Bucket.from_bucket_name(stack, "Bucket", "search-data"), key=key),
        ),
    )
    roles = json.dumps(Template.from_stack(stack).to_json())
    assert '["s3.", {"Ref": "AWS::Region"}' in roles
    assert "/releases/team/*/head.bin" in roles
