"""The table of all releases, and the notes below it."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from distilled_router.bedrock.ownership import Claimant
from distilled_router.release.route import Route, Share
from distilled_router.release.table import FAILED, LIVE, RETIRED, ROLLING_OUT, Release, Releases
from operate import releases as command
from operate.console import Terminal
from operate.deployed import Deployed, Known, duration, endpoint_name
from operate.errors import OperateError
from tests.unit.hostile import HOSTILE, controls

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
DEPLOYMENT = "arn:aws:bedrock:us-east-1:000000000000:custom-model-deployment/abc"
THROUGHPUT = "arn:aws:bedrock:us-east-1:000000000000:provisioned-model/abc"
NOW = 1_800_000_000
SCORES = {"valid_output": 0.995, "dominant_accuracy": 0.91, "mean_absolute_error": 0.0312}


@pytest.fixture
def at(releases: Releases) -> Deployed:
    releases.now = lambda: NOW - 3600
    return Deployed("local", releases.owner, 1, None, None, releases.table, lambda: NOW)


def begin(releases: Releases, digest: str, ago: int, state: str, **fields: Any) -> None:
    releases.begin(digest, attempt=1, execution="", request_id="r")
    releases.update(digest, state=state, started_at=NOW - ago, **fields)


def shown(at: Deployed) -> str:
    out = io.StringIO()
    command.show(at, Terminal(file=out, width=60))
    return out.getvalue()


def row(text: str, digest: str) -> str:
    return next(line for line in text.splitlines() if line.lstrip().startswith(digest))


def test_the_live_one_comes_first_then_the_newest(at: Deployed, releases: Releases) -> None:
    begin(releases, A, 900, RETIRED)
    begin(releases, B, 800, LIVE)
    begin(releases, C, 100, FAILED)
    lines = shown(at).splitlines()
    found = [line.strip()[:12] for line in lines if line.strip()[:12] in {A, B, C}]
    assert found == [B, C, A] * 2


def test_a_row_says_what_a_release_scored_costs_and_serves_from(at: Deployed, releases: Releases) -> None:
    scores = json.dumps({**SCORES, "cost_per_1000_usd": 0.0025})
    begin(releases, B, 7260, LIVE, scores=scores, report="s3://data/report.json", endpoint=DEPLOYMENT)
    releases.set_route((Share(B, THROUGHPUT, 1.0),), after=releases.route(), reason="serves all requests")
    text = shown(at)
    line = row(text, B)
    for part in ("live", "100%", "99.5%", "91.0%", "0.031", "0.0025", " 2 h "):
        assert part in line
    assert "throughput abc" in line
    assert "    s3://data/report.json" in text
    assert "Route: version 1, 1 h 0 min ago: serves all requests." in text


def test_warnings_of_a_live_release_are_shown(at: Deployed, releases: Releases) -> None:
    begin(releases, A, 60, LIVE, message="serves all requests", warnings="the base model never answered")
    assert "Warning: the base model never answered" in shown(at)


def test_release_without_scores_or_with_broken_ones_is_shown(at: Deployed, releases: Releases) -> None:
    begin(releases, A, 60, FAILED, message="refused by [the gate]", scores="oops")
    begin(releases, B, 50, FAILED, scores=json.dumps({"valid_output": None, "dominant_accuracy": 0.5}))
    begin(releases, C, 40, FAILED, scores="[]", message="x " * 300)
    text = shown(at)
    assert f"{A}, 1 h 0 min ago: refused by [the gate]" in text
    assert "50.0%" in row(text, B)
    assert "x x …\n" in text


def test_findings_of_the_gate_are_shown_line_by_line(at: Deployed, releases: Releases) -> None:
    message = (
        "refused by the gate: 1 of 9 checks failed. Next: read it.\n- Valid output for 90.0%.\nWarning: odd"
    )
    begin(releases, A, 60, FAILED, message=message, warnings="odd")
    text = shown(at)
    assert (
        f"{A}, 1 h 0 min ago: refused by the gate: 1 of 9 checks failed. Next: read it.\n"
        "    - Valid output for 90.0%.\n"
        "    Warning: odd\n"
    ) in text
    assert text.count("odd") == 1


def test_no_text_of_the_table_controls_the_terminal(at: Deployed, releases: Releases) -> None:
    hostile = HOSTILE.replace("\ud800", "")  # DynamoDB stores UTF-8
    begin(releases, A, 60, FAILED, message=f"refused: {hostile}", report=hostile, endpoint=hostile)
    releases.set_route((Share(A, hostile, 1.0),), after=releases.route(), reason=hostile)
    text = shown(at)
    assert "\\u001b]0;title" in text
    assert controls(text) == []


def test_partial_share_shows_how_long_it_holds(at: Deployed, releases: Releases) -> None:
    begin(releases, A, 900, LIVE)
    begin(releases, B, 60, ROLLING_OUT)
    shares = (Share(B, "arn:b", 0.25, expires_at=NOW + 125), Share(A, "arn:a", 0.75))
    releases.set_route(shares, after=releases.route(), reason="step")
    text = shown(at)
    assert "75%" in row(text, A)
    assert " 25% " in row(text, B)
    assert "    25% for 2 min 5 s of the requests\n" in text


def test_share_that_has_expired_takes_nothing() -> None:
    route = Route(shares=(Share(B, "arn:b", 0.25, expires_at=NOW - 1), Share(A, "arn:a", 0.75)))
    assert (command.shares(A, route, NOW), command.shares(B, route, NOW)) == (["100%"], ["0%, expired"])
    assert command.shares(C, route, NOW) == []


def test_release_that_moves_its_own_endpoint_has_two_shares() -> None:
    route = Route(shares=(Share(A, "arn:b", 0.25, expires_at=NOW + 5), Share(A, "arn:a", 0.75)))
    assert command.shares(A, route, NOW) == ["75%", "25% for 5 s"]


def test_declared_release_and_reason_of_the_route_are_shown(at: Deployed, releases: Releases) -> None:
    begin(releases, A, 60, FAILED)
    text = shown(at)
    assert "no route item" in text
    assert "The base model takes 100% of the requests" in text
    assert "The stack declares no release" in text
    releases.declarations.declare(Claimant("stack", "Release"), A)
    assert f"The stack declares {A}." in shown(at)


def test_broken_route_is_shown_with_the_last_good_one(at: Deployed, releases: Releases) -> None:
    begin(releases, A, 60, LIVE)
    releases.set_route((Share(A, "arn:a", 1.0),), after=releases.route(), reason="serves all requests")
    releases.table.put_item(Item={"id": releases.key("route"), "version": "none"})
    text = shown(at)
    assert "The route item is broken: the route item's version is not a whole number" in text
    assert "100%" in row(text, A)


def test_release_that_was_rolled_back_is_marked(at: Deployed, releases: Releases) -> None:
    begin(releases, A, 60, RETIRED, rolled_back=NOW, message="edited since")
    assert "rolled back; edited since" in shown(at)
    assert command.table([Known(Release(A))], Route(), NOW).row_count == 1


def test_environment_without_releases_says_what_begins_one(at: Deployed) -> None:
    with pytest.raises(OperateError, match="No release has begun yet in router") as caught:
        shown(at)
    assert "`make deploy` begins one" in caught.value.advice


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (3660, "1 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_endpoints_are_named_in_short() -> None:
    assert [endpoint_name(arn) for arn in (DEPLOYMENT, THROUGHPUT, "")] == [
        "on demand",
        "throughput abc",
        "",
    ]


def test_live_release_that_has_not_passed_on_another_holdout_set_is_told(
    at: Deployed, releases: Releases
) -> None:
    begin(releases, A, 900, RETIRED, holdout_key="datasets/1/holdout.jsonl")
    begin(
        releases, B, 800, LIVE, holdout_key="datasets/1/holdout.jsonl", passed_on="datasets/1/holdout.jsonl"
    )
    assert "hold-out set datasets/1/holdout.jsonl\n" in shown(at)
    assert "not passed yet" not in shown(at)
    releases.begin_again(B, attempt=2, execution="", request_id="s", holdout_key="datasets/2/holdout.jsonl")
    releases.end_again(B, "not passed on another hold-out set: refused by the gate")
    text = shown(at)
    assert "serves all requests; not passed on another hold-out set: refused by the gate" in text
    assert "hold-out set datasets/2/holdout.jsonl, not passed yet" in text


def test_head_of_a_release_and_the_switch_are_shown_only_where_they_are(
    at: Deployed, releases: Releases
) -> None:
    begin(releases, A, 900, RETIRED, head="releases/o/a-1/head.bin", head_sha256="0" * 64)
    begin(releases, B, 800, LIVE)
    text = shown(at)
    assert text.count("    with a classification head") == 1
    assert text.index("    with a classification head") > text.rindex(A)
    assert "switched off" not in text
    releases.switch_heads(off=True, after=releases.route(), reason="by hand")
    assert "Classification heads are switched off: `make head-on ENV=local` switches them on." in shown(at)
