from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import TypeVar

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from mailserver.dns import cache as cache_module
from mailserver.dns.cache import FAILURE_TIME, AnswerCache
from mailserver.dns.query import Answer, BadAnswer, DNSFailure, MailExchange, Question
from mailserver.dns.resolver import CachingResolver, Nameserver, read_resolv_conf
from mailserver.errors import MailError
from tests.dns.running import result_of

T = TypeVar("T")
MX = Question("example.test", "MX")
LOCAL = Nameserver(ip_address("127.0.0.1"))
REMOTE = Nameserver(ip_address("192.0.2.53"))


class Servers:
    """Answers by address; None: no answer. Counts the questions."""

    def __init__(self) -> None:
        self.answers: dict[Nameserver, Callable[[dns.message.Message], dns.message.Message | None]] = {}
        self.asked: list[tuple[Nameserver, str, float]] = []

    async def datagram(self, server: Nameserver, question: bytes, seconds: float, read: Callable[[bytes], T]) -> T:
        self.asked.append((server, "udp", seconds))
        return read(self._answer(server, question))

    async def stream(self, server: Nameserver, question: bytes, seconds: float) -> bytes:
        self.asked.append((server, "tcp", seconds))
        answer = dns.message.from_wire(self._answer(server, question))
        answer.flags &= ~dns.flags.TC
        return answer.to_wire()

    def _answer(self, server: Nameserver, question: bytes) -> bytes:
        answer = self.answers[server](dns.message.from_wire(question))
        if answer is None:
            raise DNSFailure("the resolver does not answer in time")
        return answer.to_wire()


def one_mx(query: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(query)
    answer.flags |= dns.flags.AD
    answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "MX", "1 a.test."))
    return answer


def failing(query: dns.message.Message) -> dns.message.Message:
    answer = dns.message.make_response(query)
    answer.set_rcode(dns.rcode.SERVFAIL)
    return answer


def truncated(query: dns.message.Message) -> dns.message.Message:
    answer = one_mx(query)
    answer.flags |= dns.flags.TC
    return answer


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def resolver(servers: Servers, clock: Clock, *places: Nameserver) -> CachingResolver:
    return CachingResolver(places, servers, AnswerCache(clock))


def test_an_answer_is_kept_for_its_time(servers: Servers, clock: Clock) -> None:
    servers.answers[LOCAL] = one_mx
    asking = resolver(servers, clock, LOCAL)
    assert result_of(asking.ask(MX)).records == (MailExchange(1, "a.test"),)
    clock.now = 59
    assert result_of(asking.ask(Question("EXAMPLE.test", "MX"))).records == (MailExchange(1, "a.test"),)
    assert len(servers.asked) == 1
    clock.now = 60
    result_of(asking.ask(MX))
    assert len(servers.asked) == 2


def test_the_next_server_is_asked(servers: Servers, clock: Clock) -> None:
    servers.answers = {LOCAL: failing, REMOTE: one_mx}
    assert result_of(resolver(servers, clock, LOCAL, REMOTE).ask(MX)).records
    assert [server for server, _, _ in servers.asked] == [LOCAL, REMOTE]


def test_each_server_is_asked_twice_and_a_failure_is_kept_for_a_moment(servers: Servers, clock: Clock) -> None:
    servers.answers = {LOCAL: failing, REMOTE: lambda _query: None}
    asking = resolver(servers, clock, LOCAL, REMOTE)
    with pytest.raises(DNSFailure, match="in time"):
        result_of(asking.ask(MX))
    assert servers.asked == [(LOCAL, "udp", 2.0), (REMOTE, "udp", 2.0), (LOCAL, "udp", 5.0), (REMOTE, "udp", 5.0)]
    clock.now = FAILURE_TIME - 1
    with pytest.raises(DNSFailure, match="in time"):
        result_of(asking.ask(MX))
    assert len(servers.asked) == 4
    clock.now = FAILURE_TIME
    servers.answers[LOCAL] = one_mx
    assert result_of(asking.ask(MX)).records


def test_without_servers(servers: Servers, clock: Clock) -> None:
    with pytest.raises(DNSFailure, match="no resolver"):
        result_of(resolver(servers, clock).ask(MX))


def test_a_truncated_answer_is_asked_for_over_tcp(servers: Servers, clock: Clock) -> None:
    servers.answers[LOCAL] = truncated
    assert result_of(resolver(servers, clock, LOCAL).ask(MX)).records
    assert [way for _, way, _ in servers.asked] == ["udp", "tcp"]


def test_a_bad_name_is_no_failure_of_the_dns(servers: Servers, clock: Clock) -> None:
    with pytest.raises(MailError) as refused:
        result_of(resolver(servers, clock, LOCAL).ask(Question("a..b", "MX")))
    assert not isinstance(refused.value, DNSFailure)
    assert servers.asked == []


@pytest.mark.parametrize(
    ("server", "authentic"),
    [(LOCAL, True), (REMOTE, False), (Nameserver(REMOTE.address, trusted=True), True)],
    ids=["local", "remote", "trusted"],
)
def test_validation_counts_only_on_a_safe_way(
    servers: Servers, clock: Clock, server: Nameserver, authentic: bool
) -> None:
    servers.answers[server] = one_mx
    asking = resolver(servers, clock, server)
    assert result_of(asking.ask(MX)).authentic is authentic
    assert result_of(asking.ask(MX)).authentic is authentic


def test_the_cache_is_bounded(clock: Clock) -> None:
    kept = AnswerCache(clock, size=3)
    for number in range(5):
        kept.keep(Question(f"n{number}.test", "A"), Answer((), 60))
        kept.find(Question("n1.test", "A"))
    assert len(kept) == 3
    assert kept.find(Question("n1.test", "A")) is not None
    assert kept.find(Question("n0.test", "A")) is None


def test_what_is_not_kept(clock: Clock) -> None:
    kept = AnswerCache(clock)
    kept.keep(MX, Answer((), 0))
    assert kept.find(MX) is None
    kept.keep(MX, Answer((b"x",) * (cache_module.MOST_KEPT_RECORDS + 1), 60))
    assert kept.find(MX) is None
    kept.keep(MX, Answer((b"x",), 60))
    kept.keep(MX, Answer((b"y",), 0))
    assert kept.find(MX) is None, "an older answer does not outlive a newer one"


def test_a_kept_failure_is_a_new_exception_each_time(clock: Clock) -> None:
    kept = AnswerCache(clock)
    kept.keep(MX, BadAnswer())
    caught = []
    for _ in range(2):
        with pytest.raises(DNSFailure) as failure:
            kept.find(MX)
        caught.append(failure.value)
    assert caught[0] is not caught[1]


def test_the_file_of_the_system() -> None:
    text = "# a comment\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver\nnameserver ::1\nsearch example.test\n"
    assert read_resolv_conf(text) == [Nameserver(ip_address("192.0.2.1")), Nameserver(ip_address("::1"))]
    trusting = read_resolv_conf("nameserver 192.0.2.1\noptions edns0 trust-ad\n")
    assert trusting == [Nameserver(ip_address("192.0.2.1"), trusted=True)]
    assert read_resolv_conf("") == [Nameserver(ip_address("127.0.0.1"))]
    assert read_resolv_conf("nameserver fe80::1%eth0\n") == [Nameserver(ip_address("fe80::1%eth0"))]
