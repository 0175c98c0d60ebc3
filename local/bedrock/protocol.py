"""The rest-json protocol of `bedrock` and `bedrock-runtime`, from botocore's service models."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qs, unquote

import botocore.session
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape
from botocore.utils import parse_timestamp

from local.bedrock.errors import ServiceError, invalid

SERVICES = ("bedrock", "bedrock-runtime")
JSON = "application/json"

# Errors common to all AWS services; the service models do not list them.
_COMMON_ERRORS = {
    "MissingAuthenticationTokenException": 403,
    "UnrecognizedClientException": 403,
    "InvalidSignatureException": 403,
    "UnknownOperationException": 404,
    "NotModelledException": 501,
}

# Required by the service model, but absent from real responses.
_NOT_REALLY_REQUIRED = {("GetModelCustomizationJobResponse", "validationDataConfig")}


@dataclass(frozen=True)
class Request:
    """An HTTP request; header names are in lower case."""

    method: str
    path: str
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Response:
    """An HTTP response. `pause` is the seconds after each byte, for a server that dribbles."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    pause: float = 0.0


@dataclass(frozen=True)
class Route:
    """An operation and the pattern of its path."""

    operation: OperationModel
    service: str
    pattern: re.Pattern[str]
    labels: tuple[str, ...]


class Protocol:
    """Maps requests to operations and parameters, and results to responses."""

    def __init__(self) -> None:
        session = botocore.session.get_session()
        self._routes: dict[tuple[str, str], list[Route]] = defaultdict(list)
        self._errors = dict(_COMMON_ERRORS)
        for service in SERVICES:
            model = session.get_service_model(service)
            for name in model.operation_names:
                self._add(model, model.operation_model(name), service)
        # Patterns with the most literal text first: a label also matches slashes, because clients may send
        # those of an ARN unencoded.
        for routes in self._routes.values():
            routes.sort(key=lambda route: -len(re.sub(r"\{.*?\}", "", route.operation.http["requestUri"])))

    def _add(self, model: ServiceModel, operation: OperationModel, service: str) -> None:
        uri = operation.http["requestUri"].partition("?")[0]
        labels = tuple(label.rstrip("+") for label in re.findall(r"\{(.*?)\}", uri))
        parts = re.split(r"\{.*?\}", uri)
        pattern = re.compile("(.+)".join(re.escape(part) for part in parts))
        route = Route(operation, service, pattern, labels)
        self._routes[operation.http["method"], _first_segment(uri)].append(route)
        for error in operation.error_shapes:
            self._errors.setdefault(error.name, error.metadata.get("error", {}).get("httpStatusCode", 400))

    def operations(self) -> set[str]:
        """Return the names of all operations of both services."""
        return {route.operation.name for routes in self._routes.values() for route in routes}

    def find(self, request: Request) -> tuple[Route, dict[str, str]] | None:
        """Return a request's operation and the labels from its path, or None for an unknown operation."""
        for route in self._routes.get((request.method, _first_segment(request.path)), ()):
            match = route.pattern.fullmatch(request.path)
            if match:
                values = (unquote(value) for value in match.groups())
                return route, dict(zip(route.labels, values, strict=True))
        return None

    def parameters(self, route: Route, labels: Mapping[str, str], request: Request) -> dict[str, Any]:
        """Return the operation's parameters from path, query, headers and body."""
        shape = route.operation.input_shape
        if shape is None:
            return {}
        query = parse_qs(request.query, keep_blank_values=True)
        payload = shape.serialization.get("payload")
        body = {} if payload else _json_object(request.body)
        found: dict[str, Any] = {}
        for name, member in shape.members.items():
            location = member.serialization.get("location")
            wire_name = member.serialization.get("name", name)
            if location == "uri":
                found[name] = labels[wire_name]
            elif location == "querystring" and wire_name in query:
                found[name] = _from_text(member, query[wire_name][-1])
            elif location == "header" and wire_name.lower() in request.headers:
                found[name] = _from_text(member, request.headers[wire_name.lower()])
            elif name == payload:
                found[name] = request.body
            elif location is None and body.get(wire_name) is not None:
                found[name] = _from_json(member, body[wire_name])
        return found

    def success(self, route: Route, result: Mapping[str, Any]) -> Response:
        """Return the response for a result, in the shape of the operation's model."""
        shape = route.operation.output_shape
        status = route.operation.http.get("responseCode", 200)
        headers = {"content-type": JSON, "x-amzn-requestid": str(uuid.uuid4())}
        if shape is None:
            return Response(status, b"", headers)
        payload = shape.serialization.get("payload")
        body = dict(result)
        for name, member in shape.members.items():
            if name in body and member.serialization.get("location") == "header":
                headers[member.serialization["name"].lower()] = str(body.pop(name))
        if payload:
            return Response(status, body[payload], headers)
        return Response(status, _dump(_to_json(shape, body)), headers)

    def failure(self, error: ServiceError) -> Response:
        """Return the response for an error; error codes outside the model get status 400."""
        headers = {
            "content-type": JSON,
            "x-amzn-requestid": str(uuid.uuid4()),
            "x-amzn-errortype": error.code,
        }
        return Response(self._errors.get(error.code, 400), _dump({"message": error.message}), headers)


