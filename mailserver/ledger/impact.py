"""Predicting which clients a change would shut out, from how they have connected."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from attrs import frozen

from mailserver.ledger.entry import Entry, SeenEntry, mechanism_of

GONE: Final = 2 * 86400
"""Seconds of working connections alone after which a client counts as switched: a shorter time may be a second device."""

_VERSIONS: Final = {"TLSv1": 10, "TLSv1.1": 11, "TLSv1.2": 12, "TLSv1.3": 13}

Change = Callable[[Entry], bool]
"""Would the change refuse a connection like this one?"""


def minimum_version(version: str) -> Change:
    """[tls] minimum_version = "1.3". Connections without TLS are not affected."""
    least = _VERSIONS[f"TLSv{version}"]
    return lambda entry: bool(entry.version) and _VERSIONS.get(entry.version, 0) < least


def close_port(port: int) -> Change:
    """Remove the listener at a port."""
    return lambda entry: entry.port == port


def drop_name(name: str, staying: Collection[str] = ()) -> Change:
    """Stop serving a host name or a pattern; a remaining name (`staying`) may cover the same."""
    name = name.lower().rstrip(".")

    def shuts_out(entry: Entry) -> bool:
        asked, parent = entry.server_name, f"*.{entry.server_name.partition('.')[2]}"
        return name in (asked, parent) and asked not in staying and parent not in staying

    return shuts_out


def drop_mechanism(mechanism: str) -> Change:
    """Remove a mechanism from [auth] mechanisms; LOGIN of IMAP and USER of POP3 are named like mechanisms."""
    return lambda entry: mechanism_of(entry) == mechanism.upper()


@frozen
class Affected:
    """One affected client of an account."""

    seen: SeenEntry
    """The last connection that the change would refuse."""
    other_way: int | None
    """Unix time of the last connection that would still work, if the client has switched to that."""

    @property
    def breaks(self) -> bool:
        """Will the client stop working? False if it has switched already."""
        return self.other_way is None


def affected(seen: Iterable[SeenEntry], change: Change) -> list[Affected]:
    """Return the clients with connections that the change would refuse; those that stop working come first.

    A client is a program of an account with one service (the program of IMAP's ID; all without an ID count as one).
    """
    ways: dict[tuple[str, str, str], list[SeenEntry]] = {}
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
