"""The deployment of `make local`: deploy, query, deploy again, destroy.

The tests run in the order of the file and build on each other, as a platform team's week does. They train on
real labels and route real queries if the real data is present, otherwise on the sample data.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from operate import route, web
from operate.environment import without_aws
from stacks.settings import PROJECT
from tests.integration.conftest import TASK, LocalSystem, assert_destroyed_whole, is_valid

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("integration")]

PAID = ("CreateModelCustomizationJob", "CreateCustomModelDeployment", "CreateProvisionedModelThroughput")


def send(router: route.Router, body: bytes) -> tuple[int, dict[str, Any]]:
    """Send any body, signed."""
    request = AWSRequest("POST", router.url, data=body, headers={"Content-Type": "application/json"})
    SigV4Auth(router.credentials, "execute-api", router.region).add_auth(request)
    answer = web.send(request, verify=router.verify, timeout=120)
    return answer.status_code, json.loads(answer.content)


def test_one_command_deploys_trains_and_routes(system: LocalSystem) -> None:
    result = system.up()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert "live" in result.stdout
    assert "make local-down" in result.stdout
    assert {name: system.calls(name) for name in PAID} == {
        "CreateModelCustomizationJob": 1,
        "CreateCustomModelDeployment": 1,
        "CreateProvisionedModelThroughput": 0,
    }


def test_the_student_answers_most_queries_correctly(system: LocalSystem) -> None:
    router = system.router()
    answers = [(example, router.ask(example.query)) for example in system.asked[:60]]
    assert all(is_valid(answer) for _, answer in answers)
    assert {answer["source"] for _, answer in answers} == {"distilled", "head"}
    right = sum(answer["intent"] in TASK.dominants(example.weights) for example, answer in answers)
    assert right / len(answers) > 0.7


def test_client_in_the_docs_works_as_documented(system: LocalSystem, tmp_path: Path) -> None:
    page = (PROJECT / "docs" / "router.md").read_text(encoding="utf-8")
    client, steps = re.findall(r"^```(?:python|sh)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[:2]
    (tmp_path / "ask.py").write_text(client, encoding="utf-8")
    (tmp_path / ".local").symlink_to(system.state.root)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["/bin/sh", "-ec", steps],
        cwd=tmp_path,
        env=without_aws() | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    status, _, answer = ran.stdout.partition(" ")
    assert status == "200"
    assert is_valid(ast.literal_eval(answer))


@pytest.mark.parametrize("body", [b"no json", b"{}", b'{"query": "  "}', b'{"query": 7}', b"[]"])
def test_invalid_input_gets_an_error_that_says_why(system: LocalSystem, body: bytes) -> None:
    status, answer = send(system.router(), body)
    assert status == 400
    assert answer["error"]
    assert answer["message"]


def test_an_unsigned_request_is_refused(system: LocalSystem) -> None:
    import ssl

    router = system.router()
    request = Request(router.url, data=b'{"query": "red car"}', method="POST")  # our own server
    with pytest.raises(HTTPError) as refusal:
        urlopen(request, timeout=120, context=ssl.create_default_context(cafile=router.verify))
    assert refusal.value.code == 403


def test_a_second_run_creates_nothing(system: LocalSystem) -> None:
    before = {name: system.calls(name) for name in PAID}
    result = system.up()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert result.stdout.count("no change") == 5
    assert {name: system.calls(name) for name in PAID} == before


def test_destroy_leaves_nothing_that_costs_money(system: LocalSystem) -> None:
    assert_destroyed_whole(system)
