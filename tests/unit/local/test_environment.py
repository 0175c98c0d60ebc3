"""The variables that the local system gets, and those that it must not get."""

import subprocess
from pathlib import Path

import pytest

from local import certificate, environment
from local.keys import Keys
from local.state import State, private
from operate import processes
from operate.environment import read_variables
from operate.errors import OperateError

KEYS = Keys.create()


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "a folder's name")


def test_shell_reads_the_written_variables(state: State) -> None:
    state.prepare()
    variables = environment.client("https://127.0.0.1:1", "http://127.0.0.1:2", state, KEYS)
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
    variables = environment.client("https://127.0.0.1:1", "http://127.0.0.1:2", state, KEYS)
    assert variables["AWS_ENDPOINT_URL"] == "https://127.0.0.1:1"
    assert variables["AWS_ENDPOINT_URL_BEDROCK"] == "http://127.0.0.1:2"
    assert variables["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] == "http://127.0.0.1:2"
    assert variables["AWS_CA_BUNDLE"] == str(state.ca_bundle)
    assert variables["NODE_EXTRA_CA_CERTS"] == str(state.certificate)


def test_operate_finds_api_and_settings_of_the_local_system(state: State, tmp_path: Path) -> None:
    state.write_settings(tmp_path / "acme.toml", "")
    variables = environment.client("https://127.0.0.1:1", "http://127.0.0.1:2", state, KEYS)
    api = variables["EXECUTE_API_URL"].format(api="abc")
    assert api == "https://127.0.0.1:1/_aws/execute-api/abc/$default"
    assert variables["LOCAL_SETTINGS"] == str(state.settings / "acme.toml")
    assert state.settings_source == tmp_path / "acme.toml"


def test_emulator_does_not_inherit_the_callers_aws_configuration(
    state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "of the caller")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the caller")
    started_with = environment.emulator(1, "http://127.0.0.1:2", state, "/bin", 1, KEYS)
    assert "of the caller" not in started_with.values()


def test_the_emulator_listens_on_loopback_with_iam_and_tls(state: State) -> None:
    started_with = environment.emulator(4711, "http://127.0.0.1:2", state, "/bin", 1, KEYS)
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


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_every_start_has_keys_of_its_own(state: State) -> None:
    variables = environment.client("https://127.0.0.1:1", "http://127.0.0.1:2", state, KEYS)
    assert Keys.of(variables) == KEYS
    other = Keys.create()
    assert not {KEYS.access_key, KEYS.secret_key, KEYS.token} & {
        other.access_key,
        other.secret_key,
        other.token,
    }
    assert "test" not in KEYS.variables().values()
    assert not any(value in repr(KEYS) for value in KEYS.variables().values())


def test_variables_without_a_token_have_no_keys() -> None:
    with pytest.raises(KeyError):
        Keys.of({"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"})


def test_only_their_owner_reads_the_keys(state: State) -> None:
    state.prepare()
    state.env.write_text("of an older version")
    state.env.chmod(0o644)
    environment.write(KEYS.variables(), state.env)
    certificate.create(state.certificate, state.certificate_key)
    assert mode(state.env) == mode(state.certificate_key) == 0o600
    assert {mode(path) for path in (state.root, state.tmp, state.log("x").parent)} == {0o700}


def test_a_key_file_that_others_can_read_is_replaced(state: State) -> None:
    state.certificate_key.parent.mkdir(parents=True)
    state.certificate_key.touch(mode=0o644)
    certificate.create(state.certificate, state.certificate_key)
    assert mode(state.certificate_key) == 0o600


@pytest.mark.parametrize("bits", [0o777, 0o1777, 0o770])
def test_a_state_folder_that_others_can_write_to_is_refused(state: State, bits: int) -> None:
    state.root.mkdir()
    state.root.chmod(bits)
    with pytest.raises(OperateError, match="Other users can write to"):
        state.prepare()
    assert list(state.root.iterdir()) == []


def test_folder_and_logs_of_an_earlier_version_become_private(state: State) -> None:
    state.root.mkdir()
    state.root.chmod(0o755)
    log = state.log("emulator")
    log.parent.mkdir()
    log.touch(mode=0o644)
    state.prepare()
    processes.spawn(["true"], {}, state.root, log).wait()
    assert (mode(state.root), mode(log)) == (0o700, 0o600)


def test_the_umask_is_restored(tmp_path: Path) -> None:
    def fail() -> None:
        with private():
            (tmp_path / "private").touch()
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    (tmp_path / "usual").touch()
    assert mode(tmp_path / "private") == 0o600
    assert mode(tmp_path / "usual") != 0o600
