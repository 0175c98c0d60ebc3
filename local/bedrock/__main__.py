"""Run the stand-in as a process: `python -m local.bedrock --port 0 --port-file F --aws-endpoint URL`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local.bedrock.clock import ScaledClock
from local.bedrock.roles import Roles, policies_at
from local.bedrock.settings import Lag, Quotas, Settings
from local.bedrock.standin import BedrockStandIn
from local.certificate import server_context
from local.keys import TOKEN
from operate.printing import err


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the parsed command line."""
    parser = argparse.ArgumentParser(
        prog="python -m local.bedrock",
        description=f"A test double of Amazon Bedrock. Its control endpoints need the token in {TOKEN}.",
    )
    parser.add_argument("--port", type=int, default=0, help="0 (the default): any free port")
    parser.add_argument("--descriptor", type=int, help="open file of a listening socket, in place of a port")
    parser.add_argument("--port-file", type=Path, help="file that gets the port once the server listens")
    parser.add_argument(
        "--aws-endpoint", "--s3-endpoint", help="URL of S3 and IAM; without it, S3 is in memory"
    )
    parser.add_argument("--ca-bundle", help="certificate authorities to trust for that URL")
    parser.add_argument(
        "--certificate", nargs=2, metavar=("CHAIN", "KEY"), help="speak HTTPS with this certificate"
    )
    parser.add_argument(
        "--time-scale", type=float, default=600.0, help="divide the durations of jobs and deployments by this"
    )
    parser.add_argument(
        "--first-token-ms", type=float, default=0.0, help="delay before the first output token"
    )
    parser.add_argument("--token-ms", type=float, default=0.0, help="delay per output token")
    parser.add_argument(
        "--model-units", type=int, default=2, help="quota of model units for provisioned throughput"
    )
    parser.add_argument(
        "--requests-per-minute",
        type=int,
        help="quota of requests of each model; a deployment of Nova Micro takes 2000 (default: no limit, "
        "because an evaluation without the delays of a model exceeds it)",
    )
    parser.add_argument(
        "--lag",
        type=_lag,
        default=Lag(),
        help='how reads lag behind writes, as JSON: {"get_seconds": 30}; see local.bedrock.settings.Lag',
    )
    parser.add_argument("--account", default="000000000000")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--log", action="store_true", help="print a line per call to stderr")
    return parser.parse_args(given)


def _lag(text: str) -> Lag:
    return Lag().changed(json.loads(text))


def aws_client(service: str, options: argparse.Namespace) -> Any:
    """Return a boto3 client for the local AWS, with the keys in the environment."""
    return boto3.client(
        service,  # type: ignore[call-overload] # the stubs know literal names only
        endpoint_url=options.aws_endpoint,
        region_name=options.region,
        verify=options.ca_bundle,
        config=Config(
            connect_timeout=60,
            read_timeout=60,
            retries={"mode": "standard", "total_max_attempts": 3},
            s3={"addressing_style": "path"},
            proxies={},
        ),
    )


def main(given: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    options = arguments(given)
    local_aws = options.aws_endpoint is not None
    token = os.environ.get(TOKEN)
    stand_in = BedrockStandIn(
        clock=ScaledClock(options.time_scale),
        s3=aws_client("s3", options) if local_aws else None,
        role_exists=Roles(aws_client("iam", options)).is_assumable if local_aws else None,
        authorize=policies_at(options.aws_endpoint, options.ca_bundle, token or "") if local_aws else None,
        settings=Settings(
            account=options.account,
            region=options.region,
            first_token_ms=options.first_token_ms,
            token_ms=options.token_ms,
            quotas=Quotas(model_units=options.model_units, requests_per_minute=options.requests_per_minute),
            lag=options.lag,
        ),
        port=options.port,
        descriptor=options.descriptor,
        tls=server_context(*options.certificate) if options.certificate else False,
        token=token,
        log=options.log,
    )
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with stand_in:
        if options.port_file is not None:
            # A reader that waits for the file must never see it half written.
            part = options.port_file.with_name(f"{options.port_file.name}.part")
            part.write_text(f"{stand_in.port}\n")
            part.replace(options.port_file)
        err(f"Bedrock stand-in (a test double) at {stand_in.endpoint}")
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
