"""Declare the stacks of one environment; `app.py` and the tests call it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aws_cdk as cdk
import cdk_nag
from aws_cdk import aws_iam as iam

from cdk_distilled_router.common.functions import use_task
from cdk_distilled_router.common.hosting import Hosting, VpcConfig
from distilled_router.bedrock.naming import OWNER_TAG
from stacks import preflight
from stacks import settings as settings_
from stacks.data import DataStack
from stacks.distillation import DistillationStack
from stacks.identity import Identity
from stacks.operations import OperationsStack
from stacks.release import ReleaseStack
from stacks.router import RouterStack

PACKS: Mapping[settings_.Pack, Callable[..., cdk_nag.NagPack]] = {
    "AwsSolutions": cdk_nag.AwsSolutionsChecks,
    "Serverless": cdk_nag.ServerlessChecks,
    "NIST80053R5": cdk_nag.NIST80053R5Checks,
    "HIPAASecurity": cdk_nag.HIPAASecurityChecks,
    "PCIDSS321": cdk_nag.PCIDSS321Checks,
}


@dataclass(frozen=True)
class Application:
    """The five stacks in order of dependency; each uses values of earlier stacks only."""

    data: DataStack
    distillation: DistillationStack
    release: ReleaseStack
    router: RouterStack
    operations: OperationsStack

    @property
    def stacks(self) -> tuple[cdk.Stack, ...]:
        """Return the stacks in order of dependency."""
        return (self.data, self.distillation, self.release, self.router, self.operations)


def build(app: cdk.App, environment: str | Path) -> Application:
    """Declare every stack of an environment in the app, checked by the cdk-nag packs in its settings.

    Args:
        app: where to declare them.
        environment: name of a file in `environments/`, without `.toml`, or the path of a settings file.

    Raises:
        SettingsError: the settings can't work; nothing has been synthesized yet.
    """
    return declare(app, settings_.load(environment))


def declare(app: cdk.App, settings: settings_.Settings) -> Application:
    """Declare every stack for settings that are already loaded; raise SettingsError as `build` does."""
    use_task(app, settings.task_folder)
    identity = Identity.of(settings)
    preflight.enforce(settings, identity.project)
    for pack in settings.checks.packs:
        cdk.Validations.of(app).add_plugins(PACKS[pack](app, verbose=True))
    name = settings.owner
    env = cdk.Environment(account=settings.account, region=settings.region)
    vpc = _vpc(settings)
    data = DataStack(app, f"{name}-data", settings=settings, vpc=vpc, env=env)
    hosting = Hosting(
        log_days=settings.retention.log_days,
        vpc=vpc,
        key=data.key if settings.encryption.runtime_key else None,
        data_key=data.key,
        absence_seconds=settings.absence_seconds,
    )
    distillation = DistillationStack(
        app,
        f"{name}-distillation",
        settings=settings,
        hosting=hosting,
        identity=identity,
        bucket=data.bucket,
        key=data.key,
        env=env,
    )
    release = ReleaseStack(
        app,
        f"{name}-release",
        settings=settings,
        hosting=hosting,
        job=distillation.job,
        bucket=data.bucket,
        key=data.key,
        holdout_key=distillation.holdout_key,
        env=env,
    )
    router = RouterStack(
        app,
        f"{name}-router",
        settings=settings,
        hosting=hosting,
        release=release.release,
        env=env,
    )
    operations = OperationsStack(
        app,
        f"{name}-operations",
        settings=settings,
        topic=release.topic,
        undelivered=release.undelivered,
        router_logs=router.router.function.log_group,
        env=env,
    )
    _tag_and_bound(app, settings, data)
    return Application(data, distillation, release, router, operations)


def _tag_and_bound(app: cdk.App, settings: settings_.Settings, data: DataStack) -> None:
    """Put the tags and the owner's tag on every resource, and the permissions boundary on every role."""
    for key, value in {**settings.tags, OWNER_TAG: settings.owner}.items():
        cdk.Tags.of(app).add(key, value)
    if boundary := settings.permissions_boundary:
        # This includes the roles that the CDK's own constructs create.
        policy = iam.ManagedPolicy.from_managed_policy_arn(data, "PermissionsBoundary", boundary)
        iam.PermissionsBoundary.of(app).apply(policy)


def _vpc(settings: settings_.Settings) -> VpcConfig | None:
    network = settings.network
    if network is None:
        return None
    return VpcConfig(
        subnet_ids=network.subnet_ids,
        security_group_ids=network.security_group_ids,
        attached=network.attached,
    )
