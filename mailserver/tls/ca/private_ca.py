"""A private authority in a directory: `ca.pem`, `ca.key`, `ca.crl`, and the record of issued certificates.

Each file is replaced atomically. The key is written before the certificate, so a directory with `ca.pem` has its key. The
record is made last, and without it nothing is signed. Several commands may run at once.

A revocation is first recorded, then listed. A new list keeps the entries of the list on disk that the record lacks, so that
a new or restored record withdraws no revocation.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding

from mailserver.system.atomic_file import only_one, replace_file
from mailserver.tls.ca import authority
from mailserver.tls.ca.authority import Authority, PrivateKey, PublicKey, Purpose
from mailserver.tls.ca.names import outside
from mailserver.tls.ca.records import FILE as RECORDS
from mailserver.tls.ca.records import CaFault, Record, Records
from mailserver.tls.keypair.pem import Fault, read_file
from mailserver.tls.keypair.published_ca import LIST, list_of
from mailserver.types import Secret

CERTIFICATE: Final = "ca.pem"
KEY: Final = "ca.key"

LIST_DAYS: Final = 365
"""Life of a revocation list: a server with an expired list refuses all clients' certificates."""

LEAST_BITS: Final = 2048

REASONS: Final = (
    "unspecified",
    "keyCompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "privilegeWithdrawn",
)
"""Reasons for a revocation (RFC 5280 5.3.1) that fit certificates of servers and users."""


def create(
    directory: Path,
    name: str,
    *,
    key_type: str,
    days: int,
    only: Sequence[str],
    passphrase: Secret | None,
    now: dt.datetime,
) -> bool:
    """Make an authority. If one made elsewhere is there without a record, begin a record for it and return False.

    Raises: CaFault, OSError.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    certificate, key = directory / CERTIFICATE, directory / KEY
    with only_one(certificate):
        if (directory / RECORDS).exists() and certificate.exists():
            raise CaFault(f"there is an authority in {directory}: another one needs another --dir")
        is_new = not certificate.exists()
        if is_new:
            if key.exists():
                raise CaFault(
                    f"{key} is there without its certificate {CERTIFICATE}: restore that, or move the key away"
                )
            made = authority.make_authority(name, authority.make_key(key_type), days=days, only=only, now=now)
            secret = passphrase.reveal() if passphrase is not None else None
            replace_file(key, authority.key_pem(made.key, secret))
            replace_file(certificate, authority.certificate_pem(made.certificate), mode=0o644)
        ca = PrivateCa(directory, read_certificate(directory))
        signer = ca.unlock(passphrase)
        records = Records.create(directory)
        try:
            _write_list(ca, signer, records, LIST_DAYS, now)
        finally:
            records.close()
    return is_new


def read_certificate(directory: Path) -> x509.Certificate:
    """Read the authority's certificate. Raises: CaFault."""
    path = directory / CERTIFICATE
    octets = _read(path)
    try:
        certificate = x509.load_pem_x509_certificate(octets)
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, x509.ExtensionNotFound) as error:
        raise CaFault(
            f"{path} does not hold the certificate of an authority in PEM: restore it from a backup"
        ) from error
    if not is_authority:
        raise CaFault(f"{path} holds a certificate that may not sign others (basicConstraints)")
    return certificate


