"""Commands that take long tell how far they are (RFC 9585): when, what, and that nothing is said afterwards."""

from __future__ import annotations

import re
import types
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, TypeVar

import pytest

from mailserver.imap.progress import MANY, ProgressReporter
from mailserver.message.render import summarise
from mailserver.store.interfaces import Progress, ScanTooLarge
from mailserver.store.live import LiveAccounts
from mailserver.store.memory import MemoryAccount, MemoryStore
from tests.fakes import Client, DirectRunner
from tests.imap.sessions import logged_in, put, selected, services

T = TypeVar("T")


@types.coroutine
def pause() -> Generator[None, None, None]:
    yield


class Scans:
    """A `ScanPool` that a test plays."""

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.orders: list[Mapping[str, Any]] = []

    async def read(self, order: Mapping[str, Any], progress: Progress | None = None) -> bool:
        self.orders.append(order)
        self.progress = progress
        await pause()
        return True


class SlowRunner(DirectRunner):
    """A `StoreRunner` whose answers wait while it is `slow`."""

    slow = False

    def run(self, operation: Callable[[], T]) -> Awaitable[T]:
        return self._later(operation) if self.slow else super().run(operation)

    async def _later(self, operation: Callable[[], T]) -> T:
        await pause()
        return operation()


def go_on(client: Client) -> bytes:
    """What was waited for has come."""
    client._step(None)
    return client.take()


@pytest.fixture
def scans(monkeypatch) -> Scans:
    """Opening a mailbox has another process read it, once."""
    scans = Scans()
    mailbox = MemoryAccount.mailbox

    def much(account: MemoryAccount, name: str) -> Any:
        if not scans.orders:
            raise ScanTooLarge({"mailbox": name})
        return mailbox(account, name)

    monkeypatch.setattr(MemoryAccount, "mailbox", much)
    return scans


@pytest.fixture
def client(scans) -> Client:
    service = services()
    service.accounts.scans = scans
    return logged_in(service)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (b"SELECT INBOX", b"a OK [READ-WRITE]"),
        (b"EXAMINE INBOX", b"a OK [READ-ONLY]"),
        (b"STATUS INBOX (MESSAGES)", b"* STATUS INBOX (MESSAGES 0)"),
    ],
)
def test_told_after_a_second_and_then_less_and_less_often(client, scans, command, answer):
    assert client.ask(b"a %b\r\n" % command) == b""
    client.wait(0.9)
    assert client.take() == b""
    scans.progress.done, scans.progress.goal = 10, 40
    client.wait(0.2)
    assert client.take() == b'* OK [INPROGRESS ("a" 10 40)] still at work\r\n'
    scans.progress.done = 20
    client.wait(1.8)
    assert client.take() == b""
    client.wait(0.2)
    assert client.take() == b'* OK [INPROGRESS ("a" 20 40)] still at work\r\n'
    client.wait(60)
    assert client.take().count(b"INPROGRESS") == 6  # at 7, 15, 25, 35, 45 and 55 s
    assert answer in go_on(client)
    client.wait(60)
    assert b"INPROGRESS" not in client.take()
    assert client.ask(b"b NOOP\r\n").endswith(b"b OK NOOP completed\r\n")
    assert len(scans.orders) == 1


def test_numbers_never_fall_and_never_reach_the_goal(client, scans):
    """Section 4: PROGRESS below GOAL, GOAL positive, both NIL where they are not known."""
    client.ask(b"a SELECT INBOX\r\n")
    told = []
    for done, goal in ((0, 0), (0, 5), (3, 5), (2, 5), (5, 5), (9, 5), (0, 0)):
        scans.progress.done, scans.progress.goal = done, goal
        client.wait(10)
        told += re.findall(rb'\("a" (\S+ \S+)\)', client.take())[-1:]
    assert told == [b"NIL NIL", b"0 5", b"3 5", b"3 5", b"4 5", b"4 5", b"NIL NIL"]


