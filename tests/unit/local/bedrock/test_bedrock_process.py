"""The stand-in as a process, with a clock in real time, and its HTTP server."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from local import certificate
from local.bedrock import BedrockStandIn, Durations, ManualClock, ScaledClock
from local.bedrock.checks import compiled
from local.bedrock.roles import Roles, trusts_bedrock
from tests.unit.local.bedrock.scenes import Scene

PROJECT = Path(__file__).parents[4]
CREDENTIAL = "AWS4-HMAC-SHA256 Credential=AKIA/20261124/us-east-1/bedrock/aws4_request, SignedHeaders=host"


def until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.01)


def test_states_move_by_themselves_on_a_scaled_clock() -> None:
    with BedrockStandIn(clock=ScaledClock(60_000)) as bedrock:
        scene = Scene(bedrock)
        began = time.time()
        scene.create_job()
        until(lambda: scene.job()["status"] == "Completed")
        job = scene.job()
    # Timestamps stay real, so that callers can compare them with their own clocks.
    assert began - 1 <= job["creationTime"].timestamp() <= job["endTime"].timestamp() <= time.time() + 1


def test_durations_can_be_set() -> None:
    with BedrockStandIn(durations=Durations(deployment=60)) as bedrock:
        scene = Scene(bedrock)
        scene.deploy(scene.train(), wait=False)
        bedrock.advance(59)
        assert bedrock.state()["deployments"][0]["status"] == "Creating"
        bedrock.advance(1)
        assert bedrock.state()["deployments"][0]["status"] == "Active"


def test_only_manual_clocks_are_advanced() -> None:
    with BedrockStandIn(clock=ScaledClock()) as bedrock, pytest.raises(TypeError, match="ManualClock"):
        bedrock.advance(1)
    with pytest.raises(ValueError, match="0 or more"):
        ManualClock().advance(-1)
    with pytest.raises(ValueError, match="above 0"):
        ScaledClock(0)


@pytest.mark.parametrize("secure", [True, False])
def test_process_serves_and_ends_on_sigterm(tmp_path: Path, secure: bool) -> None:
    port_file, chain, key = (tmp_path / name for name in ("port", "chain.pem", "key.pem"))
    arguments = ["-m", "local.bedrock", "--port", "0", "--port-file", str(port_file), "--log"]
    if secure:
        certificate.create(chain, key)
        arguments += ["--certificate", str(chain), str(key)]
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=PROJECT, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        until(lambda: port_file.exists() and port_file.read_text())
        client = boto3.client(
            "bedrock",
            endpoint_url=f"{'https' if secure else 'http'}://127.0.0.1:{port_file.read_text().strip()}",
            verify=str(chain) if secure else None,
            region_name="us-east-1",
            aws_access_key_id="AKIA",
            aws_secret_access_key="secret",
            config=Config(proxies={}, retries={"total_max_attempts": 1}),
        )
        assert client.list_custom_models()["modelSummaries"] == []
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "bedrock ListCustomModels ok" in log


def converse(scene: Scene, *extra: str) -> tuple[bytes, bytes]:
    body = json.dumps({"messages": [{"role": "user", "content": [{"text": "a red car"}]}]}).encode()
    head = [
        "POST /model/amazon.nova-micro-v1%3A0/converse HTTP/1.1",
        "Host: localhost",
        f"Authorization: {CREDENTIAL}",
        f"Content-Length: {len(body)}",
        *extra,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n", body


def test_server_speaks_tls_and_serves_others_while_a_handshake_hangs() -> None:
    with BedrockStandIn(tls=True) as bedrock:
        assert bedrock.endpoint.startswith("https://")
        with socket.create_connection(("127.0.0.1", bedrock.port), timeout=60):
            context = ssl.create_default_context(cafile=bedrock.ca_bundle)
            with urlopen(f"{bedrock.endpoint}/_health", timeout=60, context=context) as answer:
                assert answer.status == 200
    with BedrockStandIn() as bedrock, pytest.raises(ValueError, match="tls=True"):
        _ = bedrock.ca_bundle


def test_client_may_wait_for_100_continue_and_keep_its_connection(scene: Scene) -> None:
    head, body = converse(scene, "Expect: 100-continue")
    with socket.create_connection(("127.0.0.1", scene.bedrock.port), timeout=60) as connection:
        for _ in range(2):
            connection.sendall(head)
            assert connection.recv(1000).startswith(b"HTTP/1.1 100 Continue")
            connection.sendall(body)
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200 OK")


def test_chunked_bodies_are_read(scene: Scene) -> None:
    head, body = converse(scene, "Transfer-Encoding: chunked")
    head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length"))
    with socket.create_connection(("127.0.0.1", scene.bedrock.port), timeout=60) as connection:
        connection.sendall(head + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n")
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200 OK")


def test_closed_connections_are_not_reported(scene: Scene, capfd: pytest.CaptureFixture[str]) -> None:
    head, body = converse(scene)
    for part in (head[:20], head, head + body):
        with socket.create_connection(("127.0.0.1", scene.bedrock.port), timeout=60) as connection:
            connection.sendall(part)
    time.sleep(0.05)
    assert scene.ask("amazon.nova-micro-v1:0", "a red car")
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        (r"[a-zA-Z0-9](-*[a-zA-Z0-9\+\-\.])*", "a-b.c+d", True),
        (r"[a-zA-Z0-9](-*[a-zA-Z0-9\+\-\.])*", "-a", False),
        (r"[a-zA-Z0-9](-*[a-zA-Z0-9\+\-\.])*", "a" + "-" * 500 + "_", False),
        (r"[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9\+\-\.]){0,63}", "a" + "-" * 500 + "_", False),
        (r"[a-zA-Z0-9]{1,256}(-*[a-zA-Z0-9]){0,256}", "a-b", True),
        (r"[a-zA-Z0-9]{1,256}(-*[a-zA-Z0-9]){0,256}", "a-", False),
    ],
)
def test_safe_patterns_match_the_same_names(pattern: str, text: str, fits: bool) -> None:
    assert bool(compiled(pattern).fullmatch(text)) is fits


TRUST = {
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "bedrock.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ]
}


class IamDouble:
    """A test double of IAM's GetRole."""

    def __init__(self, document: Any, code: str | None = None) -> None:
        self.document, self.code = document, code

    def get_role(self, RoleName: str) -> dict[str, Any]:  # noqa: N803 - IAM's own name
        if self.code:
            raise ClientError({"Error": {"Code": self.code, "Message": ""}}, "GetRole")
        arn = f"arn:aws:iam::000000000000:role/{RoleName}"
        return {"Role": {"Arn": arn, "AssumeRolePolicyDocument": self.document}}


