"""Properties of a customization job."""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from cdk_distilled_router import catalogue
from cdk_distilled_router.props.base import InferenceId, Props, not_allowed, one_of


class HyperparametersProps(Props):
    """Hyperparameters of Nova fine-tuning (Amazon Nova User Guide: three are supported)."""

    epoch_count: int = Field(default=2, ge=1, le=5, description="Passes over the training rows. Default: 2.")
    learning_rate: float = Field(
        default=1e-5, ge=1e-6, le=1e-4, description="Step size of the optimizer. Default: 0.00001."
    )
    learning_rate_warmup_steps: int = Field(
        default=10,
        ge=0,
        le=100,
        description="Steps in which the learning rate increases; about rows / 640 for Nova Micro. Default: "
        "10.",
    )

    def to_api(self) -> dict[str, str]:
        """Return the hyperparameters as CreateModelCustomizationJob expects them."""
        return {
            "epochCount": str(self.epoch_count),
            # Plain decimals: Bedrock documents no exponent notation.
            "learningRate": format(Decimal(repr(self.learning_rate)), "f"),
            "learningRateWarmupSteps": str(self.learning_rate_warmup_steps),
        }


class JobProps(Props):
    """Everything except the data that decides a model; `DistillationJob` validates the combination.

    Attributes:
        method: `distillation` or `fine_tuning`.
        teacher: a foundation model's id or a `us.` inference profile's; required for distillation.
        student: id with a context length, e.g. `amazon.nova-micro-v1:0:128k`.
        max_response_length: maximum tokens of a teacher's answer; distillation only.
        nonce: change it to pay for the same job again, for example after it failed.
        allow_legacy: create the job although a model is LEGACY; Bedrock may still refuse it.
        maximum_cost_usd: the most that the owner's labels and jobs may cost within a period, by the upper
            bounds of their estimates. The data set or the labelling estimates the cost before anything costs
            money, and the deployment fails if it is more.
        maximum_cost_days: the period in days; it ends now.
        hyperparameters: for fine-tuning; for other models than Nova, by their names in Bedrock's API.
    """

    method: str = "distillation"
    teacher: str | None = None
    student: str
    max_response_length: int | None = None
    nonce: str = ""
    allow_legacy: bool = False
    maximum_cost_usd: float = 200.0
    maximum_cost_days: int = 30
    hyperparameters: HyperparametersProps | dict[str, str] | None = None

    @property
    def asked_teacher(self) -> str | None:
        """Return the teacher that the job asks; None if it asks none."""
        return self.teacher

    def api_hyperparameters(self) -> dict[str, str]:
        """Return the hyperparameters as CreateModelCustomizationJob expects them; empty if unset."""
        given = self.hyperparameters
        return given.to_api() if isinstance(given, HyperparametersProps) else dict(given or {})


