"""How an environment's AWS account is reached: by the caller's credentials, or by a file of variables."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from operate import environment
from operate.aws import Aws
from operate.errors import OperateError
from stacks.settings import ENVIRONMENTS


@pytest.fixture
def local_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "forget_aws", lambda: None)  # it empties this process's environment
    monkeypatch.setenv("LOCAL_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def server() -> Iterator[str]:
    """Yield the URL of a listening server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"


def test_environment_in_aws_needs_no_variables(local_dir: Path) -> None:
    found = environment.reach("dev")
    assert (found.name, found.settings.owner, found.variables) == ("dev", "video-router-dev", {})


def test_local_system_is_reached_by_its_variables(local_dir: Path, server: str) -> None:
    (local_dir / "env").write_text(f"AWS_ENDPOINT_URL={server}\nQUOTED='a b'\n")
    found = environment.reach("local")
    assert found.variables == {"AWS_ENDPOINT_URL": server, "QUOTED": "a b"}
    assert found.settings.owner == "video-router-local"


def test_local_system_may_have_settings_of_its_own(local_dir: Path, server: str) -> None:
    settings = (ENVIRONMENTS / "local.toml").read_text(encoding="utf-8")
    assert 'name = "video-router"' in settings
    file = local_dir / "acme.toml"
    file.write_text(settings.replace('name = "video-router"', 'name = "other-router"'))
    (local_dir / "env").write_text(f"AWS_ENDPOINT_URL={server}\nLOCAL_SETTINGS='{file}'\n")
    for asked in ("local", str(file)):
        found = environment.reach(asked)
        assert (found.name, found.settings.owner) == ("local", "other-router-acme")


def test_another_environment_of_the_local_account_is_not_taken_for_the_one_that_runs(
    local_dir: Path, server: str
) -> None:
    file = local_dir / "acme.toml"
    file.write_text((ENVIRONMENTS / "local.toml").read_text(encoding="utf-8"))
    (local_dir / "env").write_text(f"AWS_ENDPOINT_URL={server}\n")
    with pytest.raises(OperateError, match="runs video-router-local, and not video-router-acme") as caught:
        environment.reach(str(file))
    assert "make local-down" in caught.value.advice


@pytest.mark.parametrize("text", [None, "", "AWS_ENDPOINT_URL=https://127.0.0.1:1\n"])
def test_local_system_that_does_not_run_says_how_to_start_it(local_dir: Path, text: str | None) -> None:
    """The file outlives the servers when the machine restarts."""
    if text is not None:
        (local_dir / "env").write_text(text)
    with pytest.raises(OperateError, match="does not run") as caught:
        environment.reach("local")
    assert caught.value.advice == "Start it with `make local`."


def test_clients_of_the_local_system_use_its_endpoints_keys_and_certificate() -> None:
    variables = {
        "AWS_ENDPOINT_URL": "https://127.0.0.1:1",
        "AWS_ENDPOINT_URL_BEDROCK": "http://127.0.0.1:2",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "key",
    }
    aws = Aws("us-east-1", variables)
    credentials = aws.session.get_credentials()
    assert credentials is not None
    assert credentials.access_key == "id"
    assert aws.dynamodb.meta.client.meta.endpoint_url == "https://127.0.0.1:1"
    assert aws.bedrock.meta.endpoint_url == "http://127.0.0.1:2"


def test_clients_of_an_account_use_the_callers_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of the caller")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the caller")
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_CLOUDFORMATION"):
        monkeypatch.delenv(name, raising=False)
    aws = Aws("eu-west-1")
    credentials = aws.session.get_credentials()
    assert credentials is not None
    assert credentials.access_key == "of the caller"
    assert aws.cloudformation.meta.endpoint_url == "https://cloudformation.eu-west-1.amazonaws.com"


def test_without_aws_keeps_the_rest_and_goes_past_a_proxy() -> None:
    environ = {"PATH": "/bin", "AWS_PROFILE": "p", "CDK_DEFAULT_ACCOUNT": "1", "no_proxy": "intranet"}
    kept = environment.without_aws(environ)
    assert kept == {"PATH": "/bin", "NO_PROXY": "127.0.0.1,intranet", "no_proxy": "127.0.0.1,intranet"}


def test_without_access_finds_no_credentials_anywhere() -> None:
    left = environment.without_access({"AWS_ACCESS_KEY_ID": "k", "AWS_SESSION_TOKEN": "t"})
    assert "AWS_ACCESS_KEY_ID" not in left
    assert "AWS_SESSION_TOKEN" not in left
    assert left["AWS_CONFIG_FILE"] == left["AWS_SHARED_CREDENTIALS_FILE"] == "/dev/null"
    assert left["AWS_EC2_METADATA_DISABLED"] == "true"


def test_a_profile_of_the_caller_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"AWS_PROFILE": "of the caller", "PATH": "/bin"}
    monkeypatch.setattr(os, "environ", environ)
    monkeypatch.setattr(environment, "without_aws", lambda: {"PATH": "/bin"})
    environment.forget_aws()
    assert environ == {"PATH": "/bin"}
