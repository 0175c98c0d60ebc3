"""The router's own clients: signatures, connections that die, deadlines, errors."""

from __future__ import annotations

import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import boto3
import botocore.auth
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials as BotocoresCredentials
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSLError,
)
from hypothesis import given
from hypothesis import strategies as st

from distilled_router.release.route import Route
from local.bedrock import Tls
from router.connections import IDLE_SECONDS, MOST_BYTES, Connections, tls_context
from router.services import BedrockRuntime, DynamoDb
from router.signature import Credentials, Signer, keys
from tests.unit.router.doubles import TableDouble, WallClock
from tests.unit.router.servers import HANG_SECONDS, Serve, TableServer, dribble, hang, server

KEYS = {"AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
MOMENT = datetime(2026, 11, 29, 13, 0, 0, tzinfo=UTC)


# Signatures.


@given(
    path=st.sampled_from(["/", "/model/us.amazon.nova-micro-v1%3A0/converse", "/model/a%2Fb~c%20d/converse"]),
    body=st.binary(max_size=100),
    token=st.sampled_from(["", "a token"]),
    service=st.sampled_from(["bedrock", "dynamodb"]),
    more=st.dictionaries(
        st.sampled_from(["content-type", "x-amz-target"]), st.sampled_from(["a", "b/c 1.0"])
    ),
)
def test_signature_is_botocores(
    path: str, body: bytes, token: str, service: str, more: dict[str, str]
) -> None:
    host = "service.us-east-1.amazonaws.com"
    theirs = AWSRequest("POST", f"https://{host}{path}", headers={**more, "host": host}, data=body)
    credentials = BotocoresCredentials("AKIA", "secret", token or None)
    now = MOMENT.replace(tzinfo=None)
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=now):
        SigV4Auth(credentials, service, "us-east-1").add_auth(theirs)
    signer = Signer(lambda: Credentials("AKIA", "secret", token), "us-east-1", service, now=MOMENT.timestamp)
    ours = signer.signed("POST", path, {**more, "host": host}, body)
    assert ours["authorization"] == theirs.headers["Authorization"]
    assert ours.get("x-amz-security-token", "") == token


def received(connection: socket.socket) -> tuple[str, dict[str, str], bytes]:
    """Read a request; return its path, headers and body."""
    with connection.makefile("rb") as stream:
        _, path, _ = stream.readline().decode().split(" ")
        lines = iter(lambda: stream.readline().decode().strip(), "")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return path, headers, stream.read(int(headers["content-length"]))


MODEL = "arn:aws:bedrock:us-east-1:000000000000:custom-model-deployment/a1b2"
CONVERSE = {"modelId": MODEL, "messages": [{"role": "user", "content": [{"text": "caf\u00e9 \U0001f600"}]}]}
READ = {"TableName": "releases", "Key": {"id": {"S": "a/route"}}, "ConsistentRead": False}


@pytest.mark.parametrize(
    ("name", "method", "parameters"),
    [
        ("bedrock-runtime", "converse", CONVERSE),
        ("bedrock-runtime", "converse", {**CONVERSE, "modelId": "us.amazon.nova-micro-v1:0"}),
        ("dynamodb", "get_item", READ),
    ],
)
def test_request_is_boto3s_and_is_signed_as_it_is_sent(
    name: Literal["bedrock-runtime", "dynamodb"], method: str, parameters: dict[str, Any]
) -> None:
    """AWS signs again what arrives: an ARN's colons and slash, the host with its port, each signed header."""
    requests: list[tuple[str, dict[str, str], bytes]] = []

    def serve(connection: socket.socket, _: int) -> None:
        requests.append(received(connection))
        connection.sendall(ANSWER)

    with server(serve) as url:
        session = boto3.Session("AKIA", "secret", "a/token+=", region_name="us-east-1")
        theirs = session.client(name, endpoint_url=url, config=Config(proxies={}))
        getattr(theirs, method)(**parameters)
        ours = dict(
            zip(("bedrock-runtime", "dynamodb"), services(url, AWS_SESSION_TOKEN="a/token+="), strict=True)
        )
        getattr(ours[name], method)(**parameters)
    (path, headers, body), (our_path, our_headers, our_body) = requests
    assert (our_path, json.loads(our_body)) == (path, json.loads(body))
    for header in ("host", "content-type", "x-amz-target", "x-amz-security-token"):
        assert our_headers.get(header) == headers.get(header), header
    names = our_headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names)
    signed = {header: our_headers[header] for header in names}
    again = AWSRequest("POST", f"{url}{our_path}", headers=signed, data=our_body)
    credentials = BotocoresCredentials("AKIA", "secret", "a/token+=")
    moment = datetime.strptime(our_headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=moment):
        SigV4Auth(credentials, name.removesuffix("-runtime"), "us-east-1").add_auth(again)
    assert our_headers["authorization"] == again.headers["Authorization"]


