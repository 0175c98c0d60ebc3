"""The checks of an account: what each finds, what a refused call becomes, and that all of them only read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from distilled_router.bedrock import evaluation_jobs
from distilled_router.bedrock.naming import LABELS_TAG, OWNER_TAG, bedrock_tags
from distilled_router.bedrock.ownership import Claimant
from distilled_router.head import artifact, features
from distilled_router.release.route import Share
from distilled_router.release.table import DEPLOYING, EVALUATING, FAILED, LIVE, RETIRED, SUPERSEDED
from distilled_router.task.task import Task
from labelling import batch
from operate import deployed as found_releases
from operate import doctor
from operate.__main__ import main
from operate.checkup import declared, place
from operate.checkup.finding import READS, Finding
from operate.console import Terminal
from operate.environment import Environment
from stacks.settings import PROJECT, Problem, Settings, SettingsError, load
from tests.unit.hostile import HOSTILE, controls
from tests.unit.local.bedrock.scenes import HOUR
from tests.unit.release_world import OWNER, A, B, C, World, live_share

SHARED = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
AVAILABLE = {
    "agreementAvailability": {"status": "AVAILABLE"},
    "authorizationStatus": "AUTHORIZED",
    "entitlementAvailability": "AVAILABLE",
    "regionAvailability": "AVAILABLE",
}
NAMES = [f"{OWNER}-{name}" for name in ("data", "distillation", "release", "router", "operations")]
NONE_LEFT = "none left behind"


def stack_id(name: str) -> str:
    return f"arn:aws:cloudformation:us-east-1:000000000000:stack/{name}/1"


RELEASE = Claimant(stack_id(f"{OWNER}-release"), "Release6218179A")
JOB = Claimant(stack_id(f"{OWNER}-distillation"), "DistillationJob1")
GONE = Claimant(stack_id("someone-else"), "Release1")

type Answer = Mapping[str, Any] | Callable[[Mapping[str, Any]], Mapping[str, Any] | None]


def refusal(code: str, message: str = "", status: int = 400) -> dict[str, Any]:
    return {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}


def denial(permission: str = "") -> dict[str, Any]:
    who = "User: arn:aws:sts::000000000000:assumed-role/Reader/me is not authorized to perform: "
    return refusal("AccessDeniedException", f"{who}{permission} on resource: *" if permission else "Denied")


class Account:
    """Clients like those of `operate.aws.Aws`.

    `answers` are given instead of a call of that name; one that returns None lets the call be made.
    """

    def __init__(self, clients: Mapping[str, Any]) -> None:
        self.clients = clients
        self.answers: dict[str, Answer] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        for client in clients.values():
            meta = getattr(client, "meta", None)
            events = (getattr(meta, "client", None) or client).meta.events
            events.register("before-parameter-build", self._record, unique_id="record")
            events.register("before-call", self._answer, unique_id="answer")

    def __getattr__(self, name: str) -> Any:
        return self.clients[name]

    def _record(self, *, params: dict[str, Any], model: Any, **_: Any) -> None:
        self.calls.append((model.name, dict(params)))

    def _answer(self, *, model: Any, **_: Any) -> Any:
        if model.name not in self.answers:
            return None
        answer = self.answers[model.name]
        given = answer(self.calls[-1][1]) if callable(answer) else answer
        if given is None:
            return None
        parsed = dict(given)
        return SimpleNamespace(status_code=400 if "Error" in parsed else 200), parsed


@pytest.fixture(scope="module")
def clients(stage: Any, emulator: str) -> dict[str, Any]:
    server, _, _ = stage
    nowhere = {"endpoint_url": "http://127.0.0.1:9", **SHARED}
    session: Any = boto3.Session()
    return {
        "bedrock": server.client("bedrock", attempts=1),
        "cloudformation": session.client("cloudformation", **nowhere),
        "dynamodb": session.resource("dynamodb", endpoint_url=emulator, **SHARED),
        "functions": session.client("lambda", **nowhere),
        "parameters": session.client("ssm", **nowhere),
        "quotas": session.client("service-quotas", **nowhere),
        "s3": session.client("s3", endpoint_url=emulator, **SHARED),
        "stepfunctions": session.client("stepfunctions", endpoint_url=emulator, **SHARED),
        "sts": session.client("sts", **nowhere),
    }


@pytest.fixture
def aws_account(clients: dict[str, Any], world: World) -> Iterator[Account]:
    """Return an account in which all is well, with no release yet."""
    made = Account(clients)
    table = {"ResourceType": "AWS::DynamoDB::Table", "PhysicalResourceId": world.name}
    summary = {"LogicalResourceId": "Releases", "ResourceStatus": "CREATE_COMPLETE", **table}
    made.answers = {
        "GetCallerIdentity": {"Account": "444455556666", "Arn": "arn:aws:sts::444455556666:role/me"},
        "GetParameter": {"Parameter": {"Value": "33"}},
        "GetAccountSettings": concurrency(1000, 1000),
        "DescribeStacks": stacks(),
        "ListStackResources": {"StackResourceSummaries": [summary]},
        "GetFoundationModelAvailability": AVAILABLE,
    }
    yield made
    for client in clients.values():
        meta = getattr(client, "meta", None)
        events = (getattr(meta, "client", None) or client).meta.events
        events.unregister("before-parameter-build", unique_id="record")
        events.unregister("before-call", unique_id="answer")


def concurrency(limit: int, unreserved: int) -> Answer:
    return {"AccountLimit": {"ConcurrentExecutions": limit, "UnreservedConcurrentExecutions": unreserved}}


def stacks(**states: Any) -> Answer:
    """Answer DescribeStacks, by name or ARN; `states` by the last part of the name: a status, or None."""

    def answer(params: Mapping[str, Any]) -> Mapping[str, Any]:
        asked = params["StackName"]
        name = asked.split("/")[1] if "/" in asked else asked
        state = states.get(name.rpartition("-")[2], "CREATE_COMPLETE") if name in NAMES else None
        if state is None:
            return refusal("ValidationError", f"Stack with id {asked} does not exist")
        described = state if isinstance(state, dict) else {"StackStatus": state}
        return {"Stacks": [{"StackName": name, **described}]}

    return answer


def settings(**changes: Any) -> Settings:
    """Return the settings of dev, for the owner of the tests' releases."""
    return load("dev").model_copy(update={"name": "router", "environment": "test", **changes})


