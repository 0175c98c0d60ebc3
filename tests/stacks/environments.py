"""The environments to synthesize: those with a settings file, and variants of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from stacks.settings import ENVIRONMENTS as FOLDER
from stacks.settings import Pack, Settings, load

ENVIRONMENTS = tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))

NETWORK: Mapping[str, Any] = {
    "subnet_ids": ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"],
    "security_group_ids": ["sg-0123456789abcdef0"],
}

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
            # Several windows, to test their chain.
            "release": {"wait_hours": 30.0},
        },
    ),
    "tried-again": ("prod", {"release": {"stop_stalled": True, "retry_internal_errors": 2}}),
    "raw-queries": (
        "dev",
        {
            "dataset": {
                "labels": "teacher",
                "training": None,
                "holdout": None,
                "queries": "data/queries.txt",
            },
            # A tenth of 440 queries is held out.
            "gate": {"minimum_examples": 40},
            "release": {"attempt": 2},
        },
    ),
    "queries-folder": (
        "prod",
        {
            "dataset": {
                "labels": "teacher",
                "training": None,
                "training_version": None,
                "queries": "s3://search-team-data/queries/2026-11/",
                "queries_version": "0123456789abcdef",
                "source_key": "arn:aws:kms:us-east-1:111122223333:key/0b8f1c7e-1111-4222-8333-444455556666",
            },
            "distillation": {"method": "fine_tuning", "max_response_length": None},
            "labelling": {"validation_share": 0.05},
        },
    ),
    "invocation-logs": (
        "dev",
        {
            "dataset": {
                "source": "invocation_logs",
                "training": None,
                "logs": "s3://search-team-logs/bedrock/",
                "log_filters": {"service": "search", "stage": "prod"},
            }
        },
    ),
    "logged-answers": (
        "dev",
        {
            "dataset": {
                "source": "invocation_logs",
                "training": None,
                "holdout": None,
                "logs": "s3://search-team-logs/bedrock/",
                "logs_from": "2026-10-01",
                "logs_until": "2026-10-31",
                "log_query": "Query: {query}",
                "use_logged_answers": True,
                "source_key": "arn:aws:kms:us-east-1:111122223333:key/0b8f1c7e-1111-4222-8333-444455556666",
                "source_account": "444455556666",
            },
        },
    ),
    "judge": (
        "dev",
        {
            "evaluation": {"judge": "us.amazon.nova-pro-v1:0"},
            "gate": {
                "minimum_judge_score": 3.5,
                "minimum_worst_label_accuracy": 0.6,
                "minimum_slice_accuracy": {"injections": 0.7},
            },
            "head": {"mode": "first", "margin_error": 0.03},
        },
    ),
    "without-head": ("dev", {"head": {"mode": "off"}}),
    # Requirements of a platform, one by one...
    "boundary": ("dev", {"security": {"permissions_boundary": "TeamBoundary"}}),
    "network": ("dev", {"network": NETWORK}),
    "keys": ("dev", {"encryption": {"runtime_key": True}}),
    # ... and all at once, with all kinds of resources.
    "hardened": (
        "prod",
        {
            "security": {"permissions_boundary": "arn:aws:iam::111122223333:policy/platform/TeamBoundary"},
            "network": {
                **NETWORK,
                "endpoints": {
                    "vpc_id": "vpc-0123456789abcdef0",
                    "route_table_ids": ["rtb-0123456789abcdef0", "rtb-0123456789abcdef1"],
                },
            },
            "encryption": {
                "key_arn": "arn:aws:kms:us-east-1:111122223333:key/1c9f2d8e-2222-4333-8444-555566667777",
                "runtime_key": True,
            },
            "dataset": {
                "source": "file",
                "labels": "teacher",
                "training": None,
                "training_version": None,
                "holdout": None,
                "holdout_version": None,
                "queries": "data/queries.txt",
            },
            "gate": {"minimum_examples": 40},
            "router": {"tracing": True},
            "endpoint": {
                "kind": "provisioned",
                "provisioned": {"model_units": 2, "hourly_price_usd": 100.0},
            },
            "release": {"wait_hours": 6.0},
            "evaluation": {"judge": "us.amazon.nova-pro-v1:0"},
        },
    ),
    # The same as dev in all but the digest.
    "another-digest": ("dev", {"distillation": {"nonce": "again"}}),
}

# Each variant is checked by all packs, so that a team can use any pack with any settings.
PACKS: tuple[Pack, ...] = get_args(Pack)

ALL = (*ENVIRONMENTS, *VARIANTS)

# Environments of a quick run; the others differ from these in parts that have their own tests.
QUICK = ("dev", "prod", "hardened", "raw-queries")


def settings_of(environment: str) -> Settings:
    """Return the validated settings of an environment or a variant."""
    if environment not in VARIANTS:
        return load(environment)
    base, changes = VARIANTS[environment]
    settings = load(base).model_dump() | {"checks": {"packs": list(PACKS)}}
    for section, values in changes.items():
        settings[section] = {**(settings[section] or {}), **values}
    return Settings.model_validate(settings)
