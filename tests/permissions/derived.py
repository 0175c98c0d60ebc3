"""Calls that can't be recorded, because the emulator makes them without asking IAM.

They follow from the templates: what a state machine's definition calls, the keys of what is encrypted, the
log groups, the queues and the networks of functions, and what X-Ray and the delivery of logs take.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.permissions.calls import Call, masked
from tests.permissions.grants import Environment
from tests.stacks.assembly import Resource, walk

REGION = "us-east-1"
KEY = "<Key.Arn>"
# What a state machine needs to write its log (Step Functions developer guide, cw-logs), and to trace.
LOG_DELIVERY = (
    "CreateLogDelivery",
    "DeleteLogDelivery",
    "DescribeLogGroups",
    "DescribeResourcePolicies",
    "GetLogDelivery",
    "ListLogDeliveries",
    "PutResourcePolicy",
    "UpdateLogDelivery",
)
# Bedrock describes the key of what an evaluation job reads and writes (Bedrock user guide,
# model-evaluation-security-kms).
JUDGE = "ReleaseJudgeRole"
TRACING = ("GetSamplingRules", "GetSamplingTargets", "PutTelemetryRecords", "PutTraceSegments")


def derived(environment: Environment, recorded: Iterable[Call]) -> set[Call]:
    """Return the calls that follow from an environment's templates and its roles' recorded calls."""
    calls = {call for machine in _machines(environment) for call in _of_machine(environment, machine)}
    calls |= {*_logs(environment), *_traces(environment), *_dead_letters(environment)}
    calls |= {*_network(environment), *_variables(environment)}
    return calls | set(_encryption(environment, {*recorded, *calls}))


def _machines(environment: Environment) -> list[Resource]:
    return environment.assembly.resources("AWS::StepFunctions::StateMachine")


def _role(environment: Environment, resource: Resource, name: str) -> str:
    """Return the name of the role in a property of a resource."""
    shown = str(environment.plain(resource.properties[name]))
    return shown.removeprefix("<").removesuffix(".Arn>")


def _of_machine(environment: Environment, machine: Resource) -> Iterator[Call]:
    role = _role(environment, machine, "RoleArn")
    for state in states(environment, machine):
        yield from _of_state(role, machine.name, state)
    if "LoggingConfiguration" in machine.properties:
        yield from (Call(role, f"logs:{action}", "*") for action in LOG_DELIVERY)
    if "EncryptionConfiguration" in machine.properties:
        yield from _of_encrypted_machine(environment, role, machine)
    if machine.properties.get("TracingConfiguration", {}).get("Enabled"):
        yield from (Call(role, f"xray:{action}", "*") for action in TRACING)


def _of_encrypted_machine(environment: Environment, role: str, machine: Resource) -> Iterator[Call]:
    """A state machine's role uses the key directly, for executions and for what is logged of them (Step
    Functions developer guide, encryption-at-rest)."""
    # One that CloudFormation names has its stack's name before it.
    owner = environment.assembly.settings.owner
    name = machine.properties.get("StateMachineName", f"{owner}-{machine.name}")
    arn = f"arn:aws:states:{REGION}:{{account}}:stateMachine:{masked(f':{name}', owner).removeprefix(':')}"
    context = (("kms:EncryptionContext:aws:states:stateMachineArn", arn),)
    yield from (Call(role, f"kms:{action}", KEY, context) for action in ("Decrypt", "GenerateDataKey"))
    if "LoggingConfiguration" in machine.properties:
        delivery = f"arn:aws:logs:{REGION}:{{account}}:*"
        yield Call(role, "kms:GenerateDataKey", KEY, (("kms:EncryptionContext:SourceArn", delivery),))


def states(environment: Environment, machine: Resource) -> Iterator[Mapping[str, Any]]:
    """Yield all states of a definition, including those in maps and branches."""
    definition = environment.plain(environment.assembly.definition(machine))
    yield from (state for value in walk(definition) if isinstance(value, dict) for state in _states_of(value))


def _states_of(value: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    found = value.get("States")
    return found.values() if isinstance(found, dict) else ()


def _of_state(role: str, machine: str, state: Mapping[str, Any]) -> Iterator[Call]:
    match state:
        case {"Type": "Task", "Resource": "arn:aws:states:::sns:publish", "Parameters": {"TopicArn": topic}}:
            yield Call(role, "sns:Publish", topic)
        case {"Type": "Task", "Resource": str(function)} if function.startswith("<"):
            yield Call(role, "lambda:InvokeFunction", function)
        case {"Type": "Task", "Resource": resource}:
            raise NotImplementedError(f"{machine}: what {resource} needs is not known here")
        case {"Type": "Map", "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED"}}}:
            yield from _of_map(role, machine, state)


def _of_map(role: str, machine: str, state: Mapping[str, Any]) -> Iterator[Call]:
    """A distributed map begins executions of its own machine and follows them (Step Functions developer
    guide, iam-policies-eg-dist-map)."""
    execution = f"arn:aws:states:{REGION}:{{account}}:execution:<{machine}.Name>"
    yield Call(role, "states:StartExecution", f"<{machine}>")
    yield Call(role, "states:DescribeExecution", f"{execution}:{{id}}")
    yield Call(role, "states:StopExecution", f"{execution}:{{id}}")
    yield Call(role, "states:RedriveExecution", f"{execution}/{state['Label']}:{{id}}")
    reader = state["ItemReader"]
    assert reader["Resource"] == "arn:aws:states:::s3:listObjectsV2", reader
    bucket, prefix = (
        next(str(value) for name, value in reader["Parameters"].items() if name.startswith(what))
        for what in ("Bucket", "Prefix")
    )
    bucket = f"<{bucket.removeprefix('<').removesuffix('>')}.Arn>"
    yield Call(role, "s3:ListBucket", bucket, (("s3:prefix", prefix),))


def _traces(environment: Environment) -> Iterator[Call]:
    """Yield the calls for traces: Lambda sends segments with the function's role."""
    for function in environment.assembly.resources("AWS::Lambda::Function"):
        if function.properties.get("TracingConfig", {}).get("Mode") == "Active":
            role = _role(environment, function, "Role")
            yield from (Call(role, f"xray:{action}", "*") for action in TRACING if action.startswith("Put"))


