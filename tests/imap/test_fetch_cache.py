"""FETCH of what was read a moment ago: no hop, no file opened, and the same answer."""

from __future__ import annotations

from typing import Any

import pytest

from mailserver.store.live import MessageCache
from mailserver.store.memory import MemoryMailbox, MemoryMessage
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE
from tests.fakes import Client
from tests.imap.fetching import LARGE, NESTED, ask, live_mailbox, opened
from tests.imap.sessions import MESSAGE, put


class Counts:
    """Hops and files opened, from now on."""

    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = 0
        self.runner: Any = live_mailbox(client).account._runner
        self._before = self.runner.runs
        open_message = MemoryMailbox.open_message

        def counted(mailbox: MemoryMailbox, uid: UID) -> MemoryMessage:
            self.opened += 1
            return open_message(mailbox, uid)

        monkeypatch.setattr(MemoryMailbox, "open_message", counted)

    @property
    def hops(self) -> int:
        return int(self.runner.runs) - self._before


def message_cache(client: Client) -> MessageCache:
    return live_mailbox(client).account.message_cache


@pytest.fixture
def readable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files whose octets are in the page cache."""
    monkeypatch.setattr(
        MemoryMessage, "read_now", lambda self, offset, count: MemoryMessage.read(self, offset, count) or None
    )


@pytest.mark.parametrize(
    "items",
    [
        b"(UID FLAGS ENVELOPE BODYSTRUCTURE RFC822.SIZE INTERNALDATE)",
        b"BODY.PEEK[]",
        b"(UID BODY.PEEK[] RFC822.SIZE)",
        b"BODY.PEEK[HEADER.FIELDS (SUBJECT)]",
        b"(ENVELOPE BODY.PEEK[2.HEADER] BODY.PEEK[1]<1.3> BODY.PEEK[TEXT])",
    ],
)
def test_the_same_again_needs_no_hop(items: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(MESSAGE, NESTED, MESSAGE)
    first = ask(client, b"FETCH 1:3 " + items)
    counts = Counts(client, monkeypatch)
    assert ask(client, b"FETCH 1:3 " + items) == first
    assert (counts.hops, counts.opened) == (0, 0)
    assert ask(client, b"FETCH 2 " + items) in first


def test_parts_of_a_message_that_was_read_need_no_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(NESTED)
    ask(client, b"FETCH 1 BODY.PEEK[HEADER]")
    counts = Counts(client, monkeypatch)
    assert b"first" in ask(client, b"FETCH 1 BODY.PEEK[1]")
    assert b"inner one" in ask(client, b"FETCH 1 BODY.PEEK[2.1]")
    assert (counts.hops, counts.opened) == (0, 0)


def test_what_is_not_known_costs_one_hop(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(MESSAGE, NESTED)
    ask(client, b"FETCH 1 BODY.PEEK[]")
    counts = Counts(client, monkeypatch)
    assert ask(client, b"FETCH 1:2 BODY.PEEK[]").count(b"FETCH") == 2
    assert counts.hops == 1


def test_the_store_is_asked_for_the_summaries_that_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(MESSAGE, NESTED, MESSAGE, NESTED)
    whole = ask(client, b"FETCH 1:* (UID ENVELOPE BODYSTRUCTURE)")
    message_cache(client).forget(live_mailbox(client), [UID(1), UID(4)])
    asked: list[int] = []
    summaries = MemoryMailbox.summaries

    def noted(mailbox: MemoryMailbox, uids: Any, **how: Any) -> Any:
        asked.extend(uids)
        return summaries(mailbox, uids, **how)

    monkeypatch.setattr(MemoryMailbox, "summaries", noted)
    assert ask(client, b"FETCH 1:* (UID ENVELOPE BODYSTRUCTURE)") == whole
    assert asked == [1, 4]
    assert ask(client, b"FETCH 1:* (UID ENVELOPE BODYSTRUCTURE)") == whole
    assert asked == [1, 4]


def test_sizes_that_are_not_known_are_read_though_the_summary_is() -> None:
    client = opened(MESSAGE, NESTED)
    items = b"FETCH 1:* (UID ENVELOPE RFC822.SIZE INTERNALDATE)"
    whole = ask(client, items)
    columns = live_mailbox(client).columns
    columns.sizes[0], columns.dates[0] = UNKNOWN_SIZE, UNKNOWN_DATE
    assert ask(client, items) == whole
    assert UNKNOWN_SIZE not in columns.sizes, "they are known from now on"


def test_who_fetches_everything_fills_nothing() -> None:
    client = opened(*[MESSAGE] * 257)
    ask(client, b"FETCH 1:* (ENVELOPE BODY.PEEK[])")
    assert message_cache(client).octets_kept == 0


@pytest.mark.usefixtures("readable")
def test_a_large_message_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As clients read it that ask for a piece at a time."""
    client = opened(LARGE)
    counts = Counts(client, monkeypatch)
    got = b""
    while len(got) < len(LARGE):
        answer = ask(client, b"FETCH 1 BODY.PEEK[]<%d.100000>" % len(got))
        got += answer.partition(b"}\r\n")[2].removesuffix(b")\r\n")
    assert got == LARGE
    assert (counts.hops, counts.opened) == (1, 1)
    assert message_cache(client).files_kept == 1