def part(name: str, **changes: Any) -> dict[str, Any]:
    """Return a table of the settings with changed keys."""
    return {name: getattr(load("dev"), name).model_copy(update=changes)}


@dataclass(frozen=True)
class Declared:
    """What settings declare: by `distillation.nonce` a digest, and by `dataset.holdout` an earlier one."""

    digest: str
    earlier: str
    holdout_setting = "0" * 64

    @classmethod
    def of(cls, settings: Settings) -> Declared:
        if settings.distillation.nonce == "broken":
            raise SettingsError([Problem("environments/test.toml", "dataset.training", "none", "a file")])
        return cls(settings.distillation.nonce or A, settings.dataset.holdout or "")

    @property
    def job_name(self) -> str:
        return f"{OWNER}-{self.digest}"

    @property
    def earlier_job_name(self) -> str:
        return f"{OWNER}-{self.earlier}"


@pytest.fixture
def examined(
    aws_account: Account, world: World, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Finding]]:
    real = found_releases.deployed

    def at_the_stand_ins_time(at: Environment) -> Any:
        return replace(real(at), now=lambda: world.now)

    monkeypatch.setattr(doctor, "deployed", at_the_stand_ins_time)
    monkeypatch.setattr(declared, "Identity", Declared)

    def examine(*, local: bool = False, **changes: Any) -> list[Finding]:
        at = Environment("test", settings(**changes), {"AWS_ENDPOINT_URL": "x"} if local else {})
        at.__dict__["aws"] = aws_account
        return list(doctor.examine(at))

    return examine


Examined = Callable[..., list[Finding]]


def of(findings: list[Finding], check: str) -> Finding:
    """Return the one finding of a check."""
    found = [finding for finding in findings if finding.check == check]
    assert len(found) == 1, found
    return found[0]


def levels(findings: list[Finding]) -> set[str]:
    return {finding.level for finding in findings}


def serve(world: World, digest: str = A, **fields: Any) -> str:
    """Let a release go live on its own deployment; return the deployment's ARN."""
    model = world.train(digest)
    world.claim(model, RELEASE)
    tags = RELEASE.tags(OWNER, request="r", digest=digest)
    endpoint = world.deploy_as(f"{OWNER}-{digest}", model, tags)
    world.begin(digest, state=LIVE, model_arn=model, endpoint=endpoint, **fields)
    world.settle(live_share(digest, endpoint))
    return endpoint


def head(threshold: float | None) -> bytes:
    """Return a head that knows one category."""
    labels = Task.load(PROJECT / "task").labels
    even = tuple(1 / len(labels) for _ in labels)
    rows = bytes([artifact.MIDDLE]) * features.BUCKETS * 2
    trained = artifact.Trained(labels=labels, categories=(even,), rows=rows, scale=1.0, longest=9, about={})
    return artifact.write(trained, threshold=threshold, about={})


# The model that a deployment would pay for


def declares(digest: str, earlier: str = "") -> dict[str, Any]:
    """Return settings with a digest, and one by an earlier rule."""
    return {**part("distillation", nonce=digest), **part("dataset", holdout=earlier)}


def test_model_that_has_a_job_is_not_paid_again(examined: Examined, world: World) -> None:
    assert "pays for its job" in of(examined(), "model").found
    assert levels([of(examined(), "model")]) == {"ok"}  # nothing is deployed yet
    world.start_job(A)
    assert of(examined(), "model") == Finding(
        "ok", "model", f"The settings declare {A}, which has a job: a deployment pays for none."
    )


def test_another_digest_is_told_before_it_is_paid_for(examined: Examined, world: World) -> None:
    world.start_job(A)
    found = of(examined(**declares(B, earlier=C)), "model")
    assert (found.level, found.found) == (
        "warning",
        f"The settings declare {B}: a deployment pays for its job.",
    )
    assert found.step.startswith("`make cost ENV=test` estimates it.")


@pytest.mark.parametrize("ended", [False, True])
def test_model_of_an_earlier_rule_is_told_with_what_keeps_it(
    examined: Examined, world: World, ended: bool
) -> None:
    world.train(A) if ended else world.start_job(A)
    found = of(examined(**declares(B, earlier=A)), "model")
    assert found.level == "problem"
    assert f"the model of {OWNER}-{A}" in found.found
    assert found.command == f'holdout_in_digest = "{"0" * 64}"'


