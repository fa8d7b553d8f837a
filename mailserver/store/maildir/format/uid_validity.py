"""UIDVALIDITY of new mailboxes: Dovecot's counter of an account, `dovecot-uidvalidity`.

The counter is a file with the last value in eight hex digits and an empty file that has it in its name. A mailbox that
is deleted and made again must get another value (RFC 3501 2.3.1.1), or a client takes the old messages for the new.
"""

from __future__ import annotations

import os
import re
import time

from mailserver.store.maildir.disk import safeio
from mailserver.types import UIDValidity

FILE_NAME = "dovecot-uidvalidity"


def new_uid_validity(floor: int = 0) -> UIDValidity:
    """Return the time in seconds, or a value above `floor` where there is room, 1 to 2**32 - 1 (RFC 3501 2.3.1.1)."""
    now = max(1, int(time.time()) & 0xFFFFFFFF)
    return UIDValidity(max(now, floor + 1) if floor < 0xFFFFFFFF else now)


def next_uid_validity(root: str) -> UIDValidity:
    """Return a value for a new mailbox, durably: above all earlier ones of this account.

    The caller holds the account's lock. Raises: NoSpace, StoreUnavailable.
    """
    path = os.path.join(root, FILE_NAME)
    last: str | None = None
    try:
        text = safeio.read_file(path)[:9].strip()
        if re.fullmatch(rb"[0-9a-f]{8}", text):
            last = text.decode("ascii")
    except FileNotFoundError:
        pass
    values = [int(last, 16)] if last else []
    names = [f"{FILE_NAME}.{last}"] if last and os.path.lexists(f"{path}.{last}") else []
    if not names:
        # The two differ, or there is no counter: only then is the directory read, which has every folder.
        prefix = FILE_NAME + "."
        with safeio.boundary():
            names = [name for name in os.listdir(root) if re.fullmatch(re.escape(prefix) + "[0-9a-f]{8}", name)]
        values += [int(name[len(prefix) :], 16) for name in names]
    value = new_uid_validity(max(values, default=0))
    _write(path, b"%08x" % value)
    target = f"{path}.{value:08x}"
    if names:
        safeio.rename(os.path.join(root, max(names)), target)
    else:
        os.close(safeio.open_new(target, 0o444))
    safeio.sync_directory(root)
    return value


def _write(path: str, text: bytes) -> None:
    """Replace the file without a sync. If a power cut spoils it, the other file's name counts, which is synced."""
    temporary = safeio.temporary_name(path)
    fd = safeio.open_new(temporary)
    try:
        try:
            safeio.write(fd, text)
        finally:
            os.close(fd)
        safeio.rename(temporary, path)
    except BaseException:
        safeio.discard(temporary)
        raise
