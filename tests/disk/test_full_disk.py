"""A real full disk, and one without inodes, under the running server (RFC 5321 452, RFC 5530 UNAVAILABLE)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailserver.store.maildir.disk import reserved_space
from tests.disk.small import ABSENT, OTHER, USER, SmallDisk, contents, kill, message, send, small_server, subject_of
from tests.hostile.conftest import no_bugs
from tests.hostile.wire import Client, log_in
from tests.server import Server

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")

Place = tuple[Server, SmallDisk]


@pytest.fixture(params=["size=24m", "size=48m,nr_inodes=260"], ids=["space", "inodes"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    with small_server(tmp_path / "server", request.param) as (server, disk):
        yield server, disk
        no_bugs(server.log)


def fill_by_mail(server: Server, prefix: str, protocol: str = "lmtp", size: int = 200_000) -> list[str]:
    """Messages until one is refused, which must be for now; those that were taken."""
    taken: list[str] = []
    with log_in(server, protocol, USER) as client:
        while True:
            subject = f"{prefix}{len(taken)}"
            answer = send(client, subject, size=size)
            if not answer.startswith(b"250"):
                assert answer.startswith(b"452 4.3.1"), answer
                client.in_step()
                return taken
            taken.append(subject)
            assert len(taken) < 500


def test_everything_goes_on_but_what_needs_room(place: Place) -> None:
    server, disk = place
    taken = []
    with log_in(server, "lmtp", USER) as client:
        for number in range(12):
            assert send(client, f"first{number}").startswith(b"250")
            taken.append(f"first{number}")
        assert send(client, "other", OTHER).startswith(b"250")
    open_before = log_in(server, "imaps", USER)
    assert open_before.command(b"CREATE there")[-1].startswith(b"OK")
    assert open_before.command(b"SELECT INBOX")[-1].startswith(b"OK")
    taken += fill_by_mail(server, "fill")
    disk.fill()
    taken += fill_by_mail(server, "more")
    disk.fill()

    # 1. nothing is taken, for now, whatever the way
    assert fill_by_mail(server, "lmtp", size=1000) == []
    assert fill_by_mail(server, "small", "submissions", size=1000) == []
    assert fill_by_mail(server, "large", "submissions", size=1_000_000) == []
    for size in (1000, 500_000):
        disk.fill()
        appended = open_before.command(b"APPEND INBOX {}", message("appended", size))[-1]
        assert appended.startswith(b"NO [UNAVAILABLE]"), appended
        open_before.in_step()
    disk.fill()
    copied = open_before.command(b"COPY 1:3 there")[-1]
    assert copied.startswith((b"NO [UNAVAILABLE]", b"OK")), copied
    created = open_before.command(b"CREATE another")[-1]
    assert created.startswith((b"NO [UNAVAILABLE]", b"OK")), created

    for command in (
        b"STORE 1:2 +FLAGS.SILENT (fresh$keyword)",
        b"SUBSCRIBE there",
        b"RENAME there elsewhere",
        b"RENAME elsewhere there",
        b"MOVE 1 Trash",
        b"UID COPY 1:3 Drafts",
        b"CREATE a/b/c",
        b"DELETE a/b/c",
        b"STATUS Sent (MESSAGES UIDNEXT)",
        b"CHECK",
    ):
        disk.fill()
        answers = open_before.command(command)
        assert answers[-1].startswith((b"OK", b"NO [UNAVAILABLE]", b"NO [NONEXISTENT]", b"NO [TRYCREATE]")), (
            command,
            answers,
        )
        if command.startswith(b"MOVE") and answers[-1].startswith(b"OK"):
            assert b"* 1 EXPUNGE" in answers
            del taken[0]
        open_before.in_step()

    # 2. what is there is read, in old sessions and new ones
    check_reading(server, taken)
    assert open_before.command(b"FETCH 1 BODY.PEEK[]")[-1].startswith(b"OK")
    stored = open_before.command(b"STORE 1:3 +FLAGS.SILENT (\\Flagged)")[-1]
    assert stored.startswith((b"OK", b"NO [UNAVAILABLE]")), stored
    with Client(server, "imaps") as client:
        # An account that does not exist yet: it cannot be made now, and that is all.
        made = client.command(f'LOGIN "{ABSENT}" "{server.accounts[ABSENT]}"'.encode())[-1]
        assert made.startswith((b"OK", b"NO [UNAVAILABLE]")), made
        client.in_step()
    open_before.close()

    # 3. a start on the full disk
    kill(server)
    disk.fill()
    begun = time.monotonic()
    server.start()
    check_reading(server, taken)
    assert time.monotonic() - begun < 60
    assert fill_by_mail(server, "restarted", size=1000) == []

    # 4. expunging makes room, and delivery goes on by itself
    with log_in(server, "imaps", USER) as client:
        client.command(b"SELECT INBOX")
        flagged = client.command(b"STORE 1:6 +FLAGS.SILENT (\\Deleted)")[-1]
        assert flagged.startswith(b"OK"), flagged
        expunged = client.command(b"EXPUNGE")
        assert sum(line.endswith(b" EXPUNGE") for line in expunged) == 6, expunged[-1]
        assert expunged[-1].startswith(b"OK")
    del taken[:6]
    assert list(contents(server).values()) == taken
    again = fill_by_mail(server, "again")
    assert again, "six messages were removed, and none fits"
    taken += again
    assert list(contents(server).values()) == taken

    # 5. with room again it is as if nothing had been
    disk.free()
    with log_in(server, "imaps", USER) as client:
        client.command(b"SELECT INBOX")
        client.command(b"STORE 1:%d +FLAGS.SILENT (\\Deleted)" % (len(taken) - 8))
        assert client.command(b"EXPUNGE")[-1].startswith(b"OK")
    del taken[:-8]
    with log_in(server, "lmtp", USER) as client:
        assert send(client, "afterwards").startswith(b"250")
    taken.append("afterwards")
    with log_in(server, "imaps", USER) as client:
        assert client.command(b"CREATE later")[-1].startswith(b"OK")
        client.command(b"SELECT INBOX")
        assert client.command(b"COPY 1:* later")[-1].startswith(b"OK")
        # Nothing half-made: every mailbox that is listed opens.
        for line in client.command(b'LIST "" *')[:-1]:
            assert b"\\Noselect" not in line
            assert client.command(b"STATUS %b (MESSAGES)" % line.rpartition(b" ")[2])[-1].startswith(b"OK")
    assert list(contents(server).values()) == taken
    assert list(contents(server, mailbox="later").values()) == taken
    assert os.path.getsize(os.path.join(disk.root, reserved_space.FILE_NAME)) == reserved_space.SIZE
    server.stop()
    server.start()
    assert list(contents(server).values()) == taken
    for account in (USER, OTHER):
        root = os.path.join(disk.root, "example.test", account.partition("@")[0], "Maildir")
        for directory, names, files in os.walk(root):
            if os.path.basename(directory) == "tmp":
                assert (names, files) == ([], []), directory


def check_reading(server: Server, taken: list[str]) -> None:
    assert list(contents(server).values()) == taken
    assert list(contents(server, OTHER).values()) == ["other"]
    with log_in(server, "pop3s", USER) as client:
        assert client.ask(b"STAT").startswith(b"+OK %d " % len(taken))
        for number in (1, len(taken)):
            assert client.ask(b"RETR %d" % number).startswith(b"+OK")
            text = client.text()
            assert subject_of(text) == taken[number - 1]
            assert text.endswith(b"end of " + taken[number - 1].encode() + b"\r\n")


def test_pop3_removes_on_a_full_disk(place: Place) -> None:
    server, disk = place
    taken = fill_by_mail(server, "mail")
    disk.fill()
    taken += fill_by_mail(server, "more")
    disk.fill()
    with log_in(server, "pop3s", USER) as client:
        for number in range(1, 6):
            assert client.ask(b"DELE %d" % number).startswith(b"+OK")
        assert client.ask(b"QUIT").startswith(b"+OK")
    del taken[:5]
    assert list(contents(server).values()) == taken
    with log_in(server, "lmtp", USER) as client:
        assert send(client, "afterwards", size=20_000).startswith(b"250")
    assert list(contents(server).values()) == [*taken, "afterwards"]
