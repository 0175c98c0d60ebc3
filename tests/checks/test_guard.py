"""AWS Control Tower's rules: each finding has an acknowledgement, and each acknowledgement a finding."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stacks.settings import PROJECT
from tests.checks import guard
from tests.checks.acknowledged import Acknowledged
from tests.stacks import bad_example, offline

RULE_SET = "cdk-validator-cfnguard"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with both assemblies, checked by the rules."""
    folder = tmp_path_factory.mktemp("guard")
    result = subprocess.run(
        [sys.executable, "-m", "tests.checks.guard", str(folder)],
        cwd=PROJECT,
        env=offline.environment(folder),
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert result.returncode == 0, result.stderr[-5000:]
    return folder


def said(folder: Path) -> Mapping[str, Any]:
    """What the rules said; not to find it means that no check ran."""
    report = json.loads((folder / "validation-report.json").read_text(encoding="utf-8"))
    (found,) = [plugin for plugin in report["pluginReports"] if plugin["pluginName"] == RULE_SET]
    checked: Mapping[str, Any] = found
    return checked


def unacknowledged(folder: Path) -> set[tuple[str, str]]:
    """(rule, construct) of what nobody has acknowledged. A rule that looks for one statement among several
    names no construct besides the one that lacks it."""
    return {
        (violation["ruleName"], construct["constructPath"])
        for violation in said(folder)["violations"]
        for construct in violation["violatingConstructs"]
        if construct["constructPath"] or violation["ruleName"] != "kms_create_grant_aws_service_check"
    }


def test_no_finding_is_left(folder: Path) -> None:
    assert unacknowledged(folder / guard.ENVIRONMENT) == set()


def test_no_acknowledgement_is_stale(folder: Path) -> None:
    used = {
        (finding["acknowledgedAt"], finding["acknowledgedId"])
        for finding in said(folder / guard.ENVIRONMENT)["suppressedViolations"]
    }
    reasons = Acknowledged(folder / guard.ENVIRONMENT).reasons
    declared = {(where, rule) for where, rule in reasons if rule.startswith(f"{RULE_SET}::")}
    assert len(declared) > 40
    assert declared - used == set()


def test_a_bad_stack_fails_the_same_check(folder: Path) -> None:
    assert unacknowledged(folder / bad_example.NAME) == {
        ("iam_inline_policy_no_statements_with_full_access_check", "bad-example/Role/DefaultPolicy/Resource"),
        ("lambda_inside_vpc_check", "bad-example/Old"),
        ("s3_bucket_default_encryption_kms_check", "bad-example/Public"),
        ("s3_bucket_level_public_access_prohibited_check", "bad-example/Public"),
        ("s3_bucket_logging_enabled_check", "bad-example/Public"),
        ("s3_bucket_object_lock_enabled_check", "bad-example/Public"),
        ("s3_bucket_versioning_enabled_check", "bad-example/Public"),
        ("s3_event_notifications_enabled_check", "bad-example/Public"),
        ("s3_lifecycle_policy_check", "bad-example/Public"),
    }
