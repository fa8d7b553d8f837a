"""FETCH of one message from memory: the answers of the way for many messages, in a bounded number of calls."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailserver.imap.commands import fetch
from mailserver.message.render import summarise
from mailserver.store.maildir.account.store import MaildirStore
from tests.fakes import Client
from tests.imap.fetching import ask, live_mailbox
from tests.imap.sessions import logged_in, services
from tests.imap.test_fetch_in_memory import TEXTS, client_of
from tests.sweeps import choose

ITEMS = [
    b"FLAGS",
    b"(UID FLAGS)",
    b"(UID RFC822.SIZE)",
    b"(FLAGS INTERNALDATE BODY.PEEK[])",
    b"FAST",
    b"BODY.PEEK[]",
    b"(UID FLAGS BODY.PEEK[])",
    b"(FLAGS BODY.PEEK[HEADER] UID)",
    b"BODY[]",
    b"(BODY[HEADER] FLAGS)",
    b"RFC822",
    b"RFC822.HEADER",
    b"(BODY[] BODY.PEEK[])",
    b"(BODY.PEEK[] BODY.PEEK[HEADER])",
    b"(UID ENVELOPE)",
    b"BODY.PEEK[TEXT]",
    b"(FLAGS",
    b"NONSENSE",
    b" FLAGS",
]
FLAGS = [b"+FLAGS (\\Seen)", b"-FLAGS (\\Seen)", b"+FLAGS ($Junk)", b"+FLAGS.SILENT (\\Deleted new)", b"FLAGS ()"]

Step = tuple[str, int, int, bool]
STEPS = st.tuples(
    st.sampled_from(
        ["fetch"] * 6 + ["run", "own", "other", "expunge", "noop", "deliver", "unlink", "rename", "forget"]
    ),
    st.integers(0, len(TEXTS) + 2),
    st.integers(0, len(ITEMS) - 1),
    st.booleans(),
)


class World:
    """A Maildir with two sessions; the answers are those of the first."""

    def __init__(self, path: Path, *, examine: bool) -> None:
        service = services(store=MaildirStore(str(path), summarise, location="{root}/{local}/Maildir"))
        self.client, self.other = logged_in(service), logged_in(service)
        self.maildir = path / "anna" / "Maildir"
        self._delivered = 0
        for _ in TEXTS:
            self.deliver("cur", ":2,")
        self.deliver("new", "")
        assert b"s OK" in self.client.ask(b"s EXAMINE INBOX\r\n" if examine else b"s SELECT INBOX\r\n")
        assert b"s OK" in self.other.ask(b"s SELECT INBOX\r\n")

    def deliver(self, place: str, info: str) -> None:
        number = self._delivered
        self._delivered += 1
        path = self.maildir / place / f"1700000{number:03d}.a.host{info}"
        path.write_bytes(TEXTS[number % len(TEXTS)])
        os.utime(path, (1_700_000_000 + number, 1_700_000_000 + number))

    def take(self, step: Step) -> bytes:
        """Take one step; return what the client reads in it."""
        action, number, choice, uid = step
        form = b"UID " if uid else b""
        files = sorted(os.listdir(self.maildir / "cur"))
        match action:
            case "fetch":
                return self.client.ask(b"t %bFETCH %d %b\r\n" % (form, number, ITEMS[choice]))
            case "run":
                lines = [b"t %bFETCH %d %b\r\n" % (form, each, ITEMS[choice]) for each in (number, 1, 2, 3)]
                return self.client.ask(b"".join(lines))
            case "own" | "other":
                client = self.client if action == "own" else self.other
                answer = client.ask(b"t %bSTORE %d %b\r\n" % (form, number, FLAGS[choice % len(FLAGS)]))
                return answer if action == "own" else b""
            case "expunge":
                self.other.ask(b"t STORE %d +FLAGS (\\Deleted)\r\nt EXPUNGE\r\n" % number)
            case "noop":
                return self.client.ask(b"t NOOP\r\n")
            case "deliver":
                self.deliver("new", "")
                live_mailbox(self.client).poked()
            case "unlink" if files:
                os.unlink(self.maildir / "cur" / files[number % len(files)])
            case "rename" if files:
                name = files[number % len(files)]
                os.rename(self.maildir / "cur" / name, self.maildir / "cur" / f"{name.partition(':')[0]}:2,F")
            case _:
                live_mailbox(self.client).account.message_cache.forget_mailbox(live_mailbox(self.client))
        return b""


@contextmanager
def long_way() -> Iterator[None]:
    with mock.patch.object(fetch, "single_response", return_value=None):
        yield


@settings(max_examples=choose(15, whole=40), deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=25), st.booleans())
def test_one_message_is_answered_as_are_many(steps: list[Step], examine: bool) -> None:
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        short, long = World(Path(first), examine=examine), World(Path(second), examine=examine)
        for step in steps:
            answer = short.take(step)
            with long_way():
                assert answer == long.take(step)


def test_new_keywords_come_before_the_flags(tmp_path: Path) -> None:
    world = World(tmp_path, examine=False)
    world.other.ask(b"t STORE 2 +FLAGS.SILENT (new)\r\n")
    answer = world.client.ask(b"t FETCH 2 FLAGS\r\n")
    assert answer.index(b"* FLAGS (") < answer.index(b"* 2 FETCH (FLAGS (new))")


def test_a_message_that_another_session_has_expunged_keeps_its_number(tmp_path: Path) -> None:
    world = World(tmp_path, examine=False)
    last = len(TEXTS) + 1
    expected = world.client.ask(b"t UID FETCH %d BODY.PEEK[]\r\n" % last)
    world.other.ask(b"t STORE 2 +FLAGS (\\Deleted)\r\nt EXPUNGE\r\n")
    assert b"t NO [EXPUNGEISSUED]" in world.client.ask(b"t FETCH 2 FLAGS\r\n")
    assert world.client.ask(b"t FETCH %d (UID BODY.PEEK[])\r\n" % last) == expected.replace(b"UID FETCH", b"FETCH")


def test_a_message_that_was_not_reported_has_no_number_yet(tmp_path: Path) -> None:
    world = World(tmp_path, examine=False)
    world.deliver("new", "")
    live_mailbox(world.other).poked()
    world.other.ask(b"t NOOP\r\n")
    new = len(TEXTS) + 2
    assert b"t BAD" in world.client.ask(b"t FETCH %d FLAGS\r\n" % new)
    assert b"FETCH (" not in world.client.ask(b"t UID FETCH %d FLAGS\r\n" % (new + 1))


def calls(client: Client, command: bytes, *, name: str | None = None) -> int:
    """Python calls of one command, or those of one function."""
    found = 0

    def count(frame: FrameType, event: str, _argument: object) -> None:
        nonlocal found
        found += event == "call" and name in (None, frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        answer = client.ask(b"t %b\r\n" % command)
    finally:
        sys.setprofile(before)
    assert b"t OK" in answer
    return found


SINGLE = [
    (b"FETCH 2 (FLAGS)", 10),
    (b"FETCH 2 (BODY.PEEK[])", 20),
    (b"UID FETCH 2 (UID FLAGS BODY.PEEK[])", 20),
    (b"UID FETCH 2 (FLAGS BODY.PEEK[HEADER])", 20),
    (b"FETCH 2 (UID RFC822.SIZE INTERNALDATE BODY.PEEK[])", 20),
    (b"FETCH 2 (FLAGS BODY[])", 21),
]


@pytest.mark.parametrize(("command", "most"), SINGLE)
def test_one_message_in_memory_takes_few_calls(tmp_path: Path, command: bytes, most: int) -> None:
    client = client_of(tmp_path)
    ask(client, b"FETCH 1:* (RFC822.SIZE INTERNALDATE)")
    ask(client, b"STORE 2 +FLAGS (\\Seen)")
    live_mailbox(client).account.message_cache.octets = 0
    for _ in range(2):
        ask(client, command)
    assert calls(client, command) <= calls(client, b"NOOP") + most
    assert calls(client, command, name="gather") == 0
    with long_way():
        assert calls(client, command, name="gather") > 0
