"""Renewing what one's own authority has signed for this server: what is due, and what comes in its place.

A certificate is renewed when two thirds of its life are over, with the same names, for as long again, and for the same key.
So what DNS says of the key (TLSA) stays true, of two files one changes, and no key leaves its place. The revocation list is
signed anew at the same part of its life. What is not renewed: a certificate that was revoked, files that a
rollback passes over, and what the authority's own end would cut as short.
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
from mailserver.tls.keypair.pair import Fault, read_file
from mailserver.tls.keypair.published_ca import LIST, Offered
from mailserver.tls.state.expiry import in_days

ENDS_SOON: Final = dt.timedelta(days=90)
"""What is left of an authority when people need another one, and time to import it."""

USERS_SOON: Final = dt.timedelta(days=30)

_MOST_TOLD: Final = 20
_LEAST_GAIN: Final = dt.timedelta(days=2)
"""Lives are whole days: near the authority's end a new certificate ends at most so much later, or not at all."""
_AFTER: Final = 2 / 3
"""The part of a life that is over when the next begins."""


@frozen
class Served:
    """What a host name is served under."""

    origin: str
    """`contexts.Origin`."""
    chains: tuple[bytes, ...]
    """PEM: the certificate, and the one of the other key type if there is one; each with its chain."""


@frozen
class Renewable:
    """Certificates that are served together."""

    hosts: tuple[str, ...]
    chains: tuple[bytes, ...]
    files: tuple[Path, ...]
    """That hold the chains; none for what `cert add` or `cert create --activate` has added."""

    @property
    def first(self) -> x509.Certificate:
        """Of the first chain."""
        return _leaf(self.chains[0])


def authority_of(config: Config) -> Path | None:
    """The directory of the authority that `[tls] private_ca` names, where it has its key there."""
    path = config.tls.private_ca
    if path is None or path.name != CERTIFICATE or not os.path.exists(path.parent / KEY):
        return None
    return path.parent


def renewables(config: Config, served: Mapping[str, Served]) -> list[Renewable]:
    """All that could be renewed, by whoever has signed it: what is served as it was meant."""
    found: dict[tuple[tuple[bytes, ...], tuple[Path, ...]], list[str]] = {}
    for domain in config.certified:
        files = tuple(path for path in (domain.certificate, domain.second_certificate) if path is not None)
        wanted = "file" if files else "added"
        for host in domain.hosts:
            each = served.get(host)
            if each is not None and each.origin == wanted and len(files) in (0, len(each.chains)):
                found.setdefault((each.chains, files), []).append(host)
    return [Renewable(tuple(hosts), chains, files) for (chains, files), hosts in found.items()]


def is_due(one: PrivateCa, chain: bytes, now: dt.datetime) -> bool:
    """Is it time to renew a certificate, which this authority has signed?"""
    certificate = _leaf(chain)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    life = end - begin
    gained = min(now + life, one.certificate.not_valid_after_utc) - end
    is_old = now >= begin + life * _AFTER and gained >= min(_LEAST_GAIN, life * (1 - _AFTER))
    # One that begins in the future was signed while the clock was wrong.
    return (is_old or now < begin) and has_signed(one, certificate)


