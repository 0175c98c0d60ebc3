"""What travels to Lambda is complete by itself, small, and named by its content."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from stacks import bundles

FOLDERS = sorted(path.parent.name for path in bundles.LAMBDA.glob("*/handler.py"))
# What each function talks to, and which of its names CloudFormation or a state machine calls.
SERVICES = {
    "candidate": ("bedrock", "dynamodb", "stepfunctions"),
    "dataset": ("s3",),
    "distillation_job": ("bedrock", "s3", "stepfunctions"),
    "existing": ("bedrock",),
    "labelling": ("bedrock", "bedrock-runtime", "s3", "stepfunctions"),
    "evaluation": ("bedrock-runtime", "dynamodb", "s3"),
    "promotion": ("cloudwatch", "dynamodb"),
    "provisioned_throughput": ("bedrock", "dynamodb"),
    "release": ("bedrock", "dynamodb", "s3", "stepfunctions"),
    "release_wait": ("dynamodb",),
    "router": ("bedrock-runtime", "dynamodb"),
    "sweeper": ("bedrock", "dynamodb", "stepfunctions"),
}
# What a folder's own requirements.txt brings.
OWN_PACKAGES = {"evaluation": {"pygal", "importlib_metadata", "lazy_importer", "zipp"}}
# The operations for which the layer is there: the runtime's own boto3 may lack the newest ones.
OPERATIONS = {
    "bedrock": (
        "CreateModelCustomizationJob",
        "GetModelCustomizationJob",
        "StopModelCustomizationJob",
        "GetCustomModel",
        "DeleteCustomModel",
        "ListCustomModels",
        "GetFoundationModel",
        "CreateCustomModelDeployment",
        "GetCustomModelDeployment",
        "UpdateCustomModelDeployment",
        "DeleteCustomModelDeployment",
        "ListCustomModelDeployments",
        "CreateProvisionedModelThroughput",
        "GetProvisionedModelThroughput",
        "UpdateProvisionedModelThroughput",
        "DeleteProvisionedModelThroughput",
        "ListProvisionedModelThroughputs",
        "CreateModelInvocationJob",
        "GetModelInvocationJob",
        "ListModelInvocationJobs",
        "StopModelInvocationJob",
        "ListTagsForResource",
        "TagResource",
        "UntagResource",
    ),
    "bedrock-runtime": ("Converse",),
    "cloudwatch": ("GetMetricStatistics",),
    "dynamodb": ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Scan", "TransactWriteItems"),
    "s3": (
        "HeadBucket",
        "GetObject",
        "PutObject",
        "CopyObject",
        "ListObjectsV2",
        "DeleteObjects",
        "ListObjectVersions",
    ),
    "stepfunctions": ("StartExecution", "DescribeExecution", "StopExecution"),
}
MOST_BYTES = 12_500_000

# Runs with the standard library and the layer, and with nothing that this machine has besides. Each function
# is imported in a process of its own, forked after boto3 was loaded from the layer.
PROGRAM = """
import importlib, json, os, sys, traceback
layer, cache, functions = sys.argv[1:]
sys.pycache_prefix = cache
sys.path.insert(0, layer)
assert not [path for path in sys.path if "site-packages" in path], sys.path
import boto3
assert boto3.__file__.startswith(layer), boto3.__file__

def load(folder, bundle, services):
    sys.path.insert(0, bundle)
    handler = importlib.import_module(folder + ".handler")
    assert handler.__file__.startswith(bundle), handler.__file__
    for service in services:
        boto3.client(service)
    if "dynamodb" in services:
        boto3.resource("dynamodb").Table("t")

def outcome(function):
    reading, writing = os.pipe()
    if os.fork() == 0:
        problem = ""
        try:
            load(*function)
        except BaseException:
            problem = traceback.format_exc()
        os.write(writing, problem.encode()[-2000:])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as problem:
        text = problem.read()
    os.wait()
    return text

functions = json.loads(functions)
for service in sorted({service for *_, services in functions for service in services}):
    boto3.client(service)
print(json.dumps({function[0]: outcome(function) for function in functions}))
"""


@pytest.fixture(scope="module")
def layer() -> Path:
    """The layer's folder; the first build of it downloads what lambda/requirements.txt names."""
    return bundles.dependencies_bundle() / "python"


