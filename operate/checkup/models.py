"""Checks of the foundation models that the settings name: they exist, last, and may be used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distilled_router.aws.errors import ResourceError, or_none
from distilled_router.bedrock.lifecycle import UNTOUCHED, check_fallback, check_usable, foundation_model_id
from distilled_router.bedrock.models import base_model
from operate.checkup.finding import Finding, Level
from operate.environment import Environment
from stacks.settings import Settings


@dataclass(frozen=True)
class Named:
    """A model by its role, the setting that names it, and its id there."""

    role: str
    setting: str
    identifier: str

    @property
    def base(self) -> str:
        """The id of its foundation model, without a context length."""
        return base_model(foundation_model_id(self.identifier))

    @property
    def access(self) -> str:
        """The name of the check of its access."""
        return f"{self.role} access"

    @property
    def is_profile(self) -> bool:
        """Whether it is the id of an inference profile."""
        return foundation_model_id(self.identifier) != self.identifier


def named(settings: Settings) -> list[Named]:
    """Return the models that a deployment, a release or the router calls."""
    distillation, judge = settings.distillation, settings.evaluation.judge
    asks_teacher = distillation.method == "distillation" or settings.dataset.asks_teacher
    found = [Named("student", "distillation.student", distillation.student)]
    if asks_teacher:
        found.append(Named("teacher", "distillation.teacher", distillation.teacher))
    found.append(Named("fallback", "router.base_model", settings.router.base_model))
    return [*found, Named("judge", "evaluation.judge", judge)] if judge else found


def by_base(models: Sequence[Named]) -> list[Named]:
    """Return the first model of each foundation model."""
    bases = [model.base for model in models]
    return [model for number, model in enumerate(models) if model.base not in bases[:number]]


def usable(at: Environment, model: Named) -> Iterator[Finding]:
    """Yield whether a model exists in the Region and has not ended."""
    allowed = at.settings.distillation.allow_legacy or model.role == "judge"
    try:
        _check_profile(at, model)
        _check_lifecycle(at, model, allow_legacy=allowed)
    except ResourceError as error:
        yield told("problem", model, error)
        return
    try:
        if allowed:
            _check_lifecycle(at, model, allow_legacy=False)
    except ResourceError as error:
        yield told("warning", model, error)
    else:
        yield Finding("ok", model.role, f"{model.identifier} can be used.")


def access(at: Environment, model: Named) -> Iterator[Finding]:
    """Yield whether the account may call a model, as far as Bedrock says so without a call that is billed.

    A service control policy shows in such a call only.
    """
    said = at.aws.bedrock.get_foundation_model_availability(modelId=model.base)
    agreement = said["agreementAvailability"]["status"]
    answers = {said["entitlementAvailability"], agreement}
    if not model.is_profile:
        # A profile also routes to models of other Regions.
        answers.add(said["regionAvailability"])
    text = (
        f"{model.base}: {said['authorizationStatus']}, entitlement {said['entitlementAvailability']}, "
        f"agreement {agreement}, Region {said['regionAvailability']}."
    )
    step = f"Try one call: see docs/deploy.md, What it can't check. {model.setting} names the model."
    if said["authorizationStatus"] != "AUTHORIZED":
        yield Finding("problem", model.access, text, f"Allow the account to use it. {step}")
    elif answers != {"AVAILABLE"}:
        yield Finding("warning", model.access, text, step)
    else:
        yield Finding("ok", model.access, f"The account may use {model.base}.")


def _check_profile(at: Environment, model: Named) -> None:
    """Raise ResourceError if the model is named by an inference profile that does not exist."""
    if not model.is_profile:
        return
    profile = or_none(at.aws.bedrock.get_inference_profile, inferenceProfileIdentifier=model.identifier)
    if profile is None:
        raise ResourceError(
            f"{at.settings.region} has no inference profile {model.identifier}. {UNTOUCHED} Choose another "
            f"model in {model.setting}."
        )


def _check_lifecycle(at: Environment, model: Named, *, allow_legacy: bool) -> None:
    bedrock = at.aws.bedrock
    if model.role == "fallback":
        check_fallback(bedrock, model.identifier, allow_legacy=allow_legacy)
    else:
        check_usable(bedrock, [model.identifier], allow_legacy=allow_legacy, setting=model.setting)


def told(level: Level, model: Named, error: ResourceError) -> Finding:
    """Return the finding of a model that can't be used: what was found, and what to do."""
    found, _, step = str(error).partition(f" {UNTOUCHED} ")
    return Finding(level, model.role, found, step)
