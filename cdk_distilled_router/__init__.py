"""Bedrock resources that CloudFormation doesn't have, as constructs for any CDK app."""

from cdk_distilled_router import _checkout  # noqa: F401  # first: the imports below need it
from cdk_distilled_router.common.hosting import Hosting, VpcConfig
from cdk_distilled_router.common.vpc_endpoints import Endpoints
from cdk_distilled_router.dataset import Dataset, DatasetFile
from cdk_distilled_router.distillation_job import DistillationJob
from cdk_distilled_router.existing import ExistingJob, ExistingModel, ExistingThroughput
from cdk_distilled_router.job_inputs import InvocationLogs
from cdk_distilled_router.provisioned_throughput import ProvisionedThroughput
from cdk_distilled_router.release.construct import Release
from cdk_distilled_router.release.wait import ReleaseWait

__all__ = [
    "Dataset",
    "DatasetFile",
    "DistillationJob",
    "Endpoints",
    "ExistingJob",
    "ExistingModel",
    "ExistingThroughput",
    "Hosting",
    "InvocationLogs",
    "ProvisionedThroughput",
    "Release",
    "ReleaseWait",
    "VpcConfig",
]