def test_earlier_job_without_a_model_is_created_again(examined: Examined, world: World) -> None:
    name = world.start_job(A)
    world.bedrock.stop_model_customization_job(jobIdentifier=name)
    world.advance(HOUR)
    assert of(examined(**declares(B, earlier=A)), "model").level == "warning"


def test_settings_that_declare_no_model_are_a_problem(examined: Examined) -> None:
    found = of(examined(**declares("broken")), "model")
    assert (found.level, "dataset.training" in found.found) == ("problem", True)


# The whole


def test_account_without_a_problem_is_all_ok(examined: Examined, world: World) -> None:
    serve(world)
    found = examined(**part("head", mode="off"))
    assert levels(found) == {"ok"}
    assert of(found, "release").found == f"{A} is live."
    assert of(found, "deployments").found == f"1 needed, {NONE_LEFT}."
    assert of(found, "endpoint").found.endswith(" is Active.")
    assert of(found, "batch jobs").found == f"0 needed, {NONE_LEFT}."
    assert of(found, "stacks").found == "All 5 are deployed."


def test_every_call_of_every_check_reads(examined: Examined, aws_account: Account, world: World) -> None:
    """Also those of the checks that only some settings have. `READS` is what the documents name."""
    examined()  # without a route, its history is queried
    first = list(aws_account.calls)
    world.s3.put_object(Bucket=world.bucket, Key="h/head.bin", Body=head(0.1))
    named = {"head": "h/head.bin", "head_sha256": "0" * 64, "report": f"s3://{world.bucket}/report.html"}
    serve(world, execution=world.execution(A), **named)
    bought = {"model_units": 1, "hourly_price_usd": 1.0}
    world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=f"{OWNER}-1mu",
        modelUnits=1,
        modelId=world.train(B),
        tags=bedrock_tags(RELEASE.tags(OWNER, request="r")),
    )
    aws_account.answers["GetServiceQuota"] = {"Quota": {"Value": 1}}
    batch_jobs(aws_account, "labels-of-1")
    labelling(aws_account, "labels-of-1")
    aws_account.calls[:] = first  # without those of the scene
    server_calls = len(world.server.calls())
    examined(
        **part("head", mode="first"),
        **part("evaluation", judge="us.amazon.nova-pro-v1:0"),
        endpoint=endpoint(**bought),
    )
    world.settle(live_share(A, f"arn:aws:bedrock:us-east-1:{'0' * 12}:provisioned-model/0123456789ab"))
    examined()
    called = {name for name, _ in aws_account.calls}
    assert called == {name for names in READS.values() for name in names}
    assert all(name.startswith(("Get", "List", "Describe")) or name == "Scan" for name in called)
    made = {call["operation"] for call in world.server.calls()[server_calls:]}
    assert made <= set(READS["bedrock"])


def endpoint(**bought: Any) -> Any:
    text = {"kind": "provisioned", "provisioned": bought}
    return type(load("dev").endpoint).model_validate(text)


def test_reads_are_operations_of_their_services(clients: dict[str, Any]) -> None:
    known = {
        name
        for client in clients.values()
        for name in (getattr(client.meta, "client", None) or client).meta.service_model.operation_names
    }
    assert {name for names in READS.values() for name in names} <= known


@pytest.mark.parametrize(("level", "status"), [("problem", 1), ("warning", 0), ("skipped", 0), ("ok", 0)])
def test_exit_status_is_one_with_a_problem_only(level: Any, status: int) -> None:
    out = io.StringIO()
    assert doctor.show([Finding(level, "x", "Found.")], Terminal(file=out)) == status
    assert out.getvalue().startswith(f"{level:<9}x ")


def test_findings_are_counted_and_fit_80_columns() -> None:
    out = io.StringIO()
    text = "The bootstrap stack of the qualifier has a version that is too old for the templates. " * 3
    found = [Finding("problem", "bootstrap", text, "Run `make bootstrap ENV=dev`."), Finding("ok", "a", "b")]
    doctor.show(found, Terminal(file=out, force_terminal=True, color_system=None, width=80))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert f"\n{' ' * 26}that is too old" in out.getvalue()
    assert "Next: Run `make bootstrap ENV=dev`." in out.getvalue()
    assert out.getvalue().endswith("1 problem, no warnings.\n")
    piped = io.StringIO()
    doctor.show(found, Terminal(file=piped))
    assert text.strip() in piped.getvalue()


def test_command_is_one_line_to_be_copied() -> None:
    command = "aws bedrock delete-custom-model --model-identifier arn:aws:bedrock:us-east-1:444455556666:x/y"
    finding = Finding("warning", "models", "One is left.", "See the runbook, and then:", command)
    assert list(doctor.lines(finding))[-1] == f"  {command}"


def test_texts_of_others_control_no_terminal() -> None:
    out = io.StringIO()
    doctor.show([Finding("warning", "release", HOSTILE, HOSTILE)], Terminal(file=out, width=200))
    assert not controls(out.getvalue())


def test_command_prints_the_checks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [Finding("problem", "credentials", "They are others.")]
    monkeypatch.setattr(doctor, "examine", lambda at: iter(found if at.name == "dev" else []))
    assert main(["doctor", "--environment", "dev"]) == 1
    assert "problem  credentials      They are others." in capsys.readouterr().out


# Refused calls


