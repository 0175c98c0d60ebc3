"""Lambda functions as this package makes them: own role, own log group, no managed policy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from cdk_distilled_router.common import bundles
from cdk_distilled_router.common.callers import Caller, accept
from cdk_distilled_router.common.hosting import Hosting
from cdk_distilled_router.common.nag import acknowledge

# The version that the tests and the emulator run; a newer runtime would be one that nothing was tried on.
RUNTIME = lambda_.Runtime.PYTHON_3_13
assert RUNTIME.name == "python{}.{}".format(*bundles.RUNTIME)

_TASK = "distilled-router:task"


def use_task(scope: Construct, folder: Path) -> None:
    """Give all functions below `scope` the routing task of a folder, instead of the project's own `task/`.

    Comes before anything is declared in `scope`, since context is for what follows.
    """
    scope.node.set_context(_TASK, str(folder))


def _task_folder(scope: Construct) -> Path | None:
    folder = scope.node.try_get_context(_TASK)
    return Path(folder) if folder else None


class Function(lambda_.Function):
    """One entry point of one folder of `lambda/`.

    The role may be shared by the functions of one construct; each writes to its own log group only.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        folder: str,
        entry: str = "handler",
        role: iam.Role,
        environment: Mapping[str, str],
        hosting: Hosting,
        timeout: cdk.Duration,
        memory_mb: int = 256,
        description: str,
        caller: Caller,
        reserved_concurrency: int | None = None,
        tracing: lambda_.Tracing = lambda_.Tracing.DISABLED,
        dead_letters: sqs.IQueue | None = None,
    ) -> None:
        """Bundle `lambda/<folder>` with what its handler imports; run `<folder>.handler.<entry>` of it.

        `dead_letters` gets the events that every try failed; of those whom nobody waits for.
        """
        group = hosting.log_group(scope, f"{construct_id}Logs")
        group.grant_write(role)
        super().__init__(
            scope,
            construct_id,
            runtime=RUNTIME,
            architecture=lambda_.Architecture.ARM_64,
            handler=f"{folder}.handler.{entry}",
            code=_asset(bundles.function_bundle(folder, _task_folder(scope))),
            layers=[dependencies(scope)],
            role=role,
            environment=dict(environment),
            log_group=group,
            logging_format=lambda_.LoggingFormat.TEXT,
            timeout=timeout,
            memory_size=memory_mb,
            description=description,
            reserved_concurrent_executions=reserved_concurrency,
            tracing=tracing,
            dead_letter_queue=dead_letters,
        )
        hosting.place(self, role)
        if tracing != lambda_.Tracing.DISABLED:
            acknowledge(
                role, "IAM5[Resource::*]", "The two actions that send traces take no resource (X-Ray)."
            )
        accept(self, caller)
        acknowledge(
            self,
            "L1",
            "python3.13 is what the tests and the local system run; a newer one is taken up with them.",
        )


def _asset(bundle: Path) -> lambda_.AssetCode:
    """A bundle, hashed by its sources: what two Pythons of one version compile of them may differ in a byte,
    and is the same code.
    """
    sources = cdk.FileSystem.fingerprint(str(bundle), exclude=[bundles.COMPILED])
    compiled = "compiled" if bundles.is_compiled() else "sources"
    return lambda_.Code.from_asset(str(bundle), asset_hash=f"{sources} {compiled}")


def dependencies(scope: Construct) -> lambda_.LayerVersion:
    """The stack's one layer with boto3 and Powertools; layer versions change, so they never cross stacks."""
    stack = cdk.Stack.of(scope)
    existing = stack.node.try_find_child("Dependencies")
    if isinstance(existing, lambda_.LayerVersion):
        return existing
    return lambda_.LayerVersion(
        stack,
        "Dependencies",
        code=_asset(bundles.dependencies_bundle()),
        compatible_runtimes=[RUNTIME],
        description="boto3 and Powertools, pinned in lambda/requirements.txt",
    )
