"""A summary of the account's resources."""

from __future__ import annotations

from typing import Any

from local.bedrock import batch, deployments, evaluations, job_progress, throughput
from local.bedrock.account import Account


def summary(account: Account) -> dict[str, Any]:
    """Return jobs, models, deployments, throughput, batch and evaluation jobs with their states and tags."""
    with account.lock:
        for job in account.jobs.values():
            job_progress.settle(account, job)
        for invocation_job in account.invocation_jobs.values():
            batch.settle(account, invocation_job)
        evaluations.settle_all(account)
        deployments.settle_all(account)
        throughput.settle_all(account)
        return {
            "jobs": [_job(account, job) for job in account.jobs.values()],
            "models": [_tagged(account, m.arn, name=m.name, base=m.base) for m in account.models.values()],
            "deployments": [
                _tagged(account, d.arn, name=d.name, status=d.status, model=d.model, update=d.update_status)
                for d in account.deployments.values()
            ],
            "throughput": [
                _tagged(account, t.arn, name=t.name, status=t.status, model=t.model, units=t.units)
                for t in account.throughputs.values()
            ],
            "batch": [
                _tagged(account, b.arn, name=b.parameters["jobName"], status=b.status, message=b.message)
                for b in account.invocation_jobs.values()
            ],
            "evaluations": [
                _tagged(account, e.arn, name=e.parameters["jobName"], status=e.status, failures=e.failures)
                for e in account.evaluation_jobs.values()
            ],
        }


def _job(account: Account, job: job_progress.Job) -> dict[str, Any]:
    return _tagged(
        account,
        job.arn,
        name=job.name,
        status=job.status,
        details={phase.name: phase.status for phase in job.phases},
        failure=job.failure,
        model=job.model_arn,
    )


def _tagged(account: Account, arn: str, **shown: Any) -> dict[str, Any]:
    return {**shown, "arn": arn, "tags": account.tags_of(arn)}