@pytest.mark.parametrize(
    ("operation", "check", "permission"),
    [
        ("GetParameter", "bootstrap", "ssm:GetParameter"),
        ("GetAccountSettings", "concurrency", "lambda:GetAccountSettings"),
        ("GetFoundationModel", "student", "bedrock:GetFoundationModel"),
        ("GetInferenceProfile", "teacher", "bedrock:GetInferenceProfile"),
        ("GetFoundationModelAvailability", "student access", "bedrock:GetFoundationModelAvailability"),
        ("ListStackResources", "release", "cloudformation:ListStackResources"),
        ("Scan", "release", "dynamodb:Scan"),
        ("ListProvisionedModelThroughputs", "throughput", "bedrock:ListProvisionedModelThroughputs"),
        ("ListModelCustomizationJobs", "training jobs", "bedrock:ListModelCustomizationJobs"),
        ("ListEvaluationJobs", "evaluation jobs", "bedrock:ListEvaluationJobs"),
        ("ListModelInvocationJobs", "batch jobs", "bedrock:ListModelInvocationJobs"),
        ("ListCustomModelDeployments", "deployments", "bedrock:ListCustomModelDeployments"),
        ("ListCustomModels", "models", "bedrock:ListCustomModels"),
    ],
)
def test_denied_call_is_a_warning_with_its_permission(
    examined: Examined, aws_account: Account, operation: str, check: str, permission: str
) -> None:
    aws_account.answers[operation] = denial()
    found = examined()
    finding = of(found, check)
    assert finding.level == "warning"
    assert permission in finding.found
    assert permission in finding.step
    assert "problem" not in levels(found)


def test_permission_that_the_error_names_is_told(examined: Examined, aws_account: Account) -> None:
    aws_account.answers["Scan"] = denial("kms:Decrypt")
    assert "kms:Decrypt" in of(examined(), "release").found


def test_stacks_that_may_not_be_read_are_told(examined: Examined, aws_account: Account) -> None:
    aws_account.answers["DescribeStacks"] = refusal("AccessDenied")
    found = examined()
    assert of(found, "stacks").found.endswith("lack cloudformation:DescribeStacks.")
    assert of(found, "release").found.endswith("lack cloudformation:DescribeStacks.")


def test_other_failures_are_warnings(examined: Examined, aws_account: Account) -> None:
    def unreachable(_: Any) -> Any:
        raise EndpointConnectionError(endpoint_url="https://ssm")

    aws_account.answers["GetParameter"] = unreachable
    aws_account.answers["GetAccountSettings"] = refusal("TooManyRequestsException", "Rate exceeded", 429)
    found = examined()
    assert "Could not connect" in of(found, "bootstrap").found
    assert "Rate exceeded" in of(found, "concurrency").found
    assert "problem" not in levels(found)


def test_calls_that_the_test_doubles_do_not_know_are_skipped(
    examined: Examined, aws_account: Account
) -> None:
    del aws_account.answers["GetFoundationModelAvailability"]  # the stand-in does not model it
    aws_account.answers["GetCallerIdentity"] = {"Account": "000000000000", "Arn": "arn"}
    finding = of(examined(local=True, account="000000000000"), "student access")
    assert finding.level == "skipped"
    assert "not in the local system" in finding.found
    aws_account.answers["GetCallerIdentity"] = {"Account": "444455556666", "Arn": "arn"}
    assert of(examined(), "student access").level == "warning"


# The account


def test_other_credentials_end_the_examination(examined: Examined, aws_account: Account) -> None:
    aws_account.answers["GetCallerIdentity"] = {"Account": "999988887777", "Arn": "arn:aws:iam::999:me"}
    [finding] = examined()
    assert (finding.level, finding.check) == ("problem", "credentials")
    assert "999988887777" in finding.found
    assert "444455556666" in finding.step


def test_missing_bootstrap_stack_is_a_problem(examined: Examined, aws_account: Account) -> None:
    aws_account.answers["GetParameter"] = refusal("ParameterNotFound")
    finding = of(examined(bootstrap_qualifier="mine"), "bootstrap")
    assert finding.level == "problem"
    assert "/cdk-bootstrap/mine/version" in finding.found
    assert finding.step == "Run `make bootstrap ENV=test`."


@pytest.mark.parametrize("version", ["5", "old"])
def test_old_bootstrap_stack_is_a_problem(examined: Examined, aws_account: Account, version: str) -> None:
    aws_account.answers["GetParameter"] = {"Parameter": {"Value": version}}
    finding = of(examined(), "bootstrap")
    assert finding.level == "problem"
    assert f"has version {version}; 6 is required" in finding.found


def test_bootstrap_version_is_that_of_the_templates() -> None:
    folder = PROJECT / "tests" / "snapshots" / "__snapshots__" / "test_templates"
    template = json.loads((folder / "test_template[dev-data].json").read_text())
    [rule] = template["Rules"]["CheckBootstrapVersion"]["Assertions"]
    assert f"version {place.BOOTSTRAP_VERSION} required" in rule["AssertDescription"]


