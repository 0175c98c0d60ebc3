"""A worse model is refused while the live release keeps answering, with the commands of `make local`.

The tests run in the order of the file and build on each other.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from distilled_router.data.conversation import Example, examples, row
from tests.integration.conftest import TASK, LocalSystem, assert_destroyed_whole, is_valid

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("worse-model")]

# Sources of a release's own answers.
OF_THE_RELEASE = ("distilled", "head")


class Traffic:
    """Sends one query after another until the block ends, and counts the answers."""

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
        self._thread.join()

    def _run(self) -> None:
        number = 0
        while not self._stop.is_set():
            try:
                self.answers.append(self._ask(self._asked[number % len(self._asked)].query))
            except Exception as error:  # any error means a query without an answer
                self.failures.append(repr(error))
            number += 1
            time.sleep(0.1)


def test_a_good_model_goes_live(system: LocalSystem) -> None:
    result = system.up()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert system.router().ask(system.asked[0].query)["source"] in OF_THE_RELEASE


def test_a_worse_model_is_refused_and_the_live_release_stays(system: LocalSystem) -> None:
    """With shuffled labels, the job succeeds, the gate refuses, and the waiting stack rolls back."""
    good = system.router().ask(system.asked[0].query)["release"]
    kept = {name: (system.root / name).read_bytes() for name in ("training.jsonl", "holdout.jsonl")}
    rows = list(examples(kept["training.jsonl"].decode().splitlines(), TASK))
    labels = [example.weights for example in rows]
    Random(1).shuffle(labels)
    shuffled = [Example(example.query, weights) for example, weights in zip(rows, labels, strict=True)]
    system.train_on(shuffled, system.asked)
    # Bypass the cache, which answers whatever happens to the endpoint.
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
    assert {a["release"] for a in traffic.answers if a["source"] in OF_THE_RELEASE} == {good}
    assert system.calls("CreateModelCustomizationJob") == 2
    deployments = [found["name"] for found in system.bedrock("/_state")["deployments"]]
    assert [name.endswith(good) for name in deployments] == [True]


def test_going_back_to_the_good_data_pays_nothing(system: LocalSystem) -> None:
    result = system.up()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert system.calls("CreateModelCustomizationJob") == 2
    # The refused model's job is not declared any more, so its model goes with the next sweep.
    system.sweep()
    assert len(system.bedrock("/_state")["models"]) == 1
    assert system.router().ask(system.asked[1].query)["source"] in OF_THE_RELEASE


def test_another_holdout_set_evaluates_the_live_release_again_and_pays_no_job(system: LocalSystem) -> None:
    """It passes on a shorter set. On one with wrong references it stays live, and the deployment fails."""
    good = system.router().ask(system.asked[2].query)["release"]
    holdout = system.root / "holdout.jsonl"
    kept, asked = holdout.read_bytes(), system.calls("Converse")
    holdout.write_bytes(b"".join(kept.splitlines(keepends=True)[:-1]))
    result = system.up()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert system.calls("Converse") >= asked + len(kept.splitlines()) - 1

    rows = list(examples(kept.decode().splitlines(), TASK))
    labels = [example.weights for example in rows]
    Random(2).shuffle(labels)
    wrong = [Example(example.query, weights) for example, weights in zip(rows, labels, strict=True)]
    holdout.write_text("".join(json.dumps(row(TASK, one.query, one.weights)) + "\n" for one in wrong))
    result = system.up()
    holdout.write_bytes(kept)
    assert result.returncode != 0
    assert "refused by the gate" in result.stdout + result.stderr
    answer = system.router().ask(f"{system.asked[3].query} once more")
    assert answer["source"] in OF_THE_RELEASE
    assert answer["release"] == good
    assert system.calls("CreateModelCustomizationJob") == 2

    result = system.up()
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    assert system.calls("CreateModelCustomizationJob") == 2


def test_destroy_leaves_nothing_that_costs_money(system: LocalSystem) -> None:
    assert_destroyed_whole(system)
