"""All Lambda functions and roles, in all stacks."""

from __future__ import annotations

import re

from tests.stacks.assembly import Assembly, Resource, is_framework

# Actions that don't support resources (Service Authorization Reference), by role.
ON_ANYTHING = {
    "lambda.amazonaws.com": {
        "bedrock:ListCustomModelDeployments",
        "bedrock:ListCustomModels",
        "bedrock:ListEvaluationJobs",
        "bedrock:ListModelCustomizationJobs",
        "bedrock:ListModelInvocationJobs",
        "bedrock:ListProvisionedModelThroughputs",
        "cloudwatch:GetMetricStatistics",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
    },
    "states.amazonaws.com": {
        "logs:CreateLogDelivery",
        "logs:DeleteLogDelivery",
        "logs:DescribeLogGroups",
        "logs:DescribeResourcePolicies",
        "logs:GetLogDelivery",
        "logs:ListLogDeliveries",
        "logs:PutResourcePolicy",
        "logs:UpdateLogDelivery",
        "xray:GetSamplingRules",
        "xray:GetSamplingTargets",
        "xray:PutTelemetryRecords",
        "xray:PutTraceSegments",
    },
}
# Lambda checks these without a resource before it creates a function in a VPC.
LAMBDA_INTERFACES = {
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
}
# Actions for Bedrock's jobs in a VPC, only on interfaces with Bedrock's tags (Bedrock user guide).
INTERFACES = {
    "ec2:CreateNetworkInterfacePermission",
    "ec2:DeleteNetworkInterface",
    "ec2:DeleteNetworkInterfacePermission",
}
DESCRIPTIONS = {
    f"ec2:Describe{name}"
    for name in ("NetworkInterfaces", "Vpcs", "DhcpOptions", "Subnets", "SecurityGroups")
}
# Additional actions that the CDK grants the Provider framework's state machine.
WAITERS = {"logs:CreateLogStream", "logs:PutLogEvents"}

# Wildcards within a resource: ids chosen by Bedrock, Step Functions and Lambda, and folders.
WILDCARDS = re.compile(
    r"<Data\.Arn>/(datasets|jobs|labels/video-router-[a-z]+|releases/video-router-[a-z]+)/\*"
    r"|<Data\.Arn>/releases/video-router-[a-z]+/\*/(judge/\*|head\.bin)"
    r"|arn:aws:s3:::search-team-(data/queries/2026-11/|logs/bedrock/)\*"  # in variants
    r"|arn:aws:bedrock:us-east-1:\d{12}:(evaluation|model-invocation)-job/\*"
    r"|arn:aws:bedrock:us-east-1:\d{12}:(custom-model|model-customization-job)/(amazon\.nova-micro-v1:0:128k/)?\*"
    r"|arn:aws:bedrock:us-east-1:\d{12}:(custom-model-deployment|provisioned-model)/\*"
    r"|arn:aws:bedrock:us-\*::foundation-model/amazon\.nova-(micro|pro)-v1:0"
    r"|arn:aws:states:us-east-1:\d{12}:execution:video-router-[a-z]+-(labelling|release):\*"
    # A map's children.
    r"|arn:aws:states:us-east-1:\d{12}:execution:.*(Labelling|Release)StateMachine.*(/Shards|/AskModels)?:\*"
    r"|<\w+\.Arn>:\*"  # a function's versions
    r"|arn:aws:ec2:us-east-1:\d{12}:network-interface/\*"
)


def trusted(role: Resource) -> str:
    (statement,) = role.properties["AssumeRolePolicyDocument"]["Statement"]
    return str(statement["Principal"]["Service"])


def log_group(function: Resource) -> str:
    return str(function.properties["LoggingConfig"]["LogGroup"]["Ref"])


def test_our_functions_run_the_version_that_was_tested(assembly: Assembly) -> None:
    assert {function.properties["Runtime"] for function in assembly.functions()} == {"python3.13"}
    layers = assembly.resources("AWS::Lambda::LayerVersion")
    assert [layer.properties["CompatibleRuntimes"] for layer in layers] == [["python3.13"]] * 3


def test_only_the_provider_framework_runs_code_that_is_not_ours(assembly: Assembly) -> None:
    foreign = {
        function.properties["Handler"]
        for function in assembly.resources("AWS::Lambda::Function")
        if is_framework(function)
    }
    assert foreign == {"framework.onEvent", "framework.isComplete", "framework.onTimeout"}


def test_every_function_has_its_own_log_group(assembly: Assembly) -> None:
    groups = [log_group(function) for function in assembly.functions()]
    assert len(set(groups)) == len(groups)


def test_framework_shares_one_log_group_for_each_provider(assembly: Assembly) -> None:
    ours = {log_group(function) for function in assembly.functions()}
    for function in assembly.resources("AWS::Lambda::Function"):
        if is_framework(function):
            assert log_group(function) not in ours
            provider = function.name.partition("Providerframework")[0]
            assert log_group(function).startswith(f"{provider}ProviderFrameworkLogs")


def test_logs_are_kept_as_long_as_the_settings_say_and_go_with_the_stack(assembly: Assembly) -> None:
    groups = assembly.resources("AWS::Logs::LogGroup")
    assert {group.properties["RetentionInDays"] for group in groups} == {assembly.settings.retention.log_days}
    assert {group.raw["DeletionPolicy"] for group in groups} == {"Delete"}
    declared = {(group.stack, group.logical_id) for group in groups}
    for function in assembly.resources("AWS::Lambda::Function"):
        assert (function.stack, log_group(function)) in declared