@pytest.mark.parametrize(
    ("limit", "unreserved", "reserved", "router", "level"),
    [
        (1000, 1000, 50, None, "ok"),
        (100, 100, None, None, "ok"),
        (10, 10, None, None, "problem"),
        (140, 140, 50, None, "problem"),
        (140, 100, 50, "CREATE_COMPLETE", "problem"),
        (1000, 120, 50, None, "problem"),
        (1000, 120, 50, "CREATE_COMPLETE", "ok"),
    ],
)
def test_concurrency_must_leave_100_besides_the_reservation(
    examined: Examined,
    aws_account: Account,
    limit: int,
    unreserved: int,
    reserved: int | None,
    router: str | None,
    level: str,
) -> None:
    aws_account.answers["GetAccountSettings"] = concurrency(limit, unreserved)
    aws_account.answers["DescribeStacks"] = stacks(router=router)
    finding = of(examined(**part("router", reserved_concurrency=reserved)), "concurrency")
    assert finding.level == level
    assert bool(finding.step) == (level == "problem")


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ({"Quota": {"Value": 0.0}}, "problem"),
        ({"Quota": {"Value": 2.0}}, "ok"),
        (refusal("NoSuchResourceException"), "warning"),
        (denial(), "warning"),
    ],
)
def test_quota_of_model_units_is_compared(
    examined: Examined, aws_account: Account, answer: Answer, level: str
) -> None:
    aws_account.answers["GetServiceQuota"] = answer
    bought = {"model_units": 2, "hourly_price_usd": 1.0}
    assert of(examined(endpoint=endpoint(**bought)), "model units").level == level


def test_quota_is_not_asked_without_throughput(examined: Examined, aws_account: Account) -> None:
    assert "model units" not in {finding.check for finding in examined()}
    assert "GetServiceQuota" not in {name for name, _ in aws_account.calls}


@pytest.mark.parametrize(
    ("state", "level", "told"),
    [
        (None, "warning", "is not deployed"),
        ("CREATE_IN_PROGRESS", "warning", "CREATE_IN_PROGRESS"),
        ("UPDATE_ROLLBACK_COMPLETE", "warning", "UPDATE_ROLLBACK_COMPLETE"),
        ("ROLLBACK_COMPLETE", "problem", "ROLLBACK_COMPLETE"),
        ({"StackStatus": "DELETE_FAILED", "StackStatusReason": "why"}, "problem", "DELETE_FAILED: why"),
        (
            {"StackStatus": "CREATE_COMPLETE", "DriftInformation": {"StackDriftStatus": "DRIFTED"}},
            "warning",
            "had drifted",
        ),
    ],
)
def test_stack_that_is_not_well_is_told(
    examined: Examined, aws_account: Account, state: Any, level: str, told: str
) -> None:
    aws_account.answers["DescribeStacks"] = stacks(data=state)
    finding = of(examined(), "stacks")
    assert finding.level == level
    assert f"{OWNER}-data" in finding.found
    assert told in finding.found
    assert finding.step


def test_account_before_the_first_deployment_has_no_problem(examined: Examined, aws_account: Account) -> None:
    aws_account.answers["DescribeStacks"] = stacks(**dict.fromkeys(n.rpartition("-")[2] for n in NAMES))
    found = examined()
    assert levels(found) == {"ok"}
    assert of(found, "stacks").step == "`make deploy ENV=test` deploys them."
    assert "release" not in {finding.check for finding in found}


# Models

MICRO, PRO = "amazon.nova-micro-v1:0", "amazon.nova-pro-v1:0"
ENDED = 1_500_000_000.0


@pytest.mark.parametrize(
    ("model", "check", "setting"),
    [
        (f"{MICRO}:128k", "student", "distillation.student"),
        (PRO, "teacher", "distillation.teacher"),
        (MICRO, "fallback", "router.base_model"),
    ],
)
def test_legacy_and_ended_models_are_problems_with_their_setting(
    examined: Examined, world: World, model: str, check: str, setting: str
) -> None:
    world.server.lifecycle(model, legacy=ENDED)
    finding = of(examined(), check)
    assert finding.level == "problem"
    assert "is LEGACY" in finding.found
    assert setting in finding.step
    allowed = of(examined(**part("distillation", allow_legacy=True)), check)
    assert allowed.level == "warning"
    world.server.lifecycle(model, legacy=ENDED, end=ENDED)
    finding = of(examined(**part("distillation", allow_legacy=True)), check)
    assert finding.level == "problem"
    assert finding.found.endswith("ended on 2017-07-14; requests to it fail.")
    assert setting in finding.step


def test_judge_that_is_legacy_is_a_warning_and_one_that_ended_a_problem(
    examined: Examined, world: World
) -> None:
    judge = part("evaluation", judge="amazon.nova-lite-v1:0")
    assert of(examined(**judge), "judge").level == "ok"
    world.server.lifecycle("amazon.nova-lite-v1:0", legacy=ENDED)
    assert of(examined(**judge), "judge").level == "warning"
    world.server.lifecycle("amazon.nova-lite-v1:0", legacy=ENDED, end=ENDED)
    finding = of(examined(**judge), "judge")
    assert finding.level == "problem"
    assert "evaluation.judge" in finding.step


def test_unknown_models_and_profiles_are_problems(examined: Examined) -> None:
    found = examined(
        **part("distillation", teacher="us.amazon.nova-9-v1:0"), **part("router", base_model="amazon.x-v1:0")
    )
    assert of(found, "teacher").found == "us-east-1 has no inference profile us.amazon.nova-9-v1:0."
    assert "unknown to Bedrock in this Region" in of(found, "fallback").found
    assert [of(found, check).level for check in ("teacher", "fallback")] == ["problem"] * 2


