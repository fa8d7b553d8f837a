"""What a probe has found wrong."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen


@frozen
class Finding:
    """One fault. Equal ones of several places are one."""

    code: str
    """The kind, in a word: "expired"."""
    subject: str
    """The host name, file or domain that it is about."""
    words: str
    """What is wrong and what to do."""
    warning: bool = False
    """Clients are served all the same."""
    place: str = field(default="", eq=False)
    """Where it was seen; empty if it is of no listener."""


def gathered(findings: Iterable[Finding]) -> dict[Finding, list[str]]:
    """Each fault once, with the places where it was seen; faults before warnings."""
    found: dict[Finding, dict[str, None]] = {}
    for each in sorted(findings, key=lambda finding: finding.warning):
        seen = found.setdefault(each, {})
        if each.place:
            seen[each.place] = None
    return {each: list(seen) for each, seen in found.items()}
