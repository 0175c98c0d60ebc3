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

from distilled_router.aws.errors import ResourceError, is_missing, message

# A cross-Region inference profile has a geography in front of the model's id.
_GEOGRAPHIES = ("us.", "eu.", "apac.", "global.")


def foundation_model_id(identifier: str) -> str:
    """Return the foundation model's id in an id, a system inference profile's id, or the ARN of either."""
    name = identifier.rsplit("/", 1)[-1]
    for geography in _GEOGRAPHIES:
        name = name.removeprefix(geography)
    return name


def check_usable(
    bedrock: Any, identifiers: Iterable[str], *, allow_legacy: bool, today: datetime | None = None
) -> None:
    """Raise ResourceError for a model that has ended, or is LEGACY and not allowed.

    The message names the model, its dates and what to do. Makes one GetFoundationModel call for each model.
    """
    now = today or datetime.now(UTC)
    for identifier in identifiers:
        model = foundation_model_id(identifier)
        try:
            details = bedrock.get_foundation_model(modelIdentifier=model)["modelDetails"]
        except ClientError as error:
            if is_missing(error) or error.response["Error"].get("Code") == "ValidationException":
                raise ResourceError(
                    f"Model {identifier} is unknown to Bedrock in this Region ({message(error)}). "
                    "Choose another one in distillation.teacher or distillation.student."
                ) from error
            raise
        _check_dates(identifier, details.get("modelLifecycle", {}), now, allow_legacy=allow_legacy)


def _check_dates(identifier: str, lifecycle: dict[str, Any], now: datetime, *, allow_legacy: bool) -> None:
    end = lifecycle.get("endOfLifeTime")
    if end and now >= end:
        raise ResourceError(
            f"Model {identifier} ended on {end:%Y-%m-%d}; requests to it fail. Nothing was started. Choose a "
            "live model, e.g. teacher us.amazon.nova-pro-v1:0 for student amazon.nova-micro-v1:0:128k."
        )
    if lifecycle.get("status") == "LEGACY" and not allow_legacy:
        until = f" and ends on {end:%Y-%m-%d}" if end else ""
        raise ResourceError(
            f"Model {identifier} is LEGACY{until}. Nothing was started. Choose an ACTIVE model, or set "
            "distillation.allow_legacy = true to try: Bedrock refuses accounts that are new or haven't used "
            "the model for 15 days."
        )
