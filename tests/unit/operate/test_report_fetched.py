"""`python -m operate report`: which report is fetched, where it is written, and what is said instead."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Any

import pytest

from distilled_router.release.table import FAILED, LIVE, WAITING, Release
from operate import environment, report
from operate.__main__ import main
from operate.aws import Aws
from operate.deployed import Deployed, Known
from operate.environment import Environment
from operate.errors import OperateError
from stacks.settings import load
from tests.conftest import Client

A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"


def known(digest: str, state: str, uri: str = "") -> Known:
    return Known(Release(digest, state=state, message="says why", attempt=2), report=uri)


NEWEST_FIRST = [known(C, WAITING), known(B, FAILED, "s3://data/b.html"), known(A, LIVE, "s3://data/a.html")]


def test_newest_evaluated_release_is_chosen_unless_one_is_named() -> None:
    assert report.choose(NEWEST_FIRST, "").release.digest == B
    assert report.choose(NEWEST_FIRST, A).release.digest == A


@pytest.mark.parametrize(
    ("releases", "digest", "problem", "advice"),
    [
        (NEWEST_FIRST, C, f"There is no report yet of release {C}, waiting: says why", f"{B}, {A}."),
        (NEWEST_FIRST, "d" * 12, "There is no release dddddddddddd.", f"With a report: {B}, {A}."),
        (NEWEST_FIRST[:1], "", f"There is no report yet of release {C}", "With a report: none."),
    ],
)
def test_release_without_a_report_is_told(
    releases: list[Known], digest: str, problem: str, advice: str
) -> None:
    with pytest.raises(OperateError) as raised:
        report.choose(releases, digest)
    assert str(raised.value).startswith(problem)
    assert raised.value.advice.endswith(advice)


def test_report_is_written_to_a_new_folder(tmp_path: Path, aws: Client, bucket: str) -> None:
    aws("s3").put_object(Bucket=bucket, Key="releases/o/x/report.html", Body="<p>\u00e4</p>".encode())
    path = tmp_path / "new" / "report.html"
    report.fetch(aws("s3"), f"s3://{bucket}/releases/o/x/report.html", path)
    assert path.read_text(encoding="utf-8") == "<p>\u00e4</p>"


def test_report_that_can_not_be_read_or_written_is_told(tmp_path: Path, aws: Client, bucket: str) -> None:
    with pytest.raises(OperateError, match=rf"s3://{bucket}/gone can't be read: .*NoSuchKey") as raised:
        report.fetch(aws("s3"), f"s3://{bucket}/gone", tmp_path / "report.html")
    assert "s3:GetObject" in raised.value.advice
    aws("s3").put_object(Bucket=bucket, Key="there", Body=b"x")
    with pytest.raises(OperateError, match="can't be written: Is a directory"):
        report.fetch(aws("s3"), f"s3://{bucket}/there", tmp_path)


@pytest.mark.parametrize(
    ("platform", "environ", "screen"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
    ],
)
def test_only_browsers_with_a_window_are_opened(platform: str, environ: dict[str, str], screen: bool) -> None:
    assert report.has_screen(platform, environ) == screen


@pytest.mark.parametrize("opens", [True, False])
def test_command_says_where_the_report_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, opens: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(environment, "reach", lambda name: Environment(name, load("local")))
    monkeypatch.setattr(report, "deployed", lambda at: Deployed("local", "o", 1, None, None, None))
    monkeypatch.setattr(Deployed, "known", lambda at: NEWEST_FIRST)
    monkeypatch.setattr(Aws, "s3", None)
    monkeypatch.setattr(report, "fetch", lambda s3, uri, path: path.write_text(uri))
    monkeypatch.setattr(report, "has_screen", lambda: True)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    path = tmp_path / "report.html"
    arguments: list[Any] = ["report", "--out", str(path), *([] if opens else ["--no-open"])]
    assert main(arguments) == 0
    assert path.read_text() == "s3://data/b.html"
    assert capsys.readouterr().out.splitlines() == [f"Release {B}, failed: says why", str(path)]
    assert opened == ([path.as_uri()] if opens else [])
