"""A live release that is evaluated again, on another hold-out set."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from candidate.deploy_candidate import deploy
from distilled_router.release.route import Share
from distilled_router.release.table import LIVE
from tests.unit.candidate.polls import candidate_env
from tests.unit.evaluation.court import DATA, LAX, Court
from tests.unit.release_world import A, World

OLD, NEW = "datasets/d/holdout.jsonl", "datasets/e/holdout.jsonl"
ROWS = (DATA / "holdout.jsonl").read_text().splitlines()[40:80]


def evaluated_again(world: World, court: Court) -> None:
    """Make A live, and begin its evaluation on NEW."""
    court.candidate()
    endpoint = world.release(A).endpoint
    world.releases.update(A, holdout_key=OLD, passed_on=OLD, endpoint="arn:elsewhere")
    releases = world.releases
    releases.move_with_route(A, LIVE, "serves", (Share(A, endpoint, 1.0),), after=releases.route())
    world.s3.put_object(Bucket=world.bucket, Key=NEW, Body="\n".join(ROWS).encode())
    assert world.releases.begin_again(
        A, attempt=2, execution=world.execution(A, 2), request_id="request-2", holdout_key=NEW
    )


@pytest.mark.parametrize("passes", [True, False])
def test_live_release_is_evaluated_where_it_serves_and_stays_live(
    world: World, court: Court, passes: bool
) -> None:
    """The report and the message say what was evaluated, on what, and how to go back."""
    evaluated_again(world, court)
    result = court.evaluate(gate=LAX if passes else replace(LAX, minimum_examples=41), holdout_key=OLD)
    found = world.release(A)
    assert (found.state, found.is_reevaluated) == (LIVE, True)
    assert found.holdout_sha256 == hashlib.sha256("\n".join(ROWS).encode()).hexdigest()
    assert found.passed_on == (NEW if passes else OLD)
    report = court.report()
    assert report["reevaluated"]
    assert report["data"]["holdout"].endswith(NEW)
    assert report["data"]["holdout_sha256"] == found.holdout_sha256
    assert set(report["contenders"]) >= {"candidate", "static"}
    assert "live" not in report["contenders"]
    assert report["contenders"]["candidate"]["endpoint"] == world.releases.route().shares[0].endpoint
    assert result["outcome"] == ("done" if passes else "failed")
    if not passes:
        assert result["message"].startswith("refused by the gate: ")
        assert f"{NEW}, and continues to serve" in result["message"]
        assert result["message"].endswith("To go back to the release before it: `make rollback`.")
    page = court.world.s3.get_object(Bucket=world.bucket, Key=court.keys("report.html")[0])
    assert "evaluated again on another hold-out set" in page["Body"].read().decode()


def test_nothing_is_deployed_for_it(world: World, court: Court) -> None:
    evaluated_again(world, court)
    before = world.calls("CreateCustomModelDeployment")
    assert deploy(A, world.bedrock, world.releases, candidate_env())["outcome"] == "done"
    assert world.calls("CreateCustomModelDeployment") == before
    assert world.release(A).state == LIVE
