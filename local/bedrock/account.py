"""The state of the stand-in's only account and Region, shared by all operations."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from local.bedrock.catalogue import Catalogue
from local.bedrock.clock import Clock
from local.bedrock.errors import ServiceError, invalid
from local.bedrock.faults import ROLE_TEXTS, Faults
from local.bedrock.roles import Authorize, RoleS3
from local.bedrock.settings import Lag, Settings
from local.bedrock.student import Student

if TYPE_CHECKING:
    from local.bedrock.batch import InvocationJob
    from local.bedrock.deployments import Deployment
    from local.bedrock.evaluations import EvaluationJob
    from local.bedrock.job_progress import Job
    from local.bedrock.throughput import Throughput

Parameters = dict[str, Any]
Result = dict[str, Any]
MAX_TAGS = 200


@dataclass(kw_only=True)
class CustomModel:
    """A custom model that a job created."""

    arn: str
    name: str
    base: str
    created: float
    student: Student
    #: The attributes of the job that GetCustomModel returns.
    job: Result


@dataclass
class Seen:
    """What earlier reads and writes saw of each resource, by ARN, for reads that lag."""

    #: The answers of Get, each with the time since which it was true.
    answers: dict[str, list[tuple[float, Result]]] = field(default_factory=dict)
    #: The tags before each change, with the time of the change.
    tags: dict[str, list[tuple[float, dict[str, str]]]] = field(default_factory=dict)
    #: How often Get found the resource, or could have.
    gets: dict[str, int] = field(default_factory=dict)
    #: When a call passed a role for the first time, and how often the role was refused since.
    roles: dict[str, float] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)


@dataclass
class Account:
    """All resources by ARN, and the services that the operations use."""

    settings: Settings
    clock: Clock
    s3: Any
    role_exists: Callable[[str], bool]
    catalogue: Catalogue
    faults: Faults
    #: Checks a call against IAM; None allows every call.
    authorize: Authorize | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    jobs: dict[str, Job] = field(default_factory=dict)
    models: dict[str, CustomModel] = field(default_factory=dict)
    deployments: dict[str, Deployment] = field(default_factory=dict)
    throughputs: dict[str, Throughput] = field(default_factory=dict)
    invocation_jobs: dict[str, InvocationJob] = field(default_factory=dict)
    evaluation_jobs: dict[str, EvaluationJob] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)
    logging: Result | None = None
    #: How often a model got the same request at a temperature above 0.
    repeats: dict[str, int] = field(default_factory=dict)
    #: What is left of the minute's requests of each model, and since when, by the model's id or ARN.
    left: dict[str, tuple[float, float]] = field(default_factory=dict)
    _created: int = 0

    def __post_init__(self) -> None:
        self.lag: Lag = self.settings.lag

    def reset(self) -> None:
        """Delete all resources, tags, client tokens, faults, changes of lifecycles and of the lag."""
        for store in (self.jobs, self.models, self.deployments, self.throughputs):
            store.clear()
        for batches in (self.invocation_jobs, self.evaluation_jobs):
            batches.clear()
        for other in (self.tags, self.tokens, self.repeats, self.left):
            other.clear()
        self.logging = None
        self.seen, self.lag = Seen(), self.settings.lag
        self.faults.clear()
        self.catalogue.reset()

    def clear_faults(self) -> None:
        """Remove the faults that have not happened yet; batch jobs, deployments and throughput go on."""
        with self.lock:
            self.faults.clear()
            for job in self.invocation_jobs.values():
                job.stalled = False
            for deployment in self.deployments.values():
                deployment.resume(self.clock.now())
            for throughput in self.throughputs.values():
                throughput.resume(self.clock.now())

    def new_id(self) -> str:
        """Return an id of 12 characters for a new resource; the series is the same in every run."""
        self._created += 1
        return hashlib.sha256(f"resource {self._created}".encode()).hexdigest()[:12]

    def arn(self, resource: str) -> str:
        """Return the ARN of a resource in this account and Region."""
        return f"arn:aws:bedrock:{self.settings.region}:{self.settings.account}:{resource}"

    def check_role(self, role_arn: str) -> None:
        """Raise a ValidationException for a role that Bedrock can't assume, or whose policy is too new."""
        if not self.role_exists(role_arn):
            raise invalid(
                "Could not assume provided IAM role. Please verify that the role exists and that its trust "
                f"policy allows bedrock.amazonaws.com to assume it: {role_arn}"
            )
        now = self.clock.now()
        if now - self.seen.roles.setdefault(role_arn, now) < self.lag.role_seconds:
            refused = self.seen.refusals[role_arn] = self.seen.refusals.get(role_arn, -1) + 1
            raise invalid(ROLE_TEXTS[refused % len(ROLE_TEXTS)])

    def s3_as(self, role_arn: str) -> Any:
        """Return an S3 client with the permissions of a service role."""
        return RoleS3(self.s3, role_arn, self.authorize) if self.authorize else self.s3

    def created_by_token(self, operation: str, parameters: Parameters) -> str | None:
        """Return the ARN that an earlier request with the same client token created."""
        token = parameters.get("clientRequestToken")
        return self.tokens.get((operation, token)) if token else None

    def remember_token(self, operation: str, parameters: Parameters, arn: str) -> None:
        """Record the resource that a client token created."""
        if token := parameters.get("clientRequestToken"):
            self.tokens[operation, token] = arn

    def tag(self, arn: str, tags: list[dict[str, str]] | None) -> None:
        """Add tags to a resource; raise TooManyTagsException above 200."""
        merged = {**self.tags.get(arn, {}), **{tag["key"]: tag["value"] for tag in tags or ()}}
        if len(merged) > MAX_TAGS:
            raise ServiceError(
                "TooManyTagsException", f"{arn} would have {len(merged)} tags; the maximum is {MAX_TAGS}."
            )
        self._set_tags(arn, merged)

    def tags_of(self, arn: str | None) -> dict[str, str]:
        """Return a copy of a resource's tags; empty for an unknown resource."""
        return dict(self.tags.get(arn or "", {}))

    def untag(self, arn: str, keys: list[str]) -> None:
        """Remove tags from a resource."""
        self._set_tags(arn, {key: value for key, value in self.tags[arn].items() if key not in keys})

    def _set_tags(self, arn: str, tags: dict[str, str]) -> None:
        before = (self.clock.now(), self.tags.get(arn, {}))
        self.seen.tags.setdefault(arn, []).append(before)
        self.tags[arn] = tags

    def name_in_use(self, kind: str) -> ServiceError:
        """Return the error for a name in use, of the class that the settings give."""
        return ServiceError(self.settings.name_in_use, f"The provided {kind} name is currently in use.")

    def names_of_model(self, model_id: str | None) -> frozenset[str]:
        """Return all identifiers of an invoked model, by which a fault may name it.

        For the ARN of a deployment or throughput these include its name and the custom model's name and ARN.
        """
        if model_id is None:
            return frozenset()
        endpoint = self.deployments.get(model_id) or self.throughputs.get(model_id)
        model = self.models.get(endpoint.model if endpoint else model_id)
        names = {name for one in (endpoint, model) if one for name in (one.arn, one.name)}
        return frozenset({model_id, *names})

    def model_named(self, identifier: str) -> CustomModel | None:
        """Return a custom model by ARN or name, or None."""
        return self.models.get(identifier) or next(
            (model for model in self.models.values() if model.name == identifier), None
        )
