"""The variables with which AWS clients reach the local system, and those of its servers."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from local.keys import Keys
from local.state import REGION, State, private
from operate.environment import SETTINGS_VARIABLE

# The Python with the functions' packages that forks them, see local/emulator/preloading.py.
PRELOAD = "EMULATOR_PRELOAD"

# The caller's variables that servers inherit. Functions inherit all variables of the emulator, and a proxy, a
# profile or an endpoint of the caller would break their calls.
INHERITED = ("HOME", "LANG", "LC_ALL", "PATH", "TZ", "USER", "SYSTEMROOT")


def client(endpoint: str, bedrock: str, state: State, keys: Keys, region: str = REGION) -> dict[str, str]:
    """Return the variables with which `operate`, the CDK, the AWS CLI and any SDK reach the local system."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL_BEDROCK": bedrock,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock,
        "AWS_CA_BUNDLE": str(state.ca_bundle),
        "NODE_EXTRA_CA_CERTS": str(state.certificate),
        **keys.variables(),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        # The next three are for `operate` only.
        "EXECUTE_API_URL": f"{endpoint}/_aws/execute-api/{{api}}/$default",
        SETTINGS_VARIABLE: str(state.settings_file),
        "WATCH_SECONDS": "1",  # a job takes seconds here
    }


def server(path: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that every server of the local system starts with."""
    inherited = {key: environ[key] for key in INHERITED if key in environ}
    return {**inherited, "PATH": path, "PYTHONUNBUFFERED": "1"}


def emulator(
    port: int,
    bedrock: str,
    state: State,
    path: str,
    wait_scale: float,
    keys: Keys,
    region: str = REGION,
    *,
    preload: bool = False,
) -> dict[str, str]:
    """Return all variables of MiniStack: loopback only, with TLS and IAM; Bedrock is elsewhere."""
    return {
        **server(path),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": region,
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
        **({PRELOAD: sys.executable} if preload else {}),
        **keys.variables(),
        # Functions inherit these two, so that their Bedrock calls, and only those, go to the stand-in.
        "AWS_ENDPOINT_URL_BEDROCK": bedrock,
        "AWS_ENDPOINT_URL_BEDROCK_RUNTIME": bedrock,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def write(variables: Mapping[str, str], path: Path) -> None:
    """Write variables to a file that a shell can source, and that only its owner can read."""
    # A file that exists would keep its mode.
    path.unlink(missing_ok=True)
    with private():
        path.write_text(render(variables))


def render(variables: Mapping[str, str]) -> str:
    """Return variables as shell assignments, quoted where needed."""
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in variables.items())
