"""The CI's roles, assumed with tokens in GitHub's form: what the CDK's command line can do with them."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

from local import servers
from local.keys import HEADER, TOKEN
from local.state import ACCOUNT, REGION, State
from operate import cdk
from operate.environment import without_aws
from stacks.settings import PROJECT
from tests.stacks.assembly import Assembly

pytestmark = [pytest.mark.integration]

PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"
PARAMETERS = {"Repository": "acme/router", "Environment": "local", "Provider": PROVIDER}
DEPLOYS, LOOKS = "repo:acme/router:environment:local", "repo:acme/router:pull_request"


@dataclass(frozen=True)
class Account:
    """A bootstrapped account with the CI's roles, and an assembly that is not deployed."""

    variables: Mapping[str, str]
    assembly: Path
    roles: Mapping[str, str]

    def client(self, service: Any, **options: Any) -> Any:
        """Return a client of the account."""
        return boto3.client(
            service,
            endpoint_url=self.variables["AWS_ENDPOINT_URL"],
            verify=self.variables["AWS_CA_BUNDLE"],
            region_name=REGION,
            **options,
        )

    def take(self, role: str, subject: str) -> dict[str, str]:
        """Assume a role for a job and return its environment variables."""
        # With the web identity alone, as GitHub's action does. The emulator's token replaces AWS's check.
        sts = self.client("sts", config=Config(signature_version=UNSIGNED))
        sts.meta.events.register(
            "before-call.sts", lambda params, **_: params["headers"].update({HEADER: self.variables[TOKEN]})
        )
        taken = sts.assume_role_with_web_identity(
            RoleArn=self.roles[role], RoleSessionName="ci", WebIdentityToken=token(subject)
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
            timeout=120,
        )


def token(subject: str) -> str:
    """Return a token like GitHub's, except for the signature, which the emulator doesn't check."""

    def part(value: Mapping[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    now = int(time.time())
    issuer = "https://token.actions.githubusercontent.com"
    claims = {"iss": issuer, "aud": "sts.amazonaws.com", "sub": subject, "iat": now, "exp": now + 600}
    return f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(claims)}.{part({})}"


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
        log = state.log("bootstrap")
        bootstrap = cdk.start(cdk.bootstrap(ACCOUNT, REGION), variables, log, cwd=state.root)
        assert bootstrap.wait(120) == 0, log.read_text()[-2000:]
        made = Account(variables, assemblies["local"].folder, {})
        keys = {
            "aws_access_key_id": variables["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": variables["AWS_SECRET_ACCESS_KEY"],
        }
        cloudformation = made.client("cloudformation", **keys)
        cloudformation.create_stack(
            StackName="ci",
            TemplateBody=template(),
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in PARAMETERS.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        cloudformation.get_waiter("stack_create_complete").wait(
            StackName="ci", WaiterConfig={"Delay": 1, "MaxAttempts": 30}
        )
        (stack,) = cloudformation.describe_stacks(StackName="ci")["Stacks"]
        yield Account(
            variables,
            made.assembly,
            {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]},
        )
    finally:
        servers.stop(state)


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        ("DeployRole", LOOKS),
        ("DeployRole", "repo:acme/router:ref:refs/heads/main"),
        ("DeployRole", "repo:acme/other:environment:local"),
        ("DiffRole", "repo:somebody/router:pull_request"),
    ],
)
def test_a_role_is_for_its_own_jobs(account: Account, role: str, subject: str) -> None:
    with pytest.raises(ClientError, match="Not authorized to perform sts:AssumeRoleWithWebIdentity"):
        account.take(role, subject)


def test_a_pull_request_sees_what_would_change_and_can_not_deploy(account: Account) -> None:
    credentials = account.take("DiffRole", LOOKS)

    diff = account.cdk(credentials, "diff", "--method", "template")
    deploy = account.cdk(credentials, "deploy", "video-router-local-data", "--require-approval", "never")

    assert diff.returncode == 0, diff.stdout[-2000:]
    assert "Number of stacks with differences: 5" in diff.stdout
    assert deploy.returncode != 0
    assert "is not authorized to perform" in deploy.stdout


def test_a_deployment_without_approval_asks_for_it(account: Account) -> None:
    deploy = account.cdk(account.take("DeployRole", DEPLOYS), "deploy", "video-router-local-data")

    assert deploy.returncode != 0
    assert "terminal (TTY) is not attached" in deploy.stdout


def test_a_deployment_succeeds_and_its_role_may_do_nothing_else(account: Account) -> None:
    credentials = account.take("DeployRole", DEPLOYS)

    deploy = account.cdk(credentials, "deploy", "video-router-local-data", "--require-approval", "never")

    assert deploy.returncode == 0, deploy.stdout[-2000:]
    own = {
        "aws_access_key_id": credentials["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": credentials["AWS_SECRET_ACCESS_KEY"],
        "aws_session_token": credentials["AWS_SESSION_TOKEN"],
    }
    with pytest.raises(ClientError, match="not authorized to perform: s3:ListAllMyBuckets"):
        account.client("s3", **own).list_buckets()
