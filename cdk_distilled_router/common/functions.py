"""Lambda functions as this package makes them: own role, own log group, no managed policy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
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
from distilled_router.env import Env

# The version that the tests and the emulator run; a newer runtime would be one that nothing was tried on.
RUNTIME = lambda_.Runtime.PYTHON_3_13
assert RUNTIME.name == "python{}.{}".format(*bundles.RUNTIME)

TIMEOUT = cdk.Duration.minutes(5)

# All variables of a function together, names and values (AWS Lambda quotas).
MOST_BYTES = 4096
# What a part that is known only at deployment counts for: an ARN with room to spare.
UNKNOWN_BYTES = 150
# A part that is known only at deployment, as the CDK writes it into a string.
_TOKEN = re.compile(r"\$\{Token\[[^\]]*\]\}")

_TASK = "distilled-router:task"


def use_task(scope: Construct, folder: Path) -> None:
    """Give all functions below `scope` the routing task of a folder.

    Call it before the first construct of `scope`, since context is fixed from then on. The default is the
    `task/` of a checkout; an installed wheel has none.
    """
    scope.node.set_context(_TASK, str(folder))


def _task_folder(scope: Construct) -> Path | None:
    folder = scope.node.try_get_context(_TASK)
    return Path(folder) if folder else None


@dataclass(frozen=True, kw_only=True)
class FunctionProps:
    """What one function may use.

    Args:
        timeout: after it Lambda ends an invocation.
        memory_mb: a function's share of a CPU grows with it.
        reserved_concurrency: executions reserved for it, which are also its limit. Default: none.
        tracing: whether Lambda sends X-Ray traces of it.
        dead_letters: gets the events that failed in every try, where a function is invoked asynchronously.
    """

    timeout: cdk.Duration = TIMEOUT
    memory_mb: int = 256
    reserved_concurrency: int | None = None
    tracing: bool = False
    dead_letters: sqs.IQueue | None = None


DEFAULT_PROPS = FunctionProps()


class Function(lambda_.Function):
    """One entry point of one folder of `lambda/`.

    The role may be shared by the functions of one construct; each writes to its own log group only.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        handler: str,
        role: iam.Role,
        environment: Env,
        hosting: Hosting,
        description: str,
        caller: Caller,
        props: FunctionProps = DEFAULT_PROPS,
    ) -> None:
        """Bundle a folder with what its handler imports.

        Args:
            handler: `<folder>.<entry>`: the function `<entry>` of `lambda/<folder>/handler.py`.
            role: what it may do.
            environment: its variables, an instance of the class that its handler reads.
            hosting: where it runs, with which key, and how long its logs are kept.
            description: what it does, for whoever sees it in the console.
            caller: who invokes it.
            props: timeout, memory and the like.

        Raises:
            ValueError: the variables are larger than Lambda takes.
        """
        folder, _, entry = handler.partition(".")
        variables = environment.variables()
        _check_size(scope, construct_id, variables)
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
            environment=variables,
            log_group=group,
            logging_format=lambda_.LoggingFormat.TEXT,
            timeout=props.timeout,
            memory_size=props.memory_mb,
            description=description,
            reserved_concurrent_executions=props.reserved_concurrency,
            tracing=lambda_.Tracing.ACTIVE if props.tracing else lambda_.Tracing.DISABLED,
            dead_letter_queue=props.dead_letters,
        )
        hosting.place(self, role)
        self._accept(role, caller, is_traced=props.tracing)

    def _accept(self, role: iam.Role, caller: Caller, *, is_traced: bool) -> None:
        """Acknowledge what the checks find in every function."""
        if is_traced:
            acknowledge(
                role, "IAM5[Resource::*]", "The two actions that send traces take no resource (X-Ray)."
            )
        accept(self, caller)
        acknowledge(
            self,
            "L1",
            "python3.13 is what the tests and the local system run; a newer one is taken up with them.",
        )


def variables_size(variables: Mapping[str, str]) -> dict[str, int]:
    """Return the bytes that each variable takes, name and value, the largest first.

    A part that is known only at deployment counts as UNKNOWN_BYTES.
    """
    sizes = {
        name: len(name.encode()) + len(_TOKEN.sub("x" * UNKNOWN_BYTES, value).encode())
        for name, value in variables.items()
    }
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _check_size(scope: Construct, construct_id: str, variables: Mapping[str, str]) -> None:
    sizes = variables_size(variables)
    total = sum(sizes.values())
    if total > MOST_BYTES:
        largest, size = next(iter(sizes.items()))
        raise ValueError(
            f"{scope.node.path}/{construct_id}: its variables take {total:,} bytes, names and values; Lambda "
            f"takes {MOST_BYTES:,}. The largest is {largest} with {size:,}: make it smaller. For TAGS, give "
            "fewer or shorter tags."
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
