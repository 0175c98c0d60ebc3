"""The settings of one environment, with the rules between its tables."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationInfo, field_validator

from cdk_distilled_router import catalogue
from cdk_distilled_router.props import (
    DistillationProps,
    EvaluationProps,
    GateProps,
    HeadProps,
    LabellingProps,
    Props,
    RetentionProps,
    RolloutProps,
    RouterProps,
    TimingProps,
    not_allowed,
    one_of,
)
from distilled_router.head.defer import negatives
from distilled_router.task.robustness import TRAFFIC, Robustness
from distilled_router.task.task import FILES, ROBUSTNESS_FILE, Task, TaskError
from stacks.settings.dataset import Dataset
from stacks.settings.endpoint import Endpoint
from stacks.settings.fields import PROJECT, TagKey, TagValue, is_inside, unlike
from stacks.settings.network import Network
from stacks.settings.operations import Alarms, Budget, Checks, Encryption, Security

NAME_PATTERN = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
# Without a hyphen, so that the names of one environment, `<name>-dev-...`, never begin another's.
ENVIRONMENT_PATTERN = r"^[a-z][a-z0-9]*$"

UNFINISHED = "[EDIT:"
"""Marks a place that `make new-task` leaves to the user."""

STACKS = ("data", "distillation", "release", "router", "operations")
"""The stacks in order of dependency; each is called `<name>-<environment>-<stack>`."""

# aws-cdk-lib: DefaultStackSynthesizer.DEFAULT_QUALIFIER.
DEFAULT_QUALIFIER = "hnb659fds"

# Job, model and deployment: `<name>-<environment>-<12 hex digits>`, and `-9` for a ninth attempt, in at most
# 63 characters (botocore: CreateModelCustomizationJobRequest$jobName, $customModelName).
MAXIMUM_FULL_NAME = 63 - len("-") - 12 - len("-9")

_NAME = "lower-case letters and digits, in groups joined by single hyphens, beginning with a letter"
_ENVIRONMENT = (
    "lower-case letters and digits, beginning with a letter, without a hyphen: policies tell environments "
    "apart by the names <name>-<environment>-..."
)


class Settings(Props):
    """All settings of one environment."""

    environment: Annotated[str, StringConstraints(pattern=ENVIRONMENT_PATTERN)] = Field(
        description="Name of the environment: the name of its file.",
        json_schema_extra={"x-allowed": _ENVIRONMENT},
    )
    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)] = Field(
        description="Name of the router. All names that it creates begin with it. With a hyphen and the "
        f"environment's name, at most {MAXIMUM_FULL_NAME} characters (botocore: "
        "CreateModelCustomizationJobRequest$jobName).",
        json_schema_extra={"x-allowed": _NAME},
    )
    account: Annotated[str, StringConstraints(pattern=r"^[0-9]{12}$")] = Field(
        description="AWS account to deploy to: 12 digits, in quotes.",
        json_schema_extra={"x-allowed": "12 digits in quotes"},
    )
    region: str = Field(
        description="AWS Region to deploy to. The student must be customizable there: us-east-1 for Nova.",
        json_schema_extra={"x-allowed": one_of(catalogue.REGIONS)},
    )
    bootstrap_qualifier: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]{1,10}$")] = Field(
        default=DEFAULT_QUALIFIER,
        description="Qualifier of the bootstrap stack whose roles and bucket deploy this environment. With "
        "one of its own, a CI that deploys another environment of the account can't deploy this one "
        f'(docs/ci.md). Default: "{DEFAULT_QUALIFIER}", that of the CDK.',
        json_schema_extra={"x-allowed": "1 to 10 lower-case letters or digits"},
    )
    task: str = Field(
        default="task",
        validate_default=True,
        description="Folder of the task, with its labels, prompts and answer format, relative to the "
        'project\'s root. Default: "task".',
        json_schema_extra={"x-allowed": f"a folder inside the project with {', '.join(FILES)}"},
    )
    tags: Annotated[dict[TagKey, TagValue], Field(max_length=40), AfterValidator(unlike)] = Field(
        default_factory=dict,
        description="Tags on all resources, at most 40: a resource can have 50, and the stacks need some. "
        "Keys must not start with aws: or distilled-router:, or differ only in capitals. All tags together "
        "must fit into a function's variables, which have 4,096 bytes (botocore: Tag; Lambda quotas). "
        "Default: none.",
    )
    absence_seconds: float = Field(
        default=60,
        ge=0,
        le=75,  # Three looks, one after another, fit into a call: functions have 5 minutes.
        description="Seconds for which Bedrock must report a resource as absent before this counts. Its "
        "reads lag behind writes: a new deployment may be found only after a minute. The deletion of a "
        "resource that costs money takes this much longer. Default: 60.",
    )
    dataset: Dataset = Field(description="Training and hold-out data.")
    labelling: LabellingProps = Field(
        default_factory=LabellingProps,
        description='How the teacher labels raw queries, if dataset.labels is "teacher". Default: the '
        "defaults of its keys.",
    )
    distillation: DistillationProps = Field(description="Teacher, student and method.")
    endpoint: Endpoint = Field(description="Where the released model is invoked.")
    gate: GateProps = Field(description="What a candidate must reach on the hold-out set.")
    evaluation: EvaluationProps = Field(
        default_factory=EvaluationProps,
        validate_default=True,
        description="How a candidate is evaluated, and which models are compared with it. Default: the "
        "defaults of its keys.",
    )
    head: HeadProps = Field(
        default_factory=HeadProps,
        description="The classification head: a small classifier that is trained with each release and "
        "answers in the router's own process (docs/head.md). Default: the defaults of its keys.",
    )
    rollout: RolloutProps = Field(description="How a candidate takes over the requests.")
    release: TimingProps = Field(description="Time limits and retries of a release.")
    router: RouterProps = Field(description="The function that answers queries, and its API.")
    retention: RetentionProps = Field(description="What stays when the stacks are deleted.")
    encryption: Encryption = Field(description="KMS keys.")
    security: Security = Field(
        default_factory=Security,
        description="Rules of your platform for every role. Default: none.",
    )
    network: Network | None = Field(
        default=None,
        description="VPC for all functions and for Bedrock's customization and batch jobs. Default: none, "
        "functions run outside a VPC.",
    )
    alarms: Alarms = Field(description="Thresholds of the alarms, and who is notified.")
    budget: Budget = Field(default_factory=Budget, description="Monthly budgets. Default: none.")
    checks: Checks = Field(
        default_factory=Checks,
        description="Compliance checks of the stacks. Default: the defaults of its keys.",
    )

    _file: str = ""

    def of_file(self, file: str) -> Self:
        """Remember the file that these settings were read from, for messages."""
        self._file = file
        return self

    @property
    def file(self) -> str:
        """Return the file of these settings, relative to the project if it is inside."""
        return self._file or f"environments/{self.environment}.toml"

    @property
    def owner(self) -> str:
        """Return the name of this router in this environment, such as "video-router-dev"."""
        return f"{self.name}-{self.environment}"

    @property
    def permissions_boundary(self) -> str | None:
        """Return the ARN of the permissions boundary; None without one."""
        name = self.security.permissions_boundary
        return f"arn:aws:iam::{self.account}:policy/{name}" if name and not name.startswith("arn:") else name

    @property
    def task_folder(self) -> Path:
        """Return the folder of the routing task."""
        return PROJECT / self.task

    @field_validator("environment")
    @classmethod
    def _check_environment(cls, value: str) -> str:
        if value in STACKS:
            raise not_allowed(f"a name that no stack has: {', '.join(STACKS)} are the stacks' names")
        return value

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str, info: ValidationInfo) -> str:
        environment = info.data.get("environment")
        if environment and len(value) + 1 + len(environment) > MAXIMUM_FULL_NAME:
            raise not_allowed(
                f"at most {max(0, MAXIMUM_FULL_NAME - 1 - len(environment))} characters with environment "
                f'"{environment}": names in Bedrock have at most 63'
            )
        return value

    @field_validator("region")
    @classmethod
    def _check_region(cls, value: str) -> str:
        if value not in catalogue.REGIONS:
            raise not_allowed(f"{one_of(catalogue.REGIONS)}, where Bedrock customizes models")
        return value

    @field_validator("task")
    @classmethod
    def _check_task(cls, value: str) -> str:
        if not is_inside(value, PROJECT):
            raise not_allowed("a folder inside the project, relative to its root")
        folder = PROJECT / value
        try:
            task = Task.load(folder)
            Robustness.load(task, folder)
            negatives(folder)
        except TaskError as error:
            problem = str(error).replace(f"{PROJECT}/", "")
            raise not_allowed(f"a folder with a valid task; {problem}") from error
        prompts = {"teacher_prompt.txt": task.teacher_prompt, "student_prompt.txt": task.student_prompt}
        if unfinished := [f"{value}/{name}" for name, prompt in prompts.items() if UNFINISHED in prompt]:
            raise not_allowed(
                f'a folder with finished prompts: replace each "{UNFINISHED} ...]" in '
                f"{' and '.join(unfinished)}. Models are paid for what a prompt says"
            )
        return value

    @field_validator("distillation")
    @classmethod
    def _check_student_region(cls, value: DistillationProps, info: ValidationInfo) -> DistillationProps:
        region, home = info.data.get("region"), catalogue.STUDENTS[value.student].region
        if region and region != home:
            raise not_allowed(f'"{home}", the only Region where {value.student} is customized', at="region")
        return value

    @field_validator("distillation")
    @classmethod
    def _check_method(cls, value: DistillationProps, info: ValidationInfo) -> DistillationProps:
        labelling = info.data.get("labelling")
        if value.method == "distillation" and labelling and labelling.validation_share:
            raise not_allowed(
                'nothing, because distillation.method is "distillation": Bedrock documents no validation '
                "data for it",
                at="labelling.validation_share",
            )
        return value

    @field_validator("evaluation")
    @classmethod
    def _check_judge_is_set(cls, value: EvaluationProps, info: ValidationInfo) -> EvaluationProps:
        gate = info.data.get("gate")
        if gate and gate.minimum_judge_score is not None and value.judge is None:
            raise not_allowed("nothing, because evaluation.judge is not set", at="gate.minimum_judge_score")
        return value

    @field_validator("evaluation")
    @classmethod
    def _check_slices_are_asked(cls, value: EvaluationProps, info: ValidationInfo) -> EvaluationProps:
        gate, folder, dataset = (info.data.get(name) for name in ("gate", "task", "dataset"))
        if not (gate and gate.minimum_slice_accuracy and folder and dataset):
            return value
        at = "gate.minimum_slice_accuracy"
        if not value.slice_queries:
            raise not_allowed("nothing, because evaluation.slice_queries is 0", at=at)
        task = Task.load(PROJECT / folder)
        given = Robustness.load(task, PROJECT / folder).slices
        known = [*given, TRAFFIC] if dataset.labels == "teacher" else given
        for name in gate.minimum_slice_accuracy:
            if name not in known:
                whose = f"{folder}/{ROBUSTNESS_FILE}" if name != TRAFFIC else "raw queries"
                raise not_allowed(f"{one_of(tuple(known))}; {name} needs {whose} with it", at=f"{at}.{name}")
        return value

    @field_validator("rollout")
    @classmethod
    def _check_easy_queries_reach_the_student(cls, value: RolloutProps, info: ValidationInfo) -> RolloutProps:
        head = info.data.get("head")
        if head and head.mode == "first" and not head.explore_share and not value.probes:
            raise not_allowed(
                'a number above 0, because head.mode is "first" and rollout.probes is 0: behind a head that '
                "answers nearly all queries, nobody would notice a broken student",
                at="head.explore_share",
            )
        return value

    @field_validator("endpoint")
    @classmethod
    def _check_student_endpoint(cls, value: Endpoint, info: ValidationInfo) -> Endpoint:
        distillation = info.data.get("distillation")
        if (
            distillation
            and value.kind == "provisioned"
            and not catalogue.STUDENTS[distillation.student].provisioned
        ):
            raise not_allowed(
                f'"on_demand": Bedrock has no provisioned throughput for {distillation.student}',
                at="endpoint.kind",
            )
        return value

    @field_validator("router")
    @classmethod
    def _check_quota_is_stated(cls, value: RouterProps, info: ValidationInfo) -> RouterProps:
        """Check that nobody relies on the default quota with a student whose deployments take less."""
        distillation, endpoint = info.data.get("distillation"), info.data.get("endpoint")
        if distillation and endpoint and endpoint.kind == "on_demand":
            most = catalogue.STUDENTS[distillation.student].requests_per_minute
            is_stated = "quota_requests_per_minute" in value.model_fields_set
            if most and most < value.quota_requests_per_minute and not is_stated:
                raise not_allowed(
                    f"a number, because a deployment of {distillation.student} takes {most:,} requests a "
                    f"minute and not {value.quota_requests_per_minute:,}, the default",
                    at="router.quota_requests_per_minute",
                )
        return value

    @field_validator("encryption")
    @classmethod
    def _check_key_is_here(cls, value: Encryption, info: ValidationInfo) -> Encryption:
        account, region = info.data.get("account"), info.data.get("region")
        here = f"arn:aws:kms:{region}:{account}:key/"
        if account and region and value.key_arn and not value.key_arn.startswith(here):
            raise not_allowed(f"a key of this account and Region, {here}...", at="encryption.key_arn")
        return value

    @field_validator("security")
    @classmethod
    def _check_boundary_is_here(cls, value: Security, info: ValidationInfo) -> Security:
        account, policy = info.data.get("account"), value.permissions_boundary
        if account and policy and policy.startswith("arn:") and policy.split(":")[4] not in (account, "aws"):
            raise not_allowed(
                f"a managed policy of this account, arn:aws:iam::{account}:policy/..., or one of AWS's: "
                "IAM accepts no other account's policy as a boundary",
                at="security.permissions_boundary",
            )
        return value
