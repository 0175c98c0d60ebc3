"""Teachers, students, judges and fallback models that Amazon Bedrock supports, as documented on 2026-11-24.

Sources: Amazon Bedrock User Guide, pages `prequisites-model-distillation`, `custom-model-fine-tuning`,
`deploy-custom-model-on-demand` and `prov-thru-supported`; the model card of Amazon Nova Premier.

Synthesis refuses models by these tables. Before it creates a job, the deployment also asks GetFoundationModel
whether its models are still available.
"""

from dataclasses import dataclass

AS_OF = "2026-11-24"

US_PROFILE = "us."
"""Prefix of the system inference profiles of the United States."""


@dataclass(frozen=True)
class Student:
    """A model that Bedrock can customize: by FINE_TUNING always, by DISTILLATION if a teacher lists it.

    Attributes:
        region: the only Region that customizes it.
        on_demand: whether its custom models can have an on-demand deployment.
        provisioned: whether its custom models can have provisioned throughput.
        requests_per_minute: what an on-demand deployment takes; None if that is not documented.
    """

    region: str
    on_demand: bool
    provisioned: bool
    requests_per_minute: int | None = None


@dataclass(frozen=True)
class Teacher:
    """A model that DISTILLATION accepts as a teacher.

    Attributes:
        identifiers: ids that a job accepts for it: its own, that of a system inference profile, or both.
        students: the customization ids of its students.
    """

    identifiers: tuple[str, ...]
    students: tuple[str, ...]


NOVA_MICRO = "amazon.nova-micro-v1:0:128k"
NOVA_LITE = "amazon.nova-lite-v1:0:300k"
NOVA_PRO = "amazon.nova-pro-v1:0:300k"
NOVA_2_LITE = "amazon.nova-2-lite-v1:0:256k"
LLAMA_3_1_8B = "meta.llama3-1-8b-instruct-v1:0:128k"
LLAMA_3_1_70B = "meta.llama3-1-70b-instruct-v1:0:128k"
LLAMA_3_2_1B = "meta.llama3-2-1b-instruct-v1:0:128k"
LLAMA_3_2_3B = "meta.llama3-2-3b-instruct-v1:0:128k"
LLAMA_3_3_70B = "meta.llama3-3-70b-instruct-v1:0:128k"

STUDENTS: dict[str, Student] = {
    NOVA_MICRO: Student("us-east-1", on_demand=True, provisioned=True, requests_per_minute=2_000),
    NOVA_LITE: Student("us-east-1", on_demand=True, provisioned=True, requests_per_minute=2_000),
    NOVA_PRO: Student("us-east-1", on_demand=True, provisioned=True, requests_per_minute=200),
    NOVA_2_LITE: Student("us-east-1", on_demand=True, provisioned=True),
    LLAMA_3_1_8B: Student("us-west-2", on_demand=False, provisioned=True),
    LLAMA_3_1_70B: Student("us-west-2", on_demand=False, provisioned=True),
    LLAMA_3_2_1B: Student("us-west-2", on_demand=False, provisioned=True),
    LLAMA_3_2_3B: Student("us-west-2", on_demand=False, provisioned=True),
    LLAMA_3_3_70B: Student("us-west-2", on_demand=True, provisioned=False),
}

TEACHERS: tuple[Teacher, ...] = (
    Teacher(("amazon.nova-pro-v1:0", "us.amazon.nova-pro-v1:0"), (NOVA_MICRO, NOVA_LITE)),
    Teacher(
        ("meta.llama3-1-405b-instruct-v1:0",),
        (LLAMA_3_1_8B, LLAMA_3_1_70B, LLAMA_3_2_1B, LLAMA_3_3_70B),
    ),
    Teacher(
        ("meta.llama3-1-70b-instruct-v1:0", "us.meta.llama3-1-70b-instruct-v1:0"),
        (LLAMA_3_1_8B, LLAMA_3_2_1B, LLAMA_3_2_3B),
    ),
    Teacher(("us.meta.llama3-3-70b-instruct-v1:0",), (LLAMA_3_1_8B, LLAMA_3_2_1B, LLAMA_3_2_3B)),
)

JUDGES: tuple[str, ...] = (
    "amazon.nova-pro-v1:0",
    "amazon.nova-2-lite-v1:0",
    "amazon.nova-micro-v1:0",
    "anthropic.claude-haiku-4-5-20251001-v1:0",
    "anthropic.claude-sonnet-4-5-20250929-v1:0",
    "anthropic.claude-opus-4-5-20251101-v1:0",
    "meta.llama3-1-70b-instruct-v1:0",
    "meta.llama3-3-70b-instruct-v1:0",
    "mistral.mistral-large-2402-v1:0",
    "mistral.mistral-large-2407-v1:0",
)
"""Judges for custom metrics (Bedrock user guide, `evaluation-judge`), without models that have ended."""

FALLBACKS: tuple[str, ...] = (
    *("amazon.nova-micro-v1:0", "us.amazon.nova-micro-v1:0"),
    *("amazon.nova-lite-v1:0", "us.amazon.nova-lite-v1:0"),
    *("amazon.nova-pro-v1:0", "us.amazon.nova-pro-v1:0"),
    *("amazon.nova-2-lite-v1:0", "us.amazon.nova-2-lite-v1:0"),
    "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "us.anthropic.claude-opus-4-5-20251101-v1:0",
    "us.anthropic.claude-haiku-5-5",
    "meta.llama3-1-405b-instruct-v1:0",
    *("meta.llama3-1-70b-instruct-v1:0", "us.meta.llama3-1-70b-instruct-v1:0"),
    "us.meta.llama3-3-70b-instruct-v1:0",
    "mistral.mistral-large-2407-v1:0",
)
"""Models that can answer the router's queries, by each id with which Bedrock invokes them. A model with only
a `us.` id needs its inference profile (user guide, `inference-profiles-support`)."""

ENDED: dict[str, str] = {"amazon.nova-premier-v1:0": "2026-09-14"}
"""Models that Bedrock no longer offers, and their end dates."""

REGIONS: tuple[str, ...] = tuple(sorted({student.region for student in STUDENTS.values()}))


def without_profile(identifier: str) -> str:
    """Return a model's own id, given that or its `us.` inference profile's id."""
    return identifier.removeprefix(US_PROFILE)


def is_anthropics(identifier: str) -> bool:
    """Return whether a model is Anthropic's, given its own id or an inference profile's, with any prefix."""
    return "anthropic" in identifier.split(".")[:2]


def fallbacks_named(identifier: str) -> tuple[str, ...]:
    """Return the ids of the fallback model with any of them; none if no model has it."""
    model = without_profile(identifier)
    return tuple(name for name in FALLBACKS if without_profile(name) == model)


def teacher_named(identifier: str) -> Teacher | None:
    """Return the distillation teacher with any of its ids; None if the model is not a teacher."""
    model = without_profile(identifier)
    return next((t for t in TEACHERS if model in map(without_profile, t.identifiers)), None)


def servable(students: tuple[str, ...]) -> tuple[str, ...]:
    """Return the students with on-demand deployments, which the evaluation of every release needs."""
    return tuple(student for student in students if STUDENTS[student].on_demand)


def teacher_identifiers() -> tuple[str, ...]:
    """Return all ids of teachers that have a student with on-demand deployments."""
    return tuple(i for teacher in TEACHERS if servable(teacher.students) for i in teacher.identifiers)
