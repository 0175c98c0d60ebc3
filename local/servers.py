"""The servers of the local system: the AWS emulator, the Bedrock stand-in and the metrics bridge."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from botocore.exceptions import BotoCoreError

from local import certificate, environment
from local.keys import Keys
from local.state import ACCOUNT, REGION, State, private
from operate import processes, web
from operate.cdk import tool_path
from operate.environment import read_variables
from operate.errors import OperateError
from stacks.settings import PROJECT

# An hour of training takes six seconds; a deployment of eight minutes takes less than one.
TIME_SCALE = 600
# A start takes a few seconds; much longer on a busy machine.
START_SECONDS = 120.0
EMULATOR = PROJECT / "local" / "emulator"
# An environment of its own inside the virtual environment: the emulator pins botocore.
EMULATOR_PYTHON = Path(sys.prefix) / "emulator" / "bin" / "python"


@dataclass(frozen=True)
class Server:
    """One server, as it is recorded in the state folder."""

    name: str
    pid: int
    url: str


@dataclass(frozen=True)
class Servers:
    """The running servers of one local system."""

    emulator: Server
    bedrock: Server
    bridge: Server
    keys: Keys
    region: str = REGION

    @property
    def all(self) -> tuple[Server, ...]:
        """All servers in the order in which to stop them: callers first."""
        return (self.bridge, self.emulator, self.bedrock)

    def check_region(self, region: str) -> None:
        """Raise OperateError if the servers stand for another Region."""
        if self.region != region:
            raise OperateError(
                f"The local system runs in {self.region}, and not in {region}.",
                advice="Run `make local-down` first.",
            )

    def variables(self, state: State) -> dict[str, str]:
        """Return the variables with which AWS clients reach these servers."""
        return environment.client(self.emulator.url, self.bedrock.url, state, self.keys, self.region)


def _tag(state: State, name: str) -> str:
    return f"{state.root}/{name}"


def recorded(state: State) -> list[Server]:
    """Return the recorded servers, whether they run or not."""
    try:
        return [Server(**entry) for entry in json.loads(state.servers.read_text())]
    except (OSError, ValueError, TypeError):
        return []


def alive(state: State, server: Server) -> bool:
    """Tell whether a recorded server still runs, and is the process that we started."""
    return processes.is_ours(server.pid, _tag(state, server.name))


def running(state: State) -> Servers | None:
    """Return the servers if all of them run and their keys are known."""
    found = {server.name: server for server in recorded(state) if alive(state, server)}
    if set(found) != {"emulator", "bedrock", "bridge"}:
        return None
    try:
        variables = read_variables(state.env)
        return Servers(**found, keys=Keys.of(variables), region=variables["AWS_REGION"])
    except (OSError, KeyError):  # servers of an older version have no keys
        return None


def stop(state: State) -> list[str]:
    """Stop the recorded servers that still run, by process id; return their names."""
    servers = {server.name: server for server in recorded(state)}
    order = ("bridge", "emulator", "bedrock")
    stopped = [
        name for name in order if name in servers and processes.stop(servers[name].pid, _tag(state, name))
    ]
    state.clean()
    return stopped


def start(
    state: State,
    region: str = REGION,
    *,
    time_scale: float = TIME_SCALE,
    wait_scale: float = 1,
    preload: bool = False,
) -> Servers:
    """Start all servers and wait until they answer. Earlier ones must have been stopped.

    Args:
        region: The Region that they stand for.
        time_scale: The speed of the Bedrock stand-in's clock.
        wait_scale: The factor for a state machine's waits and for its pauses between retries.
        preload: Fork functions from a process that has imported boto3, whatever their layer holds.

    Raises:
        OperateError: The emulator is not installed, or a server ended at once or did not answer in time. None
            is left running.
    """
    if not EMULATOR_PYTHON.exists():
        raise OperateError(
            "The AWS emulator is not installed.", advice="Remove .venv and run `make install`."
        )
    state.prepare()
    try:
        with private():
            certificate.create(state.certificate, state.certificate_key)
            with processes.listener() as emulator, processes.listener() as bedrock:
                return _start(state, (emulator, bedrock), region, time_scale, wait_scale, preload=preload)
    except BaseException:
        stop(state)
        raise


def _start(
    state: State,
    listeners: tuple[socket.socket, socket.socket],
    region: str,
    time_scale: float,
    wait_scale: float,
    *,
    preload: bool,
) -> Servers:
    """Start the servers on the listeners of the emulator and of Bedrock, which are closed here."""
    emulator_port, bedrock_port = (int(each.getsockname()[1]) for each in listeners)
    emulator_url, bedrock_url = f"https://127.0.0.1:{emulator_port}", f"https://127.0.0.1:{bedrock_port}"
    path, keys = tool_path(), Keys.create()

    emulator = _launch(
        state,
        Server("emulator", 0, emulator_url),
        _emulator_arguments(listeners[0].fileno()),
        environment.emulator(
            emulator_port, bedrock_url, state, path, wait_scale, keys, region, preload=preload
        ),
        listeners[0],
    )
    _wait(state, emulator, lambda: _emulator_answers(state, emulator_url))
    certificate.write_bundle(state.certificate, state.ca_bundle)
    variables = environment.client(emulator_url, bedrock_url, state, keys, region)
    environment.write(variables, state.env)

    bedrock = _launch(
        state,
        Server("bedrock", 0, bedrock_url),
        [
            *("-m", "local.bedrock"),
            *_bedrock_arguments(listeners[1].fileno(), emulator_url, state, region, time_scale),
        ],
        environment.server(path) | variables,
        listeners[1],
    )
    bridge = _launch(
        state,
        Server("bridge", 0, emulator_url),
        ["-m", "local.metrics_bridge"],
        environment.server(path) | variables,
    )
    _wait(state, bedrock, lambda: _bedrock_answers(state, bedrock_url))
    return Servers(emulator, bedrock, bridge, keys, region)


def _emulator_arguments(descriptor: int) -> list[str]:
    """Return the arguments that run MiniStack by its ASGI server: its own main would also take port 443."""
    return [
        str(EMULATOR),
        *("--bind", f"fd://{descriptor}", "--workers", "0", "--keep-alive", "75"),
        *("--config", "python:ministack.core.hypercorn_conf"),
    ]


def _bedrock_arguments(
    descriptor: int, emulator_url: str, state: State, region: str, time_scale: float
) -> list[str]:
    return [
        *("--descriptor", str(descriptor)),
        *("--aws-endpoint", emulator_url),
        *("--ca-bundle", str(state.ca_bundle)),
        *("--certificate", str(state.certificate), str(state.certificate_key)),
        *("--account", ACCOUNT, "--region", region),
        *("--time-scale", str(time_scale)),
        "--log",
    ]


def _launch(
    state: State,
    server: Server,
    arguments: list[str],
    variables: dict[str, str],
    listener: socket.socket | None = None,
) -> Server:
    """Start one server and record it at once, so that it can be stopped whatever happens next.

    It takes over the listener, which is closed here.
    """
    # `python -m` puts the working folder on the import path, and the emulator must not import the project.
    is_emulator = server.name == "emulator"
    cwd = state.root / "emulator" if is_emulator else PROJECT
    python = EMULATOR_PYTHON if is_emulator else Path(sys.executable)
    log = state.log(server.name)
    log.unlink(missing_ok=True)
    inherited = [listener.fileno()] if listener else []
    pid = processes.start(arguments, _tag(state, server.name), variables, cwd, log, python, inherited)
    if listener:
        listener.close()
    started = Server(server.name, pid, server.url)
    entries = [asdict(entry) for entry in (*recorded(state), started)]
    state.servers.write_text(json.dumps(entries, indent=2) + "\n")
    return started


def _wait(state: State, server: Server, answers: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if answers():
            return
        if not alive(state, server):
            raise OperateError(
                f"The {server.name} server ended as soon as it started.",
                log=state.log(server.name),
                advice="Run `make local` again. If that doesn't help, remove .venv and .local first.",
            )
        time.sleep(0.05)
    raise OperateError(
        f"The {server.name} server did not answer at {server.url} in {START_SECONDS:.0f} s.",
        log=state.log(server.name),
        advice="The machine may be too busy. Run `make local` again.",
    )


def _emulator_answers(state: State, url: str) -> bool:
    with contextlib.suppress(BotoCoreError):
        return web.get(f"{url}/_ministack/health", verify=state.certificate).status_code == 200
    return False


def _bedrock_answers(state: State, url: str) -> bool:
    with contextlib.suppress(BotoCoreError):
        return web.get(f"{url}/_health", verify=state.certificate).status_code == 200
    return False
