"""Why a server cannot be reached, in words that may be shown.

Messages of drivers are not shown, because they quote values. An operator must fix a certificate that is not accepted or a
login that is refused, so these are distinguished from errors that end by themselves.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator

from shared.runtime.failures import errors_of_driver


def why(error: BaseException) -> str:
    """Return what is wrong, in a few words; the error's type if nothing better is known."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the certificate is not accepted: {cause.verify_message.rstrip('.')}"
        if isinstance(cause, ssl.SSLError):
            return _tls(cause)
        driver = errors_of_driver(cause)
        if driver is not None and (said := driver.why(cause)) is not None:
            return said
    return type(error).__name__


def _tls(error: ssl.SSLError) -> str:
    reason = error.reason or type(error).__name__
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return f"the server wants a certificate of ours, or does not accept it: {reason}"
    return f"TLS fails: {reason}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
