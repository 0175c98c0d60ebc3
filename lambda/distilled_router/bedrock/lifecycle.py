"""Check that foundation models can still be used, before anything is paid for.

Bedrock's foundation models become LEGACY at least six months before their end of life. New customers can't
use a LEGACY model, others may lose access after 15 days without use, and after the end every request fails
(Bedrock user guide, model lifecycle).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import ResourceError, code, is_missing, message

# A cross-Region inference profile has a geography in front of the model's id.
_GEOGRAPHIES = ("us.", "eu.", "apac.", "global.")
# Settings that name the models, and examples of their values.
_TRAINED, _FALLBACK = "distillation.teacher or distillation.student", "router.base_model"
UNTOUCHED = "Nothing was started."
"""In every message below: what was found comes before it, what to do after it."""
_EXAMPLES = {
    _TRAINED: "teacher us.amazon.nova-pro-v1:0 for student amazon.nova-micro-v1:0:128k",
    _FALLBACK: "us.amazon.nova-micro-v1:0",
}


def foundation_model_id(identifier: str) -> str:
    """Return the foundation model's id in an id, a system inference profile's id, or the ARN of either."""
    name = identifier.rsplit("/", 1)[-1]
    for geography in _GEOGRAPHIES:
        name = name.removeprefix(geography)
    return name


def check_usable(
    bedrock: Any,
    identifiers: Iterable[str],
    *,
    allow_legacy: bool,
    today: datetime | None = None,
    setting: str = _TRAINED,
) -> None:
    """Raise ResourceError for a model that has ended, or is LEGACY and not allowed.

    The message names the model, the setting that names it, its dates and what to do. Makes one
    GetFoundationModel call for each model.
    """
    now = today or datetime.now(UTC)
    for identifier in identifiers:
        lifecycle = _details(bedrock, identifier, setting).get("modelLifecycle", {})
        _check_dates(identifier, setting, lifecycle, now, allow_legacy=allow_legacy)


def check_fallback(
    bedrock: Any, identifier: str, *, allow_legacy: bool, today: datetime | None = None
) -> None:
    """Raise ResourceError for a model that can't answer the queries that no release answers.

    It must be usable, write text, and be invoked in the way in which it is named: by its own id, or by that
    of an inference profile.
    """
    details, now = _details(bedrock, identifier, _FALLBACK), today or datetime.now(UTC)
    _check_dates(identifier, _FALLBACK, details.get("modelLifecycle", {}), now, allow_legacy=allow_legacy)
    modalities, types = details.get("outputModalities"), details.get("inferenceTypesSupported")
    if modalities and "TEXT" not in modalities:
        raise ResourceError(
            f"Model {identifier} in {_FALLBACK} writes {', '.join(modalities)}, not TEXT. {UNTOUCHED} "
            "Choose a model that answers chats, such as us.amazon.nova-micro-v1:0."
        )
    is_profile = foundation_model_id(identifier) != identifier
    if types and "ON_DEMAND" not in types and not is_profile:
        raise ResourceError(
            f"Model {identifier} in {_FALLBACK} supports {', '.join(types)}, not ON_DEMAND. "
            f"{UNTOUCHED} Name its inference profile, us.{identifier}, or another model."
        )


def _details(bedrock: Any, identifier: str, setting: str) -> dict[str, Any]:
    """Return GetFoundationModel's details. Raise ResourceError for an unknown model, naming its setting."""
    try:
        model = foundation_model_id(identifier)
        return dict(bedrock.get_foundation_model(modelIdentifier=model)["modelDetails"])
    except ClientError as error:
        if is_missing(error) or code(error) == "ValidationException":
            raise ResourceError(
                f"Model {identifier} is unknown to Bedrock in this Region ({message(error)}). {UNTOUCHED} "
                f"Choose another one in {setting}."
            ) from error
        raise


def _check_dates(
    identifier: str, setting: str, lifecycle: dict[str, Any], now: datetime, *, allow_legacy: bool
) -> None:
    end = lifecycle.get("endOfLifeTime")
    example = f", such as {_EXAMPLES[setting]}" if setting in _EXAMPLES else ""
    if end and now >= end:
        raise ResourceError(
            f"Model {identifier} ended on {end:%Y-%m-%d}; requests to it fail. {UNTOUCHED} Choose another "
            f"one in {setting}{example}."
        )
    if lifecycle.get("status") == "LEGACY" and not allow_legacy:
        until = f" and ends on {end:%Y-%m-%d}" if end else ""
        raise ResourceError(
            f"Model {identifier} is LEGACY{until}. {UNTOUCHED} Choose an ACTIVE model in {setting}, "
            "or set distillation.allow_legacy = true to try: Bedrock refuses accounts that are new or "
            "haven't used the model for 15 days."
        )
