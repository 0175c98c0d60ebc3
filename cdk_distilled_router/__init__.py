"""Constructs for Bedrock resources that CloudFormation doesn't have, for any CDK app.

Constructs are imported when they are first used: importing aws_cdk takes seconds, and code that only needs
the properties, such as the operator's commands, doesn't pay for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cdk_distilled_router import _checkout  # noqa: F401  # first: the imports below need it

if TYPE_CHECKING:
    from cdk_distilled_router.common.functions import use_task
    from cdk_distilled_router.common.hosting import Hosting, VpcConfig
    from cdk_distilled_router.common.vpc_endpoints import VpcEndpoints
    from cdk_distilled_router.dataset import Dataset, DatasetFile, DatasetFiles, InvocationLogs, QueriesFolder
    from cdk_distilled_router.distillation_job import DistillationJob, EarlierName, JobOptions
    from cdk_distilled_router.existing import ExistingJob, ExistingModel, ExistingThroughput
    from cdk_distilled_router.job_inputs import JobData
    from cdk_distilled_router.labelling import Labelling, LabellingPlan, LabellingSources
    from cdk_distilled_router.protection import allow_services, only_owners_write
    from cdk_distilled_router.provisioned_throughput import ProvisionedThroughput, ThroughputOptions
    from cdk_distilled_router.release.construct import Release
    from cdk_distilled_router.release.context import ReleaseProps, ReleaseSource, ReleaseStores
    from cdk_distilled_router.release.reference import HeadSource, ReleaseReference
    from cdk_distilled_router.release.wait import ReleaseWait
    from cdk_distilled_router.router import Router

__all__ = [
    "Dataset",
    "DatasetFile",
    "DatasetFiles",
    "DistillationJob",
    "EarlierName",
    "ExistingJob",
    "ExistingModel",
    "ExistingThroughput",
    "HeadSource",
    "Hosting",
    "InvocationLogs",
    "JobData",
    "JobOptions",
    "Labelling",
    "LabellingPlan",
    "LabellingSources",
    "ProvisionedThroughput",
    "QueriesFolder",
    "Release",
    "ReleaseProps",
    "ReleaseReference",
    "ReleaseSource",
    "ReleaseStores",
    "ReleaseWait",
    "Router",
    "ThroughputOptions",
    "VpcConfig",
    "VpcEndpoints",
    "allow_services",
    "only_owners_write",
    "use_task",
]

_MODULES = {
    "common.functions": ("use_task",),
    "common.hosting": ("Hosting", "VpcConfig"),
    "common.vpc_endpoints": ("VpcEndpoints",),
    "dataset": ("Dataset", "DatasetFile", "DatasetFiles", "InvocationLogs", "QueriesFolder"),
    "distillation_job": ("DistillationJob", "EarlierName", "JobOptions"),
    "existing": ("ExistingJob", "ExistingModel", "ExistingThroughput"),
    "job_inputs": ("JobData",),
    "labelling": ("Labelling", "LabellingPlan", "LabellingSources"),
    "protection": ("allow_services", "only_owners_write"),
    "provisioned_throughput": ("ProvisionedThroughput", "ThroughputOptions"),
    "release.construct": ("Release",),
    "release.context": ("ReleaseProps", "ReleaseSource", "ReleaseStores"),
    "release.reference": ("HeadSource", "ReleaseReference"),
    "release.wait": ("ReleaseWait",),
    "router": ("Router",),
}


def __getattr__(name: str) -> Any:
    """Import the module of a name in `__all__`."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
