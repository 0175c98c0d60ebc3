"""The construct library as a package: what importing its names loads."""

from __future__ import annotations

import subprocess
import sys

import cdk_distilled_router as library
from stacks.settings import PROJECT


def test_every_public_name_can_be_imported() -> None:
    for name in library.__all__:
        assert getattr(library, name).__name__ == name


def test_settings_are_read_without_the_cdk() -> None:
    """The operator's commands read settings, and aws_cdk takes seconds to import."""
    code = "import sys; from stacks.settings import load; load('prod'); sys.exit('aws_cdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=False).returncode == 0
