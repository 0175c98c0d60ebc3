"""What travels to Lambda is complete by itself, small, and named by its content."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import json
import marshal
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import aws_cdk as cdk
import pytest

from cdk_distilled_router.common import bundles, packages
from tests.locks import pinned
from tests.unit.router.doubles import router_env

FOLDERS = sorted(path.parent.name for path in bundles.LAMBDA.glob("*/handler.py"))
# What each function talks to, and which of its names CloudFormation or a state machine calls.
SERVICES = {
    "candidate": ("bedrock", "dynamodb", "stepfunctions"),
    "dataset": ("s3",),
    "distillation_job": ("bedrock", "s3", "stepfunctions"),
    "existing": ("bedrock",),
    "labelling": ("bedrock", "bedrock-runtime", "s3", "stepfunctions"),
    "evaluation": ("bedrock-runtime", "dynamodb", "s3"),
    "rollout": ("cloudwatch", "dynamodb"),
    # Its own client, without boto3's.
    "router": (),
    "provisioned_throughput": ("bedrock", "dynamodb"),
    "release": ("bedrock", "dynamodb", "s3", "stepfunctions"),
    "release_wait": ("dynamodb",),
    "sweeper": ("bedrock", "dynamodb", "stepfunctions"),
}
READS_TASK = {"dataset", "evaluation", "labelling", "rollout", "router"}
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
MOST_BYTES = 7_500_000

# Runs with the standard library and the layer, and with nothing that this machine has besides. Each function
# is imported in a process of its own, forked after boto3 was loaded from the layer.
PROGRAM = """
import importlib, json, os, sys, traceback
layer, functions = sys.argv[1:]
sys.dont_write_bytecode = True
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
        places = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
        # Of the bundle's packages only our own count: they import nothing late.
        files = [place[len(function[1]) + 1 :] for place in places if place.startswith(function[1] + "/")]
        files = [file for file in files if file.split("/")[0] in (function[0], "distilled_router")]
        os.write(writing, json.dumps({"problem": problem[-2000:], "files": files}).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        text = said.read()
    os.wait()
    return json.loads(text)

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
def loaded(layer: Path) -> dict[str, Any]:
    """What went wrong when each function was imported, and which of our files that loaded, by its folder."""
    functions = [(folder, str(bundles.function_bundle(folder)), SERVICES[folder]) for folder in FOLDERS]
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        # With a head, so that the router imports all that it may need.
        **router_env(head_mode="first", head_bucket="data").variables(),
    }
    arguments = [str(layer), json.dumps(functions)]
    # -I and -S: no environment variables of Python's, no site-packages, no folder of ours.
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, *arguments]
    outcome = subprocess.run(
        command, env=environment, cwd="/", capture_output=True, text=True, timeout=600, check=False
    )
    assert outcome.returncode == 0, outcome.stderr[-2000:]
    found: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    return found


def test_every_function_folder_is_known_here() -> None:
    assert sorted(SERVICES) == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_function_needs_nothing_but_its_bundle_and_the_layer(folder: str, loaded: dict[str, Any]) -> None:
    assert loaded[folder]["problem"] == ""


def test_the_layer_runs_on_any_processor(layer: Path) -> None:
    compiled = {".so", ".pyd", ".dylib", ".dll"}

    assert [path for path in layer.rglob("*") if path.suffix in compiled or ".so." in path.name] == []


def test_the_layer_is_small(layer: Path) -> None:
    files = [path for path in layer.rglob("*") if path.is_file() and path.parent.name != bundles.COMPILED]
    size = sum(path.stat().st_size for path in files)

    assert size < MOST_BYTES, f"{size:,} bytes"


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


