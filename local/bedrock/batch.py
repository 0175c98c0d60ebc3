"""Batch inference: model invocation jobs that read records from S3 and write answers there."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from local.bedrock.account import Account, Parameters, Result
from local.bedrock.errors import ServiceError, conflict, invalid, not_found
from local.bedrock.pages import list_page
from local.bedrock.runtime import Target, ask, native_request, resolve
from local.bedrock.settings import DAY
from local.bedrock.training_data import DataError, read_objects, write_object
from local.bedrock.work import Work

CREATE = "CreateModelInvocationJob"
NOT_FOUND = "The provided batch inference job was not found."
_RUNNING = ("Submitted", "Validating", "Scheduled", "InProgress")


@dataclass
class Records:
    """A job's input records and the answers to them."""

    account: Account
    parameters: Parameters
    target: Target
    inputs: list[tuple[str, list[Any]]] = field(default_factory=list)
    outputs: list[tuple[str, bytes]] = field(default_factory=list)
    total: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def read(self) -> None:
        """Read and count the records; raise DataError if there are too few or a line is not JSON."""
        uri = self.parameters["inputDataConfig"]["s3InputDataConfig"]["s3Uri"]
        for key, body in read_objects(self.account.s3_as(self.parameters["roleArn"]), uri):
            try:
                self.inputs.append(
                    (key, [json.loads(line) for line in body.decode().splitlines() if line.strip()])
                )
            except ValueError:
                raise DataError(f"The input file {key} is not valid JSONL.") from None
        self.total = sum(len(records) for _, records in self.inputs)
        minimum = self.account.settings.quotas.batch_minimum_records
        if self.total < minimum:
            raise DataError(f"The job holds {self.total} records; at least {minimum} are required.")

    def answer(self) -> None:
        """Answer every record."""
        for key, records in self.inputs:
            lines = [json.dumps(self._answered(number, record)) for number, record in enumerate(records, 1)]
            self.outputs.append((f"{PurePosixPath(key).name}.out", ("\n".join(lines) + "\n").encode()))
        self.inputs = []

    def _answered(self, number: int, record: Any) -> Result:
        if not isinstance(record, dict) or "modelInput" not in record:
            self.failed += 1
            return {
                "recordId": f"{number:011d}",
                "error": {"errorCode": 400, "errorMessage": "No modelInput."},
            }
        result = {"recordId": record.get("recordId", f"{number:011d}"), "modelInput": record["modelInput"]}
        native = self.parameters.get("modelInvocationType", "InvokeModel") == "InvokeModel"
        try:
            request = native_request(record["modelInput"]) if native else record["modelInput"]
            answer = ask(self.account, self.parameters["modelId"], self.target, request)
        except (ServiceError, AttributeError, KeyError, TypeError) as error:
            self.failed += 1
            return {**result, "error": {"errorCode": 400, "errorMessage": str(error)}}
        self.input_tokens += answer.input_tokens
        self.output_tokens += answer.output_tokens
        return {**result, "modelOutput": answer.body()}

    def write(self, job_id: str) -> None:
        """Write the answers and the manifest."""
        uri = self.parameters["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"]
        manifest = {
            "totalRecordCount": self.total,
            "processedRecordCount": self.total,
            "successRecordCount": self.total - self.failed,
            "errorRecordCount": self.failed,
            "inputTokenCount": self.input_tokens,
            "outputTokenCount": self.output_tokens,
        }
        for name, body in [*self.outputs, ("manifest.json.out", json.dumps(manifest).encode())]:
            write_object(self.account.s3_as(self.parameters["roleArn"]), uri, f"{job_id}/{name}", body)
        self.outputs = []


@dataclass(kw_only=True)
class InvocationJob:
    """One batch inference job."""

    arn: str
    id: str
    parameters: Parameters
    created: float
    records: Records
    work: Work
    status: str = "Submitted"
    modified: float = 0.0
    ended: float | None = None
    message: str | None = None
    stalled: bool = False

    def move(self, status: str, now: float) -> None:
        """Set the status."""
        self.status, self.modified = status, now

    def end(self, status: str, now: float, message: str | None = None) -> None:
        """Set a final status; a stopped job has no end time."""
        self.move(status, now)
        self.ended, self.message = None if status == "Stopped" else now, message


