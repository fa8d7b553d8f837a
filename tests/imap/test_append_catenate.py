"""CATENATE (RFC 4469): where the octets come from, what bounds them, and what is left when a URL fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mailserver.imap.append import catenate, incoming
from mailserver.imap.session import Session
from mailserver.message.render import summarise
from mailserver.store.interfaces import Account
from mailserver.store.maildir.account.store import MaildirStore
from mailserver.types import Quota
from tests.fakes import Client, info
from tests.imap.sessions import logged_in, put, selected, services
from tests.imap.test_append_several import files, open_messages

LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcd\r\n" * (incoming.PIECE // 8)
PARTS = b"Subject: parts\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\nX-A: 1\r\n\r\ntwo\r\n--b--\r\n"


@pytest.fixture
def client(tmp_path: Path) -> Client:
    service = services(store=MaildirStore(str(tmp_path), summarise, location="{root}/{local}/Maildir"))
    client = Client(lambda channel: Session(channel, service), info())
    client.send(b"l LOGIN anna@example.test secret\r\ns SELECT INBOX\r\n")
    assert b"s OK" in client.take()
    return client


def body(client: Client, uid: int) -> bytes:
    answer = client.ask(b"f UID FETCH %d (UID BODY.PEEK[])\r\n" % uid)
    _head, _brace, rest = answer.partition(b"BODY[] {")
    size, _end, data = rest.partition(b"}\r\n")
    return data[: int(size)]


def test_large_parts_are_copied_in_pieces(client: Client, tmp_path: Path) -> None:
    for at in range(0, len(LARGE), 60_000):
        client.send((b"p APPEND INBOX {%d+}\r\n" % len(LARGE) if not at else b"") + LARGE[at : at + 60_000])
    client.send(b"\r\n")
    assert b"p OK" in client.take()
    text = LARGE.partition(b"\r\n\r\n")[2]
    url = b"/INBOX/;UID=1"
    line = b'a APPEND INBOX CATENATE (TEXT {8+}\r\nA: b\r\n\r\n URL "%b/;SECTION=TEXT" URL %b URL "%b/;PARTIAL=100000.300000")\r\n'
    assert b"a OK" in client.ask(line % (url, url, url))
    assert body(client, 2) == b"A: b\r\n\r\n" + text + LARGE + LARGE[100_000:400_000]
    assert files(tmp_path, "tmp") == []
    assert open_messages(tmp_path) == []


@pytest.mark.parametrize(
    ("section", "wanted"),
    [
        (b"", PARTS),
        (b"/;SECTION=1", b"one"),
        (b"/;SECTION=2.MIME", b"X-A: 1\r\n\r\n"),
        (b"/;SECTION=HEADER", PARTS.partition(b"--b")[0]),
        (b"/;SECTION=HEADER.FIELDS%20(SUBJECT)", b"Subject: parts\r\n\r\n"),
        (b"/;SECTION=HEADER.FIELDS.NOT%20(%22Subject%22)/;PARTIAL=0.12", b"Content-Type"),
    ],
)
def test_sections(section: bytes, wanted: bytes) -> None:
    client = selected(services())
    put(client, message=PARTS)
    for url in (b'"/INBOX/;UID=1%b"' % section, b'";UID=1%b"' % section):
        assert b"a OK" in client.ask(b"a APPEND INBOX CATENATE (URL %b)\r\n" % url), url
        assert (
            body(client, int(client.ask(b"s STATUS INBOX (UIDNEXT)\r\n").split(b"UIDNEXT ")[1].split(b")")[0]) - 1)
            == wanted
        )
    url = b"/INBOX/;UID=1%b" % section
    assert b"a OK" in client.ask(b"a APPEND INBOX CATENATE (URL {%d+}\r\n%b)\r\n" % (len(url), url))
    # Nothing is selected: then a URL needs its mailbox.
    other = logged_in(client.session.services)
    assert other.ask(b'a APPEND INBOX CATENATE (URL ";UID=1")\r\n').startswith(b"a NO [BADURL ;UID=1] ")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (b'"/INBOX/;UID=7"', b"/INBOX/;UID=7"),
        (b'"imap://x/INBOX/;UID=1"', b"imap://x/INBOX/;UID=1"),
        (b'"]\\" NO"', b"%5D%22%20NO"),
        (b"{4+}\r\n\r\n\x00\xff", b"%0D%0A%00%FF"),
        (b'"/INBOX/;UID=1/;SECTION=1.2.3"', b"/INBOX/;UID=1/;SECTION=1.2.3"),
        (b'"/INBOX/;UID=1/;SECTION=WRONG"', b"/INBOX/;UID=1/;SECTION=WRONG"),
        (b'"/INBOX/;UID=1/;SECTION=1]"', b"/INBOX/;UID=1/;SECTION=1%5D"),
        (b'"/../x/;UID=1"', b"/../x/;UID=1"),
    ],
)
def test_a_bad_url_is_named_and_nothing_is_kept(client: Client, tmp_path: Path, url: bytes, shown: bytes) -> None:
    put(client)
    client.send(
        b"a APPEND INBOX {5+}\r\nabcde CATENATE (URL /INBOX/;UID=1 URL %b TEXT {3+}\r\nabc)\r\nz NOOP\r\n" % url
    )
    answer = client.take()
    assert b"a NO [BADURL %b] " % shown in answer
    assert b"z OK" in answer
    assert len(files(tmp_path, "new", "cur")) == 1
    assert files(tmp_path, "tmp") == []
    assert open_messages(tmp_path) == []


def test_an_empty_url_is_refused_by_syntax(client: Client, tmp_path: Path) -> None:
    """BADURL could not name it (RFC 4469 5: 1* octets)."""
    for url in (b'""', b"{0+}\r\n"):
        assert client.ask(b"a APPEND INBOX CATENATE (TEXT {3+}\r\nabc URL %b)\r\n" % url).startswith(b"a BAD ")
        assert b"z OK" in client.ask(b"z NOOP\r\n")
    assert files(tmp_path, "new", "cur", "tmp") == []


def test_there_are_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    client = selected(services(mail={"max_message_size": 1000}))
    put(client, message=b"Subject: x\r\n\r\n" + b"y" * 400)
    url = b' URL "/INBOX/;UID=1"'
    assert client.ask(b"a APPEND INBOX CATENATE (%b)\r\n" % (url * 3)[1:]).startswith(b"a NO [TOOBIG] ")
    assert client.ask(b"a APPEND INBOX CATENATE (%b TEXT {600}\r\n" % url[1:]).startswith(b"a NO [TOOBIG] ")
    assert client.ask(b"a APPEND INBOX CATENATE (URL {5000}\r\n").startswith(b"a NO [TOOBIG] ")
    monkeypatch.setattr(catenate, "MOST_URLS", 3)
    small = b' URL "/INBOX/;UID=1/;PARTIAL=0.10"'
    assert b"a OK" in client.ask(b"a APPEND INBOX CATENATE (%b)\r\n" % (small * 3)[1:])
    several = b" CATENATE (%b)" % (small * 2)[1:]
    assert client.ask(b"a APPEND INBOX%b\r\n" % (several * 2)).startswith(b"a NO [LIMIT] ")
    assert client.ask(b'a APPEND INBOX CATENATE (URL "/INBOX/;UID=1/;PARTIAL=9999.1")\r\n').startswith(
        b"a NO [CANNOT] "
    )


def test_what_the_quota_has_no_room_for_is_not_copied_to_the_end(client: Client, tmp_path: Path) -> None:
    """Sizes of URLs are not announced: the quota is checked as they are copied."""
    put(client, message=b"Subject: x\r\n\r\n" + b"y" * 100_000)
    account = client.session.account
    assert account is not None
    account.quota_as_of = client.session.channel.now()
    account.quota = Quota(storage=300_000)
    reads = 0
    read = catenate._UrlPart.read

    def count(part: catenate._UrlPart, store: Account) -> bytes:
        nonlocal reads
        reads += 1
        return read(part, store)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catenate._UrlPart, "read", count)
        several = b"TEXT {14+}\r\nSubject: x\r\n\r\n" + b' URL "/INBOX/;UID=1"' * 50
        assert client.ask(b"a APPEND INBOX CATENATE (%b)\r\n" % several).startswith(b"a NO [OVERQUOTA] ")
    assert reads <= 8
    assert files(tmp_path, "tmp") == []


def test_a_message_of_large_headers_is_refused() -> None:
    client = selected(services())
    put(client, message=b"Subject: x\r\n\r\n" + b"y" * 200_000)
    url = b' URL "/INBOX/;UID=1/;SECTION=TEXT"' * 2
    assert client.ask(b"a APPEND INBOX CATENATE (TEXT {3+}\r\nX: %b)\r\n" % url).startswith(b"a NO [TOOBIG] ")
    assert client.ask(b"z NOOP\r\n").endswith(b"z OK NOOP completed\r\n")


def test_a_message_expunged_by_another_session_is_a_bad_url() -> None:
    client = selected(services())
    put(client)
    other = logged_in(client.session.services)
    other.send(b"s SELECT INBOX\r\na STORE 1 +FLAGS.SILENT (\\Deleted)\r\nb EXPUNGE\r\n")
    assert b"b OK" in other.take()
    assert b"a NO [BADURL ;UID=1] " in client.ask(b'a APPEND INBOX CATENATE (URL ";UID=1")\r\n')


def test_each_octet_that_is_missing_or_wrong() -> None:
    """Cut at each octet, then a line's end; and each octet replaced or left out. The session answers in step, or says BYE."""
    line = b'a APPEND INBOX (\\Seen) CATENATE (TEXT {4+}\r\nabcd URL "/INBOX/;UID=1/;SECTION=1" TEXT ~{2+}\r\ne\0) {2+}\r\nef\r\n'
    for at in range(len(line)):
        for data in (line[:at], line[:at] + b"(" + line[at + 1 :], line[:at] + line[at + 1 :]):
            client = logged_in(services())
            put(client)
            client.send(data)
            client.send(b"\r\n" + b"x" * 10 + b"\r\n\r\n")
            client.take()
            assert client.done or client.ask(b"z NOOP\r\n").endswith(b"z OK NOOP completed\r\n"), data


def test_a_client_that_goes_leaves_nothing(client: Client, tmp_path: Path) -> None:
    put(client)
    client.send(b'a APPEND INBOX CATENATE (URL "/INBOX/;UID=1" TEXT {500000}\r\n')
    client.send(b"x" * 400_000)
    assert files(tmp_path, "tmp")
    client.hang_up()
    assert files(tmp_path, "tmp") == []
    assert open_messages(tmp_path) == []
    assert (
        len(os.listdir(tmp_path / "anna" / "Maildir" / "cur")) + len(os.listdir(tmp_path / "anna" / "Maildir" / "new"))
        == 1
    )
