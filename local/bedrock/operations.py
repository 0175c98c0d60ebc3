"""The modelled operations by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from local.bedrock import (
    batch,
    deployments,
    evaluations,
    invocation_logs,
    jobs,
    models,
    reads,
    runtime,
    throughput,
)
from local.bedrock.account import Account, Parameters, Result
from local.bedrock.errors import not_found

Operation = Callable[[Account, Parameters], Result]


def _tagged(account: Account, parameters: Parameters) -> str:
    """Return the ARN of an existing resource that can have tags."""
    arn = str(parameters["resourceARN"])
    models.list_models(account, {})
    if arn not in account.tags:
        raise not_found()
    return arn


def tag_resource(account: Account, parameters: Parameters) -> Result:
    """Handle TagResource."""
    account.tag(_tagged(account, parameters), parameters["tags"])
    return {}


def untag_resource(account: Account, parameters: Parameters) -> Result:
    """Handle UntagResource."""
    account.untag(_tagged(account, parameters), parameters["tagKeys"])
    return {}


def list_tags(account: Account, parameters: Parameters) -> Result:
    """Handle ListTagsForResource."""
    tags = reads.tags(account, _tagged(account, parameters))
    return {"tags": [{"key": key, "value": value} for key, value in tags.items()]}


def put_logging(account: Account, parameters: Parameters) -> Result:
    """Handle PutModelInvocationLoggingConfiguration."""
    kinds = ("text", "image", "embedding", "video", "audio")
    if target := parameters["loggingConfig"].get("s3Config"):
        invocation_logs.prove(account, target)
    account.logging = {
        **{f"{kind}DataDeliveryEnabled": True for kind in kinds},
        **parameters["loggingConfig"],
    }
    return {}


def get_logging(account: Account, _: Parameters) -> Result:
    """Handle GetModelInvocationLoggingConfiguration."""
    return {"loggingConfig": account.logging}


def delete_logging(account: Account, _: Parameters) -> Result:
    """Handle DeleteModelInvocationLoggingConfiguration."""
    account.logging = None
    return {}


#: Operations on resources. They hold the account's lock, so they run one at a time.
CONTROL: Mapping[str, Operation] = {
    "CreateModelCustomizationJob": jobs.create,
    "GetModelCustomizationJob": jobs.get,
    "ListModelCustomizationJobs": jobs.list_jobs,
    "StopModelCustomizationJob": jobs.stop,
    "GetCustomModel": models.get,
    "ListCustomModels": models.list_models,
    "DeleteCustomModel": models.delete,
    "CreateCustomModelDeployment": deployments.create,
    "GetCustomModelDeployment": deployments.get,
    "ListCustomModelDeployments": deployments.list_deployments,
    "UpdateCustomModelDeployment": deployments.update,
    "DeleteCustomModelDeployment": deployments.delete,
    "CreateProvisionedModelThroughput": throughput.create,
    "GetProvisionedModelThroughput": throughput.get,
    "ListProvisionedModelThroughputs": throughput.list_throughputs,
    "UpdateProvisionedModelThroughput": throughput.update,
    "DeleteProvisionedModelThroughput": throughput.delete,
    "CreateModelInvocationJob": batch.create,
    "GetModelInvocationJob": batch.get,
    "ListModelInvocationJobs": batch.list_jobs,
    "StopModelInvocationJob": batch.stop,
    "CreateEvaluationJob": evaluations.create,
    "GetEvaluationJob": evaluations.get,
    "ListEvaluationJobs": evaluations.list_jobs,
    "StopEvaluationJob": evaluations.stop,
    "GetFoundationModel": models.get_foundation_model,
    "ListFoundationModels": models.list_foundation_models,
    "GetInferenceProfile": models.get_inference_profile,
    "TagResource": tag_resource,
    "UntagResource": untag_resource,
    "ListTagsForResource": list_tags,
    "PutModelInvocationLoggingConfiguration": put_logging,
    "GetModelInvocationLoggingConfiguration": get_logging,
    "DeleteModelInvocationLoggingConfiguration": delete_logging,
}

#: Inference. Calls run in parallel and hold the lock only briefly.
RUNTIME: Mapping[str, Operation] = {
    "Converse": runtime.converse,
    "InvokeModel": runtime.invoke_model,
}
