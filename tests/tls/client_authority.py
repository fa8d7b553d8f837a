"""An authority that signs clients' certificates and revokes them, for tests."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
DAY = dt.timedelta(days=1)


class ClientAuthority:
    def __init__(self, name: str = "Clients", parent: ClientAuthority | None = None, days: int = 30) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.revoked: list[int] = []
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = self._dated(self.name, parent or self, self.key.public_key(), -DAY, days * DAY)
        builder = builder.add_extension(x509.BasicConstraints(True, None), True).add_extension(usage, True)
        self.certificate = builder.sign((parent or self).key, hashes.SHA256())

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *,
        mail: Iterable[str] = ("anna@example.test",),
        subject: Iterable[tuple[ObjectIdentifier, str]] = ((NameOID.COMMON_NAME, "Anna"),),
        usage: ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
        begin: dt.timedelta = -DAY,
        end: dt.timedelta = DAY,
        chain: bytes = b"",
    ) -> tuple[bytes, bytes]:
        """A certificate, `chain` behind it, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(*each) for each in subject])
        builder = self._dated(name, self, key.public_key(), begin, end)
        if names := [x509.RFC822Name(each) for each in mail]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        certificate = builder.sign(self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM) + chain, key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def revoke(self, certificate: bytes) -> None:
        self.revoked.append(x509.load_pem_x509_certificate(certificate).serial_number)

    def crl(self, *, begin: dt.timedelta = -DAY, end: dt.timedelta = DAY) -> bytes:
        """PEM."""
        builder = x509.CertificateRevocationListBuilder(self.name, NOW + begin, NOW + end)
        for serial in self.revoked:
            builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, NOW + begin).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _dated(
        self,
        name: x509.Name,
        issuer: ClientAuthority,
        key: ec.EllipticCurvePublicKey,
        begin: dt.timedelta,
        end: dt.timedelta,
    ) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(issuer.name, name, key, x509.random_serial_number(), NOW + begin, NOW + end)