def test_the_layer_holds_of_powertools_only_what_the_functions_import(layer: Path) -> None:
    powertools = layer / bundles.REDUCED

    assert (powertools / "logging" / "logger.py").exists()
    assert not [name for name in ("utilities/parser", "utilities/kafka") if (powertools / name).exists()]
    assert not [
        path for path in powertools.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert not [path for path in powertools.rglob("*") if path.is_dir() and not any(path.iterdir())]


def test_the_layer_holds_the_versions_that_the_tests_use(layer: Path) -> None:
    wanted = pinned(bundles.REQUIREMENTS)
    found = {path.name.removesuffix(".dist-info") for path in layer.glob("*.dist-info")}

    assert found == {f"{name.replace('-', '_')}-{version}" for name, version in wanted.items()}
    for name, version in wanted.items():
        assert metadata.version(name) == version


def test_packages_come_with_their_licences_and_no_word_of_who_installed_them(layer: Path) -> None:
    for home in (layer, bundles.function_bundle("evaluation")):
        abouts = list(home.glob("*.dist-info"))
        assert abouts
        for about in abouts:
            names = {path.name for path in about.rglob("*") if path.is_file()}
            assert {"METADATA"} < names
            assert not names & {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}
        assert not (home / ".lock").exists()


def _files(bundle: Path) -> set[str]:
    """What a bundle holds, but for what is compiled of it."""
    return {
        path.relative_to(bundle).as_posix()
        for path in bundle.rglob("*")
        if path.is_file() and path.parent.name != bundles.COMPILED
    }


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_bundle_holds_its_own_folder_and_the_task_if_it_reads_it(folder: str) -> None:
    bundle = bundles.function_bundle(folder)
    files = _files(bundle)

    own = OWN_PACKAGES.get(folder, set())
    task = {"task"} if folder in READS_TASK else set()
    tops = {name.split("/")[0] for name in files if ".dist-info/" not in name}
    assert tops == {folder, "distilled_router"} | task | own
    assert not [name for name in files if name.endswith((".pyc", ".so"))]
    assert not [name for name in files if "requirements" in name]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_bundle_holds_no_module_that_its_handler_does_not_load(folder: str, loaded: dict[str, Any]) -> None:
    """What the import in a process of its own has loaded, beside what the bundle has."""
    bundle = bundles.function_bundle(folder)
    modules = {name for name in _files(bundle) if name.endswith(".py")}
    mine = {name for name in modules if name.split("/")[0] in (folder, "distilled_router")}

    assert mine == set(loaded[folder]["files"])


def test_every_file_in_lambda_is_in_some_bundle() -> None:
    bundled = {name for folder in FOLDERS for name in _files(bundles.function_bundle(folder))}
    written = {
        path.relative_to(bundles.LAMBDA).as_posix()
        for path in bundles.LAMBDA.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.stem != "requirements"
    }

    assert written - bundled == set()


def test_no_function_imports_by_a_name_made_at_run_time() -> None:
    """Its bundle would lack that module."""
    for path in bundles.LAMBDA.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert "import_module" not in source, path
        assert "__import__" not in source, path


def test_a_functions_own_packages_have_the_versions_that_the_tests_use() -> None:
    for path in bundles.LAMBDA.glob("*/requirements.txt"):
        assert path.parent.name in OWN_PACKAGES
        for name, version in pinned(path).items():
            assert metadata.version(name) == version


def _content(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All that an archive of a folder would hold: names, modes and bytes."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in (folder, *sorted(folder.rglob("*")))
    }


def test_the_same_input_makes_the_same_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From scratch, later, elsewhere, and by somebody whose files are nobody else's to read."""
    first = [bundles.dependencies_bundle(), *map(bundles.function_bundle, FOLDERS)]
    monkeypatch.setattr(bundles, "CACHE", tmp_path / "elsewhere")
    umask = os.umask(0o077)
    try:
        second = [bundles.dependencies_bundle(), *map(bundles.function_bundle, FOLDERS)]
    finally:
        os.umask(umask)

    assert len({*first, *second}) == 2 * (1 + len(FOLDERS))
    for one, other in zip(first, second, strict=True):
        assert one.name == other.name
        assert _content(one) == _content(other), one.name
        assert cdk.FileSystem.fingerprint(str(one)) == cdk.FileSystem.fingerprint(str(other))


@pytest.mark.slow
def test_pip_makes_the_same_layer_as_uv(layer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment may have either of them."""
    monkeypatch.setattr(bundles, "CACHE", tmp_path)
    monkeypatch.setattr(packages, "uv", lambda: None)

    assert _content(bundles.dependencies_bundle()) == _content(layer.parent)


def test_a_missing_task_says_how_to_give_one(copy: Path) -> None:
    """An installed wheel brings no routing task."""
    shutil.rmtree(copy / "task")

    assert bundles.function_bundle("sweeper").exists()
    with pytest.raises(FileNotFoundError, match=r"use_task\(scope, folder\)"):
        bundles.function_bundle("router")


runs_the_functions_python = pytest.mark.skipif(
    not bundles.is_compiled(), reason="another Python than the functions' compiles nothing for them"
)


@runs_the_functions_python
def test_every_module_is_compiled_as_lambda_will_load_it(layer: Path) -> None:
    """Never compared with its source, whose time nobody keeps; in tracebacks where it lies in Lambda."""
    bundle = bundles.function_bundle("router")
    for folder, home in ((bundle, "/var/task"), (layer.parent, "/opt")):
        for source in folder.rglob("*.py"):
            compiled = Path(importlib.util.cache_from_source(source)).read_bytes()
            assert compiled[:4] == importlib.util.MAGIC_NUMBER
            assert int.from_bytes(compiled[4:8], "little") == 0b01, "by a hash that nobody checks (PEP 552)"
            if folder == bundle:
                code = marshal.loads(compiled[16:])  # compiled here
                assert code.co_filename == f"{home}/{source.relative_to(folder).as_posix()}"


def test_a_python_of_another_version_bundles_sources(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "RUNTIME", sys.version_info[:2])
    compiled = bundles.function_bundle("existing")
    monkeypatch.setattr(bundles, "RUNTIME", (3, 99))
    bundle = bundles.function_bundle("existing")
    assert list(bundle.rglob(bundles.COMPILED)) == []
    assert bundle != compiled
    assert _files(bundle) == _files(compiled)


def test_lambdas_user_may_read_a_bundle() -> None:
    for folder in (bundles.function_bundle("dataset"), bundles.dependencies_bundle()):
        for path in (folder, *folder.rglob("*")):
            assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources, and the bundles made of it."""
    for folder in (bundles.LAMBDA, bundles.TASK):
        shutil.copytree(folder, tmp_path / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(bundles, "TASK", tmp_path / "task")
    monkeypatch.setattr(bundles, "LAMBDA", tmp_path / "lambda")
    monkeypatch.setattr(bundles, "CACHE", tmp_path / ".cache")
    return tmp_path


@pytest.mark.parametrize(
    "changed",
    [
        "lambda/dataset/handler.py",
        "lambda/distilled_router/data/line_rules.py",
        "lambda/distilled_router/cost/prices.toml",
        "task/task.toml",
    ],
)
def test_a_bundles_name_changes_with_its_content(copy: Path, changed: str) -> None:
    before = bundles.function_bundle("dataset").name
    with (copy / changed).open("a") as file:
        file.write("\n# changed\n")

    assert bundles.function_bundle("dataset").name != before


def test_a_bundles_name_changes_with_its_files_names(copy: Path) -> None:
    handler = copy / "lambda" / "dataset" / "handler.py"
    handler.write_text("from dataset import one, two\n")
    (handler.parent / "one.py").write_text("")
    before = bundles.function_bundle("dataset").name
    (handler.parent / "one.py").rename(handler.parent / "two.py")

    assert bundles.function_bundle("dataset").name != before


def test_a_module_that_only_another_function_imports_changes_nothing(copy: Path) -> None:
    before = [bundles.function_bundle(folder) for folder in ("router", "sweeper", "labelling")]
    with (copy / "lambda" / "distilled_router" / "data" / "similarity.py").open("a") as file:
        file.write("\n# changed\n")
    with (copy / "task" / "task.toml").open("a") as file:
        file.write("\n# changed\n")

    router, sweeper, labelling = (
        bundles.function_bundle(name) for name in ("router", "sweeper", "labelling")
    )
    assert sweeper == before[1]
    assert router != before[0]  # it reads the task
    assert labelling != before[2]
    assert not (router / "distilled_router" / "data" / "similarity.py").exists()


def test_what_is_imported_inside_a_function_is_bundled(copy: Path) -> None:
    (copy / "lambda" / "existing" / "handler.py").write_text(
        "def handler(event, context):\n    from distilled_router.data import similarity\n"
    )

    assert (bundles.function_bundle("existing") / "distilled_router" / "data" / "similarity.py").exists()


def test_a_folder_without_a_handler_is_named(copy: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lambda/distilled_router/handler\.py"):
        bundles.function_bundle("distilled_router")


def test_other_dependencies_are_another_layer(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their lock, the services, and what of Powertools a function begins to import."""
    built: list[str] = []

    def built_as(name: str, parts: Iterable[bytes], build: object) -> Path:
        built.append(hashlib.sha256(b"".join(parts)).hexdigest())
        return Path(name)

    monkeypatch.setattr(bundles, "_built", built_as)
    monkeypatch.setattr(bundles, "REQUIREMENTS", copy / "lambda" / "requirements.txt")
    bundles.dependencies_bundle()
    with bundles.REQUIREMENTS.open("a") as file:
        file.write("# another\n")
    bundles.dependencies_bundle()
    monkeypatch.setattr(bundles, "SERVICES", (*bundles.SERVICES, "sqs"))
    bundles.dependencies_bundle()
    with (copy / "lambda" / "router" / "handler.py").open("a") as file:
        file.write("\nfrom aws_lambda_powertools.utilities import parameters\n")
    bundles.dependencies_bundle()

    assert len(set(built)) == 4


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