def test_functions_write_to_their_own_log_groups_only(assembly: Assembly) -> None:
    for role in assembly.resources("AWS::IAM::Role"):
        users = [
            function
            for function in assembly.resources("AWS::Lambda::Function", stack=role.stack)
            if function.properties["Role"]["Fn::GetAtt"][0] == role.logical_id
        ]
        written = {
            resource
            for statement in assembly.role_statements(role)
            if "logs:PutLogEvents" in statement.actions
            for resource in statement.resources
        }
        if users:
            assert written == {assembly.plain({"Fn::GetAtt": [log_group(user), "Arn"]}) for user in users}


def test_no_role_has_a_managed_policy(assembly: Assembly) -> None:
    assert not assembly.resources("AWS::IAM::ManagedPolicy")
    for role in assembly.resources("AWS::IAM::Role"):
        assert "ManagedPolicyArns" not in role.properties


def test_roles_are_for_services_only(assembly: Assembly) -> None:
    services = {trusted(role) for role in assembly.resources("AWS::IAM::Role")}
    assert services == {"lambda.amazonaws.com", "states.amazonaws.com", "bedrock.amazonaws.com"}
    assert not assembly.resources("AWS::IAM::User", "AWS::IAM::Group", "AWS::IAM::AccessKey")


def test_no_function_has_the_default_role_of_another(assembly: Assembly) -> None:
    """Functions share a role only within one construct and one folder of code."""
    folders: dict[tuple[str, str], set[str]] = {}
    for function in assembly.functions():
        role = (function.stack, function.properties["Role"]["Fn::GetAtt"][0])
        folders.setdefault(role, set()).add(function.properties["Handler"].partition(".")[0])
    assert {len(names) for names in folders.values()} == {1}


def test_any_resource_is_allowed_only_for_actions_that_take_none(assembly: Assembly) -> None:
    """Exceptions are those that AWS documents so, for the network interfaces of functions and jobs."""
    for role in assembly.resources("AWS::IAM::Role"):
        allowed = ON_ANYTHING.get(trusted(role), set())
        if role.name.endswith("ProviderwaiterstatemachineRole"):
            allowed = allowed | WAITERS
        if trusted(role) == "lambda.amazonaws.com" and assembly.settings.network:
            allowed = allowed | LAMBDA_INTERFACES
        for statement in assembly.role_statements(role):
            if "*" in statement.resources and statement.effect == "Allow":
                if trusted(role) == "bedrock.amazonaws.com" and assembly.settings.network:
                    tagged = "ec2:ResourceTag/BedrockManaged" in str(statement.conditions)
                    allowed = INTERFACES if tagged else DESCRIPTIONS
                assert statement.actions <= allowed, role.name


def test_other_wildcards_are_the_known_ones(assembly: Assembly) -> None:
    found = {
        resource
        for role in assembly.resources("AWS::IAM::Role")
        for statement in assembly.role_statements(role)
        for resource in statement.resources
        if "*" in resource and resource != "*"
    }
    assert {resource for resource in found if not WILDCARDS.fullmatch(resource)} == set()


def test_no_role_has_an_action_with_a_wildcard_or_a_denial_of_the_opposite(assembly: Assembly) -> None:
    for policy in assembly.resources("AWS::IAM::Policy"):
        for raw in policy.properties["PolicyDocument"]["Statement"]:
            # The only Deny keeps a function's code from its network interfaces.
            if raw["Effect"] != "Allow":
                assert list(raw["Condition"]) == ["ArnLike"]
                assert list(raw["Condition"]["ArnLike"]) == ["lambda:SourceFunctionArn"]
                assert all(action.startswith("ec2:") for action in raw["Action"])
            assert not {"NotAction", "NotResource", "NotPrincipal"} & raw.keys()
            assert "*" not in str(raw["Action"]), policy.name


def test_keys_are_used_through_one_service_or_by_bedrocks_own_role(assembly: Assembly) -> None:
    for role in assembly.resources("AWS::IAM::Role"):
        for statement in assembly.role_statements(role):
            if any(action.startswith("kms:") for action in statement.actions):
                if statement.resources == {assembly.settings.dataset.source_key}:
                    assert role.name in {"DatasetRole", "LabellingRole"}
                    assert statement.actions == {"kms:Decrypt"}
                    assert statement.conditions == {"StringLike": {"kms:ViaService": "s3.*.amazonaws.com"}}
                    continue
                assert statement.resources == {"<Key.Arn>"}
                limited = "kms:ViaService" in statement.conditions.get("StringEquals", {})
                if "kms:EncryptionContext" in str(statement.conditions):
                    # A state machine's role uses it directly, for what the context names.
                    limited = trusted(role) == "states.amazonaws.com"
                assert limited or role.name in {"JobJobRole", "LabellingBatchRole", "ReleaseJudgeRole"}, (
                    role.name
                )


def test_everything_that_takes_tags_carries_the_owner(assembly: Assembly) -> None:
    for resource in assembly.resources(
        "AWS::Lambda::Function", "AWS::IAM::Role", "AWS::S3::Bucket", "AWS::DynamoDB::Table", "AWS::KMS::Key"
    ):
        tags = {tag["Key"]: tag["Value"] for tag in resource.properties["Tags"]}
        own = {"distilled-router:owner": assembly.settings.owner}
        assert tags == {**assembly.settings.tags, **own}, resource.name
