"""The CI's roles, assumed with tokens in GitHub's form: what the CDK's command line can do with them.

Two environments have roles in one account: `local`, whose assembly is deployed, and `dev2` beside it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError, WaiterError

from local import servers
from local.keys import HEADER, TOKEN
from local.state import ACCOUNT, REGION, State
from operate import cdk
from operate.environment import without_aws
from stacks.settings import PROJECT
from tests.stacks.assembly import Assembly

pytestmark = [pytest.mark.integration]

PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"
SHARED = {"Repository": "acme/router", "RepositoryId": "345", "Provider": PROVIDER}
LOCAL = {**SHARED, "Environment": "local", "Qualifier": "hnb659fds", "OnlyAppInAccount": "true"}
DEV2 = {**SHARED, "Environment": "dev2", "Qualifier": "dev2"}
DEPLOYS, LOOKS = "repo:acme/router:environment:local", "repo:acme/router:pull_request"
DEPLOYS_DEV2 = "repo:acme/router:environment:dev2"
DATA_STACK = "video-router-local-data"


@dataclass(frozen=True)
class Account:
    """A bootstrapped account, and an assembly that is not deployed. `roles` are those of the CI, by stack."""

    variables: Mapping[str, str]
    assembly: Path
    roles: dict[str, dict[str, str]] = field(default_factory=dict)

    def client(self, service: Any, **options: Any) -> Any:
        """Return a client of the account."""
        return boto3.client(
            service,
            endpoint_url=self.variables["AWS_ENDPOINT_URL"],
            verify=self.variables["AWS_CA_BUNDLE"],
            region_name=REGION,
            **options,
        )

    @property
    def administrator(self) -> dict[str, str]:
        """Return the keys of the account's administrator, for `client`."""
        return {
            "aws_access_key_id": self.variables["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": self.variables["AWS_SECRET_ACCESS_KEY"],
        }

    def create(self, stack: str, parameters: Mapping[str, str]) -> None:
        """Create the CI's roles of one environment.

        Raises:
            ClientError: the template's rules refuse the parameters.
            RuntimeError: the stack was rolled back.
        """
        cloudformation = self.client("cloudformation", **self.administrator)
        cloudformation.create_stack(
            StackName=stack,
            TemplateBody=template(),
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in parameters.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        with contextlib.suppress(WaiterError):
            cloudformation.get_waiter("stack_create_complete").wait(
                StackName=stack, WaiterConfig={"Delay": 1, "MaxAttempts": 600}
            )
        (found,) = cloudformation.describe_stacks(StackName=stack)["Stacks"]
        if found["StackStatus"] != "CREATE_COMPLETE":
            events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]
            raise RuntimeError([event.get("ResourceStatusReason") for event in events])
        self.roles[stack] = {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}

    def bootstrap(self, state: State, qualifier: str) -> None:
        """Bootstrap the account with a qualifier."""
        log = state.log(f"bootstrap-{qualifier}")
        process = cdk.start(cdk.bootstrap(ACCOUNT, REGION, qualifier), self.variables, log, cwd=state.root)
        assert process.wait(900) == 0, log.read_text()[-2000:]

    def take(self, role: str, subject: str, stack: str = "ci-local", **claims: str) -> dict[str, str]:
        """Assume a role for a job and return its environment variables."""
        # With the web identity alone, as GitHub's action does. The emulator's token replaces AWS's check.
        sts = self.client("sts", config=Config(signature_version=UNSIGNED))
        sts.meta.events.register(
            "before-call.sts", lambda params, **_: params["headers"].update({HEADER: self.variables[TOKEN]})
        )
        taken = sts.assume_role_with_web_identity(
            RoleArn=self.roles[stack][role], RoleSessionName="ci", WebIdentityToken=token(subject, **claims)
        )["Credentials"]
        return {
            "AWS_ACCESS_KEY_ID": taken["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": taken["SecretAccessKey"],
            "AWS_SESSION_TOKEN": taken["SessionToken"],
        }

    def cdk(self, credentials: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the CDK's command line with a job's credentials, and no terminal."""
        return subprocess.run(
            cdk.command([*arguments, "--app", str(self.assembly)]),
            env=cdk.with_tools({**self.variables, **credentials}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=900,
        )


def own(credentials: Mapping[str, str]) -> dict[str, str]:
    """Return a job's credentials for `Account.client`."""
    return {name.lower(): value for name, value in credentials.items()}


def token(subject: str, **claims: str) -> str:
    """Return a token like GitHub's, except for the signature, which the emulator doesn't check."""

    def part(value: Mapping[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    now = int(time.time())
    ref = "refs/pull/7/merge" if subject.endswith("pull_request") else "refs/heads/main"
    content = {
        "iss": "https://token.actions.githubusercontent.com",
        **{"aud": "sts.amazonaws.com", "sub": subject, "ref": ref, "repository_id": "345"},
        **{"iat": now, "exp": now + 600},
        **claims,
    }
    return f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(content)}.{part({})}"


def template() -> str:
    """Return docs/ci-roles.yaml for an account that has GitHub's provider; the emulator can't create it."""
    text = (PROJECT / "docs" / "ci-roles.yaml").read_text(encoding="utf-8")
    start, end = text.index("  GitHub:\n"), text.index("  DeployRole:\n")
    return (text[:start] + text[end:]).replace(
        "!If [MakeProvider, !Ref GitHub, !Ref Provider]", "!Ref Provider"
    )


@pytest.fixture(scope="module")
def account(
    tmp_path_factory: pytest.TempPathFactory, assemblies: Mapping[str, Assembly]
) -> Iterator[Account]:
    """Yield an account on a separate emulator that enforces IAM."""
    state = State(tmp_path_factory.mktemp("ci") / "state")
    state.prepare()
    try:
        variables = without_aws() | servers.start(state).variables(state)
        found = Account(variables, assemblies["local"].folder)
        for qualifier, parameters in (("hnb659fds", LOCAL), ("dev2", DEV2)):
            found.bootstrap(state, qualifier)
            found.create(f"ci-{parameters['Environment']}", parameters)
        yield found
    finally:
        servers.stop(state)


@pytest.mark.parametrize(
    ("role", "subject", "claims"),
    [
        ("DeployRole", LOOKS, {}),
        ("DeployRole", "repo:acme/router:ref:refs/heads/main", {}),
        ("DeployRole", "repo:acme/other:environment:local", {}),
        ("DeployRole", DEPLOYS_DEV2, {}),
        ("DeployRole", DEPLOYS, {"ref": "refs/heads/feature"}),
        ("DeployRole", DEPLOYS, {"repository_id": "346"}),
        ("DiffRole", "repo:somebody/router:pull_request", {}),
        ("DiffRole", LOOKS, {"repository_id": "346"}),
    ],
)
def test_a_role_is_for_its_own_jobs(
    account: Account, role: str, subject: str, claims: Mapping[str, str]
) -> None:
    with pytest.raises(ClientError, match="Not authorized to perform sts:AssumeRoleWithWebIdentity"):
        account.take(role, subject, **claims)


def test_the_qualifier_of_another_environment_is_refused(account: Account) -> None:
    with pytest.raises(ClientError, match="OnlyAppInAccount"):
        account.create("ci-dev3", {**SHARED, "Environment": "dev3", "Qualifier": "hnb659fds"})
    with pytest.raises(RuntimeError, match="environment-of-cdk-dev2 is already exported by stack ci-dev2"):
        account.create("ci-dev3", {**SHARED, "Environment": "dev3", "Qualifier": "dev2"})


def test_a_pull_request_sees_what_would_change_and_can_not_deploy(account: Account) -> None:
    credentials = account.take("DiffRole", LOOKS)

    diff = account.cdk(credentials, "diff", "--method", "template")
    deploy = account.cdk(credentials, "deploy", DATA_STACK, "--require-approval", "never")

    assert diff.returncode == 0, diff.stdout[-2000:]
    assert "Number of stacks with differences: 5" in diff.stdout
    assert deploy.returncode != 0
    assert "is not authorized to perform" in deploy.stdout


def test_a_deployment_without_approval_asks_for_it(account: Account) -> None:
    deploy = account.cdk(account.take("DeployRole", DEPLOYS), "deploy", DATA_STACK)

    assert deploy.returncode != 0
    assert "terminal (TTY) is not attached" in deploy.stdout


def test_a_deployment_succeeds_and_its_role_may_do_nothing_else(account: Account) -> None:
    credentials = account.take("DeployRole", DEPLOYS)

    deploy = account.cdk(credentials, "deploy", DATA_STACK, "--require-approval", "never")

    assert deploy.returncode == 0, deploy.stdout[-2000:]
    with pytest.raises(ClientError, match="not authorized to perform: s3:ListAllMyBuckets"):
        account.client("s3", **own(credentials)).list_buckets()
    with pytest.raises(ClientError, match="not authorized to perform: cloudformation:DeleteStack"):
        account.client("cloudformation", **own(credentials)).delete_stack(StackName="ci-dev2")


def test_another_environments_deployment_changes_nothing(account: Account) -> None:
    """In one account: the roles that `cdk bootstrap` creates may change all stacks."""
    credentials = account.take("DeployRole", DEPLOYS_DEV2, "ci-dev2")

    deploy = account.cdk(credentials, "deploy", DATA_STACK, "--require-approval", "never")

    assert deploy.returncode != 0
    assert "is not authorized to perform" in deploy.stdout
    cloudformation = account.client("cloudformation", **own(credentials))
    for call in (cloudformation.delete_stack, cloudformation.get_template, cloudformation.describe_stacks):
        with pytest.raises(ClientError, match="not authorized to perform"):
            call(StackName=DATA_STACK)
    sts = account.client("sts", **own(credentials))
    for qualifier in ("hnb659fds", "dev2"):
        for role in ("deploy", "lookup", "cfn-exec"):
            arn = f"arn:aws:iam::{ACCOUNT}:role/cdk-{qualifier}-{role}-role-{ACCOUNT}-{REGION}"
            with pytest.raises(ClientError, match="not authorized to perform: sts:AssumeRole"):
                sts.assume_role(RoleArn=arn, RoleSessionName="step")
