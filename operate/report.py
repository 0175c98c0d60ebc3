"""Fetch the report of a release, and open it in a browser if there is one.

By default it is that of the newest release that has been evaluated.
"""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from operate import environment
from operate.console import console, say
from operate.deployed import Known, deployed
from operate.errors import OperateError
from stacks.settings import PROJECT

EXAMPLES = """\
  python -m operate report
  python -m operate report --environment prod --release be29cc976e77
  python -m operate report --environment prod --out report.html --no-open
"""
FOLDER = PROJECT / ".cache" / "reports"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    environment.add_argument(parser, default=environment.LOCAL)
    parser.add_argument("--release", metavar="DIGEST", default="", help="by default the newest evaluated one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="by default a file in .cache/reports/")
    parser.add_argument("--no-open", action="store_true", help="open no browser")


def run(options: argparse.Namespace) -> int:
    """Fetch a report, say where it is, and open it."""
    at = environment.reach(options.environment)
    chosen = choose(deployed(at).known(), options.release)
    name = f"{at.settings.owner}-{chosen.release.digest}-{chosen.release.attempt}.html"
    path = (options.out or FOLDER / name).absolute()
    fetch(at.aws.s3, chosen.report, path)
    say(console(), f"Release {_told(chosen)}", str(path))
    if not options.no_open and has_screen():
        webbrowser.open(path.as_uri())
    return 0


def choose(known: Sequence[Known], digest: str) -> Known:
    """Return the release of that digest, or without one the newest that has a report.

    Raises:
        OperateError: It has no report, or there is no such release.
    """
    reported = [one for one in known if one.report]
    found = [one for one in reported if one.release.digest == digest] if digest else reported
    if found:
        return found[0]
    with_report = f"With a report: {', '.join(one.release.digest for one in reported) or 'none'}."
    for one in known:
        if one.release.digest == digest or not digest:
            raise OperateError(
                f"There is no report yet of release {_told(one)}",
                advice=with_report,
            )
    raise OperateError(f"There is no release {digest}.", advice=with_report)


def _told(one: Known) -> str:
    return f"{one.release.digest}, {one.release.state}: {one.release.message}"


def fetch(s3: Any, uri: str, path: Path) -> None:
    """Write the report at an S3 URI to a file.

    Raises:
        OperateError: It can't be read or written.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except (BotoCoreError, ClientError) as error:
        raise OperateError(
            f"{uri} can't be read: {error}",
            advice="Reading it needs s3:GetObject on it, and kms:Decrypt with the bucket's key.",
        ) from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise OperateError(f"{path} can't be written: {error.strerror}.") from error


def has_screen(platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether a browser can show a window. Browsers in a terminal would take it over."""
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    return platform in ("darwin", "win32") or any(environ.get(name) for name in screens)
