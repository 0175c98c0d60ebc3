"""The emulator's TLS certificate, made here: not every machine has the program openssl."""

from __future__ import annotations

from pathlib import Path

import trustme


def make(certificate: Path, key: Path) -> None:
    """Write a certificate for 127.0.0.1 with the authority that signed it, and its key.

    The authority is forgotten at once, so it can sign nothing else; clients trust it through this one file.
    """
    authority = trustme.CA(organization_name="distilled router, local system")
    made = authority.issue_cert("127.0.0.1", "localhost")
    certificate.parent.mkdir(parents=True, exist_ok=True)
    key.touch(mode=0o600)
    made.private_key_pem.write_to_path(key)
    chain = [pem.bytes() for pem in made.cert_chain_pems] + [authority.cert_pem.bytes()]
    certificate.write_bytes(b"".join(chain))
