"""TLS that verifies, for every type that speaks it: what is trusted, the client's certificate, and what went wrong."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Annotated, Final, Self

import certifi
from pydantic import Field, SecretStr, model_validator

from honeyframe_connectors.connector_type import ConnectorConfig, Mark
from honeyframe_connectors.errors import CheckFailed, Reason, Refused, Stalled, Unanswered

# X509_V_ERR_*: a certificate that is not valid yet, or no longer; one for another name, or for another address.
_TIME: Final = {9: "is not valid yet", 10: "has expired"}
_NAME: Final = frozenset({62, 64})

MEND_CA: Final = "name the CA that signed it in spec.caRef"


class ClientCertificate(ConnectorConfig):
    """The fields of a client's certificate, which may be mapped from the keys of a cert-manager Secret."""

    ssl_cert: Annotated[
        str | None,
        Mark.MAPPABLE,
        Field(description="Client certificate and its chain, PEM. Map it from cert-manager's key `tls.crt`."),
    ] = None
    ssl_key: Annotated[
        SecretStr | None,
        Mark.SECRET,
        Field(description="Private key of `ssl_cert`, PEM. Map it from cert-manager's key `tls.key`."),
    ] = None
    ssl_key_password: Annotated[
        SecretStr | None,
        Mark.SECRET,
        Field(description="Passphrase of `ssl_key`, where it is encrypted."),
    ] = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.ssl_cert is None) != (self.ssl_key is None):
            raise ValueError("ssl_cert and ssl_key go together: give both, or neither")
        if self.ssl_key_password is not None and self.ssl_key is None:
            raise ValueError("ssl_key_password is of no use without ssl_key: give both, or neither")
        return self


def system_bundle() -> str:
    """The path of the public roots: the machine's own bundle, else certifi's."""
    return ssl.get_default_verify_paths().cafile or certifi.where()


def context(ca: bytes | None, client: ClientCertificate | None = None) -> ssl.SSLContext:
    """A context that verifies chain and name, against ``ca`` (PEM) or else the public roots.

    Raises:
        Stalled: `CANotFound`, when ``ca`` holds no certificate; `InvalidConfig`, when the client's certificate and key
            cannot be used.
    """
    # Parsing 140 roots takes milliseconds; the bundle is looked at again when its file changes.
    bundle = "" if ca is not None else system_bundle()
    age = os.stat(bundle).st_mtime_ns if bundle else 0  # noqa: PTH116 - a Path costs more than the call
    if client is None or client.ssl_cert is None or client.ssl_key is None:
        return _trusting(ca, bundle, age)
    made = _trusting.__wrapped__(ca, bundle, age)
    password = client.ssl_key_password
    with memory_file(client.ssl_cert.encode()) as cert, memory_file(client.ssl_key.get_secret_value().encode()) as key:
        try:
            # Always a password: without one OpenSSL asks on the terminal.
            made.load_cert_chain(cert, key, password.get_secret_value() if password is not None else "")
        except (ssl.SSLError, OSError, ValueError):
            raise Stalled(Reason.INVALID_CONFIG, unusable_certificate()) from None
    return made


def unusable_certificate() -> str:
    """The sentence for a client certificate and key that cannot be loaded."""
    return (
        "ssl_cert, ssl_key and ssl_key_password cannot be used together: give a certificate and its own key in PEM, "
        "and the passphrase that the key has"
    )


@lru_cache(maxsize=64)
def _trusting(ca: bytes | None, bundle: str, _age: int) -> ssl.SSLContext:
    # Not ssl.create_default_context: that writes the session keys where the environment says.
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if ca is None:
            made.load_verify_locations(cafile=bundle)
        else:
            made.load_verify_locations(cadata=ca.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise Stalled(
            Reason.CA_NOT_FOUND,
            "what spec.caRef names holds no certificate that can be read: put CERTIFICATE blocks (PEM) there",
        ) from None
    return made


@contextmanager
def memory_file(content: bytes) -> Iterator[str]:
    """The path of a file that holds ``content`` and is on no disk, for drivers that take paths only."""
    descriptor = os.memfd_create("tls", os.MFD_CLOEXEC)
    try:
        # libpq and others refuse a key that others may read.
        os.fchmod(descriptor, 0o600)
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def explained(error: ssl.SSLError, host: str, port: int) -> CheckFailed:
    """What a failed handshake means, with what mends it."""
    where = f"{host}:{port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _TIME:
            text = f"the certificate of {where} {_TIME[error.verify_code]}: renew it on the server"
        elif error.verify_code in _NAME:
            text = f"the certificate of {where} is not for {host}: name the host that it is for, or have it issued anew"
        else:
            why = error.verify_message
            text = f"the certificate of {where} is signed by no CA that is trusted here ({why}): {MEND_CA}"
        return Unanswered(Reason.TLS_VERIFICATION_FAILED, text)
    what = (error.reason or "").replace("_", " ").lower()
    if "alert" in what and ("certificate" in what or "unknown ca" in what):
        return Refused(
            Reason.AUTHENTICATION_FAILED,
            f"{where} does not accept the client certificate ({what}): give one that it trusts in ssl_cert and ssl_key",
        )
    return Unanswered(
        Reason.TLS_VERIFICATION_FAILED,
        f"no TLS could be agreed on with {where} ({what or 'the connection ended'}): "
        "make sure that TLS is spoken on this port",
    )
