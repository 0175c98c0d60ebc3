"""cdk-nag's AwsSolutions: no finding without an acknowledgement, no acknowledgement without a finding."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.stacks import bad_example
from tests.stacks.assembly import STACKS, Assembly

GENERIC = re.compile(
    r"\b(by design|false positive|not applicable|star (is )?required|wildcard (is )?required|as intended"
    r"|suppress(ed)?|acceptable|for now|todo|tbd)\b",
    re.IGNORECASE,
)


def aws_solutions(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the rule pack itself said; not to find it means that no check ran."""
    (found,) = [plugin for plugin in report["pluginReports"] if plugin["pluginName"] == "AwsSolutions"]
    checked: Mapping[str, Any] = found
    return checked


def unacknowledged(report: Mapping[str, Any]) -> set[str]:
    """Rule ids of the findings that nobody acknowledged, with cdk-nag's details."""
    return {violation["ruleName"] for violation in aws_solutions(report)["violations"]}


def acknowledgements(assembly: Assembly) -> dict[tuple[str, str], str]:
    """(construct, finding) to reason, as they were declared."""
    declared: dict[tuple[str, str], str] = {}
    for stack in STACKS:
        path = assembly.path(stack, "metadata")
        metadata = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        for construct, entries in metadata.items():
            for entry in entries:
                if entry["type"] == "aws:cdk:acknowledged-rules":
                    for finding, reason in entry["data"].items():
                        declared[construct.removeprefix("/"), finding] = reason
    return declared


def test_no_finding_is_left(assembly: Assembly) -> None:
    assert unacknowledged(assembly.report) == set()
    assert aws_solutions(assembly.report)["conclusion"] == "success"
    # The CDK's own validator reports beside it.
    assert [plugin["violations"] for plugin in assembly.report["pluginReports"]] == [[]]


def test_no_acknowledgement_is_stale(assembly: Assembly) -> None:
    used = {
        (finding["acknowledgedAt"], finding["acknowledgedId"])
        for finding in aws_solutions(assembly.report)["suppressedViolations"]
    }
    declared = set(acknowledgements(assembly))
    assert len(declared) > 50
    assert declared - used == set()


def test_reasons_say_something(assembly: Assembly) -> None:
    for (construct, _), reason in acknowledgements(assembly).items():
        assert len(reason) >= 40, f"{construct}: {reason}"
        assert len(set(reason.split())) >= 7, f"{construct}: {reason}"
        assert reason.endswith("."), f"{construct}: {reason}"
        assert not GENERIC.search(reason), f"{construct}: {reason}"


def test_a_finding_is_acknowledged_at_its_construct_with_its_detail(assembly: Assembly) -> None:
    """Neither for a whole stack nor for all wildcards at once."""
    rules = set()
    for construct, finding in acknowledgements(assembly):
        assert "/" in construct
        pack, _, rule = finding.partition("::")
        assert pack == "AwsSolutions"
        rules.add(rule.partition("[")[0].removeprefix("AwsSolutions-"))
        assert not rule.endswith("-IAM5")
    assert rules == {"IAM5", "L1", "SF2"}


def test_a_bad_stack_fails_the_same_check(assemblies_folder: Path) -> None:
    folder = assemblies_folder / bad_example.NAME
    assert (folder / "error.txt").read_text(encoding="utf-8").startswith("ValidationFailed")
    report = json.loads((folder / "validation-report.json").read_text(encoding="utf-8"))
    managed = "arn:<AWS::Partition>:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
    assert unacknowledged(report) == {
        "AwsSolutions-S1",  # no access logs
        "AwsSolutions-S2",  # public
        "AwsSolutions-S10",  # no TLS
        f"AwsSolutions-IAM4[Policy::{managed}]",
        "AwsSolutions-IAM5[Action::s3:*]",
        "AwsSolutions-IAM5[Resource::*]",
        "AwsSolutions-L1",
        "AwsSolutions-SNS3",
    }
    assert aws_solutions(report)["conclusion"] == "failure"
