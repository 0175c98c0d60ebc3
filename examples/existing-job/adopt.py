"""A team's CDK app: takes the model of a job that exists already into production.

    cdk deploy --app "python examples/existing-job/adopt.py" -c job=ARN -c bucket=NAME

Context `job` is the ARN of the job, and `bucket` the name of the bucket with the hold-out rows.
"""

from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_s3 as s3

from cdk_distilled_router import DistillationJob, Release, ReleaseProps, ReleaseWait, Router, use_task
from cdk_distilled_router.props import EvaluationProps, GateProps, HeadProps, RolloutProps, TimingProps

TASK = Path(__file__).resolve().parents[2] / "task"
HOLDOUT = "rows/holdout.jsonl"
PROPS = ReleaseProps(
    gate=GateProps(
        minimum_dominant_accuracy=0.8,
        minimum_examples=100,
        # The hold-out set has 252 rows: docs/evaluation.md says what margin that allows.
        non_inferiority_margin=0.06,
    ),
    evaluation=EvaluationProps(slice_queries=10),
    head=HeadProps(mode="off"),
    # Seconds, to be tried in a minute. For real requests, use half an hour or more.
    rollout=RolloutProps(steps=[0.5, 1.0], dwell_seconds=10, probes=40),
    timing=TimingProps(poll_seconds=5, timeout_hours=2),
)


class Adopted(cdk.Stack):
    """Evaluates, releases and routes a model that it did not train, and never changes or deletes it."""

    def __init__(self, scope: cdk.App, construct_id: str, *, job: str, bucket: str, **more: Any) -> None:
        """Declare the stack for a job's ARN and a bucket's name."""
        super().__init__(scope, construct_id, **more)
        use_task(self, TASK)
        data = s3.Bucket.from_bucket_name(self, "Data", bucket)
        source = DistillationJob.from_job_arn(self, "Job", job)
        release = Release(
            self, "Release", owner="adopted", job=source, bucket=data, holdout_key=HOLDOUT, props=PROPS
        )
        # The deployment succeeds once the release is live, and fails if the gate refuses it.
        ReleaseWait(self, "Wait", release=release, hours=2)
        router = Router(self, "Router", release=release)
        cdk.CfnOutput(self, "RouterFunction", value=router.alias.function_arn)


def declare(app: cdk.App) -> Adopted:
    """Declare the stack in the account and Region of the job."""
    job, bucket = (str(app.node.try_get_context(name) or "") for name in ("job", "bucket"))
    if not job or not bucket:
        raise SystemExit("Name the job and the bucket: -c job=ARN -c bucket=NAME")
    _, _, _, region, account, *_ = job.split(":")
    env = cdk.Environment(account=account, region=region)
    return Adopted(app, "adopted-router", job=job, bucket=bucket, env=env)


if __name__ == "__main__":
    app = cdk.App()
    declare(app)
    app.synth()
