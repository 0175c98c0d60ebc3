"""Other users of this machine can't use a running local system, and can't read its keys.

They reach its ports, its folder and the list of processes. Some tests do so as another user, if this one is
root; the others send what another user could send.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from local import control, servers
from local.keys import HEADER
from local.servers import Servers
from local.state import ACCOUNT, REGION, State
from operate import web
from stacks.settings import PROJECT

NOBODY = 65534
CREATE_FUNCTION = "/2015-03-31/functions"
# A role is needed, and no permission.
FUNCTION, ROLE = "shows-its-variables", f"arn:aws:iam::{ACCOUNT}:role/of-the-function"
SOURCE = "import os\n\ndef handler(event, context):\n    return dict(os.environ)\n"


@dataclass(frozen=True)
class Running:
    """A running system, and requests to it."""

    state: State
    servers: Servers

    def client(self, service: str, access_key: str = "", secret_key: str = "") -> Any:
        """Return a client with these keys; with the system's own by default."""
        keys = self.servers.keys
        url = self.servers.bedrock.url if service == "bedrock" else self.servers.emulator.url
        return boto3.client(  # type: ignore[call-overload]  # any service's name
            service,
            endpoint_url=url,
            verify=str(self.state.certificate),
            aws_access_key_id=access_key or keys.access_key,
            aws_secret_access_key=secret_key or keys.secret_key,
            config=Config(
                retries={"total_max_attempts": 1},
                signature_version="s3v4" if service == "s3" else "v4",
                s3={"addressing_style": "path"},
                proxies={},
            ),
        )

    def send(self, url: str, method: str, headers: dict[str, str], body: str = "") -> AWSResponse:
        """Send a request as it is."""
        request = AWSRequest(method, url, headers=headers, data=body)
        return web.send(request, verify=self.state.certificate)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """Start the servers in a folder that other users reach, which pytest's own is not."""
    folder = PROJECT / ".cache" / f"users-{os.getpid()}"
    folder.mkdir(parents=True)
    state = State(folder / "state")
    try:
        yield Running(state, servers.start(state))
    finally:
        servers.stop(state)
        shutil.rmtree(folder, ignore_errors=True)


UNSIGNED = [
    ("GET", "/", {}),
    ("PUT", "/bucket", {}),
    ("OPTIONS", "/", {}),
    ("POST", "/", {"X-Amz-Target": "DynamoDB_20120810.ListTables"}),
    ("POST", "/", {"X-Amz-Target": "AWSStepFunctions.ListStateMachines"}),
    ("POST", "/?Action=GetCallerIdentity&Version=2011-06-15", {}),
    ("POST", CREATE_FUNCTION, {}),
    ("POST", CREATE_FUNCTION, {"Authorization": "AWS test:signature"}),
    ("POST", CREATE_FUNCTION, {"Authorization": "Bearer token"}),
    ("GET", "/bucket/key?AWSAccessKeyId=test&Signature=none&Expires=9999999999", {}),
    ("GET", "/health", {}),
    ("GET", "/iceberg/v1/config", {}),
    ("GET", "/v2/", {}),
    ("POST", "/oauth2/token", {}),
    ("GET", "/_aws/execute-api/api/$default/route", {}),
    ("GET", "/_aws/lambda-url/url/", {}),
    ("GET", "/_alb/balancer/", {}),
    ("GET", "/_localstack/info", {}),
    ("GET", "/_ministack/ready", {}),
    ("POST", "/_ministack/health", {}),
    ("POST", "/_ministack/reset", {}),
    ("POST", "/_ministack/config", {}),
    ("GET", "/_ministack/sqs/messages", {}),
    ("GET", f"/_ministack/lambda-code/{FUNCTION}", {}),
    ("GET", "/_ministack/cfn-response/token", {}),
    ("POST", "/_ministack/rds/iam-auth", {}),
    ("GET", "/_cloudformation/cancellations", {}),
    ("POST", "/_cloudformation/cancellations", {}),
    ("POST", "/_cloudformation/deliveries/2", {}),
    ("GET", "/_iam/calls", {}),
    ("POST", "/_iam/calls", {}),
    ("GET", "/_lambda/interfaces", {}),
    ("GET", "/_lambda/interfaces", {HEADER: "guessed"}),
    ("GET", "/_lambda/interfaces", {HEADER: ""}),
]


