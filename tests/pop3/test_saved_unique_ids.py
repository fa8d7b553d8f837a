"""Unique-ids and an order that dovecot-uidlist keeps: the same from ours as from a real Dovecot, also after changes."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.config.model import Pop3
from mailserver.pop3.commands import TABLE
from mailserver.pop3.session import Services, Session
from mailserver.sasl.registry import MECHANISMS, Mechanisms
from mailserver.store.interfaces import Pop3Record
from mailserver.store.live import LiveAccounts
from mailserver.store.maildir.account.account import MaildirAccount
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.store.maildir.format import pop3_fields
from mailserver.types import UID
from tests.dovecot import Dovecot, need
from tests.fakes import Client, DirectRunner, FakeAuthenticator, info
from tests.pop3.dialogs import EMPTY_SUMMARY

USER, PASSWORD = "anna@example.test", "secret"
COUNT = 500
FIELDS = {
    11: b" P1723",
    12: b" P",
    13: b" W30 PUID13-1275660208 O7",
    14: b" O3",
    15: b" P<x:y@example.org>",
    16: b" Ptwice",
    17: b" Ptwice",
}
"""Extension fields of some messages, by UID."""


@pytest.fixture
def place() -> Iterator[Path]:
    """Not below pytest's directory: that is root's alone, and Dovecot reads mail as another user."""
    with tempfile.TemporaryDirectory(prefix="mailserver-unique-ids-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def adopt(root: Path) -> Path:
    """A Maildir that Dovecot wrote; its directory."""
    maildir = root / "example.test" / "anna" / "Maildir"
    for name in ("cur", "new", "tmp"):
        (maildir / name).mkdir(parents=True)
    lines = [b"3 V1275660208 N1000 G3085f01b7f11094c501100008c4a11c1"]
    for uid in range(10, 10 + COUNT):
        base = f"{1700000000 + uid}.M{uid}P1.host"
        (maildir / "cur" / f"{base}:2,").write_bytes(b"Subject: %d\n\n%b\n" % (uid, b"x" * uid))
        lines.append(b"%d%b :%b" % (uid, FIELDS.get(uid, b""), base.encode()))
    (maildir / "dovecot-uidlist").write_bytes(b"\n".join([*lines, b""]))
    return maildir


def ours(root: Path, **config: str) -> Client:
    """A session of ours, logged in."""
    store = MaildirStore(root, lambda _message: EMPTY_SUMMARY)
    services = Services(
        FakeAuthenticator({USER: PASSWORD}),
        LiveAccounts(store, DirectRunner),
        Pop3(**config),  # type: ignore[arg-type]
        Mechanisms(MECHANISMS),
        "mail.example.test",
        table=TABLE,
    )
    client = Client(lambda channel: Session(channel, services), info("pop3s"))
    client.ask(b"USER " + USER.encode() + b"\r\nPASS " + PASSWORD.encode() + b"\r\n")
    return client


def account(root: Path) -> MaildirAccount:
    return MaildirStore(root, lambda _message: EMPTY_SUMMARY).account(USER)


def listing(answer: bytes) -> list[str]:
    return answer.decode().split("\r\n")[1:-2]


def listings_of_dovecot(port: int) -> tuple[list[str], list[str]]:
    """UIDL and LIST."""
    answers = []
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        stream = connection.makefile("rwb")
        stream.readline()
        for command in (b"USER " + USER.encode(), b"PASS " + PASSWORD.encode(), b"UIDL", b"LIST"):
            stream.write(command + b"\r\n")
            stream.flush()
            answer = stream.readline()
            assert answer.startswith(b"+OK"), answer
            while command in (b"UIDL", b"LIST") and not answer.endswith(b"\r\n.\r\n"):
                answer += stream.readline()
            answers.append(answer)
    return listing(answers[2]), listing(answers[3])


@pytest.mark.interop
def test_dovecot_and_ours_say_the_same_before_and_after_changes(place: Path) -> None:
    need("dovecot-pop3d")
    maildir = adopt(place / "mail")
    dovecot = Dovecot(place / "dovecot", place / "mail", {USER: PASSWORD}, protocols="imap pop3")
    with dovecot:
        for change in (False, True):
            if change:
                found = account(place / "mail")
                found.create("Other")
                inbox = found.mailbox("INBOX")
                # A copy is a new message, and so is what comes back: Dovecot gives neither the old one's unique-id.
                inbox.copy([UID(11)], "INBOX")
                inbox.move([UID(16)], "Other")
                found.mailbox("Other").move([UID(1)], "INBOX")
                inbox.expunge([UID(uid) for uid in range(20, 10 + COUNT)], only_deleted=False)
                found.close()
                assert (maildir / "dovecot-uidlist").read_bytes().count(b"\n") < 20, "it has been rewritten"
            client = ours(place / "mail")
            said = listing(client.ask(b"UIDL\r\n")), listing(client.ask(b"LIST\r\n"))
            dovecot.own(place / "mail")
            assert said == listings_of_dovecot(dovecot.ports["pop3"])
            # Those with an order come first.
            assert said[0][0].split()[0] == "1"
            by_number = [line.partition(" ")[2] for line in said[0]]
            assert by_number[1] == "UID13-1275660208"
            assert "1723" in by_number
            assert "1700000012.M12P1.host" in by_number
            assert "<x:y@example.org>" in by_number
            assert by_number.count("twice") == (1 if change else 2)


@pytest.mark.interop
@pytest.mark.parametrize(
    "words",
    ["%{filename}", "%{guid}", "%{uid}.%{uidvalidity}", "%{uid | hex(8)}%{uidvalidity | hex(8)}", "%{uid|hex}-%{guid}"],
)
def test_formats_are_those_of_dovecot(place: Path, words: str) -> None:
    need("dovecot-pop3d")
    maildir = adopt(place / "mail")
    uidlist = maildir / "dovecot-uidlist"
    uidlist.write_bytes(uidlist.read_bytes().replace(b"\n20 :", b"\n20 Gmyguid :"))
    more = f"protocol pop3 {{\n  pop3_uidl_format = {words}\n}}\n"
    dovecot = Dovecot(place / "dovecot", place / "mail", {USER: PASSWORD}, protocols="imap pop3", more=more)
    client = ours(place / "mail", uidl_format=words)
    said = listing(client.ask(b"UIDL\r\n")), listing(client.ask(b"LIST\r\n"))
    dovecot.own(place / "mail")
    with dovecot:
        assert said == listings_of_dovecot(dovecot.ports["pop3"])
    assert ("myguid" in "".join(said[0])) == ("guid" in words)


def test_messages_out_of_order_are_read_and_removed_by_their_numbers(place: Path) -> None:
    maildir = adopt(place)
    client = ours(place)
    assert b"Subject: 14\r\n" in client.ask(b"RETR 1\r\n")
    assert b"Subject: 13\r\n" in client.ask(b"RETR 2\r\n")
    assert b"Subject: 10\r\n" in client.ask(b"RETR 3\r\n")
    client.ask(b"DELE 1\r\nDELE 2\r\nDELE 4\r\nQUIT\r\n")
    names = {path.name.partition(":")[0] for path in (maildir / "cur").iterdir()}
    assert not names & {f"{1700000000 + uid}.M{uid}P1.host" for uid in (11, 13, 14)}
    assert len(names) == COUNT - 3


def test_a_made_unique_id_is_never_a_saved_one(place: Path) -> None:
    """Saved ids may be plain numbers: what comes in later must not look like an old message to a client."""
    maildir = adopt(place)
    uidlist = maildir / "dovecot-uidlist"
    uidlist.write_bytes(uidlist.read_bytes().replace(b"P1723", b"P18"))
    said = [line.split()[1] for line in listing(ours(place, uidl_format="%u").ask(b"UIDL\r\n"))]
    assert said.count("18") == 1
    assert "18-2" in said


def test_fields_stay_where_the_list_is_mended(place: Path) -> None:
    """The index knows a message that a spoilt list has lost: the list is written anew, with the fields that it has."""
    maildir = adopt(place)
    found = account(place)
    found.mailbox("INBOX").refresh()
    uidlist = maildir / "dovecot-uidlist"
    lines = uidlist.read_bytes().splitlines(keepends=True)
    uidlist.write_bytes(b"".join(lines[:-2]) + b"nonsense\n")
    found.mailbox("INBOX").refresh()
    found.close()
    assert b"nonsense" not in uidlist.read_bytes()
    assert uidlist.read_bytes().count(b"\n") == COUNT + 1
    assert {uid: record.unique_id for uid, record in pop3_fields.read(str(uidlist)).items()} == {
        11: "1723",
        12: "1700000012.M12P1.host",
        13: "UID13-1275660208",
        14: None,
        15: "<x:y@example.org>",
        16: "twice",
        17: "twice",
    }


@pytest.mark.parametrize(
    ("fields", "record"),
    [
        (b"", None),
        (b" W12", None),
        (b" P\xc3\xa4", None),
        (b" Pa\rb", None),
        (b" P" + b"x" * 401, None),
        (b" P" + b"x" * 400, Pop3Record("x" * 400)),
        (b" Oten P1", Pop3Record("1")),
        (b" O10", Pop3Record(None, 10)),
        (b" Gguid  P2 W3", Pop3Record("2")),
    ],
)
def test_values_that_no_answer_can_hold_are_left_out(place: Path, fields: bytes, record: Pop3Record | None) -> None:
    path = place / "dovecot-uidlist"
    head = b"3 V1 N9 G3085f01b7f11094c501100008c4a11c1 Pheader\n"
    path.write_bytes(head + b"1" + fields + b" :a P3 b:2,S\n2 P4 :torn")
    assert pop3_fields.read(str(path)) == ({1: record} if record else {})


def test_a_long_list_is_read_in_pieces(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pop3_fields, "_PIECE", 7)
    path = place / "dovecot-uidlist"
    path.write_bytes(b"3 V1 N9\n" + b"".join(b"%d P%d :m%d\n" % (uid, uid, uid) for uid in range(1, 50)))
    assert pop3_fields.read(str(path)) == {uid: Pop3Record(str(uid)) for uid in range(1, 50)}
    assert pop3_fields.read(str(place / "missing")) == {}
