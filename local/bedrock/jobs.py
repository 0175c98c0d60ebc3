"""Model customization jobs: what Create refuses, and the operations on jobs."""

from __future__ import annotations

from local.bedrock.account import Account, Parameters, Result
from local.bedrock.catalogue import INVALID_MODEL, FoundationModel
from local.bedrock.errors import conflict, invalid, not_found, over_quota
from local.bedrock.job_progress import Job, Phase, Training, settle
from local.bedrock.pages import listed
from local.bedrock.training_data import LIMITS
from local.bedrock.work import Work

CREATE = "CreateModelCustomizationJob"

# Nova's three documented hyperparameters, with least and most.
HYPERPARAMETERS = {
    "epochCount": (1.0, 5.0),
    "learningRate": (1e-6, 1e-4),
    "learningRateWarmupSteps": (0.0, 100.0),
}


def create(account: Account, parameters: Parameters) -> Result:
    """CreateModelCustomizationJob."""
    if earlier := account.repeated(CREATE, parameters):
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
    account.remember(CREATE, parameters, job.arn)
    job.work.start()
    return {"jobArn": job.arn}


def _base(account: Account, identifier: str) -> tuple[FoundationModel, str]:
    """The foundation model to customize, and the ARN of what is customized: it, or a custom model of it."""
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
            raise invalid(f"Unknown hyperparameter {name}; there are {', '.join(HYPERPARAMETERS)}.")
        least, most = HYPERPARAMETERS[name]
        try:
            fits = least <= float(text) <= most
        except ValueError:
            fits = False
        if not fits:
            raise invalid(f"The hyperparameter {name} must be from {least:g} to {most:g}, not {text!r}.")


def _check_names(account: Account, parameters: Parameters) -> None:
    # There is no operation that deletes a job: a name is taken for ever.
    if parameters["jobName"] in account.jobs:
        raise conflict("The provided job name is currently in use.")
    wanted = parameters["customModelName"]
    being_made = {job.parameters["customModelName"] for job in account.jobs.values() if job.running}
    if account.model_named(wanted) or wanted in being_made:
        raise conflict("The provided custom model name is currently in use.")


def _new_job(account: Account, parameters: Parameters, kind: str, base: FoundationModel, model: str) -> Job:
    now, lasting, durations = account.clock.now(), account.clock.lasting, account.settings.durations
    phases = [Phase("validationDetails", 0.0, lasting(durations.validation))]
    if kind == "DISTILLATION":
        phases.append(Phase("dataProcessingDetails", 0.0, lasting(durations.data_processing)))
    phases.append(Phase("trainingDetails", lasting(durations.training_queue), lasting(durations.training)))
    fault = account.faults.take("job_stalled", "job_failed", "job_stopped")
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
    """A job by name or ARN, in its present state."""
    job = account.jobs.get(identifier) or next(
        (j for j in account.jobs.values() if j.arn == identifier), None
    )
    if job is None:
        raise not_found(f"The model customization job {identifier} could not be found.")
    settle(account, job)
    return job


def get(account: Account, parameters: Parameters) -> Result:
    """GetModelCustomizationJob."""
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
    """ListModelCustomizationJobs."""
    for job in account.jobs.values():
        settle(account, job)
    return listed(
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
    """StopModelCustomizationJob."""
    job = find(account, parameters["jobIdentifier"])
    if job.status != "InProgress":
        raise conflict(f"The job {job.name} can't be stopped: its status is {job.status}.")
    job.stop(account.clock.now())
    settle(account, job)
    return {}