def settle(account: Account, job: InvocationJob) -> None:
    """Advance a job as far as the clock and its work allow."""
    now, scaled, durations = account.clock.now(), account.clock.scaled, account.settings.durations
    checked = job.created + scaled(durations.batch_validation)
    if job.status == "Submitted" and job.created < now:
        job.move("Validating", job.created)
    if job.status == "Validating" and checked <= now and job.work.finished(0) is not None:
        job.move("InProgress", checked)
        if job.work.failure is not None:
            job.end("Failed", checked, job.work.failure)
    answered = checked + scaled(durations.batch)
    if job.status == "InProgress" and answered <= now and not job.stalled:
        finished = job.work.finished(1)
        if finished is not None:
            _complete(job, max(answered, finished))
    stopped = job.modified + scaled(durations.stopping)
    if job.status == "Stopping" and stopped <= now:
        job.end("Stopped", stopped)


def _complete(job: InvocationJob, now: float) -> None:
    failure = job.work.failure
    if failure is None:
        try:
            job.records.write(job.id)
        except DataError as error:
            failure = str(error)
    if failure is not None:
        job.end("Failed", now, failure)
    else:
        job.end("PartiallyCompleted" if job.records.failed else "Completed", now)


def create(account: Account, parameters: Parameters) -> Result:
    """Handle CreateModelInvocationJob."""
    if earlier := account.created_by_token(CREATE, parameters):
        return {"jobArn": earlier}
    if any(job.parameters["jobName"] == parameters["jobName"] for job in account.invocation_jobs.values()):
        raise account.name_in_use("job")
    if ":custom-model/" in parameters["modelId"]:
        raise invalid(f"Batch inference is not supported for the model {parameters['modelId']}.")
    target = resolve(account, parameters["modelId"])
    account.check_role(parameters["roleArn"])
    new_id = account.new_id()
    records = Records(account, parameters, target)
    job = InvocationJob(
        arn=account.arn(f"model-invocation-job/{new_id}"),
        id=new_id,
        parameters=parameters,
        created=account.clock.now(),
        modified=account.clock.now(),
        records=records,
        work=Work(account.clock, records.read, records.answer),
        stalled=account.faults.take("batch_stalled") is not None,
    )
    account.invocation_jobs[job.arn] = job
    account.tag(job.arn, parameters.get("tags"))
    account.remember_token(CREATE, parameters, job.arn)
    job.work.start()
    return {"jobArn": job.arn}


def find(account: Account, identifier: str) -> InvocationJob:
    """Return a job by ARN or id, in its current state."""
    jobs = account.invocation_jobs
    job = jobs.get(identifier) or next((job for job in jobs.values() if job.id == identifier), None)
    if job is None:
        raise not_found(NOT_FOUND)
    settle(account, job)
    return job


def _shown(account: Account, job: InvocationJob) -> Result:
    copied = ("jobName", "roleArn", "vpcConfig")
    hours = job.parameters.get("timeoutDurationInHours", 24)
    return {
        **{name: job.parameters[name] for name in copied if name in job.parameters},
        "jobArn": job.arn,
        "modelId": account.catalogue.arn_of(job.parameters["modelId"]),
        "status": job.status,
        "submitTime": job.created,
        "lastModifiedTime": job.modified,
        "endTime": job.ended,
        "inputDataConfig": _owned(account, job.parameters["inputDataConfig"]),
        "outputDataConfig": _owned(account, job.parameters["outputDataConfig"]),
        "timeoutDurationInHours": hours,
        "jobExpirationTime": job.created + hours * DAY / 24,
        "modelInvocationType": job.parameters.get("modelInvocationType", "InvokeModel"),
    }


def _owned(account: Account, config: Result) -> Result:
    """Return the S3 settings with the owner of the bucket, by default the account."""
    return {name: {"s3BucketOwner": account.settings.account, **value} for name, value in config.items()}


def get(account: Account, parameters: Parameters) -> Result:
    """Handle GetModelInvocationJob."""
    job = find(account, parameters["jobIdentifier"])
    done = job.status in ("Completed", "PartiallyCompleted")
    return {
        **_shown(account, job),
        "clientRequestToken": job.parameters.get("clientRequestToken"),
        "message": job.message,
        "totalRecordCount": job.records.total,
        "processedRecordCount": job.records.total if done else 0,
        "successRecordCount": job.records.total - job.records.failed if done else 0,
        "errorRecordCount": job.records.failed if done else 0,
    }


def list_jobs(account: Account, parameters: Parameters) -> Result:
    """Handle ListModelInvocationJobs."""
    for job in account.invocation_jobs.values():
        settle(account, job)
    return list_page(
        account,
        parameters,
        account.invocation_jobs.values(),
        key="invocationJobSummaries",
        summary=lambda job: _shown(account, job),
        name="jobName",
        created="submitTime",
    )


def stop(account: Account, parameters: Parameters) -> Result:
    """Handle StopModelInvocationJob."""
    job = find(account, parameters["jobIdentifier"])
    if job.status not in _RUNNING:
        raise conflict()
    job.move("Stopping", account.clock.now())
    settle(account, job)
    return {}
