"""Checks of DNS records (RFC 6186, RFC 8314) and of autoconfig: do they lead clients to a listener?"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import ssl
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol
from xml.etree import ElementTree as ET

from mailserver.config.model import Config, Domain
from mailserver.probe.finding import Finding
from mailserver.probe.place import NotReached, Place, at_once, places

MOST: Final = 65536
_SRV: Final = {
    "_imaps": "imaps",
    "_imap": "imap",
    "_pop3s": "pop3s",
    "_pop3": "pop3",
    "_submissions": "submissions",
    "_submission": "submission",
}
"""SRV label -> protocol of the listener."""
_MAIL: Final = frozenset({"imap", "pop3", "submission"})
_WEB: Final = ("autoconfig", "autodiscover", "mta-sts")


class Resolver(Protocol):
    """A DNS resolver."""

    def ask(self, name: str, kind: str) -> list[str]:
        """Return the answers in a zone file's form; none if there are none."""

    def addresses(self, name: str) -> list[str]:
        """Return the IPv4 and IPv6 addresses of a name."""


def in_dns(config: Config, resolver: Resolver, domain: Domain) -> Iterator[Finding]:
    """Yield hosts without addresses, and records that lead to no listener. Raises what the resolver raises."""
    bound = _bound_addresses(config)
    names = host_names(config)
    for host in domain.hosts:
        if host.startswith("*.") or host == "localhost":  # resolvers do not look localhost up (RFC 6761 6.3)
            continue
        addresses = resolver.addresses(f"{host}.")
        if not addresses:
            yield Finding("not-in-dns", host, "it has no A or AAAA record: clients cannot find it")
        for address in addresses:
            if bound and address not in bound:
                yield Finding("dns-without-listener", host, f"leads to {address}, where no listener is bound")
    for label, protocol in _SRV.items():
        for answer in resolver.ask(f"{label}._tcp.{domain.name}.", "SRV"):
            yield from _srv(config, names, f"{label}._tcp.{domain.name}", protocol, answer)
    sites = [host for site in domain.sites for host in site.hosts if not host.startswith("*.")]
    for host in sites:
        if not resolver.addresses(f"{host}."):
            yield Finding("not-in-dns", host, "it has no A or AAAA record: programs cannot find it", warning=True)
    own = {*domain.hosts, *(host for site in domain.sites for host in site.hosts)}
    for label in _WEB:
        name = f"{label}.{domain.name}"
        if not resolver.addresses(f"{name}."):
            continue
        if not any(listener.protocol == "https" for listener in config.listeners):
            yield Finding("dns-without-listener", name, "it has addresses, but there is no listener of protocol https")
        elif name not in own and f"*.{domain.name}" not in own:
            yield Finding("dns-without-listener", name, "it has addresses, but is not a host of the domain")


def _bound_addresses(config: Config) -> set[str]:
    """Return the addresses that clients connect to; none if unknown: all addresses are bound, or loopback behind a proxy."""
    bound: set[str] = set()
    for listener in config.listeners:
        if listener.family in _MAIL and listener.socket is None:
            for address in map(ipaddress.ip_address, listener.bind_addresses):
                if address.is_unspecified:
                    return set()
                if not address.is_loopback:
                    bound.add(str(address))
    return bound


def _srv(config: Config, names: frozenset[str], name: str, protocol: str, answer: str) -> Iterator[Finding]:
    fields = answer.split()
    if len(fields) != 4 or fields[3] == ".":
        return
    port, target = fields[2], fields[3].rstrip(".").lower()
    ports = {str(each.tcp_port) for each in config.listeners if each.protocol == protocol and each.socket is None}
    if port not in ports:
        there = ", ".join(sorted(ports)) or "none"
        yield Finding(
            "dns-without-listener", name, f"leads to port {port}, where no {protocol} listener is; its ports: {there}"
        )
    elif not _is_host(names, target):
        yield Finding("dns-without-listener", name, f"leads to {target}, which is not a host of the configuration")


def host_names(config: Config) -> frozenset[str]:
    """Return all served host names."""
    return frozenset(host for domain in config.domains_and_sites for host in domain.hosts)


def _is_host(names: frozenset[str], name: str) -> bool:
    return name in names or f"*.{name.partition('.')[2]}" in names


