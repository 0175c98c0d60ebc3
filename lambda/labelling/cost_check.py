"""Commit what an execution of the labelling may cost, unless that exceeds the owner's limit.

A person or a release that tries again can start an execution, too. So each execution commits an amount of its
own before it asks the teacher: two that run at once in the same folder may both pay for the same shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from distilled_router.aws.errors import NotYetError, ResourceError
from distilled_router.aws.objects import Folder
from distilled_router.aws.state_machine import StageResult, done, failed, waiting
from distilled_router.cost.estimate import LABELS, Spec, Volume, check, dollars, estimate
from distilled_router.cost.limit import Limit, Spending, job_usd, labels_usd
from distilled_router.cost.lines import TRIES
from distilled_router.cost.prices import Prices
from distilled_router.data.labelling_plan import Plan, shard_of
from distilled_router.task.task import Task
from labelling import life
from labelling.shards import MOST_ROUNDS, check_shards

# Seconds before the next try after other writers of the ledger came first.
_RETRY_SECONDS = 15


def labels_name(folder: Folder, plan: Plan) -> str:
    """Return the beginning of the names of amounts for labels.

    It changes if the folder was deleted, because the labels are then paid again.
    """
    begun = life.read(folder) if folder.names(life.LIFE) else "new"
    return f"{LABELS} {plan.labels} {begun}"


@dataclass(frozen=True)
class CostCheck:
    """The check of one execution.

    Attributes:
        plan: what the execution was given.
        spec: the deployed settings that decide the cost.
        limit: of all that the owner commits.
        folder: of the plan's labels.
        task: has the teacher's prompt.
        execution: its ARN.
        spending: what the owner has committed.
    """

    plan: Plan
    spec: Spec
    limit: Limit
    folder: Folder
    task: Task
    execution: str
    spending: Spending

    def commit(self) -> StageResult:
        """Commit the labels and, unless that was done before, the job that is created from them."""
        try:
            return done(self._commit())
        except NotYetError as error:
            return waiting(str(error), _RETRY_SECONDS)
        except ResourceError as error:
            return failed(f"{error} Answers that exist are kept.")

    def _commit(self) -> str:
        check_shards(self.plan, self.folder)
        counts = Counter[str]()
        plan = self.plan
        spec = replace(self.spec, teacher=plan.teacher, samples=plan.samples, max_tokens=plan.max_tokens)
        found = estimate(spec, Volume.of(self._queries(counts)), self.task, Prices.load())
        job, asked = job_usd(found), sum(n for shard, n in counts.items() if shard not in self._labelled)
        is_covered = self.spending.covers(spec.job, job, self.limit)
        if is_covered and not asked:
            return "nothing is left to ask, and the job is committed"
        if problem := check(found, self.limit.usd):
            raise ResourceError(problem)
        amounts = {} if is_covered else {spec.job: job}
        usd = 0.0
        if asked:
            # The estimate is for all records and tries; a round asks each record once.
            usd = labels_usd(found) * asked * MOST_ROUNDS / (TRIES * counts.total())
            amounts[self._name] = usd
        self.spending.commit(amounts, self.limit, unknown_usd=job)
        return f"the labels cost at most {dollars(usd)} USD, within the limit"

    @property
    def _name(self) -> str:
        return f"{labels_name(self.folder, self.plan)} {self.execution.rsplit(':', 1)[-1]}"

    def _queries(self, counts: Counter[str]) -> Iterator[str]:
        """Yield all queries, and count those of each shard."""
        for key in self.folder.names("queries/"):
            for row in self.folder.rows(key):
                counts[shard_of(key)] += 1
                yield str(row["query"])

    @cached_property
    def _labelled(self) -> set[str]:
        """Return the shards that ask nothing more."""
        return {shard_of(key) for key in self.folder.names("labelled/")}
