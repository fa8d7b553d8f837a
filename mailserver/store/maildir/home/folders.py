"""Maildir++ folders: a mailbox "A/B" is the directory `.A.B` beside cur/, new/ and tmp/ of INBOX, the root itself.

Problems: a name that is a path (`..`, `/`), that means the same as another (INBOX in other letters, a "." that is a
separator on disk, modified UTF-7 in two forms), or that is too long for a directory; directories that are no mailboxes;
links out of the account, or to another mailbox of it.

Rules: each level is checked before it becomes part of a path. A directory is listed only under the name that leads back
to it, and only if it is a real directory with a real cur/. Links are not followed. Our own names in the root never
begin with a dot, as Dovecot would list them. A mailbox is made under a name without a dot, and renamed when it is
complete. It is deleted by renaming it away first. So no mailbox is listed that cannot be opened.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import unicodedata
from collections.abc import Mapping
from types import MappingProxyType

from mailserver.errors import BadMailboxName, MailboxExists, MailError, NoSuchMailbox, StoreUnavailable
from mailserver.store.maildir.disk import directories, safeio
from mailserver.store.maildir.format import dotlocks, names, uid_validity, uidlist
from mailserver.store.maildir.home import intent
from mailserver.types import SLASH, MailboxId, UIDValidity

INBOX = "INBOX"
MAX_LEVELS = 32
MAX_BYTES = 255
"""Of a directory's name on disk."""
MARKER = "maildirfolder"
_PARTS = ("cur", "new", "tmp")
_UNFINISHED = "mailserver-new."
_DELETED = "mailserver-deleted."
_LEFTOVER = re.compile(
    rf"(({re.escape(uidlist.LOCK_NAME)}|{dotlocks.FILE_NAME})\.(.+\.)?[0-9]+\.[0-9a-f]{{16}}|.+\.[0-9]+\.[0-9]+\.tmp"
    rf"|{re.escape(uid_validity.FILE_NAME)}\.tmp)"
)
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff/]")


