"""Who would be shut out by a change, as far as is known from what their clients have done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from attrs import frozen

from mailserver.ledger.entry import Entry, Seen

GONE: Final = 2 * 86400
"""Seconds of another way alone after which a client has gone over to it: before, there may be two of a kind."""

_VERSIONS: Final = {"TLSv1": 10, "TLSv1.1": 11, "TLSv1.2": 12, "TLSv1.3": 13}

Change = Callable[[Entry], bool]
"""Does the change shut out a connection like this one?"""


def minimum_version(version: str) -> Change:
    """[tls] minimum_version = "1.3". Who uses no TLS is not concerned."""
    least = _VERSIONS[f"TLSv{version}"]
    return lambda entry: bool(entry.version) and _VERSIONS.get(entry.version, 0) < least


def close_port(port: int) -> Change:
    """No listener there any more."""
    return lambda entry: entry.port == port


def drop_name(name: str, staying: Collection[str] = ()) -> Change:
    """A host name, or a pattern with one label's *, that is served no more; what is `staying` may cover the same."""
    name = name.lower().rstrip(".")

    def shuts_out(entry: Entry) -> bool:
        asked, parent = entry.server_name, f"*.{entry.server_name.partition('.')[2]}"
        return name in (asked, parent) and asked not in staying and parent not in staying

    return shuts_out


def drop_mechanism(mechanism: str) -> Change:
    """[auth] mechanisms without it; or neither the command LOGIN of IMAP nor USER of POP3, which have those names."""
    return lambda entry: entry.mechanism == mechanism.upper()


@frozen
class Affected:
    """One client of an account."""

    seen: Seen
    """How it was last seen in a way that would no longer work."""
    other_way: int | None
    """When the same client was last seen in a way that still works, if it has gone over to that; Unix time."""

    @property
    def breaks(self) -> bool:
        """False where it may just go on the other way."""
        return self.other_way is None


def affected(seen: Iterable[Seen], change: Change) -> list[Affected]:
    """By account and client: those with a way in that the change takes away. Who goes for sure comes first.

    A client is a program of an account with one service (a program of IMAP's ID; one that has not said is one).
    """
    ways: dict[tuple[str, str, str], list[Seen]] = {}
    for each in seen:
        service = each.entry.protocol.removesuffix("s")
        ways.setdefault((each.entry.account, each.entry.program, service), []).append(each)
    found = []
    for own in ways.values():
        taken = [each for each in own if change(each.entry)]
        if not taken:
            continue
        newest = max(taken, key=lambda each: each.last)
        left = max((each.last for each in own if not change(each.entry)), default=None)
        found.append(Affected(newest, left if left is not None and left - newest.last >= GONE else None))
    found.sort(key=lambda each: (not each.breaks, each.seen.entry.account, -each.seen.last))
    return found
