"""The environments that are synthesised: those with a settings file, and variants made in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stacks.settings import ENVIRONMENTS as FOLDER
from stacks.settings import Settings, load

ENVIRONMENTS = tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))

VARIANTS: Mapping[str, tuple[str, Mapping[str, Mapping[str, Any]]]] = {
    "provisioned": (
        "prod",
        {
            "endpoint": {
                "kind": "provisioned",
                "provisioned": {"model_units": 2, "hourly_price_usd": 100.0},
            }
        },
    ),
    "fine-tuning": (
        "dev",
        {
            "distillation": {
                "method": "fine_tuning",
                "max_response_length": None,
                "hyperparameters": {"epoch_count": 3},
            },
            # More than one window, so that the windows' chain is there.
            "release": {"wait_hours": 30.0},
        },
    ),
    "tried-again": ("prod", {"release": {"stop_stalled": True, "retry_internal_errors": 2}}),
    # The same as dev in all but the digest.
    "another-digest": ("dev", {"distillation": {"nonce": "again"}}),
}

ALL = (*ENVIRONMENTS, *VARIANTS)


def settings_of(environment: str) -> Settings:
    """The settings of an environment or a variant, checked as those of a file are."""
    if environment not in VARIANTS:
        return load(environment)
    base, changes = VARIANTS[environment]
    settings = load(base).model_dump()
    for section, values in changes.items():
        settings[section] = {**settings[section], **values}
    return Settings.model_validate(settings)
