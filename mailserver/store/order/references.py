"""THREAD=REFERENCES (RFC 5256 3) and THREAD=REFS (draft-ietf-morg-inthread), without recursion.

Messages are nodes 0 to n - 1; further nodes are dummies, for IDs that no searched message has. Until step 3 only the
parent of each node is kept: the order of siblings follows from dates alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from mailserver.errors import LimitReached
from mailserver.store.order.forest import Forest
from mailserver.store.order.stable_sort import stable_sort
from mailserver.store.order.steps import Work
from mailserver.store.order.subjects import Root, merge_subjects
from mailserver.store.order.values import ranks

MAX_IDS: Final = 2_000_000
"""Different message IDs in the references of one request, some 150 octets each."""
MAX_STEPS: Final = 50_000_000
"""Steps from a message to its ancestors, where a link could close a circle."""
_PART: Final = 1000
"""Messages between two yields."""


@frozen
class Threaded:
    """The values of the messages that are threaded, by position; as in SortKeys."""

    message_ids: Sequence[str]
    references: Sequence[str]
    dates: Sequence[int]
    """Sent dates, with INTERNALDATE where there is none."""
    subjects: Sequence[str] = ()
    replies: Sequence[bool] = ()
    arrivals: Sequence[int] = ()
    """INTERNALDATE, for REFS."""


def thread_by_references(messages: Threaded) -> Work[Forest]:
    """Thread by REFERENCES. Raises: LimitReached."""
    roots, children, rank = yield from _build(messages)
    merged = yield from merge_subjects(roots, children, rank, messages.subjects, messages.replies)
    return Forest([each.members for each in merged], children)


def thread_by_refs(messages: Threaded) -> Work[Forest]:
    """Thread by REFS: no subjects count, and the thread with the newest INTERNALDATE comes last. Raises: LimitReached."""
    roots, children, _rank = yield from _build(messages)
    newest = []
    for number, root in enumerate(roots):
        latest = 0
        todo = list(root.members)
        for count, at in enumerate(todo):
            latest = max(latest, messages.arrivals[at])
            todo += children.get(at, ())
            if count % _PART == _PART - 1:
                yield
        newest.append(latest)
        if number % _PART == _PART - 1:
            yield
    order = yield from stable_sort(list(range(len(roots))), newest)
    return Forest([roots[at].members for at in order], children)


def _build(messages: Threaded) -> Work[tuple[list[Root], dict[int, list[int]], list[int]]]:
    """Do steps 1 to 4: the threads in order, the children of each message in order, and the rank of each by date."""
    count = len(messages.dates)
    links = _Links(count)
    yield from links.add_all(messages)
    rank = ranks((yield from stable_sort(list(range(count)), messages.dates)))
    top: list[int] = []
    """Messages without a parent or dummy above them."""
    groups: dict[int, list[int]] = {}
    """Messages below each dummy without a parent."""
    children: dict[int, list[int]] = {}
    for at in range(count):
        above = links.promoted(at)
        if above < 0:
            top.append(at)
        elif above >= count:
            groups.setdefault(above, []).append(at)
        else:
            children.setdefault(above, []).append(at)
        if at % _PART == _PART - 1:
            yield
    place = rank.__getitem__
    for number, siblings in enumerate((*children.values(), *groups.values())):
        siblings.sort(key=place)
        if number % _PART == _PART - 1:
            yield
    roots = [Root((at,)) for at in top] + [Root(tuple(group)) for group in groups.values()]
    roots.sort(key=lambda root: rank[root.members[0]])
    return roots, children, rank


class _Links:
    """The parents of nodes (step 1)."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._parents = [-1] * count
        self._has_children = bytearray(count)
        self._groups = list(range(count))
        """By node, another node of the same group, or the node itself: nodes of two groups never were in one tree."""
        self._nodes: dict[str, int] = {}
        """By message ID."""
        self._steps = 0

    def add_all(self, messages: Threaded) -> Work[None]:
        """Link all messages. Raises: LimitReached."""
        nodes = self._nodes
        for at, own in enumerate(messages.message_ids):
            if own:
                # A later message with the same ID has one of its own that nobody names.
                nodes.setdefault(own, at)
        yield
        for at, text in enumerate(messages.references):
            if text:
                self._add(at, text.split("\n"))
            elif self._parents[at] >= 0:
                self._parents[at] = -1
            if at % _PART == _PART - 1 or len(text) > _PART:
                yield

    def _add(self, at: int, references: Sequence[str]) -> None:
        """Do steps 1.A and 1.B for a message."""
        before = -1
        for each in references:
            node = self._nodes.get(each)
            if node is None:
                node = self._add_dummy(each)
            if before >= 0 and self._parents[node] < 0:
                self._link(before, node)
            before = node
        if self._parents[at] != before:
            self._parents[at] = -1
            self._link(before, at)

    def _add_dummy(self, message_id: str) -> int:
        node = len(self._parents)
        if node - self._count >= MAX_IDS:
            raise LimitReached("the messages refer to too many others: thread fewer of them")
        self._nodes[message_id] = node
        self._parents.append(-1)
        self._has_children.append(0)
        self._groups.append(node)
        return node

    def _link(self, parent: int, node: int) -> None:
        """Make one the parent of the other, which has none, unless that would close a circle."""
        if parent == node:
            return
        first, second = self._group(parent), self._group(node)
        if first == second:
            if self._has_children[node] and self._is_below(parent, node):
                return
        else:
            self._groups[second] = first
        self._parents[node] = parent
        self._has_children[parent] = 1

    def _group(self, node: int) -> int:
        groups = self._groups
        while groups[node] != node:
            groups[node] = node = groups[groups[node]]
        return node

    def _is_below(self, node: int, ancestor: int) -> bool:
        parents = self._parents
        steps = self._steps
        while node >= 0 and node != ancestor:
            node = parents[node]
            steps += 1
        self._steps = steps
        if steps > MAX_STEPS:
            raise LimitReached("the references are nested too deeply: thread fewer messages")
        return node == ancestor

    def promoted(self, at: int) -> int:
        """Do step 3: the message above one, the dummy that has no parent, or -1."""
        parents, count = self._parents, self._count
        above = parents[at]
        if above < count:
            return above
        passed = []
        while above >= count and parents[above] >= 0:
            passed.append(above)
            above = parents[above]
        for dummy in passed:
            # The next one takes the short way.
            parents[dummy] = above
        return above
