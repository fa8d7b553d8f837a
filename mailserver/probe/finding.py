"""Faults found by a probe."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen


@frozen
class Finding:
    """One fault. Equal faults at several places are one."""

    code: str
    """The kind, as one word: "expired"."""
    subject: str
    """The host name, file or domain concerned."""
    words: str
    """Text: the fault and its repair."""
    warning: bool = False
    """Are clients served all the same?"""
    place: str = field(default="", eq=False)
    """The listener address; empty if none is concerned."""


def gathered(findings: Iterable[Finding]) -> dict[Finding, list[str]]:
    """Merge equal faults, with the places where they were seen; faults come before warnings."""
    found: dict[Finding, dict[str, None]] = {}
    for each in sorted(findings, key=lambda finding: finding.warning):
        seen = found.setdefault(each, {})
        if each.place:
            seen[each.place] = None
    return {each: list(seen) for each, seen in found.items()}
