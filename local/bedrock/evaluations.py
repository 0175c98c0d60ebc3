"""Model evaluation jobs: a judge grades precomputed answers; the grades are written to S3.

Only automated jobs with one custom metric and precomputed answers are modelled. The judge is not a model: it
grades an answer by the distance between its weights and those of the reference.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from local.bedrock.account import Account, Parameters, Result
from local.bedrock.catalogue import INVALID_MODEL
from local.bedrock.errors import ServiceError, conflict, invalid, not_found
from local.bedrock.pages import list_page
from local.bedrock.training_data import DataError, read_objects, write_object
from local.bedrock.work import INTERNAL_ERROR, Work

CREATE = "CreateEvaluationJob"
# Maximum prompts in a job with a judge (Bedrock user guide, model-evaluation-prompt-datasets-judge).
MAX_PROMPTS = 1_000
_FIELDS = {"prompt", "referenceResponse", "category", "modelResponses"}


@dataclass
class Answers:
    """The answers of a job and their grades."""

    account: Account
    parameters: Parameters
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    body: bytes = b""

    @property
    def dataset(self) -> Result:
        """The only data set, with its metrics."""
        (found,) = self.parameters["evaluationConfig"]["automated"]["datasetMetricConfigs"]
        return dict(found)

    @property
    def metric(self) -> Result:
        """The only metric."""
        custom = self.parameters["evaluationConfig"]["automated"]["customMetricConfig"]
        return dict(custom["customMetrics"][0]["customMetricDefinition"])

    @property
    def source(self) -> str:
        """The label of the model that gave the answers."""
        return str(
            self.parameters["inferenceConfig"]["models"][0]["precomputedInferenceSource"][
                "inferenceSourceIdentifier"
            ]
        )

    def read(self) -> None:
        """Read and check the records; raise DataError for invalid ones."""
        uri = self.dataset["dataset"]["datasetLocation"]["s3Uri"]
        for key, body in read_objects(self.account.s3_as(self.parameters["roleArn"]), uri):
            for number, line in enumerate(body.decode().removesuffix("\n").split("\n"), 1):
                self.rows.append(self._record(key, number, line))
        if len(self.rows) > MAX_PROMPTS:
            raise DataError(f"The dataset holds {len(self.rows)} prompts; the maximum is {MAX_PROMPTS}.")

    def _record(self, key: str, number: int, line: str) -> Mapping[str, Any]:
        try:
            row = json.loads(line)
            (response,) = row["modelResponses"]
            texts = [row["prompt"], response["response"]]
            known = response["modelIdentifier"] == self.source and row.keys() <= _FIELDS
        except (ValueError, LookupError, TypeError):
            raise DataError(f"Record {number} of {key} is not a prompt with one model response.") from None
        if not known or not all(isinstance(text, str) and text for text in texts):
            raise DataError(
                f"Record {number} of {key} must hold a prompt and a response of {self.source}; other members "
                "than these, referenceResponse and category are not allowed."
            )
        return dict(row)

    def grade(self) -> None:
        """Grade every answer."""
        values = sorted(float(rating["value"]["floatValue"]) for rating in self.metric["ratingScale"])
        lines = [json.dumps(self._graded(row, values)) for row in self.rows]
        self.body = ("\n".join(lines) + "\n").encode()

    def _graded(self, row: Mapping[str, Any], values: list[float]) -> Result:
        judge = judge_of(self.parameters)
        result = grade(row["modelResponses"][0]["response"], row.get("referenceResponse", ""), values)
        details = [{"modelIdentifier": judge, "explanation": "Graded by the distance from the reference."}]
        score = {"metricName": self.metric["name"], "result": result, "evaluatorDetails": details}
        return {
            "automatedEvaluationResult": {"scores": [score]},
            "inputRecord": {name: row[name] for name in row if name != "modelResponses"},
            "modelResponses": row["modelResponses"],
        }

    def write(self, job_name: str, job_id: str) -> None:
        """Write the grades to the same key as Bedrock."""
        uuid = hashlib.sha256(job_id.encode()).hexdigest()
        name, kind = self.dataset["dataset"]["name"], self.dataset["taskType"]
        key = f"{job_name}/{job_id}/models/{self.source}/taskTypes/{kind}/datasets/{name}/{uuid}_output.jsonl"
        write_object(
            self.account.s3_as(self.parameters["roleArn"]),
            self.parameters["outputDataConfig"]["s3Uri"],
            key,
            self.body,
        )


def grade(response: str, reference: str, values: list[float]) -> float:
    """Return an answer's grade.

    The best one if no weight is off by more than 0.05; one lower for each further 0.1 or part of it.

    Args:
        response: the answer, a JSON object of weights.
        reference: the expected answer.
        values: the rating scale in ascending order.
    """
    try:
        given, right = json.loads(response), json.loads(reference)
        off = max(abs(float(given.get(label, 0)) - float(weight)) for label, weight in right.items())
    except (ValueError, TypeError, AttributeError):
        return values[0]
    steps = max(0, round((off - 0.05) * 10 + 0.4999))
    return values[max(0, len(values) - 1 - steps)]


def judge_of(parameters: Parameters) -> str:
    """Return the id of the judge."""
    custom = parameters["evaluationConfig"]["automated"]["customMetricConfig"]
    return str(custom["evaluatorModelConfig"]["bedrockEvaluatorModels"][0]["modelIdentifier"])


@dataclass(kw_only=True)
class EvaluationJob:
    """One evaluation job."""

    arn: str
    id: str
    parameters: Parameters
    created: float
    modified: float
    answers: Answers
    work: Work
    stalled: bool = False
    status: str = "InProgress"
    failures: list[str] = field(default_factory=list)

    def move(self, status: str, now: float, *failures: str) -> None:
        """Set the status."""
        self.status, self.modified = status, now
        self.failures += failures


def settle(account: Account, job: EvaluationJob) -> None:
    """Advance a job as far as the clock and its work allow."""
    now, scaled, durations = account.clock.now(), account.clock.scaled, account.settings.durations
    end = job.created + scaled(durations.evaluation)
    is_due = job.status == "InProgress" and end <= now and not job.stalled
    if is_due and job.work.finished(0) is not None:
        finished = job.work.finished(1)
        if finished is not None:
            _finish(job, max(end, finished))
    stopped = job.modified + scaled(durations.stopping)
    if job.status == "Stopping" and stopped <= now:
        job.move("Stopped", stopped)


def settle_all(account: Account) -> None:
    """Advance all jobs."""
    for job in account.evaluation_jobs.values():
        settle(account, job)


def _finish(job: EvaluationJob, now: float) -> None:
    failure = job.failures[0] if job.failures else job.work.failure
    if failure is None:
        try:
            job.answers.write(job.parameters["jobName"], job.id)
        except DataError as error:
            failure = str(error)
    if failure is None:
        job.move("Completed", now)
    else:
        job.failures.clear()
        job.move("Failed", now, failure)


def create(account: Account, parameters: Parameters) -> Result:
    """Handle CreateEvaluationJob."""
    if earlier := account.created_by_token(CREATE, parameters):
        return {"jobArn": earlier}
    if any(job.parameters["jobName"] == parameters["jobName"] for job in account.evaluation_jobs.values()):
        raise account.name_in_use("job")
    _check(account, parameters)
    account.check_role(parameters["roleArn"])
    new_id, now = account.new_id(), account.clock.now()
    answers = Answers(account, parameters)
    job = EvaluationJob(
        arn=account.arn(f"evaluation-job/{new_id}"),
        id=new_id,
        parameters=parameters,
        created=now,
        modified=now,
        answers=answers,
        work=Work(account.clock, answers.read, answers.grade),
    )
    fault = account.faults.take("evaluation_stalled", "evaluation_failed")
    if fault is not None:
        job.stalled = fault.kind == "evaluation_stalled"
        job.failures = [] if job.stalled else [fault.message or INTERNAL_ERROR]
    account.evaluation_jobs[job.arn] = job
    account.tag(job.arn, parameters.get("jobTags"))
    account.remember_token(CREATE, parameters, job.arn)
    job.work.start()
    return {"jobArn": job.arn}


def _check(account: Account, parameters: Parameters) -> None:
    """Raise for parameters that Bedrock refuses in a job with a judge, or that are not modelled."""
    config = parameters["evaluationConfig"].get("automated")
    models = parameters["inferenceConfig"].get("models", [])
    if config is None or "customMetricConfig" not in config or len(config["datasetMetricConfigs"]) != 1:
        raise ServiceError(
            "NotModelledException",
            "This stand-in models automated jobs with custom metrics and one data set.",
        )
    if len(models) != 1 or "precomputedInferenceSource" not in models[0]:
        raise ServiceError("NotModelledException", "This stand-in models precomputed answers of one source.")
    (dataset,) = config["datasetMetricConfigs"]
    if dataset["taskType"] != "General":
        raise invalid(f"The task type of a job with a judge must be General, not {dataset['taskType']}.")
    custom = config["customMetricConfig"]["customMetrics"]
    names = [metric["customMetricDefinition"]["name"] for metric in custom]
    if len(names) != 1 or dataset["metricNames"] != names:
        raise invalid(f"The metric names {dataset['metricNames']} must be those of the custom metrics.")
    judge = account.catalogue.judge(judge_of(parameters), account.clock.now())
    if judge is None:
        raise invalid(f"{INVALID_MODEL} {judge_of(parameters)} can't be an evaluator.")


def find(account: Account, arn: str) -> EvaluationJob:
    """Return a job by its ARN, in its current state."""
    job = account.evaluation_jobs.get(arn)
    if job is None:
        raise not_found()
    settle(account, job)
    return job


def _shown(job: EvaluationJob) -> Result:
    copied = ("jobName", "roleArn", "evaluationConfig", "inferenceConfig", "outputDataConfig")
    return {
        **{name: job.parameters[name] for name in copied},
        "applicationType": job.parameters.get("applicationType", "ModelEvaluation"),
        "jobDescription": job.parameters.get("jobDescription"),
        "jobArn": job.arn,
        "status": job.status,
        "jobType": "Automated",
        "creationTime": job.created,
        "lastModifiedTime": job.modified,
        "failureMessages": job.failures if job.status == "Failed" else None,
    }


def _summary(job: EvaluationJob) -> Result:
    shown = _shown(job)
    names = ("jobArn", "jobName", "status", "creationTime", "jobType", "applicationType")
    return {
        **{name: shown[name] for name in names},
        "evaluationTaskTypes": [job.answers.dataset["taskType"]],
        "inferenceConfigSummary": {
            "modelConfigSummary": {"precomputedInferenceSourceIdentifiers": [job.answers.source]}
        },
        "customMetricsEvaluatorModelIdentifiers": [judge_of(job.parameters)],
    }


def get(account: Account, parameters: Parameters) -> Result:
    """Handle GetEvaluationJob."""
    return _shown(find(account, parameters["jobIdentifier"]))


def list_jobs(account: Account, parameters: Parameters) -> Result:
    """Handle ListEvaluationJobs."""
    settle_all(account)
    jobs = account.evaluation_jobs.values()
    filters = {"applicationTypeEquals": "applicationType"}
    return list_page(
        account, parameters, jobs, key="jobSummaries", summary=_summary, name="jobName", filters=filters
    )


def stop(account: Account, parameters: Parameters) -> Result:
    """Handle StopEvaluationJob."""
    job = find(account, parameters["jobIdentifier"])
    if job.status != "InProgress":
        raise conflict()
    job.move("Stopping", account.clock.now())
    settle(account, job)
    return {}
