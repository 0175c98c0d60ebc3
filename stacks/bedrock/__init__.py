"""Bedrock resources that CloudFormation doesn't have, as constructs for any CDK app."""

from stacks.bedrock.dataset import Dataset, DatasetFile
from stacks.bedrock.distillation_job import DistillationJob
from stacks.bedrock.existing import ExistingJob, ExistingModel, ExistingThroughput
from stacks.bedrock.job_inputs import InvocationLogs
from stacks.bedrock.provisioned_throughput import ProvisionedThroughput
from stacks.bedrock.release import Release
from stacks.bedrock.release_wait import ReleaseWait
from stacks.endpoints import Endpoints
from stacks.hosting import Hosting, VpcConfig

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
