"""One snapshot for each stack of each environment, and of variants for the stacks in which they differ;
`make snapshots` renews them.

A reviewer sees every resource, permission and setting that a change adds, alters or takes away. What
functions contain is reviewed as code, so the hashes of assets and of Lambda versions are masked.

So is the digest of all that decides a model: it stands in a dozen places, and twelve hex digits say nothing.
But another digest is another customization job, which somebody pays, whether the cause is a prompt, a row of
the sample data or a setting. So the digests have a snapshot of their own, test_digests.json: a line that
changes there asks whether this job is wanted, and one that doesn't promises that there will be none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.json import JSONSnapshotExtension

from stacks.settings import STACKS
from tests.snapshots.masking import LEFT_OVER, masked
from tests.stacks.assembly import Assembly
from tests.stacks.environments import ENVIRONMENTS

TEMPLATES = [
    *((environment, stack) for environment in ENVIRONMENTS for stack in STACKS),
    # Requirements of a platform: each in the smallest stack that shows it, and all at once.
    ("boundary", "router"),
    ("network", "router"),
    ("keys", "data"),
    ("keys", "router"),
    *(("hardened", stack) for stack in STACKS),
    # Raw queries, invocation logs, throughput, and a judge.
    ("raw-queries", "distillation"),
    ("invocation-logs", "distillation"),
    ("provisioned", "release"),
    ("judge", "release"),
]


@dataclass(frozen=True)
class Other:
    """Digests of a data set that doesn't exist."""

    digest: str = "0123456789ab"
    dataset_digest: str = "0123456789abcdef"
    holdout_digest: str = "fedcba9876543210"
    earlier_job_name: str = "video-router-local-ba9876543210"


@pytest.fixture
def json_snapshot(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    """Return a snapshot as one JSON file a test, with sorted keys."""
    return snapshot.use_extension(JSONSnapshotExtension)


@pytest.mark.parametrize(("environment", "stack"), TEMPLATES)
def test_template(
    assemblies: Mapping[str, Assembly], json_snapshot: SnapshotAssertion, environment: str, stack: str
) -> None:
    assembly = assemblies[environment]
    assert masked(assembly.templates[stack], assembly.identity) == json_snapshot


def test_digests(assemblies: Mapping[str, Assembly], json_snapshot: SnapshotAssertion) -> None:
    """A change here starts a customization job at the environment's next deployment."""
    digests = {
        environment: {
            "digest": assemblies[environment].identity.digest,
            "dataset_digest": assemblies[environment].identity.dataset_digest,
        }
        for environment in ENVIRONMENTS
    }
    assert digests == json_snapshot


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_masks_leave_no_hash(assemblies: Mapping[str, Assembly], environment: str) -> None:
    assembly = assemblies[environment]
    for template in assembly.templates.values():
        text = json.dumps(masked(template, assembly.identity))
        assert LEFT_OVER.findall(text) == []
        assert assembly.identity.digest not in text


def test_new_code_and_new_data_change_no_snapshot(assemblies: Mapping[str, Assembly]) -> None:
    """The test inserts the hashes of other code and the digests of another data set."""
    assembly = assemblies["local"]
    before, identity = json.dumps(assembly.templates), assembly.identity
    after = before.replace(identity.digest, Other.digest)
    after = after.replace(identity.dataset_digest, Other.dataset_digest)
    after = after.replace(identity.holdout_digest, Other.holdout_digest)
    after = after.replace(identity.earlier_job_name, Other.earlier_job_name)
    after = re.sub(r"[0-9a-f]{32}(?![0-9a-f])", lambda found: found[0][::-1], after)
    other = json.loads(after)
    assert other != assembly.templates
    assert masked(other, Other()) == masked(assembly.templates, identity)


def test_no_snapshot_is_left_of_what_is_gone(request: pytest.FixtureRequest) -> None:
    """Under xdist no worker sees all tests, so that syrupy itself can't tell."""
    if request.config.option.update_snapshots:
        pytest.skip("the snapshots are being renewed")
    folder = Path(__file__).parent / "__snapshots__" / "test_templates"
    expected = {f"test_template[{name}-{stack}].json" for name, stack in TEMPLATES}
    assert {path.name for path in folder.iterdir()} == expected | {"test_digests.json"}
