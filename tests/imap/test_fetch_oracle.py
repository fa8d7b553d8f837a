"""FETCH of Python's messages and of odd ones, compared with a real Dovecot.

Values are compared, not their spelling. Where the two differ, tests/corpus/deviations.txt has a line with the reason
that ours is right; an unlisted difference fails, and so does a listed one that is none.
"""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.corpus import python_messages
from tests.corpus.odd import odd_messages
from tests.dovecot import Dovecot, available
from tests.imap.sessions import put, selected, services
from tests.message import notation

DEVIATIONS = Path(__file__).parents[1] / "corpus" / "deviations.txt"
MESSAGES = python_messages() | odd_messages()
VALUES = ("ENVELOPE", "BODY", "BODYSTRUCTURE", "RFC822.SIZE")
SECTIONS = (
    "BODY.PEEK[]", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]", "BODY.PEEK[1]", "BODY.PEEK[1.MIME]", "BODY.PEEK[2]", "BODY.PEEK[2.MIME]",
    "BODY.PEEK[1.1]", "BODY.PEEK[1.1.MIME]", "BODY.PEEK[1.HEADER]", "BODY.PEEK[1.TEXT]", "BODY.PEEK[2.1]", "BODY.PEEK[2.1.1]", "BODY.PEEK[3]",
    "BODY.PEEK[HEADER.FIELDS (From To X-Y)]", "BODY.PEEK[HEADER.FIELDS (Received)]", "BODY.PEEK[HEADER.FIELDS.NOT (From)]",
    "BODY.PEEK[3.HEADER.FIELDS (Subject)]", "BODY.PEEK[1.HEADER.FIELDS (Subject)]", "BODY.PEEK[TEXT]<2.5>", "BODY.PEEK[]<100000.5>",
    "BODY.PEEK[1]<1.3>", "BODY.PEEK[9]<1.3>", "RFC822.HEADER",
)  # fmt: skip

Ask = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def theirs() -> Iterator[Ask]:
    # Not under pytest's own directory: the user whose mail it is cannot go through that one.
    with tempfile.TemporaryDirectory() as name:
        yield from dovecot(Path(name))


def dovecot(directory: Path) -> Iterator[Ask]:
    directory.chmod(0o755)
    root = directory / "mail"
    maildir = root / "example.test" / "anna" / "Maildir"
    for name in ("cur", "new", "tmp"):
        (maildir / name).mkdir(parents=True)
    for number, source in enumerate(MESSAGES.values()):
        (maildir / "cur" / f"{1_000_000 + number}.x:2,").write_bytes(source)
    server = Dovecot(directory / "dovecot", root, {"anna@example.test": "secret"}, protocols="imap")
    server.own(root)
    with server, socket.create_connection(("127.0.0.1", server.ports["imap"]), 30) as connection:
        stream = connection.makefile("rb")
        stream.readline()

        def ask(command: bytes) -> bytes:
            connection.sendall(b"t " + command + b"\r\n")
            answer = b""
            while not answer.startswith(b"t ") and b"\r\nt " not in answer:
                line = stream.readline()
                assert line, answer
                answer += line
                while literal := re.search(rb"\{(\d+)\}\r\n\Z", line):
                    line = stream.read(int(literal[1])) + stream.readline()
                    answer += line
            return answer

        assert b"t OK" in ask(b"LOGIN anna@example.test secret")
        assert b"* %d EXISTS" % len(MESSAGES) in ask(b"SELECT INBOX")
        yield ask


@pytest.fixture(scope="module")
def ours() -> Ask:
    client = selected(services())
    client.session.utf8 = True  # Dovecot sends UTF-8 in headers to all
    for source in MESSAGES.values():
        put(client, message=source)
    client.ask(b"n NOOP\r\n")
    return lambda command: client.ask(b"t " + command + b"\r\n")


def value(ask: Ask, number: int, item: str) -> Any:
    """One item's value, as its octets or as nested lists."""
    answer = ask(f"FETCH {number} {item}".encode("ascii"))
    match = re.match(rb"\* \d+ FETCH \(%b (.*)\)\r\nt OK " % label(item), answer, re.DOTALL)
    assert match, answer
    return notation.read(match[1])


