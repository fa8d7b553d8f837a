"""One message for three users of an alias: all of them have it, or none, whatever dies or is full."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disk.small import SmallDisk, SmallServer, contents, kill, send
from tests.hostile.conftest import no_bugs
from tests.hostile.wire import log_in
from tests.live.client import eventually
from tests.server import ROOT, Server

USERS = tuple(f"u00{number}@example.test" for number in range(3))
LAST = USERS[2]
ALIAS = "all@example.test"

HOLD = """
import os

if stage := os.environ.get("TEST_HOLD"):
    from twisted.internet.defer import Deferred

    from mailserver.filing.local_copies import LocalCopies
    from mailserver.filing.local_copy import LocalCopy

    published = []

    async def hold():
        open(os.environ["TEST_HELD"], "w").close()
        await Deferred()

    def held_at(kind, name, wanted, *, before):
        method = getattr(kind, name)

        async def held(self, *arguments):
            if before and wanted(self):
                await hold()
            answer = await method(self, *arguments)
            if not before and wanted(self):
                await hold()
            return answer

        setattr(kind, name, held)

    def second(copy):
        published.append(copy)
        return len(published) == 2

    match stage:
        case "preparing":
            held_at(LocalCopy, "prepare", lambda copy: copy._live.account.user == os.environ["TEST_LAST"], before=True)
        case "prepared":
            held_at(LocalCopies, "decide", lambda _copies: True, before=True)
        case "decided":
            held_at(LocalCopies, "publish", lambda _copies: True, before=True)
        case "publishing":
            held_at(LocalCopy, "publish", second, before=True)
        case "published":
            held_at(LocalCopies, "publish", lambda _copies: True, before=False)
"""
"""Runs at the start of each process: a delivery stands still at one place, until the process is killed."""


def with_alias(directory: Path) -> dict[str, str]:
    """The edit of a configuration that has the alias."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "virtual").write_text(f"{ALIAS} {' '.join(USERS)}\n")
    return {'/users"]': f'/users", "virtual:{directory}/virtual"]'}


def files(server: Server, folder: str) -> dict[str, int]:
    """The number of files in a folder of each user's account."""
    found = {}
    for user in USERS:
        local, _, domain = user.partition("@")
        root = server.dir / "mail" / domain / local / "Maildir"
        assert (root / "cur").is_dir()
        # A file that is being written has another name.
        names = [path.name for path in (root / folder).iterdir()] if (root / folder).exists() else []
        found[user] = len([name for name in names if folder != "mailserver-intents" or name.endswith(".json")])
    return found


def copies(server: Server, subject: str) -> list[int]:
    """How often each user has it."""
    return [list(contents(server, user).values()).count(subject) for user in USERS]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One process, whose deliveries can stand still."""
    (tmp_path / "hold").mkdir()
    (tmp_path / "hold" / "sitecustomize.py").write_text(textwrap.dedent(HOLD))
    server = Server(tmp_path / "server", users=3, workers=0, preloaded=False, edit=with_alias(tmp_path / "aliases"))
    server.extra |= {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "hold"), str(ROOT)]),
        "TEST_HELD": str(tmp_path / "held"),
        "TEST_LAST": LAST,
    }
    with server:
        yield server
        no_bugs(server.log)


@pytest.mark.parametrize(
    ("stage", "after_the_kill"),
    [
        # Nothing is decided yet: copies that are prepared are removed by whoever opens the account next.
        ("preparing", [0, 0, 0]),
        ("prepared", [0, 0, 0]),
        ("decided", [1, 1, 1]),
        ("publishing", [1, 1, 1]),
        ("published", [1, 1, 1]),
    ],
)
def test_a_killed_delivery_reaches_all_or_none_and_the_repetition_everybody(
    server: Server, tmp_path: Path, stage: str, after_the_kill: list[int]
) -> None:
    with log_in(server, "lmtp", USERS[0]) as client:
        assert send(client, "before", ALIAS).startswith(b"250")
    server.stop()
    server.extra["TEST_HOLD"] = stage
    server.start()
    client = log_in(server, "lmtp", USERS[0])
    for command in ("MAIL FROM:<a@example.net>", f"RCPT TO:<{ALIAS}>", "DATA"):
        assert client.ask(command.encode())[:1] in (b"2", b"3")
    client.send(b"From: <a@example.net>\r\nSubject: held\r\n\r\ntext\r\nend of held\r\n.\r\n")
    eventually((tmp_path / "held").exists)
    if stage == "preparing":
        eventually(lambda: list(files(server, "mailserver-intents").values()) == [1, 1, 0])
    elif stage in {"prepared", "decided"}:
        assert set(files(server, "mailserver-intents").values()) == {1}
    elif stage == "publishing":
        eventually(lambda: min(files(server, "mailserver-intents").values()) == 0)
    kill(server)
    client.close()
    del server.extra["TEST_HOLD"]
    server.start()
    assert copies(server, "held") == after_the_kill
    assert copies(server, "before") == [1, 1, 1]
    # The client has no answer, and so it repeats the message.
    with log_in(server, "lmtp", USERS[0]) as client:
        assert send(client, "held", ALIAS).startswith(b"250")
    assert copies(server, "held") == [number + 1 for number in after_the_kill]
    assert set(files(server, "mailserver-intents").values()) == {0}
    assert set(files(server, "tmp").values()) == {0}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_of_one_refuses_all_and_the_repetition_makes_one_copy_each(tmp_path: Path) -> None:
    directory = tmp_path / "server"
    edit = with_alias(tmp_path / "aliases")
    with Server(directory, users=3, edit=edit) as server, log_in(server, "lmtp", USERS[0]) as client:
        assert send(client, "before", ALIAS).startswith(b"250")
    local, _, domain = LAST.partition("@")
    place = directory / "mail" / domain / local / "Maildir"
    small = SmallServer.__new__(SmallServer)
    small.__dict__ |= server.__dict__
    disk = small.disk = SmallDisk(directory, "size=4m", place)
    try:
        with small as server:
            with log_in(server, "lmtp", USERS[0]) as client:
                assert send(client, "room", ALIAS).startswith(b"250")
                disk.fill()
                for _ in range(3):
                    assert send(client, "full", ALIAS).startswith(b"452 4.3.1")
                    # Others have room, and each recipient is by itself.
                    assert send(client, "other", USERS[0], size=1000).startswith(b"250")
                assert copies(server, "full") == [0, 0, 0]
                assert copies(server, "room") == [1, 1, 1]
                assert list(files(server, "mailserver-intents").values())[:2] == [0, 0]
                assert list(files(server, "tmp").values())[:2] == [0, 0]
                disk.free()
                assert send(client, "full", ALIAS).startswith(b"250")
            assert copies(server, "full") == [1, 1, 1]
            no_bugs(server.log)
    finally:
        disk.close()
