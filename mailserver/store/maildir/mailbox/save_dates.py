"""The save date of a message (RFC 8514): the time in the base of its file's name.

maildir(5) has a name begin with the second of the delivery. This server, as Dovecot, gives a message a new base whenever it
comes into a mailbox, by delivery, APPEND, COPY or MOVE, and never changes it afterwards. So the date needs no record of its
own, survives the index, backups and a change of the server, and is the same for all programs. Dovecot's own SAVEDATE of a
Maildir is the file's ctime, which each change of flags renews once its cache is lost.

A name of another program that begins with no time has the INTERNALDATE instead, as RFC 8514 4.3 has it where there is no
save date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from mailserver.store.rows import Row
from mailserver.types import UID

_TIME: Final = re.compile(rb"([0-9]{9,10})\.")
"""From 1973 to 2286: shorter and longer numbers are no times."""


def save_dates(
    names: Sequence[tuple[UID, int, bytes]], measure_dates: Callable[[list[UID]], Sequence[Row]]
) -> dict[UID, int]:
    """Return the save dates of files: (uid, place, name), by rising UID.

    `measure_dates` takes UIDs, and returns rows with known INTERNALDATEs of those that exist.
    """
    found: dict[UID, int] = {}
    others: list[UID] = []
    for uid, _place, name in names:
        time = _TIME.match(name)
        if time is None:
            others.append(uid)
        else:
            found[uid] = int(time[1])
    if not others:
        return found
    found.update((row.uid, row.date) for row in measure_dates(others))
    return dict(sorted(found.items()))
