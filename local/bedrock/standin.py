"""The stand-in within a process: boto3 clients, an HTTP server on demand, and its controls as methods."""

from __future__ import annotations

import secrets
import ssl
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config

from local import certificate
from local.bedrock.account import Account
from local.bedrock.application import Application
from local.bedrock.catalogue import Catalogue
from local.bedrock.clock import Clock, ManualClock
from local.bedrock.faults import Faults
from local.bedrock.in_process import attach
from local.bedrock.memory_s3 import MemoryS3
from local.bedrock.protocol import Protocol
from local.bedrock.roles import Authorize
from local.bedrock.server import Server
from local.bedrock.settings import Durations, Settings
from local.bedrock.state import summary

ACCESS_KEY = "AKIASTANDIN"
# Signatures are not verified.
_SECRET = "not-a-secret"  # noqa: S105 - a placeholder that signs requests to the stand-in
# The discard port: a request that is not answered in process goes nowhere.
_NOWHERE = "http://127.0.0.1:9"


@cache
def _protocol() -> Protocol:
    return Protocol()


@cache
def _session() -> boto3.Session:
    # A session caches the service models, which take long to load.
    return boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=_SECRET)


class Tls:
    """A certificate for 127.0.0.1 in a folder of its own, and what its clients trust.

    Attributes:
        certificate: its file.
        context: for the server.
        ca_bundle: the public authorities and the certificate's, as many as a client of AWS loads.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="stand-in-tls-")
        folder = Path(self._folder.name)
        self.certificate, key = folder / "certificate.pem", folder / "key.pem"
        certificate.create(self.certificate, key)
        self.ca_bundle = folder / "ca-bundle.pem"
        certificate.write_bundle(self.certificate, self.ca_bundle)
        self.context = certificate.server_context(self.certificate, key)

    def remove(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()


class BedrockStandIn:
    """A test double of Amazon Bedrock.

    Its clients call it without HTTP. Reading `endpoint` or `port` starts an HTTP server on loopback.

    Args:
        clock: advances the states; a `ManualClock` by default.
        s3: a boto3 S3 client, or a double with `get_object`, `put_object` and `list_objects_v2`.
        role_exists: returns whether the role with an ARN exists and trusts bedrock.amazonaws.com.
        authorize: checks a call against IAM; without it, every call is allowed.
        settings: account, Region, latencies, durations, quotas and the lag of reads.
        durations: replaces those of the settings.
        port: 0 for any free port.
        descriptor: the open file of a listening socket, in place of a port.
        tls: speak HTTPS as Bedrock does, with a context or a certificate of its own; `ca_bundle` is what a
            client has to trust in that case.
        token: what requests to the control endpoints need; a random one by default.
        log: print a line per call to stderr.

    Example:
        with BedrockStandIn() as bedrock:
            bedrock.client("bedrock").list_custom_models()
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        s3: Any = None,
        role_exists: Callable[[str], bool] | None = None,
        authorize: Authorize | None = None,
        settings: Settings | None = None,
        durations: Durations | None = None,
        port: int = 0,
        descriptor: int | None = None,
        tls: bool | ssl.SSLContext = False,
        token: str | None = None,
        log: bool = False,
    ) -> None:
        settings = settings or Settings()
        if durations is not None:
            settings = replace(settings, durations=durations)
        self.clock: Clock = clock or ManualClock()
        self.s3: Any = MemoryS3() if s3 is None else s3
        protocol = _protocol()
        self._account = Account(
            settings=settings,
            clock=self.clock,
            s3=self.s3,
            role_exists=role_exists or (lambda _: True),
            catalogue=Catalogue(settings.region, settings.account),
            faults=Faults(protocol.operations()),
            authorize=authorize,
        )
        self._application = Application(self._account, protocol, log=log)
        self._port, self._descriptor = port, descriptor
        self.token = token or secrets.token_hex(20)
        self._tls = Tls() if tls is True else None
        given = tls if isinstance(tls, ssl.SSLContext) else None
        self._context = self._tls.context if self._tls else given
        self._starting = threading.Lock()
        self._server: Server | None = None

    @property
    def endpoint(self) -> str:
        """The URL for `endpoint_url`; reading it starts the HTTP server."""
        return self._running_server().endpoint

    @property
    def port(self) -> int:
        """The port; reading it starts the HTTP server."""
        return int(self._running_server().server_address[1])

    @property
    def ca_bundle(self) -> str:
        """The file with the authorities to trust, for `verify` and AWS_CA_BUNDLE."""
        if self._tls is None:
            raise ValueError("the stand-in has no certificate of its own; create it with tls=True")
        return str(self._tls.ca_bundle)

    def _running_server(self) -> Server:
        with self._starting:
            if self._server is None:
                self._server = Server(
                    self._application, self.token, self._port, self._context, self._descriptor
                )
                threading.Thread(
                    target=self._server.serve_forever, args=(0.05,), name="bedrock", daemon=True
                ).start()
            return self._server

    def stop(self) -> None:
        """Stop the HTTP server."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if self._tls is not None:
            self._tls.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def client(self, service: str, *, access_key: str = ACCESS_KEY, attempts: int = 2) -> Any:
        """Return a boto3 client that calls the stand-in without HTTP.

        Args:
            service: `bedrock` or `bedrock-runtime`.
            access_key: identifies the caller in the record of calls.
            attempts: how often the client tries a call.
        """
        client = _session().client(
            service,  # type: ignore[call-overload] # the stubs know literal names only
            endpoint_url=_NOWHERE,
            region_name=self._account.settings.region,
            aws_access_key_id=access_key,
            aws_secret_access_key=_SECRET,
            config=Config(
                connect_timeout=2,
                read_timeout=20,
                retries={"mode": "standard", "total_max_attempts": attempts},
                proxies={},
            ),
        )
        self.attach(client)
        return client

    def attach(self, client: Any) -> None:
        """Let the stand-in answer the requests of a boto3 client without HTTP, whatever its endpoint."""
        attach(client, self._application)

    def calls(self, operation: str | None = None) -> list[dict[str, Any]]:
        """Return the recorded calls of one operation or of all, oldest first."""
        return self._application.calls(operation)

    def fault(self, kind: str, **options: Any) -> None:
        """Inject a fault, like `POST /_faults`; `local.bedrock.faults` has the kinds and options."""
        self._account.faults.add({"kind": kind, **options})

    def clear_faults(self) -> None:
        """Remove the faults that have not happened yet; batch jobs, deployments and throughput go on."""
        self._account.clear_faults()

    def lag(self, **members: float) -> None:
        """Let reads lag behind writes, like `POST /_lag`; `local.bedrock.settings.Lag` has the members."""
        self._account.lag = self._account.lag.changed(members)

    def forget_tokens(self) -> None:
        """Forget all client request tokens, as Bedrock does after some time."""
        self._account.tokens.clear()

    def lifecycle(self, model_id: str, *, legacy: float | None = None, end: float | None = None) -> None:
        """Set a foundation model's lifecycle dates, in seconds since the epoch, until the next reset."""
        self._account.catalogue.set_lifecycle(model_id, legacy, end)

    def advance(self, seconds: float) -> None:
        """Advance a manual clock and all resources with it."""
        if not isinstance(self.clock, ManualClock):
            raise TypeError("only a ManualClock can be advanced")
        self.clock.advance(seconds)
        self.state()

    def state(self) -> dict[str, Any]:
        """Return a summary of the account's resources."""
        return summary(self._account)

    def reset(self) -> None:
        """Delete resources, faults and recorded calls, and restore the settings' lag.

        The clock and S3 stay unchanged.
        """
        self._application.reset()
