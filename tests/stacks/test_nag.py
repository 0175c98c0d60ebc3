"""cdk-nag: each finding has an acknowledgement, and each acknowledgement a finding."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cdk_distilled_router.common import nag
from stacks.settings import Pack
from tests.checks.acknowledged import Acknowledged
from tests.stacks import bad_example
from tests.stacks.assembly import Assembly
from tests.stacks.environments import PACKS

GENERIC = re.compile(
    r"\b(by design|false positive|not applicable|star (is )?required|wildcard (is )?required|as intended"
    r"|suppress(ed)?|acceptable|for now|todo|tbd)\b",
    re.IGNORECASE,
)
# Names of the packs in the report.
NAMES: Mapping[Pack, str] = {
    "AwsSolutions": nag.AWS_SOLUTIONS,
    "Serverless": nag.SERVERLESS,
    "NIST80053R5": nag.NIST,
    "HIPAASecurity": nag.HIPAA,
    "PCIDSS321": nag.PCI,
}
WITH_DETAILS = {"IAM5"}


def said_by(report: Mapping[str, Any], pack: Pack) -> Mapping[str, Any]:
    """Return a pack's part of the report, which must exist: otherwise no check ran."""
    (found,) = [plugin for plugin in report["pluginReports"] if plugin["pluginName"] == NAMES[pack]]
    checked: Mapping[str, Any] = found
    return checked


def unacknowledged(report: Mapping[str, Any], pack: Pack) -> set[str]:
    """Return the rules of a pack with unacknowledged findings, with cdk-nag's details."""
    rules = (violation["ruleName"] for violation in said_by(report, pack)["violations"])
    return {rule.removeprefix(f"{NAMES[pack]}-") for rule in rules}


def acknowledged(assembly: Assembly) -> Acknowledged:
    return Acknowledged(assembly.folder)


def test_each_environment_is_held_against_the_packs_of_its_settings(assembly: Assembly) -> None:
    packs = assembly.settings.checks.packs
    ran = {plugin["pluginName"] for plugin in assembly.report["pluginReports"]}
    assert ran == {NAMES[pack] for pack in packs}
    every = assembly.environment == "prod" or assembly.environment not in {"dev", "local"}
    assert set(packs) == (set(PACKS) if every else {"AwsSolutions"})


def test_no_finding_is_left(assembly: Assembly) -> None:
    for pack in assembly.settings.checks.packs:
        assert unacknowledged(assembly.report, pack) == set()
        assert said_by(assembly.report, pack)["conclusion"] == "success"
    # The CDK's own validator is in the report only if it has findings.
    assert {len(plugin["violations"]) for plugin in assembly.report["pluginReports"]} == {0}


def test_no_acknowledgement_is_stale(assembly: Assembly) -> None:
    for pack in assembly.settings.checks.packs:
        used = {
            (finding["acknowledgedAt"], finding["acknowledgedId"])
            for finding in said_by(assembly.report, pack)["suppressedViolations"]
        }
        declared = {
            (construct, rule)
            for construct, rule in acknowledged(assembly).reasons
            if rule.startswith(f"{NAMES[pack]}::")
        }
        assert len(declared) > 30
        assert declared - used == set()


def test_reasons_say_something(assembly: Assembly) -> None:
    for (construct, _), reason in acknowledged(assembly).reasons.items():
        assert len(reason) >= 40, f"{construct}: {reason}"
        assert len(set(reason.split())) >= 7, f"{construct}: {reason}"
        assert reason.endswith("."), f"{construct}: {reason}"
        assert not GENERIC.search(reason), f"{construct}: {reason}"


def rules(assembly: Assembly) -> Iterator[tuple[str, str]]:
    """Yield (construct, rule) of each acknowledgement, the rule without its rule set."""
    for construct, rule in acknowledged(assembly).reasons:
        rule_set, _, name = rule.partition("::")
        yield construct, name.removeprefix(f"{rule_set}-")


