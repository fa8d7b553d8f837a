"""Questions to real sockets on loopback."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from typing import Any, Self, TypeVar

import dns.flags
import dns.message
import dns.rrset
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ReactorNotRunning

from mailserver.dns.cache import AnswerCache
from mailserver.dns.query import Answer, DNSFailure, MailExchange, Question, encode_question
from mailserver.dns.resolver import CachingResolver, Nameserver
from mailserver.net.outbound.dns_exchange import MOST_DATAGRAMS, DNSExchange

T = TypeVar("T")
MX = Question("example.test", "MX")
HANGS = 60.0
"""Seconds until a test is given up."""

Answering = Callable[[bytes], list[bytes]]


def right(query: bytes, *, truncated: bool = False) -> bytes:
    answer = dns.message.make_response(dns.message.from_wire(query))
    if truncated:
        answer.flags |= dns.flags.TC
    else:
        answer.answer.append(dns.rrset.from_text("example.test.", 60, "IN", "MX", "1 a.test."))
    return answer.to_wire()


def forged(query: bytes) -> bytes:
    answer = bytearray(right(query))
    answer[0] ^= 0xFF
    return bytes(answer)


class Server:
    """A resolver: `udp` gives the datagrams for a question, `tcp` the octets of a stream."""

    def __init__(self, udp: Answering, tcp: Answering = lambda _query: []) -> None:
        self._udp, self._tcp = udp, tcp
        self.ports: list[int] = []
        """Of the questions, as they came."""
        self._stream = socket.create_server(("127.0.0.1", 0))
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._datagrams.bind(self._stream.getsockname())
        self.place = Nameserver(ip_address("127.0.0.1"), self._stream.getsockname()[1])
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._serve_udp, self._serve_tcp)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._datagrams.sendto(b"", self._datagrams.getsockname())
        self._stream.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(HANGS)
        self._datagrams.close()
        self._stream.close()

    def _serve_udp(self) -> None:
        while True:
            query, client = self._datagrams.recvfrom(4096)
            if not query:
                return
            self.ports.append(client[1])
            for each in self._udp(query):
                self._datagrams.sendto(each, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _client = self._stream.accept()
            except OSError:
                return
            with connection:
                query = connection.recv(4096)
                for each in self._tcp(query[2:]):
                    connection.sendall(each)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    with ExitStack() as stack:
        yield lambda *answering: stack.enter_context(Server(*answering))


def run(make: Callable[[DNSExchange], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a reactor of its own."""
    reactor: Any = EPollReactor()
    results: list[Any] = []

    def stop(result: Any) -> None:
        results.append(result)
        try:
            reactor.stop()
        except ReactorNotRunning:
            pytest.fail("the reactor has stopped before")

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(make(DNSExchange(reactor))).addBoth(stop))
    reactor.callLater(HANGS, reactor.stop)
    reactor.run(installSignalHandlers=False)
    assert results, "it hangs"
    left = [call.getTime() - reactor.seconds() for call in reactor.getDelayedCalls()]
    assert not [seconds for seconds in left if 0 < seconds < HANGS / 2], "a timer is left"
    if hasattr(results[0], "raiseException"):
        results[0].raiseException()
    return results[0]  # type: ignore[no-any-return]


def ask(*places: Nameserver) -> Callable[[DNSExchange], Coroutine[Any, Any, Answer]]:
    return lambda exchange: CachingResolver(places, exchange, AnswerCache(lambda: 0.0)).ask(MX)


def test_a_datagram(serve: Callable[..., Server]) -> None:
    server = serve(lambda query: [right(query)])
    assert run(ask(server.place)).records == (MailExchange(1, "a.test"),)


def test_forged_datagrams_do_not_end_the_wait(serve: Callable[..., Server]) -> None:
    server = serve(lambda query: [forged(query), b"", b"x", *[forged(query)] * 20, right(query)])
    assert run(ask(server.place)).records == (MailExchange(1, "a.test"),)
    assert len(server.ports) == 1


def test_a_flood_of_forged_datagrams_ends_the_question_there(serve: Callable[..., Server]) -> None:
    flood = serve(lambda query: [forged(query)] * MOST_DATAGRAMS)
    other = serve(lambda query: [right(query)])
    assert run(ask(flood.place, other.place)).records == (MailExchange(1, "a.test"),)
    assert len(other.ports) == 1


def test_each_question_has_a_port_of_its_own(serve: Callable[..., Server]) -> None:
    server = serve(lambda query: [right(query)])

    async def questions(exchange: DNSExchange) -> None:
        for number in range(8):
            await exchange.datagram(server.place, encode_question(MX, number), 5.0, len)

    run(questions)
    assert len(set(server.ports)) > 4


def test_a_refused_connection_is_a_failure_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        place = Nameserver(ip_address("127.0.0.1"), closed.getsockname()[1])
    with pytest.raises(DNSFailure, match="refuses"):
        run(ask(place))


def test_silence_ends_with_the_time() -> None:
    async def question(exchange: DNSExchange) -> int:
        return await exchange.datagram(silent, encode_question(MX, 1), 0.05, len)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        silent = Nameserver(ip_address("127.0.0.1"), server.getsockname()[1])
        with pytest.raises(DNSFailure, match="in time"):
            run(question)


def framed(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def test_a_truncated_answer_comes_over_tcp_in_pieces(serve: Callable[..., Server]) -> None:
    def octets(query: bytes) -> list[bytes]:
        return [framed(right(query))[at : at + 1] for at in range(len(framed(right(query))))]

    server = serve(lambda query: [right(query, truncated=True)], octets)
    assert run(ask(server.place)).records == (MailExchange(1, "a.test"),)


@pytest.mark.parametrize(
    "octets",
    [[], [b"\0"], [b"\0\x20half"], [b"\xff\xff" + b"x" * 100], [framed(b"")], [framed(b"x" * 40)]],
    ids=["nothing", "half-length", "half", "too-long", "empty", "nonsense"],
)
def test_bad_streams(serve: Callable[..., Server], octets: list[bytes]) -> None:
    server = serve(lambda query: [right(query, truncated=True)], lambda _query: octets)
    with pytest.raises(DNSFailure):
        run(ask(server.place))


def test_a_stream_that_is_refused(serve: Callable[..., Server]) -> None:
    async def question(exchange: DNSExchange) -> bytes:
        return await exchange.stream(closed, encode_question(MX, 1), 5.0)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = Nameserver(ip_address("127.0.0.1"), listener.getsockname()[1])
    with pytest.raises(DNSFailure, match="cannot be asked"):
        run(question)


def test_a_stream_without_an_end(serve: Callable[..., Server]) -> None:
    async def question(exchange: DNSExchange) -> bytes:
        return await exchange.stream(place, encode_question(MX, 1), 0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = Nameserver(ip_address("127.0.0.1"), listener.getsockname()[1])
        with pytest.raises(DNSFailure, match="in time"):
            run(question)
