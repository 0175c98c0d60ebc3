"""A classification head from its training to its answers: in a release, in the route, and switched off."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from distilled_router.data.conversation import examples
from distilled_router.release.route import HeadFile
from distilled_router.release.table import LIVE
from stacks.settings import PROJECT, load
from tests.engine.engine import Engine, until
from tests.engine.system import SHORT, TASK, System, changed, variant

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("engine-heads")]

WAIT_SCALE = 0.03
ASKED = 40


def test_head_is_trained_with_a_release_answers_and_is_switched_off(engine: Engine, tmp_path: Path) -> None:
    """It takes the whole sample, since a smaller hold-out set shows too little for a threshold."""
    settings = changed(load("local"), SHORT, {"head": {"mode": "first", "explore_share": 0.0}})
    declared = variant("heads", tmp_path / "assembly", settings)
    engine.publish(declared.assembly)
    for stack, template in declared.templates.items():
        outcome = engine.deploy(f"{declared.owner}-{stack}", template)
        assert outcome.succeeded, outcome
    system = System(engine, declared)
    releases = system.releases()

    def ended() -> str | None:
        release = releases.get(declared.digest)
        return release.state if release and release.is_final else None

    assert until(ended) == LIVE, releases.get(declared.digest)

    release = releases.get(declared.digest)
    assert release is not None
    (share,) = releases.route().shares
    assert share.head == HeadFile(release.head, release.head_sha256)
    bucket = system.physical("data", "Data")
    folder = release.head.rpartition("/")[0]
    objects = engine.aws("s3")
    report = json.loads(objects.get_object(Bucket=bucket, Key=f"{folder}/report.json")["Body"].read())
    assert report["head"]["coverage"] > 0.3

    with (PROJECT / "data" / "holdout.jsonl").open(encoding="utf-8") as lines:
        rows = list(examples(lines, TASK))[:ASKED]

    def by_head() -> bool:
        """Return whether the head answers some queries. It is sure of some of these once it is loaded."""
        sources = {system.router().ask(f"{row.query} {time.monotonic()}")["source"] for row in rows[:10]}
        return "head" in sources

    until(by_head)
    answers = [system.router().ask(row.query) for row in rows[1:]]
    assert {answer["source"] for answer in answers} == {"head", "distilled"}
    assert {(answer["release"], answer["reason"]) for answer in answers} == {(declared.digest, None)}
    right = [a["intent"] in TASK.dominants(row.weights) for a, row in zip(answers, rows[1:], strict=True)]
    assert sum(right) / len(right) > 0.8

    releases.switch_heads(off=True, after=releases.route(), reason="a test switches heads off")
    until(lambda: not by_head())
    sources = {system.router().ask(f"{row.query} again")["source"] for row in rows}
    assert sources == {"distilled"}
