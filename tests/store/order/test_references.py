"""THREAD=REFERENCES, REFS and ORDEREDSUBJECT, against naive implementations of RFC 5256 3."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailserver.errors import LimitReached
from mailserver.store.order import references
from mailserver.store.order.forest import Forest
from mailserver.store.order.references import Threaded, thread_by_references, thread_by_refs
from mailserver.store.order.steps import Steps, Work
from mailserver.store.order.subjects import thread_by_subject

Tree = Any
"""A position with its children, (position, [trees]); None in place of the position of a dummy."""


def run(work: Work[Forest]) -> Forest:
    steps = Steps(work)
    while not steps.step():
        pass
    return steps.result


def trees(forest: Forest) -> list[Tree]:
    def tree(at: int) -> Tree:
        return at, [tree(child) for child in forest.children.get(at, ())]

    return [tree(members[0]) if len(members) == 1 else (None, [tree(at) for at in members]) for members in forest.roots]


class Node:
    """A message or a dummy, linked both ways."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.parent: Node | None = None
        self.children: list[Node] = []

    def unlink(self) -> None:
        if self.parent is not None:
            self.parent.children.remove(self)
            self.parent = None

    def adopt(self, child: Node) -> None:
        child.unlink()
        child.parent = self
        self.children.append(child)

    def is_below(self, other: Node) -> bool:
        node: Node | None = self
        while node is not None:
            if node is other:
                return True
            node = node.parent
        return False


def naive_links(messages: Threaded) -> list[Node]:
    """Steps 1 to 3; the nodes without parents."""
    count = len(messages.dates)
    nodes = [Node(at) for at in range(count)]
    table: dict[str, Node] = {}
    for at, own in enumerate(messages.message_ids):
        if own:
            table.setdefault(own, nodes[at])
    everybody = list(nodes)
    for at, text in enumerate(messages.references):
        named = []
        for each in text.split("\n") if text else []:
            if each not in table:
                table[each] = Node()
                everybody.append(table[each])
            named.append(table[each])
        for parent, child in pairwise(named):
            if child.parent is None and not parent.is_below(child):
                parent.adopt(child)
        node = nodes[at]
        if named:
            if node.parent is not named[-1]:
                node.unlink()
                if not named[-1].is_below(node):
                    named[-1].adopt(node)
        else:
            node.unlink()

    def prune(node: Node) -> list[Node]:
        node.children = [kept for child in list(node.children) for kept in prune(child)]
        return node.children if node.at is None else [node]

    roots = []
    for root in [node for node in everybody if node.parent is None]:
        root.children = [kept for child in list(root.children) for kept in prune(child)]
        if root.at is not None or len(root.children) > 1:
            roots.append(root)
        else:
            roots += root.children
    return roots


def naive_references(messages: Threaded) -> list[Tree]:
    """Steps 1 to 6 on linked nodes."""

    def key(node: Node) -> tuple[int, int]:
        at = node.children[0].at if node.at is None else node.at
        return messages.dates[at], at

    def subject(node: Node) -> str:
        return messages.subjects[node.children[0].at if node.at is None else node.at]

    def is_reply(node: Node) -> bool:
        return node.at is not None and messages.replies[node.at]

    roots = naive_links(messages)
    for root in roots:
        if root.at is None:
            root.children.sort(key=key)
    roots.sort(key=key)
    table: dict[str, Node] = {}
    for root in roots:
        text = subject(root)
        if not text:
            continue
        known = table.setdefault(text, root)
        if known.at is not None and (root.at is None or (is_reply(known) and not is_reply(root))):
            table[text] = root
    subjects = {id(root): subject(root) for root in roots}
    top = list(roots)
    for root in roots:
        text = subjects[id(root)]
        if not text or root not in top or table[text] is root:
            continue
        known = table[text]
        top.remove(root)
        if known.at is None and root.at is None:
            known.children += root.children
        elif known.at is None or (is_reply(root) and not is_reply(known)):
            known.children.append(root)
        else:
            dummy = Node()
            dummy.children = [root, known]
            top[top.index(known)] = dummy
            table[text] = dummy

    def sort(node: Node) -> None:
        for child in node.children:
            sort(child)
        node.children.sort(key=key)

    for root in top:
        sort(root)
    top.sort(key=key)
    return [shown(root) for root in top]


