"""The annotations of an account and of its mailboxes (RFC 5464), in files of their own.

A change raises the mailbox's modseq (RFC 7162 3.2). The file is written last: a modseq that was raised in vain does no harm. The
mtime of the uidlist is moved, too, so that kept statuses of all workers, which compare stats alone, do not hold any more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from mailserver.errors import NoSuchMailbox
from mailserver.store.annotations import AnnotationChange, Annotations, merge
from mailserver.store.index.database import next_modseq
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format import annotation_file, uidlist
from mailserver.store.maildir.home import folders
from mailserver.store.maildir.home.home import Home
from mailserver.store.maildir.sync.reconcile import sync_uidlist
from mailserver.types import MailboxId


def read(home: Home, name: str | None) -> Annotations:
    """Return those of a mailbox, or of the account. Raises: NoSuchMailbox, BadMailboxName, StoreUnavailable."""
    found = annotation_file.read(_path(home, name))
    if found is None and name is not None and not home.layout.exists(name):
        raise folders.missing(name)
    return found or {}


def stamp(home: Home, name: str | None) -> uidlist.Signature | None:
    """Return the signature of the file; None without one. Raises: BadMailboxName, StoreUnavailable."""
    return uidlist.signature(_path(home, name))


def change(
    home: Home, name: str | None, changes: Mapping[str, bytes | None], most: int
) -> AnnotationChange | None:  # fmt: skip
    """Change those of a mailbox, or of the account, all or none. Under the account's lock.

    Return None if nothing differs. Raises: as `read`, and TooManyAnnotations, InUse, NoSpace.
    """
    merged, entries = merge(read(home, name), changes, most)
    if not entries:
        return None
    guid = None if name is None else _raise_modseq(home, name)
    safeio.point("annotate.before-file")
    try:
        annotation_file.write(_path(home, name), merged)
    except FileNotFoundError as error:
        raise NoSuchMailbox from error
    return AnnotationChange(guid, entries)


def copy(home: Home, source: str, target: str) -> None:
    """Give a new mailbox the annotations of another one. Raises: as `change`."""
    found = read(home, source)
    if found:
        annotation_file.write(_path(home, target), found)


def _raise_modseq(home: Home, name: str) -> MailboxId:
    state = sync_uidlist(home, name)
    path = home.paths(name).uidlist
    try:
        opened = safeio.open_existing(path, os.O_RDWR)
        try:
            safeio.set_mtime(opened, time.time_ns())
        finally:
            os.close(opened)
    except FileNotFoundError as error:
        raise NoSuchMailbox from error
    signature = uidlist.signature(path)
    if signature is not None and signature[:3] == state.uidlist_signature[:3]:
        # Otherwise another program has just written the list: it is read again.
        state.uidlist_signature = signature
    state.modseq = next_modseq(state.modseq)
    home.update(lambda index: index.mailboxes.save(state))
    return state.guid


def _path(home: Home, name: str | None) -> str:
    if name is None:
        return os.path.join(home.root, annotation_file.ACCOUNT_FILE_NAME)
    return os.path.join(home.paths(name).directory, annotation_file.FILE_NAME)
