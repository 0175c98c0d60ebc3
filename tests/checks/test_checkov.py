"""checkov, in `make checks`: each finding has an acknowledgement, and each acknowledgement a finding."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.checks import checkov
from tests.checks.acknowledged import Acknowledged, Finding
from tests.stacks import bad_example
from tests.stacks.assembly import Assembly


@pytest.fixture(scope="module")
def prod(assemblies: Mapping[str, Assembly]) -> Acknowledged:
    return Acknowledged(assemblies["prod"].folder)


@pytest.fixture(scope="module")
def findings(prod: Acknowledged) -> set[Finding]:
    return checkov.findings(prod.templates)


def test_no_finding_is_left(prod: Acknowledged, findings: set[Finding]) -> None:
    assert len(prod.templates) == 5
    assert prod.left(findings) == []


def test_no_acknowledgement_is_stale(prod: Acknowledged, findings: set[Finding]) -> None:
    assert prod.stale(findings, checkov.RULE_SET) == set()


def test_a_bad_stack_fails_the_same_check(assemblies_folder: Path) -> None:
    bad = Acknowledged(assemblies_folder / bad_example.NAME)
    left = {
        (finding.rule, bad.constructs[finding.template, finding.logical_id])
        for finding in bad.left(checkov.findings(bad.templates))
    }
    assert left == {
        ("checkov::CKV_AWS_108", "bad-example/Role/DefaultPolicy/Resource"),
        ("checkov::CKV_AWS_109", "bad-example/Role/DefaultPolicy/Resource"),
        ("checkov::CKV_AWS_111", "bad-example/Role/DefaultPolicy/Resource"),
        ("checkov::CKV_AWS_115", "bad-example/Old"),
        ("checkov::CKV_AWS_116", "bad-example/Old"),
        ("checkov::CKV_AWS_117", "bad-example/Old"),
        ("checkov::CKV_AWS_18", "bad-example/Public"),
        ("checkov::CKV_AWS_21", "bad-example/Public"),
        ("checkov::CKV_AWS_26", "bad-example/Open/Resource"),
        ("checkov::CKV_AWS_363", "bad-example/Old"),
        ("checkov::CKV_AWS_53", "bad-example/Public"),
        ("checkov::CKV_AWS_54", "bad-example/Public"),
        ("checkov::CKV_AWS_55", "bad-example/Public"),
        ("checkov::CKV_AWS_56", "bad-example/Public"),
    }