def test_teacher_that_is_not_asked_is_not_checked(examined: Examined) -> None:
    checks = {finding.check for finding in examined(**part("distillation", method="fine_tuning"))}
    assert "teacher" not in checks
    assert "student" in checks


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        ({"authorizationStatus": "NOT_AUTHORIZED"}, "problem"),
        ({"entitlementAvailability": "NOT_AVAILABLE"}, "warning"),
        ({"agreementAvailability": {"status": "PENDING"}}, "warning"),
    ],
)
def test_access_is_told_without_a_call_that_is_billed(
    examined: Examined, aws_account: Account, answer: Mapping[str, Any], level: str
) -> None:
    aws_account.answers["GetFoundationModelAvailability"] = {**AVAILABLE, **answer}
    found = examined()
    assert of(found, "student access").level == of(found, "teacher access").level == level
    assert "docs/deploy.md" in of(found, "teacher access").step
    asked = [params["modelId"] for name, params in aws_account.calls if name.endswith("ModelAvailability")]
    assert asked == [MICRO, PRO]


def test_region_does_not_matter_to_a_profile(examined: Examined, aws_account: Account) -> None:
    aws_account.answers["GetFoundationModelAvailability"] = {
        **AVAILABLE,
        "regionAvailability": "NOT_AVAILABLE",
    }
    found = examined()
    assert of(found, "student access").level == "warning"
    assert of(found, "teacher access").level == "ok"


# Left behind


def buy(world: World, claimant: Claimant | None, name: str = "bought", **fields: Any) -> str:
    tags = claimant.tags(OWNER, request="r", digest=A) if claimant else {OWNER_TAG: OWNER}
    made = world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=name, modelUnits=1, modelId=world.train(C), tags=bedrock_tags(tags), **fields
    )
    world.advance(HOUR)
    return str(made["provisionedModelArn"])


def test_throughput_without_requests_is_a_problem(examined: Examined, world: World) -> None:
    serve(world)
    arn = buy(world, RELEASE)
    finding = of(examined(), "throughput")
    assert finding.level == "problem"
    assert "No release needs bought. It is billed by the hour." in finding.found
    assert "within an hour" in finding.step
    world.settle(live_share(A, arn))
    assert of(examined(), "throughput").found == f"1 needed, {NONE_LEFT}."


def test_throughput_that_was_left_on_purpose_is_a_warning(examined: Examined, world: World) -> None:
    arn = buy(world, None)
    finding = of(examined(), "throughput")
    assert finding.level == "warning"
    assert "left on purpose" in finding.found
    assert f"delete-provisioned-model-throughput --provisioned-model-id {arn}" in finding.command


def test_retained_throughput_is_a_warning(examined: Examined, world: World) -> None:
    buy(world, RELEASE)
    finding = of(examined(**part("retention", throughput="retain")), "throughput")
    assert finding.level == "warning"
    assert "left on purpose" in finding.found


def test_committed_throughput_is_a_warning_with_the_end_of_its_term(examined: Examined, world: World) -> None:
    arn = buy(world, RELEASE, commitmentDuration="OneMonth")
    end = world.bedrock.get_provisioned_model_throughput(provisionedModelId=arn)["commitmentExpirationTime"]
    finding = of(examined(), "throughput")
    assert finding.level == "warning"
    assert f"is committed until {end:%Y-%m-%d}" in finding.found


def test_throughput_of_others_is_none_of_ours(examined: Examined, world: World) -> None:
    world.bedrock.create_provisioned_model_throughput(
        provisionedModelName=f"{OWNER}-1mu", modelUnits=1, modelId=world.train(C)
    )
    assert of(examined(), "throughput").found == f"0 needed, {NONE_LEFT}."


def test_deployment_that_no_release_needs_is_told(examined: Examined, world: World) -> None:
    """Also one whose stack is gone, which no sweeper removes."""
    serve(world)
    model = world.train(B)
    tags = GONE.tags(OWNER, request="r", digest=B)
    arn = world.deploy_as(f"{OWNER}-{B}", model, tags)
    found = examined()
    finding = of(found, "deployments")
    assert finding.level == "warning"
    assert f"No release needs {OWNER}-{B}" in finding.found
    assert f"delete-custom-model-deployment --custom-model-deployment-identifier {arn}" in finding.command
    world.begin(B, state=RETIRED, model_arn=model, endpoint=arn)
    assert of(examined(), "deployments").found == f"2 needed, {NONE_LEFT}."


def test_deployment_for_the_sweeper_is_left_to_it(examined: Examined, world: World) -> None:
    serve(world)
    world.deploy_as(f"{OWNER}-{B}", world.train(B), RELEASE.tags(OWNER, request="r", digest=B))
    assert "The sweeper removes it within an hour" in of(examined(), "deployments").step


def test_model_stays_while_a_stack_declares_its_job(examined: Examined, world: World) -> None:
    model = world.train(B)
    world.unclaim(model)
    world.claim(model, JOB)
    assert of(examined(), "models").found == f"1 needed, {NONE_LEFT}."


def test_model_of_a_stack_that_is_gone_is_told(examined: Examined, world: World) -> None:
    model = world.train(B)
    finding = of(examined(), "models")
    assert (finding.level, finding.found) == (
        "warning",
        f"No release needs {OWNER}-{B}. It is billed by the month.",
    )
    assert f"delete-custom-model --model-identifier {model}" in finding.command


def test_adopted_model_of_an_older_release_is_needed(examined: Examined, world: World) -> None:
    model = world.train(B)
    world.begin(C, state=FAILED, source=model, model_arn=model)
    assert of(examined(), "models").found == f"1 needed, {NONE_LEFT}."


