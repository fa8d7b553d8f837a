"""The DNS records by which clients and other mail servers find a domain's services and validate its mail.

MX (RFC 5321 5.1), SRV (RFC 6186, RFC 8314 5.1, MS-OXDISCO 3.1.5.3), MTA-STS and TLSRPT (RFC 8461 3.1, RFC 8460 3), SPF
(RFC 7208), DKIM (RFC 6376 3.6), DMARC (RFC 7489 6.3), CAA (RFC 8659), TLSA (RFC 6698; "3 1 1", as RFC 7671 5.1 advises).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

from attrs import frozen

from mailserver.config.model import Config, Domain
from mailserver.discovery import mta_sts
from mailserver.discovery.services import Service, mail_host, services, web_port

TTL: Final = 3600
_SRV_NAMES: Final = {
    ("imap", "implicit"): "_imaps",
    ("imap", "starttls"): "_imap",
    ("pop3", "implicit"): "_pop3s",
    ("pop3", "starttls"): "_pop3",
    ("submission", "implicit"): "_submissions",
    ("submission", "starttls"): "_submission",
}
_MAX_STRING: Final = 255


@frozen
class Record:
    """An expected DNS record. Names end in a dot."""

    name: str
    kind: Literal["MX", "SRV", "CNAME", "TXT", "CAA", "TLSA"]
    data: str
    """In a zone file's form (RFC 1035 5.1)."""
    example: bool = False
    """The administrator may choose other data, so only the first word of a TXT record is compared."""

    def __str__(self) -> str:
        return f"{self.name} {TTL} IN {self.kind} {self.data}"


@frozen
class Note:
    """A remark for people that no record can express."""

    words: str

    def __str__(self) -> str:
        return f"; {self.words}"


def records(
    config: Config,
    domain: Domain,
    keys: Mapping[str, Sequence[str]],
    issuers: Sequence[str],
    dkim: Sequence[tuple[str, str]] = (),
) -> list[Record | Note]:
    """Return all records and remarks of a domain.

    `keys` maps a host to the SHA-256 of each public key that it is served with, hexadecimal. `issuers` are the CAA names of
    the authorities that issue certificates. `dkim` has the selector and the text of each DKIM key.
    """
    host, offered = mail_host(config, domain), services(config, domain)
    found: list[Record | Note] = []
    if host is None:
        return [Note(f"{domain.name} has only wildcard hosts: clients have no name to connect to")]
    found.append(Note(f"{host}. must have A and AAAA records with the addresses of this server"))
    found += _mail_from_elsewhere(config, domain)
    found += dkim_records(domain.name, dkim)
    if not dkim and domain.dkim == "sign":
        found.append(Note(f"DKIM: `mailserver dkim create {domain.name}` makes the keys that sign its mail"))
    found += _services(domain, offered)
    found += _web(config, domain, host)
    found += [Record(f"{domain.name}.", "CAA", f'0 issue "{issuer}"') for issuer in issuers]
    if not issuers:
        found.append(
            Note('CAA: no known public authority has issued the certificate; add 0 issue "AUTHORITY" for yours')
        )
    places = dict.fromkeys((service.host, service.port) for service in offered)
    for name, port in places:
        found += [Record(f"_{port}._tcp.{name}.", "TLSA", f"3 1 1 {key}") for key in keys.get(name, ())]
    if any(keys.get(name) for name, _port in places):
        found.append(Note("TLSA: only useful with DNSSEC; publish the next key before it is served"))
    return found


def dkim_records(domain: str, keys: Sequence[tuple[str, str]]) -> list[Record]:
    """The records of DKIM keys, each a selector and a text (RFC 6376 3.6.2)."""
    return [Record(f"{selector}._domainkey.{domain}.", "TXT", _text(text)) for selector, text in keys]


def _mail_from_elsewhere(config: Config, domain: Domain) -> Iterator[Record | Note]:
    name = f"{domain.name}."
    for number, mx in enumerate(domain.mx, 1):
        yield Record(name, "MX", f"{10 * number} {mx}.")
    if not domain.mx:
        yield Note("MX: mx of the [[domain]] names no hosts")
    senders = ["mx"] if domain.mx else []
    relay = config.submission.relay
    if relay is not None and not _is_local(relay.host):
        senders.append(_sender(relay.host))
    yield Record(name, "TXT", _text(" ".join(["v=spf1", *senders, "~all"])), example=True)
    yield Record(f"_dmarc.{name}", "TXT", _text(f"v=DMARC1; p=none; rua=mailto:postmaster@{domain.name}"), example=True)
    if not config.mail.postmaster:
        # The address accepts mail in any case, but nobody may ever read it.
        reason = f"set [mail] postmaster to the user who reads the reports sent to postmaster@{domain.name}"
        yield Note(f"DMARC, TLSRPT: {reason}")
    policy = mta_sts.policy(domain)
    if policy is not None:
        yield Record(f"_mta-sts.{name}", "TXT", _text(f"v=STSv1; id={mta_sts.policy_id(policy)};"))
        report = f"v=TLSRPTv1; rua=mailto:postmaster@{domain.name}"
        yield Record(f"_smtp._tls.{name}", "TXT", _text(report), example=True)


def _services(domain: Domain, offered: Sequence[Service]) -> Iterator[Record]:
    """Yield SRV records; a target of "." means that the service does not exist (RFC 6186 3.4)."""
    for (kind, tls), label in _SRV_NAMES.items():
        own = [service for service in offered if (service.kind, service.tls) == (kind, tls)]
        name = f"{label}._tcp.{domain.name}."
        if not own:
            yield Record(name, "SRV", "0 0 0 .")
        for service in own:
            priority = 0 if tls == "implicit" else 10
            yield Record(name, "SRV", f"{priority} 1 {service.port} {service.host}.")


def _web(config: Config, domain: Domain, host: str) -> Iterator[Record | Note]:
    port, name = web_port(config), f"{domain.name}."
    if port is None:
        yield Note("autoconfig, autodiscover and mta-sts need a listener of protocol https")
        return
    for label in ("autoconfig", "autodiscover", *(["mta-sts"] if domain.mta_sts is not None else [])):
        if f"{label}.{domain.name}" != host:
            yield Record(f"{label}.{name}", "CNAME", f"{host}.")
    yield Record(f"_autodiscover._tcp.{name}", "SRV", f"0 0 {port} autodiscover.{name}")
    if port != 443:
        yield Note(f"clients expect autoconfig and mta-sts at port 443; the listener's is {port}")


def _text(words: str) -> str:
    """Format the strings of a TXT record."""
    pieces = [words[at : at + _MAX_STRING] for at in range(0, len(words), _MAX_STRING)]
    return " ".join(f'"{piece}"' for piece in pieces)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _sender(host: str) -> str:
    """Format an SPF mechanism (RFC 7208 5.3, 5.6)."""
    try:
        return f"ip{ipaddress.ip_address(host).version}:{host}"
    except ValueError:
        return f"a:{host}"
