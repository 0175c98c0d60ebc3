"""What `make local-status` prints."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from distilled_router.release.table import Release
from local import deploy_progress, servers, status
from local.servers import Server
from local.state import State
from operate.aws import Aws
from operate.console import Terminal
from tests.unit.hostile import HOSTILE, controls


class CloudFormation:
    """A stack whose texts come from elsewhere."""

    def get_paginator(self, _: str) -> Any:
        output = {"OutputKey": "Url", "OutputValue": HOSTILE}
        exported = {"OutputKey": "ExportsKey", "OutputValue": "not shown"}
        stack = {"StackName": "router-data", "StackStatus": HOSTILE, "Outputs": [output, exported]}
        return type("Pages", (), {"paginate": lambda _: [{"Stacks": [stack]}]})()


@pytest.mark.parametrize("width", [80, 2_000])
@pytest.mark.parametrize("terminal", [True, False])
def test_status_shows_texts_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, terminal: bool, width: int
) -> None:
    monkeypatch.setattr(status, "variables", lambda _: {})
    monkeypatch.setattr(servers, "recorded", lambda _: [Server("emulator", 1, "https://127.0.0.1:1")])
    monkeypatch.setattr(Aws, "cloudformation", CloudFormation())
    monkeypatch.setattr(deploy_progress, "find_releases", lambda *_: object())
    release = Release("aaaaaaaaaaaa", state="failed", message=f"refused: {HOSTILE}")
    monkeypatch.setattr(deploy_progress, "declared_release", lambda _: release)
    out = io.StringIO()
    status.show(State(tmp_path), Terminal(file=out, force_terminal=terminal, width=width))
    text = out.getvalue()
    assert controls(text) == []
    assert text.count("\\u001b]0;title") == 3
    assert text.count("[red]end") == 3
    assert "    https://127.0.0.1:1\n" in text
    # Whole, so that it can be copied.
    assert f"    log {State(tmp_path).log('emulator')}\n" in text
    assert "not shown" not in text
