"""What one FETCH may cost: little at once, the rest in turns of the account's thread, each octet looked at once."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from mailserver.errors import StoreUnavailable
from mailserver.imap.fetch import header_fields, message, work
from mailserver.imap.fetch.budget import AT_ONCE
from mailserver.imap.fetch.open_message import LARGE, OpenMessage
from mailserver.imap.fetch.plan import CHUNK
from mailserver.store.memory import MemoryMessage
from mailserver.store.time_slice import TimeSlice
from tests.fakes import Client
from tests.imap.fetching import NESTED, ask, live_mailbox, opened
from tests.imap.sessions import MESSAGE
from tests.imap.test_fetch_cache import Counts

LARGE_SIZE = LARGE + 1
LINES = b"a:b\r\n" * 12_000
HEADER = LINES + b"\r\nbody\r\n"
ITEMS = b"(" + b" ".join(b"BODY.PEEK[HEADER.FIELDS (x%d)]" % number for number in range(200)) + b")"
MIXED = (
    b"(UID FLAGS ENVELOPE BODYSTRUCTURE BODY.PEEK[HEADER.FIELDS (SUBJECT)] BODY.PEEK[HEADER.FIELDS (X-OTHER)]"
    b" BODY.PEEK[2.HEADER.FIELDS.NOT (TO)]<3.20> BODY.PEEK[1] BODY.PEEK[TEXT]<2.9> BODY.PEEK[2.MIME] BODY.PEEK[9])"
)


class Turn(TimeSlice):
    """One that is over after the first thing."""

    def take(self, octets: int) -> bool:
        super().take(octets)
        self.full = True
        return True


def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How long each header is that is cut into fields from now on."""
    found: list[int] = []
    iterate_fields = header_fields.iterate_fields

    def counted(source: bytes, start: int, end: int) -> Any:
        found.append(end - start)
        return iterate_fields(source, start, end)

    monkeypatch.setattr(header_fields, "iterate_fields", counted)
    return found


def test_a_header_is_looked_at_once_for_all_items(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(HEADER, HEADER)
    found = looked_at(monkeypatch)
    ask(client, b"FETCH 1:2 " + ITEMS)
    # With those that were begun on the reactor's thread, where nothing has been read yet.
    assert found == [len(LINES) + 2] * 2


def test_what_is_known_and_costs_much_is_not_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(*[HEADER] * 4)
    first = ask(client, b"FETCH 1:4 " + ITEMS)
    counts = Counts(client, monkeypatch)
    found = looked_at(monkeypatch)
    assert ask(client, b"FETCH 1:4 " + ITEMS) == first
    assert counts.hops > 0
    assert counts.opened == 0
    assert sum(found) <= 4 * (len(LINES) + 2) + AT_ONCE


@pytest.mark.filterwarnings("ignore:coroutine '_answer' was never awaited:RuntimeWarning")
@pytest.mark.parametrize("messages", [(MESSAGE, NESTED, HEADER, MESSAGE), (HEADER, NESTED)])
@pytest.mark.parametrize("items", [MIXED, b"(UID ENVELOPE)", b"(BODY.PEEK[HEADER.FIELDS (SUBJECT)] ENVELOPE)", ITEMS])
def test_turns_may_end_anywhere(
    monkeypatch: pytest.MonkeyPatch, items: bytes, messages: tuple[bytes, ...]
) -> None:  # fmt: skip
    client = opened(*messages)
    command = b"FETCH 1:* " + items
    for again in range(2):
        expected = ask(client, command)
        with monkeypatch.context() as patch:
            if not again:
                recent = live_mailbox(client).account.message_cache
                recent.forget_mailbox(live_mailbox(client))
            patch.setattr(work, "TimeSlice", Turn)
            patch.setattr(message, "TimeSlice", Turn)
            counts = Counts(client, patch)
            assert ask(client, command) == expected
            assert again or counts.hops >= len(messages)


def test_an_answer_that_is_many_times_its_message_is_made_as_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(HEADER)
    items = b" ".join(b"BODY.PEEK[HEADER.FIELDS (a x%d)]" % number for number in range(100))
    drains = client.channel.drains
    answer = ask(client, b"FETCH 1 (" + items + b")")
    assert answer.count(LINES + b"\r\n") == 100
    assert client.channel.drains - drains > len(answer) // (2 * CHUNK)


def test_a_client_that_does_not_read_has_no_message_held(monkeypatch: pytest.MonkeyPatch) -> None:
    part = b"--b\r\n\r\n" + b"x" * LARGE_SIZE + b"\r\n"
    client = opened(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * 3)
    held: list[object] = []
    drain = type(client.channel).drain

    async def measured(channel: Any) -> None:
        held.extend(each._whole for each in gc.get_objects() if isinstance(each, OpenMessage))
        await drain(channel)

    monkeypatch.setattr(type(client.channel), "drain", measured)
    monkeypatch.setattr(work, "TimeSlice", Turn)
    monkeypatch.setattr(message, "TimeSlice", Turn)
    assert ask(client, b"FETCH 1 (BODY.PEEK[1] BODY.PEEK[2] BODY.PEEK[3.MIME])").count(b"x" * LARGE_SIZE) == 2
    assert set(held) == {None}


def test_an_answer_that_cannot_be_gone_on_with_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    client: Client = opened(HEADER * 6)
    client.session.utf8 = True  # others have it read before anything is sent
    read = MemoryMessage.read
    reads = 0

    def broken(self: MemoryMessage, offset: int = 0, count: int | None = None) -> bytes:
        nonlocal reads
        reads += 1
        if reads > 3:
            raise StoreUnavailable
        return read(self, offset, count)

    monkeypatch.setattr(work, "TimeSlice", Turn)
    monkeypatch.setattr(message, "TimeSlice", Turn)
    monkeypatch.setattr(MemoryMessage, "read", broken)
    answer = client.ask(b"t FETCH 1 (FLAGS BODY.PEEK[HEADER.FIELDS (a)] BODY.PEEK[1])\r\n")
    assert client.channel.closed
    assert b"\r\nt " not in answer
    assert ("message-truncated", {"user": "anna@example.test"}) in client.channel.logged
