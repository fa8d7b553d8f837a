"""Walks over a query tree."""

from __future__ import annotations

from mailserver.store.query import All, And, HasFlag, InUIDs, Not, Or, Query, leaves, substituted

SEEN, DRAFT = HasFlag("\\Seen"), HasFlag("\\Draft")
TREE = And((SEEN, Not(Or((DRAFT, All()))), And(()), Not(Not(SEEN))))


def test_leaves_are_the_keys_without_parts() -> None:
    found = list(leaves(TREE))
    assert sorted(map(str, found)) == sorted(map(str, (SEEN, SEEN, DRAFT, All())))
    assert list(leaves(DRAFT)) == [DRAFT]


def test_leaves_of_a_deep_tree_need_no_recursion() -> None:
    tree: Query = SEEN
    for _ in range(100_000):
        tree = Not(tree)
    assert list(leaves(tree)) == [SEEN]


def test_each_leaf_is_substituted_in_its_place() -> None:
    one = InUIDs(((1, 1),))
    assert substituted(TREE, lambda key: one if key == SEEN else key) == And(
        (one, Not(Or((DRAFT, All()))), And(()), Not(Not(one)))
    )
    assert substituted(TREE, lambda key: key) == TREE
