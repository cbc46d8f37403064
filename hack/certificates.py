"""A certificate authority of a day, for servers and clients on loopback."""

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOOPBACK_NAMES = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Certificate:
    """A certificate, its key, and the authority that signed it, all PEM."""

    certificate: bytes
    key: bytes
    ca: bytes


@dataclass(frozen=True)
class ServerCertificate(Certificate):
    """A certificate that a server shows."""


class Authority:
    """Signs certificates; its key stays in memory."""

    def __init__(self, name: str, *, days: int = 30) -> None:
        self._key = new_key()
        self._name = _subject(name)
        self._days = days
        self._certificate = (
            self._builder(self._name, self._key.public_key(), _usage(authority=True))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """The certificate that verifies the others."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, name: str, names: Sequence[str] = LOOPBACK_NAMES) -> ServerCertificate:
        """A certificate for a server of these names and addresses."""
        alternatives = x509.SubjectAlternativeName([_general_name(each) for each in names])
        certificate, key = self._issue(_subject(name), ExtendedKeyUsageOID.SERVER_AUTH, alternatives)
        return ServerCertificate(certificate, key, self.pem)

    def client(self, name: str, groups: Sequence[str] = ()) -> Certificate:
        """A certificate for a client; Kubernetes reads the name as the user, the organizations as groups."""
        certificate, key = self._issue(_subject(name, groups), ExtendedKeyUsageOID.CLIENT_AUTH, None)
        return Certificate(certificate, key, self.pem)

    def _issue(
        self, subject: x509.Name, purpose: x509.ObjectIdentifier, alternatives: x509.SubjectAlternativeName | None
    ) -> tuple[bytes, bytes]:
        key = new_key()
        builder = (
            self._builder(subject, key.public_key(), _usage(authority=False))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM), key_pem(key)

    def _builder(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, usage: x509.KeyUsage
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        # Both key identifiers and the usage are there because Python 3.13 verifies strictly by default.
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=self._days))
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key; elliptic curves take no time to make."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key as PEM, without a passphrase: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half as PEM."""
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _subject(name: str, groups: Sequence[str] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
