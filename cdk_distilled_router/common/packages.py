"""Install locked packages with uv, or with pip if there is no uv.

uv doesn't read pip's settings, so a company's index, proxy and certificates in pip's configuration are passed
to uv as variables. The installer runs this module before any package is installed, so it imports the standard
library only.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# pip's later sources override the earlier ones.
_SECTIONS = ("global", "install", ":env:")
_UV_INDEXES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_NO_INDEX")
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def uv(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the path of uv: beside this Python, else on the PATH; None if there is none."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv", path=environ.get("PATH"))


def has_pip() -> bool:
    """Return whether this Python can run pip."""
    done = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    return done.returncode == 0


def pip_settings() -> dict[str, str]:
    """Return pip's settings by name (`index-url`), from its variables and files; empty without pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    return parse_pip_settings(done.stdout) if done.returncode == 0 else {}


def parse_pip_settings(text: str) -> dict[str, str]:
    """Return the settings that `pip config list` printed; a variable overrides a section of a file."""
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in found:
            found[section][name.replace("_", "-")] = str(ast.literal_eval(value))
    return {name: value for section in _SECTIONS for name, value in found[section].items()}


def uv_environment(
    environ: Mapping[str, str] = os.environ, settings: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return `environ` with pip's settings as variables of uv.

    Existing variables of uv win, and so does an index in a uv.toml.

    Args:
        settings: pip's settings; read from pip itself by default.
    """
    pip = pip_settings() if settings is None else settings
    added = {"UV_SYSTEM_CERTS": "true", "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "true"}
    if not any(name in environ for name in _UV_INDEXES) and not _uv_file_names_index(environ):
        added |= _indexes(pip)
    if certificates := pip.get("cert") or environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE"):
        added["SSL_CERT_FILE"] = certificates
    if certificate := pip.get("client-cert"):
        added["SSL_CLIENT_CERT"] = certificate
    if (proxy := pip.get("proxy")) and not any(name in environ for name in _PROXIES):
        added |= {"HTTPS_PROXY": proxy, "HTTP_PROXY": proxy}
    if hosts := pip.get("trusted-host"):
        added["UV_INSECURE_HOST"] = " ".join(hosts.split())
    if timeout := pip.get("timeout") or pip.get("default-timeout"):
        added["UV_HTTP_TIMEOUT"] = str(int(float(timeout)))
    if shutil.which("keyring", path=environ.get("PATH")):
        added["UV_KEYRING_PROVIDER"] = "subprocess"
    return {**added, **environ}


def _indexes(pip: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if index := pip.get("index-url"):
        found["UV_DEFAULT_INDEX"] = index
    if extra := pip.get("extra-index-url"):
        found["UV_EXTRA_INDEX_URL"] = " ".join(extra.split())
        # Like pip, accept a version from any index; the locked hashes protect the content.
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    if links := pip.get("find-links"):
        found["UV_FIND_LINKS"] = ",".join(links.split())
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        found["UV_NO_INDEX"] = "true"
    return found


def _uv_file_names_index(environ: Mapping[str, str]) -> bool:
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".config")
    folders = [home, *(environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep), "/etc"]
    files = [environ.get("UV_CONFIG_FILE"), *(str(Path(folder) / "uv" / "uv.toml") for folder in folders)]
    texts = (Path(file).read_text(encoding="utf-8") for file in files if file and Path(file).is_file())
    return any("index" in text or "find-links" in text for text in texts)


def install(requirements: Path, target: Path) -> None:
    """Install a lock file's packages into a folder: pure Python that runs on any machine.

    Raises:
        RuntimeError: there is neither uv nor pip, or the installation failed.
        ValueError: a package is not pure Python.
    """
    tool = uv()
    if tool is not None:
        command = [
            *(tool, "pip", "install", "--quiet", "--python", sys.executable, "--link-mode", "copy"),
            *("--require-hashes", "--no-deps", "--only-binary", ":all:"),
            *("--target", str(target), "-r", str(requirements)),
        ]
        done = subprocess.run(command, env=uv_environment(), capture_output=True, text=True, check=False)  # noqa: S603 - our own command
        if done.returncode == 0:
            check_pure(target)
            return
        shutil.rmtree(target, ignore_errors=True)
        if not has_pip():
            raise RuntimeError(f"uv could not install {requirements}:\n{done.stderr}")
    elif not has_pip():
        raise RuntimeError(
            f"{requirements} can't be installed: uv is not on the PATH, and {sys.executable} has no pip. "
            "Install one of them, for example with `python -m ensurepip`."
        )
    _install_with_pip(requirements, target)


def _install_with_pip(requirements: Path, target: Path) -> None:
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--require-hashes", "--no-deps", "--no-compile"),
        # Refuse wheels for a platform, even for that of this machine.
        *("--only-binary", ":all:", "--platform", "any", "--implementation", "py", "--abi", "none"),
        *("--target", str(target), "-r", str(requirements)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
    if done.returncode:
        raise RuntimeError(f"pip could not install {requirements}:\n{done.stderr}")


def check_pure(target: Path) -> None:
    """Raise ValueError for a wheel for one platform, which uv accepts, too."""
    for wheel in target.glob("*.dist-info/WHEEL"):
        tags = [line for line in wheel.read_text(encoding="utf-8").splitlines() if line.startswith("Tag: ")]
        if not all(tag.endswith("-none-any") for tag in tags):
            raise ValueError(f"{wheel.parent.name.removesuffix('.dist-info')} is not pure Python: {tags}")
