"""checkov's rules for CloudFormation, run offline.

It pins boto3 and much else to versions that are not ours, so it has an environment of its own, which
`make checks` installs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.checks.acknowledged import Finding

RULE_SET = "checkov"
PYTHON = Path(sys.prefix) / "checkov" / "bin" / "python"


def findings(templates: Sequence[Path]) -> set[Finding]:
    """Return checkov's findings. Raise RuntimeError if checkov fails or can't read a template."""
    if not PYTHON.exists():
        raise RuntimeError(f"checkov is not installed at {PYTHON}: run `make checks`.")
    arguments = [argument for path in templates for argument in ("--file", str(path))]
    options = ["--framework", "cloudformation", "--skip-download", "--soft-fail", "--output", "json"]
    result = subprocess.run(
        [str(PYTHON), "-m", "checkov.main", *arguments, *options],
        capture_output=True,
        text=True,
        timeout=1200,
        # No proxy and no API key, so that checkov doesn't use the network.
        env={"PATH": os.environ["PATH"], "HOME": str(PYTHON.parents[1]), "LOG_LEVEL": "ERROR"},
    )
    if result.returncode:
        raise RuntimeError(f"checkov failed:\n{result.stderr[-3000:]}")
    report = json.loads(result.stdout)
    summary = report["summary"]
    if summary["parsing_errors"] or not summary["passed"]:
        raise RuntimeError(f"checkov did not read all of {len(templates)} templates: {summary}")
    # A resource is `AWS::S3::Bucket.LogicalId`.
    return {
        Finding(f"{RULE_SET}::{one['check_id']}", Path(one["file_path"]).name, one["resource"].split(".")[1])
        for one in report["results"]["failed_checks"]
    }
