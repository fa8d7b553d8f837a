"""The store and the runner of the queue together, over real sockets, in processes that are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from mailserver.config.kinds import NextHop, Port
from mailserver.config.model.outbound import Delivery, Route
from mailserver.dns.cache import AnswerCache
from mailserver.dns.resolver import CachingResolver
from mailserver.errors import RelayRefused
from mailserver.net.connection.coroutines import in_thread
from mailserver.net.outbound.dns_exchange import DNSExchange
from mailserver.net.outbound.hop_connector import HopConnector
from mailserver.net.outbound.hop_pool import HopPool
from mailserver.net.outbound.mx_hosts import MXHosts
from mailserver.net.outbound.queue_runner import QueueRunner, RunnerLimits
from mailserver.net.transport.stock import stock_transports
from mailserver.queue.interfaces import Content
from mailserver.queue.mail_queue import MailQueue
from mailserver.queue.model import Envelope, Settings, Target
from mailserver.queue.routing import Routes, key_of
from mailserver.queue.work import QueueWork
from tests.live.hop import Hop
from tests.net.own_reactor import HANGS, run_on_reactor, wait

MESSAGES = 120
"""Of each process that is killed."""
CONCURRENCY = 3
SETTINGS = Settings(minimum_free=0)


@pytest.fixture
def hop() -> Iterator[Hop]:
    with Hop(trustme.CA(), starttls=False) as made:
        yield made


def route(hop: Hop) -> Route:
    return Route(host=NextHop("127.0.0.1"), port=Port(hop.port), tls="none")


def accept(queue: MailQueue, hop: Hop, numbers: range, acknowledged: int) -> None:
    """Accept messages; the number of each is written once it is acknowledged."""
    target = Target("x@example.net", key_of(route(hop)))
    for number in numbers:
        text = b"Subject: number %d.\r\n\r\n.text\r\n" % number
        queue.accept([queue.write(Envelope("anna@example.org", int(time.time())), [target], Content(text))])
        os.write(acknowledged, b"%d\n" % number)


def no_report(_sender: str) -> Target:
    raise RelayRefused


async def serve(reactor: Any, directory: Path, hop: Hop, numbers: range, acknowledged: int) -> None:
    """Accept in a thread, send what is queued, and end once the queue is empty."""
    queue = MailQueue(directory, SETTINGS)
    work = QueueWork(queue, no_report)
    delivery = Delivery()
    resolver = CachingResolver([], DNSExchange(reactor), AnswerCache(reactor.seconds))
    runner = QueueRunner(
        reactor,
        work,
        Routes([route(hop)], delivery),
        MXHosts(resolver, delivery, "mail.example.org", lambda _address, _port: False),
        HopPool(HopConnector(reactor, stock_transports(""), "mail.example.org").open),
        limits=RunnerLimits(concurrency=CONCURRENCY),
        call_in_thread=lambda call, *arguments: in_thread(reactor, call, *arguments),
    )
    runner.start()
    accepting = threading.Thread(target=accept, args=(queue, hop, numbers, acknowledged), daemon=True)
    accepting.start()
    await wait(reactor, lambda: not accepting.is_alive() and not queue.rows.read("SELECT 1 FROM recipient"))
    await runner.stop(10)
    work.close()
    queue.close()


def run_killed(directory: Path, hop: Hop, numbers: range, *, at: int | None) -> list[int]:
    """Run it in a process, which is killed once the hop has so many messages. Return what it has acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        code = 1
        try:
            os.close(reading)
            run_on_reactor(lambda reactor: serve(reactor, directory, hop, numbers, writing))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    end = time.monotonic() + HANGS
    while at is not None and len(hop.messages) < at:
        assert time.monotonic() < end, "it sends nothing"
        time.sleep(0.001)
    if at is not None:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as file:
        acknowledged = [int(line) for line in file.read().split(b"\n")[:-1]]
    _pid, status = os.waitpid(child, 0)
    assert (at is not None and os.WIFSIGNALED(status)) or (at is None and os.WEXITSTATUS(status) == 0)
    return acknowledged


def test_what_was_acknowledged_arrives_whatever_is_killed(hop: Hop, tmp_path: Path) -> None:
    acknowledged = run_killed(tmp_path, hop, range(MESSAGES), at=MESSAGES // 3)
    before = len(hop.messages)
    acknowledged += run_killed(tmp_path, hop, range(MESSAGES, 2 * MESSAGES), at=before + MESSAGES // 2)
    acknowledged += run_killed(tmp_path, hop, range(2 * MESSAGES, 2 * MESSAGES + 5), at=None)
    arrived = Counter(int(each.split(b"number ")[1].split(b".")[0]) for each in hop.messages)
    assert len(acknowledged) > MESSAGES // 2
    assert [number for number in acknowledged if not arrived[number]] == []
    repeats = arrived.total() - len(arrived)
    assert repeats <= 2 * CONCURRENCY
    # A client whose message was accepted and not acknowledged repeats it: one for each kill.
    assert len(set(arrived) - set(acknowledged)) <= 2
    # Files whose unlinking was cut have no rows: the sweep of a later hour takes them.
    queue = MailQueue(tmp_path, SETTINGS)
    work = QueueWork(queue, no_report)
    work.sweep(int(time.time()) + 7200)
    assert list((tmp_path / "msg").iterdir()) == []
    work.close()
    queue.close()


def test_all_arrives_without_a_kill(hop: Hop, tmp_path: Path) -> None:
    acknowledged = run_killed(tmp_path, hop, range(40), at=None)
    assert sorted(acknowledged) == list(range(40))
    assert len(hop.messages) == 40
    assert hop.connections <= 4
    assert all(each.endswith(b"\r\n\r\n..text\r\n") for each in hop.messages)