@pytest.fixture(scope="module")
def problems(layer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What went wrong when each function was imported, by its folder."""
    functions = [
        (folder, str(bundles.function_bundle(folder)), SERVICES.get(folder, ())) for folder in FOLDERS
    ]
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "POWERTOOLS_METRICS_NAMESPACE": "DistilledRouter",
        **dict.fromkeys(("NAME", "TABLE_NAME", "BASE_MODEL_ID"), "x"),
    }
    # Compiled code goes aside: the layer must hold none.
    arguments = [str(layer), str(tmp_path_factory.mktemp("compiled")), json.dumps(functions)]
    # -I and -S: no environment variables of Python's, no site-packages, no folder of ours.
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, *arguments]
    outcome = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=120, check=False
    )
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    found: dict[str, str] = json.loads(outcome.stdout.splitlines()[-1])
    return found


def test_every_function_folder_is_known_here() -> None:
    assert sorted(SERVICES) == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_function_needs_nothing_but_its_bundle_and_the_layer(folder: str, problems: dict[str, str]) -> None:
    assert problems[folder] == ""


def test_the_layer_runs_on_any_processor(layer: Path) -> None:
    compiled = {".so", ".pyd", ".dylib", ".dll"}

    assert [path for path in layer.rglob("*") if path.suffix in compiled or ".so." in path.name] == []


def test_the_layer_is_small(layer: Path) -> None:
    size = sum(path.stat().st_size for path in layer.rglob("*") if path.is_file())

    assert size < MOST_BYTES, f"{size:,} bytes"
    assert list(layer.rglob("__pycache__")) == []


def test_the_layer_holds_the_models_of_our_services_only(layer: Path) -> None:
    for home in (layer / "botocore" / "data", layer / "boto3" / "data"):
        assert {path.name for path in home.iterdir() if path.is_dir()} <= set(bundles.SERVICES)
    used = {service for services in SERVICES.values() for service in services}
    assert used <= set(bundles.SERVICES)
    assert set(OPERATIONS) >= used


def test_the_layers_models_know_the_operations_that_we_call(layer: Path) -> None:
    for service, operations in OPERATIONS.items():
        model = _model(layer, service)
        assert set(operations) <= set(model["operations"]), service
    shapes = _model(layer, "bedrock")["shapes"]
    assert "endOfLifeTime" in shapes["FoundationModelLifecycle"]["members"]
    assert "updateDetails" in shapes["GetCustomModelDeploymentResponse"]["members"]
    assert "distillationConfig" in shapes["CustomizationConfig"]["members"]


def _model(layer: Path, service: str) -> dict[str, Any]:
    newest = max((layer / "botocore" / "data" / service).glob("*/service-2.json.gz"))
    model: dict[str, Any] = json.loads(gzip.decompress(newest.read_bytes()))
    return model


def test_the_layer_holds_the_versions_that_the_tests_use(layer: Path) -> None:
    wanted = dict(line.split("==") for line in bundles.REQUIREMENTS.read_text().splitlines() if "==" in line)
    found = {path.name.removesuffix(".dist-info") for path in layer.glob("*.dist-info")}

    assert {f"{name.replace('-', '_')}-{version}" for name, version in wanted.items()} <= found
    for name, version in wanted.items():
        assert metadata.version(name) == version


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_bundle_holds_its_own_folder_what_all_share_and_the_task(folder: str) -> None:
    bundle = bundles.function_bundle(folder)
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}

    own = OWN_PACKAGES.get(folder, set())
    assert {path.name for path in bundle.iterdir()} == {folder, "shared", "task"} | own
    assert {f"{folder}/handler.py", "shared/releases.py", "task/task.toml"} <= files
    assert not [name for name in files if "__pycache__" in name or name.endswith((".pyc", ".so"))]


def test_a_functions_own_packages_have_the_versions_that_the_tests_use() -> None:
    for path in bundles.LAMBDA.glob("*/requirements.txt"):
        assert path.parent.name in OWN_PACKAGES
        for line in path.read_text().splitlines():
            if not line.startswith("#"):
                name, version = line.split("==")
                assert metadata.version(name) == version


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources, and the bundles made of it."""
    for name in ("lambda", "task"):
        shutil.copytree(bundles.PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(bundles, "PROJECT", tmp_path)
    monkeypatch.setattr(bundles, "LAMBDA", tmp_path / "lambda")
    return tmp_path


@pytest.mark.parametrize("changed", ["lambda/dataset/handler.py", "lambda/shared/jobs.py", "task/task.toml"])
def test_a_bundles_name_changes_with_its_content(copy: Path, changed: str) -> None:
    before = bundles.function_bundle("dataset").name
    with (copy / changed).open("a") as file:
        file.write("\n# changed\n")

    assert bundles.function_bundle("dataset").name != before


def test_a_bundles_name_changes_with_its_files_names(copy: Path) -> None:
    before = bundles.function_bundle("dataset").name
    (copy / "lambda" / "dataset" / "handler.py").rename(copy / "lambda" / "dataset" / "handled.py")

    assert bundles.function_bundle("dataset").name != before


def test_a_bundles_name_changes_with_nothing_else(copy: Path) -> None:
    before = bundles.function_bundle("dataset")
    (copy / "lambda" / "router" / "handler.py").write_text("# another function\n")
    cached = copy / "lambda" / "dataset" / "__pycache__" / "handler.pyc"
    cached.parent.mkdir()
    cached.write_bytes(b"compiled")
    os.utime(copy / "lambda" / "dataset" / "handler.py", (1, 1))

    assert bundles.function_bundle("dataset") == before
    assert before.name == bundles.function_bundle("dataset", task=copy / "task").name


def test_another_task_is_another_bundle(copy: Path) -> None:
    other = copy / "other"
    shutil.copytree(copy / "task", other)
    (other / "student_prompt.txt").write_text("Weigh it.\n")

    bundle = bundles.function_bundle("router", task=other)

    assert bundle != bundles.function_bundle("router")
    assert (bundle / "task" / "student_prompt.txt").read_text() == "Weigh it.\n"


def test_what_lies_beside_the_task_is_no_part_of_it(copy: Path) -> None:
    before = bundles.function_bundle("router")
    (copy / "task" / "training.jsonl").write_text("{}\n")

    assert bundles.function_bundle("router") == before


def test_a_build_that_fails_leaves_nothing_behind(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)

    with pytest.raises(OSError, match="No space left"):
        bundles.function_bundle("dataset")
    assert list((copy / ".cache").iterdir()) == []
