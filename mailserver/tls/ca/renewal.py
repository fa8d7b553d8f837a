"""Renewal of certificates that a private authority has signed for this server.

A certificate is renewed after two thirds of its life, with the same names, lifetime and key. TLSA records in DNS thus stay
valid, only the certificate's file changes, and the key stays in its place. The revocation list is signed anew at the same
part of its life. Not renewed are revoked certificates, files that a rollback has pinned, and certificates whose life the
authority's own end would cut as short.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import attrs
from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mailserver.config.model import Config
from mailserver.system.atomic_file import replace_file
from mailserver.tls.ca.authority import MOST_DAYS, Authority, certificate_pem
from mailserver.tls.ca.private_ca import CERTIFICATE, KEY, PrivateCa, open_ca
from mailserver.tls.ca.records import CaFault
from mailserver.tls.keypair.pem import Fault, read_file
from mailserver.tls.keypair.published_ca import LIST, PublishedCa
from mailserver.tls.state.expiry import in_days

ENDS_SOON: Final = dt.timedelta(days=90)
"""Remaining life of an authority at which a warning is due: people need time to import its successor."""

USERS_SOON: Final = dt.timedelta(days=30)

_MOST_LISTED: Final = 20
_LEAST_GAIN: Final = dt.timedelta(days=2)
"""Lives are whole days. Near the authority's end a new certificate gains less than this, or nothing."""
_AFTER: Final = 2 / 3
"""The part of its life after which a certificate is renewed."""


@frozen
class ServedChains:
    """The certificate chains that a host name is served with."""

    origin: str
    """`context_map.Origin`."""
    chains: tuple[bytes, ...]
    """PEM: the certificate and, if there is one, that of the other key type; each with its chain."""


@frozen
class Renewable:
    """Certificates that are served together."""

    hosts: tuple[str, ...]
    chains: tuple[bytes, ...]
    files: tuple[Path, ...]
    """The files of the chains; empty for what `cert add` or `cert create --activate` has added."""

    @property
    def first(self) -> x509.Certificate:
        """The first chain's certificate."""
        return _leaf(self.chains[0])


def authority_of(config: Config) -> Path | None:
    """Return the directory of the authority of `[tls] private_ca`, if it has its key there."""
    path = config.tls.private_ca
    if path is None or path.name != CERTIFICATE or not os.path.exists(path.parent / KEY):
        return None
    return path.parent


def renewables(config: Config, served: Mapping[str, ServedChains]) -> list[Renewable]:
    """Return all served certificates that can be renewed, by any authority, unless another is served in their place."""
    found: dict[tuple[tuple[bytes, ...], tuple[Path, ...]], list[str]] = {}
    for domain in config.domains_and_sites:
        files = tuple(path for path in (domain.certificate, domain.second_certificate) if path is not None)
        wanted = "file" if files else "added"
        for host in domain.hosts:
            each = served.get(host)
            if each is not None and each.origin == wanted and len(files) in (0, len(each.chains)):
                found.setdefault((each.chains, files), []).append(host)
    return [Renewable(tuple(hosts), chains, files) for (chains, files), hosts in found.items()]


def is_due(ca: PrivateCa, chain: bytes, now: dt.datetime) -> bool:
    """Is it time to renew a certificate, and has this authority signed it?"""
    certificate = _leaf(chain)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    life = end - begin
    gained = min(now + life, ca.certificate.not_valid_after_utc) - end
    is_old = now >= begin + life * _AFTER and gained >= min(_LEAST_GAIN, life * (1 - _AFTER))
    # A certificate that begins in the future was signed while the clock was wrong.
    return (is_old or now < begin) and has_signed(ca, certificate)


