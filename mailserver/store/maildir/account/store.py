"""All accounts on disk: the Maildir of a user's name, made when it is new."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mailserver.errors import InUse, MailError, NoSpace, NoSuchUser, StoreUnavailable
from mailserver.message.summary import Summary
from mailserver.store.interfaces import Bounds
from mailserver.store.maildir.account import relocation
from mailserver.store.maildir.account.account import MaildirAccount, is_account
from mailserver.store.maildir.disk import directories, reserved_space, safeio
from mailserver.store.maildir.format.names import PLAIN, LevelEncoding
from mailserver.store.maildir.format.uid_validity import new_uid_validity
from mailserver.store.maildir.home import unsynced
from mailserver.store.maildir.home.folders import INBOX, Layout
from mailserver.store.maildir.home.settings import Settings
from mailserver.types import DirectoryId

LOCATION: Final = "{root}/{domain}/{local}/Maildir"
SPECIAL_USE: Final = {"Drafts": "Drafts", "Sent": "Sent", "Junk": "Junk", "Trash": "Trash", "Archive": "Archive"}
_LONGEST = 255
_OURS: Final = "mailserver-"
"""Beginnings of the names of files beside the accounts: the reserved space, the spool."""
_UNFINISHED: Final = "mailserver-new."
_ABANDONED_AFTER: Final = 3600.0
"""Seconds after which an unfinished account counts as abandoned."""


class MaildirStore:
    """Implements `store.interfaces.Store`.

    `location` is a template of {root}, {user}, {local}, {domain}, {home}. `special_use` has folder names by use; the
    first is made with an account. `summarise` renders a message as sent (message.render.summarise). `search_index`
    makes a text index of each mailbox whose text is searched.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        summarise: Callable[[bytes], Summary],
        *,
        location: str = LOCATION,
        special_use: Mapping[str, str | Sequence[str]] = SPECIAL_USE,
        encoding: LevelEncoding = PLAIN,
        hostname: str | None = None,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        search_index: bool = True,
        root_seen: DirectoryId | None = None,
        quota_warnings: Sequence[int] = (),
        decided: Callable[[str], bool] | None = None,
    ) -> None:
        """`root_seen`: the root when the server started, if that is not now. `quota_warnings`: percentages.

        `decided` tells whether a token of prepared messages was decided, and may raise; see `receiving.Prepared`. It
        blocks, in any thread. Without it such messages of dead processes stay as they are.
        """
        self._root = os.fspath(root)
        self._location = location
        uses = {use: (names,) if isinstance(names, str) else tuple(names) for use, names in special_use.items()}
        self._settings = Settings(
            summarise,
            hostname or socket.gethostname(),
            self._root,
            encoding,
            bounds,
            search_index,
            uses,
            tuple(quota_warnings),
            decided,
        )
        self._tidied: set[str] = set()
        with safeio.boundary():
            self._root_seen = root_seen or DirectoryId.of(self._root)

    def account(self, user: str, home: str | None = None) -> MaildirAccount:
        """Open the account, making its directories and special-use folders if it is new.

        Raises: NoSuchUser for a name that no directory can have, NoSpace, StoreUnavailable.
        """
        root = self.path(user, home)
        new = not is_account(root)
        if new and "{root}" in self._location:
            self._expect_root()
        reserved_space.ensure(self._root)
        if new:
            try:
                self._make(user, root)
            except NoSpace:
                if not reserved_space.release(self._root):
                    raise
                self._make(user, root)
        account = MaildirAccount(user, root, self._settings)
        if root not in self._tidied:
            # A process that holds the lock that long has done so, or will be followed by another start.
            with contextlib.suppress(InUse):
                account.tidy()
                self._tidied.add(root)
        return account

    def existing(self, user: str, home: str | None = None) -> MaildirAccount | None:
        """Return the account as it is, None without one: for commands beside a server, which keeps it tidy.

        Raises: NoSuchUser.
        """
        root = self.path(user, home)
        return MaildirAccount(user, root, self._settings) if is_account(root) else None

    def move(self, user: str, home: str | None, target: str) -> bool:
        """Move a user's mail to another path and leave the marker of `relocation`. Return whether there was any.

        An interrupted move is continued. Another user's mail at that path refuses it, also for a user without mail.
        Raises: PlaceTaken, NoSuchUser, InUse, NoSpace, StoreUnavailable.
        """
        source = self.path(user, home)
        if relocation.is_marker(source) and is_account(target):
            return True
        account = self.existing(user, home)
        if account is None:
            if is_account(target):
                raise relocation.PlaceTaken(target)
            return False
        try:
            account.move_to(target)
        finally:
            account.close()
        return True

    def path(self, user: str, home: str | None = None) -> str:
        """Return the path of the account's Maildir, whether it exists or not. Raises: NoSuchUser."""
        local, at, domain = user.lower().rpartition("@")
        if not at:
            local, domain = domain, ""
        parts = {"user": user.lower(), "local": local, "domain": domain}
        for key, part in parts.items():
            if f"{{{key}}}" in self._location and not _is_component(part):
                raise NoSuchUser
        if "{home}" in self._location and not home:
            raise NoSuchUser
        path = self._location.format(root=self._root, home=home or "", **parts)
        return os.path.abspath(path)

    def _expect_root(self) -> None:
        """Refuse to make an account below a mount point without its file system: the next mount would hide its mail.

        Raises: StoreUnavailable if the root is another directory than before, without mail, or is gone.
        """
        with safeio.boundary():
            now = DirectoryId.of(self._root)
            # Files that any first message makes there are no mail.
            empty = now is None or all(name.startswith(_OURS) for name in os.listdir(self._root))
        if empty and self._root_seen not in {None, now}:
            raise StoreUnavailable("the mail root is not the directory that it was: its file system must be mounted")
        self._root_seen = now

    def _make(self, user: str, root: str) -> None:
        """Make a complete new account beside its place, then rename it there: nobody sees half of one."""
        parent = os.path.dirname(root)
        directories.make_directories(parent, top=self._root)
        _sweep(parent)
        unfinished = os.path.join(parent, _UNFINISHED + secrets.token_hex(8))
        try:
            Layout(unfinished).create(INBOX, new_uid_validity())
            new = MaildirAccount(user, unfinished, self._settings)
            new.set_up()
            new.close()
            # If the sync fails and cannot be undone, the next process that finds the account syncs it.
            unsynced.announce(unfinished, [parent])
            safeio.point("account.before-rename")
            with contextlib.suppress(OSError):
                # Another process may have been faster; or there is an empty directory.
                directories.rename_tree(unfinished, root)
                unsynced.announce(root, [])
        except MailError:
            directories.discard_tree(unfinished)
            raise
        directories.discard_tree(unfinished)
        if not is_account(root):
            # An existing directory that is no Maildir yet.
            new = MaildirAccount(user, root, self._settings)
            new.become_account(new_uid_validity())
            new.close()


def _sweep(parent: str) -> None:
    """Remove unfinished accounts of dead processes."""
    with safeio.boundary(), os.scandir(parent) as entries:
        old = [
            entry.path
            for entry in entries
            if entry.name.startswith(_UNFINISHED)
            and time.time() - entry.stat(follow_symlinks=False).st_ctime > _ABANDONED_AFTER
        ]
    for path in old:
        directories.remove_tree(path)


def _is_component(part: str) -> bool:
    """Tell whether it can be one directory's name, and no path."""
    return (
        part not in {"", ".", ".."}
        and "/" not in part
        and part.isprintable()
        and len(part.encode("utf-8", "replace")) <= _LONGEST
    )
