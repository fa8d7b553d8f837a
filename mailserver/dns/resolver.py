"""Asking the resolvers of the system or of the configuration, with a cache before them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, Protocol, TypeVar

from attrs import evolve, frozen

from mailserver.dns.cache import AnswerCache
from mailserver.dns.query import Answer, BadName, DNSFailure, Question, Truncated, encode_question, read_answer

T = TypeVar("T")

TIMES: Final = (2.0, 5.0)
"""Seconds that each server has for an answer, in each round over the servers."""
MOST_SERVERS: Final = 3
"""Servers that are asked, as the system's own resolver does (resolv.conf(5))."""
DNS_PORT: Final = 53


@frozen
class Nameserver:
    """A resolver's place. `trusted`: its word that an answer is validated counts (`trust-ad` of resolv.conf(5))."""

    address: IPv4Address | IPv6Address
    port: int = DNS_PORT
    trusted: bool = False


class Exchange(Protocol):
    """Sends a question to a resolver. Both raise DNSFailure when there is no answer in time."""

    async def datagram(self, server: Nameserver, question: bytes, seconds: float, read: Callable[[bytes], T]) -> T:
        """Send over UDP; return `read` of the first datagram for which it does not raise BadAnswer.

        Other exceptions of `read` end the wait and are raised.
        """

    async def stream(self, server: Nameserver, question: bytes, seconds: float) -> bytes:
        """Ask over TCP; return one answer (RFC 7766)."""


class Resolver(Protocol):
    """What finds records: `CachingResolver`, or a table in a test."""

    async def ask(self, question: Question) -> Answer:
        """Return the answer, with or without records. Raises: DNSFailure, to try again later; BadName, for good."""


class CachingResolver:
    """Asks each server in turn, twice; the first answer that is one counts (RFC 1035 7.2)."""

    def __init__(self, servers: Sequence[Nameserver], exchange: Exchange, cache: AnswerCache) -> None:
        self._servers = servers[:MOST_SERVERS]
        self._exchange = exchange
        self._cache = cache

    async def ask(self, question: Question) -> Answer:
        """See Resolver."""
        question = Question(question.name.lower(), question.kind)
        answer = self._cache.find(question)
        if answer is None:
            try:
                answer = await self._ask(question)
            except BadName:
                raise
            except DNSFailure as error:
                self._cache.keep(question, DNSFailure(error.reason))
                raise
            self._cache.keep(question, answer)
        return answer

    async def _ask(self, question: Question) -> Answer:
        failure = DNSFailure("no resolver is configured")
        for seconds in TIMES:
            for server in self._servers:
                try:
                    answer = await self._ask_server(server, question, seconds)
                except DNSFailure as error:
                    failure = error
                    continue
                trusted = server.trusted or server.address.is_loopback
                return evolve(answer, authentic=answer.authentic and trusted)
        raise failure

    async def _ask_server(self, server: Nameserver, question: Question, seconds: float) -> Answer:
        number = secrets.randbelow(1 << 16)
        data = encode_question(question, number)
        try:
            return await self._exchange.datagram(
                server, data, seconds, lambda datagram: read_answer(question, number, datagram)
            )
        except Truncated:
            answer = await self._exchange.stream(server, data, seconds)
            return read_answer(question, number, answer, datagram=False)


def read_resolv_conf(text: str) -> list[Nameserver]:
    """The servers of a resolv.conf(5); the one on this machine if it names none. Lines that are not understood are skipped."""
    addresses: list[IPv4Address | IPv6Address] = []
    trusted = False
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["options"]:
            trusted = trusted or "trust-ad" in words
        elif words[:1] == ["nameserver"] and len(words) > 1:
            try:
                addresses.append(ip_address(words[1]))
            except ValueError:
                continue
    return [Nameserver(each, trusted=trusted) for each in addresses or [IPv4Address("127.0.0.1")]]
