"""The services of a domain: host, port and TLS of each, derived from the listeners and the domain's hosts."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final, Literal

from attrs import frozen

from mailserver.config.model import Config, Domain, Listener
from mailserver.idn import ascii_name

Kind = Literal["imap", "pop3", "submission"]

KINDS: Final[tuple[Kind, ...]] = ("imap", "pop3", "submission")

_LOCAL_PART: Final = re.compile(r"[^\s@\x00-\x20\x7f<>()\[\],;:\\\"]{1,64}")
"""Local parts without quotes (RFC 5321 4.1.2, RFC 6531 3.3); the placement of dots is not checked."""

_INSIDE: Final = tuple(
    map(ipaddress.ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"))
)
"""Addresses of private networks (RFC 1918, RFC 6598, RFC 4193)."""


@frozen
class Service:
    """One way to reach a service."""

    kind: Kind
    host: str
    port: int
    tls: Literal["implicit", "starttls"]


def find_domain(config: Config, name: str) -> Domain | None:
    """Find the mail domain of a name, which may be internationalised."""
    wanted = ascii_name(name)
    return next((domain for domain in config.domains if domain.name == wanted), None)


def domain_of_host(config: Config, host: str) -> Domain | None:
    """Find the domain of a host name: its own name, one of its hosts or of a site; wildcards count."""
    wanted = {host, f"*.{host.partition('.')[2]}"}
    for domain in config.domains:
        names = {domain.name, *domain.hosts, *(each for site in domain.sites for each in site.hosts)}
        if not wanted.isdisjoint(names):
            return domain
    return None


def split_address(address: str) -> tuple[str, str] | None:
    """Split an address without quotes into local part and domain; None if it is invalid."""
    local, at, domain = address.rpartition("@")
    if not at or len(address) > 254 or not _LOCAL_PART.fullmatch(local) or not address.isprintable():
        return None
    return local, domain


def mail_host(config: Config, domain: Domain) -> str | None:
    """Return the name that the domain's users connect to: its first without a wildcard, or the server's own."""
    plain: list[str] = [host for host in domain.hosts if not host.startswith("*.")]
    if plain:
        return plain[0]
    hostname = config.server.hostname
    return hostname if f"*.{hostname.partition('.')[2]}" in domain.hosts else None


def services(config: Config, domain: Domain) -> tuple[Service, ...]:
    """List services by kind, implicit TLS before STARTTLS (RFC 8314 3). Empty if the domain has no plain host.

    Loopback listeners count only if there are no others, as in a demonstration.
    """
    host = mail_host(config, domain)
    if host is None:
        return ()
    offered = [listener for listener in config.listeners if listener.family in KINDS and listener.socket is None]
    reachable = [listener for listener in offered if not listener.is_loopback] or offered
    found = {service: None for kind in KINDS for service in _of_kind(kind, host, reachable)}
    return tuple(found)


def public_addresses(config: Config) -> tuple[str, ...]:
    """Return the mail listeners' public addresses; empty if the configuration does not name them.

    It does not if a listener is bound to all addresses, or to a private one that is translated outside this machine.
    """
    mail = [each for each in config.listeners if each.family in KINDS and each.socket is None and not each.is_loopback]
    found = dict.fromkeys(ipaddress.ip_address(address) for each in mail for address in each.bind_addresses)
    is_public = all(
        not (each.is_unspecified or each.is_loopback or each.is_link_local or any(each in inside for inside in _INSIDE))
        for each in found
    )
    return tuple(map(str, found)) if is_public else ()


def web_host(config: Config, domain: Domain) -> str | None:
    """Return the host of the domain's web pages: the mail host, unless that requires client certificates."""
    sites: list[str] = [host for site in domain.sites for host in site.hosts if not host.startswith("*.")]
    if domain.client_certificates == "required" and sites:
        return sites[0]
    return mail_host(config, domain)


def web_port(config: Config) -> int | None:
    """Return the port of the HTTPS listener, preferably 443; None without one."""
    ports = [listener.tcp_port for listener in config.listeners if listener.protocol == "https"]
    return 443 if 443 in ports else ports[0] if ports else None


def _of_kind(kind: Kind, host: str, listeners: list[Listener]) -> Iterator[Service]:
    own = [each for each in listeners if each.family == kind and (each.implicit_tls or each.starttls)]
    for listener in sorted(own, key=lambda listener: not listener.implicit_tls):
        yield Service(kind, host, listener.tcp_port, "implicit" if listener.implicit_tls else "starttls")
