"""A certificate with its chain and key: read once, validated, and kept as the validated octets.

`load_pair` reports everything wrong with two files. A fault that makes a pair useless is an error. One that some clients
reject (dates, a life that phones refuse) is a warning: a server that does not start after a reboot helps nobody.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from mailserver.tls.keypair.pem import BEGIN, Fault, PrivateKey, parse_certificates, parse_private_key, read_file
from mailserver.tls.keypair.sanitize import printable
from mailserver.types import Secret

LONGEST_CHAIN: Final = 16
"""GnuTLS's default limit of certificates in a chain; OpenSSL's limit is 100 KiB."""

LONGEST_NAME: Final = 253
"""Characters of a host name (RFC 1035 2.3.4)."""

MAX_DAYS: Final = 825
"""Longest life in days that phones accept, of private authorities' certificates too."""

READINGS: Final = 3
"""Maximum number of times that two files are read until they belong together, while they change."""

SOON: Final = dt.timedelta(days=7)


class BadPair(Exception):
    """A pair that cannot be served; `faults` says why."""

    def __init__(self, faults: Sequence[Fault], pair: Pair | None = None) -> None:
        """`pair` is the pair as read, for further checks."""
        super().__init__("; ".join(f"{fault.key} {fault.value} {fault.reason}".replace("  ", " ") for fault in faults))
        self.faults = tuple(faults)
        self.pair = pair


@frozen
class Pair:
    """A certificate, its chain and its key, which belong together."""

    chain_pem: bytes = field(repr=False)
    """The certificate first, then its chain."""
    key_pem: Secret
    names: tuple[str, ...]
    """DNS names that it covers, in lower case."""
    not_before: dt.datetime
    not_after: dt.datetime
    """UTC."""
    fingerprint: str
    """SHA-256 of the certificate, hexadecimal."""
    issuer: str
    """The issuer's name in RFC 4514's form."""
    builds: bool
    """Has each certificate of the chain signed the one before it?"""
    digest: bytes = field(repr=False)
    """SHA-256 of all octets: pairs with the same digest share a context."""
    faults: tuple[Fault, ...] = ()
    """Warnings that do not depend on the time; `date_faults` has the others."""
    key_type: Literal["RSA", "ECDSA"] = "ECDSA"

    def date_faults(self, now: dt.datetime) -> list[Fault]:
        """Return warnings about the dates; at the start an expired certificate is better than none."""
        if now >= self.not_after:
            return [
                Fault("certificate", f"expired on {self.not_after:%Y-%m-%d}; clients refuse it: renew it", warning=True)
            ]
        if now < self.not_before:
            reason = f"is not valid before {self.not_before:%Y-%m-%d %H:%M} UTC: check the clock of this machine"
            return [Fault("certificate", reason, warning=True)]
        if now > self.not_after - SOON:
            return [Fault("certificate", f"expires on {self.not_after:%Y-%m-%d}: renew it", warning=True)]
        return []

    @property
    def length(self) -> int:
        """Number of certificates in its chain, its own included."""
        return self.chain_pem.count(BEGIN)

    def is_current(self, now: dt.datetime) -> bool:
        """Do its dates include this moment?"""
        return self.not_before <= now < self.not_after


def load_pair(certificate: Path, key: Path, password: Secret | None = None) -> Pair:
    """Read and validate two files, the key with its password if it has one. Raises: BadPair with every fault."""
    for _attempt in range(READINGS):
        faults: list[Fault] = []
        chain_pem = read_file(certificate, "certificate", faults)
        key_pem = read_file(key, "key", faults)
        chain = parse_certificates(chain_pem, faults) if chain_pem is not None else []
        private = parse_private_key(key_pem, password, faults) if key_pem is not None else None
        if not chain or private is None or _same_key(chain[0], private):
            break
        # A renewal replaces two files or links one after the other: an inconsistent pair may be half of one.
        again: list[Fault] = []
        if (read_file(certificate, "certificate", again), read_file(key, "key", again)) == (chain_pem, key_pem):
            break
    return _pair(chain, private, faults)


def parse_pair(chain_pem: bytes, key_pem: bytes) -> Pair:
    """Validate octets from another source than files. Raises: BadPair with every fault."""
    faults: list[Fault] = []
    chain = parse_certificates(chain_pem, faults)
    return _pair(chain, parse_private_key(key_pem, None, faults), faults)


def has_same_key(one_pem: bytes, other_pem: bytes) -> bool:
    """Do two chains' first certificates have the same key? False if one cannot be parsed. Raises nothing."""
    try:
        one, other = (x509.load_pem_x509_certificate(each).public_key() for each in (one_pem, other_pem))
    except (ValueError, UnsupportedAlgorithm):
        return False
    return one == other


def _pair(chain: Sequence[x509.Certificate], private: PrivateKey | None, faults: list[Fault]) -> Pair:
    mismatches = list(_mismatches(chain, private)) if chain and private is not None else []
    # Faults of an authority's certificate that stands first would be misleading.
    is_leaf_first = bool(chain) and not any(fault.key == "certificate" for fault in mismatches)
    faults += _chain_faults(chain) if is_leaf_first else ()
    pair = _as_read(chain, private, faults) if is_leaf_first and private is not None else None
    faults += mismatches
    if pair is None or not all(fault.warning for fault in faults):
        raise BadPair([fault for fault in faults if not fault.warning], pair)
    return pair