def _dead_letters(environment: Environment) -> Iterator[Call]:
    """Yield the calls for dead letters: Lambda sends failed events with the function's role."""
    for function in environment.assembly.resources("AWS::Lambda::Function"):
        if dead_letters := function.properties.get("DeadLetterConfig"):
            queue = str(environment.plain(dead_letters["TargetArn"]))
            yield Call(_role(environment, function, "Role"), "sqs:SendMessage", queue)


def _logs(environment: Environment) -> Iterator[Call]:
    for function in environment.assembly.resources("AWS::Lambda::Function"):
        role = _role(environment, function, "Role")
        group = str(environment.plain(function.properties["LoggingConfig"]["LogGroup"]))
        for action in ("CreateLogStream", "PutLogEvents"):
            yield Call(role, f"logs:{action}", f"<{group.removeprefix('<').removesuffix('>')}.Arn>")


def _network(environment: Environment) -> Iterator[Call]:
    """What Lambda does with a function's role for its network interfaces (Lambda developer guide,
    configuration-vpc): without the function's ARN among the keys, which its code's calls carry."""
    for function in environment.assembly.resources("AWS::Lambda::Function"):
        network = environment.plain(function.properties.get("VpcConfig", {}))
        if not network:
            continue
        role, ec2 = _role(environment, function, "Role"), f"arn:aws:ec2:{REGION}:{{account}}"
        placed = [f"{ec2}:subnet/{name}" for name in network["SubnetIds"]]
        placed += [f"{ec2}:security-group/{name}" for name in network["SecurityGroupIds"]]
        interface = f"{ec2}:network-interface/{{id}}"
        yield from (Call(role, "ec2:CreateNetworkInterface", name) for name in (interface, *placed))
        for action in ("DeleteNetworkInterface", "AssignPrivateIpAddresses", "UnassignPrivateIpAddresses"):
            yield Call(role, f"ec2:{action}", interface)
        # Whether Lambda sees these permissions when it creates the function: `Environment.refused`.
        for action in ("DescribeNetworkInterfaces", "DescribeSubnets"):
            yield Call(role, f"ec2:{action}", "*")


