"""Packages and folders of other teams with the same names as ours, on the import path."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cdk_distilled_router.common import bundles
from stacks.settings import PROJECT
from tests.stacks import offline

NAMES = ("shared", "dataset", "stacks", "router")

# As in Lambda: the bundle, then the layer, and no other packages of this machine.
HANDLER = """
import sys
front, bundle, layer, behind = sys.argv[1:]
sys.path = [front, bundle, layer, *(p for p in sys.path if "site-packages" not in p), behind]
import dataset.handler
assert dataset.handler.__file__.startswith(bundle), dataset.handler.__file__
assert callable(dataset.handler.on_event)
"""

# Another team's app, with packages of these names.
APP = """
import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from cdk_distilled_router import DistillationJob, JobData
from cdk_distilled_router.props import JobProps
import dataset, router, shared, stacks

assert {module.OWNER for module in (dataset, router, shared, stacks)} == {"theirs"}
app = cdk.App()
stack = cdk.Stack(app, "search")
DistillationJob(
    stack,
    "Job",
    owner="search",
    bucket=s3.Bucket.from_bucket_name(stack, "Data", "search-team-data"),
    data=JobData(training_key="rows/training.jsonl"),
    props=JobProps(student="amazon.nova-micro-v1:0:128k", teacher="us.amazon.nova-pro-v1:0"),
)
app.synth()
"""


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Return a folder with folders of these names without code, such as a data set's."""
    for name in NAMES:
        (tmp_path / "plain" / name).mkdir(parents=True)
    return tmp_path / "plain"


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Return a folder with packages of these names that raise when imported."""
    for name in NAMES:
        package = tmp_path / "packages" / name
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise ImportError(__file__)\n", encoding="utf-8")
    return tmp_path / "packages"


def run(arguments: Sequence[str], path: Sequence[Path], cwd: Path, out: Path) -> None:
    """Run Python with folders on its path; nothing that it may read or write is beyond `cwd` and `out`."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={
            **offline.environment(out),
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "CDK_OUTDIR": str(out / "cdk.out"),
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_app_is_declared_beside_packages_of_our_names(plain: Path, packages: Path, tmp_path: Path) -> None:
    """As `python app.py` has it, whose own folder comes first; here even after folders without code."""
    program = (
        f"import sys; sys.path[:0] = [{str(plain)!r}, {str(PROJECT)!r}]\n"
        "import aws_cdk as cdk, json, pathlib\n"
        "from stacks.application import build\n"
        "context = json.loads(pathlib.Path('cdk.json').read_text())['context']\n"
        "assert len(build(cdk.App(context=context), 'dev').stacks) == 5\n"
    )
    run(["-c", program], [packages], PROJECT, tmp_path)


def test_another_teams_app_keeps_its_own_packages_of_our_names(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    for name in NAMES:
        (theirs / name).mkdir(parents=True)
        (theirs / name / "__init__.py").write_text('OWNER = "theirs"\n', encoding="utf-8")
    (theirs / "app.py").write_text(APP, encoding="utf-8")
    run(["app.py"], [PROJECT], theirs, tmp_path)
    assert (tmp_path / "cdk.out" / "search.template.json").exists()


def test_bundled_handler_starts_beside_packages_of_our_names(
    plain: Path, packages: Path, tmp_path: Path
) -> None:
    bundle, layer = bundles.function_bundle("dataset"), bundles.dependencies_bundle() / "python"
    path = [str(folder) for folder in (plain, bundle, layer, packages)]
    run(["-I", "-S", "-B", "-c", HANDLER, *path], [], tmp_path, tmp_path)
