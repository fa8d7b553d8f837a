"""Threads as a forest of messages, which the THREAD response shows (RFC 5256 3)."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field


@define
class Forest:
    """Threads of the messages at positions 0 to n - 1."""

    roots: list[Sequence[int]]
    """The threads in order: one position for a thread that begins with a message; several for messages without their
    common parent, in order.
    """
    children: dict[int, list[int]] = field(factory=dict)
    """The children of each position that has some, in order."""
