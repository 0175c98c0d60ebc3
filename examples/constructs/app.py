"""A help desk's router from constructs alone: data set, job, release and router in one stack.

`cdk deploy` deploys it to AWS. With `-c local=true` its waits are as short as the local system's.
"""

from __future__ import annotations

from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_s3_assets as assets
from constructs import Construct

from cdk_distilled_router import (
    Dataset,
    DatasetFile,
    DatasetFiles,
    DistillationJob,
    Hosting,
    JobOptions,
    Release,
    ReleaseProps,
    Router,
    use_task,
)
from cdk_distilled_router.props import (
    GateProps,
    HyperparametersProps,
    JobProps,
    RetentionProps,
    RolloutProps,
    RouterProps,
    TimingProps,
)

OWNER = "tickets"
# Labels, prompts and rows. Use a folder of your own.
TASK = Path(__file__).resolve().parents[1] / "helpdesk"
MODEL = JobProps(
    method="fine_tuning", student="amazon.nova-micro-v1:0:128k", hyperparameters=HyperparametersProps()
)
# 108 hold-out rows can't show the default margin, or that 500 examples pass.
GATE = GateProps(
    minimum_valid_output=0.98,
    minimum_dominant_accuracy=0.8,
    maximum_mean_absolute_error=0.10,
    minimum_examples=100,
    non_inferiority_margin=0.12,
)
DELETE = RetentionProps(data="delete", models="delete")


class TicketsStack(cdk.Stack):
    """A bucket, and the four constructs that turn labelled rows into a router."""

    def __init__(self, scope: Construct, construct_id: str, *, local: bool = False) -> None:
        """Declare the stack; `local` shortens its waits."""
        super().__init__(scope, construct_id, env=cdk.Environment(region="us-east-1"))
        use_task(self, TASK)
        hosting = Hosting(log_days=7, absence_seconds=1 if local else 60)
        bucket = s3.Bucket(
            self, "Data", versioned=True, enforce_ssl=True, removal_policy=cdk.RemovalPolicy.DESTROY
        )
        dataset = Dataset(
            self,
            "Dataset",
            owner=OWNER,
            bucket=bucket,
            files=DatasetFiles(training=self._file("training"), holdout=self._file("holdout"), gate=GATE),
            props=MODEL,
            retention=DELETE,
            hosting=hosting,
        )
        job = DistillationJob(
            self,
            "Job",
            owner=OWNER,
            bucket=bucket,
            data=dataset.job_data,
            props=MODEL,
            options=JobOptions(retention=DELETE),
            hosting=hosting,
        )
        release = Release(
            self,
            "Release",
            owner=OWNER,
            job=job,
            bucket=bucket,
            holdout_key=dataset.holdout_key,
            props=_short() if local else ReleaseProps(gate=GATE, retention=DELETE),
            hosting=hosting,
        )
        # The router learns of a new route within a second there.
        props = RouterProps(base_model="us.amazon.nova-micro-v1:0", route_seconds=1 if local else 30)
        router = Router(self, "Router", release=release, props=props, hosting=hosting)
        cdk.CfnOutput(self, "ApiId", value=router.api.api_id)
        cdk.CfnOutput(self, "ApiUrl", value=router.api.api_endpoint)
        cdk.CfnOutput(self, "FunctionName", value=router.function.function_name)
        cdk.CfnOutput(self, "StateMachineArn", value=release.machine.state_machine_arn)

    def _file(self, name: str) -> DatasetFile:
        asset = assets.Asset(self, name.title(), path=str(TASK / f"{name}.jsonl"))
        return DatasetFile.from_asset(asset)


def _short() -> ReleaseProps:
    """Return the release's properties with short waits, for test doubles that take seconds."""
    rollout = RolloutProps(
        steps=[0.5, 1.0],
        dwell_seconds=1,
        maximum_error_rate=0.05,
        maximum_fallback_rate=0.10,
        maximum_invalid_output_rate=0.05,
        probes=20,
    )
    timing = TimingProps(poll_seconds=1, timeout_hours=0.5, stall_hours=0.5, wait_hours=0)
    return ReleaseProps(gate=GATE, rollout=rollout, timing=timing, retention=DELETE)


def main() -> None:
    """Synthesize the stack."""
    app = cdk.App()
    TicketsStack(app, f"{OWNER}-router", local=app.node.try_get_context("local") == "true")
    app.synth()


if __name__ == "__main__":
    main()