def test_a_finding_is_acknowledged_at_its_construct_with_its_detail(assembly: Assembly) -> None:
    """No acknowledgement is for a whole stack or for all wildcards."""
    names = {
        id_.partition("::")[2].removeprefix(f"{id_.partition('::')[0]}-")
        for ids in nag.MATTERS.values()
        for id_ in ids
    }
    for construct, rule in rules(assembly):
        # A stack's own child is a resource or, of ours, a construct of several: that has more below it.
        assert "/" in construct
        name, detailed, _ = rule.partition("[")
        assert (name in WITH_DETAILS) == bool(detailed)
        assert name in names | WITH_DETAILS


def test_an_acknowledgement_covers_one_resource(assembly: Assembly) -> None:
    """An acknowledgement at a construct covers a finding at one resource below it, in each rule set."""
    for pack in assembly.settings.checks.packs:
        for finding in said_by(assembly.report, pack)["suppressedViolations"]:
            paths = [construct["constructPath"] for construct in finding["violatingConstructs"]]
            assert len(paths) == 1, (finding["acknowledgedAt"], finding["ruleName"], paths)


def test_every_matter_is_accepted_somewhere(assemblies: Mapping[str, Assembly]) -> None:
    """A matter without an acknowledgement can be removed from the table.

    Only constructs that a team uses without a key have a table that AWS's key encrypts.
    """
    declared = {rule for name in assemblies for _, rule in acknowledged(assemblies[name]).reasons}
    unused = {id_ for ids in nag.MATTERS.values() for id_ in ids} - declared
    assert unused == set(nag.MATTERS["DynamoDBEncryptionKMS"])


def test_an_unknown_matter_is_refused() -> None:
    with pytest.raises(KeyError, match="LambdaDQL"):
        nag.ids("LambdaDQL")


MANAGED = "arn:<AWS::Partition>:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
PUBLIC_BUCKET = {
    "S3BucketLevelPublicAccessProhibited",
    "S3BucketLoggingEnabled",
    "S3BucketPublicReadProhibited",
    "S3BucketPublicWriteProhibited",
    "S3BucketReplicationEnabled",
    "S3BucketSSLRequestsOnly",
    "S3BucketVersioningEnabled",
    "S3DefaultEncryptionKMS",
}
COMPLIANCE = PUBLIC_BUCKET | {
    "IAMNoInlinePolicy",
    "IAMPolicyNoStatementsWithFullAccess",
    "LambdaInsideVPC",
    "SNSEncryptedKMS",
}
BAD: Mapping[Pack, set[str]] = {
    "AwsSolutions": {
        "S1",  # no access logs
        "S2",  # public
        "S10",  # no TLS
        f"IAM4[Policy::{MANAGED}]",
        "IAM5[Action::s3:*]",
        "IAM5[Resource::*]",
        "L1",
        "SNS3",
    },
    "Serverless": {
        "LambdaDLQ",
        "LambdaDefaultMemorySize",
        "LambdaDefaultTimeout",
        "LambdaLatestVersion",
        "LambdaTracing",
    },
    "NIST80053R5": COMPLIANCE | {"LambdaConcurrency", "LambdaDLQ"},
    "HIPAASecurity": COMPLIANCE | {"LambdaConcurrency", "LambdaDLQ"},
    "PCIDSS321": COMPLIANCE,
}


@pytest.mark.parametrize("pack", PACKS)
def test_a_bad_stack_fails_the_same_check(assemblies_folder: Path, pack: Pack) -> None:
    folder = assemblies_folder / bad_example.NAME
    assert (folder / "error.txt").read_text(encoding="utf-8").startswith("ValidationFailed")
    report = json.loads((folder / "validation-report.json").read_text(encoding="utf-8"))
    assert unacknowledged(report, pack) == BAD[pack]
    assert said_by(report, pack)["conclusion"] == "failure"
