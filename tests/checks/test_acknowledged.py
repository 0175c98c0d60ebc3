"""Acknowledgements: the findings that they cover, and stale ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.checks.acknowledged import Acknowledged, Finding

TEMPLATE = "app-data.template.json"
LOGS = Finding("checkov::CKV_AWS_18", TEMPLATE, "Logs1")
DATA = Finding("checkov::CKV_AWS_18", TEMPLATE, "Data1")


def accepted(rule: str) -> dict[str, object]:
    return {"type": "aws:cdk:acknowledged-rules", "data": {rule: "Because."}}


def made(logical_id: str) -> dict[str, object]:
    return {"type": "aws:cdk:logicalId", "data": logical_id}


@pytest.fixture
def acknowledged(tmp_path: Path) -> Acknowledged:
    metadata = {
        "/app-data/Logs": [accepted("checkov::CKV_AWS_18")],
        "/app-data/Logs/Resource": [made("Logs1")],
        "/app-data/Data": [accepted("checkov::CKV_AWS_21"), accepted("other::CKV_AWS_18")],
        "/app-data/Data/Resource": [made("Data1")],
    }
    (tmp_path / "app-data.metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    return Acknowledged(tmp_path)


def test_it_covers_the_resource_of_its_construct_and_its_own_rule(acknowledged: Acknowledged) -> None:
    assert acknowledged.covering(LOGS) == ("app-data/Logs", "checkov::CKV_AWS_18")
    assert acknowledged.left([LOGS, DATA]) == [DATA]


def test_acknowledgement_without_a_finding_is_stale(acknowledged: Acknowledged) -> None:
    assert acknowledged.stale([LOGS, DATA], "checkov") == {("app-data/Data", "checkov::CKV_AWS_21")}


def test_a_resource_without_a_construct_is_an_error(acknowledged: Acknowledged) -> None:
    with pytest.raises(KeyError):
        acknowledged.covering(Finding("checkov::CKV_AWS_18", TEMPLATE, "Unknown"))
