"""The emulator's TLS certificate. It needs no openssl program."""

from __future__ import annotations

from pathlib import Path

import trustme


def make(certificate: Path, key: Path) -> None:
    """Write a certificate for 127.0.0.1, its key, and the authority that signed it.

    The authority's key is not kept, so it can sign nothing else.
    """
    authority = trustme.CA(organization_name="distilled router, local system")
    made = authority.issue_cert("127.0.0.1", "localhost")
    certificate.parent.mkdir(parents=True, exist_ok=True)
    key.touch(mode=0o600)
    made.private_key_pem.write_to_path(key)
    chain = [pem.bytes() for pem in made.cert_chain_pems] + [authority.cert_pem.bytes()]
    certificate.write_bytes(b"".join(chain))
