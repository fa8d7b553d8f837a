"""FETCH of messages that the kernel has in memory: no hop, and the answer that the account's thread would give."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.imap.fetch.plan import CHUNK
from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.mailbox import small_reads
from tests.fakes import Client
from tests.imap.fetching import ask, live_mailbox
from tests.imap.sessions import logged_in, services

TEXTS = [
    b"Subject: bare\nFrom: a@example.test\n\none\ntwo\n",
    b"Subject: whole\r\n\r\none\r\ntwo\r\n",
    b"Subject: zero\n\nwith a \0 in it\n",
    b"Subject: no body\n",
    b"\nno header\n",
    b"X-Long: " + b"y" * 10_000 + b"\n\nlong header\n",
    b"Subject: large\n\n" + b"0123456789abcde\n" * 20_000,
    b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\nfirst\n--b\nContent-Type: text/html\n\n<p>\n--b--\n",
]
ITEMS = [
    b"BODY.PEEK[]",
    b"BODY.PEEK[HEADER]",
    b"RFC822.HEADER",
    b"(UID BODY.PEEK[] FLAGS)",
    b"(BODY.PEEK[HEADER] RFC822.SIZE INTERNALDATE)",
    b"(BODY.PEEK[HEADER] BODY.PEEK[])",
    b"BODY.PEEK[]<3.10>",
    b"BODY.PEEK[HEADER.FIELDS (X-LONG FROM)]",
    b"BODY.PEEK[HEADER.FIELDS.NOT (SUBJECT)]",
    b"(BODY.PEEK[2] BODY.PEEK[TEXT] BODY.PEEK[2.MIME])",
]


def client_of(path: Path) -> Client:
    client = logged_in(services(store=MaildirStore(str(path), summarise, location="{root}/{local}/Maildir")))
    for number, text in enumerate(TEXTS):
        (path / "anna" / "Maildir" / "cur" / f"17000000{number:02d}.a.host:2,").write_bytes(text)
    assert b"s OK" in client.ask(b"s SELECT INBOX\r\n")
    return client


def hops(client: Client) -> int:
    return int(live_mailbox(client).account._runner.runs)  # type: ignore[attr-defined]


@pytest.mark.parametrize("items", ITEMS)
def test_what_is_in_memory_is_answered_as_by_the_thread(
    tmp_path: Path, items: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = client_of(tmp_path)
    ask(client, b"FETCH 1:* RFC822.SIZE")
    with monkeypatch.context() as patch:
        patch.setattr(small_reads, "page_cache", lambda: None)
        expected = [ask(client, b"FETCH %d %b" % (seq, items)) for seq in range(1, len(TEXTS) + 1)]
    live_mailbox(client).account.message_cache.forget_mailbox(live_mailbox(client))
    assert [ask(client, b"FETCH %d %b" % (seq, items)) for seq in range(1, len(TEXTS) + 1)] == expected
    live_mailbox(client).account.message_cache.forget_mailbox(live_mailbox(client))
    assert ask(client, b"FETCH 1:* %b" % items) == b"".join(expected)
    together = client.ask(b"".join(b"p FETCH %d %b\r\n" % (seq, items) for seq in range(1, len(TEXTS) + 1)))
    assert together == b"".join(b"%bp OK FETCH completed\r\n" % each for each in expected)


@pytest.mark.parametrize("items", [b"BODY.PEEK[]", b"BODY.PEEK[HEADER]", b"BODY.PEEK[2]", b"BODY.PEEK[TEXT]<0.5>"])
def test_what_is_in_memory_needs_no_hop(tmp_path: Path, items: bytes) -> None:
    client = client_of(tmp_path)
    # One of them is read by the thread, which keeps the names of all.
    ask(client, b"FETCH 1 BODY.PEEK[]")
    before = hops(client)
    for seq in (1, 2, 3, 8):
        ask(client, b"FETCH %d %b" % (seq, items))
    ask(client, b"FETCH 1:3 %b" % items)
    client.ask(b"".join(b"p FETCH %d %b\r\n" % (seq, items) for seq in (1, 2, 3, 8)))
    assert hops(client) == before


def test_messages_of_a_whole_mailbox_are_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(tmp_path)
    monkeypatch.setattr("mailserver.imap.fetch.response._REMEMBERED", 3)
    ask(client, b"FETCH 1 BODY.PEEK[]")
    kept = live_mailbox(client).account.message_cache.octets_kept
    before = hops(client)
    ask(client, b"FETCH 1:4 BODY.PEEK[]")
    ask(client, b"FETCH 1:4 BODY.PEEK[TEXT]")
    assert hops(client) == before
    assert live_mailbox(client).account.message_cache.octets_kept == kept


def test_a_pipelined_body_sets_seen(tmp_path: Path) -> None:
    client = client_of(tmp_path)
    ask(client, b"FETCH 1 BODY.PEEK[]")
    answer = client.ask(b"".join(b"p%d FETCH %d BODY[HEADER]\r\n" % (seq, seq) for seq in (1, 2, 3)))
    assert answer.count(b"FLAGS (\\Seen)") == 3
    assert ask(client, b"FETCH 1:3 FLAGS") == b"".join(b"* %d FETCH (FLAGS (\\Seen))\r\n" % seq for seq in (1, 2, 3))


def test_a_message_that_another_program_has_removed_ends_in_expungeissued(tmp_path: Path) -> None:
    client = client_of(tmp_path)
    ask(client, b"FETCH 1:3 BODY.PEEK[]")
    live_mailbox(client).account.message_cache.forget_mailbox(live_mailbox(client))
    os.unlink(tmp_path / "anna" / "Maildir" / "cur" / "1700000001.a.host:2,")
    answer = client.ask(b"t FETCH 1:3 BODY.PEEK[]\r\n")
    assert b"* 1 FETCH (" in answer
    assert b"* 2 FETCH (" not in answer
    assert b"* 3 FETCH (" in answer
    assert b"t NO [EXPUNGEISSUED]" in answer


def test_pipelined_bodies_are_answered_a_chunk_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client does not read is held in memory, and other clients wait for the work."""
    client = client_of(tmp_path)
    path = tmp_path / "anna" / "Maildir" / "cur" / "1700000099.a.host:2,"
    path.write_bytes(b"Subject: x\r\n\r\n" + b"z" * 50_000)
    live_mailbox(client).poked()
    ask(client, b"NOOP")
    last = len(TEXTS) + 1
    ask(client, b"FETCH %d BODY.PEEK[]" % last)
    written: list[int] = []
    write = client.session.write
    monkeypatch.setattr(client.session, "write", lambda data: (written.append(len(data)), write(data)))
    answer = client.ask(b"p FETCH %d BODY.PEEK[]\r\n" % last * 60)
    assert answer.count(b"p OK FETCH completed") == 60
    assert len(written) > 1
    assert max(written) < CHUNK + 60_000
