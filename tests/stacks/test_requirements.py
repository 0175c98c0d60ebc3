"""requirements.txt is all that `cdk synth` needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cdk_distilled_router.common.packages import uv_environment
from operate.cdk import tool_path
from stacks.settings import PROJECT


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Return the Python of an environment with requirements.txt only, installed from uv's cache."""
    folder = tmp_path / "venv"
    subprocess.run(
        ["uv", "venv", "--quiet", "--python", sys.executable, str(folder)], check=True, timeout=600
    )
    python = folder / "bin" / "python"
    install = ["uv", "pip", "install", "--quiet", "--python", str(python), "--require-hashes"]
    locked = ["-r", str(PROJECT / "requirements.txt")]
    subprocess.run([*install, *locked], env=uv_environment(), check=True, timeout=1200)
    return python


@pytest.mark.slow
def test_requirements_txt_is_enough_for_cdk_synth(python: Path, tmp_path: Path) -> None:
    context = json.loads((PROJECT / "cdk.json").read_text(encoding="utf-8"))["context"]
    environment = {
        "PATH": tool_path(),
        "HOME": os.environ["HOME"],
        "CDK_OUTDIR": str(tmp_path / "cdk.out"),
        "CDK_CONTEXT_JSON": json.dumps({**context, "environment": "prod"}),
    }
    done = subprocess.run(
        [str(python), "app.py"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert len(list((tmp_path / "cdk.out").glob("*.template.json"))) == 5
