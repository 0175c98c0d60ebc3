"""The local servers' TLS certificate, created without the openssl program."""

from __future__ import annotations

import ssl
from pathlib import Path

import botocore
import trustme


def create(certificate: Path, key: Path) -> None:
    """Write a certificate for 127.0.0.1 with its authority, and the certificate's key.

    The authority's key is not stored, so it can't sign another certificate.
    """
    authority = trustme.CA(organization_name="distilled router, local system")
    issued = authority.issue_cert("127.0.0.1", "localhost")
    certificate.parent.mkdir(parents=True, exist_ok=True)
    key.unlink(missing_ok=True)  # a file that exists would keep its mode
    key.touch(mode=0o600, exist_ok=False)
    issued.private_key_pem.write_to_path(key)
    chain = [pem.bytes() for pem in issued.cert_chain_pems] + [authority.cert_pem.bytes()]
    certificate.write_bytes(b"".join(chain))


def write_bundle(certificate: Path, bundle: Path) -> None:
    """Write the system's certificate authorities and a server's certificate into one file.

    AWS_CA_BUNDLE replaces the authorities that a client trusts by default.
    """
    paths = ssl.get_default_verify_paths()
    botocores = Path(botocore.__file__).parent / "cacert.pem"
    system = Path(paths.cafile) if paths.cafile else botocores
    bundle.write_bytes(system.read_bytes() + b"\n" + certificate.read_bytes())


def server_context(certificate: Path | str, key: Path | str) -> ssl.SSLContext:
    """Return the context of a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
