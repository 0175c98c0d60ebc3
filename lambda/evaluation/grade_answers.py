"""Step GradeAnswers: let a judge grade the candidate's answers in a Bedrock evaluation job.

The job can't invoke a custom-model deployment (botocore: EvaluationBedrockModelIdentifier), so it gets the
existing answers. The attempt's folder holds everything under `judge/<life>/`: the job's data set, its state,
its output and the grades. If the job fails, there is no score, and the gate decides what that means.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

from distilled_router.aws.absence import confirmed
from distilled_router.aws.errors import NotYetError, ResourceError, described, is_transient, or_none
from distilled_router.aws.objects import Folder
from distilled_router.aws.state_machine import StageResult, done, not_in_progress, pause, waiting
from distilled_router.bedrock import evaluation_jobs as jobs
from distilled_router.bedrock import roles
from distilled_router.bedrock.naming import bedrock_tags
from distilled_router.bedrock.ownership import Claimant
from distilled_router.bedrock.roles import RoleNotReadyError
from distilled_router.env import GradeAnswersEnv
from distilled_router.release.gate import MINIMUM_ASKED
from distilled_router.release.table import Release, Releases
from distilled_router.task.task import Task
from evaluation import grades
from evaluation.attempt import PLAN, answers_of, attempt_folder, questions_of
from evaluation.contenders import CANDIDATE
from evaluation.grades import LEAST_GRADED, SOURCE, Grades
from evaluation.metrics import Answer, Question

_RESULTS = "results/"

logger = Logger(child=True)

type Pairs = Callable[[], Iterable[tuple[Question, Answer | None]]]


def grade(digest: str, grading: Grading) -> StageResult:
    """Take the grading one step further."""
    release, releases = grading.releases.get(digest), grading.releases
    if release is None or not releases.evaluating(digest, f"{grading.judge} grades the answers"):
        return not_in_progress(digest)
    folder = attempt_folder(grading.s3, grading.bucket, grading.owner, release)

    def pairs() -> list[tuple[Question, Answer | None]]:
        plan = folder.read(PLAN) or {}
        given = answers_of(folder, plan)[CANDIDATE]
        return [(question, given.get(question.id)) for question in grades.sample(questions_of(folder, plan))]

    return grading.step(release, folder, pairs)


@dataclass(frozen=True, kw_only=True)
class Grading:
    """Clients and settings of the step.

    A job that takes more than `judge_hours` is stopped. Bedrock assumes `judge_role_arn` for it. `now`
    returns epoch seconds.
    """

    bedrock: Any
    s3: Any
    releases: Releases
    task: Task
    bucket: str
    owner: str
    claimant: Claimant
    judge: str
    judge_hours: float
    judge_role_arn: str
    poll_seconds: int
    absence_seconds: float
    tags: Mapping[str, str]
    now: Callable[[], float]

    def step(self, release: Release, folder: Folder, pairs: Pairs) -> StageResult:
        """Take the next step; `pairs` is called once, to write the job's data set."""
        if folder.read(_place(release, "grades.json")):
            return done("the answers are graded")
        job = folder.read(_place(release, "job.json")) or self._prepare(release, folder, pairs)
        problem = job.get("problem", "")  # a job of an earlier version has none
        if problem or job["invalid"] == job["asked"]:
            return self._end(release, folder, job, problem)
        try:
            return self._follow(release, folder, job)
        except RoleNotReadyError as error:
            if error.is_overdue(self.now() - job["begun_at"]):
                return self._give_up(release, folder, job, str(error))
            return waiting(str(error), roles.RETRY_SECONDS)
        except NotYetError as error:
            return waiting(str(error), self._pause(job))
        except ResourceError as error:
            return self._give_up(release, folder, job, str(error))
        except ClientError as error:
            if is_transient(error):
                raise
            return self._give_up(release, folder, job, described(error))

    def _prepare(self, release: Release, folder: Folder, pairs: Pairs) -> dict[str, Any]:
        """Write the job's data set and its initial state, and return the state.

        Only answers are graded: a question that the candidate could not be asked is left out.
        """
        found = list(pairs())
        shown = [(question, answer) for question, answer in found if answer and answer.was_asked]
        rows = grades.records(shown, self.task)
        folder.write_rows(_place(release, "prompts.jsonl"), rows)
        job = {
            "arn": "",
            "judge": self.judge,
            "begun_at": self.now(),
            "asked": len(shown),
            "invalid": len(shown) - len(rows),
            "problem": ""
            if shown and len(shown) >= MINIMUM_ASKED * len(found)
            else f"the candidate could be asked {len(shown)} of {len(found)} questions",
        }
        folder.write(_place(release, "job.json"), job)
        return job

    def _follow(self, release: Release, folder: Folder, job: dict[str, Any]) -> StageResult:
        """Create the job, or poll it."""
        is_late = self.now() > job["begun_at"] + self.judge_hours * 3600
        late = f"the judge did not finish within {self.judge_hours:g} hours (evaluation.judge_hours)"
        if not job["arn"]:
            if not is_late:
                return self._create(release, folder, job)
            # The response of every try may have been lost.
            name = jobs.job_name(self.owner, release)
            seconds = self.absence_seconds
            found = confirmed(lambda: jobs.find(self.bedrock, self.owner, name, seconds), seconds)
            if found is None:
                return self._end(release, folder, job, late)
            job["arn"] = found
        known = confirmed(
            lambda: or_none(self.bedrock.get_evaluation_job, jobIdentifier=job["arn"]), self.absence_seconds
        )
        if known is None:
            return self._give_up(release, folder, job, f"evaluation job {job['arn']} does not exist")
        if known["status"] == jobs.COMPLETED:
            return self._collect(release, folder, job)
        if known["status"] not in jobs.RUNNING:
            why = "; ".join(known.get("failureMessages") or ()) or "no reason was given"
            return self._end(release, folder, job, f"evaluation job {known['status']}: {why}")
        if is_late:
            return self._give_up(release, folder, job, late)
        return waiting(f"the judge grades {job['asked'] - job['invalid']} answers", self._pause(job))

    def _create(self, release: Release, folder: Folder, job: dict[str, Any]) -> StageResult:
        with self.releases.creating(release.digest, self.claimant) as may:
            if not may:
                return not_in_progress(release.digest)
            request = self._request(release, folder, job["judge"])
            job["arn"] = jobs.start(self.bedrock, self.owner, request, self.absence_seconds)
        # A running function continues after its execution was stopped, and the sweeper may have listed jobs
        # before this one existed.
        now = self.releases.get(release.digest)
        if now is None or now.is_over or now.attempt != release.attempt:
            jobs.stop(self.bedrock, job["arn"])
            return not_in_progress(release.digest)
        folder.write(_place(release, "job.json"), job)
        return waiting(f"evaluation job {job['arn']} was created", self.poll_seconds)

    def _request(self, release: Release, folder: Folder, model: str) -> dict[str, Any]:
        """Return the parameters of CreateEvaluationJob."""
        name = jobs.job_name(self.owner, release)
        ours = self.claimant.tags(self.owner, request=release.request_id, digest=release.digest)
        judge = {"bedrockEvaluatorModels": [{"modelIdentifier": model}]}
        dataset = {
            "name": "holdout",
            "datasetLocation": {"s3Uri": folder.uri(_place(release, "prompts.jsonl"))},
        }
        # Judges need this task type, which the published enum lacks (amazon-bedrock-samples).
        asked = {"taskType": "General", "dataset": dataset, "metricNames": [grades.METRIC]}
        return {
            "jobName": name,
            "clientRequestToken": release.token(name),
            "roleArn": self.judge_role_arn,
            "applicationType": "ModelEvaluation",
            "evaluationConfig": {
                "automated": {
                    "datasetMetricConfigs": [asked],
                    "evaluatorModelConfig": judge,
                    "customMetricConfig": {
                        "customMetrics": [grades.metric(self.task)],
                        "evaluatorModelConfig": judge,
                    },
                }
            },
            "inferenceConfig": {
                "models": [{"precomputedInferenceSource": {"inferenceSourceIdentifier": SOURCE}}]
            },
            "outputDataConfig": {"s3Uri": folder.uri(_place(release, _RESULTS))},
            "jobTags": bedrock_tags({**self.tags, **ours}),
        }

    def _collect(self, release: Release, folder: Folder, job: Mapping[str, Any]) -> StageResult:
        name = jobs.job_name(self.owner, release)
        # Bedrock takes no version of a file. So its data set is checked after the job, too.
        list(folder.rows(_place(release, "prompts.jsonl")))
        found = grades.results(folder, _place(release, _RESULTS), name)
        shown = job["asked"] - job["invalid"]
        if not found or len(found) < LEAST_GRADED * shown:
            problem = f"the judge graded {len(found)} of {shown} answers from 1 to 5, too few for a mean"
            return self._end(release, folder, job, problem)
        return self._end(release, folder, job, given=found)

    def _give_up(self, release: Release, folder: Folder, job: Mapping[str, Any], problem: str) -> StageResult:
        """End without a score, and stop the job if it may still run.

        A job that can't be stopped now is stopped by the sweeper, at the latest when the rollout begins.
        """
        try:
            if job["arn"]:
                jobs.stop(self.bedrock, job["arn"])
        except ClientError as error:
            if is_transient(error):
                raise
            logger.warning("evaluation job not stopped", job=job["arn"], error=described(error))
        return self._end(release, folder, job, problem)

    def _end(
        self,
        release: Release,
        folder: Folder,
        job: Mapping[str, Any],
        problem: str = "",
        given: Iterable[float] = (),
    ) -> StageResult:
        """Write the grades, or the reason why there are none."""
        found = Grades(
            judge=job["judge"],
            job=job["arn"],
            asked=job["asked"],
            invalid=job["invalid"],
            grades=list(given),
            problem=problem,
        )
        folder.write(_place(release, "grades.json"), asdict(found))
        return done(f"the judge gave no score: {problem}" if problem else "the answers are graded")

    def _pause(self, job: Mapping[str, Any]) -> int:
        return pause(self.now() - job["begun_at"], self.poll_seconds)


def grading_of(
    env: GradeAnswersEnv, bedrock: Any, s3: Any, releases: Releases, now: Callable[[], float] = time.time
) -> Grading:
    """Return the step's clients and settings from the function's variables."""
    return Grading(
        bedrock=bedrock,
        s3=s3,
        releases=releases,
        task=Task.load(),
        bucket=env.bucket,
        owner=env.owner,
        claimant=Claimant(env.stack_id, env.logical_id),
        judge=env.judge,
        judge_hours=env.judge_hours,
        judge_role_arn=env.judge_role_arn,
        poll_seconds=env.poll_seconds,
        absence_seconds=env.absence_seconds,
        tags=env.tags,
        now=now,
    )


def kept_grades(release: Release, folder: Folder, judge: str) -> Grades:
    """Return an attempt's grades. An execution that began before a judge was set has none."""
    found = folder.read(_place(release, "grades.json"))
    return Grades(**found) if found else Grades(judge=judge, problem="the judge was not asked")


def _place(release: Release, name: str) -> str:
    return f"judge/{release.life}/{name}"
