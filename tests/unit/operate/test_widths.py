"""Tables on a terminal of 80 and 120 columns, and through a pipe: nothing that a reader needs is cut off."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distilled_router.data.conversation import row
from distilled_router.data.preflight import Needs
from distilled_router.release.route import Route, Share
from distilled_router.release.table import LIVE, ROLLING_OUT, Release
from distilled_router.task.task import Task
from local.progress import Board
from operate import dataset_check, releases, route, watch
from operate.console import PLAIN_WIDTH, Terminal, wide
from operate.deployed import Known

NOW = 1_800_000_000
TASK = Task.load()
A, B = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
DEPLOYMENT = "arn:aws:bedrock:us-east-1:000000000000:custom-model-deployment/abcdefghij12"
SCORES = {
    "valid_output": 1.0,
    "dominant_accuracy": 0.9444,
    "mean_absolute_error": 0.0712,
    "cost_per_1000_usd": 0.0025,
}
MOVING = "job InProgress: validation Completed, data processing Completed, training InProgress"

type Shown = Callable[[Terminal], object]


def shows_releases(to: Terminal) -> Iterator[str]:
    known = [
        Known(
            Release(digest, state=state, attempt=2, started_at=NOW - 90_000, endpoint=DEPLOYMENT),
            json.dumps(SCORES),
        )
        for digest, state in ((A, LIVE), (B, ROLLING_OUT))
    ]
    moving = Route(4, (Share(A, DEPLOYMENT, 1.0), Share(B, DEPLOYMENT, 0.25, expires_at=NOW + 3_500)))
    wide(to).print(releases.table(known, moving, NOW))
    yield from (*releases.LEFT, *releases.RIGHT, "from", A, B, "rolling_out", "25%", "100.0%")
    yield from ("94.4%", "0.071", "0.0025", "on demand")


def shows_answers(to: Terminal) -> Iterator[str]:
    weights = dict(zip(TASK.labels, (0.95, 0.0, 0.05, 0.0), strict=True))
    answer = {"weights": weights, "source": "distilled", "latency_ms": 1234.5}
    to.print(route.table([("a street musician playing the violin while a tram passes by the opera", answer)]))
    yield from (*TASK.labels, "source", "latency", "0.95", "0.05", "distilled", "1234 ms", "a street")


def shows_data(to: Terminal) -> Iterator[str]:
    weights = {name: float(name == "visual") for name in TASK.labels}
    lines = [json.dumps(row(TASK, f"red car {number}", weights)) for number in range(20)]
    file = Path("rows.jsonl")
    file.write_text("\n".join([*lines, "{}"]))
    dataset_check.show(dataset_check.check(file, None, Needs(method="distillation")), to)
    yield from ("Refused", "rule", "severity", "count", "error", "rows.jsonl:21")


def shows_a_release(to: Terminal) -> Iterator[str]:
    with watch.Screen(to) as screen:
        screen.set(
            [("release", f"{A}, attempt 1"), ("waiting", MOVING)], "1 min 0 s of 2 h 3 min", "1 min 0 s"
        )
    yield from (A, "training InProgress")


def shows_progress(to: Terminal) -> Iterator[str]:
    with Board(to) as board:
        done = board.add("video-router-local-distillation", "running")
        board.set(done, "done", "CREATE_COMPLETE")
        board.set(board.add(f"release {A}", "running"), "done", MOVING)
    yield from ("video-router-local-distillation", "CREATE_COMPLETE", A, "training InProgress")


@pytest.mark.parametrize("width", [80, 120, None])
@pytest.mark.parametrize(
    "shows", [shows_releases, shows_answers, shows_data, shows_a_release, shows_progress]
)
def test_everything_fits(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shows: Callable[[Terminal], Iterator[str]],
    width: int | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    terminal = Terminal(
        file=out,
        width=width or PLAIN_WIDTH,
        force_terminal=width is not None,
        color_system=None,
        legacy_windows=False,
    )
    needed = list(shows(terminal))
    text = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]", "", out.getvalue())
    words = " ".join(text.split())
    assert [part for part in needed if part not in words] == []
    if width:
        assert max(map(len, text.splitlines())) <= width
