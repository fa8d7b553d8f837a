"""Random histories of a mailbox: a client that resynchronizes knows the same as one that fetches everything.

Sessions of two clients change it, other programs do, the server restarts, its index is lost, the history of expunges is cut
short, and the connection is lost at any moment.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from mailserver.imap.services import Services
from mailserver.message.render import summarise
from mailserver.store.index import database
from mailserver.store.interfaces import Bounds, Store
from mailserver.store.memory import MemoryStore
from tests.fakes import Client
from tests.imap.resyncing import Resyncer
from tests.imap.sessions import put, selected, services
from tests.store.disk import open_store
from tests.sweeps import choose

SEED = int(os.environ.get("MAILSERVER_SEED", "0"))
HISTORIES = choose(8, whole=200)
"""Of each test, of which there are five: 1,000 in `make soak`."""
STEPS = 24
FLAGS = ("\\Seen", "\\Deleted", "\\Flagged", "$One")


class World:
    """A server, its mail, a client that changes it, and one that resynchronizes."""

    def __init__(self, source: random.Random, path: Path | None, bounds: Bounds) -> None:
        self.source = source
        self.path = path
        self.bounds = bounds
        self.store: Store = self._open()
        self.service: Services = services(store=self.store)
        put(writer := selected(self.service))
        for _ in range(5):
            put(writer)
        self.writer: Client | None = writer
        self.resyncer = Resyncer(self.service, source)
        self.resyncer.connect()

    def _open(self) -> Store:
        if self.path is None:
            return MemoryStore(summarise, bounds=self.bounds)
        return open_store(str(self.path), self.bounds)

    @property
    def inbox(self) -> str:
        assert self.path is not None
        return str(self.path / "example.test" / "anna" / "Maildir")

    # --- what happens

    def write(self) -> None:
        """A command of the other client."""
        if self.writer is None:
            self.writer = selected(self.service)
        writer, source = self.writer, self.source
        count = writer.session.view.count
        if not count or source.random() < 0.25:
            put(writer, flags=source.choice(("", "(\\Seen)", "(\\Deleted)")))
            return
        number, flag = source.randint(1, count), source.choice(FLAGS)
        uid = writer.session.view.uids[number - 1]
        command = source.choice(
            (
                f"STORE {number} +FLAGS.SILENT ({flag})",
                f"UID STORE {uid}:* {source.choice('+-')}FLAGS ({flag})",
                f"STORE {number} FLAGS ()",
                "EXPUNGE",
                f"UID EXPUNGE 1:{uid}",
                f"UID MOVE {uid} Trash",
                f"COPY {number} INBOX",
                "NOOP",
            )
        )
        if "Trash" in command:
            writer.ask(b"c CREATE Trash\r\n")
        assert b"w OK" in (answer := writer.ask(f"w {command}\r\n".encode())) or b"EXPUNGEISSUED" in answer, answer

    def use(self) -> None:
        """A command of the client that keeps a cache."""
        resyncer, source = self.resyncer, self.source
        if resyncer.client is None:
            resyncer.connect()
            self.check()
            return
        count = len(resyncer.order)
        action = source.choice(
            ("noop", "store", "silent", "unchanged", "read", "expunge", "modseqs", "idle", "select", "search")
        )
        number, flag = source.randint(1, max(1, count)), source.choice(FLAGS)
        is_writable = not resyncer.client.session.mailbox.read_only
        match action:
            case "store" if count and is_writable:
                resyncer.ask(f"STORE {number} {source.choice(('+', '-', ''))}FLAGS ({flag})")
            case "silent" if count and is_writable:
                resyncer.store_silently(sorted({1, number}), source.choice(("+", "-", "")), flag)
            case "unchanged" if count and is_writable:
                since = source.choice((0, resyncer.modseq, 2**63 - 1))
                answer = resyncer.store_silently([number], "+", flag, f"(UNCHANGEDSINCE {since}) ")
                assert ("[MODIFIED" in answer) or since > 0, answer
            case "read" if count:
                resyncer.ask(f"FETCH {number} BODY[]")
            case "expunge" if is_writable:
                resyncer.ask("EXPUNGE")
            case "modseqs" if count:
                resyncer.ask("FETCH 1:* (MODSEQ)")
            case "search" if count:
                resyncer.ask(f"SEARCH MODSEQ {resyncer.modseq}")
            case "idle":
                resyncer.hear(resyncer.client.ask(b"t IDLE\r\n").replace(b"+ idling\r\n", b""))
                self.write()
                resyncer.client.settle()
                resyncer.hear(resyncer.client.ask(b"DONE\r\n"))
            case "select":
                resyncer.select()
                self.check()
            case _:
                resyncer.ask("NOOP")

    def meddle(self) -> None:
        """Another program changes the Maildir."""
        if self.path is None:
            return
        cur = os.path.join(self.inbox, "cur")
        names = sorted(os.listdir(cur))
        if not names:
            return
        name = self.source.choice(names)
        if self.source.random() < 0.5:
            os.unlink(os.path.join(cur, name))
        else:
            base, _, letters = name.partition(":2,")
            changed = "".join(sorted(set(letters) ^ {self.source.choice("SFR")}))
            os.rename(os.path.join(cur, name), os.path.join(cur, f"{base}:2,{changed}"))
        for client in (self.writer, self.resyncer.client):
            if client is not None and client.session.selected is not None:
                client.session.mailbox.live.poked()

    def lose_index(self) -> None:
        """Remove the index, while the server has it open or not."""
        if self.path is not None:
            for name in os.listdir(self.inbox):
                if name.startswith("mailserver-index"):
                    os.unlink(os.path.join(self.inbox, name))

    def restart(self, *, lose_index: bool) -> None:
        self.resyncer.disconnect()
        if self.writer is not None:
            self.writer.hang_up()
            self.writer = None
        if self.path is None:
            return
        self.store.account("anna@example.test").close()
        if lose_index:
            self.lose_index()
        self.store = self._open()
        self.service = self.resyncer.service = services(store=self.store)

    # --- what must be true

    def check(self) -> None:
        """Both know the same."""
        self.resyncer.settle()
        everything = Resyncer(self.service, self.source)
        everything.connect()
        assert self.resyncer.flags == everything.flags
        assert self.resyncer.order == everything.order == sorted(everything.flags)
        assert self.resyncer.modseq <= everything.modseq
        everything.disconnect()

    def run(self) -> None:
        steps = [self.write, self.write, self.write, self.use, self.use, self.use, self.meddle]
        for _ in range(STEPS):
            chance = self.source.random()
            if chance < 0.08:
                self.resyncer.disconnect()
            elif chance < 0.1:
                self.lose_index()
            elif chance < 0.13:
                self.restart(lose_index=self.source.random() < 0.5)
            else:
                self.source.choice(steps)()
        if self.resyncer.client is None:
            self.resyncer.connect()
        self.check()


@pytest.mark.parametrize(
    "kind", ["memory", "memory, short history", "maildir", "maildir, short history", "maildir, no history"]
)
def test_resynchronizing_equals_fetching_everything(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_LOOK_EVERY", 1)
    expunges = {"short": 3, "no": 1}.get(kind.partition(", ")[2].partition(" ")[0], 50_000)
    for number in range(HISTORIES):
        seed = f"{SEED}, {kind}, {number}"
        path = tmp_path / str(number) if kind.startswith("maildir") else None
        try:
            World(random.Random(seed), path, Bounds(expunges=expunges)).run()
        except BaseException:
            print(f"history {seed!r}")
            raise


def test_a_whole_history_reports_nothing_twice() -> None:
    """With all expunges remembered, VANISHED (EARLIER) has what the client lacks, and no other UID."""
    for number in range(HISTORIES):
        world = World(random.Random(f"exact {SEED} {number}"), None, Bounds())
        for _ in range(6):
            world.resyncer.disconnect()
            for _ in range(5):
                world.write()
            world.resyncer.vanished_again = 0
            world.resyncer.connect()
            world.check()
            assert world.resyncer.vanished_again == 0
