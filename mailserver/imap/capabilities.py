"""A capability of IMAP: one declaration beside the code that keeps its promise, named by the rows of the commands that it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import frozen

from mailserver.session.command_table import module_path


@frozen
class Capability:
    """A token of the CAPABILITY response (RFC 3501 7.2.1)."""

    token: str
    """As it is listed; without its value where `offer` gives one."""
    reference: str
    """The RFC or draft that defines it."""
    module: str
    """`__name__` of the module that declares it."""
    transcript: str
    """The file of tests/transcripts/imap to read first."""
    offer: Callable[[Any], Sequence[str]] | None = None
    """Takes the session; returns the tokens that it lists now. None: the token, at any time, as clients ask before login, too."""
    enable: Callable[[Any], None] | None = None
    """Takes the session; called when ENABLE names the token for the first time (RFC 5161). None: there is nothing to enable."""
    only_unselected: bool = False
    """ENABLE refuses the token while a mailbox is selected."""
    when: str = ""
    """When `offer` lists it, in words."""
    setting: str = ""
    """The key of [imap] that switches it on and off, where there is one."""


def declared(rows: Iterable[Sequence[Capability]]) -> tuple[Capability, ...]:
    """Each capability of the rows once, in their order."""
    return tuple(dict.fromkeys(each for row in rows for each in row))


def describe_capabilities(capabilities: Iterable[Capability]) -> list[tuple[str, str, str, str, str]]:
    """For each by its token: the token, when it is listed, its reference, its file ("imap/commands/idle.py"), its transcript."""
    return [
        (each.token, _listed(each), each.reference, module_path(each.module), each.transcript)
        for each in sorted(capabilities, key=lambda each: each.token)
    ]


def _listed(capability: Capability) -> str:
    return "always" if capability.offer is None else capability.when or "by state"
