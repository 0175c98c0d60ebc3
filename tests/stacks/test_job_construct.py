"""DistillationJob in another team's app: its resources, its role's permissions, and refused arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from cdk_nag import AwsSolutionsChecks

from cdk_distilled_router import DistillationJob, ExistingThroughput, Hosting, InvocationLogs, VpcConfig
from cdk_distilled_router.props import RETAIN
from distillation_job.handler import job_spec
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG
from tests.stacks import declaring

STUDENT = "amazon.nova-micro-v1:0:128k"
TEACHER = "us.amazon.nova-pro-v1:0"
REGION = "arn:<AWS::Partition>:bedrock:<AWS::Region>:<AWS::AccountId>"
EC2 = "arn:<AWS::Partition>:ec2:<AWS::Region>:<AWS::AccountId>"
JOB_ARN = f"arn:aws:bedrock:us-east-1:111122223333:model-customization-job/{STUDENT}/0123456789ab"
MODEL_ARN = f"arn:aws:bedrock:us-east-1:111122223333:custom-model/{STUDENT}/0123456789ab"
THROUGHPUT_ARN = "arn:aws:bedrock:us-east-1:111122223333:provisioned-model/0123456789ab"
NETWORK = VpcConfig(subnet_ids=["subnet-1", "subnet-2"], security_group_ids=["sg-1"])


@pytest.fixture
def stack() -> cdk.Stack:
    """Return a stack without settings, for any account and Region."""
    app = cdk.App(analytics_reporting=False)
    return cdk.Stack(app, "search")


@pytest.fixture
def bucket(stack: cdk.Stack) -> s3.Bucket:
    return s3.Bucket(stack, "Data")


@pytest.fixture
def encrypted(stack: cdk.Stack) -> s3.Bucket:
    return s3.Bucket(stack, "Encrypted", encryption_key=kms.Key(stack, "Key"))


def declared(bucket: s3.IBucket, construct_id: str = "Job", **changes: Any) -> DistillationJob:
    """Return the job of the README, with changes; None removes an argument."""
    arguments = {
        "owner": "search",
        "bucket": bucket,
        "training_key": "datasets/2026-11/training.jsonl",
        "student": STUDENT,
        "teacher": TEACHER,
        "max_response_length": 1000,
        **changes,
    }
    given = {name: value for name, value in arguments.items() if value is not None}
    return declaring.job(cdk.Stack.of(bucket), construct_id, **given)


def tuned(bucket: s3.IBucket, **changes: Any) -> DistillationJob:
    return declared(
        bucket, **{"method": "fine_tuning", "teacher": None, "max_response_length": None, **changes}
    )


def plain(value: Any) -> Any:
    """Return a value of a template as text."""
    match value:
        case {"Fn::Join": [separator, list(parts)]}:
            return str(separator).join(str(plain(part)) for part in parts)
        case {"Fn::GetAtt": [resource, attribute]}:
            return f"<{resource[:-8]}.{attribute}>"
        case {"Ref": name}:
            return f"<{name}>" if name.startswith("AWS::") else f"<{name[:-8]}>"
        case dict():
            return {key: plain(inner) for key, inner in value.items()}
        case list():
            return [plain(inner) for inner in value]
        case _:
            return value


def template(stack: cdk.Stack) -> Mapping[str, Any]:
    """Return the stack's synthesized resources."""
    app = stack.node.root
    assert isinstance(app, cdk.App)
    found = app.synth(force=True).get_stack_by_name(stack.stack_name).template
    resources: Mapping[str, Any] = json.loads(json.dumps(found))["Resources"]
    return resources


