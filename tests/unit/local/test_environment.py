"""The variables that the local system gets, and those that it must not get."""

import subprocess
from pathlib import Path

import pytest

from local import certificate, environment
from local.state import State
from operate.environment import read_variables


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "a folder's name")


def test_shell_reads_the_written_variables(state: State) -> None:
    state.prepare()
    variables = environment.client("https://127.0.0.1:1", "http://127.0.0.1:2", state)
    environment.write(variables, state.env)
    shell = subprocess.run(
        ["sh", "-c", 'set -a; . "$1"; env -0', "sh", str(state.env)],
        capture_output=True,
        text=True,
        check=True,
        env={},
    )
    exported = dict(pair.split("=", 1) for pair in shell.stdout.split("\0") if pair)
    assert {key: exported.get(key) for key in variables} == variables
    assert read_variables(state.env) == variables


def test_clients_find_both_servers_and_trust_the_emulator(state: State) -> None:
    variables = environment.client("https://127.0.0.1:1", "http://127.0.0.1:2", state)
    assert variables["AWS_ENDPOINT_URL"] == "https://127.0.0.1:1"
    assert variables["AWS_ENDPOINT_URL_BEDROCK"] == "http://127.0.0.1:2"
    assert variables["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] == "http://127.0.0.1:2"
    assert variables["AWS_CA_BUNDLE"] == str(state.ca_bundle)
    assert variables["NODE_EXTRA_CA_CERTS"] == str(state.certificate)


def test_operate_finds_api_and_settings_of_the_local_system(
    state: State, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOCAL_ENVIRONMENTS", str(tmp_path))
    variables = environment.client("https://127.0.0.1:1", "http://127.0.0.1:2", state)
    api = variables["EXECUTE_API_URL"].format(api="abc")
    assert api == "https://127.0.0.1:1/_aws/execute-api/abc/$default"
    assert variables["LOCAL_ENVIRONMENTS"] == str(tmp_path)


def test_emulator_does_not_inherit_the_callers_aws_configuration(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "of the caller")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the caller")
    started_with = environment.emulator(1, "http://127.0.0.1:2", state, "/bin", 1)
    assert "of the caller" not in started_with.values()


def test_the_emulator_listens_on_loopback_with_iam_and_tls(state: State) -> None:
    started_with = environment.emulator(4711, "http://127.0.0.1:2", state, "/bin", 1)
    expected = {"BIND_HOST": "127.0.0.1", "AUTH": "true", "USE_SSL": "1", "GATEWAY_PORT": "4711"}
    assert expected.items() <= started_with.items()
    assert started_with["AWS_ENDPOINT_URL_BEDROCK"] == "http://127.0.0.1:2"
    assert "AWS_ENDPOINT_URL" not in started_with


def test_the_bundle_holds_the_systems_authorities_and_the_certificate(tmp_path: Path) -> None:
    made, bundle = tmp_path / "server.crt", tmp_path / "bundle.pem"
    made.write_text("-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n")
    certificate.write_bundle(made, bundle)
    text = bundle.read_text()
    assert text.endswith(made.read_text())
    assert text.count("BEGIN CERTIFICATE") > 10


def test_the_state_folder_comes_from_local_dir(tmp_path: Path) -> None:
    assert State.load({"LOCAL_DIR": str(tmp_path)}).root == tmp_path.resolve()
    assert State.load({}).root.name == ".local"
    assert State.load({"LOCAL_DIR": ""}).root == State.load({}).root


def test_cleaning_removes_the_state_and_keeps_the_logs(state: State) -> None:
    state.prepare()
    state.log("emulator").write_text("why it ended")
    for file in (state.servers, state.env, state.outputs):
        file.write_text("{}")
    state.clean()
    assert not any(path.exists() for path in (state.servers, state.env, state.outputs, state.tmp))
    assert state.log("emulator").read_text() == "why it ended"
