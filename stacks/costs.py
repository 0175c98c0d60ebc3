"""Convert an environment's settings into the input of the cost estimate."""

from dataclasses import dataclass

from cdk_distilled_router.common.vpc_services import INTERFACES
from distilled_router.cost.estimate import Spec
from distilled_router.data.split import trained_share
from stacks.monitoring import UNDELIVERED, alarms
from stacks.settings import Settings


def spec(settings: Settings) -> Spec:
    """Return the settings that decide the cost; the amount of data is a `Volume`."""
    dataset, labelling, distillation = settings.dataset, settings.labelling, settings.distillation
    hyperparameters, bought = distillation.hyperparameters, settings.endpoint.provisioned
    asks, is_curated = dataset.asks_teacher, dataset.is_curated
    held_out = labelling.holdout_share if dataset.holdout is None else 0.0
    return Spec(
        method=distillation.method,
        teacher=distillation.teacher,
        student=distillation.student,
        base_model=settings.router.base_model,
        samples=labelling.samples if asks else 0,
        max_tokens=labelling.max_tokens if asks else 0,
        queries_per_shard=labelling.queries_per_shard if asks else 0,
        trained_share=trained_share(held_out, labelling.validation_share) if is_curated else 1.0,
        epochs=hyperparameters.epoch_count if hyperparameters else 0,
        max_response_length=distillation.max_response_length or 0,
        synthesis=distillation.method == "distillation",
        model_units=bought.model_units if bought else 0,
        hourly_price_usd=bought.hourly_price_usd if bought else 0.0,
        kept_models=settings.rollout.keep_releases,
        retries=settings.release.retry_internal_errors,
    )


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What an environment's stacks declare that AWS bills by the month or by the request.

    Attributes:
        alarms: metrics that alarms watch.
        dashboards: dashboards.
        keys: KMS keys that the stacks create.
        interface_endpoints: interface VPC endpoints, counted once for each subnet.
    """

    alarms: int
    dashboards: int
    keys: int
    interface_endpoints: int


def deployed(settings: Settings) -> Deployed:
    """Return what an environment's stacks declare. A test compares it with the templates."""
    network = settings.network
    subnets = len(network.subnet_ids) if network and network.endpoints else 0
    return Deployed(
        alarms=sum(alarm.metrics for alarm in (*alarms(settings), UNDELIVERED)),
        dashboards=1,
        keys=0 if settings.encryption.key_arn else 1,
        interface_endpoints=len(INTERFACES) * subnets,
    )
