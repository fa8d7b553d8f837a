"""FETCH that asks for very much of very little: who does it waits for it, alone.

Each is asked twice: what was read a moment ago is answered from memory.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.conftest import Watcher, no_bugs, peak, unharmed_server
from tests.hostile.wire import Client, log_in, put_foreign
from tests.server import Server

ITEMS = 990
LINES = b"a:b\r\n" * 13_000
DEEP = b"Subject: x\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 90 + b"Subject: inner\r\n\r\ninnermost\r\n"
PARTS = (
    b"Subject: parts\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * 5000 + b"--b--\r\n"
)
KEPT = (b"from", b"to", b"cc", b"bcc", b"date", b"subject", b"sender", b"reply-to", b"message-id", b"references")
COMBINATIONS = [
    b" ".join(some) for count in range(1, 11) for some in itertools.combinations(KEPT, count)
]  # fmt: skip
NESTED = b"Content-Type: message/rfc822\r\n\r\n" + LINES + b"\r\nbody\r\n"


def peeks(*sections: bytes) -> bytes:
    return b"(" + b" ".join(b"BODY.PEEK[%b" % section for section in sections) + b")"


@pytest.fixture(scope="module")
def user(fresh_users: list[str]) -> str:
    return fresh_users.pop()


@pytest.fixture
def client(server: Server, user: str) -> Iterator[Client]:
    with log_in(server, "imaps", user) as client:
        client.command(b"SELECT INBOX")
        client.command(b"STORE 1:* +FLAGS.SILENT (\\Deleted)")
        client.command(b"EXPUNGE")
        yield client
        client.in_step()


def put(client: Client, messages: list[bytes]) -> None:
    for message in messages:
        assert client.command(b"APPEND INBOX {}", message)[-1].startswith(b"OK")
    client.command(b"NOOP")


def deliver_foreign(server: Server, client: Client, user: str, message: bytes) -> None:
    """Put it into the INBOX as other programs do, and wait until it is there."""
    put_foreign(server, user, message)
    while not any(b" EXISTS" in line for line in client.command(b"NOOP")):
        pass


def fetch_both_times(client: Client, what: bytes) -> int:
    """How much was told; the same each time."""
    told = client.count(b"FETCH " + what)
    assert client.count(b"FETCH " + what) == told
    return told


MANY = {
    "fields that are not there": ([LINES + b"\r\nbody\r\n"] * 6, [b"HEADER.FIELDS (x%d)]" % n for n in range(ITEMS)]),
    "all fields, in part": ([LINES + b"\r\nbody\r\n"] * 6, [b"HEADER.FIELDS (a x%d)]<9.1>" % n for n in range(ITEMS)]),
    "all other fields, in part": ([LINES + b"\r\n"] * 6, [b"HEADER.FIELDS.NOT (x%d)]<9.1>" % n for n in range(ITEMS)]),
    "all fields": ([LINES + b"\r\nbody\r\n"] * 2, [b"HEADER.FIELDS (a x%d)]" % n for n in range(300)]),
    "combinations of kept fields": (
        [b"Subject: %d\r\nFrom: a@example.test\r\n\r\nx\r\n" % n for n in range(100)],
        [b"HEADER.FIELDS (%b)]" % some for some in COMBINATIONS[:ITEMS]],
    ),
    "ranges": ([b"Subject: x\r\n\r\n" + b"y" * 60_000], [b"]<%d.60000>" % n for n in range(300)]),
    "part numbers": ([DEEP] * 20, [b".".join([b"1"] * (n % 14 + 1)) + b"]<%d.10>" % n for n in range(ITEMS)]),
    "parts": ([PARTS] * 6, [b"%d.MIME]" % n for n in range(1, ITEMS)]),
    "fields of nested messages": ([NESTED] * 6, [b"1.HEADER.FIELDS (x%d)]" % n for n in range(ITEMS)]),
    "fields and a structure": ([PARTS] * 3 + [NESTED] * 3, [b"1.HEADER.FIELDS (x)]", b"HEADER.FIELDS (subject x)]"]),
}  # fmt: skip


@pytest.mark.parametrize("name", MANY)
def test_many_items(client: Client, name: str) -> None:
    messages, sections = MANY[name]
    put(client, messages)
    fetch_both_times(client, b"1:* (ENVELOPE BODYSTRUCTURE)")
    fetch_both_times(client, b"1:* " + peeks(*sections[:1]))
    size = 0
    items: list[bytes] = []
    for section in sections:
        size += len(section) + 11
        if size < 64_000:
            items.append(section)
    fetch_both_times(client, b"1:* " + peeks(*items))


def test_a_long_header_of_another_program(server: Server, client: Client, user: str) -> None:
    deliver_foreign(server, client, user, b"a:b\r\n" * 800_000 + b"Subject: last\r\n\r\nbody\r\n")
    sections = [b"HEADER.FIELDS (x%d)]" % n for n in range(40)]
    fetch_both_times(client, b"1 " + peeks(*sections, b"HEADER.FIELDS (a)]<3999990.20>", b"HEADER]<0.9>"))
    told = client.command(b"FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]")[0]
    assert told.endswith(b"{19}\r\nSubject: last\r\n\r\n)".replace(b"{19}", b"{17}")), told[-60:]


@pytest.mark.parametrize(("line_end", "size"), [(b"\r\n", 62 << 20), (b"\n", 12 << 20)])
def test_a_huge_header_takes_little_memory(
    server: Server, client: Client, user: str, line_end: bytes, size: int
) -> None:  # fmt: skip
    """One message of the largest size is held for what needs its structure (`MEMORY`), nothing for the rest."""
    line = b"a:b" + line_end
    deliver_foreign(
        server, client, user, line * (size // len(line)) + b"Subject: last" + line_end * 2 + b"x" + line_end
    )
    before = peak(server)
    for item in (b"ENVELOPE", b"BODY.PEEK[HEADER]", b"BODY.PEEK[TEXT]", b"RFC822.SIZE", b"BODY.PEEK[HEADER.FIELDS (SUBJECT)]",
                 b"BODY.PEEK[HEADER.FIELDS (A X)]<10000000.1000>", b"BODY.PEEK[HEADER.FIELDS.NOT (A)]", b"BODY.PEEK[]"):  # fmt: skip
        client.count(b"FETCH 1 " + item)
    with log_in(server, "pop3s", user) as pop3:
        pop3.send(b"TOP 1 0\r\nQUIT\r\n")
        assert pop3.to_the_end().count(b"a:b\r\n") == size // len(line)
    assert peak(server) - before < 24 * 1024
    if line_end == b"\r\n":
        client.count(b"FETCH 1 BODYSTRUCTURE")


def test_who_goes_is_noticed(server: Server, client: Client, user: str) -> None:
    """What a client has asked for ends with it, and another session of the account is served all the while."""
    put(client, [LINES + b"\r\nbody\r\n"] * 6)
    sections = [b"HEADER.FIELDS (x%d)]" % n for n in range(ITEMS)]
    with log_in(server, "imaps", user) as gone:
        gone.command(b"SELECT INBOX")
        gone.send(b"".join(b"f%d FETCH 1:6 %b\r\n" % (n, peeks(*sections)) for n in range(50)))
        gone.read(1)
        client.in_step()
    told = len(server.log)
    server.wait_for("logout", since=max(0, told - 2000))
    fetch_both_times(client, b"1:6 (ENVELOPE)")


def test_with_two_workers(tmp_path: Path) -> None:
    server = Server(tmp_path / "server", users=3, workers=2)
    with server:
        user = "u001@example.test"
        watchers = [Watcher(server) for _ in range(6)]
        for watcher in watchers:
            watcher.start()
        with log_in(server, "imaps", user) as client:
            client.command(b"SELECT INBOX")
            put(client, [LINES + b"\r\nbody\r\n"] * 6)
            for name in ("fields that are not there", "all fields, in part"):
                fetch_both_times(client, b"1:6 " + peeks(*MANY[name][1]))
        for watcher in watchers:
            watcher.stop()
            unharmed_server(server, watcher)
        assert not re.search("gives no sign of life|worker .* ended", server.log)
        no_bugs(server.log)
