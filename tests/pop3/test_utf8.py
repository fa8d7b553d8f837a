"""Messages with UTF-8 in headers, in UTF-8 mode and without it (RFC 6856, RFC 6858)."""

from __future__ import annotations

import pytest

from mailserver.message.surrogate import apply_edits, message_edits
from mailserver.store.memory import MemoryMessage
from tests.corpus import crlf
from tests.fakes import Client
from tests.pop3.dialogs import World

PLAIN = crlf(b"Subject: plain\n\nbody\n")
ODD = b"Subject: \xfcber\r\n\r\nbody \xfc\r\n"
NEW = crlf("From: Jürgen <jürgen@example.test>\nSubject: Grüße\nX-Odd: ü\n\nTäxt\n.dot\nend\n".encode())
PARTS = crlf(
    "Subject: outer\nContent-Type: multipart/mixed; boundary=b\n\n--b\n"
    'Content-Disposition: attachment; filename="ü"\n\nTäxt\n--b--\n'.encode()
)
LARGE = PARTS.replace("Täxt\r\n".encode(), "Täxt\r\n".encode() * 40_000)
ALL = [PLAIN, ODD, NEW, PARTS, LARGE]


def surrogate(message: bytes) -> bytes:
    return apply_edits(message, message_edits(message))


def world_of() -> World:
    world = World()
    world.deliver(*ALL)
    return world


def opened(world: World, *, utf8: bool) -> Client:
    client = world.connect()
    client.ask(b"UTF8\r\n" if utf8 else b"")
    assert b"+OK %d messages" % len(ALL) in client.ask(b"USER anna@example.test\r\nPASS secret\r\n")
    return client


def retrieved(client: Client, command: bytes) -> bytes:
    """The text of the answer, whose size must be the one that it says."""
    first, _, text = client.ask(command + b"\r\n").partition(b"\r\n")
    assert text.endswith(b"\r\n.\r\n")
    text = text[:-3].replace(b"\r\n..", b"\r\n.")
    if command.startswith(b"RETR"):
        assert first == b"+OK %d octets" % len(text)
    return text


@pytest.mark.parametrize("order", [(1, 2, 3, 4, 5), (5, 4, 3, 2, 1), (3, 3, 5, 5)])
def test_a_session_without_it_gets_surrogates(order: tuple[int, ...]) -> None:
    client = opened(world_of(), utf8=False)
    for number in order:
        wanted = surrogate(ALL[number - 1])
        assert retrieved(client, b"RETR %d" % number) == wanted
        assert client.ask(b"LIST %d\r\n" % number) == b"+OK %d %d\r\n" % (number, len(wanted))
    sizes = [len(surrogate(each) if number in order else each) for number, each in enumerate(ALL, 1)]
    assert client.ask(b"STAT\r\n") == b"+OK %d %d\r\n" % (len(ALL), sum(sizes))
    listed = b"".join(b"%d %d\r\n" % pair for pair in enumerate(sizes, 1))
    assert client.ask(b"LIST\r\n").endswith(listed + b".\r\n")
    client.ask(b"DELE 3\r\n")
    assert client.ask(b"STAT\r\n") == b"+OK %d %d\r\n" % (len(ALL) - 1, sum(sizes) - sizes[2])


def test_a_session_with_it_gets_messages_as_they_are() -> None:
    client = opened(world_of(), utf8=True)
    for number, message in enumerate(ALL, 1):
        assert retrieved(client, b"RETR %d" % number) == message
    assert client.ask(b"STAT\r\n") == b"+OK %d %d\r\n" % (len(ALL), sum(map(len, ALL)))


@pytest.mark.parametrize("utf8", [False, True])
def test_top_is_the_top_of_what_is_served(utf8: bool) -> None:
    client = opened(world_of(), utf8=utf8)
    for number, message in enumerate(ALL, 1):
        served = message if utf8 else surrogate(message)
        header, _, body = served.partition(b"\r\n\r\n")
        for lines in (0, 2, 3):
            wanted = header + b"\r\n\r\n" + b"".join(body.splitlines(keepends=True)[:lines])
            assert retrieved(client, b"TOP %d %d" % (number, lines)) == wanted


def test_top_of_the_header_reads_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    client = opened(world_of(), utf8=False)
    read = MemoryMessage.read
    places: list[int] = []

    def recorded(self: MemoryMessage, offset: int = 0, count: int | None = None) -> bytes:
        places.append(offset)
        return read(self, offset, count)

    monkeypatch.setattr(MemoryMessage, "read", recorded)
    retrieved(client, b"TOP 5 0")
    assert set(places) == {0}


def test_names_and_passwords_are_utf8() -> None:
    client = World().connect()
    assert client.ask(b"UTF8\r\n").startswith(b"+OK")
    assert client.ask(b"USER \xff\r\n") == b"-ERR a name is UTF-8\r\n"
    client.ask("USER ännä@example.test\r\n".encode())
    assert client.ask(b"PASS \xff\r\n") == b"-ERR a password is UTF-8\r\n"
    assert client.ask(b"CAPA\r\n").count(b"UTF8 USER\r\n") == 1
