"""The router's own client of S3: its requests are boto3's, and nothing that is sent costs time or memory."""

from __future__ import annotations

import socket
import time
import tracemalloc
from collections.abc import Iterator
from datetime import datetime
from unittest import mock
from urllib.parse import urlsplit

import boto3
import botocore.auth
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from distilled_router.head.artifact import MOST_BYTES
from local.bedrock import Tls
from router.services import MOST_OBJECT_BYTES, S3
from tests.unit.router import object_store as s3
from tests.unit.router.object_store import BUCKET, ObjectStore, Send
from tests.unit.router.servers import HANG_SECONDS, server

KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "a/token+="}
KEY = "releases/search/be29cc976e77-1/head.bin"
CONTENT = bytes(range(256)) * 1024
SMALL = b"<head>"


@pytest.fixture(scope="module")
def tls() -> Iterator[Tls]:
    made = Tls()
    yield made
    made.remove()


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with ObjectStore({KEY: CONTENT}).running() as running:
        yield running


def read(client: S3) -> bytes:
    return client.read_object(Bucket=BUCKET, Key=KEY)


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "cn-north-1"])
@pytest.mark.parametrize("bucket", [BUCKET, "data.example.com"])
def test_host_and_path_are_boto3s(monkeypatch: pytest.MonkeyPatch, region: str, bucket: str) -> None:
    """Bucket in the host where AWS's certificate allows it; the Region's own endpoint, us-east-1's too."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    config = Config(s3={"us_east_1_regional_endpoint": "regional"}, retries={"total_max_attempts": 1})
    theirs: list[str] = []

    def send(request: AWSPreparedRequest, **_: object) -> None:
        theirs.append(request.url)
        raise EndpointConnectionError(endpoint_url=request.url)

    client = boto3.Session("AKIA", "secret", region_name=region).client("s3", config=config)
    client.meta.events.register("before-send.s3.GetObject", send)
    with pytest.raises(EndpointConnectionError):
        client.get_object(Bucket=bucket, Key=KEY)
    ours = S3.of_bucket(bucket, {**KEYS, "AWS_REGION": region}, seconds=1.0)
    with mock.patch.object(type(ours.connections), "request") as request:
        request.return_value.status, request.return_value.body = 200, CONTENT
        assert ours.read_object(Bucket=bucket, Key=KEY) == CONTENT
    path = request.call_args.args[1]
    assert f"{ours.connections.url}{path}" == theirs[0]


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
@pytest.mark.parametrize("key", [KEY, "a b/+c~d=e%2f", "releases/caf\u00e9\U0001f600/x", "a//b/../c"])
def test_request_is_boto3s_and_is_signed_as_it_is_sent(variable: str, key: str) -> None:
    """S3 signs again what arrives, its path as it is."""
    requests: list[tuple[str, str, dict[str, str]]] = []

    def serve(connection: socket.socket, _: int) -> None:
        with connection.makefile("rb") as stream:
            method, path, _version = stream.readline().decode().split(" ")
            lines = iter(lambda: stream.readline().decode().strip(), "")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        requests.append((method, path, headers))
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<head>")

    with server(serve) as url:
        session = boto3.Session("AKIA", "secret", "a/token+=", region_name="us-east-1")
        theirs = session.client("s3", endpoint_url=url, config=Config(proxies={}))
        theirs.get_object(Bucket=BUCKET, Key=key)
        ours = S3.of_bucket(BUCKET, {**KEYS, "AWS_REGION": "us-east-1", variable: url}, seconds=30.0)
        assert ours.read_object(Bucket=BUCKET, Key=key) == SMALL
    (method, path, headers), (our_method, our_path, our_headers) = requests
    assert (our_method, our_path) == (method, path)
    for header in ("host", "x-amz-content-sha256", "x-amz-security-token", "content-length"):
        assert our_headers.get(header) == headers.get(header), header
    names = our_headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-content-sha256", "x-amz-date", "x-amz-security-token"} <= set(names)
    again = AWSRequest("GET", f"{url}{our_path}", headers={name: our_headers[name] for name in names})
    moment = datetime.strptime(our_headers["x-amz-date"], "%Y%m%dT%H%M%SZ")
    with mock.patch.object(botocore.auth, "get_current_datetime", return_value=moment):
        S3SigV4Auth(Credentials("AKIA", "secret", "a/token+="), "s3", "us-east-1").add_auth(again)
    assert our_headers["authorization"] == again.headers["Authorization"]


def test_nothing_is_connected_before_the_first_read(store: ObjectStore) -> None:
    with mock.patch.object(socket.socket, "connect", side_effect=AssertionError):
        client = store.client()
    assert read(client) == CONTENT


def test_object_is_read_over_tls(tls: Tls) -> None:
    with ObjectStore({KEY: CONTENT}).running(tls) as store:
        assert read(store.client(AWS_CA_BUNDLE=str(tls.ca_bundle))) == CONTENT


@pytest.mark.parametrize("send", [s3.whole, s3.in_pieces, s3.chunked])
def test_object_is_read_however_it_arrives(store: ObjectStore, send: Send) -> None:
    store.sends[KEY] = send
    client = store.client()
    assert [read(client), read(client)] == [CONTENT, CONTENT]


def test_largest_head_is_read(store: ObjectStore) -> None:
    assert MOST_BYTES <= MOST_OBJECT_BYTES
    store.objects[KEY] = bytes(MOST_OBJECT_BYTES)
    assert len(read(store.client())) == MOST_OBJECT_BYTES
    store.objects[KEY] = bytes(MOST_OBJECT_BYTES + 1)
    with pytest.raises(ConnectionClosedError):
        read(store.client())


@pytest.mark.parametrize(
    ("status", "code", "headers"),
    [
        ("403 Forbidden", "AccessDenied", ()),
        ("403 Forbidden", "KMS.DisabledException", ()),
        ("404 Not Found", "NoSuchKey", ()),
        ("404 Not Found", "NoSuchBucket", ()),
        ("301 Moved Permanently", "PermanentRedirect", ("x-amz-bucket-region: eu-west-1",)),
        ("307 Temporary Redirect", "TemporaryRedirect", ("location: https://127.0.0.1:9/",)),
        ("503 Slow Down", "SlowDown", ()),
    ],
)
def test_error_has_s3s_code_and_text(
    store: ObjectStore, status: str, code: str, headers: tuple[str, ...]
) -> None:
    store.sends[KEY] = s3.refused(status, code, "Because.", *headers)
    with pytest.raises(ClientError) as raised:
        read(store.client())
    assert raised.value.response["Error"] == {"Code": code, "Message": "Because."}
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == int(status[:3])


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff" * 5000, b"<Error><Code>Denied", b"<Error/>"])
def test_error_without_a_code_has_the_status(store: ObjectStore, body: bytes) -> None:
    store.sends[KEY] = lambda connection, _: connection.sendall(
        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    with pytest.raises(ClientError, match=r"\(502\)"):
        read(store.client())


@pytest.mark.parametrize(
    "send", [s3.cut_off, s3.chunks_cut_off, s3.reset, s3.no_http, s3.closed, s3.huge, s3.huge_in_chunks]
)
def test_response_that_is_not_whole_or_too_long_is_a_closed_connection(
    store: ObjectStore, send: Send
) -> None:
    store.sends[KEY] = send
    tracemalloc.start()
    try:
        with pytest.raises(ConnectionClosedError):
            read(store.client())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The double itself sends a million bytes at a time, and has each twice.
    assert peak < 6_000_000


def test_too_long_an_object_is_refused_by_its_length_alone(store: ObjectStore) -> None:
    """Waiting for its first byte would be a ReadTimeoutError."""
    store.sends[KEY] = s3.endless
    with pytest.raises(ConnectionClosedError):
        read(store.client())


@pytest.mark.parametrize("send", [s3.silent, s3.dribble])
def test_read_ends_within_its_seconds(store: ObjectStore, send: Send) -> None:
    store.sends[KEY] = send
    began = time.monotonic()
    with pytest.raises(ReadTimeoutError):
        read(store.client(seconds=0.4))
    assert time.monotonic() - began < HANG_SECONDS / 2


def test_each_object_has_a_connection_of_its_own(store: ObjectStore) -> None:
    """One that was open since before a freeze may be dead."""
    client = store.client()
    assert read(client) == read(client)
    assert store.connections == 2


def test_nobody_there_is_no_connection() -> None:
    client = ObjectStore(url="http://127.0.0.1:9").client()
    assert urlsplit(client.connections.url).port == 9
    with pytest.raises(EndpointConnectionError) as raised:
        read(client)
    assert isinstance(raised.value, BotoCoreError)