def _first_segment(path: str) -> str:
    return path.split("/", 2)[1] if path.startswith("/") else path


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _json_object(body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    try:
        value = json.loads(body)
    except ValueError:
        raise invalid("The request body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise invalid("The request body must be a JSON object.")
    return value


def _from_text(shape: Shape, text: str) -> Any:
    try:
        if shape.type_name in ("integer", "long"):
            return int(text)
        if shape.type_name in ("float", "double"):
            return float(text)
        if shape.type_name == "timestamp":
            return parse_timestamp(text).timestamp()
    except ValueError:
        return text
    if shape.type_name == "boolean":
        return {"true": True, "false": False}.get(text, text)
    return text


@cache
def _by_wire_name(shape: StructureShape) -> dict[str, tuple[str, Shape]]:
    return {member.serialization.get("name", name): (name, member) for name, member in shape.members.items()}


@cache
def _required(shape: StructureShape) -> frozenset[str]:
    return frozenset(
        name for name in shape.required_members if (shape.name, name) not in _NOT_REALLY_REQUIRED
    )


def _from_json(shape: Shape, value: Any) -> Any:
    """Return a JSON value with the model's names; values of a wrong type are kept for `checks` to refuse."""
    if getattr(shape, "is_document_type", False):
        return value
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        members = _by_wire_name(shape)
        return {
            members[wire][0]: _from_json(members[wire][1], item)
            for wire, item in value.items()
            if wire in members and item is not None
        }
    if isinstance(shape, ListShape) and isinstance(value, list):
        return [_from_json(shape.member, item) for item in value]
    if isinstance(shape, MapShape) and isinstance(value, dict):
        return {key: _from_json(shape.value, item) for key, item in value.items()}
    if shape.type_name == "blob" and isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError:
            return value
    return value


def _to_json(shape: Shape, value: Any) -> Any:
    if getattr(shape, "is_document_type", False):
        return value
    if isinstance(shape, StructureShape):
        given = {name: item for name, item in value.items() if item is not None}
        members, required = shape.members, _required(shape)
        if not required <= given.keys() <= members.keys():
            # A defect of the stand-in that a client would not notice.
            raise TypeError(
                f"{shape.name} needs {sorted(required)} of {sorted(members)}, not {sorted(given)}"
            )
        return {
            members[name].serialization.get("name", name): _to_json(members[name], item)
            for name, item in given.items()
        }
    if isinstance(shape, ListShape):
        return [_to_json(shape.member, item) for item in value]
    if isinstance(shape, MapShape):
        return {key: _to_json(shape.value, item) for key, item in value.items()}
    if shape.type_name == "timestamp":
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if shape.type_name == "blob":
        return base64.b64encode(value).decode()
    return value