def _variables(environment: Environment) -> Iterator[Call]:
    """Yield the calls for variables: Lambda decrypts them with the function's role."""
    for function in environment.assembly.resources("AWS::Lambda::Function"):
        if "KmsKeyArn" in function.properties:
            assert environment.plain(function.properties["KmsKeyArn"]) == KEY, function.name
            via = (("kms:ViaService", f"lambda.{REGION}.amazonaws.com"),)
            yield Call(_role(environment, function, "Role"), "kms:Decrypt", KEY, via)


def _encryption(environment: Environment, calls: Iterable[Call]) -> Iterator[Call]:
    """Yield the use of keys: each service calls KMS with the caller's permissions and its own name."""
    encrypted = set(_encrypted(environment))
    machines = any("EncryptionConfiguration" in machine.properties for machine in _machines(environment))
    for call in calls:
        service, _, action = call.action.partition(":")
        if machines and call.action == "states:DescribeExecution" and _is_a_function(environment, call.role):
            yield Call(call.role, "kms:Decrypt", KEY, (("kms:ViaService", f"states.{REGION}.amazonaws.com"),))
        resource = call.resource.partition("/")[0]
        if resource not in encrypted or call.role not in environment.roles:
            continue
        via = (("kms:ViaService", f"{service}.{REGION}.amazonaws.com"),)
        if (service, action) == ("s3", "PutObject"):
            # Decrypt: a large object is put in parts.
            yield from (Call(call.role, f"kms:{use}", KEY, via) for use in ("GenerateDataKey", "Decrypt"))
        elif (service, action) == ("s3", "GetObject") or service == "dynamodb":
            yield Call(call.role, "kms:Decrypt", KEY, via)
        elif (service, action) == ("sns", "Publish"):
            yield from (Call(call.role, f"kms:{use}", KEY, via) for use in ("GenerateDataKey", "Decrypt"))
    if _model_key(environment):
        yield from _with_model_key(calls)
    if JUDGE in environment.roles:
        yield Call(JUDGE, "kms:DescribeKey", KEY)


def _is_a_function(environment: Environment, role: str) -> bool:
    """Whether functions have this role. A map's own machine looks at its children without describing them."""
    return environment.trusted(role) == "lambda.amazonaws.com"


def _encrypted(environment: Environment) -> Iterator[str]:
    """Yield the resources encrypted with the stacks' key, by their names in policies."""
    properties = {
        "AWS::S3::Bucket": ("BucketEncryption", "<{}.Arn>"),
        "AWS::DynamoDB::Table": ("SSESpecification", "<{}.Arn>"),
        "AWS::SNS::Topic": ("KmsMasterKeyId", "<{}>"),
    }
    for kind, (name, shown) in properties.items():
        for resource in environment.assembly.resources(kind):
            if KEY in str(environment.plain(resource.properties.get(name))):
                yield shown.format(resource.name)


def _model_key(environment: Environment) -> bool:
    """Return whether models have a customer managed key."""
    return environment.assembly.settings.encryption.model_key


def _with_model_key(calls: Iterable[Call]) -> Iterator[Call]:
    """As the stand-in asks where a model has a key of its own (Bedrock user guide, encryption-custom-job)."""
    via = (("kms:ViaService", f"bedrock.{REGION}.amazonaws.com"),)
    actions: tuple[str, ...]
    for call in calls:
        match call.action:
            case "bedrock:CreateModelCustomizationJob":
                actions = ("CreateGrant", "DescribeKey", "GenerateDataKey", "Decrypt")
            case "bedrock:InvokeModel" if "custom-model-deployment/" in call.resource:
                actions = ("Decrypt",)
            case "bedrock:InvokeModel" if "provisioned-model/" in call.resource:
                actions = ("Decrypt",)
            case _:
                continue
        yield from (Call(call.role, f"kms:{action}", KEY, via) for action in actions)
