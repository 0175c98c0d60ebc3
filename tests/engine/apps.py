"""Another team's CDK app: it imports `cdk_distilled_router`, and none of our stacks or settings.

A stack holds an existing bucket and one of these: a job, throughput for an existing model, or look-ups of
resources that are managed elsewhere. Its variants are deployed one after another as the same stack.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3

from cdk_distilled_router import (
    DistillationJob,
    Hosting,
    JobData,
    JobOptions,
    ProvisionedThroughput,
    ThroughputOptions,
    VpcConfig,
)
from cdk_distilled_router.props import RETAIN, JobProps, ThroughputProps

ACCOUNT, REGION = "000000000000", "us-east-1"
CONTEXT = Path(__file__).resolve().parents[2] / "cdk.json"

STACK = "search-team"
OWNER, NAME = "search", "search-router"
BUCKET, ROWS = "search-data", "rows/training.jsonl"
TEACHER, STUDENT = "us.amazon.nova-pro-v1:0", "amazon.nova-micro-v1:0:128k"
HOURLY_USD = 40.0
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0b8f1c7e-1111-4222-8333-444455556666"

NETWORK = VpcConfig(subnet_ids=["subnet-01234567"], security_group_ids=["sg-01234567"])

# Placeholders of the ARNs that Bedrock assigns, so that a template is synthesized once; see `App.template`.
_BEDROCK = f"arn:aws:bedrock:{REGION}:{ACCOUNT}"
JOB = f"{_BEDROCK}:model-customization-job/{STUDENT}/00000000000a"
MODEL = f"{_BEDROCK}:custom-model/{STUDENT}/00000000000b"
OTHER_MODEL = f"{_BEDROCK}:custom-model/{STUDENT}/00000000000c"
THROUGHPUT = f"{_BEDROCK}:provisioned-model/00000000000d"

NOBODY = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:nobody"


# The stand-in does not lag here: a Delete needs no second look.
QUICK = Hosting(absence_seconds=0.5)


class TeamStack(cdk.Stack):
    """A stack of the other team."""

    def __init__(self, app: cdk.App) -> None:
        """Declare the stack in the emulator's account and Region."""
        super().__init__(app, STACK, env=cdk.Environment(account=ACCOUNT, region=REGION))

    def show(self, prefix: str, resource: cdk.CustomResource, *attributes: str) -> None:
        """Output a resource's physical id and attributes."""
        cdk.CfnOutput(self, f"{prefix}Id", value=resource.ref)
        for name in attributes:
            cdk.CfnOutput(self, f"{prefix}{name}", value=resource.get_att_string(name))

    def break_after(self, resource: cdk.CustomResource) -> None:
        """Add a resource that fails after this one: its function does not exist."""
        sibling = cdk.CustomResource(self, "Sibling", service_token=NOBODY)
        sibling.node.add_dependency(resource)


class JobStack(TeamStack):
    """Distils a model from rows in the team's bucket."""

    def __init__(
        self,
        app: cdk.App,
        *,
        broken: bool = False,
        nonce: str = "",
        model_key: str | None = None,
        network: VpcConfig | None = None,
        **options: Any,
    ) -> None:
        """Declare bucket and job.

        `model_key` is a key's ARN. With a `network`, functions also have a key and a permissions boundary.
        `options` are further arguments of the job.
        """
        super().__init__(app)
        hosting = QUICK
        if network:
            key = kms.Key.from_key_arn(self, "RuntimeKey", KEY)
            options["vpc"], hosting = network, Hosting(vpc=network, key=key, absence_seconds=0.5)
            policy = iam.ManagedPolicy.from_managed_policy_name(self, "Boundary", "TeamBoundary")
            iam.PermissionsBoundary.of(self).apply(policy)
        if model_key:
            options["model_key"] = kms.Key.from_key_arn(self, "Key", model_key)
        job = DistillationJob(
            self,
            "Job",
            owner=OWNER,
            bucket=s3.Bucket.from_bucket_name(self, "Bucket", BUCKET),
            data=JobData(training_key=ROWS),
            props=JobProps(teacher=TEACHER, student=STUDENT, nonce=nonce),
            options=JobOptions(**options),
            hosting=hosting,
        )
        self.show("", job.resource, "JobArn", "JobName", "Status", "BaseModel", "ModelArn")
        if broken:
            self.break_after(job.resource)


class ThroughputStack(TeamStack):
    """Serves an existing model."""

    def __init__(
        self,
        app: cdk.App,
        *,
        broken: bool = False,
        name: str = NAME,
        model_arn: str = MODEL,
        props: Mapping[str, Any] = {"model_units": 1},
        **options: Any,
    ) -> None:
        """Declare the throughput; `options` are further arguments of its construct."""
        super().__init__(app)
        throughput = ProvisionedThroughput(
            self,
            "Throughput",
            owner=OWNER,
            name=name,
            model_arn=model_arn,
            props=ThroughputProps(**props),
            options=ThroughputOptions(**options),
            hosting=QUICK,
        )
        assert throughput.resource is not None
        self.show("", throughput.resource, "ProvisionedModelArn", "ProvisionedModelName")
        if broken:
            self.break_after(throughput.resource)


