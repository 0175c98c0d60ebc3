"""Following a release: what is shown, and how it ends."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from distilled_router.release.route import Share
from distilled_router.release.table import (
    EVALUATING,
    FAILED,
    LIVE,
    RETIRED,
    ROLLING_OUT,
    SUPERSEDED,
    Releases,
)
from operate import watch
from operate.console import Terminal
from operate.deployed import Deployed
from operate.errors import OperateError
from tests.unit.hostile import HOSTILE, controls

A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
NOW = 1_800_000_000.0


class Services:
    """One customization job, and the map runs of executions."""

    def __init__(self) -> None:
        self.counts: dict[str, dict[str, int]] = {}
        self.denied = False

    def get_model_customization_job(self, **named: str) -> dict[str, Any]:
        name = named["jobIdentifier"]
        if self.denied or name != f"router-{A}":
            error = "AccessDeniedException" if self.denied else "ResourceNotFoundException"
            raise ClientError({"Error": {"Code": error}}, "GetModelCustomizationJob")
        details = {"validationDetails": {"status": "Completed"}, "trainingDetails": {"status": "InProgress"}}
        return {"jobName": name, "status": "InProgress", "statusDetails": details}

    def list_map_runs(self, **named: str) -> dict[str, Any]:
        runs = [named["executionArn"]] if named["executionArn"] in self.counts else []
        return {"mapRuns": [{"mapRunArn": arn, "startDate": 1} for arn in runs]}

    def describe_map_run(self, **named: str) -> dict[str, Any]:
        none = dict.fromkeys(("succeeded", "failed", "timedOut", "aborted", "total"), 0)
        return {"itemCounts": none | self.counts[named["mapRunArn"]]}


@pytest.fixture
def services() -> Services:
    return Services()


@pytest.fixture
def at(releases: Releases, services: Services) -> Deployed:
    releases.now = lambda: NOW - 60
    return Deployed("local", releases.owner, 1, services, services, releases.table, lambda: NOW)


def begin(releases: Releases, digest: str = A) -> None:
    source = f"router-{digest}"
    releases.begin(digest, attempt=1, execution="arn:e", request_id="r", source=source)


def followed(at: Deployed, *happens: Callable[[], object], terminal: bool = False) -> tuple[int, str]:
    """Follow a release while these things happen, one between two polls."""
    left = list(happens)
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=terminal, width=120)

    def sleep(_: float) -> None:
        left.pop(0)()

    return watch.follow(at, console, sleep), out.getvalue()


def test_every_change_is_one_line_and_live_is_success(at: Deployed, releases: Releases) -> None:
    begin(releases)
    status, text = followed(
        at,
        lambda: None,
        lambda: releases.transition(A, EVALUATING, "the hold-out set is being asked"),
        lambda: releases.transition(A, LIVE, "serves all requests"),
    )
    assert status == 0
    lines = [line.strip() for line in text.splitlines()]
    assert lines == [
        f"1 min 0 s  release: {A}, attempt 1",
        "1 min 0 s  waiting: the release starts",
        f"1 min 0 s  job: router-{A} InProgress: validation Completed, training InProgress",
        "1 min 0 s  evaluating: the hold-out set is being asked",
        f"Release {A}, live: serves all requests",
    ]


@pytest.mark.parametrize("state", [FAILED, SUPERSEDED, RETIRED])
def test_other_ends_are_failures_with_reason_and_report(at: Deployed, releases: Releases, state: str) -> None:
    begin(releases)
    status, text = followed(
        at, lambda: releases.update(A, state=state, message="too [bad]", report="s3://data/report.json")
    )
    assert status == 1
    assert text.endswith(f"Release {A}, {state}: too [bad]\nReport: s3://data/report.json\n")


def test_without_a_running_release_the_last_one_is_shown(at: Deployed, releases: Releases) -> None:
    begin(releases, B)
    releases.update(B, state=FAILED)
    releases.now = lambda: NOW
    begin(releases)
    releases.update(A, state=LIVE, message="serves all requests")
    status, text = followed(at)
    assert status == 0
    assert text.startswith("No release is running. The last one:")
    assert f"{A}, live" in text


def test_running_release_is_followed_also_if_another_began_later(at: Deployed, releases: Releases) -> None:
    begin(releases, B)
    releases.now = lambda: NOW
    begin(releases)
    releases.update(A, state=FAILED)
    assert followed(at, lambda: releases.update(B, state=LIVE))[0] == 0


def test_environment_without_releases_can_not_be_followed(at: Deployed) -> None:
    with pytest.raises(OperateError, match="No release has begun"):
        followed(at)


def test_labelling_and_hold_out_show_their_shards(
    at: Deployed, releases: Releases, services: Services
) -> None:
    begin(releases)
    releases.update(A, labelling="arn:labelling")
    services.counts = {
        "arn:labelling": {"succeeded": 3, "total": 8},
        "arn:e": {"succeeded": 3, "failed": 1, "timedOut": 1, "total": 5},
    }
    _, text = followed(
        at,
        lambda: services.counts["arn:labelling"].update(succeeded=4),
        lambda: releases.transition(A, EVALUATING, "asked"),
        lambda: releases.transition(A, LIVE, ""),
    )
    assert "labelling: 3 of 8 shards\n" in text
    assert "labelling: 4 of 8 shards\n" in text
    assert "hold-out: 5 of 5 shards, 2 of them failed\n" in text
    assert ", live: no reason given" in text


def test_rollout_shows_share_and_version_of_the_route(at: Deployed, releases: Releases) -> None:
    begin(releases)
    releases.move_with_route(
        A,
        ROLLING_OUT,
        "25% of the requests",
        (Share(A, "arn:a", 0.25, expires_at=int(NOW) + 50),),
        after=releases.route(),
    )
    _, text = followed(at, lambda: releases.transition(A, LIVE, ""))
    assert "rolling_out: 25% of the requests\n" in text
    assert "route: version 1: 25% of the requests\n" in text


def test_head_of_the_release_is_shown_and_whether_heads_are_off(at: Deployed, releases: Releases) -> None:
    begin(releases)
    trained = {"head": "releases/o/a-1/head.bin", "head_sha256": "0" * 64}
    _, text = followed(
        at,
        lambda: releases.transition(A, EVALUATING, "asked", **trained),
        lambda: releases.switch_heads(off=True, after=releases.route(), reason="by hand"),
        lambda: releases.transition(A, LIVE, ""),
    )
    told = [line.partition("  head: ")[2] for line in text.splitlines() if "  head: " in line]
    assert told == ["trained", "trained, but switched off: `make head-on ENV=local` switches heads on"]


def test_refused_calls_are_left_out(at: Deployed, releases: Releases, services: Services) -> None:
    begin(releases)
    services.denied = True
    status, text = followed(at, lambda: releases.transition(A, LIVE, ""))
    assert (status, "job:" in text) == (0, False)


@pytest.mark.parametrize(
    "source", ["", "arn:aws:bedrock:us-east-1:0:custom-model/x/y", "arn:aws:bedrock:us-east-1:0:job/x"]
)
def test_release_without_a_job_shows_none(at: Deployed, releases: Releases, source: str) -> None:
    begin(releases)
    releases.update(A, source=source)
    assert "job:" not in followed(at, lambda: releases.transition(A, LIVE, ""))[1]


@pytest.mark.parametrize(("code", "passes"), [("ThrottlingException", True), ("ExpiredToken", False)])
def test_throttled_call_is_repeated(
    at: Deployed, releases: Releases, monkeypatch: pytest.MonkeyPatch, code: str, *, passes: bool
) -> None:
    begin(releases)
    scan, error = Deployed.known, ClientError({"Error": {"Code": code}}, "Scan")
    failures = iter([None, error])

    def known(self: Deployed) -> Any:
        if found := next(failures, None):
            raise found
        return scan(self)

    monkeypatch.setattr(Deployed, "known", known)
    if passes:
        assert followed(at, lambda: None, lambda: releases.transition(A, LIVE, ""))[0] == 0
    else:
        with pytest.raises(ClientError):
            followed(at, lambda: None)


def test_terminal_shows_the_time_in_the_stage_and_in_all(at: Deployed, releases: Releases) -> None:
    begin(releases)
    releases.now = lambda: NOW - 20
    releases.transition(A, EVALUATING, "asked")
    status, text = followed(at, lambda: releases.transition(A, LIVE, "serves"), terminal=True)
    assert status == 0
    assert "20 s evaluating, 1 min 0 s in all" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_no_text_of_a_release_controls_the_terminal(
    at: Deployed, releases: Releases, *, terminal: bool
) -> None:
    hostile = HOSTILE.replace("\ud800", "")  # DynamoDB stores UTF-8
    begin(releases)
    releases.transition(A, EVALUATING, hostile)
    _, text = followed(
        at,
        lambda: None,
        lambda: releases.update(A, state=FAILED, message=hostile, report=hostile),
        terminal=terminal,
    )
    assert "\\u001b]0;title" in text
    assert controls(text) == []


def test_a_warning_of_the_message_is_told_once(at: Deployed, releases: Releases) -> None:
    begin(releases)
    message = "refused by the gate: 1 of 9 checks failed.\n- Valid output for 90.0%.\nWarning: odd"
    releases.update(A, state=FAILED, message=message, warnings="odd")
    code, text = followed(at)
    assert code == 1
    assert text.count("Warning: odd") == 1
    assert "\n- Valid output for 90.0%.\n" in text


@pytest.mark.parametrize("passes", [True, False])
def test_evaluation_of_the_live_release_is_followed(
    at: Deployed, releases: Releases, services: Services, passes: bool
) -> None:
    begin(releases)
    releases.update(A, state=LIVE, passed_on="old")
    assert releases.begin_again(A, attempt=2, execution="arn:again", request_id="s", holdout_key="new")
    services.counts["arn:again"] = {"succeeded": 1, "total": 4}

    def ends() -> None:
        releases.update(A, **({"passed_on": "new"} if passes else {}))
        releases.end_again(A, "passed" if passes else "not passed: refused by the gate")

    code, text = followed(at, lambda: releases.evaluating(A, "12 questions"), ends)
    assert code == (0 if passes else 1)
    assert "live: serves all requests; on another hold-out set, 12 questions" in text
    assert "hold-out: 1 of 4 shards" in text
    assert ("refused by the gate" in text) is not passes