@pytest.mark.usefixtures("readable")
def test_a_large_message_again_is_read_without_opening_it(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(LARGE)
    first = ask(client, b"FETCH 1 BODY.PEEK[]")
    counts = Counts(client, monkeypatch)
    assert ask(client, b"FETCH 1 BODY.PEEK[]") == first
    assert (counts.hops, counts.opened) == (0, 0)


def test_a_file_that_is_not_in_memory_is_read_by_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(LARGE)
    ask(client, b"FETCH 1 BODY.PEEK[]<0.100>")
    counts = Counts(client, monkeypatch)
    assert LARGE[100:200] in ask(client, b"FETCH 1 BODY.PEEK[]<100.100>")
    assert (counts.hops, counts.opened) == (1, 0)


@pytest.mark.filterwarnings("ignore:coroutine '_answer' was never awaited:RuntimeWarning")
def test_expunged_messages_are_forgotten() -> None:
    client = opened(MESSAGE, LARGE)
    ask(client, b"FETCH 1:2 (ENVELOPE BODY.PEEK[])")
    assert message_cache(client).octets_kept > 0
    assert message_cache(client).files_kept == 1
    ask(client, b"STORE 1:2 +FLAGS (\\Deleted)")
    ask(client, b"EXPUNGE")
    assert (message_cache(client).octets_kept, message_cache(client).files_kept) == (0, 0)


def test_two_accounts_never_share() -> None:
    anna = opened(MESSAGE)
    ask(anna, b"FETCH 1 BODY.PEEK[]")
    other = opened(MESSAGE.replace(b"one", b"two"))
    assert b"Subject: two" in ask(other, b"FETCH 1 BODY.PEEK[]")


def test_a_seen_message_is_told_with_its_flags_from_memory_too() -> None:
    client = opened(MESSAGE)
    ask(client, b"FETCH 1 BODY.PEEK[]")
    assert b"FLAGS (\\Seen" in ask(client, b"FETCH 1 BODY[]")


def test_a_file_that_failed_is_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(LARGE)

    def short(_self: MemoryMessage, _offset: int = 0, _count: int | None = None) -> bytes:
        return b""

    with monkeypatch.context() as broken:
        broken.setattr(MemoryMessage, "read", short)
        assert client.ask(b"t FETCH 1 BODY.PEEK[]<0.100>\r\n").startswith(b"t NO ")
    assert message_cache(client).files_kept == 0
    assert LARGE[:100] in ask(client, b"FETCH 1 BODY.PEEK[]<0.100>")


def test_commands_are_remembered_by_what_follows_the_messages() -> None:
    client = opened(MESSAGE, MESSAGE)
    tails = client.session.services.argument_cache
    before = tails.known
    for number in (1, 2):
        ask(client, b"FETCH %d (FLAGS BODY.PEEK[])" % number)
        ask(client, b"UID FETCH %d (FLAGS BODY.PEEK[])" % number)
        ask(client, b"STORE %d +FLAGS.SILENT (\\Flagged)" % number)
        ask(client, b"STATUS INBOX (MESSAGES UNSEEN)")
    assert tails.known - before == 4
    for wrong in (b"FETCH 1 (FLAGS", b"STORE 1 FLAGZ (\\Seen)", b"STATUS INBOX (NOTHING)"):
        assert client.ask(b"t %b\r\n" % wrong).startswith(b"t BAD ")
        assert client.ask(b"t %b\r\n" % wrong).startswith(b"t BAD ")
    assert tails.known - before == 4
    put(client)