def label(item: str) -> bytes:
    """How the answer repeats the item, as a pattern."""
    shown = re.sub(r"<(\d+)\.\d+>", r"<\1>", item.replace(".PEEK", "").upper())
    return re.escape(shown.encode("ascii"))


def deviations() -> dict[tuple[str, str], str]:
    """(message, item) -> reason. A message or item may be *."""
    found = {}
    for line in DEVIATIONS.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, item, reason = line.split(" | ")
            assert (name, item) not in found
            found[name, item] = reason
    return found


@pytest.mark.interop
@pytest.mark.skipif(not available(), reason="needs root and Dovecot")
@pytest.mark.parametrize("items", [VALUES, SECTIONS], ids=["values", "sections"])
def test_fetch_is_as_dovecot_tells_it(ours: Ask, theirs: Ask, items: tuple[str, ...]) -> None:
    listed = deviations()
    used = set()
    unlisted = []
    for number, name in enumerate(MESSAGES, 1):
        for item in items:
            left, right = value(ours, number, item), value(theirs, number, item)
            if left == right:
                continue
            keys = [key for key in ((name, item), (name, "*"), ("*", item)) if key in listed]
            used.update(keys)
            if not keys:
                unlisted.append(f"{name} | {item}\n    ours:   {left!r}\n    theirs: {right!r}")
    assert not unlisted, "\n".join(unlisted)
    stale = [key for key in listed if key not in used and (key[1] in items or (key[1] == "*" and items is VALUES))]
    # Many of them are of Python's own messages, which are not installed everywhere.
    assert not stale or not python_messages(), f"no longer different: {stale}"


def test_every_deviation_has_its_reason() -> None:
    assert deviations()
    for (name, item), reason in deviations().items():
        assert name == "*" or name in MESSAGES or (name.startswith("msg_") and not python_messages()), name
        assert item == "*" or item in VALUES + SECTIONS, item
        assert re.search(r"RFC \d{4} [0-9.]+", reason), reason


SEARCHES = (
    b"FROM barry", b"SUBJECT test", b"TEXT test", b"BODY test", b"BODY boundary", b"TEXT multipart", b'HEADER X-Mailer ""', b"HEADER Received by",
    b"HEADER Message-ID aaa", b"SENTON 4-May-2001", b"SENTON 20-Apr-2001", b"TO zzz", b"CC ccc", b"LARGER 1000", b"SMALLER 500", b"BODY dingus",
    b"TEXT dingus", b"BODY Content-Type", b"TEXT Content-Type", b"HEADER Content-Type charset", b'HEADER Subject ""', b'HEADER X-None ""',
    b"TEXT filename", b"BODY filename", b"BODY rfc822", b"BODY subject", b"BODY html", b"1:5 TEXT a", b"CHARSET UTF-8 BODY {2+}\r\n\xc3\xa4",
    b"UID 3:9 NOT BODY a", b"OR SUBJECT test BODY dingus", b'FROM "a@b.test"', b'SUBJECT "a b"', b"SUBJECT =?", b"NOT (OR TO zzz CC ccc)",
)  # fmt: skip


UNREADABLE = {"msg_14.txt", "msg_25.txt", "msg_41.txt"}
"""Their types are not valid, so ours are text and theirs are not: see the deviations."""


@pytest.mark.interop
@pytest.mark.skipif(not available(), reason="needs root and Dovecot")
def test_search_finds_what_dovecot_finds(ours: Ask, theirs: Ask) -> None:
    different = []
    for keys in SEARCHES:
        left, right = (
            re.findall(rb"\d+", ask(b"SEARCH " + keys).partition(b"* SEARCH")[2].partition(b"\r\n")[0])
            for ask in (ours, theirs)
        )
        if left != right:
            names = list(MESSAGES)
            odd = {names[int(number) - 1] for number in set(left) ^ set(right)} - UNREADABLE
            if odd:
                different.append(f"{keys!r}: ours {len(left)}, theirs {len(right)}; {odd}")
    assert not different, "\n".join(different)