class Layout:
    """The paths of one account's mailboxes."""

    def __init__(self, root: str, encoding: names.LevelEncoding = names.PLAIN) -> None:
        """`root` is INBOX's directory.

        The root itself may be a link: sites move accounts. It is resolved once.
        """
        self.root = os.path.realpath(root)
        self._encoding = encoding

    def path(self, name: str) -> str:
        """Return the directory of a mailbox, whether it exists or not. Raises: BadMailboxName."""
        name = canonical(name)
        if name == INBOX:
            return self.root
        return os.path.join(self.root, self.directory_name(name))

    def directory_name(self, name: str) -> str:
        """Return `.A.B` for "A/B" (not for INBOX). Raises: BadMailboxName."""
        encoding = self._encoding
        if name.startswith("~") and not encoding.escape:
            # Dovecot does not open this name.
            raise BadMailboxName('the name begins with "~"')
        levels = canonical(name).split("/")
        if len(levels) > MAX_LEVELS:
            raise BadMailboxName("too many levels")
        for level in levels:
            check_level(level, escaped=bool(encoding.escape), slashes=encoding.slashes)
        directory = "." + ".".join(map(encoding.encode, levels))
        if len(directory.encode()) > MAX_BYTES:
            raise BadMailboxName("the name is too long")
        return directory

    def name(self, directory_name: str) -> str | None:
        """Return the mailbox name of a directory `.A.B`; None if no name leads to it."""
        if not directory_name.startswith("."):
            return None
        try:
            name = "/".join(map(self._encoding.decode, directory_name[1:].split(".")))
            if canonical(name) == INBOX or self.directory_name(name) != directory_name:
                return None
        except (ValueError, BadMailboxName):
            return None
        return name

    def mailboxes(self) -> list[str]:
        """Return the names of existing mailboxes, sorted, INBOX first. One readdir, and one lstat for each directory.

        Raises: StoreUnavailable, also when the account is gone.
        """
        return self.sorted_names(self.directories()[0])

    def directories(self, known: Mapping[str, str] = MappingProxyType({})) -> tuple[dict[str, str], list[str]]:
        """Return the mailboxes but INBOX, as directory name to mailbox name, and directories with such a name but without
        cur/.

        `known`: an earlier result, which spares the decoding of its names. Raises: as `mailboxes`.
        """
        found: dict[str, str] = {}
        incomplete = []
        try:
            with safeio.boundary():
                scan = os.scandir(self.root)
        except FileNotFoundError as error:
            raise missing(INBOX) from error
        prefix = os.path.join(self.root, "")
        with safeio.boundary(), scan as entries:
            for entry in entries:
                directory = entry.name
                if directory[0] != "." or not entry.is_dir(follow_symlinks=False):
                    continue
                name = known.get(directory) or self.name(directory)
                if name is None:
                    continue
                if _is_directory(f"{prefix}{directory}/cur"):
                    found[directory] = name
                else:
                    incomplete.append(directory)
        return found, incomplete

    def sorted_names(self, directories: Mapping[str, str]) -> list[str]:
        """Return the names of these directories, sorted, and INBOX first if it exists. Raises: StoreUnavailable."""
        names = sorted(directories.values())
        return [INBOX, *names] if is_mailbox(self.root) else names

    def has_room(self, more: int, limit: int) -> bool:
        """Tell whether so many more mailboxes stay within the limit. One readdir, far from the limit.

        Raises: StoreUnavailable.
        """
        with safeio.boundary():
            most = 1 + sum(name.startswith(".") for name in os.listdir(self.root))
        return most + more <= limit or len(self.mailboxes()) + more <= limit

    def exists(self, name: str) -> bool:
        """Tell whether it is a mailbox now. Raises: BadMailboxName."""
        return is_mailbox(self.path(name))

    def create(self, name: str, uid_validity: UIDValidity, guid: MailboxId | None = None) -> str:
        """Make a mailbox with an empty uidlist, whole or not at all, durably. Return its directory.

        Parents need no directory in Maildir++. Raises: BadMailboxName, MailboxExists, NoSpace, StoreUnavailable.
        """
        path = self.path(name)
        if is_mailbox(path):
            raise MailboxExists
        if path == self.root:
            directories.make_directories(path)
            _fill(path, uid_validity, guid)
            return path
        unfinished = os.path.join(self.root, _UNFINISHED + os.urandom(8).hex())
        directories.mkdir(unfinished)
        try:
            os.close(safeio.open_new(os.path.join(unfinished, MARKER)))
            _fill(unfinished, uid_validity, guid)
            safeio.point("create.before-rename")
            self._install(unfinished, path)
        except BaseException:
            directories.discard_tree(unfinished)
            raise
        safeio.point("create.after-rename")
        return path

    def undo_create(self, name: str) -> None:
        """Remove a new mailbox that no client knows yet, if the disk lets it.

        Otherwise it stays, empty; it may get mail later.
        """
        with contextlib.suppress(OSError, MailError):
            directories.discard_tree(self.retire(name))

    def retire(self, name: str) -> str:
        """Remove a mailbox from the tree, durably, by renaming its directory. Return the new path, for `remove_tree`.

        Raises: BadMailboxName, NoSuchMailbox, StoreUnavailable.
        """
        path = self.path(name)
        if path == self.root or not is_mailbox(path):
            raise NoSuchMailbox
        retired = os.path.join(self.root, _DELETED + os.urandom(8).hex())
        directories.rename_tree(path, retired)
        return retired

    def sweep(self) -> int:
        """Remove what interrupted `create`, `retire`, `safeio.replace` and dotlocks left. Return the number of
        removals.

        The files that running processes link as dotlocks go too: they make them anew.

        Reads every mailbox, but not its cur/ and new/: for the first acquisition of the account's lock after a start,
        which the caller holds. Raises: StoreUnavailable.
        """
        with safeio.boundary():
            left = [name for name in os.listdir(self.root) if name.startswith((_UNFINISHED, _DELETED))]
        for name in left:
            directories.discard_tree(os.path.join(self.root, name))
        count = len(left)
        intents = os.path.join(self.root, intent.DIRECTORY)
        for directory in {self.root, *map(self.path, self.mailboxes()), intents}:
            # Another program may delete a mailbox meanwhile, and many accounts have no intents.
            with contextlib.suppress(FileNotFoundError):
                count += directories.sweep(directory, _LEFTOVER)
        return count

    def _install(self, unfinished: str, path: str) -> None:
        try:
            if os.path.lexists(path) and not _is_directory(path):
                raise FileExistsError
            directories.rename_tree(unfinished, path)
        except OSError as error:
            # A directory that is no mailbox is in the way: no client can see it, and we may not empty it.
            raise BadMailboxName("something else has that name on disk") from error


