"""Foundation models and inference profiles of the Region, with lifecycles and supported students.

The Nova entries are as documented in November 2026. Llama 3.1 405B has invented dates: it serves as a LEGACY
model whose end of life is in the future.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from local.bedrock.errors import invalid, not_found

TUNED = ("FINE_TUNING", "DISTILLATION")
INVALID_MODEL = "The provided model identifier is invalid."


def _day(year: int, month: int, day: int) -> float:
    return datetime(year, month, day, tzinfo=UTC).timestamp()


@dataclass(frozen=True, kw_only=True)
class FoundationModel:
    """One foundation model id; context-suffixed ids (`…:128k`) are models of their own."""

    id: str
    name: str
    provider: str = "Amazon"
    customizations: tuple[str, ...] = ()
    inference: tuple[str, ...] = ("ON_DEMAND",)
    students: tuple[str, ...] = ()
    start: float = _day(2024, 12, 3)
    legacy: float | None = None
    end: float | None = None

    def status(self, now: float) -> str:
        """Return ACTIVE or LEGACY."""
        return "LEGACY" if self.legacy is not None and self.legacy <= now else "ACTIVE"

    def ended(self, now: float) -> bool:
        """Return whether the model is past its end of life."""
        return self.end is not None and self.end <= now


_MICRO, _LITE, _PRO = "amazon.nova-micro-v1:0", "amazon.nova-lite-v1:0", "amazon.nova-pro-v1:0"
_NOVA_2 = "amazon.nova-2-lite-v1:0"
_LLAMA = "meta.llama3-1-8b-instruct-v1:0:128k"
_LLAMA_70B, _LLAMA_3_3 = "meta.llama3-1-70b-instruct-v1:0", "meta.llama3-3-70b-instruct-v1:0"
_MISTRAL_2402, _MISTRAL_2407 = "mistral.mistral-large-2402-v1:0", "mistral.mistral-large-2407-v1:0"
# Invoked by their inference profiles only.
_CLAUDES = {
    "anthropic.claude-haiku-4-5-20251001-v1:0": "Claude Haiku 4.5",
    "anthropic.claude-sonnet-4-5-20250929-v1:0": "Claude Sonnet 4.5",
    "anthropic.claude-opus-4-5-20251101-v1:0": "Claude Opus 4.5",
    "anthropic.claude-haiku-5-5": "Claude Haiku 5.5",
}


def _provisioned(model: str, context: str, name: str, tuned: tuple[str, ...]) -> FoundationModel:
    return FoundationModel(
        id=f"{model}:{context}", name=name, customizations=tuned, inference=("PROVISIONED",)
    )


MODELS = (
    FoundationModel(id=_MICRO, name="Nova Micro"),
    _provisioned(_MICRO, "128k", "Nova Micro", TUNED),
    _provisioned(_MICRO, "24k", "Nova Micro", ()),
    FoundationModel(id=_LITE, name="Nova Lite"),
    _provisioned(_LITE, "300k", "Nova Lite", TUNED),
    _provisioned(_LITE, "24k", "Nova Lite", ()),
    FoundationModel(id=_PRO, name="Nova Pro", students=(f"{_LITE}:300k", f"{_MICRO}:128k")),
    _provisioned(_PRO, "300k", "Nova Pro", TUNED),
    _provisioned(_PRO, "24k", "Nova Pro", ()),
    FoundationModel(
        id="amazon.nova-premier-v1:0",
        name="Nova Premier",
        inference=(),
        students=(f"{_LITE}:300k", f"{_MICRO}:128k", f"{_PRO}:300k"),
        start=_day(2025, 4, 30),
        legacy=_day(2026, 3, 13),
        end=_day(2026, 9, 14),
    ),
    FoundationModel(id=_NOVA_2, name="Nova 2 Lite", start=_day(2025, 12, 2)),
    _provisioned(_NOVA_2, "256k", "Nova 2 Lite", ("FINE_TUNING",)),
    FoundationModel(
        id="meta.llama3-1-405b-instruct-v1:0",
        name="Llama 3.1 405B Instruct",
        provider="Meta",
        students=(_LLAMA, f"{_LLAMA_3_3}:128k"),
        start=_day(2024, 7, 23),
        legacy=_day(2026, 7, 1),
        end=_day(2099, 1, 1),
    ),
    FoundationModel(
        id=_LLAMA,
        name="Llama 3.1 8B Instruct",
        provider="Meta",
        customizations=TUNED,
        inference=("PROVISIONED",),
    ),
    # Invoked by its inference profile. Its custom models have on-demand deployments and no throughput.
    *(
        FoundationModel(
            id=f"{_LLAMA_3_3}{context}",
            name="Llama 3.3 70B Instruct",
            provider="Meta",
            customizations=tuned,
            inference=(),
            start=_day(2024, 12, 19),
        )
        for context, tuned in (("", ()), (":128k", TUNED))
    ),
    # Fallback models and judges.
    FoundationModel(id=_LLAMA_70B, name="Llama 3.1 70B Instruct", provider="Meta"),
    FoundationModel(id=_MISTRAL_2402, name="Mistral Large (24.02)", provider="Mistral AI"),
    FoundationModel(id=_MISTRAL_2407, name="Mistral Large (24.07)", provider="Mistral AI"),
    *(
        FoundationModel(id=model, name=name, provider="Anthropic", inference=())
        for model, name in _CLAUDES.items()
    ),
)

# Models that can be a judge (Bedrock user guide, evaluation-judge).
JUDGES = frozenset(
    {
        *(_MICRO, _PRO, _NOVA_2, "amazon.nova-premier-v1:0"),
        *(_LLAMA_70B, _LLAMA_3_3, _MISTRAL_2402, _MISTRAL_2407),
        *_CLAUDES.keys() - {"anthropic.claude-haiku-5-5"},
    }
)

PROFILE_REGIONS = ("us-east-1", "us-east-2", "us-west-2")
PROFILES = {
    f"us.{model}": model
    for model in (
        *(_MICRO, _LITE, _PRO, "amazon.nova-premier-v1:0", _NOVA_2),
        *(_LLAMA_70B, _LLAMA_3_3, *_CLAUDES),
    )
}


class Catalogue:
    """The models of one Region; tests can change a model's lifecycle."""

    def __init__(self, region: str, account: str) -> None:
        self.region = region
        self.account = account
        self._models = {model.id: model for model in MODELS}

    def reset(self) -> None:
        """Restore the documented lifecycles."""
        self._models = {model.id: model for model in MODELS}

    def set_lifecycle(self, model_id: str, legacy: float | None, end: float | None) -> None:
        """Set the lifecycle dates of a model and its context-suffixed ids, in seconds since the epoch."""
        if model_id not in self._models:
            raise ValueError(f"unknown model {model_id!r}; known models: {', '.join(sorted(self._models))}")
        for key, model in self._models.items():
            if key == model_id or key.startswith(f"{model_id}:"):
                self._models[key] = replace(model, legacy=legacy, end=end)

    def models(self) -> Iterator[FoundationModel]:
        """Return all models in a fixed order."""
        return iter(self._models.values())

    def arn(self, model_id: str, region: str | None = None) -> str:
        """Return a foundation model's ARN."""
        return f"arn:aws:bedrock:{region or self.region}::foundation-model/{model_id}"

    def arn_of(self, identifier: str) -> str:
        """Return the ARN of a foundation model or of a system inference profile, given by id or ARN."""
        if self.profile_model(identifier):
            return str(self.profile(identifier)["inferenceProfileArn"])
        model = self.find(identifier)
        return self.arn(model.id) if model else identifier

    def find(self, identifier: str) -> FoundationModel | None:
        """Return a model by id or ARN, or None."""
        return self._models.get(identifier.rpartition("foundation-model/")[2])

    def profile_model(self, identifier: str) -> FoundationModel | None:
        """Return the model behind a system inference profile's id or ARN, or None."""
        model_id = PROFILES.get(identifier.rpartition("inference-profile/")[2])
        return self._models[model_id] if model_id else None

    def usable(self, identifier: str, now: float) -> FoundationModel:
        """Return a model by id or ARN; raise a ValidationException if it is unknown or has ended."""
        model = self.find(identifier)
        if model is None or model.ended(now):
            raise invalid(INVALID_MODEL)
        return model

    def judge(self, identifier: str, now: float) -> FoundationModel | None:
        """Return a model by its own or its profile's id if it can be a judge, else None."""
        model = self.profile_model(identifier) or self.find(identifier)
        return model if model and model.id in JUDGES and not model.ended(now) else None

    def summary(self, model: FoundationModel, now: float) -> dict[str, Any]:
        """Return a model as GetFoundationModel and ListFoundationModels show it."""
        lifecycle: dict[str, Any] = {"status": model.status(now), "startOfLifeTime": model.start}
        if model.legacy is not None:
            lifecycle["legacyTime"] = model.legacy
        if model.end is not None:
            lifecycle["endOfLifeTime"] = model.end
        return {
            "modelArn": self.arn(model.id),
            "modelId": model.id,
            "modelName": model.name,
            "providerName": model.provider,
            "inputModalities": ["TEXT"],
            "outputModalities": ["TEXT"],
            "responseStreamingSupported": True,
            "customizationsSupported": list(model.customizations),
            "inferenceTypesSupported": list(model.inference),
            "modelLifecycle": lifecycle,
        }

    def profile(self, identifier: str) -> dict[str, Any]:
        """Return a system inference profile as GetInferenceProfile shows it."""
        model = self.profile_model(identifier)
        if model is None:
            raise not_found()
        profile_id = f"us.{model.id}"
        account = f"arn:aws:bedrock:{self.region}:{self.account}"
        return {
            "inferenceProfileName": f"US {model.name}",
            "description": f"Routes requests to {model.name} in {', '.join(PROFILE_REGIONS)}.",
            "createdAt": model.start,
            "updatedAt": model.start,
            "inferenceProfileArn": f"{account}:inference-profile/{profile_id}",
            "models": [{"modelArn": self.arn(model.id, region)} for region in PROFILE_REGIONS],
            "inferenceProfileId": profile_id,
            "status": "ACTIVE",
            "type": "SYSTEM_DEFINED",
        }