def has_signed(ca: PrivateCa, certificate: x509.Certificate) -> bool:
    """Has the authority signed a certificate with its present key?"""
    try:
        certificate.verify_directly_issued_by(ca.certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def renew(
    ca: PrivateCa,
    signer: Authority,
    renewable: Renewable,
    now: dt.datetime,
    *,
    crl_url: str = "",
    all_of_it: bool = False,
) -> Renewable:
    """Sign new certificates in place of those that are due, and record them. Raises: CaFault.

    `crl_url` is the URL of the revocation list for the new ones. `all_of_it` renews all that this authority has signed.
    """
    chains = tuple(
        _renewed(ca, signer, chain, now, crl_url)
        if is_due(ca, chain, now) or (all_of_it and has_signed(ca, _leaf(chain)))
        else chain
        for chain in renewable.chains
    )
    return attrs.evolve(renewable, chains=chains)


def write(renewable: Renewable, renewed: Renewable) -> list[Path]:
    """Write renewed certificates into their files; return these. Raises: OSError, or CaFault if a file holds more."""
    written = []
    for file, old, new in zip(renewable.files, renewable.chains, renewed.chains, strict=True):
        if old == new:
            continue
        faults: list[Fault] = []
        # The link is resolved once: what is replaced is what was read, even if somebody changes the link meanwhile.
        place = Path(os.path.realpath(file))
        held = read_file(place, "certificate", faults)
        if held is None or b"PRIVATE KEY" in held:
            why = faults[0].reason if faults else "holds a key beside the certificate"
            raise CaFault(f"{file} {why}: it is not renewed here")
        if not _begins_with(held, _leaf(old)):
            raise CaFault(f"{file} holds another certificate than the one served: it is left as it is")
        replace_file(place, new, mode=0o644, follow=False)
        written.append(file)
    return written


def list_is_due(ca: PrivateCa, now: dt.datetime) -> bool:
    """Is it time to sign the revocation list anew? Also if it is missing, begins in the future or is incomplete.

    Raises: CaFault.
    """
    current = ca.current_list
    if current is None or current.next_update_utc is None:
        return True
    begin, end = current.last_update_utc, current.next_update_utc
    return not begin <= now < begin + (end - begin) * _AFTER or bool(ca.unlisted())


def renew_list(ca: PrivateCa, signer: Authority, now: dt.datetime) -> x509.CertificateRevocationList:
    """Sign the revocation list anew, for as long as before. Raises: CaFault, OSError."""
    return ca.renew_list(signer, ca.list_days, now)


def users_ending(ca: PrivateCa, now: dt.datetime) -> str:
    """Return a warning of users whose last certificate ends soon; "" if there are none. Raises: CaFault.

    Only the users, who have the keys, can renew these.
    """
    records = ca.records()
    try:
        last: dict[str, int] = {}
        for record in records.all():
            if record.purpose == "client" and record.state(now) == "valid":
                last[record.names[0]] = max(record.until, last.get(record.names[0], 0))
    finally:
        records.close()
    soon = sorted((until, name) for name, until in last.items() if until - now.timestamp() < USERS_SOON.total_seconds())
    if not soon:
        return ""
    listed = [f"{name} on {dt.datetime.fromtimestamp(until, dt.UTC):%Y-%m-%d}" for until, name in soon[:_MOST_LISTED]]
    more = f" and {len(soon) - _MOST_LISTED} more" if len(soon) > _MOST_LISTED else ""
    return f"users' certificates end soon without successors: {', '.join(listed)}{more}"


def warnings(config: Config, authority: PublishedCa, now: dt.datetime) -> list[str]:
    """Return all warnings about a configuration's authority, whose certificate is valid."""
    said = [ends_soon(authority.not_after, now), _unanswered_url(config, authority)]
    directory = authority_of(config)
    if directory is not None:
        try:
            said.append(open_ca(directory).exposure)
        except CaFault as fault:
            said.append(str(fault))
    return [words for words in said if words]


def _unanswered_url(config: Config, authority: PublishedCa) -> str:
    """Warn that nobody serves the list at its URL: clients that check it then refuse every certificate."""
    url = config.tls.private_ca_crl_url
    own: set[str] = {host for each in config.domains_and_sites for host in each.hosts}
    if not url or urlsplit(url).hostname not in own:
        return ""
    if not authority.crl:
        return f"has no {LIST} of its own beside it, which private_ca_crl_url promises: `mailserver ca crl` makes one"
    if not any(listener.protocol == "http" for listener in config.listeners):
        return "has its list at private_ca_crl_url only if there is a [[listener]] of protocol http, and there is none"
    return ""


def ends_soon(not_after: dt.datetime, now: dt.datetime) -> str:
    """Warn of an authority's own end; "" if that is far."""
    left = not_after - now
    if left > ENDS_SOON:
        return ""
    when = f"{not_after:%Y-%m-%d}"
    if left <= dt.timedelta(0):
        return (
            f"the authority ended on {when}: clients refuse all it has signed; make another with `mailserver ca init`"
        )
    return (
        f"the authority ends in {in_days(left.days)}, on {when}: make another with `mailserver ca init --dir`, "
        "and have people import it before"
    )


def _renewed(ca: PrivateCa, signer: Authority, chain: bytes, now: dt.datetime, crl_url: str) -> bytes:
    old, *above = x509.load_pem_x509_certificates(chain)
    names = _names(old)
    if _is_revoked(ca, old.serial_number):
        raise CaFault(f"the certificate of {names[0]} is revoked: `mailserver cert create` makes one with another key")
    key = old.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise CaFault(f"the certificate of {names[0]} has a key that is neither RSA nor ECDSA")
    days = max(1, min(MOST_DAYS, (old.not_valid_after_utc - old.not_valid_before_utc).days))
    made = ca.sign(signer, key, names, "server", days=days, now=now, crl_url=crl_url)
    return b"".join(map(certificate_pem, (made, *above)))


def _is_revoked(ca: PrivateCa, serial: int) -> bool:
    """Is a certificate revoked, by the record or by a list older than the record? Raises: CaFault."""
    listed = ca.current_list
    if listed is not None and listed.get_revoked_certificate_by_serial_number(serial) is not None:
        return True
    records = ca.records()
    try:
        return any(record.serial == f"{serial:x}" for record in records.revoked())
    finally:
        records.close()


def _names(certificate: x509.Certificate) -> list[str]:
    """Raises: CaFault."""
    try:
        alternatives: Iterable[x509.GeneralName] = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise CaFault("a certificate without names is not renewed") from error
    names = [str(each.value) for each in alternatives if isinstance(each, x509.DNSName | x509.IPAddress)]
    if not names or len(names) < len(list(alternatives)):
        raise CaFault("a certificate with names that are neither host names nor addresses is not renewed")
    return names


def _begins_with(held: bytes, certificate: x509.Certificate) -> bool:
    try:
        return _leaf(held) == certificate
    except ValueError:
        return False


def _leaf(chain: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(chain)
