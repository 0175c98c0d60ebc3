"""Handle requests: find the operation, check the caller, inject faults, execute and record the call."""

from __future__ import annotations

import re
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from local.bedrock.access import needs
from local.bedrock.account import Account
from local.bedrock.checks import check
from local.bedrock.errors import ServiceError
from local.bedrock.faults import CALL_ERRORS, FOREIGN, Fault
from local.bedrock.operations import CONTROL, RUNTIME
from local.bedrock.protocol import Protocol, Request, Response, Route
from local.bedrock.reads import answered, named
from operate.printing import err

_CREDENTIAL = re.compile(
    r"AWS4-HMAC-SHA256 .*?Credential=([^/,\s]+)/\d{8}/([^/,\s]+)/([^/,\s]+)/aws4_request"
)
_MAX_CALLS = 100_000


@dataclass(frozen=True)
class Call:
    """One recorded call.

    `outcome` is "ok", the error's code, or "lost" if the call was executed and its response withheld.
    `time` is on the account's clock, `wall_time` is real; both are in seconds since the epoch. `resource` is
    the ARN of the resource that a control operation names or creates. `tags` are its tags after the call, or
    before a Delete.
    """

    operation: str
    access_key: str
    parameters: Mapping[str, Any]
    outcome: str
    message: str | None
    time: float
    milliseconds: float
    wall_time: float
    resource: str | None
    tags: Mapping[str, str]


@dataclass
class _Subject:
    """The resource that a call is about, and its tags."""

    arn: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class Application:
    """The stand-in without its HTTP server."""

    def __init__(self, account: Account, protocol: Protocol, *, log: bool = False) -> None:
        self.account = account
        self._protocol = protocol
        self._log = log
        self._calls: deque[Call] = deque(maxlen=_MAX_CALLS)
        self._calls_lock = threading.Lock()

    def calls(self, operation: str | None = None) -> list[dict[str, Any]]:
        """Return the recorded calls of one operation or of all, oldest first."""
        with self._calls_lock:
            return [asdict(call) for call in self._calls if operation in (None, call.operation)]

    def reset(self) -> None:
        """Delete resources, faults and recorded calls."""
        with self.account.lock, self._calls_lock:
            self.account.reset()
            self._calls.clear()

    def handle(self, request: Request) -> Response | None:
        """Return the response to a request, or None to drop the connection without a response."""
        found = self._protocol.find(request)
        if found is None:
            return self._protocol.failure(
                ServiceError("UnknownOperationException", "There is no such operation.")
            )
        route, labels = found
        name, began = route.operation.name, time.perf_counter()
        parameters: dict[str, Any] = dict(labels)
        key, altered, subject = "", None, _Subject()
        try:
            key = self._access_key(request)
            altered = self._faults(name, labels.get("modelId"))
            parameters = self._protocol.parameters(route, labels, request)
            response, error = self._carry_out(route, parameters, key, subject), None
        except ServiceError as caught:
            response, error = self._protocol.failure(caught), caught
        except Exception:
            # A defect of the stand-in: the caller gets a 500, the log the traceback.
            err(traceback.format_exc())
            error = ServiceError("InternalServerException", "The stand-in failed; see its log.")
            response = self._protocol.failure(error)
        outcome = error.code if error else "lost" if altered and altered.kind == "lost_response" else "ok"
        self._record(name, key, parameters, outcome, error.message if error else None, began, subject)
        return response if altered is None or error is not None else self._altered(response, altered)

    def _altered(self, response: Response, fault: Fault) -> Response | None:
        """Return what the caller sees of a response, or None if the connection drops."""
        if fault.kind == "dribble":
            return replace(response, pause=(fault.milliseconds or 0) / 1000)
        if fault.kind == "foreign":
            return Response(200, FOREIGN[fault.answer], {"content-type": "text/html"})
        if fault.answer == "dropped":
            return None
        return self._protocol.failure(
            ServiceError("InternalServerException", "An internal server error occurred.")
        )

    def _access_key(self, request: Request) -> str:
        """Return the caller's access key; check Region and service, but do not verify the signature."""
        match = _CREDENTIAL.match(request.headers.get("authorization", ""))
        if match is None:
            raise ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token")
        key, region, service = match.groups()
        if (region, service) != (self.account.settings.region, "bedrock"):
            wanted = f"{self.account.settings.region}/bedrock"
            raise ServiceError(
                "InvalidSignatureException",
                f"Credential should be scoped to {wanted}, not to {region}/{service}.",
            )
        return key

    def _faults(self, operation: str, model_id: str | None) -> Fault | None:
        """Apply injected delays and errors; return the fault that alters the response, if there is one."""
        faults, models = self.account.faults, self.account.names_of_model(model_id)
        slow = faults.take("slow", operation=operation, models=models)
        if slow is not None and slow.milliseconds:
            time.sleep(slow.milliseconds / 1000)
        fault = faults.take(*CALL_ERRORS, operation=operation, models=models)
        if fault is not None:
            code, message = CALL_ERRORS[fault.kind]
            raise ServiceError(code, fault.message or message)
        return faults.take("lost_response", "dribble", "foreign", operation=operation, models=models)

    def _carry_out(self, route: Route, parameters: dict[str, Any], key: str, subject: _Subject) -> Response:
        name = route.operation.name
        if name not in CONTROL and name not in RUNTIME:
            raise ServiceError("NotModelledException", f"This stand-in for Bedrock doesn't model {name}.")
        if route.operation.input_shape is not None:
            check(route.operation.input_shape, parameters)
        self._authorize(name, parameters, key)
        if name in RUNTIME:
            return self._protocol.success(route, RUNTIME[name](self.account, parameters))
        with self.account.lock:
            subject.arn = named(self.account, name, parameters)
            subject.tags = self.account.tags_of(subject.arn)
            answer = answered(self.account, name, parameters, CONTROL[name])
            if name.startswith("Create"):
                (subject.arn,) = answer.values()
            subject.tags = self.account.tags_of(subject.arn) or subject.tags
            return self._protocol.success(route, answer)

    def _authorize(self, operation: str, parameters: dict[str, Any], key: str) -> None:
        """Raise AccessDeniedException if IAM denies the caller or the service role that it passes."""
        if self.account.authorize is None:
            return
        with self.account.lock:
            required = needs(self.account, operation, parameters)
        for role in dict.fromkeys(need.role for need in required):
            of_role = [need for need in required if need.role == role]
            if denied := self.account.authorize(role or key, of_role):
                raise ServiceError("AccessDeniedException", denied)

    def _record(
        self,
        name: str,
        key: str,
        parameters: dict[str, Any],
        outcome: str,
        message: str | None,
        began: float,
        subject: _Subject,
    ) -> None:
        milliseconds = (time.perf_counter() - began) * 1000
        if isinstance(parameters.get("body"), bytes):
            parameters = {**parameters, "body": parameters["body"].decode(errors="replace")}
        clock = self.account.clock.now()
        call = Call(
            operation=name,
            access_key=key,
            parameters=parameters,
            outcome=outcome,
            message=message,
            time=clock,
            milliseconds=milliseconds,
            wall_time=time.time(),
            resource=subject.arn,
            tags=subject.tags,
        )
        with self._calls_lock:
            self._calls.append(call)
        if self._log:
            err(f"bedrock {name} {outcome} {milliseconds:.1f} ms {message or ''}".rstrip())