@frozen
class PrivateCa:
    """An authority whose certificate was read."""

    directory: Path
    certificate: x509.Certificate

    @property
    def name(self) -> str:
        """Its subject, for people."""
        return self.certificate.subject.rfc4514_string()

    @property
    def only(self) -> tuple[str, ...]:
        """Domains that it may sign for; empty for any."""
        try:
            constraints = self.certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            return ()
        return tuple(each.value for each in constraints.permitted_subtrees or () if isinstance(each, x509.DNSName))

    @property
    def is_locked(self) -> bool:
        """Does its key need a passphrase? Raises: CaFault."""
        return b"ENCRYPTED" in _read(self.directory / KEY)

    @property
    def exposure(self) -> str:
        """A warning about the permissions of its key; "" if they are right."""
        path = self.directory / KEY
        with contextlib.suppress(OSError):
            if path.stat().st_mode & 0o006:
                return f"{path} can be read or changed by every user of this machine, any of whom could sign: chmod 600"
        return ""

    def unlock(self, passphrase: Secret | None) -> Authority:
        """Load its key. Raises: CaFault."""
        path = self.directory / KEY
        try:
            key = serialization.load_pem_private_key(
                _read(path), None if passphrase is None or not self.is_locked else passphrase.reveal()
            )
        except TypeError as error:
            raise CaFault(f"{path} has a passphrase, which must be given") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            why = "cannot be decrypted with that passphrase" if self.is_locked else "holds no private key in PEM"
            raise CaFault(f"{path} {why}") from error
        if not isinstance(key, PrivateKey):
            raise CaFault(f"{path} must hold a key of RSA or ECDSA")
        if isinstance(key, rsa.RSAPrivateKey) and key.key_size < LEAST_BITS:
            raise CaFault(f"{path} has an RSA key of {key.key_size} bits; clients take no signature below {LEAST_BITS}")
        form = (Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        if key.public_key().public_bytes(*form) != self.certificate.public_key().public_bytes(*form):
            raise CaFault(f"{path} does not belong to {CERTIFICATE}: restore both from one backup")
        return Authority(self.certificate, key)

    def chain(self, certificate: x509.Certificate) -> bytes:
        """Return the chain to serve with a certificate, PEM; an intermediate authority's own certificate is part of it.

        A root is left out: clients have it (RFC 8446 4.4.2).
        """
        is_root = self.certificate.issuer == self.certificate.subject
        return b"".join(map(authority.certificate_pem, (certificate,) if is_root else (certificate, self.certificate)))

    def require_clock(self, now: dt.datetime) -> None:
        """Refuse to sign while the clock is wrong: a machine without a clock of its own starts in 1970.

        Raises: CaFault if the time is before the authority's own begin.
        """
        begin = self.certificate.not_valid_before_utc
        if now < begin:
            raise CaFault(
                f"this machine's clock says {now:%Y-%m-%d}, and the authority was made on {begin:%Y-%m-%d}: "
                "nothing is signed until the clock is right"
            )

    def records(self) -> Records:
        """Open the record. Raises: CaFault."""
        return Records.open(self.directory)

    def sign(
        self,
        signer: Authority,
        public_key: PublicKey,
        names: Sequence[str],
        purpose: Purpose,
        *,
        days: int,
        now: dt.datetime,
        crl_url: str = "",
    ) -> x509.Certificate:
        """Sign and record a certificate, for host names and IP addresses or for the one mail address of a user.

        It ends with the authority if that is sooner. Raises: CaFault.
        """
        if self.only and (foreign := outside(names, self.only)):
            raise CaFault(f"{', '.join(foreign)}: this authority may sign for {', '.join(self.only)} alone")
        self.require_clock(now)
        left = (self.certificate.not_valid_after_utc - now).days
        if left < 1:
            raise CaFault(f"the authority's own certificate ended on {self.certificate.not_valid_after_utc:%Y-%m-%d}")
        others: list[x509.GeneralName] = [x509.RFC822Name(name) for name in names]
        certificate = authority.sign(
            signer,
            public_key,
            authority.common_name(names[0]),
            authority.alternatives(names) if purpose == "server" else others,
            purpose,
            days=min(days, left),
            now=now,
            crl_url=crl_url,
        )
        records = self.records()
        try:
            records.add(certificate, purpose, names, now)
        finally:
            records.close()
        return certificate

    def revoke(self, signer: Authority, found: Sequence[Record], reason: str, now: dt.datetime) -> None:
        """Revoke certificates and write a new list. Raises: CaFault, OSError."""
        records = self.records()
        try:
            with only_one(self.directory / CERTIFICATE):
                records.revoke([record.serial for record in found], reason, now)
                _write_list(self, signer, records, self.list_days, now)
        finally:
            records.close()

    def renew_list(self, signer: Authority, days: int, now: dt.datetime) -> x509.CertificateRevocationList:
        """Write a new list with the same entries. Raises: CaFault, OSError."""
        records = self.records()
        try:
            with only_one(self.directory / CERTIFICATE):
                return _write_list(self, signer, records, days, now)
        finally:
            records.close()

    @property
    def current_list(self) -> x509.CertificateRevocationList | None:
        """The list on disk, if it is this authority's."""
        return list_of(self.certificate, self.directory / LIST)

    @property
    def list_days(self) -> int:
        """The lifetime of the present list."""
        found = self.current_list
        if found is None or found.next_update_utc is None:
            return LIST_DAYS
        return max(1, (found.next_update_utc - found.last_update_utc).days)

    def unlisted(self) -> list[Record]:
        """Return revocations missing from the list because a command was interrupted. Raises: CaFault."""
        found = self.current_list
        records = self.records()
        try:
            revoked = records.revoked()
        finally:
            records.close()
        return [
            record
            for record in revoked
            if found is None or found.get_revoked_certificate_by_serial_number(int(record.serial, 16)) is None
        ]


def open_ca(directory: Path) -> PrivateCa:
    """Open the authority in a directory. Raises: CaFault."""
    if not (directory / CERTIFICATE).exists():
        raise CaFault(f"there is no authority in {directory}: `mailserver ca init` makes one")
    return PrivateCa(directory, read_certificate(directory))


def _write_list(
    ca: PrivateCa, signer: Authority, records: Records, days: int, now: dt.datetime
) -> x509.CertificateRevocationList:
    before = ca.current_list
    number, revoked = records.next_list(now, 0 if before is None else _number(before) + 1)
    entries = {
        int(record.serial, 16): (
            dt.datetime.fromtimestamp(record.revoked or 0, dt.UTC),
            record.reason or "unspecified",
        )
        for record in revoked
    }
    for each in before or ():
        entries.setdefault(each.serial_number, (each.revocation_date_utc, _reason(each)))
    listed = [(serial, time, reason) for serial, (time, reason) in entries.items()]
    made = authority.make_list(signer, listed, number=number, days=days, now=now)
    replace_file(ca.directory / LIST, made.public_bytes(Encoding.PEM), mode=0o644)
    return made


def _number(of: x509.CertificateRevocationList) -> int:
    try:
        return of.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (x509.ExtensionNotFound, ValueError):
        return 0


def _reason(of: x509.RevokedCertificate) -> str:
    try:
        return of.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
    except (x509.ExtensionNotFound, ValueError):
        return "unspecified"


def _read(path: Path) -> bytes:
    faults: list[Fault] = []
    octets = read_file(path, path.name, faults)
    if octets is None:
        raise CaFault(f"{path} {faults[0].reason}")
    return octets
