"""Ask a deployed router one query, and print its answer as JSON.

The request goes to the router's HTTP API, signed with your credentials.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError, ClientError
from rich import box
from rich.table import Table
from rich.text import Text

from distilled_router.visible import visible
from operate import environment, web
from operate.environment import Environment
from operate.errors import OperateError
from operate.printing import out

EXAMPLES = """\
  python -m operate route "red car driving at night"
  python -m operate route --environment dev "the speech about the moon"
  python -m operate route --environment dev -- "-5 degrees in the mountains"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser, default=environment.LOCAL)
    parser.add_argument("query", help="what to ask; after -- if it begins with a dash")


def run(options: argparse.Namespace) -> int:
    """Ask the router and print its answer."""
    answer = router(environment.reach(options.environment)).ask(options.query)
    out(json.dumps(answer, indent=2))
    return 0


@dataclass(frozen=True)
class Router:
    """A router's URL, and what requests to it are signed with."""

    url: str
    region: str
    credentials: Any
    # File with the certificate authorities to trust; the public ones if there is none.
    verify: str | None = None

    def ask(self, query: str) -> dict[str, Any]:
        """Send one query and return the router's answer.

        Raises:
            OperateError: The router can't be reached, or refused the query.
        """
        request = AWSRequest(
            "POST", self.url, data=json.dumps({"query": query}), headers={"Content-Type": "application/json"}
        )
        SigV4Auth(self.credentials, "execute-api", self.region).add_auth(request)
        try:
            response = web.send(request, verify=self.verify, timeout=35)
        except BotoCoreError as error:
            raise OperateError(f"The router at {self.url} can't be reached: {error}") from error
        if response.status_code != 200:
            said = response.text.strip()
            raise OperateError(f"The router answered {response.status_code} to {query!r}: {said}")
        answer: dict[str, Any] = json.loads(response.content)
        return answer


def router(at: Environment) -> Router:
    """Return the router of a deployed environment.

    Raises:
        OperateError: No credentials, no access or no such stack.
    """
    stack, region = f"{at.settings.owner}-router", at.settings.region
    try:
        described = at.aws.cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
        url = api_url(outputs, at.variables)
    except (BotoCoreError, ClientError, KeyError) as error:
        raise OperateError(
            f"The stack {stack} can't be read in {region}: {error}",
            advice=at.access_advice,
        ) from error
    return Router(
        url=f"{url}/route",
        region=region,
        credentials=at.aws.session.get_credentials(),
        verify=at.variables.get("AWS_CA_BUNDLE"),
    )


def api_url(outputs: Mapping[str, str], variables: Mapping[str, str]) -> str:
    """Return the URL of the router's HTTP API.

    EXECUTE_API_URL, such as `https://127.0.0.1:4566/{api}`, replaces the one that AWS gives to an API.
    """
    if form := variables.get("EXECUTE_API_URL"):
        return form.format(api=outputs["ApiId"])
    return outputs["ApiUrl"].rstrip("/")


def read(path: Path) -> list[str]:
    """Read queries, one a line, without empty lines and lines that start with `#`."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError as error:
        raise OperateError(f"The queries can't be read: {path}: {error.strerror}") from error
    return [line for line in lines if line and not line.startswith("#")]


def table(answers: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """Return a table of queries and answers: one column for each label, the source, the router's latency."""
    labels = list(answers[0][1]["weights"]) if answers else []
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))  # so that 80 columns do
    # The only column that may become narrower, by a shortened query.
    result.add_column("query", min_width=8)
    for label in labels:
        result.add_column(label, justify="right", no_wrap=True)
    result.add_column("source", no_wrap=True)
    result.add_column("latency", justify="right", no_wrap=True)
    for query, answer in answers:
        weights = [f"{float(answer['weights'][label]):.2f}" for label in labels]
        latency = f"{float(answer['latency_ms']):.0f} ms"
        shown = Text(visible(query), no_wrap=True, overflow="ellipsis")
        result.add_row(shown, *weights, str(answer["source"]), latency)
    return result
