"""What `make local-status` prints."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from distilled_router.release.route import Route, Share
from distilled_router.release.table import Release
from local import deploy_progress, servers, status
from local.servers import Server
from local.state import State
from operate.aws import Aws
from operate.console import Terminal
from stacks.settings import locate
from tests.unit.hostile import HOSTILE, controls


class CloudFormation:
    """A stack whose texts come from elsewhere."""

    def get_paginator(self, _: str) -> Any:
        output = {"OutputKey": "Url", "OutputValue": HOSTILE}
        exported = {"OutputKey": "ExportsKey", "OutputValue": "not shown"}
        stack = {"StackName": "router-data", "StackStatus": HOSTILE, "Outputs": [output, exported]}
        return type("Pages", (), {"paginate": lambda _: [{"Stacks": [stack]}]})()


class Routed:
    """Releases, of which another one than the declared one serves."""

    def route(self) -> Route:
        return Route(1, (Share("bbbbbbbbbbbb", "arn", 1.0),))


@pytest.mark.parametrize("width", [80, 2_000])
@pytest.mark.parametrize("terminal", [True, False])
def test_status_shows_texts_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, terminal: bool, width: int
) -> None:
    state = State(tmp_path)
    state.write_settings(locate("local"), locate("local").read_text(encoding="utf-8"))
    monkeypatch.setattr(status, "variables", lambda _: {"AWS_REGION": "us-east-1"})
    monkeypatch.setattr(servers, "recorded", lambda _: [Server("emulator", 1, "https://127.0.0.1:1")])
    monkeypatch.setattr(Aws, "cloudformation", CloudFormation())
    monkeypatch.setattr(deploy_progress, "find_releases", lambda *_: Routed())
    release = Release("aaaaaaaaaaaa", state="failed", message=f"refused: {HOSTILE}")
    monkeypatch.setattr(deploy_progress, "declared_release", lambda _: release)
    out = io.StringIO()
    status.show(state, Terminal(file=out, force_terminal=terminal, width=width))
    text = out.getvalue()
    assert controls(text) == []
    assert text.count("\\u001b]0;title") == 3
    assert text.count("[red]end") == 3
    assert "    https://127.0.0.1:1\n" in text
    # Whole, so that it can be copied.
    assert f"    log {state.log('emulator')}\n" in text
    assert "not shown" not in text
    assert "live release: bbbbbbbbbbbb\n" in text


def test_servers_alone_show_what_another_app_has_deployed_in_their_region(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions = []

    class Found(Aws):
        """AWS, which notes the Region that it is asked in."""

        @property
        def cloudformation(self) -> Any:
            regions.append(self.session.region_name)
            return CloudFormation()

    monkeypatch.setattr(status, "Aws", Found)
    monkeypatch.setattr(status, "variables", lambda _: {"AWS_REGION": "us-west-2"})
    out = io.StringIO()
    status.show(State(tmp_path), Terminal(file=out, width=80))
    text = out.getvalue()
    assert regions == ["us-west-2"]
    assert text.startswith("settings: none, only the servers were started\n")
    assert "router-data" in text
    assert "release" not in text