def naive_refs(messages: Threaded) -> list[Tree]:
    def key(node: Node) -> tuple[int, int]:
        at = node.children[0].at if node.at is None else node.at
        return messages.dates[at], at

    def sort(node: Node) -> None:
        for child in node.children:
            sort(child)
        node.children.sort(key=key)

    def newest(node: Node) -> int:
        own = [] if node.at is None else [messages.arrivals[node.at]]
        return max(own + [newest(child) for child in node.children])

    roots = naive_links(messages)
    for root in roots:
        sort(root)
    roots.sort(key=key)
    roots.sort(key=newest)
    return [shown(root) for root in roots]


def shown(node: Node) -> Tree:
    return node.at, [shown(child) for child in node.children]


IDS = [f"{letter}@x" for letter in "abcdefgh"]


@st.composite
def mailboxes(draw: st.DrawFn) -> Threaded:
    count = draw(st.integers(0, 9))
    some = st.lists(st.sampled_from(IDS), max_size=4).map("\n".join)
    each = st.tuples(
        st.sampled_from(["", *IDS]),
        some,
        st.integers(0, 5),
        st.sampled_from(["", "S", "T"]),
        st.booleans(),
        st.integers(0, 5),
    )
    rows = draw(st.lists(each, min_size=count, max_size=count))
    columns = list(zip(*rows, strict=True)) or [()] * 6
    return Threaded(*columns)


@given(mailboxes())
def test_references_are_as_the_steps_say(messages: Threaded) -> None:
    assert trees(run(thread_by_references(messages))) == naive_references(messages)


@given(mailboxes())
def test_refs_are_as_the_steps_say(messages: Threaded) -> None:
    assert trees(run(thread_by_refs(messages))) == naive_refs(messages)


@given(mailboxes())
def test_ordered_subjects_are_as_they_say(messages: Threaded) -> None:
    order = sorted(range(len(messages.dates)), key=lambda at: (messages.subjects[at], messages.dates[at], at))
    threads: dict[str, list[int]] = {}
    for at in order:
        threads.setdefault(messages.subjects[at], []).append(at)
    expected = sorted(threads.values(), key=lambda thread: (messages.dates[thread[0]], thread[0]))
    found = trees(run(thread_by_subject(messages.subjects, messages.dates)))
    assert found == [(thread[0], [(at, []) for at in thread[1:]]) for thread in expected]


def made(ids: Sequence[str], references_: Sequence[str]) -> Threaded:
    count = len(ids)
    return Threaded(ids, references_, range(count), [""] * count, [False] * count, range(count))


@pytest.mark.parametrize("step", [1, -1])
def test_a_chain_of_ten_thousand_replies(step: int) -> None:
    count = 10_000
    ids = [f"{number}@x" for number in range(count)]
    parents = [f"{number - step}@x" if 0 <= number - step < count else "" for number in range(count)]
    forest = run(thread_by_references(made(ids, parents)))
    assert len(forest.roots) == 1
    assert len(forest.children) == count - 1


def test_a_circle_of_ten_thousand_replies() -> None:
    count = 10_000
    ids = [f"{number}@x" for number in range(count)]
    forest = run(thread_by_references(made(ids, [f"{(number + 1) % count}@x" for number in range(count)])))
    assert len(forest.roots) == 1
    assert sum(map(len, forest.children.values())) == count - 1


def test_references_of_ten_thousand_ids_nobody_has() -> None:
    long = "\n".join(f"{number}@x" for number in range(10_000))
    forest = run(thread_by_references(made(["a@y", "b@y"], [long, long])))
    assert forest.roots == [(0, 1)]


def test_work_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = "\n".join(f"{number}@x" for number in range(1000))
    # The last link would close a circle, again and again.
    circles = "\n".join(["999@x", "0@x"] * 500)
    messages = made(["a@y"] * 10, [chain, *[circles] * 9])
    run(thread_by_references(messages))
    monkeypatch.setattr(references, "MAX_STEPS", 100_000)
    with pytest.raises(LimitReached):
        run(thread_by_references(messages))
    monkeypatch.setattr(references, "MAX_IDS", 500)
    with pytest.raises(LimitReached):
        run(thread_by_references(messages))