def in_autoconfig(config: Config, hosts: Sequence[str] = ()) -> Iterator[Finding]:
    """Check this server's autoconfig, fetched from its HTTPS listener, or from HTTP without one."""
    all_places = places(config)
    web = [
        place for place in all_places if place.listener.protocol in ("https", "http") and place.listener.socket is None
    ]
    web.sort(key=lambda place: place.listener.protocol == "http")
    if not web:
        return
    names = host_names(config)
    is_open = functools.cache(reachable)
    # The listener may show any certificate for these names: other checks report that.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    domains = domains_with(config, hosts)
    with ThreadPoolExecutor(at_once(config)) as pool:
        for domain, document in zip(
            domains, pool.map(lambda each: _fetch(context, web[0], each), domains), strict=True
        ):
            if isinstance(document, str):
                words = f"autoconfig cannot be fetched from {web[0]}: {document}"
                yield Finding("autoconfig-missing", domain.name, words)
            else:
                yield from check_document(names, domain, document, all_places, is_open)


def domains_with(config: Config, hosts: Sequence[str]) -> list[Domain]:
    """Return the domains with one of these hosts; all domains without `hosts`."""
    return [
        domain
        for domain in config.domains
        if not hosts or any(host in hosts for each in domain.with_sites for host in each.hosts)
    ]


def _fetch(context: ssl.SSLContext, place: Place, domain: Domain) -> bytes | str:
    """Return the document, or why it is missing."""
    try:
        return _ask(context, place, domain)
    except (OSError, http.client.HTTPException, NotReached) as error:
        return str(error)


def _ask(context: ssl.SSLContext, place: Place, domain: Domain) -> bytes:
    """Fetch the document. Raises: OSError, HTTPException, NotReached."""
    host = _web_host(domain)
    request = (
        f"GET /.well-known/autoconfig/mail/config-v1.1.xml?emailaddress=probe@{domain.name} HTTP/1.1\r\n"
        f"Host: {host}\r\nConnection: close\r\n\r\n"
    )
    with contextlib.ExitStack() as opened:
        connection = opened.enter_context(place.connected())
        if place.listener.implicit_tls:
            connection = opened.enter_context(context.wrap_socket(connection, server_hostname=host))
        connection.sendall(request.encode("ascii"))
        answer = opened.enter_context(http.client.HTTPResponse(connection))
        answer.begin()
        if answer.status != http.client.OK:
            raise http.client.HTTPException(f"status {answer.status}")
        return answer.read(MOST)


def _web_host(domain: Domain) -> str:
    """Return a name of the domain, preferably one for autoconfig: the mail host may demand client certificates."""
    hosts = [host for each in domain.with_sites for host in each.hosts if not host.startswith("*.")]
    sites = [host for site in domain.sites for host in site.hosts if not host.startswith("*.")]
    own = f"autoconfig.{domain.name}"
    return own if own in hosts else next(iter((*sites, *hosts)), own)


def check_document(
    names: frozenset[str], domain: Domain, document: bytes, found: list[Place], is_open: Callable[[Place], bool]
) -> Iterator[Finding]:
    """Check that each server in the document leads to an open listener with the same TLS mode."""
    try:
        root = ET.fromstring(document)  # noqa: S314 - bounded, and of our own server; expat bounds entities
    except ET.ParseError as error:
        yield Finding("autoconfig-wrong", domain.name, f"autoconfig is invalid XML: {error}")
        return
    for server in (each for each in root.iter() if each.tag in ("incomingServer", "outgoingServer")):
        host, port, security = (server.findtext(tag, "") for tag in ("hostname", "port", "socketType"))
        kind = {"smtp": "submission"}.get(server.get("type", ""), server.get("type", ""))
        what = f"{kind} at {host}:{port} ({security})"
        own = [place for place in found if place.listener.socket is None and str(place.listener.tcp_port) == port]
        if not _is_host(names, host):
            yield Finding(
                "autoconfig-wrong", domain.name, f"autoconfig names {what}: that is not a host of this server"
            )
        elif not own or not any(is_open(place) for place in own):
            yield Finding("autoconfig-closed-port", domain.name, f"autoconfig names {what}: that port is closed")
        elif not any(_fits(place, kind, security) for place in own):
            yield Finding("autoconfig-wrong", domain.name, f"autoconfig names {what}: the listener has other settings")


def reachable(place: Place) -> bool:
    """Can the listener be connected to?"""
    try:
        with place.connected():
            return True
    except NotReached:
        return False


def _fits(place: Place, kind: str, security: str) -> bool:
    listener = place.listener
    return listener.family == kind and security == ("SSL" if listener.implicit_tls else "STARTTLS")
