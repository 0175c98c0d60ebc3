"""The environment variables of each function: the construct writes them, the handler reads them.

Each function that reads more than its owner has one frozen class here. Its fields carry the names of the
settings; a field's variable is its name in upper case: `poll_seconds` is `POLL_SECONDS`. A construct passes
an instance to `Function`, and the handler calls `read` once and keeps the result under the name `env`:

>>> class ExampleEnv(Env):
...     table_name: str
...     poll_seconds: int
>>> ExampleEnv(owner="search", table_name="releases", poll_seconds=30).variables()
{'POLL_SECONDS': '30', 'POWERTOOLS_SERVICE_NAME': 'search', 'TABLE_NAME': 'releases'}
>>> ExampleEnv.read(_).poll_seconds
30

The classes are plain, not data classes: making one takes a millisecond, a dozen would delay every cold start.
"""

from __future__ import annotations

import json
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any, Self

METRICS_NAMESPACE = "DistilledRouter"
"""The CloudWatch namespace of all metrics. Alarms, canary analysis and functions share it: no variable."""

_OWNER = "POWERTOOLS_SERVICE_NAME"


class EnvError(ValueError):
    """A variable is missing or has a value that its field doesn't take."""


@typing.dataclass_transform(kw_only_default=True, frozen_default=True)
class _Frozen:
    """What a subclass annotates are its fields, given by keyword and fixed; type checkers know them."""

    def __init__(self, **values: Any) -> None:
        kinds, name = _kinds(type(self)), type(self).__name__
        if unknown := sorted(values.keys() - kinds.keys()):
            raise TypeError(f"{name} has no {', '.join(unknown)}")
        if missing := [field for field in kinds if field not in values and not hasattr(type(self), field)]:
            raise TypeError(f"{name} needs {', '.join(missing)}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in _kinds(type(self)))
        return f"{type(self).__name__}({values})"


class Env(_Frozen):
    """The variables of one function; this class itself, of one that reads nothing but its owner.

    A field is a string, a whole number, a number, a flag, a dataclass or a mapping; the last two travel as
    JSON. An empty string travels as a variable without text.

    Attributes:
        owner: name of the owner of all that the function creates. Powertools logs its variable as
            the service, so no second variable is needed.
    """

    owner: str

    @classmethod
    def names(cls) -> dict[str, str]:
        """Return the name of each field's variable."""
        return {name: _OWNER if name == "owner" else name.upper() for name in _kinds(cls)}

    def changed(self, **values: Any) -> Self:
        """Return a copy with some fields changed."""
        return type(self)(**{name: getattr(self, name) for name in _kinds(type(self))} | values)

    def variables(self) -> dict[str, str]:
        """Return the variables by name, in alphabetical order; fields with their default are left out."""
        found = {
            variable: _text(value)
            for name, variable in self.names().items()
            if (value := getattr(self, name)) != getattr(type(self), name, None)
        }
        return dict(sorted(found.items()))

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the variables of this function.

        Raises:
            EnvError: A variable without a default is missing, or a value doesn't fit its field. The message
                names the variable.
        """
        kinds, values = _kinds(cls), dict[str, Any]()
        for name, variable in cls.names().items():
            if variable in environ:
                values[name] = _value(variable, environ[variable], kinds[name])
            elif not hasattr(cls, name):
                raise EnvError(f"The environment variable {variable} is missing; {cls.__name__} needs it.")
        return cls(**values)


class ResourceEnv(Env):
    """The variables of a custom resource that creates anything that costs.

    Attributes:
        requests_table: holds the newest request to each resource of the stack.
        absence_seconds: for how long Bedrock must say that a resource does not exist before this counts.
        wait_seconds: for how long the Provider framework polls for one request.
    """

    requests_table: str
    absence_seconds: float
    wait_seconds: float


class CreateJobEnv(Env):
    """The variables of the step that creates a customization job.

    Attributes:
        stack_id, logical_id: the job's custom resource, which claims the job.
    """

    stack_id: str
    logical_id: str


class CandidateEnv(Env):
    """The variables of WatchJob and DeployCandidate, by the names of the settings.

    Attributes:
        stack_id, logical_id: the release's custom resource, which claims models and deployments.
        absence_seconds: for how long Bedrock must say that a resource does not exist before this counts.
        labelling_machine_arn: the state machine that creates the job; empty where none does.
        tags: put on the deployment, besides the owner's.
        holdout_sha256: of the hold-out set; empty where the job's tag has it, or nobody knows it.
    """

    table_name: str
    poll_seconds: int
    timeout_hours: float
    stall_hours: float
    stop_stalled: bool
    retry_internal_errors: int
    labelling_machine_arn: str
    stack_id: str
    logical_id: str
    absence_seconds: float
    tags: Mapping[str, str]
    holdout_sha256: str


class EvaluationEnv(Env):
    """The variables of PrepareEvaluation, AskModels and ScoreAndGate, by the names of the settings.

    Attributes:
        bucket: holds the hold-out set, and everything under `releases/<owner>/`.
        training_key: of the training rows; empty if nothing is known of them.
        gate: the fields of `distilled_router.release.gate.Gate`.
        base_model: is compared with the candidate; empty where it is not.
        judge: the model that grades answers; empty where none does.
        environment: of the owner's router, for the report; empty where none is named.
        student: the base model's customization id.
        teacher: the model that the student learns from; empty where none is known.
    """

    table_name: str
    bucket: str
    holdout_key: str
    training_key: str
    gate: Mapping[str, Any]
    base_model: str
    slice_queries: int
    outage_minutes: float
    judge: str
    environment: str = ""
    student: str = ""
    teacher: str = ""


class TrainHeadEnv(EvaluationEnv):
    """The variables of TrainHead, by the names of the settings.

    Attributes:
        margin_error: how much larger the mean absolute error may become by the head's answers.
        margin_dominant: how much smaller the share of right dominant labels may become.
    """

    margin_error: float
    margin_dominant: float


class GradeAnswersEnv(Env):
    """The variables of GradeAnswers, by the names of the settings.

    Attributes:
        stack_id, logical_id: the release's custom resource, which claims evaluation jobs.
        judge: the model that grades answers.
        judge_role_arn: what Bedrock assumes for evaluation jobs.
        absence_seconds: for how long Bedrock must say that a job does not exist before this counts.
        tags: put on evaluation jobs, besides the owner's.
    """

    stack_id: str
    logical_id: str
    table_name: str
    bucket: str
    judge: str
    judge_hours: float
    judge_role_arn: str
    poll_seconds: int
    absence_seconds: float
    tags: Mapping[str, str]


class RolloutEnv(Env):
    """The variables of RollOut.

    Attributes:
        bucket: holds the hold-out set.
        rollout: the fields of `distilled_router.release.rollout.Rollout`.
        gate: the fields of `distilled_router.release.gate.Gate`, for the answers to hold-out queries.
    """

    table_name: str
    bucket: str
    holdout_key: str
    rollout: Mapping[str, Any]
    gate: Mapping[str, Any]


class SweeperEnv(Env):
    """The variables of RetireOld, Fail and Sweep.

    Attributes:
        stack_id, logical_id: the release's custom resource, which claims what releases create.
        throughput_name: the throughput that releases serve from; empty where they serve on demand.
    """

    stack_id: str
    logical_id: str
    table_name: str
    keep_releases: int
    retain_models: bool
    retain_throughput: bool
    throughput_name: str


class ReleaseEnv(ResourceEnv):
    """The variables of the custom resource Release."""

    table_name: str


class ReleaseWaitEnv(Env):
    """The variables of the custom resource ReleaseWait, and of its schedule.

    Attributes:
        margin_seconds: how long before its time a window is ended; two calls of the schedule take less.
    """

    table_name: str
    margin_seconds: int


class CheckCostEnv(Env):
    """The variables of the labelling's step CheckCost.

    Attributes:
        requests_table: holds what the owner has committed to pay.
        bucket: holds everything under `labels/`.
        cost: the fields of `distilled_router.cost.lines.Spec`.
    """

    requests_table: str
    bucket: str
    cost: Mapping[str, Any]
    maximum_cost_usd: float
    maximum_cost_days: int


class LabellingEnv(Env):
    """The variables of the labelling's steps.

    Attributes:
        stack_id, logical_id: the custom resource, which claims batch jobs.
        absence_seconds: for how long Bedrock must say that a batch job does not exist before this counts.
        bucket: holds everything under `labels/`.
        requests_table: holds the seal of the labels' folder.
        batch_role_arn: what Bedrock assumes for batch jobs.
        tags: put on batch jobs, besides the owner's.
        network: the `vpcConfig` of batch jobs; empty where they have none.
        needs: what job and gate need of the data (`data.preflight.Needs`).
    """

    stack_id: str
    logical_id: str
    absence_seconds: float
    bucket: str
    requests_table: str
    batch_role_arn: str
    tags: Mapping[str, str]
    network: Mapping[str, Sequence[str]]
    needs: Mapping[str, Any]


class ServeFromThroughputEnv(Env):
    """The variables of the release's step that buys throughput, or moves it.

    Attributes:
        stack_id, logical_id: the Release's resource, which claims the throughput.
        absence_seconds: for how long Bedrock must say that no such throughput exists before it is bought.
        commitment: `none`, `OneMonth` or `SixMonths`.
        retain_throughput: leave throughput that nothing is routed to; it is billed until it is deleted.
        tags: put on the throughput, besides the owner's.
    """

    stack_id: str
    logical_id: str
    absence_seconds: float
    table_name: str
    throughput_name: str
    model_units: int
    commitment: str
    retain_throughput: bool
    poll_seconds: int
    tags: Mapping[str, str]


class RouterEnv(Env):
    """The variables of the router, by the names of its settings.

    Attributes:
        base_prices, student_prices: US dollars for a million tokens of input and of output, "0.035 0.14";
            empty where the price is unknown.
        head_mode: `off`, `last_resort` or `first`.
        head_bucket: holds the classification heads; empty where they are off.
        explore_share: share of the queries that the head accepts and the student answers.
    """

    table_name: str
    base_model: str
    base_prices: str
    student_prices: str
    time_budget_ms: int
    batch_time_budget_ms: int
    batch_queries: int
    quota_requests_per_minute: int
    memory_mb: int
    cache_entries: int
    cache_seconds: float
    route_seconds: float
    log_queries: bool
    tracing: bool
    head_mode: str = "off"
    head_bucket: str = ""
    explore_share: float = 0.0


def _kinds(cls: type[_Frozen]) -> dict[str, Any]:
    """Return the type of each field, those of the base class first."""
    return typing.get_type_hints(cls)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return json.dumps(dict(value), sort_keys=True)
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _value(name: str, text: str, kind: Any) -> Any:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text]
        if kind in (str, int, float):
            return kind(text)
        data = json.loads(text)
        return kind(**data) if isinstance(kind, type) and is_dataclass(kind) else data
    except (KeyError, TypeError, ValueError) as error:
        raise EnvError(f"The environment variable {name} is {text!r}, expected {_expected(kind)}.") from error


def _expected(kind: Any) -> str:
    named = {bool: "true or false", int: "a whole number", float: "a number"}
    return named.get(kind) or f"JSON for {getattr(kind, '__name__', kind)}"
