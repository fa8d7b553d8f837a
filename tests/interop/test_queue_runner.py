"""The queue's runner sends to programs of others: Postfix's sink, Postfix and Exim."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from mailserver.config.kinds import NextHop, Port
from mailserver.config.model.outbound import Delivery, Route
from mailserver.dns.cache import AnswerCache
from mailserver.dns.resolver import CachingResolver
from mailserver.net.connection.coroutines import in_thread
from mailserver.net.outbound.dns_exchange import DNSExchange
from mailserver.net.outbound.hop_connector import HopConnector
from mailserver.net.outbound.hop_pool import HopPool
from mailserver.net.outbound.mx_hosts import MXHosts
from mailserver.net.outbound.queue_runner import QueueRunner
from mailserver.net.transport.stock import stock_transports
from mailserver.queue.model import Envelope, Target
from mailserver.queue.routing import Routes, key_of
from tests.interop.debian_packages import unpacked
from tests.interop.exim import Exim
from tests.interop.mta import TransferAgent
from tests.interop.postfix import Postfix
from tests.net.own_reactor import run_on_reactor, wait
from tests.queue.memory_queue import MemoryQueue
from tests.server import free_ports

LINES = b"From: anna@example.org\r\nSubject: hard\r\n\r\n.\r\n..\r\n.dot\r\n" + b"x" * 998 + b"\r\n\r\nend\r\n"


class Sink(TransferAgent):
    """smtp-sink(1), which keeps each message in a file."""

    def __init__(self, *options: str) -> None:
        super().__init__(unpacked("postfix"), free_ports(1)[0])
        self.options = options
        self.messages = self.dir / "messages"
        self.messages.mkdir()

    def start(self) -> None:
        """As the parent."""
        sink = self.package / "usr/sbin/smtp-sink"
        user = ("-u", "root") if os.getuid() == 0 else ()
        self.start_command(sink, *user, *self.options, "-d", f"{self.messages}/m.", f"127.0.0.1:{self.port}", "10")

    def texts(self) -> list[bytes]:
        """The messages, without what the sink puts before each."""
        found = [each.read_bytes() for each in self.messages.iterdir()]
        return [each[each.index(b"From: ") :] for each in found]


def send(directory: Path, port: int, recipients: list[str], count: int) -> MemoryQueue:
    """Send messages, each to all recipients, over a route to the port."""
    queue = MemoryQueue(directory)
    route = Route(host=NextHop("127.0.0.1"), port=Port(port), tls="none")

    async def sending(reactor: Any) -> None:
        delivery = Delivery()
        resolver = CachingResolver([], DNSExchange(reactor), AnswerCache(reactor.seconds))
        runner = QueueRunner(
            reactor,
            queue,
            Routes([route], delivery),
            MXHosts(resolver, delivery, "mail.example.org", lambda _address, _port: False),
            HopPool(HopConnector(reactor, stock_transports(""), "mail.example.org").open),
            call_in_thread=lambda call, *arguments: in_thread(reactor, call, *arguments),
        )
        runner.start()
        await wait(reactor, lambda: all(queue.results_of.get(each) for each in recipients) and not runner.active)
        await runner.stop(10)

    for _ in range(count):
        targets = [Target(each, key_of(route)) for each in recipients]
        queue.accept(Envelope("anna@example.org", int(time.time())), targets, LINES)
    run_on_reactor(sending)
    return queue


def results(queue: MemoryQueue, recipient: str) -> set[tuple[str, str]]:
    return {(each.result, each.status) for each in queue.results_of[recipient]}


@pytest.mark.parametrize("options", [(), ("-p",), ("-e",), ("-8",)], ids=["esmtp", "one by one", "helo", "no 8bitmime"])
def test_a_sink_gets_each_message_once_and_whole(tmp_path: Path, options: tuple[str, ...]) -> None:
    with Sink(*options) as sink:
        queue = send(tmp_path, sink.port, ["x@example.net", "y@example.net"], 20)
        texts = [each.replace(b"\r\n", b"\n") for each in sink.texts()]
    assert {each.result for each in queue.results_of["x@example.net"]} <= {"relayed", "passed_on"}
    assert len(queue.results_of["x@example.net"]) == 20
    assert len(texts) == 20
    assert {each.rstrip(b"\n") for each in texts} == {LINES.replace(b"\r\n", b"\n").rstrip(b"\n")}
    assert queue.recipients == {}


@pytest.mark.parametrize(
    ("options", "result"),
    [
        (("-r", "rcpt"), ("deferred", "4")),
        (("-f", "rcpt"), ("failed", "5")),
        (("-r", "."), ("deferred", "4")),
        (("-q", "data"), ("deferred", "4")),
        (("-r", "connect"), ("hop_failed", "4")),
    ],
    ids=["rcpt 4xx", "rcpt 5xx", "message 4xx", "data cut", "greeting 4xx"],
)
def test_a_sink_that_refuses(tmp_path: Path, options: tuple[str, ...], result: tuple[str, str]) -> None:
    with Sink(*options) as sink:
        queue = send(tmp_path, sink.port, ["x@example.net"], 1)
    (found,) = results(queue, "x@example.net")
    assert (found[0], found[1][0]) == result


RECEIVES = "mynetworks = 127.0.0.0/8\ndefault_transport = discard\nrelay_transport = discard\nsmtpd_tls_security_level = none\n"
DISCARD = "discard unix - - y - - discard\n"


def test_postfix_takes_all_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    refuses = "smtpd_recipient_restrictions = check_recipient_access inline:{no@example.net=REJECT}, permit_mynetworks, reject\n"
    with Postfix(RECEIVES + refuses, DISCARD) as postfix:
        queue = send(tmp_path, postfix.port, ["x@example.net", "no@example.net"], 5)
        assert results(queue, "no@example.net") == {("failed", "5.7.1")}, postfix.log
        assert results(queue, "x@example.net") == {("passed_on", "2.0.0")}
        assert len(queue.results_of["x@example.net"]) == 5


EXIM = """\
acl_smtp_rcpt = rcpt
acl_smtp_mail = accept_all
begin acl
accept_all:
  accept
rcpt:
  deny local_parts = no
       message = nobody
  accept
begin routers
all:
  driver = accept
  transport = drop
begin transports
drop:
  driver = appendfile
  file = /dev/null
  user = Debian-exim
"""


def test_exim_takes_all_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with Exim(EXIM) as exim:
        queue = send(tmp_path, exim.port, ["x@example.net", "no@example.net"], 5)
        assert {each[0] for each in results(queue, "no@example.net")} == {"failed"}, exim.log
        assert {each[0] for each in results(queue, "x@example.net")} == {"relayed"}
