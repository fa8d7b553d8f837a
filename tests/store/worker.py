"""A worker process of its own for test_two_processes: one session on INBOX, random commands, pokes over its pipes.

Standard output: `about append` or `about expunge` with subjects before such a command and `did append` or `did expunge`
after it, `poke` after each change, `done`, at the end `report` and JSON. Standard input: `poke` when the other one
changed something (or not, if that poke was lost), `finish` when both have done their work, `end` after the report.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import sys

from mailserver.errors import MailError, MessageExpunged
from mailserver.store.flags import FlagChange
from mailserver.store.live import LiveAccounts
from mailserver.types import UID
from tests.fakes import DirectRunner, run_now
from tests.store.disk import USER, open_store
from tests.store.replay import Replay
from tests.store.workload import stage


class Worker:
    def __init__(self, root: str, name: str, seed: int) -> None:
        self.name = name
        self.random = random.Random(seed)
        self.accounts = LiveAccounts(open_store(root), DirectRunner, notify_others=lambda _user, _id: self.say("poke"))
        self.account = run_now(self.accounts.open(USER))
        self.live = run_now(self.account.select("INBOX"))
        self.replay = Replay(self.live.open_view(lambda: None))
        self.input = b""
        self.count = 0

    def say(self, line: str) -> None:
        os.write(1, line.encode() + b"\n")

    def heard(self, *, wait: bool = False) -> list[bytes]:
        while (wait and b"\n" not in self.input) or select.select([0], [], [], 0)[0]:
            data = os.read(0, 65536)
            if not data:
                sys.exit("the test is gone")
            self.input += data
        *lines, self.input = self.input.split(b"\n")
        return lines

    def some(self) -> list[UID]:
        """Messages of this session's picture, as a client names them."""
        known = [UID(uid) for uid in self.replay.uids]
        return sorted(self.random.sample(known, min(len(known), self.random.randint(0, 3))))

    def step(self) -> None:
        for line in self.heard():
            if line == b"poke":
                self.live.poked()
        acts = (self.append, self.append, self.store, self.store, self.expunge, self.copy, self.move)
        with contextlib.suppress(MessageExpunged):
            self.random.choice(acts)()
        if self.live.stale:
            run_now(self.live.refresh())
        self.replay.sync(allow_expunge=self.random.random() < 0.5)
        self.replay.check_numbers()

    def append(self) -> None:
        subjects = [f"{self.name}{self.count + n}" for n in range(self.random.randint(1, 3))]
        self.count += len(subjects)
        account = self.account.account
        self.say(f"about append {' '.join(subjects)}")
        run_now(self.account.append("INBOX", [stage(account, subject) for subject in subjects]))
        self.say(f"did append {' '.join(subjects)}")

    def store(self) -> None:
        uids = self.some()
        flag = self.random.choice(["\\Seen", "\\Flagged", "mine", f"of-{self.name}"])
        run_now(self.live.change(lambda mailbox: mailbox.store_flags(uids, FlagChange.ADD, [flag])))
        self.replay.stored_silently(uids, flag)

    def expunge(self) -> None:
        uids = self.some()[:1]
        known = {row: self.subject(row) for row in uids}
        self.say(f"about expunge {' '.join(known.values())}")
        gone = run_now(self.live.change(lambda mailbox: mailbox.expunge(uids, only_deleted=False)))
        self.say(f"did expunge {' '.join(subject for uid, subject in known.items() if uid in gone)}")

    def copy(self) -> None:
        uids = self.some()[:1]
        if uids and not self.random.randrange(3):
            # A copy to where nobody looks for duplicates.
            run_now(self.account.copy(self.live, uids, "copies"))

    def move(self) -> None:
        uids = self.some()
        run_now(self.account.copy(self.live, uids, "moved", move=True))

    def subject(self, uid: UID) -> str:
        try:
            opened = self.live.mailbox.open_message(uid)
        except MailError:
            return ""
        data = opened.read(0, 200)
        opened.close()
        return data.partition(b"Subject: ")[2].partition(b"\r")[0].decode()

    def finish(self) -> None:
        while b"finish" not in self.heard(wait=True):
            pass
        # However many pokes were lost: the periodic look finds everything.
        run_now(self.live.refresh())
        self.replay.sync(allow_expunge=True)
        self.replay.check_equal(self.live.mailbox)
        report = {
            "messages": [[uid, self.replay.flags[uid]] for uid in self.replay.uids],
            "keywords": self.replay.keywords,
        }
        self.say("report " + json.dumps(report))
        self.heard(wait=True)


def main() -> None:
    root, name, seed, operations = sys.argv[1:]
    worker = Worker(root, name, int(seed))
    for _ in range(int(operations)):
        worker.step()
    worker.say("done")
    worker.finish()


if __name__ == "__main__":
    main()