def test_retained_models_of_the_release_are_kept(examined: Examined, world: World) -> None:
    model = world.train(B)
    world.unclaim(model)
    world.claim(model, RELEASE)
    assert of(examined(), "models").level == "warning"
    assert of(examined(**part("retention", models="retain")), "models").level == "ok"


def test_training_job_that_no_release_waits_for_is_told(examined: Examined, world: World) -> None:
    name = world.start_job(B)
    finding = of(examined(), "training jobs")
    assert finding.level == "warning"
    assert f"No release needs {name}. It runs, and is billed." in finding.found
    assert "stop-model-customization-job --job-identifier arn:" in finding.command
    world.begin(B)
    assert of(examined(), "training jobs").found == f"1 needed, {NONE_LEFT}."


def test_evaluation_job_that_no_attempt_waits_for_is_told(
    examined: Examined, aws_account: Account, world: World
) -> None:
    release = world.begin(A, state=EVALUATING)
    name = evaluation_jobs.job_name(OWNER, release)
    job = {"jobArn": "arn:aws:bedrock:us-east-1:job", "jobName": name, "status": "InProgress"}
    aws_account.answers["ListEvaluationJobs"] = {"jobSummaries": [job]}
    aws_account.answers["ListTagsForResource"] = {"tags": []}
    assert of(examined(), "evaluation jobs").found == f"1 needed, {NONE_LEFT}."
    world.releases.update(A, state=FAILED)
    finding = of(examined(), "evaluation jobs")
    assert finding.level == "warning"
    assert finding.command == "aws bedrock stop-evaluation-job --job-identifier arn:aws:bedrock:us-east-1:job"


BATCH = "arn:aws:bedrock:us-east-1:444455556666:model-invocation-job/0123456789ab"


def batch_jobs(aws_account: Account, labels: str, owner: str = OWNER, status: str = "InProgress") -> None:
    """Let a batch job of a labelling be in the account."""
    tags = [{"key": OWNER_TAG, "value": owner}, {"key": LABELS_TAG, "value": labels}]
    # The hash in the names of all batch jobs of an owner.
    name = batch.job_name(OWNER, "abcdef", "00000", 0)
    job = {"jobArn": BATCH, "jobName": name, "status": status}
    aws_account.answers["ListModelInvocationJobs"] = lambda asked: {
        "invocationJobSummaries": [job] if asked["nameContains"] in name else []
    }
    aws_account.answers["ListTagsForResource"] = lambda asked: (
        {"tags": tags} if asked["resourceARN"] == BATCH else None
    )


def labelling(aws_account: Account, *labels: str) -> None:
    """Let an execution of the labelling run for each of the labels."""
    machine = f"arn:aws:states:us-east-1:444455556666:stateMachine:{OWNER}-labelling"
    running = [{"executionArn": f"arn:execution:{one}"} for one in labels]

    def listed(asked: Mapping[str, Any]) -> Mapping[str, Any]:
        assert asked["stateMachineArn"] == machine
        assert asked["statusFilter"] == "RUNNING"
        return {"executions": running}

    def described(asked: Mapping[str, Any]) -> Mapping[str, Any] | None:
        _, is_one, of_labels = asked["executionArn"].partition("arn:execution:")
        return {"input": json.dumps({"plan": {"labels": of_labels}})} if is_one else None

    aws_account.answers |= {"ListExecutions": listed, "DescribeExecution": described}


def test_batch_job_that_no_labelling_waits_for_is_told(examined: Examined, aws_account: Account) -> None:
    batch_jobs(aws_account, "labels-of-1")
    labelling(aws_account, "labels-of-1")
    assert of(examined(), "batch jobs").found == f"1 needed, {NONE_LEFT}."
    labelling(aws_account, "labels-of-2")
    finding = of(examined(), "batch jobs")
    assert finding.level == "warning"
    assert "No labelling that runs waits for router-test-" in finding.found
    assert "It runs, and is billed." in finding.found
    assert "release.attempt" in finding.step
    assert finding.command == f"aws bedrock stop-model-invocation-job --job-identifier {BATCH}"
    # Without the labelling's stack there is no state machine.
    aws_account.answers["ListExecutions"] = refusal("StateMachineDoesNotExist")
    assert of(examined(), "batch jobs").level == "warning"


def test_batch_job_of_another_owner_or_that_has_ended_is_none_of_ours(
    examined: Examined, aws_account: Account
) -> None:
    for changes in ({"owner": "another-test"}, {"status": "Completed"}):
        batch_jobs(aws_account, "labels-of-1", **changes)
        assert of(examined(), "batch jobs").found == f"0 needed, {NONE_LEFT}."
    assert "ListExecutions" not in {name for name, _ in aws_account.calls}


def test_executions_that_may_not_be_listed_are_told(examined: Examined, aws_account: Account) -> None:
    batch_jobs(aws_account, "labels-of-1")
    aws_account.answers["ListExecutions"] = denial()
    finding = of(examined(), "batch jobs")
    assert finding.level == "warning"
    assert "states:ListExecutions" in finding.step


# What serves


