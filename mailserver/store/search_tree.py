"""A query compiled for a stack machine: trees may be deep, and equal keys in them are searched for once."""

from __future__ import annotations

from mailserver.store.query import All, And, Leaf, Not, Or, Query


def compile_tree(query: Query) -> tuple[list[int | type], list[Leaf]]:
    """Compile the tree into steps: a leaf's number, or And, Or, Not. Without recursion; equal leaves are one."""
    program: list[int | type] = []
    numbers: dict[Leaf, int] = {}
    todo: list[Query | type] = [query]
    while todo:
        node = todo.pop()
        if isinstance(node, type):
            program.append(node)
        elif isinstance(node, Not):
            todo += (Not, node.part)
        elif isinstance(node, And | Or) and node.parts:
            # Joined two by two, so that the stack stays low for a wide node.
            kind = And if isinstance(node, And) else Or
            first, *others = node.parts
            for part in reversed(others):
                todo += (kind, part)
            todo.append(first)
        elif isinstance(node, Or):
            todo += (Not, All())
        else:
            leaf = All() if isinstance(node, And) else node
            program.append(numbers.setdefault(leaf, len(numbers)))
    return program, list(numbers)
