"""Checks for what is billed, or stored, and needed by no release."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from botocore.exceptions import ClientError

from distilled_router.aws.errors import code
from distilled_router.bedrock import deployments, evaluation_jobs, models, ownership, throughput
from distilled_router.bedrock.naming import LABELS_TAG, OWNER_TAG, digest_of, throughput_name
from distilled_router.release.claimed import Found, found
from distilled_router.release.needs import Needs, in_progress
from distilled_router.release.table import ROLLING_OUT, Release
from labelling import batch
from operate.checkup.finding import Finding
from operate.checkup.place import stack
from operate.deployed import Deployed
from operate.environment import Environment

RUNBOOK = "docs/runbook.md, Look for orphans"
THROUGHPUT, JOBS, BATCHES, GRADINGS, DEPLOYMENTS, MODELS = (
    "throughput",
    "training jobs",
    "batch jobs",
    "evaluation jobs",
    "deployments",
    "models",
)
# By kind: what one costs, and the command that ends that.
COSTS = {
    THROUGHPUT: ("is billed by the hour", "delete-provisioned-model-throughput --provisioned-model-id"),
    JOBS: ("runs, and is billed", "stop-model-customization-job --job-identifier"),
    BATCHES: ("runs, and is billed", "stop-model-invocation-job --job-identifier"),
    GRADINGS: ("runs, and is billed", "stop-evaluation-job --job-identifier"),
    DEPLOYMENTS: (
        "costs nothing while idle, and keeps its model from being deleted",
        "delete-custom-model-deployment --custom-model-deployment-identifier",
    ),
    MODELS: ("is billed by the month", "delete-custom-model --model-identifier"),
}


@dataclass(frozen=True)
class Leftovers:
    """Finds an owner's resources in Bedrock, and which of them are needed. `releases` is None without any."""

    at: Environment
    releases: Deployed | None

    def check(self, kind: str) -> Iterator[Finding]:
        """Yield a finding for each resource of a kind that nothing needs, or that there is none."""
        # Read before the table, so that what a release creates in between is not taken for a leftover.
        listed = list(self._listed(kind))
        needed = self._needed(kind, listed)
        left = [item for item in listed if item.arn not in needed]
        findings = [one for item in left if (one := self._finding(kind, item))]
        kept = len(listed) - len(findings)
        yield from findings or [Finding("ok", kind, f"{kept} needed, none left behind.")]

    def _listed(self, kind: str) -> Iterator[Found]:
        """Yield the owner's resources of a kind. Without the owner's tag, the name says whose one is."""
        owner, bedrock = self.at.settings.owner, self.at.aws.bedrock

        def is_ours(tags: Mapping[str, str]) -> bool:
            return tags.get(OWNER_TAG, "" if kind in (THROUGHPUT, BATCHES) else owner) == owner

        lists: dict[str, tuple[Iterator[Mapping[str, Any]], str, str]] = {
            THROUGHPUT: (throughput.listed(bedrock), "provisionedModelArn", "provisionedModelName"),
            JOBS: (_jobs(bedrock, owner), "jobArn", "jobName"),
            BATCHES: (batch.running(bedrock, owner), "jobArn", "jobName"),
            GRADINGS: (evaluation_jobs.running(bedrock, owner), "jobArn", "jobName"),
            DEPLOYMENTS: (
                deployments.listed(bedrock, owner),
                "customModelDeploymentArn",
                "customModelDeploymentName",
            ),
            MODELS: (models.listed(bedrock, owner), "modelArn", "modelName"),
        }
        return found(bedrock, owner, *lists[kind], is_ours)

    def _needed(self, kind: str, listed: list[Found]) -> set[str]:
        """Return the ARNs of what releases, or labellings that run, need."""
        if kind == BATCHES:
            labels = self._labelled() if listed else set()
            return {item.arn for item in listed if item.tags.get(LABELS_TAG) in labels}
        if self.releases is None:
            return set()
        known = list(self.releases.releases.all())
        if kind == THROUGHPUT:
            return {item.arn for item in listed if self._needs.of_throughput(item, known)}
        if kind == GRADINGS:
            names = self._gradings(known)
            return {item.arn for item in listed if item.name in names}
        digests = set(self._needs.by_digest(known, self.releases.releases.effective_route()))
        adopted = {arn for one in known if one.is_adopted for arn in (one.source, one.model_arn)}
        return {item.arn for item in listed if item.digest in digests or item.arn in adopted}

    @cached_property
    def _needs(self) -> Needs:
        assert self.releases is not None
        bought, owner = self.at.settings.endpoint.provisioned, self.at.settings.owner
        return Needs(
            self.releases.releases,
            self.releases.stepfunctions,
            self.releases.keep_releases,
            throughput_name(owner, bought.model_units, bought.term) if bought else "",
            self.releases.now,
        )

    def _gradings(self, known: list[Release]) -> dict[str, str]:
        """Return the names of the evaluation jobs that attempts in progress wait for, with the reason."""
        waiting = [one for one in known if not one.is_over and one.state != ROLLING_OUT]
        owner = self.at.settings.owner
        return {evaluation_jobs.job_name(owner, one): in_progress(one) for one in waiting}

    def _labelled(self) -> set[str]:
        """Return the labels for which an execution of the labelling runs."""
        settings, client = self.at.settings, self.at.aws.stepfunctions
        machines = f"arn:aws:states:{settings.region}:{settings.account}:stateMachine:"
        pages = client.get_paginator("list_executions").paginate(
            stateMachineArn=f"{machines}{settings.owner}-labelling", statusFilter="RUNNING"
        )
        try:
            running = [one["executionArn"] for page in pages for one in page["executions"]]
        except ClientError as error:
            if code(error) != "StateMachineDoesNotExist":
                raise
            return set()
        inputs = (client.describe_execution(executionArn=arn)["input"] for arn in running)
        return {str(json.loads(given)["plan"]["labels"]) for given in inputs}

    def _finding(self, kind: str, item: Found) -> Finding | None:
        """Return what to say of a resource that no release needs; None if a stack that exists keeps it."""
        if kind == BATCHES:
            costs, command = COSTS[kind]
            step = "Continue the labelling (raise release.attempt and deploy), which uses its answers. Or:"
            text = f"No labelling that runs waits for {item.name}. It {costs}."
            return Finding("warning", kind, text, step, f"aws bedrock {command} {item.arn}")
        stacks = {text.rpartition(" ")[0] for text in ownership.claims(item.tags).values()}
        alive = {arn for arn in stacks if stack(self.at, arn)}
        release = f":stack/{self.at.settings.owner}-release/"
        if any(release not in arn for arn in alive) or (alive and self._is_retained(kind)):
            return None
        costs, command = COSTS[kind]
        text = f"No release needs {item.name}. It {costs}."
        step, command = f"See {RUNBOOK}, and then:", f"aws bedrock {command} {item.arn}"
        if kind == THROUGHPUT:
            now = datetime.fromtimestamp(self._now, UTC)
            if term := throughput.committed(item.summary, now):
                return Finding("warning", kind, f"No release needs {item.name}. {term}", f"See {RUNBOOK}.")
            if not stacks or self.at.settings.retention.throughput == "retain":
                return Finding("warning", kind, f"{text} It was left on purpose.", step, command)
        if alive:
            step, command = f"The sweeper removes it within an hour; if it stays, see {RUNBOOK}.", ""
        return Finding("problem" if kind == THROUGHPUT else "warning", kind, text, step, command)

    def _is_retained(self, kind: str) -> bool:
        return kind == MODELS and self.at.settings.retention.models == "retain"

    @property
    def _now(self) -> float:
        return self.releases.now() if self.releases else datetime.now(UTC).timestamp()


def _jobs(bedrock: Any, owner: str) -> Iterator[Mapping[str, Any]]:
    """Yield the summaries of an owner's customization jobs that run."""
    pages = bedrock.get_paginator("list_model_customization_jobs").paginate(
        nameContains=f"{owner}-", statusEquals="InProgress"
    )
    for page in pages:
        for job in page["modelCustomizationJobSummaries"]:
            if digest_of(owner, job["jobName"]):
                yield job
