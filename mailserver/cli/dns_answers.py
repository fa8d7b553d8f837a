"""Comparing a domain's DNS records with a resolver's answers."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final, Literal

import dns.exception
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
from attrs import frozen

from mailserver.discovery.dns_records import Record
from mailserver.dkim.published import fault

PATIENCE: Final = 5.0
"""Timeout of one query with its repetitions, in seconds."""

ANY_ADDRESS: Final = "any address"
"""Expected if the configuration does not name the public addresses."""

State = Literal["ok", "missing", "different", "unanswered"]


class BadResolver(Exception):
    """The resolver cannot be used; the argument is a sentence."""


@frozen
class Finding:
    """The result for the records of one name and type."""

    name: str
    kind: str
    state: State
    expected: tuple[str, ...]
    found: tuple[str, ...]
    """The records found, or why there is no answer."""


class Resolver:
    """A resolver that asks one server, or those of the system."""

    def __init__(self, server: str | None) -> None:
        """`server` is an address, ADDRESS:PORT or [ADDRESS]:PORT. Raises: BadResolver."""
        try:
            self._resolver = dns.resolver.Resolver(configure=server is None)
            if server is not None:
                address, port = _address(server)
                self._resolver.nameservers = [address]
                self._resolver.port = port
        except (dns.exception.DNSException, ValueError, OSError) as error:
            raise BadResolver(f"no resolver at {server or 'the addresses of the system'}: {error}") from error
        self._resolver.lifetime = PATIENCE

    def ask(self, name: str, kind: str) -> list[str]:
        """Return records in a zone file's form; none if the name or type does not exist. Raises: DNSException."""
        try:
            answer = self._resolver.resolve(name, kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return []
        return [rdata.to_text() for rdata in answer]

    def texts(self, name: str) -> list[str]:
        """Return the TXT records of a name, each with its strings joined (RFC 6376 3.6.2.2). Raises: DNSException."""
        return [_joined(each) for each in self.ask(name, "TXT")]

    def addresses(self, name: str) -> list[str]:
        """Return the IPv4 and IPv6 addresses of a name."""
        return [address for kind in ("A", "AAAA") for address in self.ask(name, kind)]


def compare(resolver: Resolver, host: str, addresses: Sequence[str], expected: Sequence[Record]) -> Iterator[Finding]:
    """Yield a finding for each name and type, first for the addresses of the host that clients connect to.

    `addresses` are the permitted ones in their shortest form; none if they are unknown. Raises: BadResolver if this first
    query gets no answer, to avoid waiting for all the others.
    """
    try:
        found = resolver.addresses(f"{host}.")
    except dns.exception.DNSException as error:
        raise BadResolver(unanswered(error)) from error
    state: State = "missing"
    if found:
        state = (
            "ok"
            if not addresses or {str(ipaddress.ip_address(each)) for each in found} <= set(addresses)
            else "different"
        )
    yield Finding(f"{host}.", "A/AAAA", state, tuple(addresses) or (ANY_ADDRESS,), tuple(found))
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in expected:
        groups.setdefault((record.name, record.kind), []).append(record)
    for (name, kind), group in groups.items():
        data = tuple(record.data for record in group)
        try:
            if kind == "CNAME":
                found = resolver.addresses(name)
                state = _same_place(found, resolver.addresses(data[0]))
            else:
                found = resolver.ask(name, kind)
                state = compare_group(group, found)
        except dns.exception.DNSException as error:
            yield Finding(name, kind, "unanswered", data, (unanswered(error),))
        else:
            yield Finding(name, kind, state, data, tuple(found))


def compare_group(expected: Sequence[Record], found: Sequence[str]) -> State:
    """Compare the records of one name and type.

    Additional records are harmless for TLSA (a next key), CAA and TXT. Additional MX and SRV records attract mail and clients.
    """
    kind = expected[0].kind
    if kind == "TXT":
        return _compare_texts(expected, found)
    wanted, there = {_canonical(kind, record.data) for record in expected}, {_canonical(kind, each) for each in found}
    if not there:
        # The record that a service does not exist is optional.
        return "ok" if all(record.data.endswith(" .") for record in expected) else "missing"
    fits = wanted <= there if kind in ("TLSA", "CAA") else wanted == there
    return "ok" if fits else "different"


def _compare_texts(expected: Sequence[Record], found: Sequence[str]) -> State:
    """Require exactly one text with each first word (RFC 7208 4.5, RFC 7489 6.6.3, RFC 8461 3.1); of DKIM, the same key."""
    texts = [_joined(each) for each in found]
    for record in expected:
        wanted = _joined(record.data)
        if wanted.startswith("v=DKIM1;"):
            if (reason := fault(wanted, texts)) and texts:
                return "different"
            if reason:
                return "missing"
            continue
        first = wanted.replace(";", " ").split()[0]
        own = [each for each in texts if each.replace(";", " ").split()[:1] == [first]]
        if not own:
            return "missing"
        if len(own) > 1 or (not record.example and own != [wanted]):
            return "different"
    return "ok"


def _same_place(alias: Sequence[str], target: Sequence[str]) -> State:
    """Compare addresses: an alias and records of its own are both fine."""
    if not alias:
        return "missing"
    return "ok" if set(alias) == set(target) else "different"


def _canonical(kind: str, data: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), data)


def _joined(data: str) -> str:
    """Join the strings of a TXT record."""
    strings: tuple[bytes, ...] = _canonical("TXT", data).strings  # type: ignore[attr-defined]
    return b"".join(strings).decode("utf-8", "replace")


def unanswered(error: dns.exception.DNSException) -> str:
    """Say in one line that there is no answer, and why."""
    # The library lists each try.
    why = " ".join(str(error).partition(";")[0].split())[:200] or type(error).__name__
    return f"the resolver does not answer ({why})"


def _address(server: str) -> tuple[str, int]:
    """Parse an address with an optional port. Raises: ValueError."""
    if server.startswith("["):
        address, _bracket, rest = server[1:].partition("]")
        return address, int(rest.removeprefix(":") or 53)
    if server.count(":") == 1:
        address, _colon, port = server.partition(":")
        return address, int(port)
    return server, 53
