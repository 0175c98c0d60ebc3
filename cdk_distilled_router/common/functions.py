"""Lambda functions of this package: explicit role, own log group, no managed policy."""

from __future__ import annotations

import json
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

# The version that the tests and the emulator run; newer runtimes are untested.
RUNTIME = lambda_.Runtime.PYTHON_3_13
assert RUNTIME.name == "python{}.{}".format(*bundles.RUNTIME)

TIMEOUT = cdk.Duration.minutes(5)

# Limit of all variables of a function (AWS Lambda quotas). Lambda measures their JSON, in which quotes inside
# a value take two bytes: its error text shows what it measured
# (github-aws-runners/terraform-aws-github-runner#3594).
MOST_BYTES = 4096
# Assumed size of a part that is known only at deployment: an ARN with room to spare.
UNKNOWN_BYTES = 150
# A part that is known only at deployment, as the CDK encodes it in a string.
_TOKEN = re.compile(r"\$\{Token\[[^\]]*\]\}")

_TASK = "distilled-router:task"


def use_task(scope: Construct, folder: Path) -> None:
    """Set the routing task of all functions in `scope`: labels, prompts and limits.

    Call it before the first construct in `scope`, because the CDK doesn't allow later changes of context. The
    default is the checkout's `task/`; an installed wheel has no default.

    Example::

        use_task(app, Path(__file__).parent / "task")

    Args:
        scope: app, stack or construct.
        folder: has `task.toml`, `teacher_prompt.txt` and `student_prompt.txt`.
    """
    scope.node.set_context(_TASK, str(folder))


def _task_folder(scope: Construct) -> Path | None:
    folder = scope.node.try_get_context(_TASK)
    return Path(folder) if folder else None


@dataclass(frozen=True, kw_only=True)
class FunctionProps:
    """Resources of a function.

    Args:
        timeout: Lambda ends an invocation after this time.
        memory_mb: memory; the share of a CPU grows with it.
        reserved_concurrency: reserved concurrent executions, which are also the limit. Default: none.
        tracing: whether Lambda sends X-Ray traces.
        dead_letters: receives events that failed in all retries of an asynchronous invocation.
    """

    timeout: cdk.Duration = TIMEOUT
    memory_mb: int = 256
    reserved_concurrency: int | None = None
    tracing: bool = False
    dead_letters: sqs.IQueue | None = None


DEFAULT_PROPS = FunctionProps()


class Function(lambda_.Function):
    """A function with one entry point of a folder in `lambda/`.

    Functions of one construct may share a role. Each function has its own log group.
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
        """Declare the function with its bundle and log group.

        Args:
            handler: `<folder>.<entry>` for the function `<entry>` in `lambda/<folder>/handler.py`.
            role: the function's role; gets permissions for logs, VPC and key.
            environment: the variables, an instance of the class that the handler reads.
            hosting: VPC, key and log retention.
            description: shown in the console.
            caller: who invokes it.
            props: timeout, memory, concurrency, tracing and dead-letter queue.

        Raises:
            VariablesError: the variables are too large for Lambda.
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
        """Acknowledge the findings that every function has."""
        if is_traced:
            acknowledge(role, "IAM5[Resource::*]", "X-Ray's actions to send traces don't support resources.")
        accept(self, caller)
        acknowledge(
            self,
            "L1",
            "The tests and the local system run python3.13; all move to a newer version together.",
        )


class VariablesError(ValueError):
    """The variables of a function are too large for Lambda."""


def variables_size(variables: Mapping[str, str]) -> dict[str, int]:
    """Return the size of each variable in bytes, as Lambda measures it, the largest first.

    A part that is known only at deployment counts as UNKNOWN_BYTES.
    """
    known = {name: _TOKEN.sub("x" * UNKNOWN_BYTES, value) for name, value in variables.items()}
    sizes = {
        name: len(json.dumps({name: value}, separators=(",", ":"), ensure_ascii=False).encode()) - 1
        for name, value in known.items()
    }
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _check_size(scope: Construct, construct_id: str, variables: Mapping[str, str]) -> None:
    sizes = variables_size(variables)
    total = sum(sizes.values()) + 1  # each variable has a comma or a brace behind it
    if total > MOST_BYTES:
        largest, size = next(iter(sizes.items()))
        raise VariablesError(
            f"{scope.node.path}/{construct_id}: its variables take {total:,} bytes as JSON; Lambda allows "
            f"{MOST_BYTES:,}. The largest is {largest} with {size:,}: make it smaller. For "
            "TAGS, use fewer or shorter tags."
        )


def _asset(bundle: Path) -> lambda_.AssetCode:
    """Return a bundle as an asset, hashed by its sources.

    Compiled code is left out of the hash: it may differ in a byte between two Pythons of the same version.
    """
    sources = cdk.FileSystem.fingerprint(str(bundle), exclude=[bundles.COMPILED])
    compiled = "compiled" if bundles.is_compiled() else "sources"
    return lambda_.Code.from_asset(str(bundle), asset_hash=f"{sources} {compiled}")


def dependencies(scope: Construct) -> lambda_.LayerVersion:
    """Return the stack's layer with boto3 and Powertools.

    Each stack has its own: a layer version changes, and an export that another stack imports can't.
    """
    stack = cdk.Stack.of(scope)
    existing = stack.node.try_find_child("Dependencies")
    if isinstance(existing, lambda_.LayerVersion):
        return existing
    return lambda_.LayerVersion(
        stack,
        "Dependencies",
        # CloudFormation's own name would not contain the stack's, by which permissions are limited.
        layer_version_name=f"{stack.stack_name}-dependencies",
        code=_asset(bundles.dependencies_bundle()),
        compatible_runtimes=[RUNTIME],
        description="boto3 and Powertools, pinned in lambda/requirements.txt",
    )