def test_a_days_key_is_not_used_the_next_day() -> None:
    clock = WallClock(MOMENT.timestamp())
    current = [Credentials("AKIA", "secret")]

    def signed(signer: Signer) -> dict[str, str]:
        return signer.signed("POST", "/", {"host": "a"}, b"")

    def create() -> Signer:
        return Signer(lambda: current[0], "us-east-1", "bedrock", now=clock)

    signer = create()
    signed(signer)
    clock.time += 24 * 3600
    assert signed(signer) == signed(create())
    current[0] = Credentials("AKIA", "renewed")
    assert signed(signer) == signed(create())


def test_keys_of_a_function_with_snapstart_come_from_an_endpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They expire, so they are asked for again."""
    count = itertools.count()

    def serve(connection: socket.socket, _: int) -> None:
        while connection.recv(65_536):
            soon = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
            found = {
                "AccessKeyId": f"A{next(count)}",
                "SecretAccessKey": "s",
                "Token": "t",
                "Expiration": soon,
            }
            body = json.dumps(found).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with server(serve) as url:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{url}/keys")
        current = keys({"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/keys"})
        assert current().token == "t"
        assert current().access_key != current().access_key
    monkeypatch.delenv("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    with pytest.raises(ValueError, match="AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY"):
        keys({})


def test_no_key_is_shown() -> None:
    shown = repr(keys({**KEYS, "AWS_SESSION_TOKEN": "a token"})())
    assert "secret" not in shown
    assert "a token" not in shown


# Connections.


def answering(connection: socket.socket, _: int) -> None:
    """Answer each request on a connection."""
    while connection.recv(65_536):
        connection.sendall(ANSWER)


def connections(url: str, now: Callable[[], float] = time.time, tls: Tls | None = None) -> Connections:
    return Connections(url, lambda: tls_context(str(tls and tls.ca_bundle)), most_idle=4, now=now)


def post(to: Connections, seconds: float = 30.0) -> Any:
    return to.request("POST", "/path", {"content-type": "text/plain"}, b"body", seconds)


@pytest.fixture(scope="module")
def tls() -> Iterator[Tls]:
    made = Tls()
    yield made
    made.remove()


@pytest.mark.parametrize("secure", [True, False])
def test_connection_is_used_again_and_dropped_after_an_idle_minute_of_the_wall_clock(
    tls: Tls, secure: bool
) -> None:
    """The service forgot it long ago, and no answer comes: as after a freeze."""
    accepted: list[int] = []

    def serve(connection: socket.socket, number: int) -> None:
        accepted.append(number)
        for _ in range(2 if number == 0 else 1):
            connection.recv(65_536)
            connection.sendall(ANSWER)
        hang(connection)

    clock = WallClock()
    with server(serve, tls if secure else None) as url:
        to = connections(url, clock, tls)
        post(to)
        clock.time += IDLE_SECONDS - 1
        assert post(to).body == b"{}"
        assert len(accepted) == 1
        clock.time += IDLE_SECONDS
        assert post(to).body == b"{}"
        assert len(accepted) == 2
        clock.time -= 3600
        assert post(to).body == b"{}"
        assert len(accepted) == 3, "a clock that was set back says nothing about a connection"


@pytest.mark.parametrize("secure", [True, False])
def test_connection_that_the_service_closed_is_not_used(tls: Tls, secure: bool) -> None:
    closed = threading.Event()

    def serve(connection: socket.socket, _: int) -> None:
        connection.recv(65_536)
        connection.sendall(ANSWER)
        connection.close()
        closed.set()

    with server(serve, tls if secure else None) as url:
        to = connections(url, tls=tls)
        for _ in range(3):
            assert post(to).status == 200
            assert closed.wait(60)
            closed.clear()


def test_connection_that_the_service_will_close_is_not_used() -> None:
    """It says so, and closes it a moment later: a request in between would be lost."""

    def serve(connection: socket.socket, _: int) -> None:
        connection.recv(65_536)
        connection.sendall(ANSWER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        hang(connection)

    with server(serve) as url:
        to = connections(url)
        for _ in range(2):
            assert post(to).status == 200


@pytest.mark.parametrize("secure", [True, False])
def test_connection_of_a_failed_exchange_is_closed(tls: Tls, secure: bool) -> None:
    """A function that lives for hours must not collect those that hang."""
    ended = threading.Event()

    def serve(connection: socket.socket, _: int) -> None:
        hang(connection)
        ended.set()

    with server(serve, tls if secure else None) as url:
        to = connections(url, tls=tls)
        to.open(30.0)
        with pytest.raises(ReadTimeoutError) as caught:
            post(to, 0.2)
        # Python would close it once nobody holds the error.
        assert caught.value.__traceback__
        assert ended.wait(50)


def test_connections_beyond_the_most_idle_are_closed() -> None:
    ended = threading.Semaphore(0)

    def serve(connection: socket.socket, _: int) -> None:
        connection.recv(1)
        ended.release()

    with server(serve) as url:
        to = connections(url)
        for _ in range(6):
            to.open(30.0)
        assert ended.acquire(timeout=60)
        assert ended.acquire(timeout=60)
        assert not ended.acquire(timeout=0.1)


def test_one_dead_connection_ends_the_others_that_were_idle() -> None:
    """After a freeze all are dead, and a query must not try them one after another."""
    together = threading.Barrier(3)

    def serve(connection: socket.socket, number: int) -> None:
        connection.recv(65_536)
        if number < 3:
            together.wait(60)
        connection.sendall(ANSWER)
        if number < 3:
            hang(connection)

    with server(serve) as url:
        to = connections(url)
        threads = [threading.Thread(target=post, args=(to,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(ReadTimeoutError):
            post(to, 0.1)
        assert post(to).status == 200


def test_failed_answer_ends_no_connection_that_was_used_meanwhile() -> None:
    """A model that hangs must not cost the others their connections."""
    accepted: list[int] = []
    asked, fail = threading.Event(), threading.Event()

    def serve(connection: socket.socket, number: int) -> None:
        accepted.append(number)
        answered = 0
        while connection.recv(65_536):
            if number == 1 and answered:
                asked.set()
                assert fail.wait(60)
                return
            connection.sendall(ANSWER)
            answered += 1

    clock = WallClock()
    with server(serve) as url:
        to = connections(url, clock)
        to.open(30.0)
        to.open(30.0)
        clock.time += 1
        post(to)  # on the second connection, which then hangs

        def hanging() -> None:
            with pytest.raises(ConnectionClosedError):
                post(to)

        with ThreadPoolExecutor(1) as pool:
            failed = pool.submit(hanging)
            assert asked.wait(60)
            clock.time += 1
            post(to)
            fail.set()
            failed.result()
        post(to)
        assert accepted == [0, 1]


def test_connection_opened_ahead_is_used(tls: Tls) -> None:
    with server(answering, tls) as url:
        to = connections(url, tls=tls)
        to.open(30.0)
        with mock.patch.object(socket.socket, "connect", side_effect=AssertionError):
            assert post(to).status == 200


def dribble_head(connection: socket.socket, _: int) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nx-more: ")
    dribble(connection)


def dribble_body(connection: socket.socket, _: int) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n")
    dribble(connection)


def silent(connection: socket.socket, _: int) -> None:
    hang(connection)


def deaf(_: socket.socket, __: int) -> None:
    time.sleep(HANG_SECONDS)


@contextmanager
def long_before_the_end() -> Iterator[None]:
    """Check that this takes no time to speak of, beside HANG_SECONDS."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < HANG_SECONDS / 2


