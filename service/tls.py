"""TLS of the server: its certificate and key, checked before the service starts."""

from __future__ import annotations

import logging
import ssl
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from service.errors import MisuseError
from service.settings.schema import TlsFiles

WARNING_DAYS = 14

_log = logging.getLogger(__name__)


def load_context(files: TlsFiles, now: Callable[[], datetime]) -> ssl.SSLContext:
    """Return the context of a server with TLS 1.2 or later; warn if its certificate expires soon.

    Parameters
    ----------
    files
        Certificate and key.
    now
        Current time, UTC.

    Raises
    ------
    MisuseError
        If a file cannot be read, the key is encrypted, of another certificate or open to other users, or the
        certificate is not valid now or not one of a server.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        for file in (files.cert, files.key):
            file.open().close()
        if files.key.stat().st_mode & stat.S_IRWXO:
            raise MisuseError(f"serve.tls: the key {files.key} is open to other users: run `chmod o= {files.key}`")
        context.load_cert_chain(files.cert, files.key, password=lambda: "")  # a function, or it is asked for
        expires = _expiry(context, files)
    except ssl.SSLCertVerificationError as error:
        raise MisuseError(f"serve.tls: the certificate {files.cert} is refused: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise MisuseError(
            f"serve.tls: {files.cert} and {files.key} are not a certificate in PEM and its key without a passphrase: "
            f"{(error.reason or str(error)).lower().replace('_', ' ')}"
        ) from None
    except OSError as error:
        raise MisuseError(f"serve.tls: {error.filename} cannot be read: {error.strerror}") from None
    days = (expires - now()).days
    if days < WARNING_DAYS:
        _log.warning("the certificate %s expires in %d days, on %s", files.cert, days, f"{expires:%Y-%m-%d}")
    return context


def _expiry(context: ssl.SSLContext, files: TlsFiles) -> datetime:
    """Return the time at which a certificate expires. Raises SSLCertVerificationError if it is not valid now.

    A client that trusts exactly this certificate connects to the server, in memory.
    """
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname = False
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trust.load_verify_locations(files.cert)
    one, other = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = trust.wrap_bio(one, other), context.wrap_bio(other, one, server_side=True)
    for _ in range(3):  # hello and its answer, the end of both, the session
        for side in sides:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    certificate = sides[0].getpeercert() or {}
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC)
