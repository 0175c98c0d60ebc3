"""Check whether the next deployment pays for a training job: the settings' digest has one, or has none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distilled_router.bedrock.naming import digest_of
from distilled_router.task.task import TaskError
from operate.checkup.finding import Finding
from operate.environment import Environment
from stacks.identity import Identity
from stacks.settings import SettingsError

CHECK = "model"
# A job in another state has no model that could be kept.
KEPT = ("InProgress", "Completed")


def model(at: Environment) -> Iterator[Finding]:
    """Yield whether a job of the name that the settings declare exists, by this version or an earlier one."""
    try:
        identity = Identity.of(at.settings)
    except (SettingsError, TaskError) as error:
        yield Finding("problem", CHECK, str(error), "Correct the settings: docs/settings.md.")
        return
    jobs = _jobs(at.aws.bedrock, at.settings.owner)
    declared, earlier = f"The settings declare {identity.digest}", identity.earlier_job_name
    if identity.job_name in jobs:
        yield Finding("ok", CHECK, f"{declared}, which has a job: a deployment pays for none.")
    elif jobs.get(earlier) in KEPT:
        text = f"{declared}, the model of {earlier} by a newer rule: a deployment is refused."
        step = "Keep that model by this line in [dataset], or set distillation.nonce to train it again:"
        yield Finding("problem", CHECK, text, step, f'holdout_in_digest = "{identity.holdout_setting}"')
    else:
        step = f"`make cost ENV={at.name}` estimates it. Unexpected? See docs/upgrade.md."
        yield Finding("warning" if jobs else "ok", CHECK, f"{declared}: a deployment pays for its job.", step)


def _jobs(bedrock: Any, owner: str) -> dict[str, str]:
    """Return the states of an owner's customization jobs by name."""
    pages = bedrock.get_paginator("list_model_customization_jobs").paginate(nameContains=f"{owner}-")
    found = (job for page in pages for job in page["modelCustomizationJobSummaries"])
    return {job["jobName"]: job["status"] for job in found if digest_of(owner, job["jobName"])}
