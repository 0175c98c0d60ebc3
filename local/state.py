"""The files of one local system.

All are in one folder, `.local` or the one that LOCAL_DIR names, so that a developer's system and a test's can
run side by side.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from operate.environment import LOCAL, LOCAL_ACCOUNT, VARIABLES_FILE, local_folder
from operate.errors import OperateError
from stacks.settings import locate

# The emulator's one account, and its Region if the settings name none.
REGION = "us-east-1"
ACCOUNT = LOCAL_ACCOUNT


@contextlib.contextmanager
def private() -> Iterator[None]:
    """Create files and folders during a block for their owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@dataclass(frozen=True)
class State:
    """The state folder of one local system and the files in it."""

    root: Path

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> State:
        """Return the state folder that the environment variables name."""
        return cls(local_folder(environ))

    @property
    def settings(self) -> Path:
        """The folder with the settings that the system runs, and with the name of their source."""
        return self.root / "settings"

    @property
    def settings_file(self) -> Path:
        """The settings that the system runs."""
        return next(self.settings.glob("*.toml"), locate(LOCAL))

    @property
    def settings_source(self) -> Path:
        """The environment's file that these settings were made from."""
        try:
            return Path((self.settings / "source").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return locate(LOCAL)

    def write_settings(self, source: Path, text: str) -> Path:
        """Write the settings that the system runs, instead of earlier ones; return their file."""
        shutil.rmtree(self.settings, ignore_errors=True)
        with private():
            self.settings.mkdir(parents=True)
            (self.settings / "source").write_text(str(source), encoding="utf-8")
            file = self.settings / source.name
            file.write_text(text, encoding="utf-8")
        return file

    @property
    def servers(self) -> Path:
        """The servers that run: process ids and ports."""
        return self.root / "servers.json"

    @property
    def env(self) -> Path:
        """The variables with which AWS clients reach the local system; a shell can source it."""
        return self.root / VARIABLES_FILE

    @property
    def outputs(self) -> Path:
        """The outputs of the deployed stacks, by stack."""
        return self.root / "outputs.json"

    @property
    def assembly(self) -> Path:
        """The deployed cloud assembly; destroy uses the same one."""
        return self.root / "cdk.out"

    @property
    def ca_bundle(self) -> Path:
        """The system's certificate authorities and the emulator's certificate."""
        return self.root / "ca-bundle.pem"

    @property
    def tmp(self) -> Path:
        """The emulator's temporary folder, with the unpacked Lambda bundles."""
        return self.root / "tmp"

    @property
    def certificate(self) -> Path:
        """The emulator's certificate, with the authority that signed it."""
        return self.root / "tls" / "server.crt"

    @property
    def certificate_key(self) -> Path:
        """Its key."""
        return self.root / "tls" / "server.key"

    @property
    def lock(self) -> Path:
        """Held while a command changes the local system."""
        return self.root / "lock"

    def log(self, name: str) -> Path:
        """The log of one server or one step."""
        return self.root / "logs" / f"{name}.log"

    def prepare(self) -> None:
        """Create the state folder, and those that the servers write to, for their owner only.

        Raises:
            OperateError: The state folder exists, and other users can write to it.
        """
        with private():
            self.root.mkdir(parents=True, exist_ok=True)
            found = self.root.stat()
            if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise OperateError(
                    f"Other users can write to {self.root}, and could replace files of the local system.",
                    advice="Remove the folder, or let LOCAL_DIR name one that only you can write to.",
                )
            self.root.chmod(0o700)  # an earlier version let others read it
            for folder in (self.root / "logs", self.root / "emulator", self.root / "bedrock", self.tmp):
                folder.mkdir(exist_ok=True)

    def clean(self) -> None:
        """Remove the files of servers that no longer run, except their logs."""
        for folder in (
            self.root / "emulator",
            self.root / "bedrock",
            self.root / "tls",
            self.settings,
            self.tmp,
            self.assembly,
        ):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.servers, self.env, self.outputs, self.ca_bundle):
            file.unlink(missing_ok=True)