@pytest.mark.parametrize("serve", [dribble_head, dribble_body, silent])
@pytest.mark.parametrize("secure", [True, False])
def test_exchange_ends_by_its_deadline(tls: Tls, serve: Serve, secure: bool) -> None:
    """Each byte would renew the time limit of a read."""
    with server(serve, tls if secure else None) as url:
        to = connections(url, tls=tls)
        to.open(30.0)
        with long_before_the_end(), pytest.raises(ReadTimeoutError):
            post(to, 0.4)


@pytest.mark.parametrize("secure", [True, False])
def test_request_that_nobody_reads_ends_by_its_deadline(tls: Tls, secure: bool) -> None:
    """On a connection that was open before."""
    with server(deaf, tls if secure else None) as url:
        to = connections(url, tls=tls)
        to.open(30.0)
        with long_before_the_end(), pytest.raises(ReadTimeoutError):
            to.request("POST", "/path", {}, bytes(10_000_000), 0.4)


def test_handshake_that_does_not_end_and_no_connection_are_timeouts(tls: Tls) -> None:
    with server(silent) as url, long_before_the_end(), pytest.raises(ConnectTimeoutError):
        post(connections(url.replace("http", "https"), tls=tls), 0.4)
    with pytest.raises(ConnectTimeoutError):
        post(connections("http://127.0.0.1:9"), 0.0)


