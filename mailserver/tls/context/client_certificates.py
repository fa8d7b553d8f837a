"""A host name's demand for client certificates, and explanations of refused ones.

OpenSSL verifies the chain, the dates, the purpose (extended key usage clientAuth, RFC 5280 4.2.1.12) and the revocation
lists (RFC 5280 6.3) during the handshake. This module validates the files that it verifies against, and turns its error
numbers into advice for the administrator.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from mailserver.config.kinds import ClientCertificates, ClientUser
from mailserver.config.model import Domain
from mailserver.tls.context.private_names import verification_error
from mailserver.tls.keypair.pair import BadPair, read_authorities
from mailserver.tls.keypair.pem import Fault, read_file

_BEGIN_CRL: Final = b"-----BEGIN X509 CRL-----"
_END_CRL: Final = b"-----END X509 CRL-----"

_SUBJECT_FIELDS: Final = {
    "commonName": NameOID.COMMON_NAME,
    "emailAddress": NameOID.EMAIL_ADDRESS,
    "userId": NameOID.USER_ID,
}

_LATE: Final = 0.1
"""The last part of a revocation list's life, in which a successor should exist."""

_CLOCK: Final = "check its dates and the clock of this machine"

_ISSUE: Final = "give the user one that an authority of client_ca has signed"

_WORDS: Final = {
    2: "its chain ends at no authority of client_ca: add the authority there, or have the client send the chain",
    3: "client_crl holds no revocation list of {issuer}: add it",
    9: f"it is not valid yet: {_CLOCK}",
    10: "it has expired: give the user a new one",
    11: f"the revocation list of {{issuer}} is not valid yet: {_CLOCK}",
    12: "the revocation list of {issuer} has expired: put a new one into client_crl",
    18: f"it is self-signed, not signed by an authority of client_ca: {_ISSUE}",
    19: f"its chain ends at an authority that is not in client_ca: add it there, or {_ISSUE}",
    20: f"it is signed by {{issuer}}, which is not in client_ca: add that authority there, or {_ISSUE}",
    21: f"it is signed by {{issuer}}, which is not in client_ca: add that authority there, or {_ISSUE}",
    23: "it is revoked by client_crl: give the user a new one, unless somebody else has its key",
    24: f"the chain holds {{subject}}, which is no authority: {_ISSUE}",
    26: "it is not made for clients: issue one with extended key usage clientAuth",
}
"""By OpenSSL's error number (x509_vfy.h); {issuer} and {subject} are names of the certificate concerned."""

NONE_SHOWN: Final = "a certificate is required and the client has shown none: import one there"
"""The message for a client without a certificate where one is required."""


@frozen
class Demand:
    """A host name's demand for client certificates, with the validated octets to verify them."""

    certificates: ClientCertificates = "none"
    user: ClientUser = "rfc822Name"
    """The field that holds the user name."""
    authorities: bytes = field(default=b"", repr=False)
    """PEM; each is trusted by itself, an intermediate one too."""
    revocations: bytes = field(default=b"", repr=False)
    """Lists (RFC 5280 5), PEM; empty if revocation is not checked."""


def read_demand(domain: Domain, now: dt.datetime, faults: list[Fault]) -> Demand:
    """Read a domain's demand, and add what is wrong with its files to `faults`."""
    if domain.client_certificates == "none" or domain.client_ca is None:
        return Demand()
    authorities: list[x509.Certificate] = []
    try:
        authorities = read_authorities(domain.client_ca)
    except BadPair as bad:
        faults += [Fault("client_ca", fault.reason) for fault in bad.faults]
    faults += _authority_faults(authorities, now)
    lists: list[x509.CertificateRevocationList] = []
    if domain.client_crl is not None:
        lists = _read_lists(domain.client_crl, faults)
        if lists and authorities:
            faults += _list_faults(lists, authorities, now)
    return Demand(
        domain.client_certificates,
        domain.client_user,
        b"".join(each.public_bytes(Encoding.PEM) for each in authorities),
        b"".join(each.public_bytes(Encoding.PEM) for each in lists),
    )


