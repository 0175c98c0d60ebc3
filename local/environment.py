"""Environment variables: those that point AWS clients at the local system, and the emulator's own."""

from __future__ import annotations

import os
import shlex
import ssl
from collections.abc import Mapping
from pathlib import Path

import botocore

from local.state import REGION, State

# The emulator's root user. It accepts no other key until one is made with its IAM.
ACCESS_KEY = "test"
SECRET_KEY = "test"  # noqa: S105 - the emulator's well-known key, worth nothing anywhere else

# Tells the emulator to fork its functions, see local/emulator/preloading.py.
PRELOAD = "EMULATOR_PRELOAD"

# What a server may see of the caller's environment. Lambdas inherit everything the emulator has, so an
# endpoint, a profile or a proxy of the caller's would reach them and hang their calls.
INHERITED = ("HOME", "LANG", "LC_ALL", "PATH", "TZ", "USER", "SYSTEMROOT")


def client(endpoint: str, bedrock: str, state: State) -> dict[str, str]:
    """Variables with which any AWS SDK, the CDK and the AWS CLI reach the local system and nothing else."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL_BEDROCK": bedrock,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock,
        "AWS_CA_BUNDLE": str(state.ca_bundle),
        "NODE_EXTRA_CA_CERTS": str(state.certificate),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def without_aws(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return `environ` without anything that tells an AWS client where to go or who it is."""
    ours = ("AWS_", "CDK_DEFAULT_", "NODE_EXTRA_CA_CERTS")
    kept = {key: value for key, value in environ.items() if not key.startswith(ours)}
    # A proxy of the caller's can't reach this machine's loopback.
    direct = ",".join(filter(None, ["127.0.0.1", kept.get("NO_PROXY") or kept.get("no_proxy")]))
    return {**kept, "NO_PROXY": direct, "no_proxy": direct}


def without_access(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return `environ` so that no AWS client can find credentials, on this machine or around it."""
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return {**without_aws(environ), **nowhere, "AWS_EC2_METADATA_DISABLED": "true"}


def server(path: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what every server of the local system starts with."""
    inherited = {key: environ[key] for key in INHERITED if key in environ}
    return {**inherited, "PATH": path, "PYTHONUNBUFFERED": "1"}


def emulator(
    port: int, bedrock: str, state: State, path: str, wait_scale: float, *, preload: bool = False
) -> dict[str, str]:
    """Return MiniStack's whole environment: loopback only, IAM enforced, TLS, Bedrock elsewhere."""
    return {
        **server(path),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": REGION,
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "AUTH": "true",
        "USE_SSL": "1",
        "MINISTACK_SSL_CERT": str(state.certificate),
        "MINISTACK_SSL_KEY": str(state.certificate_key),
        "STATE_DIR": str(state.root / "emulator"),
        "S3_DATA_DIR": str(state.root / "emulator" / "s3"),
        "TMPDIR": str(state.tmp),
        "SFN_WAIT_SCALE": str(wait_scale),
        **({PRELOAD: "1"} if preload else {}),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        # Lambdas inherit these two, so that their Bedrock calls, and only those, go to the stand-in.
        "AWS_ENDPOINT_URL_BEDROCK": bedrock,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def write(variables: Mapping[str, str], path: Path) -> None:
    """Write `variables` as lines that a shell can source."""
    path.write_text(render(variables))


def render(variables: Mapping[str, str]) -> str:
    """Return `variables` as shell assignments, quoted where needed."""
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in variables.items())


def read(path: Path) -> dict[str, str]:
    """Read what `write` wrote."""
    pairs = (line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    return {key: "".join(shlex.split(value)) for key, value in pairs}


def write_ca_bundle(certificate: Path, bundle: Path) -> None:
    """Join the system's authorities and the emulator's certificate: AWS_CA_BUNDLE replaces the former."""
    paths = ssl.get_default_verify_paths()
    botocores = Path(botocore.__file__).parent / "cacert.pem"
    system = Path(paths.cafile) if paths.cafile else botocores
    bundle.write_bytes(system.read_bytes() + b"\n" + certificate.read_bytes())
