"""The operations on model customization jobs, and the checks of CreateModelCustomizationJob."""

from __future__ import annotations

from local.bedrock.account import Account, Parameters, Result
from local.bedrock.catalogue import INVALID_MODEL, FoundationModel
from local.bedrock.errors import conflict, invalid, not_found, over_quota
from local.bedrock.job_progress import Job, Phase, Training, settle
from local.bedrock.pages import list_page
from local.bedrock.training_data import LIMITS
from local.bedrock.work import Work

CREATE = "CreateModelCustomizationJob"

# Nova's three documented hyperparameters, each with minimum and maximum.
HYPERPARAMETERS = {
    "epochCount": (1.0, 5.0),
    "learningRate": (1e-6, 1e-4),
    "learningRateWarmupSteps": (0.0, 100.0),
}


def create(account: Account, parameters: Parameters) -> Result:
    """Handle CreateModelCustomizationJob."""
    if earlier := account.created_by_token(CREATE, parameters):
        return {"jobArn": earlier}
    for job in account.jobs.values():
        settle(account, job)
    base, model = _base(account, parameters["baseModelIdentifier"])
    kind = parameters.get("customizationType", "FINE_TUNING")
    if kind not in base.customizations or kind not in LIMITS:
        raise invalid(f"The base model {base.id} doesn't support the customization type {kind}.")
    _check_configuration(account, parameters, kind, base)
    _check_names(account, parameters)
    account.check_role(parameters["roleArn"])
    if len(account.models) >= account.settings.quotas.custom_models:
        raise over_quota(f"Your account has {len(account.models)} custom models, which is its quota.")
    job = _new_job(account, parameters, kind, base, model)
    account.jobs[job.name] = job
    account.tag(job.arn, parameters.get("jobTags"))
    account.remember_token(CREATE, parameters, job.arn)
    job.work.start()
    return {"jobArn": job.arn}


def _base(account: Account, identifier: str) -> tuple[FoundationModel, str]:
    """Return the foundation model, and the ARN of the model to customize.

    The ARN is that of the foundation model itself, or of a custom model based on it.
    """
    now = account.clock.now()
    if custom := account.model_named(identifier):
        return account.catalogue.usable(custom.base, now), custom.arn
    base = account.catalogue.usable(identifier, now)
    return base, account.catalogue.arn(base.id)


def _check_configuration(account: Account, parameters: Parameters, kind: str, base: FoundationModel) -> None:
    data = parameters["trainingDataConfig"]
    if ("s3Uri" in data) == ("invocationLogsConfig" in data):
        raise invalid("trainingDataConfig must hold exactly one of s3Uri and invocationLogsConfig.")
    distillation = parameters.get("customizationConfig", {}).get("distillationConfig")
    if kind == "DISTILLATION":
        if distillation is None:
            raise invalid("A DISTILLATION job needs customizationConfig.distillationConfig.")
        if parameters.get("hyperParameters"):
            raise invalid("A DISTILLATION job takes no hyperParameters.")
        _check_teacher(account, distillation["teacherModelConfig"]["teacherModelIdentifier"], base)
    elif "customizationConfig" in parameters:
        raise invalid(f"A {kind} job takes no customizationConfig.")
    if kind != "DISTILLATION" and "invocationLogsConfig" in data:
        raise invalid(f"A {kind} job takes no invocation logs.")
    _check_hyperparameters(parameters.get("hyperParameters", {}))


def _check_teacher(account: Account, identifier: str, base: FoundationModel) -> None:
    now = account.clock.now()
    model = account.catalogue.profile_model(identifier) or account.catalogue.find(identifier)
    direct = account.catalogue.find(identifier) is not None
    if model is None or model.ended(now) or (direct and "ON_DEMAND" not in model.inference):
        raise invalid(INVALID_MODEL)
    if base.id not in model.students:
        raise invalid(f"The teacher model {identifier} can't be used with the student model {base.id}.")