def of_type(stack: cdk.Stack, resource_type: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, resource in template(stack).items():
        if resource["Type"] == resource_type:
            yield name, plain(resource["Properties"])


def properties(stack: cdk.Stack, resource_type: str = "Custom::BedrockDistillationJob") -> dict[str, Any]:
    ((_, found),) = of_type(stack, resource_type)
    return found


def statements(stack: cdk.Stack, role: str) -> list[dict[str, Any]]:
    """Return the statements of a role's policy."""
    return [
        {
            "actions": _several(statement["Action"]),
            "resources": _several(statement["Resource"]),
            "conditions": statement.get("Condition", {}),
        }
        for _, policy in of_type(stack, "AWS::IAM::Policy")
        if policy["Roles"] == [f"<{role}>"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def _several(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


IN_ACCOUNT = {"aws:ResourceAccount": "<AWS::AccountId>"}


def allowed(actions: str, *resources: str, **conditions: Any) -> dict[str, Any]:
    return {"actions": actions.split(), "resources": list(resources), "conditions": conditions}


def reading(folder: str) -> list[dict[str, Any]]:
    """Return the statements for reading the data bucket."""
    return [
        allowed("s3:GetObject", f"<Data.Arn>/{folder}", "<Data.Arn>/jobs/*"),
        allowed("s3:PutObject", "<Data.Arn>/jobs/*"),
        allowed("s3:ListBucket", "<Data.Arn>", StringLike={"s3:prefix": [folder, "jobs/*"]}),
    ]


def test_a_bucket_rows_and_models_make_a_job(stack: cdk.Stack, bucket: s3.Bucket) -> None:
    job = declared(bucket)

    found = properties(stack)
    spec = job_spec({key: str(value) if isinstance(value, int) else value for key, value in found.items()})
    assert spec.job_name == spec.custom_model_name == job.job_name == job.source == f"search-{job.digest}"
    assert spec.training_data_uri == "s3://<Data>/datasets/2026-11/training.jsonl"
    assert spec.output_data_uri == f"s3://<Data>/jobs/{job.job_name}/"
    assert (spec.base_model_identifier, spec.teacher_model_identifier) == (STUDENT, TEACHER)
    assert (spec.customization_type, spec.max_response_length_for_inference) == ("DISTILLATION", 1000)
    assert spec.tags == {OWNER_TAG: "search", DIGEST_TAG: job.digest}
    assert (found["RetainModel"], found["RetainOutput"], found["AllowLegacy"]) == (True, True, False)
    absent = {
        "HyperParameters",
        "CustomModelKmsKeyId",
        "ValidationDataUris",
        "SubnetIds",
        "InvocationLogsUri",
    }
    assert absent & found.keys() == set()


def test_attributes_are_literals(bucket: s3.Bucket) -> None:
    """Case T1."""
    job = declared(bucket)

    for text in (job.owner, job.digest, job.student, job.job_name, job.source):
        assert not cdk.Token.is_unresolved(text)
    assert (job.owner, job.student) == ("search", STUDENT)


def test_a_bucket_without_a_key_needs_no_permission_for_one(stack: cdk.Stack, bucket: s3.Bucket) -> None:
    declared(bucket)

    teacher = [
        allowed("bedrock:InvokeModel", f"{REGION}:inference-profile/{TEACHER}"),
        allowed(
            "bedrock:InvokeModel",
            "arn:<AWS::Partition>:bedrock:us-*::foundation-model/amazon.nova-pro-v1:0",
        ),
    ]
    assert statements(stack, "JobJobRole") == [*reading("datasets/*"), *teacher]


def test_a_buckets_own_key_is_used_also_of_one_that_was_made_elsewhere(
    stack: cdk.Stack, encrypted: s3.Bucket
) -> None:
    theirs = s3.Bucket.from_bucket_attributes(
        stack, "Theirs", bucket_name="their-bucket", encryption_key=kms.Key(stack, "Second")
    )
    declared(encrypted)
    declared(theirs, "Other", nonce="2")

    for role, key in (("JobJobRole", "<Key.Arn>"), ("OtherJobRole", "<Second.Arn>")):
        used = [found for found in statements(stack, role) if "kms:Decrypt" in found["actions"]]
        assert used == [allowed("kms:Decrypt kms:GenerateDataKey", key)]


def test_a_bucket_that_is_known_by_its_name_works(stack: cdk.Stack) -> None:
    declared(s3.Bucket.from_bucket_name(stack, "Theirs", "their-bucket"))

    assert properties(stack)["TrainingDataUri"] == "s3://their-bucket/datasets/2026-11/training.jsonl"
    first, *_ = statements(stack, "JobJobRole")
    assert first["resources"][0] == "arn:<AWS::Partition>:s3:::their-bucket/datasets/*"


@pytest.mark.parametrize(
    ("key", "folder"),
    [
        ("datasets/2026-11/training.jsonl", "datasets/*"),
        ("training.jsonl", "training.jsonl"),
        ("rows/training.jsonl", "rows/*"),
    ],
)
def test_a_key_in_folders_leaves_earlier_jobs_their_data(
    stack: cdk.Stack, bucket: s3.Bucket, key: str, folder: str
) -> None:
    """Case B14."""
    tuned(bucket, training_key=key)

    assert statements(stack, "JobJobRole") == reading(folder)


def test_a_model_key_is_passed_on_with_what_bedrock_asks_for_it(stack: cdk.Stack, bucket: s3.Bucket) -> None:
    """Case T6."""
    declared(bucket, model_key=kms.Key(stack, "ModelKey"))

    assert properties(stack)["CustomModelKmsKeyId"] == "<ModelKey.Arn>"
    through = {"kms:ViaService": "bedrock.<AWS::Region>.amazonaws.com"}
    expected = allowed(
        "kms:Decrypt kms:GenerateDataKey kms:DescribeKey kms:CreateGrant",
        "<ModelKey.Arn>",
        StringEquals=through,
    )
    assert expected in statements(stack, "JobRole")


def test_validators_are_keys_in_the_bucket_or_uris(stack: cdk.Stack, bucket: s3.Bucket) -> None:
    """Case T7."""
    tuned(bucket, validators=["validation/a.jsonl", "s3://theirs/sets/b.jsonl"])

    uris = ["s3://<Data>/validation/a.jsonl", "s3://theirs/sets/b.jsonl"]
    assert properties(stack)["ValidationDataUris"] == uris
    own = ["datasets/*", "validation/*", "jobs/*"]
    assert statements(stack, "JobJobRole") == [
        allowed("s3:GetObject", *(f"<Data.Arn>/{folder}" for folder in own)),
        allowed("s3:PutObject", "<Data.Arn>/jobs/*"),
        allowed("s3:ListBucket", "<Data.Arn>", StringLike={"s3:prefix": own}),
        allowed("s3:GetObject", "arn:<AWS::Partition>:s3:::theirs/sets/b.jsonl", StringEquals=IN_ACCOUNT),
        allowed(
            "s3:ListBucket",
            "arn:<AWS::Partition>:s3:::theirs",
            StringEquals=IN_ACCOUNT,
            StringLike={"s3:prefix": ["sets/b.jsonl"]},
        ),
    ]


def test_more_than_ten_validators_are_refused(bucket: s3.Bucket) -> None:
    """Case T7."""
    names = [f"validation/{number}.jsonl" for number in range(11)]
    declared(bucket, validators=names[:10])
    with pytest.raises(ValueError, match=r"search/Other: 11 validators; allowed are 10"):
        declared(bucket, "Other", validators=names)


def test_a_network_comes_with_its_documented_permissions(stack: cdk.Stack, bucket: s3.Bucket) -> None:
    """Case T9."""
    tuned(bucket, vpc=NETWORK)

    found = properties(stack)
    assert found["SubnetIds"] == ["subnet-1", "subnet-2"]
    assert found["SecurityGroupIds"] == ["sg-1"]
    jobs = f"{REGION}:model-customization-job/*"
    subnets = [f"{EC2}:subnet/subnet-1", f"{EC2}:subnet/subnet-2"]
    assert statements(stack, "JobJobRole") == [
        *reading("datasets/*"),
        allowed(
            "ec2:DescribeNetworkInterfaces ec2:DescribeVpcs ec2:DescribeDhcpOptions ec2:DescribeSubnets "
            "ec2:DescribeSecurityGroups",
            "*",
        ),
        allowed(
            "ec2:CreateNetworkInterface",
            f"{EC2}:network-interface/*",
            StringEquals={"aws:RequestTag/BedrockManaged": "true"},
            ArnEquals={"aws:RequestTag/BedrockModelCustomizationJobArn": jobs},
        ),
        allowed("ec2:CreateNetworkInterface", *subnets, f"{EC2}:security-group/sg-1"),
        allowed(
            "ec2:CreateNetworkInterfacePermission ec2:DeleteNetworkInterface "
            "ec2:DeleteNetworkInterfacePermission",
            "*",
            StringEquals={"ec2:ResourceTag/BedrockManaged": "true"},
            ArnEquals={"ec2:Subnet": subnets, "ec2:ResourceTag/BedrockModelCustomizationJobArn": jobs},
        ),
        {
            **allowed("ec2:CreateTags", f"{EC2}:network-interface/*"),
            "conditions": {
                "StringEquals": {"ec2:CreateAction": "CreateNetworkInterface"},
                "ForAllValues:StringEquals": {
                    "aws:TagKeys": ["BedrockManaged", "BedrockModelCustomizationJobArn"]
                },
            },
        },
    ]


@pytest.mark.parametrize(
    ("subnets", "groups", "problem"),
    [
        (17, 1, "17 subnet_ids; allowed are 1 to 16"),
        (0, 1, "0 subnet_ids; allowed are 1 to 16"),
        (1, 6, "6 security_group_ids; allowed are 1 to 5"),
        (1, 0, "0 security_group_ids; allowed are 1 to 5"),
    ],
)
def test_a_network_beyond_bedrocks_limits_is_refused(subnets: int, groups: int, problem: str) -> None:
    """Case T9."""
    VpcConfig(subnet_ids=["s"] * 16, security_group_ids=["g"] * 5)
    with pytest.raises(ValueError, match=problem):
        VpcConfig(subnet_ids=["s"] * subnets, security_group_ids=["g"] * groups)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"teacher": None}, "distillation needs a teacher"),
        (
            {"method": "fine_tuning", "max_response_length": None},
            "teacher: fine_tuning trains on the answers",
        ),
        ({"method": "fine_tuning", "teacher": None}, "max_response_length: fine_tuning trains"),
        ({"method": "DISTILLATION"}, "method 'DISTILLATION': allowed are 'distillation' and 'fine_tuning'"),
        ({"hyperparameters": {"epochCount": "2"}}, "no hyperparameters for distillation"),
        ({"training_key": "s3://other/training.jsonl"}, "give the key in the bucket, not a URI"),
        ({"training_key": "dt=2026/training.jsonl"}, "Bedrock doesn't accept the S3 location"),
        ({"training_key": "datasets//training.jsonl"}, "Bedrock doesn't accept the S3 location"),
        ({"training_key": "d/" + "x" * 1024}, "Bedrock doesn't accept the S3 location"),
        ({"validators": ["a b.jsonl"]}, "Bedrock doesn't accept the S3 location"),
        ({"validators": ["s3://B/x"]}, "Bedrock doesn't accept the S3 location 's3://B/x'"),
        ({"teacher": f"arn:aws:bedrock:us-east-1::foundation-model/{TEACHER}"}, "give its id as plain text"),
        ({"student": f"arn:aws:bedrock:us-east-1::foundation-model/{STUDENT}"}, "give its id as plain text"),
        ({"teacher": "eu.amazon.nova-pro-v1:0"}, "only us. profiles are supported"),
        ({"owner": "n" * 49}, "Choose another owner, of 48 characters at most"),
        ({"owner": "under_score"}, "it doesn't match"),
        ({"owner": "two--hyphens"}, "it doesn't match"),
        ({"digest": "0123456789AB"}, "digest '0123456789AB': allowed are 12 digits of 0-9a-f"),
        ({"digest": "0123"}, "digest '0123'"),
    ],
)
def test_what_bedrock_would_refuse_is_refused_at_synthesis(
    bucket: s3.Bucket, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=r"^search/Job: ") as caught:
        declared(bucket, **changes)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"uri": "logs/bedrock/"}, "allowed is a folder"),
        ({"uri": "s3://logs/bedrock"}, "allowed is a folder"),
        ({"uri": "s3://logs/bedrock/", "query": "Query:"}, "must contain {query} once"),
        ({"uri": "s3://logs/bedrock/", "query": "{query} or {query}"}, "must contain {query} once"),
    ],
)
def test_logs_that_are_no_folder_or_have_no_query_are_refused(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        InvocationLogs(**given)


def test_the_longest_owner_leaves_room_for_nine_attempts(bucket: s3.Bucket) -> None:
    assert len(declared(bucket, owner="n" * 48).job_name) == 61


def test_the_digest_of_an_example_stays(bucket: s3.Bucket) -> None:
    """A change here starts, and charges for, every deployed job again."""
    assert declared(bucket).digest == "6adef3b7194e"


@pytest.mark.parametrize(
    "changes",
    [
        {"training_key": "datasets/2026-12/training.jsonl"},
        {"teacher": "amazon.nova-pro-v1:0"},
        {"student": "amazon.nova-lite-v1:0:300k"},
        {"max_response_length": 999},
        {"nonce": "again"},
        {"validators": ["validation.jsonl"]},
        {"method": "fine_tuning", "teacher": None, "max_response_length": None},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_decides_the_model_changes_the_digest(bucket: s3.Bucket, changes: dict[str, Any]) -> None:
    assert declared(bucket, "Other", **changes).digest != declared(bucket).digest


def test_hyperparameters_change_the_digest_and_their_order_does_not(bucket: s3.Bucket) -> None:
    values = [{}, {"epochCount": "2", "learningRate": "0.1"}, {"learningRate": "0.1", "epochCount": "2"}]
    none, one, other = (
        tuned(bucket, construct_id=f"Job{number}", hyperparameters=value).digest
        for number, value in enumerate(values)
    )
    assert none != one == other


def test_whether_there_is_a_model_key_changes_the_digest_and_which_one_does_not(
    stack: cdk.Stack, bucket: s3.Bucket
) -> None:
    """Case T6."""
    keys = [None, kms.Key(stack, "One"), kms.Key(stack, "Two")]
    none, one, two = (declared(bucket, f"Job{i}", model_key=key).digest for i, key in enumerate(keys))
    assert none != one == two


def test_options_that_do_not_change_the_model_keep_the_digest(stack: cdk.Stack, bucket: s3.Bucket) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"owner": "others"},
        {"tags": {"team": "search"}},
        {"allow_legacy": True},
        {"retention": RETAIN.model_copy(update={"models": "delete"})},
        {"hosting": Hosting(log_days=7, vpc=NETWORK, key=kms.Key(stack, "RuntimeKey"))},
        {"vpc": NETWORK},
    ]
    digests = {declared(bucket, f"Job{i}", **change).digest for i, change in enumerate(changes)}
    digests.add(declared(s3.Bucket(stack, "OtherBucket"), "InOtherBucket").digest)
    assert len(digests) == 1


@pytest.mark.parametrize("name", ["training_key", "validators", "nonce"])
def test_a_digest_of_what_is_known_at_deployment_only_has_to_be_given(
    stack: cdk.Stack, bucket: s3.Bucket, name: str
) -> None:
    token = cdk.CfnParameter(stack, "Late").value_as_string
    value: Any = [token] if name == "validators" else token
    with pytest.raises(ValueError, match=rf"search/Job: {name} is known only at deployment.*pass digest"):
        declared(bucket, **{name: value})


def test_a_number_known_at_deployment_only_is_noticed(stack: cdk.Stack, bucket: s3.Bucket) -> None:
    late = cdk.CfnParameter(stack, "Late", type="Number").value_as_number
    with pytest.raises(ValueError, match=r"max_response_length\n  Input should be a valid integer"):
        declared(bucket, max_response_length=late)


def test_a_key_that_is_known_at_deployment_only_is_the_one_that_may_be_read(
    stack: cdk.Stack, bucket: s3.Bucket
) -> None:
    late = cdk.CfnParameter(stack, "Late").value_as_string
    tuned(bucket, training_key=f"{late}/training.jsonl", digest="0123456789ab")

    assert statements(stack, "JobJobRole")[0]["resources"][0].endswith("/<>/training.jsonl")


def test_an_owner_that_is_known_at_deployment_only_is_refused(stack: cdk.Stack, bucket: s3.Bucket) -> None:
    with pytest.raises(ValueError, match="give them as plain text"):
        declared(bucket, owner=cdk.CfnParameter(stack, "Late").value_as_string)


def test_the_jobs_own_handler_may_only_stop_and_delete_what_is_its_owners(
    stack: cdk.Stack, bucket: s3.Bucket
) -> None:
    """Case B14."""
    declared(bucket)

    ending = {"bedrock:StopModelCustomizationJob", "bedrock:DeleteCustomModel", "bedrock:UntagResource"}
    found = [each for each in statements(stack, "JobRole") if ending & set(each["actions"])]
    assert {action for each in found for action in each["actions"]} >= ending
    owned = {"StringEquals": {f"aws:ResourceTag/{OWNER_TAG}": "search"}}
    assert all(each["conditions"] == owned for each in found)


@pytest.mark.parametrize(
    ("arn", "action", "kind"),
    [
        (JOB_ARN, "GetModelCustomizationJob", "Job"),
        (MODEL_ARN, "GetCustomModel", "Model"),
        (THROUGHPUT_ARN, "GetProvisionedModelThroughput", "Throughput"),
    ],
)
def test_existing_resource_is_looked_up_with_one_permission(
    stack: cdk.Stack, arn: str, action: str, kind: str
) -> None:
    """Case T3."""
    makers: Mapping[str, Callable[[cdk.Stack, str, str], object]] = {
        "Job": DistillationJob.from_job_arn,
        "Model": DistillationJob.from_model_arn,
        "Throughput": ExistingThroughput,
    }
    makers[kind](stack, "Theirs", arn)

    found = properties(stack, f"Custom::BedrockExisting{kind}")
    assert found == {"ServiceToken": found["ServiceToken"], "Arn": arn, "Nonce": ""}
    bedrock = [
        statement
        for statement in statements(stack, "TheirsRole")
        if any(name.startswith("bedrock:") for name in statement["actions"])
    ]
    assert bedrock == [allowed(f"bedrock:{action}", arn)]


def test_existing_job_or_model_is_the_source_of_a_release(stack: cdk.Stack) -> None:
    """Case T3."""
    job = DistillationJob.from_job_arn(stack, "Job", JOB_ARN)
    model = DistillationJob.from_model_arn(stack, "Model", MODEL_ARN)

    assert (job.source, job.student) == (JOB_ARN, STUDENT)
    assert (model.source, model.student) == (MODEL_ARN, STUDENT)
    assert (job.digest, model.digest) == ("14ac6739d627", "7397a5489f76")
    assert plain(stack.resolve(job.model_arn)) == "<Job.ModelArn>"
    assert plain(stack.resolve(model.model_arn)) == "<Model.ModelArn>"


def test_another_things_arn_is_refused(stack: cdk.Stack) -> None:
    """Case T3."""
    with pytest.raises(ValueError, match=r"search/A: .* is not the ARN of a customization job"):
        DistillationJob.from_job_arn(stack, "A", MODEL_ARN)
    with pytest.raises(ValueError, match=r"search/B: .* is not the ARN of a custom model"):
        DistillationJob.from_model_arn(stack, "B", JOB_ARN)
    with pytest.raises(ValueError, match=r"search/C: .* is not the ARN of a provisioned throughput"):
        ExistingThroughput(stack, "C", "search-1mu")
    with pytest.raises(ValueError, match="as plain text"):
        DistillationJob.from_job_arn(stack, "D", cdk.CfnParameter(stack, "Late").value_as_string)


def test_all_options_together_pass_cdk_nag(tmp_path: Path) -> None:
    app = cdk.App(outdir=str(tmp_path), analytics_reporting=False)
    cdk.Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))
    stack = cdk.Stack(app, "search")
    theirs = s3.Bucket.from_bucket_name(stack, "Theirs", "their-bucket")
    declared(theirs, validators=["v/a.jsonl", "s3://others/b.jsonl"], vpc=NETWORK)
    DistillationJob.from_job_arn(stack, "ExistingJob", JOB_ARN)
    DistillationJob.from_model_arn(stack, "ExistingModel", MODEL_ARN)
    ExistingThroughput(stack, "ExistingThroughput", THROUGHPUT_ARN)

    # A finding without an acknowledgement raises.
    app.synth()

    report = json.loads((tmp_path / "validation-report.json").read_text(encoding="utf-8"))
    assert "AwsSolutions" in {plugin["pluginName"] for plugin in report["pluginReports"]}
    assert [plugin["violations"] for plugin in report["pluginReports"]] == [[]]