@pytest.mark.parametrize(("method", "path", "headers"), UNSIGNED)
def test_the_emulator_refuses_a_request_without_keys(
    running: Running, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = running.send(f"{running.servers.emulator.url}{path}", method, headers, "{}")
    assert answer.status_code in (400, 403), answer.text
    keys = running.servers.keys
    assert not any(secret in answer.text for secret in (keys.access_key, keys.secret_key, keys.token))


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}]
)
def test_the_body_of_an_unknown_caller_is_not_kept(running: Running, headers: dict[str, str]) -> None:
    """Another user could have filled the machine's memory."""
    pid = running.servers.emulator.pid
    before = peak_kilobytes(pid)
    with contextlib.suppress(OSError):  # the emulator may close the connection first
        running.send(f"{running.servers.emulator.url}/bucket/key", "PUT", headers, "x" * 100_000_000)
    assert peak_kilobytes(pid) - before < 50_000


def peak_kilobytes(pid: int) -> int:
    """Return the most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def test_only_the_health_checks_are_open(running: Running) -> None:
    for url in (
        f"{running.servers.emulator.url}/_ministack/health",
        f"{running.servers.bedrock.url}/_health",
    ):
        assert running.send(url, "GET", {}).status_code == 200


def test_the_token_opens_the_control_paths(running: Running) -> None:
    token, verify = running.servers.keys.token, running.state.certificate
    url = f"{running.servers.emulator.url}/_lambda/interfaces"
    assert control.call(url, token, verify=verify) == {"held": [], "leaving": [], "left": []}
    assert control.call(f"{running.servers.bedrock.url}/_faults", token, verify=verify) == []
    with pytest.raises(control.ControlError, match="answered 403"):
        control.call(f"{running.servers.bedrock.url}/_faults", "guessed", verify=verify)


@pytest.mark.parametrize("service", ["sts", "lambda", "s3", "dynamodb", "bedrock"])
@pytest.mark.parametrize(
    ("access_key", "secret_key"),
    [
        ("test", "test"),
        ("test", ""),
        (ACCOUNT, "test"),
        (ACCOUNT, ""),
        ("111111111111", ""),
        ("AKIAIOSFODNN7EXAMPLE", ""),
    ],
)
def test_no_other_key_is_root(running: Running, service: str, access_key: str, secret_key: str) -> None:
    """An empty `secret_key` is the real one: the access key alone is wrong."""
    with pytest.raises(ClientError) as refused:
        call(running.client(service, access_key, secret_key))
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 401, 403)


@pytest.mark.parametrize("service", ["sts", "lambda", "s3", "dynamodb"])
def test_the_signature_of_root_is_verified(running: Running, service: str) -> None:
    with pytest.raises(ClientError) as refused:
        call(running.client(service, secret_key="another"))
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 401, 403)
    call(running.client(service))


def call(client: Any) -> None:
    operations = {
        "sts": "get_caller_identity",
        "lambda": "list_functions",
        "s3": "list_buckets",
        "dynamodb": "list_tables",
        "bedrock": "list_custom_models",
    }
    getattr(client, operations[client.meta.service_model.service_name])()


def signed(running: Running, url: str, body: str = "{}") -> AWSRequest:
    keys = running.servers.keys
    request = AWSRequest("POST", url, headers={"X-Amz-Target": "DynamoDB_20120810.ListTables"}, data=body)
    SigV4Auth(Credentials(keys.access_key, keys.secret_key), "dynamodb", REGION).add_auth(request)
    return request


def test_a_signature_is_good_for_its_body_and_key_only(running: Running) -> None:
    url, verify = f"{running.servers.emulator.url}/", running.state.certificate
    assert web.send(signed(running, url), verify=verify).status_code == 200
    other_body = signed(running, url)
    other_body.data = '{"Limit": 1}'
    assert web.send(other_body, verify=verify).status_code in (400, 403)
    for before in (True, False):
        two_keys = signed(running, url)
        real, _, rest = two_keys.headers["Authorization"].removeprefix("AWS4-HMAC-SHA256 ").partition(", ")
        other = real.replace(running.servers.keys.access_key, "test")
        named = f"{other}, {real}" if before else f"{real}, {other}"
        two_keys.headers.replace_header("Authorization", f"AWS4-HMAC-SHA256 {named}, {rest}")
        assert web.send(two_keys, verify=verify).status_code in (400, 403)


def test_a_presigned_url_of_root_works_until_it_expires(running: Running) -> None:
    s3 = running.client("s3")
    s3.create_bucket(Bucket="bucket")
    s3.put_object(Bucket="bucket", Key="key with a space", Body=b"content")
    where = {"Bucket": "bucket", "Key": "key with a space"}
    url = s3.generate_presigned_url("get_object", Params=where)
    assert running.send(url, "GET", {}).content == b"content"
    late = url.replace("X-Amz-Date=20", "X-Amz-Date=19")
    for wrong in (
        late,
        url.replace("X-Amz-Signature=", "X-Amz-Signature=0"),
        url.replace("Expires=", "Expires=9"),
    ):
        assert running.send(wrong, "GET", {}).status_code in (400, 403)


def test_a_functions_credentials_can_not_be_computed(running: Running) -> None:
    """MiniStack derives them from the ARNs of the function and its role."""
    iam, client = running.client("iam"), running.client("lambda")
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    iam.create_role(
        RoleName="of-the-function",
        AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [trust]}),
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        files.writestr("index.py", SOURCE)
    arn = client.create_function(
        FunctionName=FUNCTION,
        Role=ROLE,
        Runtime="python3.13",
        Handler="index.handler",
        Code={"ZipFile": archive.getvalue()},
    )["FunctionArn"]
    variables = json.loads(client.invoke(FunctionName=FUNCTION)["Payload"].read())

    digest = hashlib.sha256(f"{arn}:{ROLE}".encode()).hexdigest()
    assert variables["AWS_ACCESS_KEY_ID"] != f"ASIA{digest[:16].upper()}"
    keys = running.servers.keys
    assert not {keys.access_key, keys.secret_key, keys.token} & set(variables.values())
    of_function = boto3.client(
        "sts",
        endpoint_url=running.servers.emulator.url,
        verify=str(running.state.certificate),
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=variables["AWS_SESSION_TOKEN"],
        config=Config(proxies={}),
    )
    assert f"assumed-role/{ROLE.rpartition('/')[2]}/" in of_function.get_caller_identity()["Arn"]


def test_the_folder_and_its_files_are_private(running: Running) -> None:
    paths = [running.state.root, *running.state.root.iterdir(), *running.state.certificate.parent.iterdir()]
    assert {running.state.env, running.state.certificate_key} < set(paths)
    assert [path for path in paths if path.stat().st_mode & 0o077] == []


def test_the_keys_are_in_one_file_and_in_no_argument(running: Running) -> None:
    keys = running.servers.keys
    hidden = [keys.access_key.encode(), keys.secret_key.encode(), keys.token.encode()]
    files = [path for path in running.state.root.rglob("*") if path.is_file()]
    held = [path for path in files if any(one in path.read_bytes() for one in hidden)]
    assert held == [running.state.env]
    for server in running.servers.all:
        arguments = Path(f"/proc/{server.pid}/cmdline")
        if arguments.exists():
            assert not any(one in arguments.read_bytes() for one in hidden)


def listening(pid: int) -> Iterator[str]:
    """Yield the local addresses of a process's sockets that other processes can reach."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        target = str(entry.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    for name, states in (("tcp", {"0A"}), ("tcp6", {"0A"}), ("udp", {"07"}), ("udp6", {"07"})):
        for line in Path("/proc/net", name).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] in states and fields[9] in inodes:
                yield fields[1]


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="this system has no /proc/net")
def test_the_servers_listen_on_loopback_only(running: Running) -> None:
    found = [address for server in running.servers.all for address in listening(server.pid)]
    assert len(found) == 2  # the emulator and the stand-in
    assert {address.partition(":")[0] for address in found} == {"0100007F"}


