"""Resources that are left in Bedrock after `cdk destroy`, and that would cost money in AWS."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_boto3_bedrock import BedrockClient

# Customization jobs can't be deleted. Those that have ended stay listed and cost nothing.
RUNNING_JOBS = ("InProgress", "Stopping")
RUNNING_BATCHES = ("Submitted", "Validating", "Scheduled", "InProgress", "Stopping")


def leftovers(bedrock: BedrockClient, *, keep_models: bool) -> list[str]:
    """Return the names of the resources that should be gone, each with its kind.

    Args:
        keep_models: The settings retain models, so models don't count.
    """
    jobs = bedrock.get_paginator("list_model_customization_jobs").paginate()
    batches = bedrock.get_paginator("list_model_invocation_jobs").paginate()
    evaluations = bedrock.get_paginator("list_evaluation_jobs").paginate()
    deployments = bedrock.get_paginator("list_custom_model_deployments").paginate()
    throughputs = bedrock.get_paginator("list_provisioned_model_throughputs").paginate()
    models = bedrock.get_paginator("list_custom_models").paginate(isOwned=True)
    found = [
        f"job {job['jobName']} ({job['status']})"
        for page in jobs
        for job in page["modelCustomizationJobSummaries"]
        if job["status"] in RUNNING_JOBS
    ]
    found += [
        f"batch job {batch['jobName']} ({batch.get('status')})"
        for page in batches
        for batch in page["invocationJobSummaries"]
        if batch.get("status") in RUNNING_BATCHES
    ]
    found += [
        f"evaluation job {evaluation['jobName']} ({evaluation['status']})"
        for page in evaluations
        for evaluation in page["jobSummaries"]
        if evaluation["status"] in RUNNING_JOBS
    ]
    found += [
        f"deployment {deployment['customModelDeploymentName']}"
        for page in deployments
        for deployment in page["modelDeploymentSummaries"]
    ]
    found += [
        f"provisioned throughput {throughput['provisionedModelName']}"
        for page in throughputs
        for throughput in page["provisionedModelSummaries"]
    ]
    if not keep_models:
        found += [f"model {model['modelName']}" for page in models for model in page["modelSummaries"]]
    return found