def _as_read(chain: Sequence[x509.Certificate], private: PrivateKey, faults: Iterable[Fault]) -> Pair:
    # Encoded anew: OpenSSL cannot read additions of other systems' editors, such as a byte order mark.
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    chain_pem = b"".join(each.public_bytes(pem) for each in chain)
    key_pem = private.private_bytes(pem, pkcs8, serialization.NoEncryption())
    return Pair(
        chain_pem,
        Secret(key_pem),
        _dns_names(chain[0]),
        chain[0].not_valid_before_utc,
        chain[0].not_valid_after_utc,
        chain[0].fingerprint(hashes.SHA256()).hex(),
        printable(chain[0].issuer.rfc4514_string()),
        not any(_unsigned(chain)),
        hashlib.sha256(chain_pem + b"\0" + key_pem).digest(),
        tuple(fault for fault in faults if fault.warning),
        "RSA" if isinstance(private, rsa.RSAPrivateKey) else "ECDSA",
    )


def _mismatches(chain: Sequence[x509.Certificate], private: PrivateKey) -> Iterator[Fault]:
    if _same_key(chain[0], private):
        return
    own = next((number for number, each in enumerate(chain, 1) if _same_key(each, private)), None)
    if own is None:
        yield Fault("key", "does not belong to the certificate: put both files of the same renewal there")
    else:
        reason = f"has its chain out of order: certificate {own} is the one of the key, and must come first"
        yield Fault("certificate", reason)


def covers(names: Iterable[str], host: str) -> bool:
    """Do a certificate's names cover a host name or `*.name` (RFC 6125 6.4.3: `*` is one whole label)?"""
    _label, _dot, parent = host.partition(".")
    return any(name in (host, f"*.{parent}") for name in names)


def pair_faults(pair: Pair, hosts: Iterable[str], now: dt.datetime) -> list[Fault]:
    """Return the faults of serving these hosts with this pair; a host that it does not cover is an error."""
    uncovered = [host for host in hosts if not covers(pair.names, host)]
    known = ", ".join(pair.names[:5])
    reason = f"is not covered by the certificate, which names {known}: have one issued for it, or take it out"
    faults = [Fault("hosts", reason, value=host) for host in uncovered]
    return [*faults, *pair.faults, *pair.date_faults(now)]


def read_authorities(path: Path) -> list[x509.Certificate]:
    """Read the certificates of a file of authorities. Raises: BadPair."""
    faults: list[Fault] = []
    octets = read_file(path, "certificate", faults)
    found = parse_certificates(octets, faults) if octets is not None else []
    if faults:
        raise BadPair(faults)
    return found


def load_client_pair(
    certificate: Path, key: Path, password: Secret | None = None
) -> tuple[list[x509.Certificate], PrivateKey]:
    """Read the certificate, chain and key that we show as a client. Raises: BadPair."""
    faults: list[Fault] = []
    octets, key_pem = read_file(certificate, "certificate", faults), read_file(key, "key", faults)
    chain = parse_certificates(octets, faults) if octets is not None else []
    private = parse_private_key(key_pem, password, faults) if key_pem is not None else None
    if chain and private is not None:
        faults += _mismatches(chain, private)
    if faults or private is None:
        raise BadPair(faults)
    return chain, private


def _same_key(certificate: x509.Certificate, private: PrivateKey) -> bool:
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        return certificate.public_key().public_bytes(*form) == private.public_key().public_bytes(*form)
    except (ValueError, UnsupportedAlgorithm):
        return False


def _chain_faults(chain: Sequence[x509.Certificate]) -> Iterator[Fault]:
    """Check names, purpose, life and order; the first certificate is the server's."""
    leaf = chain[0]
    try:
        extensions = leaf.extensions
    except ValueError:
        yield Fault("certificate", "has extensions that cannot be decoded: have it issued anew")
        return
    if not _dns_names(leaf):
        yield Fault(
            "certificate",
            "has no subject alternative DNS name, the only one that clients check: have it issued with one",
        )
    try:
        usage = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        yield Fault("certificate", "has no extended key usage serverAuth; Apple's clients ask for it", warning=True)
    else:
        if ExtendedKeyUsageOID.SERVER_AUTH not in usage and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in usage:
            yield Fault("certificate", "is not made for servers: have it issued with extended key usage serverAuth")
    days = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days
    if days > MAX_DAYS:
        yield Fault("certificate", f"is valid for {days} days; phones refuse more than {MAX_DAYS}", warning=True)
    if len(chain) > LONGEST_CHAIN:
        reason = f"has {len(chain)} certificates in its chain; clients refuse more than {LONGEST_CHAIN}"
        yield Fault("certificate", reason, warning=True)
    for position in _unsigned(chain):
        order = "the server's own comes first, then its issuer, and so on"
        reason = f"has its chain out of order: certificate {position + 1} did not sign certificate {position}: {order}"
        yield Fault("certificate", reason, warning=True)
        return


def _unsigned(chain: Sequence[x509.Certificate]) -> Iterator[int]:
    """Yield the positions, from 1, of certificates that the next one did not sign."""
    for position in range(1, len(chain)):
        if not _issued(chain[position - 1], chain[position]):
            yield position


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    # Names that cannot be host names are useless, and unsafe to show in a log or on a terminal.
    return tuple(
        name.lower()
        for name in names.get_values_for_type(x509.DNSName)
        if name.isprintable() and len(name) <= LONGEST_NAME
    )