def has_signed(one: PrivateCa, certificate: x509.Certificate) -> bool:
    """Has the authority, with the key that it has now?"""
    try:
        certificate.verify_directly_issued_by(one.certificate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def renew(
    one: PrivateCa,
    signer: Authority,
    what: Renewable,
    now: dt.datetime,
    *,
    crl_url: str = "",
    all_of_it: bool = False,
) -> Renewable:
    """With new certificates in place of those that are due, recorded and nowhere else yet. Raises: CaFault.

    `crl_url`: of the revocation list, for the new ones. `all_of_it`: in place of all that the authority has signed.
    """
    chains = tuple(
        _renewed(one, signer, chain, now, crl_url)
        if is_due(one, chain, now) or (all_of_it and has_signed(one, _leaf(chain)))
        else chain
        for chain in what.chains
    )
    return attrs.evolve(what, chains=chains)


def write(what: Renewable, renewed: Renewable) -> list[Path]:
    """Put renewed certificates into their files; those written. Raises: CaFault where a file holds more, OSError."""
    written = []
    for file, old, new in zip(what.files, what.chains, renewed.chains, strict=True):
        if old == new:
            continue
        faults: list[Fault] = []
        # Looked up once: what is replaced is what was read, whoever may put a link there in between.
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


def list_is_due(one: PrivateCa, now: dt.datetime) -> bool:
    """Is it time to sign the revocation list anew? Also where it is gone, begins in the future or lacks something.

    Raises: CaFault.
    """
    current = one.current_list
    if current is None or current.next_update_utc is None:
        return True
    begin, end = current.last_update_utc, current.next_update_utc
    return not begin <= now < begin + (end - begin) * _AFTER or bool(one.unlisted())


def renew_list(one: PrivateCa, signer: Authority, now: dt.datetime) -> x509.CertificateRevocationList:
    """Sign it anew, for as long as before. Raises: CaFault, OSError."""
    return one.renew_list(signer, one.list_days, now)


def users_ending(one: PrivateCa, now: dt.datetime) -> str:
    """What is to be said of users whose last certificate ends soon; "" if there are none. Raises: CaFault.

    Nobody else can renew these: the keys are the users'.
    """
    records = one.records()
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
    told = [f"{name} on {dt.datetime.fromtimestamp(until, dt.UTC):%Y-%m-%d}" for until, name in soon[:_MOST_TOLD]]
    more = f" and {len(soon) - _MOST_TOLD} more" if len(soon) > _MOST_TOLD else ""
    return f"users' certificates end soon, and there are no newer ones: {', '.join(told)}{more}"


def warnings(config: Config, authority: Offered, now: dt.datetime) -> list[str]:
    """What is to be said of the authority of a configuration, whose certificate is sound."""
    said = [ends_soon(authority.not_after, now), _unanswered_url(config, authority)]
    directory = authority_of(config)
    if directory is not None:
        try:
            said.append(open_ca(directory).exposure)
        except CaFault as fault:
            said.append(str(fault))
    return [words for words in said if words]


def _unanswered_url(config: Config, authority: Offered) -> str:
    """Clients that look for the list take no certificate where they do not find it."""
    url = config.tls.private_ca_crl_url
    own: set[str] = {host for each in config.certified for host in each.hosts}
    if not url or urlsplit(url).hostname not in own:
        return ""
    if not authority.crl:
        return f"has no {LIST} of its own beside it, which private_ca_crl_url promises: `mailserver ca crl` makes one"
    if not any(listener.protocol == "http" for listener in config.listeners):
        return "has its list at private_ca_crl_url only if there is a [[listener]] of protocol http, and there is none"
    return ""


def ends_soon(not_after: dt.datetime, now: dt.datetime) -> str:
    """What is to be said of an authority's own end; "" if that is far."""
    left = not_after - now
    if left > ENDS_SOON:
        return ""
    when = f"{not_after:%Y-%m-%d}"
    if left <= dt.timedelta(0):
        return f"the authority ended on {when}: nobody takes what it has signed; make another with `mailserver ca init`"
    return (
        f"the authority ends in {in_days(left.days)}, on {when}: make another with `mailserver ca init --dir`, "
        "and have people import it before"
    )


def _renewed(one: PrivateCa, signer: Authority, chain: bytes, now: dt.datetime, crl_url: str) -> bytes:
    old, *above = x509.load_pem_x509_certificates(chain)
    names = _names(old)
    if _is_revoked(one, old.serial_number):
        raise CaFault(f"the certificate of {names[0]} is revoked: `mailserver cert create` makes one with another key")
    key = old.public_key()
    if not isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise CaFault(f"the certificate of {names[0]} has a key that is neither RSA nor ECDSA")
    days = max(1, min(MOST_DAYS, (old.not_valid_after_utc - old.not_valid_before_utc).days))
    made = one.sign(signer, key, names, "server", days=days, now=now, crl_url=crl_url)
    return b"".join(map(certificate_pem, (made, *above)))


def _is_revoked(one: PrivateCa, serial: int) -> bool:
    """By the record, or by a list from before the record was begun. Raises: CaFault."""
    listed = one.current_list
    if listed is not None and listed.get_revoked_certificate_by_serial_number(serial) is not None:
        return True
    records = one.records()
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