def _check_hyperparameters(values: dict[str, str]) -> None:
    for name, text in values.items():
        if name not in HYPERPARAMETERS:
            raise invalid(f"Unknown hyperparameter {name}; known: {', '.join(HYPERPARAMETERS)}.")
        minimum, maximum = HYPERPARAMETERS[name]
        try:
            fits = minimum <= float(text) <= maximum
        except ValueError:
            fits = False
        if not fits:
            raise invalid(f"The hyperparameter {name} must be from {minimum:g} to {maximum:g}, not {text!r}.")


def _check_names(account: Account, parameters: Parameters) -> None:
    # A job can't be deleted, so its name stays in use forever.
    if parameters["jobName"] in account.jobs:
        raise account.name_in_use("job")
    name = parameters["customModelName"]
    names_of_running = {job.parameters["customModelName"] for job in account.jobs.values() if job.running}
    if account.model_named(name) or name in names_of_running:
        raise account.name_in_use("custom model")


def _new_job(account: Account, parameters: Parameters, kind: str, base: FoundationModel, model: str) -> Job:
    now, scaled, durations = account.clock.now(), account.clock.scaled, account.settings.durations
    phases = [Phase("validationDetails", 0.0, scaled(durations.validation))]
    if kind == "DISTILLATION":
        phases.append(Phase("dataProcessingDetails", 0.0, scaled(durations.data_processing)))
    phases.append(Phase("trainingDetails", scaled(durations.training_queue), scaled(durations.training)))
    fault = account.faults.take("job_stalled", "training_stalled", "job_failed", "job_stopped")
    new_id = account.new_id()
    training = Training(account.s3_as(parameters["roleArn"]), parameters, kind)
    return Job(
        arn=account.arn(f"model-customization-job/{base.id}/{new_id}"),
        id=new_id,
        parameters=parameters,
        kind=kind,
        base=base.id,
        base_arn=model,
        created=now,
        phases=phases,
        training=training,
        work=Work(account.clock, training.read, training.train),
        fault=fault.kind if fault else None,
        fault_message=fault.message if fault else None,
    )


def find(account: Account, identifier: str) -> Job:
    """Return a job by name or ARN, in its current state."""
    job = account.jobs.get(identifier) or next(
        (j for j in account.jobs.values() if j.arn == identifier), None
    )
    if job is None:
        raise not_found()
    settle(account, job)
    return job


def get(account: Account, parameters: Parameters) -> Result:
    """Handle GetModelCustomizationJob."""
    job = find(account, parameters["jobIdentifier"])
    copied = (
        "clientRequestToken",
        "roleArn",
        "hyperParameters",
        "trainingDataConfig",
        "validationDataConfig",
        "outputDataConfig",
        "vpcConfig",
        "customizationConfig",
    )
    return {
        **{name: job.parameters[name] for name in copied if name in job.parameters},
        **_shown(job),
        "outputModelName": job.parameters["customModelName"],
        "outputModelArn": job.model_arn,
        "outputModelKmsKeyArn": job.parameters.get("customModelKmsKeyId"),
        "failureMessage": job.failure,
        "trainingMetrics": job.training_metrics,
        "validationMetrics": job.validation_metrics,
    }


def _shown(job: Job) -> Result:
    return {
        "jobArn": job.arn,
        "jobName": job.name,
        "status": job.status,
        "statusDetails": job.details(),
        "creationTime": job.created,
        "lastModifiedTime": job.modified,
        "endTime": job.ended,
        "baseModelArn": job.base_arn,
        "customizationType": job.kind,
    }


def list_jobs(account: Account, parameters: Parameters) -> Result:
    """Handle ListModelCustomizationJobs."""
    for job in account.jobs.values():
        settle(account, job)
    return list_page(
        account,
        parameters,
        account.jobs.values(),
        key="modelCustomizationJobSummaries",
        summary=lambda job: {
            **_shown(job),
            "customModelArn": job.model_arn,
            "customModelName": job.parameters["customModelName"],
        },
        name="jobName",
    )


def stop(account: Account, parameters: Parameters) -> Result:
    """Handle StopModelCustomizationJob."""
    job = find(account, parameters["jobIdentifier"])
    if job.status != "InProgress":
        raise conflict()
    job.stop(account.clock.now())
    settle(account, job)
    return {}
