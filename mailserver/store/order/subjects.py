"""Threads by subject: steps 5 and 6 of THREAD=REFERENCES, and THREAD=ORDEREDSUBJECT (RFC 5256 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import define

from mailserver.store.order.forest import Forest
from mailserver.store.order.stable_sort import stable_sort
from mailserver.store.order.steps import Work
from mailserver.store.order.values import ranks

_PART: Final = 1000
"""Threads between two yields."""


@define(eq=False)
class Root:
    """A thread: a message, or a dummy with several messages below it."""

    members: tuple[int, ...]
    """The message alone, or the dummy's children in order."""
    is_merged: bool = False
    """It has become a part of another thread."""
    added: list[int] | None = None
    """Children that a dummy has got in step 5; it is sorted in step 6."""

    @property
    def is_dummy(self) -> bool:
        """Is there no message at the top?"""
        return len(self.members) > 1 or self.added is not None

    def add(self, members: Sequence[int]) -> None:
        """Add children of a dummy."""
        if self.added is None:
            self.added = []
        self.added += members


def merge_subjects(
    roots: list[Root], children: dict[int, list[int]], rank: Sequence[int], subjects: Sequence[str], replies: Sequence[bool]
) -> Work[list[Root]]:  # fmt: skip
    """Do steps 5 and 6 for threads that are sorted by date. `children` gets what is added below messages."""
    table: dict[str, Root] = {}
    for number, root in enumerate(roots):
        subject = subjects[root.members[0]]
        if subject:
            known = table.setdefault(subject, root)
            if not known.is_dummy and (root.is_dummy or (replies[known.members[0]] and not replies[root.members[0]])):
                table[subject] = root
        if number % _PART == _PART - 1:
            yield
    grown: set[int] = set()
    """Messages that have got children."""
    merged = list(roots)
    for number, root in enumerate(roots):
        subject = subjects[root.members[0]]
        known = table[subject] if subject else root
        if known is not root and not root.is_merged:
            root.is_merged = True
            if known.is_dummy:
                known.add(root.members if not root.is_dummy else [*root.members, *(root.added or ())])
            elif replies[root.members[0]] and not replies[known.members[0]]:
                children.setdefault(known.members[0], []).append(root.members[0])
                grown.add(known.members[0])
            else:
                known.is_merged = True
                dummy = Root((known.members[0],), added=[root.members[0]])
                table[subject] = dummy
                merged.append(dummy)
        if number % _PART == _PART - 1:
            yield
    place = rank.__getitem__
    for at in grown:
        children[at].sort(key=place)
    left = [root for root in merged if not root.is_merged]
    for root in left:
        if root.added is not None:
            root.members = tuple(sorted([*root.members, *root.added], key=place))
    yield
    left.sort(key=lambda root: rank[root.members[0]])
    return left


def thread_by_subject(subjects: Sequence[str], dates: Sequence[int]) -> Work[Forest]:
    """Thread by ORDEREDSUBJECT: each thread is its first message, with all others of the base subject below it."""
    order = yield from stable_sort(list(range(len(dates))), dates)
    rank = ranks(order)
    threads: dict[str, list[int]] = {}
    for number, at in enumerate(order):
        threads.setdefault(subjects[at], []).append(at)
        if number % _PART == _PART - 1:
            yield
    firsts = sorted(threads.values(), key=lambda thread: rank[thread[0]])
    return Forest([(thread[0],) for thread in firsts], {thread[0]: thread[1:] for thread in firsts if len(thread) > 1})
