"""The Release construct in another team's stack, with a bucket and a job."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import Any

import aws_cdk as cdk
import pytest
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Template
from cdk_nag import AwsSolutionsChecks
from constructs import Construct

from cdk_distilled_router import DistillationJob, ExistingModel, Release, ReleaseProps, ReleaseWait
from cdk_distilled_router.common.grants import Permission
from cdk_distilled_router.props import EvaluationProps, GateProps, RolloutProps
from cdk_distilled_router.release.context import GATE, ROLLOUT, TIMING, ReleaseSource
from distilled_router.release.gate import Gate
from distilled_router.release.rollout import Rollout
from stacks.application import PACKS
from stacks.settings import load
from tests.stacks import declaring
from tests.stacks.assembly import unhashed, walk

STUDENT = "amazon.nova-micro-v1:0:128k"
MODEL = f"arn:aws:bedrock:us-east-1:111122223333:custom-model/{STUDENT}/0a1b2c3d4e5f"
Make = Callable[[cdk.Stack, s3.IBucket], Release]


@dataclass(frozen=True)
class Source:
    """A source of a release's model that is not a construct."""

    digest: str = "0123456789ab"
    student: str = STUDENT
    source: str = "search-0123456789ab"
    role: iam.IRole | None = None
    labelling_machine_arn: str = ""
    training_key: str = ""
    has_model_key: bool = False

    def reading_training(self, scope: Construct) -> list[Permission]:
        del scope
        return []


def bucket_of(stack: cdk.Stack, key: kms.IKey | None = None) -> s3.IBucket:
    arn = "arn:aws:s3:::search-data"
    return s3.Bucket.from_bucket_attributes(stack, "Data", bucket_arn=arn, encryption_key=key)


def job_of(stack: cdk.Stack, bucket: s3.IBucket) -> DistillationJob:
    return declaring.job(
        stack,
        "Job",
        owner="search",
        bucket=bucket,
        student=STUDENT,
        teacher="us.amazon.nova-pro-v1:0",
        training_key="datasets/training.jsonl",
    )


def release_of(
    stack: cdk.Stack,
    bucket: s3.IBucket,
    job: ReleaseSource = Source(),
    holdout_key: str = "datasets/holdout.jsonl",
    **props: Any,
) -> Release:
    return Release(
        stack,
        "Release",
        owner="search",
        job=job,
        bucket=bucket,
        holdout_key=holdout_key,
        props=ReleaseProps(**props),
    )


