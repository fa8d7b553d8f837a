"""Sessions, other processes and lost pokes in every order: the live picture must lead each client to the truth.

An operation is in the account's thread between the moment a session asks for it and the step that runs it, and its
answer is taken up then. A session does one thing at a time; what others do comes in between.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from mailserver.store.flags import FlagChange
from mailserver.store.live import LiveMailbox
from tests.store.live.world import Task, World
from tests.store.replay import Replay
from tests.store.samples import message, put, staged

USER = "anna@example.test"
PLACES = st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True)
FLAG = st.sampled_from(["\\Seen", "\\Flagged", "work", "home"])
RUNS = int(os.environ.get("MAILSERVER_RUNS", "25"))


class Session:
    """One client: idle, or waiting for one answer."""

    def __init__(self, machine: LiveMachine, name: str) -> None:
        self.machine = machine
        self.live: LiveMailbox | None = None
        self.replay: Replay | None = None
        self.task: Task[None] = Task(self.select(name))

    @property
    def idle(self) -> bool:
        return self.task.done and self.live is not None

    async def select(self, name: str) -> None:
        live = await self.machine.account.select(name)
        self.live = live
        self.replay = Replay(live.open_view(lambda: None))

    def leave(self) -> None:
        if self.live is not None:
            self.live.close_view(self.replay.view)
            self.machine.account.release(self.live)
            self.live = None

    def pick(self, places: list[int]) -> list[int]:
        return sorted(self.replay.uids[place] for place in places if place < len(self.replay.uids))

    async def store(self, uids: list[int], flag: str) -> None:
        await self.live.change(lambda mailbox: mailbox.store_flags(uids, FlagChange.ADD, [flag]))
        self.replay.stored_silently(uids, flag)
        self.replay.sync(allow_expunge=False)

    async def expunge(self, uids: list[int]) -> None:
        await self.live.change(lambda mailbox: mailbox.expunge(uids, only_deleted=False))
        self.replay.sync(allow_expunge=True)

    async def move(self, uids: list[int], target: str) -> None:
        await self.machine.account.copy(self.live, uids, target, move=True)
        self.replay.sync(allow_expunge=True)

    async def append(self, name: str) -> None:
        await self.machine.account.append(name, [staged(self.machine.memory, message())])

    async def noop(self, *, allow_expunge: bool) -> None:
        if self.live.stale:
            await self.live.refresh()
        self.replay.sync(allow_expunge=allow_expunge)


class LiveMachine(RuleBasedStateMachine):
    @initialize(messages=st.integers(0, 8))
    def begin(self, messages: int) -> None:
        self.world = World(max_unused_messages=1999)
        self.account = self.world.account()
        self.memory = self.world.store.account(USER)
        self.memory.create("other")
        for _ in range(messages):
            put(self.memory)
        self.sessions = [Session(self, "INBOX"), Session(self, "INBOX"), Session(self, "other")]

    def idle(self) -> list[Session]:
        return [session for session in getattr(self, "sessions", []) if session.idle]

    def go(self, data: st.DataObject, session: Session, coroutine: Coroutine[Any, Any, None]) -> None:
        """Begin it; it is answered at once, or some time later."""
        session.task = Task(coroutine)
        if data.draw(st.integers(0, 2)):
            self.world.settle()
            self.look()

    @rule(data=st.data(), places=PLACES, flag=FLAG)
    @precondition(lambda self: self.idle())
    def store(self, data: st.DataObject, places: list[int], flag: str) -> None:
        session = data.draw(st.sampled_from(self.idle()))
        self.go(data, session, session.store(session.pick(places), flag))

    @rule(data=st.data(), places=PLACES)
    @precondition(lambda self: self.idle())
    def expunge(self, data: st.DataObject, places: list[int]) -> None:
        session = data.draw(st.sampled_from(self.idle()))
        self.go(data, session, session.expunge(session.pick(places)))

    @rule(data=st.data(), places=PLACES, into=st.sampled_from(["INBOX", "other"]))
    @precondition(lambda self: self.idle())
    def move(self, data: st.DataObject, places: list[int], into: str) -> None:
        session = data.draw(st.sampled_from(self.idle()))
        self.go(data, session, session.move(session.pick(places), into))

    @rule(data=st.data(), name=st.sampled_from(["INBOX", "other"]))
    @precondition(lambda self: self.idle())
    def append(self, data: st.DataObject, name: str) -> None:
        session = data.draw(st.sampled_from(self.idle()))
        self.go(data, session, session.append(name))

    @rule(data=st.data(), allow_expunge=st.booleans())
    @precondition(lambda self: self.idle())
    def noop(self, data: st.DataObject, allow_expunge: bool) -> None:
        session = data.draw(st.sampled_from(self.idle()))
        self.go(data, session, session.noop(allow_expunge=allow_expunge))

    @rule(data=st.data(), name=st.sampled_from(["INBOX", "other"]))
    @precondition(lambda self: self.idle())
    def select(self, data: st.DataObject, name: str) -> None:
        session = data.draw(st.sampled_from(self.idle()))
        session.leave()
        self.go(data, session, session.select(name))

    @rule(steps=st.integers(1, 3))
    def run(self, steps: int) -> None:
        """The account's thread gets on."""
        for _ in range(steps):
            for runner in self.world.runners:
                if runner.queue:
                    runner.step()
        self.look()

    def look(self) -> None:
        for session in self.sessions:
            if session.task.done:
                session.task.result()
            if session.replay is not None and session.live is not None:
                session.replay.check_numbers()

    @rule(name=st.sampled_from(["INBOX", "other"]), uids=PLACES, flag=FLAG, act=st.integers(0, 2), poke=st.booleans())
    def another_process(self, name: str, uids: list[int], flag: str, act: int, poke: bool) -> None:
        mailbox = self.memory.mailbox(name)
        if act == 0:
            put(self.memory, name)
        elif act == 1:
            mailbox.store_flags(uids, FlagChange.REMOVE, [flag])
        else:
            mailbox.expunge(uids, only_deleted=False)
        if poke:
            self.account.poked(mailbox.id)

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.settle()
        for session in self.sessions:
            session.task.result()
            # The periodic look, as every poke may have been lost.
            self.world.do(session.live.refresh())
            session.replay.sync(allow_expunge=True)
            session.replay.check_equal(session.live.mailbox)
            assert not session.live.stale
            session.leave()
        assert len(self.account._mailboxes) <= 1
        assert self.world.watched == list(self.account._mailboxes.values()), "what is gone is watched no more"
        with_sessions = [live for live in self.account._mailboxes.values() if live.users]
        assert not with_sessions
        assert all(not live.columns.expunged for live in self.account._mailboxes.values())


TestLive = LiveMachine.TestCase
TestLive.settings = settings(
    max_examples=2 * RUNS, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