@pytest.mark.parametrize(
    ("answer", "level", "told"),
    [
        ({"status": "Failed", "failureMessage": "quota"}, "problem", "is Failed, not Active: quota"),
        ({"status": "Creating"}, "problem", "is Creating, not Active."),
        (refusal("ResourceNotFoundException", status=404), "problem", "does not exist."),
        ({"status": "Active"}, "ok", "is Active."),
        (denial(), "warning", "lack bedrock:GetCustomModelDeployment"),
    ],
)
def test_live_deployment_must_be_active(
    examined: Examined, aws_account: Account, world: World, answer: Answer, level: str, told: str
) -> None:
    arn = serve(world)
    aws_account.answers["GetCustomModelDeployment"] = answer
    found = examined()
    finding = of(found, "endpoint")
    assert finding.level == level
    assert told in finding.found
    assert of(found, "release").found == f"{A} is live."
    if level == "problem":
        assert f"The deployment of {A}, {arn.rpartition('/')[2]}, " in finding.found
        assert "docs/runbook.md, Many fallbacks" in finding.step


@pytest.mark.parametrize(
    ("status", "level"),
    [("InService", "ok"), ("Updating", "ok"), ("Creating", "problem"), ("Failed", "problem")],
)
def test_live_throughput_must_be_in_service(
    examined: Examined, aws_account: Account, world: World, status: str, level: str
) -> None:
    serve(world)
    world.settle(live_share(A, buy(world, RELEASE)))
    aws_account.answers["GetProvisionedModelThroughput"] = {"status": status}
    finding = of(examined(), "endpoint")
    assert finding.level == level
    assert f"The throughput of {A}, " in finding.found


# Releases


def test_release_that_has_not_begun_is_no_problem(examined: Examined) -> None:
    finding = of(examined(), "release")
    assert finding.level == "ok"
    assert "No release has begun yet" in finding.found


def test_failed_release_is_a_problem_with_its_reason(examined: Examined, world: World) -> None:
    world.begin(A, state=FAILED, message="refused by the gate")
    problem, warning = [one for one in examined() if one.check == "release"]
    assert (problem.level, warning.level) == ("problem", "warning")
    assert f"{A}, failed: refused by the gate" in problem.found
    assert warning.found == "No release is live: the base model answers."


def test_release_that_an_operator_rolled_back_is_a_warning(examined: Examined, world: World) -> None:
    message = "rolled back by hand; raise release.attempt above 1 to start it again"
    world.begin(A, state=SUPERSEDED, message=message, rolled_back=1)
    found, _ = [one for one in examined() if one.check == "release"]
    assert (found.level, found.found) == ("warning", f"The newest release, {A}, is superseded: {message}.")


def test_release_in_progress_is_named_while_none_is_live(examined: Examined, world: World) -> None:
    world.begin(A, state=DEPLOYING)
    finding = of(examined(), "release")
    assert finding.level == "warning"
    assert finding.step == f"{A} is deploying: `make watch ENV=test` follows it."


def test_damaged_release_is_a_problem(examined: Examined, world: World) -> None:
    world.begin(A, state=DEPLOYING, execution="")
    problem, _ = [one for one in examined() if one.check == "release"]
    assert problem.level == "problem"
    assert f"{A} is deploying, and names no execution" in problem.found


def test_live_release_says_its_warnings(examined: Examined, world: World) -> None:
    serve(world, warnings="the base model never answered", holdout_key="one", passed_on="another")
    found = [one for one in examined() if one.check == "release"]
    assert [one.level for one in found] == ["warning", "warning"]
    assert "has not passed on its hold-out set" in found[0].found
    assert found[1].found == f"{A}: the base model never answered"


def test_broken_route_is_a_problem(examined: Examined, world: World) -> None:
    serve(world)
    world.releases.table.update_item(
        Key={"id": world.releases.key("route")},
        UpdateExpression="SET #s = :x",
        ExpressionAttributeNames={"#s": "shares"},
        ExpressionAttributeValues={":x": "oops"},
    )
    finding = of(examined(), "route")
    assert finding.level == "problem"
    assert "The route item is broken" in finding.found


@pytest.mark.parametrize(
    ("content", "mode", "level", "told"),
    [
        (head(0.25), "first", "ok", "up to a risk of 0.25"),
        (head(None), "first", "warning", "no threshold"),
        (head(None), "last_resort", "ok", "if no model does"),
        (b"oops", "first", "warning", "can't be used: its SHA-256"),
        (None, "first", "warning", "can't be used: it does not exist"),
    ],
    ids=["threshold", "none", "last-resort", "damaged", "missing"],
)
def test_head_of_the_live_release_is_read(
    examined: Examined, world: World, content: bytes | None, mode: str, level: str, told: str
) -> None:
    if content:
        world.s3.put_object(Bucket=world.bucket, Key="h/head.bin", Body=content)
    serve(world, head="h/head.bin", head_sha256="0" * 64, report=f"s3://{world.bucket}/report.html")
    finding = of(examined(**part("head", mode=mode)), "head")
    assert finding.level == level
    assert told in finding.found


def test_missing_head_and_heads_switched_off_are_warnings(examined: Examined, world: World) -> None:
    endpoint = serve(world)
    assert of(examined(**part("head", mode="first")), "head").found == f"{A} has no head."
    world.settle(Share(A, endpoint, 1.0))
    world.releases.switch_heads(off=True, after=world.releases.route(), reason="off")
    finding = of(examined(**part("head", mode="first")), "head")
    assert finding.level == "warning"
    assert finding.step == "`make head-on ENV=test` switches them on."


def test_document_names_all_permissions() -> None:
    text = (PROJECT / "docs" / "deploy.md").read_text()
    # Every caller may ask who it is.
    told = {f"{service}:{name}" for service, names in READS.items() for name in names if service != "sts"}
    assert {name for name in told if f"`{name}`" not in text} == set()
