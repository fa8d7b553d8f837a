"""The kept sums equal a count of what the tables hold, whatever was done, in each mailbox and in all."""

from __future__ import annotations

import os
from array import array

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mailserver.store.index.database import Index
from mailserver.store.index.message_blocks import MessageBlock
from mailserver.store.index.records import Entry, MailboxState
from mailserver.store.index.sums import ACCOUNT, Sum
from mailserver.types import UNKNOWN_SIZE

RUNS = int(os.environ.get("MAILSERVER_RUNS", "25"))
STEPS = int(os.environ.get("MAILSERVER_STEPS", "30"))
BOXES = st.integers(0, 2)
PLACES = st.sets(st.integers(0, 9), max_size=5)
"""Messages by their place in the mailbox."""
SIZES = st.lists(st.none() | st.integers(2, 5000), min_size=1, max_size=6)


def entry(uid: int, size: int | None, base: str = "") -> Entry:
    return Entry(uid, 5, 0, size, None, base or f"{uid}.a.host", ":2,", 1)


def block_of(uids: list[int], sizes: list[int | None]) -> MessageBlock:
    """A block of messages whose names claim these sizes."""
    bases = [
        b"%d.b.host" % uid if size is None else b"%d.b.host,S=%d,W=%d" % (uid, size - 1, size)
        for uid, size in zip(uids, sizes, strict=True)
    ]
    count = len(uids)
    return MessageBlock(5, array("I", uids), array("I", [0]) * count, bases, [b":2,"] * count, b"\1" * count)


class Kept(RuleBasedStateMachine):
    """An index in memory, changed by each of the ways that the store has."""

    @initialize()
    def begin(self) -> None:
        self.index = Index.make_in_memory("")
        self.boxes: list[MailboxState] = []
        for number in range(3):
            self.boxes.append(MailboxState(0, bytes([number]) * 16, f"box{number}", 7, 1, 1, 1, 1))
            with self.index.transaction():
                self.index.mailboxes.save(self.boxes[-1])

    def new_uids(self, box: int, count: int) -> list[int]:
        state = self.boxes[box]
        uids = list(range(state.uid_next, state.uid_next + count))
        state.uid_next += count
        return uids

    def chosen(self, box: int, places: set[int]) -> list[int]:
        uids = self.index.messages.uids(self.boxes[box].key)
        return [uids[place] for place in sorted(places) if place < len(uids)]

    @rule(box=BOXES, sizes=SIZES)
    def add(self, box: int, sizes: list[int | None]) -> None:
        uids = self.new_uids(box, len(sizes))
        with self.index.transaction():
            self.index.messages.add(self.boxes[box].key, list(map(entry, uids, sizes)))

    @rule(box=BOXES, sizes=SIZES)
    def add_block(self, box: int, sizes: list[int | None]) -> None:
        block = block_of(self.new_uids(box, len(sizes)), sizes)
        with self.index.transaction():
            self.index.messages.add_blocks(self.boxes[box].key, [block], block.sizes())

    @rule(box=BOXES, place=st.integers(0, 9), size=st.none() | st.integers(2, 99))
    def add_with_the_name_of_another(self, box: int, place: int, size: int | None) -> None:
        """A foreign program has linked a file to another directory, under the same name."""
        key = self.boxes[box].key
        for uid in self.chosen(box, {place}):
            [known] = self.index.messages.entries_of(key, [uid])
            with self.index.transaction():
                self.index.messages.add(key, [entry(self.new_uids(box, 1)[0], size, known.base)], foreign=True)

    @rule(box=BOXES, places=PLACES)
    def expunge(self, box: int, places: set[int]) -> None:
        with self.index.transaction():
            # The last one is not there.
            self.index.expunge(self.boxes[box].key, [*self.chosen(box, places), 4000], 9)

    @rule(box=BOXES, places=PLACES, size=st.integers(1, 99) | st.just(UNKNOWN_SIZE))
    def learn(self, box: int, places: set[int], size: int) -> None:
        with self.index.transaction():
            self.index.messages.learn(self.boxes[box].key, [(uid, size, 100) for uid in self.chosen(box, places)])

    @rule(box=BOXES, places=PLACES)
    def change(self, box: int, places: set[int]) -> None:
        key = self.boxes[box].key
        with self.index.transaction():
            known = self.index.messages.entries_of(key, self.chosen(box, places))
            self.index.messages.change(key, [each._replace(modseq=11, flags=1) for each in known])

    @rule(box=BOXES)
    def delete(self, box: int) -> None:
        with self.index.transaction():
            self.index.mailboxes.remove(self.boxes[box].key)
            self.boxes[box] = attrs.evolve(self.boxes[box], key=0, uid_next=1)
            self.index.mailboxes.save(self.boxes[box])

    @rule()
    def count_all(self) -> None:
        """As before a first quota check."""
        for state in self.boxes:
            self.index.sum_of(state.key)
        with self.index.transaction():
            self.index.sums.put_account()

    @rule()
    def another_version_was_here(self) -> None:
        self.index.forget_sums()

    @rule(box=BOXES)
    def list_all(self, box: int) -> None:
        """As before a first check of octets: messages without a size are listed, to be estimated."""
        key = self.boxes[box].key
        known = self.index.sum_of(key)
        if known.listed < known.unmeasured:
            with self.index.transaction():
                self.index.sums.list_unsized(key, self.index.messages.unmeasured(key, 0, 99))

    @rule(octets=st.integers(1, 99), most=st.integers(1, 9))
    def estimate(self, octets: int, most: int) -> None:
        with self.index.transaction():
            for key, uid in self.index.sums.unsized_without_estimate(most=most):
                self.index.sums.estimate(key, [(uid, octets)])

    @rule(box=BOXES)
    def fail(self, box: int) -> None:
        """What a transaction that fails has added is not there."""
        with pytest.raises(ZeroDivisionError):
            self.index.commit(lambda index: self._add_and_fail(index, box))

    def _add_and_fail(self, index: Index, box: int) -> None:
        index.messages.add(self.boxes[box].key, [entry(self.boxes[box].uid_next, 1)])
        _ = 1 // 0

    @invariant()
    def sums_are_counts(self) -> None:
        if not hasattr(self, "index"):
            return
        kept = [self.index.sums.of(state.key) for state in self.boxes]
        for state, known in zip(self.boxes, kept, strict=True):
            if known is None:
                continue
            entries = self.index.messages.entries(state.key)
            unsized = {each.uid for each in entries if each.size is None}
            rows = self.index._connection.execute(
                "SELECT id & 0xFFFFFFFF, octets FROM unsized WHERE id >> 32 = ?", (state.key,)
            ).fetchall()
            assert {uid for uid, _octets in rows} <= unsized
            assert known == Sum(
                len(entries),
                sum(each.size or 0 for each in entries),
                len(unsized),
                sum(octets or 0 for _uid, octets in rows),
                len(rows),
            )
            assert self.index.messages.count_sizes(state.key) == (*known[:3], 0, 0)
            assert set(self.index.messages.unmeasured(state.key, 0, 99)) == unsized
        whole = self.index.sums.of(ACCOUNT)
        if whole is not None:
            assert None not in kept
            assert whole == Sum(*map(sum, zip(*kept, strict=True)))


TestKept = Kept.TestCase
TestKept.settings = settings(max_examples=RUNS, stateful_step_count=STEPS, deadline=None)
