"""uv reaches what pip reaches, and a layer is installed with either of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cdk_distilled_router.common import packages
from cdk_distilled_router.common.packages import parse_pip_settings, uv_environment

CORPORATE = {
    "index-url": "https://index.example/simple",
    "extra-index-url": "https://one.example/simple\nhttps://two.example/simple",
    "find-links": "/opt/wheels /opt/more",
    "cert": "/etc/company.pem",
    "client-cert": "/etc/me.pem",
    "proxy": "http://proxy.example:3128",
    "trusted-host": "index.example",
    "timeout": "60",
}


def added(environ: dict[str, str], settings: dict[str, str]) -> dict[str, str]:
    """Return what uv is told beyond the variables that are there."""
    environ = {"PATH": "", "HOME": "/nowhere", **environ}
    return {key: value for key, value in uv_environment(environ, settings).items() if key not in environ}


def test_pips_settings_are_handed_to_uv() -> None:
    assert added({}, CORPORATE) == {
        "UV_SYSTEM_CERTS": "true",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "true",
        "UV_DEFAULT_INDEX": "https://index.example/simple",
        "UV_EXTRA_INDEX_URL": "https://one.example/simple https://two.example/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/opt/wheels,/opt/more",
        "SSL_CERT_FILE": "/etc/company.pem",
        "SSL_CLIENT_CERT": "/etc/me.pem",
        "HTTPS_PROXY": "http://proxy.example:3128",
        "HTTP_PROXY": "http://proxy.example:3128",
        "UV_INSECURE_HOST": "index.example",
        "UV_HTTP_TIMEOUT": "60",
    }


def test_without_settings_uv_trusts_what_the_system_trusts() -> None:
    assert added({}, {}) == {
        "UV_SYSTEM_CERTS": "true",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "true",
    }


@pytest.mark.parametrize("own", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL"])
def test_an_index_of_uvs_own_wins(own: str) -> None:
    found = added({own: "https://uv.example/simple"}, CORPORATE)
    assert not {key for key in found if "INDEX" in key or "LINKS" in key}


def test_a_variable_wins() -> None:
    environ = {"SSL_CERT_FILE": "/mine.pem", "UV_HTTP_TIMEOUT": "5", "https_proxy": "http://mine"}
    found = uv_environment({"PATH": "", "HOME": "/nowhere", **environ}, CORPORATE)
    assert found.items() >= environ.items()
    assert "HTTPS_PROXY" not in found


def test_an_index_in_a_file_of_uvs_own_wins(tmp_path: Path) -> None:
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").write_text('index-url = "https://uv.example/simple"\n')
    assert "UV_DEFAULT_INDEX" not in added({"XDG_CONFIG_HOME": str(tmp_path)}, CORPORATE)


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_uv_trusts_what_pip_is_told_to_trust_by_a_variable(name: str) -> None:
    assert added({name: "/company.pem"}, {})["SSL_CERT_FILE"] == "/company.pem"


def test_keyring_is_asked_for_passwords_where_it_is_installed(tmp_path: Path) -> None:
    keyring = tmp_path / "keyring"
    keyring.write_text("#!/bin/sh\n")
    keyring.chmod(0o755)
    environ = {"PATH": str(tmp_path), "HOME": "/nowhere"}
    assert uv_environment(environ, {})["UV_KEYRING_PROVIDER"] == "subprocess"


def test_a_variable_of_pips_overrides_a_section_and_that_the_global_one() -> None:
    text = "\n".join(
        [
            ":env:.index-url='https://variable.example'",
            "global.index-url='https://global.example'",
            "install.index-url='https://install.example'",
            "global.timeout='10'",
            "install.timeout='20'",
            "global.extra-index-url='https://one.example https://two.example'",
            "freeze.timeout='30'",
        ]
    )
    assert parse_pip_settings(text) == {
        "index-url": "https://variable.example",
        "timeout": "20",
        "extra-index-url": "https://one.example https://two.example",
    }


def test_pips_own_settings_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a file as a company lays it down, and from a variable."""
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://file.example/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("PIP_PROXY", "http://proxy.example:3128")
    found = packages.pip_settings()
    assert found["index-url"] == "https://file.example/simple"
    assert found["proxy"] == "http://proxy.example:3128"


def test_a_package_for_one_platform_is_refused(tmp_path: Path) -> None:
    """uv takes what this machine can use; a layer must run on Lambda's."""
    about = tmp_path / "target" / "fast-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "WHEEL").write_text("Wheel-Version: 1.0\nTag: cp313-cp313-manylinux_2_28_x86_64\n")
    with pytest.raises(ValueError, match=r"fast-1\.0 is not pure Python"):
        packages.check_pure(tmp_path / "target")


def test_without_uv_and_pip_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "uv", lambda: None)
    monkeypatch.setattr(packages, "has_pip", lambda: False)
    with pytest.raises(RuntimeError, match=r"uv is not on the PATH, and .* has no pip"):
        packages.install(tmp_path / "requirements.txt", tmp_path / "target")


def test_pip_is_tried_where_uv_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its error is the one that is shown."""
    failing = tmp_path / "uv"
    failing.write_text("#!/bin/sh\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(packages, "uv", lambda: str(failing))
    (tmp_path / "requirements.txt").write_text("boto3\n")
    with pytest.raises(RuntimeError, match="pip could not install"):
        packages.install(tmp_path / "requirements.txt", tmp_path / "target")


def test_uv_beside_this_python_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("venv", "path"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "uv").write_text("#!/bin/sh\n")
        (tmp_path / folder / "uv").chmod(0o755)
    environ = {"PATH": str(tmp_path / "path")}
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    assert packages.uv(environ) == str(tmp_path / "venv" / "uv")
    (tmp_path / "venv" / "uv").unlink()
    assert packages.uv(environ) == str(tmp_path / "path" / "uv")
    assert packages.uv({"PATH": ""}) is None


def test_it_needs_no_package() -> None:
    """The installer runs it before there are any."""
    program = f"import runpy; runpy.run_path({packages.__file__!r})"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, timeout=300)
