"""Fixtures of all tests: AWS clients that can't leave this machine, the emulator and the Bedrock stand-in."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import boto3
import pytest
from botocore.config import Config
from hypothesis import HealthCheck, settings

import stacks  # noqa: F401  # puts lambda/ on the import path
from distilled_router.release.table import Releases
from local.bedrock import BedrockStandIn
from local.servers import EMULATOR_PYTHON
from operate import processes
from operate.cdk import tool_path
from operate.environment import without_aws
from stacks.settings import PROJECT
from tests import watchdog

# A loaded machine is slow now and then; the benchmarks measure speed. The examples are the same in each run:
# `pytest --hypothesis-profile=searching` looks for others.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("searching", _PATIENT)
settings.register_profile("patient", _PATIENT, derandomize=True)
settings.load_profile("patient")

REGION = "us-east-1"
ACCOUNT = "000000000000"
EMULATOR = (
    "import sys, update_paths; update_paths.install(); "
    "from hypercorn.__main__ import main; sys.exit(main(sys.argv[1:]))"
)

# No test may reach AWS, whatever the caller's environment and home folder contain.
for _name in [name for name in os.environ if name.startswith("AWS_")]:
    del os.environ[_name]
os.environ |= {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    # The servers of the tests are not behind the caller's proxy, which package registries may need.
    **{name: without_aws()[name] for name in ("NO_PROXY", "no_proxy")},
    # The machine may have no Node.js, or an old one: the CDK starts the one that it supports.
    "PATH": tool_path(),
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # the discard port: clients from outside the fixtures fail
    "POWERTOOLS_METRICS_NAMESPACE": "DistilledRouter",
}

Client = Callable[[str], Any]


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Run only the quick tests, those not marked `slow`, if no file is named."""
    if config.args_source is pytest.Config.ArgsSource.TESTPATHS and not config.option.markexpr:
        config.option.markexpr = "not slow"


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of processes: several for the quick tests, none for named files.

    One more than there are cores, since tests wait for servers.
    """
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    return 0 if named else (os.cpu_count() or 1) + 1


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark all tests as `slow` that a bare `pytest` does not collect, so that `-m slow` selects them."""
    quick = [config.rootpath / path for path in config.getini("testpaths")]
    files = {item.path for item in items}
    slow = {file for file in files if not any(file.is_relative_to(path) for path in quick)}
    for item in items:
        if item.path in slow:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def no_process_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """End this session's servers even if pytest is killed."""
    own = [PROJECT / ".cache" / f"{name}-{os.getpid()}" for name in ("faults", "integration", "users")]
    guard = watchdog.start([tmp_path_factory.getbasetemp(), *own])
    yield
    assert guard.stdin is not None
    guard.stdin.close()


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start the AWS emulator (a test double: MiniStack), without TLS and IAM; yield its URL."""
    folder = tmp_path_factory.mktemp("emulator")
    listener = processes.listener()
    port = listener.getsockname()[1]
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "STATE_DIR": str(folder / "state"),
        "S3_DATA_DIR": str(folder / "s3"),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "SFN_WAIT_SCALE": "1",
        "PYTHONPATH": str(PROJECT / "local" / "emulator"),
    }
    arguments = ["ministack.app:app", "--bind", f"fd://{listener.fileno()}", "--workers", "0"]
    with (folder / "log").open("wb") as log, listener:
        process = subprocess.Popen(
            [EMULATOR_PYTHON, "-c", EMULATOR, *arguments],
            env=variables,
            cwd=folder,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end and process.poll() is None:
        try:
            with urlopen(f"{url}/_ministack/health", timeout=10):
                return
        except (URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError(f"The emulator did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def aws(emulator: str) -> Client:
    """Return a factory of the emulator's boto3 clients: `aws("s3")`."""

    @cache
    def client(service: str) -> Any:
        # Ignored below: the stubs accept only literal service names.
        config = Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}, proxies={})
        return boto3.client(service, endpoint_url=emulator, config=config)  # type: ignore[call-overload]

    return client


@pytest.fixture
def bedrock_server() -> Iterator[BedrockStandIn]:
    """Yield a fresh Bedrock stand-in (a test double) whose clock stands still until `advance`."""
    with BedrockStandIn() as server:
        yield server


@pytest.fixture
def bedrock(bedrock_server: BedrockStandIn) -> Any:
    """Return a control-plane client of the stand-in."""
    return bedrock_server.client("bedrock")


_numbers = count(1)


@pytest.fixture
def releases(emulator: str, aws: Client) -> Releases:
    """Return a new, empty releases table in the emulator."""
    name = f"releases-{os.getpid()}-{next(_numbers)}"
    aws("dynamodb").create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return Releases(boto3.resource("dynamodb", endpoint_url=emulator).Table(name), "router-test")


@pytest.fixture
def bucket(aws: Client) -> str:
    """Return a new, empty, versioned bucket in the emulator."""
    name = f"data-{os.getpid()}-{next(_numbers)}"
    aws("s3").create_bucket(Bucket=name)
    aws("s3").put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return name