class DistillationProps(JobProps):
    """Teacher, student and method."""

    method: Literal["distillation", "fine_tuning"] = Field(
        description='"distillation": Bedrock runs the teacher, or takes labelled rows. "fine_tuning": the '
        "student is trained on the rows as they are."
    )
    teacher: InferenceId = Field(
        description="Model that labels the queries: its id, or its us. inference profile id where Bedrock "
        "requires one. Must be a teacher that Bedrock documented on 2026-11-24."
    )
    student: str = Field(
        description=f'Model to customize: the id with its context length, such as "{catalogue.NOVA_MICRO}". '
        "Must match the teacher and the Region.",
        json_schema_extra={"x-allowed": one_of(catalogue.servable(tuple(catalogue.STUDENTS)))},
    )
    max_response_length: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        validate_default=True,
        description="Tokens that the teacher may write for one row, at least its longest answer. Required "
        "for distillation, refused for fine_tuning (botocore: "
        "TeacherModelConfig$maxResponseLengthForInference). Default: none.",
    )
    nonce: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z0-9-]{0,32}$"),
        Field(json_schema_extra={"x-allowed": "up to 32 letters, digits and hyphens"}),
    ] = Field(
        default="",
        description="Change it to pay for the same job again, for example after it failed: a job's name "
        'can\'t be reused. Default: "".',
    )
    allow_legacy: bool = Field(
        default=False,
        description="Create the job although Bedrock lists its teacher or student, or router.base_model, as "
        "LEGACY. Bedrock may still refuse it: new customers can't use such a model, accounts that didn't use "
        "it for 15 days may lose access, and it gets no new provisioned throughput. Default: false.",
    )
    maximum_cost_usd: float = Field(
        default=200.0,
        gt=0,
        description="US dollars that all labels and jobs of the environment may cost within "
        "maximum_cost_days, by the upper bounds that `make cost` shows, retries included. Anything that "
        "would exceed it is refused before it is paid for. Not part of the digest. Default: 200.",
    )
    maximum_cost_days: int = Field(
        default=30,
        ge=1,
        le=366,
        description="Days for which maximum_cost_usd counts what was committed. Default: 30.",
    )
    hyperparameters: HyperparametersProps | None = Field(
        default=None, description="Hyperparameters, for fine_tuning only. Default: none, Bedrock's own."
    )

    @field_validator("teacher")
    @classmethod
    def _check_teacher(cls, value: str, info: ValidationInfo) -> str:
        model = catalogue.without_profile(value)
        documented = one_of(catalogue.teacher_identifiers())
        if model in catalogue.ENDED:
            raise not_allowed(f"{documented}; {model} ended on {catalogue.ENDED[model]}")
        if catalogue.is_anthropics(model):
            raise not_allowed(
                f"{documented}; Anthropic's models can't be distilled, and Bedrock flags training on their "
                "output"
            )
        if info.data.get("method") == "distillation":
            teacher = catalogue.teacher_named(value)
            if teacher is None:
                raise not_allowed(f"{documented} (teachers of {catalogue.AS_OF})")
            if value not in teacher.identifiers:
                raise not_allowed(f"{one_of(teacher.identifiers)}: the only way to name this teacher")
            if not catalogue.servable(teacher.students):
                raise not_allowed(f"{documented}: this teacher has no student that can be deployed on demand")
        return value

    @field_validator("student")
    @classmethod
    def _check_student(cls, value: str, info: ValidationInfo) -> str:
        students, reason = tuple(catalogue.STUDENTS), "the students that Bedrock can customize"
        named = info.data.get("teacher")
        teacher = catalogue.teacher_named(named) if named else None
        if info.data.get("method") == "distillation" and teacher:
            students, reason = teacher.students, f"the students of {named}"
        if value not in students:
            raise not_allowed(f"{one_of(catalogue.servable(students))} ({reason}, with their context length)")
        if not catalogue.STUDENTS[value].on_demand:
            others = one_of(catalogue.servable(students))
            raise not_allowed(
                f"{others}: this student can't be deployed on demand, which the evaluation needs"
            )
        return value

    @field_validator("max_response_length")
    @classmethod
    def _check_max_response_length(cls, value: int | None, info: ValidationInfo) -> int | None:
        method = info.data.get("method")
        if method == "distillation" and value is None:
            raise not_allowed('an integer from 1 to 10000, because method is "distillation"')
        if method == "fine_tuning" and value is not None:
            raise not_allowed('nothing, because method is "fine_tuning", for which Bedrock runs no teacher')
        return value

    @field_validator("hyperparameters")
    @classmethod
    def _check_hyperparameters(
        cls, value: HyperparametersProps | None, info: ValidationInfo
    ) -> HyperparametersProps | None:
        if value is not None and info.data.get("method") == "distillation":
            raise not_allowed(
                'nothing, because method is "distillation": Bedrock documents no hyperparameters for it'
            )
        return value

    @property
    def asked_teacher(self) -> str | None:
        """Return the teacher that the job asks; None for fine-tuning, whose rows already have labels."""
        return self.teacher if self.method == "distillation" else None
