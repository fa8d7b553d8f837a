"""Unsolicited responses: the changes of other sessions, and the commands at whose end they are sent."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from mailserver.errors import InUse, MailError, StoreUnavailable
from mailserver.store.flags import FlagChange
from mailserver.store.memory import MemoryMailbox
from mailserver.types import MailboxId
from tests.imap.sessions import logged_in, put, selected, services


def test_idle_hears_of_every_kind_of_change() -> None:
    service = services()
    idler, other = selected(service, messages=1), selected(service)
    idler.ask(b"i IDLE\r\n")
    put(other)
    idler.settle()
    # The session that appended it has been told first.
    assert idler.take() == b"* 2 EXISTS\r\n* 1 RECENT\r\n"
    other.send(b"a STORE 1 +FLAGS ($New)\r\n")
    idler.settle()
    heard = idler.take()
    assert heard.index(b"* FLAGS (") < heard.index(b"* 1 FETCH (FLAGS ($New")
    other.send(b"a STORE 1 +FLAGS.SILENT (\\Deleted)\r\na EXPUNGE\r\n")
    idler.settle()
    assert idler.take().endswith(b"* 1 EXPUNGE\r\n")
    assert idler.ask(b"DONE\r\n") == b"i OK IDLE completed\r\n"


def test_a_poke_without_news_says_nothing() -> None:
    client = selected(services(), messages=1)
    client.ask(b"i IDLE\r\n")
    client.session.selected.live.poked()
    client.settle()
    client.poke()
    assert client.take() == b""


def test_a_foreign_mailbox_id_does_not_disturb() -> None:
    client = selected(services())
    client.session.account.poke(MailboxId(b"x" * 16))
    assert client.ask(b"a NOOP\r\n") == b"a OK NOOP completed\r\n"


def test_new_keyword_is_told_before_the_message_that_has_it() -> None:
    client = selected(services(), messages=1)
    answer = client.ask(b"a STORE 1 +FLAGS ($New)\r\n")
    assert answer.index(b"* FLAGS (") < answer.index(b"* 1 FETCH ")
    assert answer.count(b" FETCH ") == 1


def test_messages_of_another_user_stay_apart() -> None:
    service = services()
    selected(service, messages=2)
    bert = logged_in(service, "bert@example.org", "secret2")
    assert b"* 0 EXISTS\r\n" in bert.ask(b"a SELECT INBOX\r\n")


def test_store_to_an_expunged_message_stores_the_rest() -> None:
    """RFC 5530 EXPUNGEISSUED."""
    service = services()
    one, two = selected(service, messages=3), selected(service)
    one.send(b"a STORE 2 +FLAGS.SILENT (\\Deleted)\r\na EXPUNGE\r\n")
    answer = two.ask(b"a STORE 1:3 +FLAGS (\\Seen)\r\n")
    assert b"* 1 FETCH" in answer
    assert b"* 2 FETCH (FLAGS (\\Deleted \\Seen))" in answer
    assert b"* 3 FETCH" in answer
    assert b"EXPUNGE\r\n" not in answer
    assert b"a OK [EXPUNGEISSUED] " in answer
    assert b"* SEARCH 1 2\r\n" in one.ask(b"b SEARCH SEEN\r\n")


def test_silent_store_of_an_expunged_message_is_a_success() -> None:
    """RFC 2180 4.2.1: with .SILENT, done for all messages that are left, OK."""
    service = services()
    one, two = selected(service, messages=3), selected(service)
    one.send(b"a STORE 2 +FLAGS.SILENT (\\Deleted)\r\na EXPUNGE\r\n")
    assert two.ask(b"a STORE 1:3 +FLAGS.SILENT (\\Seen)\r\n").startswith(b"a OK [EXPUNGEISSUED] ")
    assert b"* SEARCH 1 2\r\n" in one.ask(b"b SEARCH SEEN\r\n")


@pytest.mark.parametrize("error", [InUse, StoreUnavailable])
def test_idle_outlasts_a_store_that_fails_for_a_moment(error: type[MailError], monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 2177: only DONE ends it."""
    service = services()
    idler = selected(service)
    assert idler.ask(b"i IDLE\r\n") == b"+ idling\r\n"
    with monkeypatch.context() as patch:
        patch.setattr(MemoryMailbox, "changes_since", lambda *_args: (_ for _ in ()).throw(error()))
        put(logged_in(service))
        idler.settle()
        idler.wait(20)
        assert idler.take() == b""
        assert [event for event, _fields in idler.channel.logged].count("refresh-failed") == 1
    idler.wait(10)
    assert idler.take() == b"* 1 EXISTS\r\n* 1 RECENT\r\n"
    assert idler.ask(b"DONE\r\n") == b"i OK IDLE completed\r\n"


