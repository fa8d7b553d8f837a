"""Scans of new/ and cur/, and how far their results can be trusted.

Problems, all made by other programs:

*   They deliver into new/ by rename or link from tmp/, and move from new/ to cur/, at any moment.
*   They rename in cur/ to change flags. readdir(3) promises nothing about names that change meanwhile: a message may
    appear under its old name, under both, or not at all.
*   One message may be in new/ and cur/ at once, or twice in cur/ with different letters (an interrupted copy, a restored
    backup, two programs that each set a flag).
*   A second change within one tick of the kernel's clock (4 ms on some) may not move a directory's mtime: equal mtimes
    prove something only when they are old.
*   A file system may have no types in its directory entries, or only seconds in its times.
*   FIFOs, sockets, devices, directories and links lie among the files. Some cannot be opened, some would block for ever.
*   Sizes in names (S=, W=) may be wrong (`store.name_sizes`), dates in names too. A restored backup changes inode and ctime.
*   Messages are removed, and restored later under the same name. The UID is the same only if the list still has it.
*   A mailbox may be deleted and made anew between two calls.

Rules:

*   The mtimes are read before the names, new/ before cur/. So a move from new/ to cur/ is seen at least once, and a later
    change shows by its mtime.
*   If a mtime moves while the names are read, they are read again, a few times. `stable` tells whether a reading was
    quiet. If none was, everything that any reading saw and that still exists counts. A message that is missing from an
    unstable scan may still exist, so it is not expunged.
*   A mtime is recorded with the time of its reading. If these are within RACY_NS, it proves nothing (`racy`).
*   Only regular files count, by the entry's type, without opening or following. Names that begin with "." are not mail,
    nor are names with a line feed before the first ":": a uidlist cannot have them, and Dovecot drops a list with a
    broken line.
*   If a base occurs twice, one in cur/ counts before one in new/, and of two in cur/ the one with more flags. The other
    is reported, and left alone.

Rejected: a stat of each file (100,000 of them cost more than the rest of a first SELECT), and trusting inotify alone
(queues overflow, and it misses changes on network file systems).
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from mailserver.store.index.records import RACY, SETTLED
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format.filename import base_of

_log = logging.getLogger(__name__)

RACY_NS = 1_000_000_000
"""A directory changed this shortly before it was read may have changed again without a newer mtime."""

_ATTEMPTS = 4
_LONG_ENTRY = 300
"""Octets of a directory for one file, at the very most. File systems that take less need a count."""


class TooManyFiles(Exception):
    """A directory has more files than may be read."""


class Found(NamedTuple):
    """The place of a message file."""

    place: str
    """"new" or "cur"."""
    name: str
    """Its file name there."""


class DirectoryScan(NamedTuple):
    """One directory as it was read."""

    names: list[str]
    """Regular files, in no order."""
    mtime_ns: int
    """The directory's mtime before the names were read."""
    racy: bool
    """The mtime is so fresh that an equal one later proves nothing."""
    stable: bool
    """The mtime was the same after the names had been read."""


def is_racy(mtime_ns: int, recorded_ns: int) -> bool:
    """Tell whether a mtime, read at `recorded_ns` (time.time_ns()), may hide a later change of the directory.

    A mtime from the future (a clock set back, another machine's clock) proves nothing either.
    """
    return mtime_ns > recorded_ns - RACY_NS


def directory_mtime(path: str) -> int:
    """Return the mtime in nanoseconds. Raises: FileNotFoundError, StoreUnavailable."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError as error:
        raise safeio.failure(error) from error


def is_unchanged(path: str, mtime_ns: int, trust: int) -> bool:
    """Tell whether a directory is still as it was with that mtime; see `records.SETTLED`.

    Raises: FileNotFoundError, StoreUnavailable.
    """
    if trust == RACY or directory_mtime(path) != mtime_ns:
        return False
    now = time.time_ns()
    return trust == SETTLED or now - RACY_NS < mtime_ns <= now


def scan_directory(path: str, most: int | None = None) -> list[str]:
    """Return the names of the regular files that may be mail, in no order.

    Raises: TooManyFiles if there are, or have been, more entries than `most`, FileNotFoundError, StoreUnavailable.
    """
    with safeio.boundary():
        if most is not None and os.stat(path).st_size > most * _LONG_ENTRY:
            raise TooManyFiles
    with safeio.boundary(), os.scandir(path) as entries:
        some = entries if most is None else islice(entries, most + 1)
        names = [entry.name for entry in some if entry.is_file(follow_symlinks=False) and entry.name[0] != "."]
        if most is not None and (len(names) > most or next(entries, None) is not None):
            raise TooManyFiles
    if "\n" in "".join(names):
        found, names = len(names), list(filter(can_be_listed, names))
        if len(names) < found:
            _tell(path)
    return names


def can_be_listed(name: str) -> bool:
    """Tell whether a file of that name can have a line in a uidlist."""
    return "\n" not in base_of(name)


@functools.lru_cache(maxsize=256)
def _tell(path: str) -> None:
    _log.warning("%r has files with a line feed in their names; clients do not see them until they are renamed", path)


def read_directory(path: str, most: int | None = None) -> DirectoryScan:
    """Read the names, and whether they can be trusted.

    Raises: TooManyFiles if there are more than `most`, FileNotFoundError, StoreUnavailable.
    """
    asked = time.time_ns()
    before = directory_mtime(path)
    seen: set[str] = set()
    for _ in range(_ATTEMPTS):
        names = scan_directory(path, most)
        again = time.time_ns()
        after = directory_mtime(path)
        if after == before:
            # Compared with the time before the names were read: a change meanwhile may have the same, coarse time.
            return DirectoryScan(names, before, is_racy(before, asked), stable=True)
        before, asked = after, again
        seen.update(names)
    names += [name for name in seen.difference(names) if os.path.lexists(os.path.join(path, name))]
    return DirectoryScan(names, before, racy=True, stable=False)


def bases_there(scans: Iterable[DirectoryScan]) -> set[str] | None:
    """Return the bases that have a file; None if a directory changed while it was read, as a name may be missing then."""
    bases: set[str] = set()
    for one in scans:
        if not one.stable:
            return None
        bases.update(name.partition(":")[0] for name in one.names)
    return bases


def classify(new_names: Iterable[str], cur_names: Iterable[str]) -> tuple[dict[str, Found], list[Found]]:
    """Return messages by base, and the duplicate files of them. The order of the names does not count."""
    # Made by tuple.__new__: there is one for each message of a mailbox.
    make = tuple.__new__
    listing = [make(Found, ("cur", name)) for name in cur_names]
    listing += [make(Found, ("new", name)) for name in new_names]
    messages = {found[1].partition(":")[0]: found for found in listing}
    if len(messages) == len(listing):
        return messages, []
    duplicates: list[Found] = []
    messages = {}
    for found in listing:
        base = found.name.partition(":")[0]
        known = messages.setdefault(base, found)
        if known is found:
            continue
        if found.place == known.place and (len(found.name), found.name) > (len(known.name), known.name):
            messages[base], found = found, known  # noqa: PLW2901
        duplicates.append(found)
    return messages, duplicates
