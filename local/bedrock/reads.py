"""Reads that lag behind writes, as Bedrock's eventually consistent ones do; `settings.Lag` has the times.

Writes see the present: a name in use is refused at once. Only Delete and Stop can be set not to find a new
resource. `GET /_state` and inference never lag.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from local.bedrock import batch, deployments, evaluations, jobs, models, throughput
from local.bedrock.account import Account, Parameters, Result
from local.bedrock.errors import NOT_FOUND, ServiceError, invalid, not_found

Operation = Callable[[Account, Parameters], Result]


@dataclass(frozen=True)
class _Kind:
    """A kind of resource: the parameter that names one, its operations, and the text if there is none."""

    parameter: str
    find: Callable[[Account, str], Any]
    get: Operation
    not_found: str = NOT_FOUND


_KINDS: Mapping[str, _Kind] = {
    "ModelCustomizationJob": _Kind("jobIdentifier", jobs.find, jobs.get),
    "CustomModel": _Kind("modelIdentifier", models.find, models.get),
    "CustomModelDeployment": _Kind("customModelDeploymentIdentifier", deployments.find, deployments.get),
    "ProvisionedModelThroughput": _Kind("provisionedModelId", throughput.find, throughput.get),
    "ModelInvocationJob": _Kind("jobIdentifier", batch.find, batch.get, batch.NOT_FOUND),
    "EvaluationJob": _Kind("jobIdentifier", evaluations.find, evaluations.get),
}
_VERBS = ("Get", "Stop", "Delete", "Update")


def answered(account: Account, operation: str, parameters: Parameters, function: Operation) -> Result:
    """Return an operation's answer, as far as its reads may see by now."""
    verb, kind = _parts(operation)
    if kind is None:
        return function(account, parameters)
    identifier = str(parameters[kind.parameter])
    try:
        resource = kind.find(account, identifier)
    except ServiceError as error:
        if error.code != "ResourceNotFoundException":
            raise
        raise _absent(account, kind, identifier) from error
    _remember(account, resource.arn, kind.get(account, {kind.parameter: identifier}))
    if _hidden(account, verb, resource.arn, account.clock.now() - resource.created):
        raise _absent(account, kind, identifier)
    return _answer(account, resource.arn) if verb == "Get" else function(account, parameters)


def _absent(account: Account, kind: _Kind, identifier: str) -> ServiceError:
    """Return the error for a resource that does not exist, or can't be seen yet."""
    if account.settings.unknown_name == "ValidationException" and not identifier.startswith("arn:"):
        return invalid("The provided identifier is invalid.")
    return not_found(kind.not_found)


def _parts(operation: str) -> tuple[str, _Kind | None]:
    """Return the verb of an operation on an existing resource, and the kind of resource, or None."""
    verb = next((verb for verb in _VERBS if operation.startswith(verb)), "")
    return verb, _KINDS.get(operation.removeprefix(verb)) if verb else None


def named(account: Account, operation: str, parameters: Parameters) -> str | None:
    """Return the ARN of the existing resource that a call names, or None."""
    _, kind = _parts(operation)
    if kind is None:
        return parameters.get("resourceARN")
    try:
        return str(kind.find(account, str(parameters[kind.parameter])).arn)
    except ServiceError:
        return None


def _hidden(account: Account, verb: str, arn: str, age: float) -> bool:
    """Return whether an operation does not find a resource of this age."""
    lag = account.lag
    if verb == "Get" and age >= lag.get_seconds:
        found = account.seen.gets[arn] = account.seen.gets.get(arn, 0) + 1
        return 1 < found <= 1 + lag.misses
    return age < {"Get": lag.get_seconds, "Stop": lag.delete_seconds, "Delete": lag.delete_seconds}.get(
        verb, 0
    )


def _remember(account: Account, arn: str, answer: Result) -> None:
    """Record an answer of Get if it differs from the last one."""
    answers = account.seen.answers.setdefault(arn, [])
    if not answers or answers[-1][1] != answer:
        since = answer.get("lastModifiedTime") or answer.get("lastUpdatedAt")
        answers.append((account.clock.now() if since is None else since, answer))


def _answer(account: Account, arn: str) -> Result:
    """Return the last answer that is old enough to be seen, or the first one."""
    seen = account.clock.now() - account.lag.status_seconds
    answers = account.seen.answers[arn]
    return next((answer for since, answer in reversed(answers) if since <= seen), answers[0][1])


def tags(account: Account, arn: str) -> dict[str, str]:
    """Return the tags of a resource as they were before the changes that can't be seen yet."""
    seen = account.clock.now() - account.lag.tags_seconds
    changes = account.seen.tags.get(arn, ())
    return next((before for changed, before in changes if changed > seen), account.tags[arn])
