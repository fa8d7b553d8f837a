"""The queue beside a naive one in memory: any acceptances, results, commands, times and restarts."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mailserver.queue.administration import Administration
from mailserver.queue.interfaces import Content, Spooled
from mailserver.queue.mail_queue import MailQueue
from mailserver.queue.model import Envelope, Settings
from mailserver.queue.outcome import Outcome
from mailserver.queue.selection import Selection
from mailserver.queue.work import QueueWork
from tests.queue.naive_queue import NaiveQueue
from tests.queue.queues import NOW, envelope, target
from tests.queue.test_work import report_target
from tests.sweeps import choose

SETTINGS = Settings(minimum_free=0, expiry=20_000, bounce_expiry=5000, delay_notice=4000)
DOMAINS = ("a.example", "b.example", "reports")
OUTCOMES = {
    "relayed": Outcome("relayed", code=250, stage="message"),
    "deferred": Outcome("deferred", "4.2.0", "later", 450, "rcpt", "mx"),
    "failed": Outcome("failed", "5.1.1", "unknown", 550, "rcpt", "mx"),
    "again": Outcome("again", "4.5.3", "too many", 452, "rcpt", "mx"),
    "hop_failed": Outcome("hop_failed", "4.4.1", "refused", stage="connect"),
}


class QueueMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="queue"))
        self.now = NOW
        self.naive = NaiveQueue(SETTINGS)
        self._open()

    def _open(self) -> None:
        self.queue = MailQueue(self.directory, SETTINGS, clock=lambda: self.now)
        self.work = QueueWork(self.queue, report_target)
        self.administration = Administration(self.queue)

    def teardown(self) -> None:
        if hasattr(self, "queue"):
            self.work.close()
            self.queue.close()
            shutil.rmtree(self.directory)

    @rule(
        recipients=st.lists(
            st.tuples(st.sampled_from(DOMAINS[:2]), st.sampled_from(["", "NEVER", "DELAY", "FAILURE"])),
            min_size=1,
            max_size=4,
        ),
        sender=st.sampled_from(["alice@example.org", "", "x@nowhere.example"]),
        count=st.integers(1, 2),
    )
    def accept(self, recipients: Sequence[tuple[str, str]], sender: str, count: int) -> None:
        targets = [target(f"u{number}", to, notify=notify) for number, (to, notify) in enumerate(recipients)]
        spooled = [
            self.queue.write(envelope(sender, received=self.now), targets, Content(b"Subject: x\r\n\r\n"))
            for _ in range(count)
        ]
        self.queue.accept(spooled)
        for each in spooled:
            self.naive.accept(each, self.now)

    @rule(seconds=st.sampled_from([1, 299, 300, 1000, 4000, 9000]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(
        which=st.integers(0, 2),
        results=st.lists(st.sampled_from(sorted(OUTCOMES)), min_size=1, max_size=5),
    )
    def attempt(self, which: int, results: Sequence[str]) -> None:
        destination = self._destination(which)
        found = self.work.take(destination, self.now, 1000)
        keys = {(one.message.name, each.target.address): each for one in found for each in one.recipients}
        expected = self.naive.due(destination, self.now)
        assert set(keys) == {(each.name, each.target.address) for each in expected}
        chosen = list(zip(expected, results, strict=False))
        pairs = [(keys[entry.name, entry.target.address], OUTCOMES[result]) for entry, result in chosen]
        self._expect(self.naive.results(chosen, self.now), self.work.results(pairs, self.now))

    @rule(what=st.sampled_from(["overdue", "sync", "restart", "sweep", "checkpoint"]))
    def upkeep(self, what: str) -> None:
        match what:
            case "overdue":
                self._expect(self.naive.overdue(self.now), self.work.overdue(self.now))
            case "sync":
                self.work.sync()
                assert set(os.listdir(self.queue.spool.directory)) == {each.name for each in self.naive.entries}
            case "restart":
                self.work.sync()
                self.work.close()
                self.queue.close()
                self._open()
            case "sweep":
                self.work.sweep(self.now)
            case _:
                self.queue.rows.checkpoint()

    def _destination(self, which: int) -> str:
        """One that has recipients, if any has."""
        there = sorted({each.target.destination for each in self.naive.entries}) or DOMAINS
        return there[which % len(there)]

    def _expect(self, reports: set[tuple[str, str]], written: Sequence[Spooled]) -> None:
        parents = {name: each.sender for name, each in self.known.items()}
        wanted = sorted(name for _action, name in reports if not parents[name].endswith("@nowhere.example"))
        assert sorted(each.envelope.parent for each in written) == wanted
        for each in written:
            self.naive.accept(each, self.now)

    @property
    def known(self) -> dict[str, Envelope]:
        """The envelopes of all files that were written."""
        return {name: self.queue.spool.parse(name).envelope for name in self.queue.spool.names()}

    @rule(what=st.sampled_from(["hold", "release", "retry", "drop"]), which=st.integers(0, 2))
    def command(self, what: str, which: int) -> None:
        destination = self._destination(which)
        changed = getattr(self.administration, what)(Selection(destination=destination))
        assert changed == self.naive.change(what, destination, self.now)

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "queue"):
            return
        rows = self.queue.rows.read(
            "SELECT m.name, r.address, r.state = 'held', r.due, r.tries, r.notice"
            " FROM recipient r JOIN message m ON m.id = r.message"
        )
        assert sorted(map(repr, rows)) == sorted(
            repr((name, address, int(bool(held)), *rest))
            for name, address, held, *rest in (e.row for e in self.naive.entries)
        )
        assert {str(row[0]) for row in self.queue.rows.read("SELECT name FROM message")} == {
            each.name for each in self.naive.entries
        }
        ready = self.naive.ready()
        assert self.work.next_due() == min(ready.values(), default=None)
        due = self.work.due(self.now, 10)
        assert sorted(due) == sorted(destination for destination, at in ready.items() if at <= self.now)
        assert [ready[each] for each in due] == sorted(ready[each] for each in due)
        hops = {hop.destination: (hop.until, hop.failures) for hop in self.work.hops()}
        # A sweep forgets those that nobody waits for.
        assert hops.items() <= self.naive.dead.items()
        assert all(hops[each] == self.naive.dead[each] for each in ready if each in self.naive.dead)
        for each in set(self.naive.dead) - set(hops):
            del self.naive.dead[each]


QueueMachine.TestCase.settings = settings(
    max_examples=choose(20, whole=100),
    stateful_step_count=choose(30, whole=50),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestQueue = QueueMachine.TestCase
