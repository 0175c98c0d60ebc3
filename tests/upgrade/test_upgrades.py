"""A system of an earlier version is upgraded to this checkout: nothing is paid again, no query is lost."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from local.state import State
from stacks.settings import PROJECT
from tests.engine.engine import Engine
from tests.upgrade import versions
from tests.upgrade.scene import Scene
from tests.upgrade.versions import Changes, Version, synthesize, templates

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("upgrades")]

# A job of an hour takes a third of a second.
TIME_SCALE, WAIT_SCALE = 10_000, 0.02
# What the changelog tells those who upgrade from a version to change in their settings.
DOCUMENTED: Mapping[str, Changes] = {
    "2026-11-29-57df6ed": {
        "rollout": {"minimum_requests": None},
        "labelling": {"maximum_label_share": 0.6},
    },
}
# Versions that counted the hold-out set in the digest.
COUNTED_HOLDOUT = {("2026-11-29-57df6ed", "given")}
KEPT = re.compile(r'set dataset\.holdout_in_digest = "([0-9a-f]{64})" in the environment\'s settings')


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Return the servers of this file."""
    state = State(tmp_path_factory.mktemp("upgrades"))
    engine = Engine(state, time_scale=TIME_SCALE, wait_scale=WAIT_SCALE)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Return a folder in the project, where settings may name files."""
    folder = PROJECT / ".cache" / f"upgrades-{os.getpid()}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("kind", versions.KINDS)
@pytest.mark.parametrize("name", versions.names())
def test_an_upgrade_creates_nothing_in_bedrock_and_the_release_answers_every_query(
    engine: Engine, folder: Path, name: str, kind: str
) -> None:
    engine.reset()
    version = Version.unpack(name, folder / f"{name}-{kind}")
    scene = Scene(engine, version.assembly(kind))
    created, held, physical_ids = scene.created(), scene.held(), scene.physical_ids()
    assert {"CreateModelCustomizationJob", "CreateCustomModelDeployment"} <= set(created)
    assert ({"CreateModelInvocationJob", "CreateProvisionedModelThroughput"} <= set(created)) == (
        kind == "labelled"
    )

    upgraded = _synthesized(scene, version, name, kind)
    # Back to the earlier version, and once more.
    for assembly in (upgraded, version.assembly(kind), upgraded):
        scene.deploy(assembly)
        assert scene.created() == created
        assert scene.held() == held
        assert scene.live.digest == scene.digest
        assert scene.physical_ids().items() >= physical_ids.items()
    scene.traffic.end()
    assert scene.others_answers() == []
    assert scene.denied() == set()
    if kind == "given":
        _sees_another_digest(scene, upgraded)


def _synthesized(scene: Scene, version: Version, name: str, kind: str) -> Path:
    """Synthesize this checkout's stacks for a version's user, who does what the changelog says."""
    changes = [DOCUMENTED.get(name, {})]
    if (name, kind) in COUNTED_HOLDOUT:
        refused = synthesize(version.settings(kind, *changes), version.folder / "refused")
        created, outcome = scene.created(), scene.try_to_deploy(refused)
        assert outcome.stack.endswith("-distillation")
        kept = KEPT.search("".join(outcome.reasons))
        assert kept, outcome
        assert scene.created() == created
        changes.append({"dataset": {"holdout_in_digest": kept[1]}})
    return synthesize(version.settings(kind, *changes), version.folder / "upgraded")


def _sees_another_digest(scene: Scene, assembly: Path) -> None:
    """Check that an upgrade with another digest would have been seen: it pays for a job."""
    created, template = scene.created(), json.dumps(templates(assembly)["distillation"])
    # A job of an earlier name would be kept.
    changed = json.loads(template.replace(scene.digest, "0123456789ab"))
    assert scene.deploy_stack("distillation", changed).succeeded
    assert scene.created() == [*created, "CreateModelCustomizationJob"]
    assert "video-router-local-0123456789ab" in scene.held()["jobs"]
