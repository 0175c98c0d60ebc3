"""The stand-in in process: its boto3 clients, its HTTP server if one is wanted, its controls as methods."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config

from local.bedrock.account import Account
from local.bedrock.application import Application
from local.bedrock.catalogue import Catalogue
from local.bedrock.clock import Clock, ManualClock
from local.bedrock.faults import Faults
from local.bedrock.in_process import attach
from local.bedrock.memory_s3 import MemoryS3
from local.bedrock.protocol import Protocol
from local.bedrock.roles import Ask
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
    # A session keeps the service models that it has read.
    return boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=_SECRET)


class BedrockStandIn:
    """A test double of Amazon Bedrock.

    Its clients call it directly. It listens on a loopback port once `endpoint` or `port` is read.

    Args:
        clock: moves the states; a `ManualClock` unless another is given.
        s3: a boto3 S3 client, or a double with `get_object`, `put_object` and `list_objects_v2`.
        role_exists: whether a role's ARN exists and trusts bedrock.amazonaws.com.
        ask: whether IAM allows a call; without it, everybody may do anything.
        settings: account, Region, latencies, durations and quotas.
        durations: in place of those of the settings.
        port: 0 for any free one.
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
        ask: Ask | None = None,
        settings: Settings | None = None,
        durations: Durations | None = None,
        port: int = 0,
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
            ask=ask,
        )
        self._application = Application(self._account, protocol, log=log)
        self._port = port
        self._starting = threading.Lock()
        self._server: Server | None = None

    @property
    def endpoint(self) -> str:
        """The URL for `endpoint_url`; the stand-in listens from now on."""
        return self._listening().endpoint

    @property
    def port(self) -> int:
        """The port; the stand-in listens from now on."""
        return int(self._listening().server_address[1])

    def _listening(self) -> Server:
        with self._starting:
            if self._server is None:
                self._server = Server(self._application, self._port)
                threading.Thread(
                    target=self._server.serve_forever, args=(0.05,), name="bedrock", daemon=True
                ).start()
            return self._server

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def client(self, service: str, *, access_key: str = ACCESS_KEY, attempts: int = 2) -> Any:
        """A boto3 client of `bedrock` or `bedrock-runtime`, without HTTP; access keys tell callers apart."""
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
        """Answer the requests of a boto3 client in process, whatever its endpoint."""
        attach(client, self._application)

    def calls(self, operation: str | None = None) -> list[dict[str, Any]]:
        """The calls so far, of one operation or all, oldest first."""
        return self._application.calls(operation)

    def fault(self, kind: str, **options: Any) -> None:
        """Order a fault, as `POST /_faults` does; see `local.bedrock.faults` for kinds and options."""
        self._account.faults.order({"kind": kind, **options})

    def clear_faults(self) -> None:
        """Forget the faults that were ordered and not yet carried out."""
        self._account.faults.clear()

    def lifecycle(self, model_id: str, *, legacy: float | None = None, end: float | None = None) -> None:
        """Give a foundation model other lifecycle dates, in seconds since the epoch, until the next reset."""
        self._account.catalogue.set_lifecycle(model_id, legacy, end)

    def advance(self, seconds: float) -> None:
        """Move a manual clock on and bring everything to its state then."""
        if not isinstance(self.clock, ManualClock):
            raise TypeError("only a ManualClock can be advanced")
        self.clock.advance(seconds)
        self.state()

    def state(self) -> dict[str, Any]:
        """A short summary of what the account holds."""
        return summary(self._account)

    def reset(self) -> None:
        """Forget resources, faults and calls; the clock and S3 stay as they are."""
        self._application.reset()
