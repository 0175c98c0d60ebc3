"""Where one local system keeps its files.

Everything hangs off one folder, `.local` or what LOCAL_DIR names, so that two systems (a developer's and
an integration test's) can run side by side.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
REGION = "us-east-1"
ACCOUNT = "000000000000"
ENVIRONMENT = "local"


@dataclass(frozen=True)
class State:
    """The state folder of one local system and the files in it."""

    root: Path

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> State:
        """Take the folder from LOCAL_DIR; a relative one is relative to the project."""
        return cls((PROJECT / (environ.get("LOCAL_DIR") or ".local")).resolve())

    @property
    def environments(self) -> Path:
        """The folder with `local.toml`: the project's, or what LOCAL_ENVIRONMENTS names."""
        return PROJECT / (os.environ.get("LOCAL_ENVIRONMENTS") or "environments")

    @property
    def servers(self) -> Path:
        """The servers that run: process ids and ports."""
        return self.root / "servers.json"

    @property
    def env(self) -> Path:
        """Variables that point any AWS client at the local system; to be sourced by a shell."""
        return self.root / "env"

    @property
    def outputs(self) -> Path:
        """Outputs of the deployed stacks, by stack."""
        return self.root / "outputs.json"

    @property
    def assembly(self) -> Path:
        """The cloud assembly that was deployed; destroy uses the same one."""
        return self.root / "cdk.out"

    @property
    def ca_bundle(self) -> Path:
        """The system's certificate authorities and the emulator's certificate."""
        return self.root / "ca-bundle.pem"

    @property
    def tmp(self) -> Path:
        """The emulator's own temporary folder: the unpacked Lambda bundles."""
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
        """Make the folders that the servers write to."""
        for folder in (self.root / "logs", self.root / "emulator", self.root / "bedrock", self.tmp):
            folder.mkdir(parents=True, exist_ok=True)

    def clean(self) -> None:
        """Remove what belongs to servers that no longer run. Logs stay, for whoever wants to know why."""
        for folder in (
            self.root / "emulator",
            self.root / "bedrock",
            self.root / "tls",
            self.tmp,
            self.assembly,
        ):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.servers, self.env, self.outputs, self.ca_bundle):
            file.unlink(missing_ok=True)
