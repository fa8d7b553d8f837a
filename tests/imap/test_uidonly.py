"""UIDONLY: the same data as without, by UID (RFC 9586)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mailserver.message.render import summarise
from mailserver.store.memory import MemoryStore
from tests.fakes import Client
from tests.imap.sessions import connect, put, selected, services
from tests.store.disk import open_store

ITEMS = (
    b"FLAGS",
    b"UID",
    b"FAST",
    b"ALL",
    b"FULL",
    b"(UID RFC822.SIZE INTERNALDATE MODSEQ)",
    b"ENVELOPE",
    b"BODYSTRUCTURE",
    b"(BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)])",
    b"(FLAGS BODY.PEEK[HEADER])",
    b"BODY.PEEK[]",
    b"(BODY.PEEK[TEXT]<0.5> BODY.PEEK[1.MIME])",
    b"(PREVIEW SAVEDATE)",
    b"(RFC822.HEADER BODY)",
)


def without_numbers(service: object) -> Client:
    client = connect(service)  # type: ignore[arg-type]
    client.take()
    client.ask(b"l LOGIN anna@example.test secret\r\n")
    assert client.ask(b"e ENABLE UIDONLY\r\n") == b"* ENABLED UIDONLY\r\ne OK ENABLE completed\r\n"
    client.ask(b"s SELECT INBOX\r\n")
    return client


def as_uidonly(answer: bytes, *, with_uid: bool) -> bytes:
    """What the same answer is by UID."""

    def by_uid(found: re.Match[bytes]) -> bytes:
        return b"* %b UIDFETCH (%b" % (found[1], b"UID %b" % found[1] + found[2] if with_uid else found[2].lstrip())

    return re.sub(rb"(?m)^\* \d+ FETCH \(UID (\d+)( ?)", by_uid, answer)


@pytest.mark.parametrize("kind", ["memory", "maildir"])
def test_each_item_is_the_same(kind: str, tmp_path: Path) -> None:
    service = services(store=MemoryStore(summarise) if kind == "memory" else open_store(str(tmp_path)))
    plain = selected(service, messages=3)
    plain.ask(b"a STORE 1 +FLAGS.SILENT (\\Deleted)\r\nb EXPUNGE\r\nc FETCH 1 MODSEQ\r\n")
    client = without_numbers(service)
    client.ask(b"c UID FETCH 2 MODSEQ\r\n")
    # A session of its own for each: \Recent belongs to one.
    plain.ask(b"u UNSELECT\r\ns SELECT INBOX\r\n")
    for _warm in range(2):
        for items in ITEMS:
            for uids in (b"1:*", b"3"):
                command = b"t UID FETCH %b %b\r\n" % (uids, items)
                wanted = as_uidonly(plain.ask(command), with_uid=b"UID" in items)
                assert client.ask(command) == wanted, items
                assert wanted.count(b" UIDFETCH (") == (2 if uids == b"1:*" else 1)


def test_pipelined_commands_are_answered_by_uid() -> None:
    service = services()
    selected(service, messages=20)
    client = without_numbers(service)
    client.send(b"".join(b"t%d UID FETCH %d (FLAGS)\r\n" % (uid, uid) for uid in range(1, 21)))
    answer = client.take()
    assert [int(uid) for uid in re.findall(rb"\* (\d+) UIDFETCH \(FLAGS \(\)\)\r\n", answer)] == list(range(1, 21))
    client.send(b"".join(b"t%d FETCH %d (FLAGS)\r\n" % (uid, uid) for uid in range(1, 4)))
    assert client.take().count(b" BAD [UIDREQUIRED] ") == 3


def test_numbers_are_refused_before_literals_are_asked_for() -> None:
    service = services()
    selected(service, messages=1)
    client = without_numbers(service)
    assert client.ask(b"t COPY 1 {7}\r\n").startswith(b"t BAD [UIDREQUIRED] ")
    assert client.ask(b"t UID SEARCH UID 1 OR 1 SEEN\r\n").startswith(b"t BAD [UIDREQUIRED] ")


def test_results_kept_up_to_date_from_before_have_no_numbers() -> None:
    client = selected(services(), messages=4)
    assert b"OK" in client.ask(b"a STORE 1 FLAGS.SILENT (\\Deleted)\r\nb EXPUNGE\r\n")
    assert b'(TAG "w") ALL 1:3\r\n' in client.ask(b"w SEARCH RETURN (UPDATE ALL) UNSEEN\r\n")
    assert b'(TAG "v") ALL 1:3\r\n' in client.ask(b"v SORT RETURN (UPDATE ALL) (ARRIVAL) UTF-8 UNSEEN\r\n")
    assert b"OK" in client.ask(b"e ENABLE UIDONLY\r\n")
    answer = client.ask(b"c UID STORE 3 +FLAGS (\\Seen)\r\n")
    assert b'* ESEARCH (TAG "w") UID REMOVEFROM (0 3)\r\n* ESEARCH (TAG "v") UID REMOVEFROM (2 3)\r\n' in answer
    answer = client.ask(b"d UID STORE 3 -FLAGS (\\Seen)\r\n")
    assert b'* ESEARCH (TAG "w") UID ADDTO (0 3)\r\n* ESEARCH (TAG "v") UID ADDTO (2 3)\r\n' in answer
    assert b"OK" in client.ask(b"f UID STORE 2 +FLAGS.SILENT (\\Deleted)\r\n")
    assert b'* ESEARCH (TAG "w") UID REMOVEFROM (0 2)\r\n' in client.ask(b"g UID EXPUNGE 2\r\n")


def test_idle_has_no_numbers() -> None:
    service = services()
    writer = selected(service, messages=3)
    client = without_numbers(service)
    client.ask(b"i IDLE\r\n")
    writer.ask(b"a STORE 3 +FLAGS ($New \\Deleted)\r\n")
    client.settle()
    assert client.take().endswith(b"* 3 UIDFETCH (FLAGS (\\Deleted $New))\r\n")
    writer.ask(b"b EXPUNGE\r\n")
    put(writer)
    client.settle()
    heard = client.take()
    assert heard.index(b"* VANISHED 3\r\n") < heard.index(b"* 3 EXISTS\r\n")
    assert b"EXPUNGE" not in heard