other_user = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
# Another user may be unable to run this Python, in root's home.
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin")
# Tries to create a function: without a signature, and as `test`.
CREATE = """
import ssl, sys, urllib.error, urllib.request
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
for header in ({}, {"Authorization": sys.argv[2]}):
    try:
        request = urllib.request.Request(sys.argv[1], b"{}", header, method="POST")
        print(urllib.request.urlopen(request, timeout=20, context=context).status)
    except urllib.error.HTTPError as error:
        print(error.code)
"""


def as_nobody(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program as another user."""
    return subprocess.run(
        list(map(str, command)),
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@other_user
def test_another_user_reads_no_file_and_no_variable(running: Running) -> None:
    state = running.state
    if as_nobody("ls", state.root.parent).stdout.split() != [state.root.name]:
        pytest.skip("other users can't enter the project's folder")
    files = [state.env, state.certificate_key, state.servers, state.log("emulator")]
    files += [Path(f"/proc/{server.pid}/environ") for server in running.servers.all]
    assert "Permission denied" in as_nobody("ls", state.root).stderr
    for file in files:
        done = as_nobody("cat", file)
        assert (done.stdout, "Permission denied" in done.stderr) == ("", True), file


@other_user
@pytest.mark.skipif(PYTHON is None, reason="no Python here that other users can run")
def test_another_user_runs_no_code(running: Running) -> None:
    scope = f"Credential=test/20261129/{REGION}/lambda/aws4_request"
    header = f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host;x-amz-date, Signature=0"
    url = f"{running.servers.emulator.url}{CREATE_FUNCTION}"
    done = as_nobody(str(PYTHON), "-I", "-c", CREATE, url, header)
    assert done.stdout.split() == ["403", "403"], done.stderr