def test_a_lock_that_was_not_to_be_had_is_not_waited_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(), messages=1)
    tries = []

    def in_use(*_args: object) -> None:
        tries.append(1)
        raise InUse

    monkeypatch.setattr(MemoryMailbox, "changes_since", in_use)
    answer = client.ask(b"a STORE 1 +FLAGS (\\Seen)\r\n")
    assert answer.startswith(b"a NO [INUSE] ")
    assert len(tries) == 1


class SlowRunner:
    """A `StoreRunner`, first in, first out, whose turns come when the test says so once `held` is set."""

    def __init__(self) -> None:
        self.held = False
        self.turns: deque[tuple[Callable[[], Any], list[Any]]] = deque()

    def run(self, operation: Callable[[], Any]) -> Awaitable[Any]:
        done: list[Any] = []
        if self.held:
            self.turns.append((operation, done))
        else:
            done.append(operation())
        return self._answer(done)

    @types.coroutine
    def _answer(self, done: list[Any]) -> Generator[Any, Any, Any]:
        while not done:
            yield self
        return done[0]

    def turn(self) -> None:
        operation, done = self.turns.popleft()
        done.append(operation())


@pytest.mark.parametrize(("command", "news"), [(b"NOOP", b"* 1 FETCH (FLAGS (\\Deleted"), (b"EXPUNGE", b"* 1 EXPUNGE")])
def test_what_another_session_is_taking_up_is_told_before_the_ok(command: bytes, news: bytes) -> None:
    """It was done, and known here, before the command came."""
    service = services()
    first = selected(service, messages=1)
    second = selected(service)
    runner = SlowRunner()
    account = first.session.account
    account.account.mailbox("INBOX").store_flags([1], FlagChange.ADD, ["\\Deleted"])
    first.session.selected.live.poked()
    account._runner = runner
    runner.held = True
    first.send(b"a NOOP\r\n")
    second.send(b"b %b\r\n" % command)
    while runner.turns:
        runner.turn()
        first._step(None)
        second._step(None)
    assert b"* 1 FETCH (FLAGS (\\Deleted" in first.take()
    answer = second.take()
    assert news in answer
    assert answer.endswith(b"b OK %b completed\r\n" % command)


@pytest.mark.parametrize(
    ("command", "kind"),
    [(b"STORE 1:7 +FLAGS.SILENT (\\Flagged)", b" FETCH ("), (b"UID EXPUNGE 1:7", b" EXPUNGE")],
)
def test_many_changes_are_told_in_pieces(command: bytes, kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others have their turn in between."""
    service = services()
    first = selected(service, messages=7)
    first.ask(b"d STORE 1:7 +FLAGS.SILENT (\\Deleted)\r\n")
    second = selected(service)
    assert b"a OK" in first.ask(b"a " + command + b"\r\n")
    monkeypatch.setattr("mailserver.imap.updates._CHUNK", 2)
    before = second.channel.drains
    answer = second.ask(b"a NOOP\r\n")
    assert answer.count(kind) == 7
    assert answer.endswith(b"a OK NOOP completed\r\n")
    assert second.channel.drains - before >= 3


@pytest.mark.parametrize("command", [b"FETCH 1 FLAGS", b"UID FETCH 1 (FLAGS ENVELOPE)", b"FETCH 1 (FLAGS BODY.PEEK[])"])
def test_another_sessions_new_keyword_is_told_before_the_fetch_that_uses_it(command: bytes) -> None:
    """RFC 3501 7.2.6: FLAGS names the flags that the mailbox has; a client learns it before it meets one."""
    service = services()
    reader, other = selected(service, messages=1), selected(service)
    other.ask(b"a STORE 1 +FLAGS.SILENT ($New)\r\n")
    answer = reader.ask(b"b %b\r\n" % command)
    assert 0 <= answer.index(b"* FLAGS (") < answer.index(b"$New") < answer.index(b"* 1 FETCH ")
    assert answer.count(b"* FLAGS (") == 1


def test_another_sessions_new_keyword_is_told_before_the_store_that_uses_it() -> None:
    service = services()
    writer, other = selected(service, messages=1), selected(service)
    other.ask(b"a STORE 1 +FLAGS.SILENT ($New)\r\n")
    answer = writer.ask(b"b UID STORE 1 +FLAGS (\\Seen)\r\n")
    assert answer.index(b"* FLAGS (") < answer.index(b"$New") < answer.index(b"* 1 FETCH ")