class ExistingStack(TeamStack):
    """Reads a job, its model and its throughput, which are managed elsewhere."""

    def __init__(self, app: cdk.App) -> None:
        """Declare the look-ups by ARN."""
        super().__init__(app)
        job = DistillationJob.from_job_arn(self, "ExistingJob", JOB)
        model = DistillationJob.from_model_arn(self, "ExistingModel", MODEL)
        throughput = ProvisionedThroughput.from_provisioned_model_arn(self, "ExistingThroughput", THROUGHPUT)
        self.show("Job", job.resource, "JobArn", "JobName", "Status", "BaseModel", "ModelArn")
        self.show("Model", model.resource, "ModelArn", "ModelName", "JobArn", "BaseModel", "Status")
        names = ("ProvisionedModelArn", "ProvisionedModelName", "ModelArn", "ModelUnits", "Status")
        self.show("Throughput", throughput.resource, *names)


DELETE_MODEL = RETAIN.model_copy(update={"models": "delete"})
RETAIN_THROUGHPUT = RETAIN.model_copy(update={"throughput": "retain"})
COMMITMENT: Mapping[str, Any] = {
    "model_units": 1,
    "commitment": "OneMonth",
    "acknowledge_commitment": True,
    "hourly_price_usd": HOURLY_USD,
}

VARIANTS: Mapping[str, tuple[type[TeamStack], Mapping[str, Any]]] = {
    "job": (JobStack, {"retention": DELETE_MODEL}),
    "job-again": (JobStack, {"retention": DELETE_MODEL, "nonce": "again"}),
    "job-keyed": (JobStack, {"retention": DELETE_MODEL, "model_key": KEY}),
    "job-broken": (JobStack, {"retention": DELETE_MODEL, "broken": True}),
    "job-again-broken": (JobStack, {"retention": DELETE_MODEL, "nonce": "again", "broken": True}),
    "job-hosted": (JobStack, {"network": NETWORK}),
    "job-leaving": (JobStack, {"network": replace(NETWORK, attached=False)}),
    "kept-job": (JobStack, {"tags": {"team": "search"}}),
    "kept-job-tagged": (JobStack, {"tags": {"team": "ads", "stage": "dev"}}),
    "kept-job-untagged": (JobStack, {"tags": {"stage": "dev"}}),
    "throughput": (ThroughputStack, {}),
    "throughput-tagged": (ThroughputStack, {"tags": {"team": "search"}}),
    "throughput-moved": (ThroughputStack, {"model_arn": OTHER_MODEL, "name": "search-ranker"}),
    "throughput-broken": (ThroughputStack, {"broken": True}),
    "throughput-retained": (ThroughputStack, {"retention": RETAIN_THROUGHPUT}),
    "throughput-doubled": (ThroughputStack, {"props": {"model_units": 2}}),
    "throughput-committed": (ThroughputStack, {"props": COMMITMENT}),
    "existing": (ExistingStack, {}),
}


@dataclass(frozen=True)
class App:
    """The app, synthesized to one assembly for each variant."""

    folder: Path

    @property
    def assemblies(self) -> list[Path]:
        """Return the folders of the assemblies."""
        return [self.folder / variant for variant in VARIANTS]

    def template(self, variant: str, arns: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return a variant's template, with Bedrock's ARNs in place of the placeholders."""
        text = (self.folder / variant / f"{STACK}.template.json").read_text(encoding="utf-8")
        for placeholder, arn in (arns or {}).items():
            text = text.replace(placeholder, arn)
        template: dict[str, Any] = json.loads(text)
        return template


def declare(variant: str, assembly: Path | None = None) -> cdk.App:
    """Return the app of a variant, to be synthesized into a folder."""
    context = json.loads(CONTEXT.read_text(encoding="utf-8"))["context"]
    app = cdk.App(context=context, outdir=str(assembly) if assembly else None, analytics_reporting=False)
    kind, options = VARIANTS[variant]
    kind(app, **options)
    return app


def synthesize(folder: Path) -> App:
    """Write all variants' assemblies, as `cdk synth` would."""
    for variant in VARIANTS:
        declare(variant, folder / variant).synth()
    return App(folder)


def changed(template: Mapping[str, Any], resource_type: str, **properties: Any) -> dict[str, Any]:
    """Return a template in which the resources of a type have other properties."""
    made = copy.deepcopy(dict(template))
    for resource in made["Resources"].values():
        if resource["Type"] == resource_type:
            resource["Properties"] |= properties
    return made


def logical_id(template: Mapping[str, Any], resource_type: str) -> str:
    """Return the logical id of the only resource of a type."""
    resources: Mapping[str, Mapping[str, Any]] = template["Resources"]
    (found,) = [key for key, resource in resources.items() if resource["Type"] == resource_type]
    return found


def without(template: Mapping[str, Any], resource_type: str) -> dict[str, Any]:
    """Return a template without the only resource of a type and without outputs, which may refer to it."""
    made = copy.deepcopy({name: part for name, part in template.items() if name != "Outputs"})
    del made["Resources"][logical_id(template, resource_type)]
    return made
