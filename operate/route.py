"""Send queries to a deployed router's HTTP API, signed, and show its answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError
from rich import box
from rich.markup import escape
from rich.table import Table

from local import environment, servers
from local.state import ENVIRONMENT, State
from operate import web
from operate.errors import LocalError
from stacks import settings


@dataclass(frozen=True)
class Router:
    """Where a router is, and who asks it."""

    url: str
    region: str
    credentials: Any
    verify: str | None = None

    def ask(self, query: str) -> dict[str, Any]:
        """Send one query and return the router's answer.

        Raises:
            LocalError: It can't be reached, or it refused the query.
        """
        request = AWSRequest(
            "POST", self.url, data=json.dumps({"query": query}), headers={"Content-Type": "application/json"}
        )
        # Signed as it is sent, path included: the emulator's has its own prefix.
        SigV4Auth(self.credentials, "execute-api", self.region).add_auth(request)
        try:
            response = web.send(request, verify=self.verify, timeout=35)
        except BotoCoreError as error:
            raise LocalError(f"The router at {self.url} can't be reached: {error}") from error
        if response.status_code != 200:
            said = response.text.strip()
            raise LocalError(f"The router answered {response.status_code} to {query!r}: {said}")
        answer: dict[str, Any] = json.loads(response.content)
        return answer


def local_router(state: State, outputs: Mapping[str, Mapping[str, str]] | None = None) -> Router:
    """Return the router of the local system.

    Raises:
        LocalError: It does not run, or is not deployed.
    """
    if servers.running(state) is None:
        raise LocalError("The local system does not run.", advice="Start it with `make local`.")
    stack = f"{settings.load(ENVIRONMENT, state.environments).owner}-router"
    try:
        variables = environment.read(state.env)
        api = (outputs or json.loads(state.outputs.read_text()))[stack]["ApiId"]
    except (OSError, KeyError, ValueError) as error:
        raise LocalError("The local system is not deployed.", advice="Run `make local` first.") from error
    return Router(
        url=f"{variables['AWS_ENDPOINT_URL']}/_aws/execute-api/{api}/$default/route",
        region=variables["AWS_REGION"],
        credentials=Credentials(variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"]),
        verify=variables["AWS_CA_BUNDLE"],
    )


def deployed_router(name: str) -> Router:
    """Return the router of an environment in AWS, found with the caller's own credentials.

    Raises:
        LocalError: No credentials, no access or no such stack.
    """
    chosen = settings.load(name)
    stack = f"{chosen.owner}-router"
    try:
        session = boto3.Session(region_name=chosen.region)
        described = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
        url = outputs["ApiUrl"].rstrip("/")
    except (BotoCoreError, ClientError, KeyError) as error:
        raise LocalError(
            f"The stack {stack} can't be read in {chosen.region}: {error}",
            advice="Check that it is deployed, and that this shell has credentials of its account.",
        ) from error
    return Router(url=f"{url}/route", region=chosen.region, credentials=session.get_credentials())


def router(name: str, state: State) -> Router:
    """Return the router of an environment."""
    return local_router(state) if name == ENVIRONMENT else deployed_router(name)


def read(path: Path) -> list[str]:
    """Read queries, one a line; empty lines and those that start with `#` don't count."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise LocalError(f"The queries can't be read: {path}: {error.strerror}") from error
    return [line for line in lines if line and not line.startswith("#")]


def table(answers: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Lay queries and answers out: query, one column per label, source, the router's own latency."""
    labels = list(answers[0][1]["weights"]) if answers else []
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))  # so that 80 columns do
    result.add_column("query", no_wrap=True)
    for label in labels:
        result.add_column(label, justify="right", no_wrap=True)
    result.add_column("source", no_wrap=True)
    result.add_column("latency", justify="right", no_wrap=True)
    for query, answer in answers:
        weights = [f"{float(answer['weights'][label]):.2f}" for label in labels]
        latency = f"{float(answer['latency_ms']):.0f} ms"
        result.add_row(escape(query), *weights, str(answer["source"]), latency)
    return result