@pytest.mark.parametrize(("tag", "told"), [(b"A.7", b'"A.7"'), (b"x]", b"NIL"), (b"a'b", b'"a\'b"')])
def test_the_tag_is_told(client, scans, tag, told):
    """One with "]" is not: many clients would take it for the end of the code."""
    client.ask(tag + b" SELECT INBOX\r\n")
    client.wait(1)
    assert client.take() == b"* OK [INPROGRESS (%b NIL NIL)] still at work\r\n" % told


def test_nothing_is_said_to_a_client_that_has_gone(client, scans):
    client.ask(b"a SELECT INBOX\r\n")
    client.hang_up()
    client.wait(30)
    go_on(client)
    assert client.done
    assert client.channel.timers == []


def test_an_error_ends_it(client, scans):
    client.ask(b"a SELECT Nowhere\r\n")
    client.wait(1)
    assert b"INPROGRESS" in client.take()
    assert b"a NO" in go_on(client)
    assert client.channel.timers == []


@pytest.mark.parametrize("command", [b"COPY 1:* Sent", b"MOVE 1:* Sent", b"EXPUNGE"])
def test_commands_on_many_messages_say_that_they_go_on(command):
    store = MemoryStore(summarise, special_use={"\\Sent": "Sent"})
    runner = SlowRunner()
    service = services(store=store)
    service.accounts.__init__(store, lambda: runner)  # type: ignore[misc]
    client = selected(service, messages=3)
    client.ask(b"f STORE 1:* +FLAGS.SILENT (\\Deleted)\r\n")
    runner.slow = True
    client.ask(b"a %b\r\n" % command)
    client.wait(5)
    assert client.take() == b"", "three messages take no time"
    runner.slow = False
    assert b"a OK" in go_on(client)
    for _ in range(MANY):
        put(client)
    client.ask(b"f STORE 1:* +FLAGS.SILENT (\\Deleted)\r\n")
    runner.slow = True
    client.ask(b"b %b\r\n" % command)
    client.wait(1)
    assert client.take() == b'* OK [INPROGRESS ("b" NIL NIL)] still at work\r\n'
    runner.slow = False
    assert b"b OK" in go_on(client)
    assert client.channel.timers == []


def test_search_tells_how_many_messages_it_has_read(monkeypatch):
    monkeypatch.setattr("mailserver.store.search.STEP", -1.0)
    store = MemoryStore(summarise, special_use={})
    runner = SlowRunner()
    service = services(store=store)
    service.accounts.__init__(store, lambda: runner)  # type: ignore[misc]
    client = selected(service, messages=8)
    runner.slow = True
    assert client.ask(b"a SEARCH BODY body\r\n") == b""
    assert go_on(client) == b""
    client.wait(1)
    assert client.take() == b'* OK [INPROGRESS ("a" 1 8)] still at work\r\n'
    assert go_on(client) == b""
    client.wait(2)
    assert client.take() == b'* OK [INPROGRESS ("a" 2 8)] still at work\r\n'
    runner.slow = False
    answer = go_on(client)
    assert answer.startswith(b"* SEARCH 1 2 3 4 5 6 7 8\r\n")
    assert client.channel.timers == []


def test_what_is_never_started_sets_no_timer(client):
    with ProgressReporter(client.session, types.SimpleNamespace(tag="a")):  # type: ignore[arg-type]
        pass
    assert client.channel.timers == []


def test_it_is_advertised_after_login(client):
    assert b" INPROGRESS" in client.ask(b"a CAPABILITY\r\n")


def test_without_a_pool_all_is_read_where_it_is_asked_for(monkeypatch):
    service = services()
    assert isinstance(service.accounts, LiveAccounts)
    entered = []
    monkeypatch.setattr(MemoryAccount, "bounded", entered.append)
    assert b"a OK" in logged_in(service).ask(b"a SELECT INBOX\r\n")
    assert entered == []