def canonical(name: str) -> str:
    """Return the name with INBOX in capitals if its first level says INBOX (RFC 3501 5.1; children as in Dovecot)."""
    first, slash, rest = name.partition("/")
    return f"{INBOX}{slash}{rest}" if first.isascii() and first.upper() == INBOX else name


def parents(name: str) -> list[str]:
    """Return the names above it: a/b/c has a and a/b."""
    levels = name.split("/")
    return ["/".join(levels[:depth]) for depth in range(1, len(levels))]


def check_level(level: str, *, escaped: bool = False, slashes: bool = False) -> None:
    """Check one level of a name. Raises BadMailboxName if no directory can have it, or if it is not one name.

    `escaped`: dots are escaped on disk. `slashes`: so are slashes, which are `SLASH` here.
    """
    if not level:
        raise BadMailboxName("a level of the name is empty")
    if "." in level and not escaped:
        raise BadMailboxName('a level of the name holds ".", which [mail] escape would allow')
    if _FORBIDDEN.search(level.replace(SLASH, "") if slashes else level):
        raise BadMailboxName('a level of the name holds "/" or a control character')
    if any(unicodedata.category(c) == "Cn" and ord(c) & 0xFFFE == 0xFFFE for c in level):
        raise BadMailboxName("the name holds a noncharacter")


def identity(directory: str) -> tuple[MailboxId, UIDValidity] | None:
    """Return GUID and UIDVALIDITY of the mailbox that is there now; None without a complete one."""
    try:
        header = uidlist.read_header(os.path.join(directory, uidlist.FILE_NAME))
    except FileNotFoundError:
        return None
    if header is None or not is_mailbox(directory):
        return None
    return header[1], header[0]


def is_mailbox(path: str) -> bool:
    """Tell whether this is a real directory with a real cur/. Raises: StoreUnavailable."""
    return _is_directory(path) and _is_directory(os.path.join(path, "cur"))


def is_no_mailbox(path: str) -> bool:
    """Tell whether this is the directory of a mailbox that is being made or deleted."""
    return os.path.basename(path).startswith((_UNFINISHED, _DELETED))


def missing(name: str) -> MailError:
    """Return the exception for a mailbox that is not there.

    Every account has an INBOX (RFC 3501 5.1). If its directory is gone, or something else, as when a file system is not
    mounted, an MTA must not return mail for that reason.
    """
    if name == INBOX:
        return StoreUnavailable("the account's INBOX is not on the disk: its cur must be a real directory")
    return NoSuchMailbox()


def complete(path: str) -> None:
    """Make missing cur/, new/ and tmp/, durably (programs that copy drop empty ones).

    Raises: FileNotFoundError when the mailbox is gone, NoSpace, StoreUnavailable.
    """
    made = False
    for part in _PARTS:
        directory = os.path.join(path, part)
        if not _is_directory(directory):
            try:
                directories.mkdir(directory)
            except FileExistsError as error:
                if not _is_directory(directory):
                    raise StoreUnavailable(f"the mailbox has a {part} that is no directory") from error
            made = True
    if made:
        safeio.sync_directory(path)


def _fill(path: str, uid_validity: UIDValidity, guid: MailboxId | None) -> None:
    list_path = os.path.join(path, uidlist.FILE_NAME)
    if uidlist.signature(list_path) is None:
        uidlist.create(list_path, uid_validity, guid)
    # cur/ last: it makes the directory a mailbox.
    for part in ("tmp", "new", "cur"):
        with contextlib.suppress(FileExistsError):
            directories.mkdir(os.path.join(path, part))
    safeio.sync_directory(path)


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise safeio.failure(error) from error
