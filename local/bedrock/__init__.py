"""A stand-in for Amazon Bedrock: a test double for the local system and the tests.

It speaks the wire protocol of `bedrock` and `bedrock-runtime` as botocore's service models describe it, and
refuses the same requests as Bedrock: wrong patterns, lengths, enums and unions, names in use, models past
their end of life, exceeded quotas, deletion of models in use. Customization jobs, deployments, provisioned
throughput, batch and evaluation jobs move through their states on a clock that tests advance, or on one that
runs faster than real time. Training is real but small: a student learns from the job's rows (`student`), so
bad data gives a bad model. Teacher and base models answer by keyword rules (`rules`); a judge grades by the
distance between weights (`evaluations`). None of this measures the quality of Nova.

Use in a test:

    from local.bedrock import BedrockStandIn, ManualClock

    with BedrockStandIn() as bedrock:
        client = bedrock.client("bedrock")
        bedrock.fault("throttled", operation="GetModelCustomizationJob", count=2)
        bedrock.advance(3600)

As a process: `python -m local.bedrock --port 0 --port-file F --aws-endpoint URL --ca-bundle FILE`, and with
`--certificate CHAIN KEY` over TLS.

Control endpoints: `GET /_health`, `GET /_state`, `GET /_calls?operation=`, `GET|POST|DELETE /_faults`,
`GET|POST|DELETE /_lag`, `POST /_lifecycle`, `POST /_latency`, `POST /_reset`. All but the first need the
stand-in's token in a header: see `local.control`. `faults` lists the faults that can be injected;
`settings.Lag` says how reads lag behind writes, which they do not unless it is set.

AWS does not document every error class. These are assumptions: Conflict for the name of a job or a custom
model in use (`settings.Settings.name_in_use` changes it), for stopping a job that has ended and for deleting
throughput while it is updated or committed; Validation for the name of a deployment or throughput in use. Not
modelled: streaming, tools, guardrails, invocation logs as a job's training data (they are written to S3),
evaluation jobs without a judge or with generators, import and copy jobs, verification of signatures, request
rate limits. Callers' IAM policies are checked only with `authorize`.
"""

from local.bedrock.clock import Clock, ManualClock, ScaledClock
from local.bedrock.memory_s3 import MemoryS3
from local.bedrock.settings import Durations, Lag, Quotas, Settings
from local.bedrock.standin import BedrockStandIn, Tls

__all__ = [
    "BedrockStandIn",
    "Clock",
    "Durations",
    "Lag",
    "ManualClock",
    "MemoryS3",
    "Quotas",
    "ScaledClock",
    "Settings",
    "Tls",
]
