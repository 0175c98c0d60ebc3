"""A stand-in for Amazon Bedrock: a test double, on loopback, for the local system and the tests.

It speaks the wire protocol of `bedrock` and `bedrock-runtime` as botocore's own service models describe it,
and refuses what Bedrock refuses: patterns, lengths, enums, unions, names in use, lifecycles, quotas, models
that something still uses. Customization jobs, deployments, provisioned throughput, batch and evaluation jobs
move through their states on a clock that tests advance, or that runs faster than real time. Training is real
but small: a student learns from the job's rows (`student`), so that bad data makes a bad model. Teacher and
base models answer by keyword rules (`rules`); a judge grades by the distance of weights (`evaluations`).
Nothing here measures what Nova can do.

Use in a test:

    from local.bedrock import BedrockStandIn, ManualClock

    with BedrockStandIn() as bedrock:
        client = bedrock.client("bedrock")
        bedrock.fault("throttled", operation="GetModelCustomizationJob", count=2)
        bedrock.advance(3600)

As a process: `python -m local.bedrock --port 0 --port-file F --aws-endpoint URL --ca-bundle FILE`.

Control endpoints: `GET /_health`, `GET /_state`, `GET /_calls?operation=`, `GET|POST|DELETE /_faults`,
`POST /_lifecycle`, `POST /_latency`, `POST /_reset`. `faults` lists what can be ordered.

Where AWS documents no text or error class, this one is an assumption: Conflict for a custom model's or an
evaluation job's name in use, for stopping a job that has ended and for deleting throughput while it is
updated or committed; Validation for a deployment's or throughput's name in use. Not modelled: streaming,
tools, guardrails, invocation logs as training data, evaluation jobs without a judge or with generators,
import and copy jobs, verification of signatures, IAM policies of callers, throttling by itself.
"""

from local.bedrock.clock import Clock, ManualClock, ScaledClock
from local.bedrock.memory_s3 import MemoryS3
from local.bedrock.settings import Durations, Quotas, Settings
from local.bedrock.standin import BedrockStandIn

__all__ = [
    "BedrockStandIn",
    "Clock",
    "Durations",
    "ManualClock",
    "MemoryS3",
    "Quotas",
    "ScaledClock",
    "Settings",
]