def test_nobody_there_is_a_failed_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EndpointConnectionError):
        post(connections("http://127.0.0.1:9"))
    monkeypatch.setattr(socket, "getaddrinfo", mock.Mock(side_effect=socket.gaierror(-2)))
    with pytest.raises(EndpointConnectionError):
        post(connections("http://nobody.invalid"))


def test_address_that_does_not_answer_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first gets half of the time."""
    dead, limits = ("127.0.0.1", 9), []
    connect = socket.socket.connect

    def connecting(opened: socket.socket, address: Any) -> None:
        if address == dead:
            limits.append(opened.gettimeout())
            raise TimeoutError
        connect(opened, address)

    with server(answering) as url:
        addresses = [dead, ("127.0.0.1", int(url.rpartition(":")[2]))]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        monkeypatch.setattr(socket.socket, "connect", connecting)
        assert post(connections(url), 40.0).status == 200
    (limit,) = limits
    assert limit is not None
    assert 0 < limit <= 20


def test_certificate_of_another_authority_or_name_is_refused(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = Tls()
    with server(answering, tls) as url:
        with pytest.raises(SSLError):
            post(connections(url, tls=others))
        port = int(url.rpartition(":")[2])
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with pytest.raises(SSLError):
            post(connections(f"https://another.name:{port}", tls=tls))
    others.remove()


def test_context_checks_certificates_as_strictly_as_botocores(tls: Tls) -> None:
    context = tls_context(str(tls.ca_bundle))
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 OK\r\n\r\n",
        f"HTTP/1.1 200 OK\r\ncontent-length: {MOST_BYTES + 1}\r\n\r\n".encode() + b" " * (MOST_BYTES + 1),
        f"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{MOST_BYTES + 1:x}\r\n".encode()
        + b" " * (MOST_BYTES + 1)
        + b"\r\n0\r\n\r\n",
    ],
)
def test_response_that_is_cut_off_too_long_or_not_http_is_a_closed_connection(answer: bytes) -> None:
    def serve(connection: socket.socket, _: int) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    with server(serve) as url, pytest.raises(ConnectionClosedError):
        post(connections(url))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\n\r\n" + ANSWER,
    ],
)
def test_every_form_of_a_response_is_read(answer: bytes) -> None:
    def serve(connection: socket.socket, _: int) -> None:
        while connection.recv(65_536):
            connection.sendall(answer)
            if b"close" in answer or b"HTTP/1.0" in answer:
                return

    with server(serve) as url:
        to = connections(url)
        assert post(to).body == b"{}"
        assert post(to).body == b"{}"


# Services.


def services(url: str, **variables: str) -> tuple[BedrockRuntime, DynamoDb]:
    environment = {**KEYS, "AWS_ENDPOINT_URL": url, **variables}
    return (
        BedrockRuntime.of("bedrock-runtime", "bedrock", environment, seconds=30.0, most_idle=1),
        DynamoDb.of("dynamodb", "dynamodb", environment, seconds=30.0, most_idle=1),
    )


def test_services_are_found_as_by_any_sdk() -> None:
    def urls(**more: str) -> list[str]:
        found = (
            kind.of(name, name, {**KEYS, **more}, seconds=1.0, most_idle=1).connections.url
            for kind, name in ((BedrockRuntime, "bedrock-runtime"), (DynamoDb, "dynamodb"))
        )
        return list(found)

    assert urls() == [
        "https://bedrock-runtime.us-east-1.amazonaws.com",
        "https://dynamodb.us-east-1.amazonaws.com",
    ]
    assert urls(AWS_REGION="cn-north-1")[1] == "https://dynamodb.cn-north-1.amazonaws.com.cn"
    assert urls(AWS_ENDPOINT_URL="http://a/", AWS_ENDPOINT_URL_DYNAMODB="http://b:1") == [
        "http://a",
        "http://b:1",
    ]


def test_item_is_read_over_tls(tls: Tls) -> None:
    table = TableDouble(Route(7))
    with TableServer(table, tls).running() as server:
        _, dynamodb = services(server.url, AWS_CA_BUNDLE=str(tls.ca_bundle))
        asked = {"TableName": "releases", "Key": {"id": {"S": "a/route"}}, "ConsistentRead": False}
        assert dynamodb.get_item(**asked)["Item"]["version"] == {"N": "7"}
    assert table.reads == [asked]


@pytest.mark.parametrize(
    ("head", "body", "code", "message"),
    [
        (
            "400 Bad Request\r\nx-amzn-ErrorType: ValidationException:http://internal.amazon.com/coral/",
            '{"message": "bad"}',
            "ValidationException",
            "bad",
        ),
        (
            "400 Bad Request",
            '{"__type": "com.amazonaws.dynamodb.v20120810#ResourceNotFoundException", "Message": "no table"}',
            "ResourceNotFoundException",
            "no table",
        ),
        ("503 Service Unavailable", "<html>", "503", ""),
        ("302 Found\r\nlocation: /login", "", "302", ""),
        ("200 OK", "<html>", "BadGateway", "The response is not GetItem's."),
        ("200 OK", "[]", "BadGateway", "The response is not GetItem's."),
        ("200 OK", "[" * 100_000, "BadGateway", "The response is not GetItem's."),
    ],
)
def test_error_has_the_services_code_and_text(head: str, body: str, code: str, message: str) -> None:
    """A response that is not DynamoDB's must not count as a table without a route."""

    def serve(connection: socket.socket, _: int) -> None:
        connection.recv(65_536)
        connection.sendall(f"HTTP/1.1 {head}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())

    with server(serve) as url, pytest.raises(ClientError) as raised:
        services(url)[1].get_item(TableName="releases")
    assert raised.value.response["Error"] == {"Code": code, "Message": message}
    status = 502 if code == "BadGateway" else int(head[:3])
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_a_call_ends_within_the_seconds_that_it_is_given() -> None:
    with server(silent) as url, long_before_the_end(), pytest.raises(ReadTimeoutError):
        services(url)[0].within(0.2).converse(modelId="a")


def test_authorities_are_loaded_once_for_all_connections(tls: Tls, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(tls.ca_bundle.read_bytes())
    with mock.patch.object(ssl.SSLContext, "load_verify_locations", autospec=True) as load:
        services("https://127.0.0.1:1", AWS_CA_BUNDLE=str(bundle))
    assert load.call_count == 1