class Made:
    """A synthesized stack with a release."""

    def __init__(self, make: Make, *, keyed: bool = False) -> None:
        app = cdk.App(analytics_reporting=False)
        # Without a key, topic and table have further findings, which are for the app to acknowledge.
        packs = PACKS.values() if keyed else [AwsSolutionsChecks]
        cdk.Validations.of(app).add_plugins(*(pack(app, verbose=True) for pack in packs))
        self.stack = cdk.Stack(app, "search")
        key = kms.Key(self.stack, "Key", enable_key_rotation=True) if keyed else None
        self.release = make(self.stack, bucket_of(self.stack, key))
        self._app = app

    @cached_property
    def template(self) -> Mapping[str, Any]:
        """Return the template. Raise for a finding of cdk-nag."""
        template: Mapping[str, Any] = Template.from_stack(self.stack).to_json()
        return template

    def resources(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the properties of all resources of a type."""
        found = self.template["Resources"].values()
        return [resource.get("Properties", {}) for resource in found if resource["Type"] == kind]

    def statements(self, role: str) -> Iterator[Mapping[str, Any]]:
        """Yield the statements of a role, given its name without the CDK's hash."""
        for policy in self.resources("AWS::IAM::Policy"):
            names = {unhashed(each["Ref"]) for each in policy["Roles"]}
            if f"Release{role}" in names:
                yield from policy["PolicyDocument"]["Statement"]

    def allowed(self, role: str, action: str) -> list[Mapping[str, Any]]:
        """Return the statements that allow a role an action."""
        return [s for s in self.statements(role) if action in _several(s["Action"])]


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def text(value: Any) -> str:
    """Return a value as text, with joined parts and references."""
    return " ".join(str(part) for part in walk(value) if isinstance(part, str))


@pytest.fixture(scope="module")
def plain() -> Made:
    """Return a release with four arguments, a bucket without a key, and a job in the same stack."""
    return Made(lambda stack, bucket: release_of(stack, bucket, job=job_of(stack, bucket)))


@pytest.fixture(scope="module")
def keyed() -> Made:
    """Return a release with a bucket with a key, an adopted model, and a hold-out set in no folder."""
    return Made(
        lambda stack, bucket: release_of(
            stack, bucket, job=ExistingModel(stack, "Model", MODEL), holdout_key="holdout.jsonl"
        ),
        keyed=True,
    )


@pytest.fixture(scope="module")
def eager() -> Made:
    """Return a release that stops stalled jobs and creates failed ones again."""

    def make(stack: cdk.Stack, bucket: s3.IBucket) -> Release:
        job = job_of(stack, bucket)
        timing = TIMING.model_copy(update={"stop_stalled": True, "retry_internal_errors": 2})
        eager = release_of(stack, bucket, job=job, timing=timing)
        ReleaseWait(stack, "Wait", release=eager, hours=0.01, longest_window_seconds=20)
        return eager

    return Made(make)


def test_four_arguments_are_enough(plain: Made) -> None:
    (properties,) = plain.resources("Custom::BedrockRelease")
    assert properties["Owner"] == "search"
    assert properties["Source"] == f"search-{properties['Digest']}"
    machines = plain.resources("AWS::StepFunctions::StateMachine")
    assert "search-release" in [machine["StateMachineName"] for machine in machines]


def test_the_release_begins_after_its_job_and_ends_before_it(plain: Made) -> None:
    """CloudFormation deletes in the reverse order of DependsOn."""
    resources = plain.template["Resources"]
    (release,) = [each for each in resources.values() if each["Type"] == "Custom::BedrockRelease"]
    (job,) = [name for name, each in resources.items() if each["Type"] == "Custom::BedrockDistillationJob"]
    assert job in release["DependsOn"]


def test_without_a_key_aws_encrypts_and_no_role_needs_a_permission_for_it(plain: Made) -> None:
    (topic,) = plain.resources("AWS::SNS::Topic")
    for table in plain.resources("AWS::DynamoDB::Table"):
        assert table["SSESpecification"] == {"SSEEnabled": False}
    assert "KmsMasterKeyId" not in topic
    assert "kms:" not in text(plain.template)


def test_a_judge_needs_no_key_and_may_be_named_without_a_profile() -> None:
    evaluation = EvaluationProps(judge="amazon.nova-pro-v1:0", judge_hours=0.5)
    made = Made(lambda stack, bucket: release_of(stack, bucket, evaluation=evaluation))
    assert "kms:" not in text(made.template)
    (create,) = made.allowed("GradeAnswersRole", "bedrock:CreateEvaluationJob")
    assert "foundation-model/amazon.nova-pro-v1:0" in text(create["Resource"])
    (graded,) = [
        variables
        for function in made.resources("AWS::Lambda::Function")
        if "JUDGE_HOURS" in (variables := function.get("Environment", {}).get("Variables", {}))
    ]
    assert (graded["JUDGE"], graded["JUDGE_HOURS"]) == ("amazon.nova-pro-v1:0", "0.5")


def test_the_state_machine_outlasts_its_longest_steps() -> None:
    """Step Functions ends an execution at its timeout, and no Catch sees it: a candidate would never bake."""
    made = Made(
        lambda stack, bucket: release_of(
            stack,
            bucket,
            evaluation=EvaluationProps(judge="amazon.nova-pro-v1:0", judge_hours=24, outage_minutes=720),
            rollout=ROLLOUT.model_copy(update={"dwell_seconds": 86_400, "bake_seconds": 1_209_600}),
        )
    )
    machines = made.resources("AWS::StepFunctions::StateMachine")
    (machine,) = [each for each in machines if each["StateMachineName"] == "search-release"]
    (seconds,) = re.findall(r'"TimeoutSeconds":(\d+)', text(machine["DefinitionString"]))
    rollout = (len(ROLLOUT.steps) + 14) * 86_400
    assert int(seconds) > TIMING.timeout_hours * 3_600 + 12 * 3_600 + 24 * 3_600 + rollout


def test_a_minimum_grade_without_a_judge_is_refused() -> None:
    gate = GATE.model_copy(update={"minimum_judge_score": 3.0})
    with pytest.raises(ValueError, match=r"minimum_judge_score needs evaluation\.judge"):
        Made(lambda stack, bucket: release_of(stack, bucket, gate=gate))


def test_limits_of_slices_without_slices_are_refused() -> None:
    gate = GATE.model_copy(update={"minimum_slice_accuracy": {"injections": 0.8}})
    with pytest.raises(ValueError, match=r"minimum_slice_accuracy needs evaluation\.slice_queries"):
        Made(
            lambda stack, bucket: release_of(
                stack, bucket, gate=gate, evaluation=EvaluationProps(slice_queries=0)
            )
        )


def test_report_is_told_environment_and_models() -> None:
    def told(**props: Any) -> Any:
        made = Made(lambda stack, bucket: release_of(stack, bucket, job_of(stack, bucket), **props))
        functions = made.resources("AWS::Lambda::Function")
        (found,) = [one for one in functions if one.get("Handler") == "evaluation.handler.score_and_gate"]
        return found["Environment"]["Variables"]

    variables = told(environment="dev")
    assert (variables["ENVIRONMENT"], variables["STUDENT"]) == ("dev", STUDENT)
    assert variables["TEACHER"] == "us.amazon.nova-pro-v1:0"
    assert "ENVIRONMENT" not in told()


def test_its_own_table_can_be_restored_and_goes_with_it(plain: Made) -> None:
    tables = [each for each in plain.template["Resources"].values() if each["Type"] == "AWS::DynamoDB::Table"]
    assert len(tables) == 2
    for table in tables:
        recovery = table["Properties"]["PointInTimeRecoverySpecification"]
        assert recovery == {"PointInTimeRecoveryEnabled": True}
        assert table["DeletionPolicy"] == "Delete"
    assert plain.release.table.table_name


def test_its_own_topic_takes_tls_only(plain: Made) -> None:
    (policy,) = plain.resources("AWS::SNS::TopicPolicy")
    (denial,) = policy["PolicyDocument"]["Statement"]
    assert (denial["Effect"], denial["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def test_a_buckets_key_encrypts_table_and_topic_too(keyed: Made) -> None:
    (topic,) = keyed.resources("AWS::SNS::Topic")
    key = keyed.stack.resolve(keyed.release.key.key_arn) if keyed.release.key else None
    specification = {"SSEEnabled": True, "SSEType": "KMS", "KMSMasterKeyId": key}
    assert specification in [table["SSESpecification"] for table in keyed.resources("AWS::DynamoDB::Table")]
    assert topic["KmsMasterKeyId"] == key
    for role in ("CandidateRole", "EvaluationRole", "RolloutRole", "SweeperRole", "StateMachineRole"):
        uses = keyed.allowed(role, "kms:Decrypt")
        assert uses, role
        for use in uses:
            assert use["Resource"] == key, role
            assert "kms:ViaService" in use["Condition"]["StringEquals"], role


def test_an_adopted_model_is_named_by_its_arn(keyed: Made) -> None:
    (properties,) = keyed.resources("Custom::BedrockRelease")
    assert properties["Source"] == MODEL


def test_a_holdout_set_in_no_folder_is_read_alone(plain: Made, keyed: Made) -> None:
    for made, end in ((plain, "/datasets/*"), (keyed, "/holdout.jsonl")):
        reading, own = made.allowed("EvaluationRole", "s3:GetObject")
        assert text(reading["Resource"]).endswith(end)
        assert text(own["Resource"]).endswith("/releases/search/*")


def test_a_rise_may_ask_releases_and_read_the_holdout_set_and_write_nothing_in_the_bucket(
    plain: Made,
) -> None:
    (asked,) = plain.allowed("RolloutRole", "bedrock:InvokeModel")
    assert [text(arn).rpartition(":")[2] for arn in asked["Resource"]] == [
        "custom-model-deployment/*",
        "provisioned-model/*",
    ]
    (reading,) = plain.allowed("RolloutRole", "s3:GetObject")
    assert text(reading["Resource"]).endswith("/datasets/*")
    actions = {action for s in plain.statements("RolloutRole") for action in _several(s["Action"])}
    assert not [action for action in actions if action.startswith(("s3:Put", "s3:Delete"))]


def test_nothing_is_stopped_or_made_unless_it_is_set(plain: Made) -> None:
    actions = {action for s in plain.statements("CandidateRole") for action in _several(s["Action"])}
    assert not actions & {
        "bedrock:CreateModelCustomizationJob",
        "bedrock:StopModelCustomizationJob",
        "iam:PassRole",
    }


def test_what_stalls_is_stopped_only_with_the_owners_tag(eager: Made) -> None:
    (stop,) = eager.allowed("CandidateRole", "bedrock:StopModelCustomizationJob")
    assert text(stop["Resource"]).endswith(f":model-customization-job/{STUDENT}/*")
    assert stop["Condition"] == {"StringEquals": {"aws:ResourceTag/distilled-router:owner": "search"}}


def test_a_job_is_made_again_only_with_the_owners_tag_and_the_jobs_own_role(eager: Made) -> None:
    tagged = {"StringEquals": {"aws:RequestTag/distilled-router:owner": "search"}}
    (create,) = eager.allowed("CandidateRole", "bedrock:CreateModelCustomizationJob")
    assert create["Condition"] == tagged
    student, model, job = (text(each).partition(":bedrock:")[2] for each in create["Resource"])
    assert student.endswith(f"::foundation-model/{STUDENT}")
    assert model.endswith(f":custom-model/{STUDENT}/*")
    assert job.endswith(f":model-customization-job/{STUDENT}/*")
    tags = [s["Condition"] for s in eager.allowed("CandidateRole", "bedrock:TagResource")]
    not_anothers = {"StringEqualsIfExists": {"aws:ResourceTag/distilled-router:owner": "search"}}
    assert tags.count(tagged | not_anothers) == 2  # of jobs with their models, and of deployments
    (hand_over,) = eager.allowed("CandidateRole", "iam:PassRole")
    assert hand_over["Condition"] == {"StringEquals": {"iam:PassedToService": "bedrock.amazonaws.com"}}
    (role,) = _several(hand_over["Resource"])
    assert unhashed(role["Fn::GetAtt"][0]) == "JobJobRole"
    assert not [s for other in ("ReleaseRole", "SweeperRole") for s in eager.allowed(other, "iam:PassRole")]


def test_a_models_tags_are_changed_only_with_the_owners(plain: Made) -> None:
    for action in ("bedrock:TagResource", "bedrock:UntagResource"):
        (change,) = [
            s for s in plain.allowed("CandidateRole", action) if ":custom-model/" in text(s["Resource"])
        ]
        assert change["Condition"]["StringEquals"] == {"aws:ResourceTag/distilled-router:owner": "search"}


def test_a_wait_can_have_windows_of_seconds(eager: Made) -> None:
    conditions = eager.resources("AWS::CloudFormation::WaitCondition")
    assert [condition["Timeout"] for condition in conditions] == ["20", "16"]
    windows = eager.resources("Custom::BedrockReleaseWait")
    assert [window["Last"] for window in windows] == [False, True]
    (tick,) = [
        function["Environment"]["Variables"]
        for function in eager.resources("AWS::Lambda::Function")
        if function["Handler"] == "release_wait.handler.tick"
    ]
    assert tick["MARGIN_SECONDS"] == "10"


def test_the_defaults_are_those_of_the_production_example() -> None:
    settings = load("prod")
    assert settings.gate == GATE
    assert settings.rollout == ROLLOUT


def test_functions_read_the_settings_by_the_names_of_the_properties() -> None:
    """Functions have no pydantic, so they use small classes with the same fields and defaults, if any."""
    assert Gate(**GATE.to_function()) == Gate(**GATE.model_dump())
    assert Rollout.of(ROLLOUT.to_function()).steps == tuple(ROLLOUT.steps)
    for kind, props, left_out in ((Gate, GateProps, set()), (Rollout, RolloutProps, {"keep_releases"})):
        theirs = {name: field for name, field in props.model_fields.items() if name not in left_out}
        mine = {field.name: field for field in fields(kind)}
        assert mine.keys() == theirs.keys()
        for name, field in theirs.items():
            assert mine[name].default in (MISSING, field.default), name


@pytest.mark.parametrize(
    ("job", "timing", "problem"),
    [
        (Source(source=MODEL), {"retry_internal_errors": 1}, rf"{STUDENT}.* is adopted"),
        (Source(has_model_key=True), {}, r"the model has a customer managed key"),
    ],
)
def test_what_cannot_work_together_is_refused(job: Source, timing: Mapping[str, Any], problem: str) -> None:
    stack = cdk.Stack(cdk.App(), "search")
    with pytest.raises(ValueError, match=f"Release search: .*{problem}"):
        release_of(stack, bucket_of(stack), job, timing=TIMING.model_copy(update=timing))


@pytest.mark.parametrize("retries", [0, 1])
def test_of_a_job_in_another_stack_nothing_crosses_but_its_role_where_it_is_needed(retries: int) -> None:
    """CloudFormation can't change an export that is imported, so exports must not contain the digest."""
    app = cdk.App(analytics_reporting=False)
    jobs, releases = cdk.Stack(app, "jobs"), cdk.Stack(app, "releases")
    job = job_of(jobs, bucket_of(jobs))
    timing = TIMING.model_copy(update={"retry_internal_errors": retries})
    release_of(releases, bucket_of(releases), job=job, timing=timing)
    exported = [
        output["Value"]["Fn::GetAtt"]
        for output in Template.from_stack(jobs).to_json().get("Outputs", {}).values()
    ]
    assert [(unhashed(name), attribute) for name, attribute in exported] == [("JobJobRole", "Arn")] * retries
    assert jobs in releases.dependencies
