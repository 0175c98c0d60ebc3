"""Custom models, foundation models and inference profiles."""

from __future__ import annotations

from local.bedrock.account import Account, CustomModel, Parameters, Result
from local.bedrock.errors import conflict, invalid, not_found
from local.bedrock.job_progress import settle
from local.bedrock.pages import list_page


def _settle_jobs(account: Account) -> None:
    for job in account.jobs.values():
        settle(account, job)


def find(account: Account, identifier: str) -> CustomModel:
    """Return a custom model by ARN or name."""
    _settle_jobs(account)
    model = account.model_named(identifier)
    if model is None:
        raise not_found()
    return model


def get(account: Account, parameters: Parameters) -> Result:
    """Handle GetCustomModel."""
    model = find(account, parameters["modelIdentifier"])
    return {
        **model.job,
        "modelArn": model.arn,
        "modelName": model.name,
        "creationTime": model.created,
        "modelStatus": "Active",
    }


def list_models(account: Account, parameters: Parameters) -> Result:
    """Handle ListCustomModels."""
    _settle_jobs(account)
    foundation = parameters.get("foundationModelArnEquals")
    models = [m for m in account.models.values() if foundation in (None, account.catalogue.arn(m.base))]
    return list_page(
        account,
        parameters,
        models,
        key="modelSummaries",
        summary=lambda model: {
            "modelArn": model.arn,
            "modelName": model.name,
            "creationTime": model.created,
            "baseModelArn": model.job["baseModelArn"],
            # Bedrock leaves the name empty.
            "baseModelName": "",
            "customizationType": model.job["customizationType"],
            "ownerAccountId": account.settings.account,
            "modelStatus": "Active",
        },
        name="modelName",
        filters={"baseModelArnEquals": "baseModelArn", "modelStatus": "modelStatus"},
    )


def delete(account: Account, parameters: Parameters) -> Result:
    """Handle DeleteCustomModel."""
    model = find(account, parameters["modelIdentifier"])
    used = [deployment.models() for deployment in account.deployments.values()]
    used += [throughput.models() for throughput in account.throughputs.values()]
    if any(model.arn in models for models in used):
        raise conflict()
    del account.models[model.arn]
    account.tags.pop(model.arn, None)
    return {}


def get_foundation_model(account: Account, parameters: Parameters) -> Result:
    """Handle GetFoundationModel."""
    model = account.catalogue.find(parameters["modelIdentifier"])
    if model is None:
        raise invalid("The provided model identifier is invalid.")
    return {"modelDetails": account.catalogue.summary(model, account.clock.now())}


def list_foundation_models(account: Account, parameters: Parameters) -> Result:
    """Handle ListFoundationModels; models past their end of life are not listed."""
    now = account.clock.now()
    summaries = [account.catalogue.summary(m, now) for m in account.catalogue.models() if not m.ended(now)]
    filters = {
        "byCustomizationType": "customizationsSupported",
        "byInferenceType": "inferenceTypesSupported",
        "byOutputModality": "outputModalities",
    }
    provider = parameters.get("byProvider")
    matching = [
        item
        for item in summaries
        if provider in (None, item["providerName"])
        and all(parameters[name] in item[member] for name, member in filters.items() if name in parameters)
    ]
    return {"modelSummaries": matching}


def get_inference_profile(account: Account, parameters: Parameters) -> Result:
    """Handle GetInferenceProfile for system profiles."""
    return account.catalogue.profile(parameters["inferenceProfileIdentifier"])