def test_role_must_exist_and_trust_bedrock() -> None:
    arn = "arn:aws:iam::000000000000:role/job"
    assert Roles(IamDouble(TRUST)).is_assumable(arn)
    assert not Roles(IamDouble({"Statement": []})).is_assumable(arn)
    assert not Roles(IamDouble(TRUST, "NoSuchEntity")).is_assumable(arn)
    with pytest.raises(ClientError):
        Roles(IamDouble(TRUST, "AccessDenied")).is_assumable(arn)


@pytest.mark.parametrize(
    ("document", "trusted"),
    [
        (TRUST, True),
        (json.dumps(TRUST), True),
        (
            {
                "Statement": {
                    "Effect": "Allow",
                    "Principal": {"Service": ["a", "bedrock.amazonaws.com"]},
                    "Action": ["sts:AssumeRole"],
                }
            },
            True,
        ),
        (
            {
                "Statement": [
                    {
                        "Effect": "Deny",
                        "Principal": {"Service": "bedrock.amazonaws.com"},
                        "Action": "sts:AssumeRole",
                    }
                ]
            },
            False,
        ),
        (
            {
                "Statement": [
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": "lambda.amazonaws.com"},
                        "Action": "sts:AssumeRole",
                    }
                ]
            },
            False,
        ),
        ({"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}, False),
    ],
)
def test_trust_policy_is_evaluated(document: Any, trusted: bool) -> None:
    assert trusts_bedrock(document) is trusted
