"""TLS for clients: trusted authorities and client certificates.

Certificates and keys are PEM text, so that each may come from the environment or from a file named by ``<NAME>_FILE``.
"""

from __future__ import annotations

import re
import ssl
import tempfile
from typing import Final

_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def certificates(pem: str) -> str:
    """Return the certificates in `pem`, without the text between them (OpenSSL refuses comments that are not ASCII).

    Raises:
        ValueError: there is no certificate, or one that cannot be read.
    """
    found = "\n".join(_CERTIFICATE.findall(pem))
    if not found:
        raise ValueError("holds no certificate in PEM form")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found)
    except ssl.SSLError:
        raise ValueError("holds a certificate that cannot be read") from None
    return found


def client_context(
    *, authorities: str | None = None, certificate: str | None = None, key: str | None = None
) -> ssl.SSLContext:
    """Return a context that verifies the server's certificate and host name, with TLS 1.2 or newer.

    Args:
        authorities: Certificates of the trusted authorities, as from `certificates`. None: those that this machine trusts.
        certificate: The client certificate and its chain, for a server that requires one.
        key: Its private key, not encrypted.

    Raises:
        ValueError: certificate and key do not match, or cannot be read.
    """
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=authorities)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None and key is not None:
        _identify(context, certificate, key)
    return context


def _identify(context: ssl.SSLContext, certificate: str, key: str) -> None:
    if "ENCRYPTED" in key:  # OpenSSL would prompt for the password on the terminal and wait
        raise ValueError("the key is encrypted; give it decrypted, in a file that only the service may read")
    # Python loads a client certificate from a file only. This one has mode 0600 and is deleted at once.
    with tempfile.NamedTemporaryFile("w", prefix="groundswell-", suffix=".pem", encoding="ascii") as file:
        try:
            file.write(f"{key}\n{certificate}\n")
            file.flush()
            context.load_cert_chain(file.name)
        except (ssl.SSLError, UnicodeError):
            raise ValueError("certificate and key cannot be read, or do not belong together") from None
