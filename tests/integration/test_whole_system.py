"""The deployment of `make local`, whole: deployed, asked, deployed again, updated, destroyed.

The tests run in the order of the file and build on each other, as a platform team's week does. They train on
real labels and route real queries where the real data lies beside the project, else on the sample data.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest

from distilled_router.data.conversation import Example, examples
from distilled_router.task.task import Task
from operate import route, web
from tests.integration.conftest import LocalSystem
from tests.permissions.calls import check

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("integration")]

PAID = ("CreateModelCustomizationJob", "CreateCustomModelDeployment", "CreateProvisionedModelThroughput")
TASK = Task.load()


def is_valid(answer: dict[str, Any]) -> bool:
    """Whether an answer has a weight for every label, together 1."""
    weights = answer["weights"]
    return set(weights) == set(TASK.labels) and abs(sum(weights.values()) - 1) < 1e-6


def send(router: route.Router, body: bytes) -> tuple[int, dict[str, Any]]:
    """Send any body, signed."""
    request = AWSRequest("POST", router.url, data=body, headers={"Content-Type": "application/json"})
    SigV4Auth(router.credentials, "execute-api", router.region).add_auth(request)
    answer = web.send(request, verify=router.verify, timeout=35)
    return answer.status_code, json.loads(answer.content)


class Traffic:
    """Asks one query after another until the block ends, and counts what came back."""

    def __init__(self, ask: Callable[[str], dict[str, Any]], asked: list[Example]) -> None:
        self._ask, self._asked = ask, asked
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.answers: list[dict[str, Any]] = []
        self.failures: list[str] = []

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=40)

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            try:
                self.answers.append(self._ask(self._asked[number % len(self._asked)].query))
            except Exception as error:  # whatever it is, a query went unanswered
                self.failures.append(repr(error))
            number += 1
            time.sleep(0.1)


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


def test_queries_are_answered_by_the_student_and_mostly_right(system: LocalSystem) -> None:
    router = system.router()
    answers = [(example, router.ask(example.query)) for example in system.asked[:60]]
    assert all(is_valid(answer) for _, answer in answers)
    assert {answer["source"] for _, answer in answers} == {"distilled"}
    right = sum(answer["intent"] in TASK.dominants(example.weights) for example, answer in answers)
    assert right / len(answers) > 0.7


@pytest.mark.parametrize("body", [b"no json", b"{}", b'{"query": "  "}', b'{"query": 7}', b"[]"])
def test_bad_input_is_told_what_is_wrong(system: LocalSystem, body: bytes) -> None:
    status, answer = send(system.router(), body)
    assert status == 400
    assert answer["error"]
    assert answer["message"]


def test_an_unsigned_request_is_refused(system: LocalSystem) -> None:
    import ssl

    router = system.router()
    request = Request(router.url, data=b'{"query": "red car"}', method="POST")  # our own server
    with pytest.raises(HTTPError) as refusal:
        urlopen(request, timeout=10, context=ssl.create_default_context(cafile=router.verify))
    assert refusal.value.code == 403


def test_a_second_run_creates_nothing(system: LocalSystem) -> None:
    before = {name: system.calls(name) for name in PAID}
    started = time.monotonic()
    result = system.up()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert result.stdout.count("no change") == 5
    assert {name: system.calls(name) for name in PAID} == before
    assert time.monotonic() - started < 120


@pytest.mark.slow
def test_a_worse_model_is_refused_and_the_old_one_serves_on(system: LocalSystem) -> None:
    """Labels dealt out at random: the job succeeds, the gate refuses, the stack that waits rolls back."""
    good = system.router().ask(system.asked[0].query)["release"]
    kept = {name: (system.root / name).read_bytes() for name in ("training.jsonl", "holdout.jsonl")}
    rows = list(examples(kept["training.jsonl"].decode().splitlines(), TASK))
    labels = [example.weights for example in rows]
    Random(1).shuffle(labels)
    shuffled = [Example(example.query, weights) for example, weights in zip(rows, labels, strict=True)]
    system.train_on(shuffled, system.asked)
    # Asked past the cache, which would answer whatever became of the endpoint.
    fresh = [
        Example(f"{example.query} again {number}", {}) for number, example in enumerate(system.asked * 9)
    ]
    with Traffic(system.router().ask, fresh) as traffic:
        result = system.up()
    for name, content in kept.items():
        (system.root / name).write_bytes(content)

    assert result.returncode != 0
    assert "refused by the gate" in result.stdout + result.stderr
    assert traffic.failures == []
    assert all(is_valid(answer) for answer in traffic.answers)
    assert {answer["release"] for answer in traffic.answers if answer["source"] == "distilled"} == {good}
    assert system.calls("CreateModelCustomizationJob") == 2
    deployments = [found["name"] for found in system.bedrock("/_state")["deployments"]]
    assert [name.endswith(good) for name in deployments] == [True]


@pytest.mark.slow
def test_going_back_to_the_good_data_pays_nothing(system: LocalSystem) -> None:
    result = system.up()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert system.calls("CreateModelCustomizationJob") == 2
    assert len(system.bedrock("/_state")["models"]) == 1
    assert system.router().ask(system.asked[1].query)["source"] == "distilled"


def test_destroy_leaves_nothing_that_costs(system: LocalSystem) -> None:
    system.destroy()
    left = system.bedrock("/_state")
    assert left["deployments"] == []
    assert left["throughput"] == []
    assert left["models"] == []
    assert {job["status"] for job in left["jobs"]} <= {"Completed", "Stopped", "Failed"}
    assert check(system.asked_of_iam()) == []
    result = system.run("down")
    assert result.returncode == 0, result.stdout + result.stderr
    assert not system.state.servers.exists()