def apply_demand(context: SSL.Context, demand: Demand) -> None:
    """Have a new context verify with the demand's authorities, and name them to clients (RFC 8446 4.2.4)."""
    if demand.certificates == "none":
        return
    store = context.get_cert_store()
    assert store is not None
    for authority in x509.load_pem_x509_certificates(demand.authorities):
        store.add_cert(crypto.X509.from_cryptography(authority))
        context.add_client_ca(authority)
    flags = crypto.X509StoreFlags.PARTIAL_CHAIN
    if demand.revocations:
        flags |= crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL
        for each in _split(demand.revocations):
            store.add_crl(x509.load_pem_x509_crl(each))
    store.set_flags(flags)


def verification_fault(error: int, certificate: x509.Certificate) -> str:
    """Explain OpenSSL's error about a certificate of the chain."""
    words = _WORDS.get(error)
    if words is None:
        return f"{verification_error(error)} (OpenSSL's error {error})"
    return words.format(issuer=_name(certificate.issuer), subject=_name(certificate.subject))


def user_of(certificate: x509.Certificate, chosen: ClientUser) -> str:
    """Return the user name in the chosen field; "" if there is none, more than one, or one with control characters.

    "any" chooses no field: such a certificate names nobody.
    """
    if chosen == "any":
        return ""
    try:
        if chosen == "rfc822Name":
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            found = names.get_values_for_type(x509.RFC822Name)
        else:
            attributes = certificate.subject.get_attributes_for_oid(_SUBJECT_FIELDS[chosen])
            found = [str(each.value) for each in attributes]
    except (x509.ExtensionNotFound, ValueError):
        return ""
    # With two names the choice would be arbitrary.
    return found[0] if len(found) == 1 and found[0].isprintable() else ""


def _authority_faults(authorities: list[x509.Certificate], now: dt.datetime) -> Iterator[Fault]:
    for number, each in enumerate(authorities, 1):
        try:
            is_authority = each.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        except (x509.ExtensionNotFound, ValueError):
            is_authority = False
        if not is_authority:
            yield Fault(
                "client_ca",
                f"holds, at {number}, {_name(each.subject)}, which is not an authority: name its issuer instead",
            )
        elif each.not_valid_after_utc <= now:
            when = f"{each.not_valid_after_utc:%Y-%m-%d}"
            reason = f"holds {_name(each.subject)}, which expired on {when}: put its successor there, or its users are refused"
            yield Fault("client_ca", reason, warning=True)


def _read_lists(path: Path, faults: list[Fault]) -> list[x509.CertificateRevocationList]:
    octets = read_file(path, "client_crl", faults)
    if octets is None:
        return []
    try:
        if _BEGIN_CRL in octets:
            return [x509.load_pem_x509_crl(each) for each in _split(octets)]
        return [x509.load_der_x509_crl(octets)]
    except ValueError:
        broken = "holds a list that cannot be decoded: fetch it again from the authority"
        none = "is not a revocation list, PEM or DER: fetch the authority's, or have it make one (`mailserver ca crl`)"
        faults.append(Fault("client_crl", broken if _BEGIN_CRL in octets else none))
        return []


def _split(octets: bytes) -> Iterator[bytes]:
    """Split lists: the library parses one at a time."""
    for piece in octets.split(_BEGIN_CRL)[1:]:
        yield _BEGIN_CRL + piece.partition(_END_CRL)[0] + _END_CRL + b"\n"


def _list_faults(
    lists: list[x509.CertificateRevocationList], authorities: list[x509.Certificate], now: dt.datetime
) -> Iterator[Fault]:
    for authority in authorities:
        own = [each for each in lists if _signed(each, authority)]
        name = _name(authority.subject)
        if not own:
            yield Fault("client_crl", f"holds no list of {name}, whose certificates would all be refused: add it")
            continue
        lives = [(each.next_update_utc, each.last_update_utc) for each in own if each.next_update_utc is not None]
        if not lives:
            continue
        newest, begun = max(lives)
        if newest <= now:
            reason = f"is too old: the list of {name} expired on {newest:%Y-%m-%d}; its users are refused"
            yield Fault("client_crl", reason, warning=True)
        elif newest - now < (newest - begun) * _LATE:
            reason = f"ends on {newest:%Y-%m-%d}: put a new list of {name} there before, or its users are refused then"
            yield Fault("client_crl", reason, warning=True)


def _signed(each: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if each.issuer != authority.subject:
        return False
    try:
        return each.is_signature_valid(authority.public_key())  # type: ignore[arg-type]
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False


def _name(name: x509.Name) -> str:
    return name.rfc4514_string()[:200] or "(no name)"
