"""Find the paid resources that a logical resource claims, in the order in which they cost.

Names are the first guess, where Bedrock doesn't let anyone change them: the names of deployments, models and
evaluation jobs begin with the owner's. Throughput can be renamed, so all of it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from distilled_router.bedrock import deployments, evaluation_jobs, models, ownership, throughput
from distilled_router.bedrock.naming import DIGEST_TAG, OWNER_TAG, digest_of
from distilled_router.bedrock.ownership import Claimant


@dataclass(frozen=True)
class Found:
    """A paid resource of an owner: a summary of Bedrock's lists, its ARN, name, digest and tags."""

    arn: str
    name: str
    digest: str
    tags: Mapping[str, str]
    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Claimed:
    """Searches what a logical resource claims."""

    bedrock: Any
    owner: str
    claimant: Claimant

    def throughput(self) -> list[Found]:
        """Return all throughput with the claim, and the owner's without any: it was left on purpose."""
        pages = throughput.listed(self.bedrock)
        return list(self._found(pages, "provisionedModelArn", "provisionedModelName", self._is_ours))

    def evaluation_jobs(self) -> list[Found]:
        """Return the evaluation jobs with the claim that have not ended."""
        pages = evaluation_jobs.running(self.bedrock, self.owner)
        return list(self._found(pages, "jobArn", "jobName", self.claimant.holds))

    def deployments(self) -> list[Found]:
        """Return all deployments with the claim, and the owner's that nobody claims."""
        pages = deployments.listed(self.bedrock, self.owner)
        return list(
            self._found(pages, "customModelDeploymentArn", "customModelDeploymentName", self._is_ours)
        )

    def models(self) -> list[Found]:
        """Return all models with the claim."""
        pages = models.listed(self.bedrock, self.owner)
        return list(self._found(pages, "modelArn", "modelName", self.claimant.holds))

    def everything(self) -> Iterator[Found]:
        """Yield all that is claimed."""
        for kind in (self.throughput, self.evaluation_jobs, self.deployments, self.models):
            yield from (item for item in kind() if self.claimant.holds(item.tags))

    def _is_ours(self, tags: Mapping[str, str]) -> bool:
        """Return whether the tags have the claim, or the owner and no claim at all."""
        is_unclaimed = tags.get(OWNER_TAG) == self.owner and not ownership.claims(tags)
        return self.claimant.holds(tags) or is_unclaimed

    def _found(
        self,
        summaries: Iterator[Mapping[str, Any]],
        arn: str,
        name: str,
        is_wanted: Callable[[Mapping[str, str]], bool],
    ) -> Iterator[Found]:
        return found(self.bedrock, self.owner, summaries, arn, name, is_wanted)


def found(
    bedrock: Any,
    owner: str,
    summaries: Iterator[Mapping[str, Any]],
    arn: str,
    name: str,
    is_wanted: Callable[[Mapping[str, str]], bool],
) -> Iterator[Found]:
    """Yield the resources with wanted tags among the summaries of one of Bedrock's lists.

    Args:
        bedrock, owner: the client, and whose names have digests.
        summaries: of the list.
        arn, name: the keys of ARN and name in a summary.
        is_wanted: says whether a resource with these tags is wanted.
    """
    for summary in summaries:
        tags = ownership.read_tags(bedrock, summary[arn])
        if tags is not None and is_wanted(tags):
            digest = tags.get(DIGEST_TAG) or digest_of(owner, summary[name]) or ""
            yield Found(str(summary[arn]), str(summary[name]), digest, tags, summary)
