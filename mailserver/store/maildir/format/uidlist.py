"""dovecot-uidlist, version 3: the UIDs of message files, for this server and for Dovecot alike.

    3 V1275660208 N25022 G3085f01b7f11094c501100008c4a11c1
    25006 :1276528487.M364837P9451.host,S=1355,W=1394:2,
    25017 W1394 P1723 :1276533073.M242911P3632.host

The first line has UIDVALIDITY, the lowest unused UID, and the mailbox's GUID; unknown letters are kept. Then comes a line
for each UID, rising: the UID, extension fields (a capital letter and a value, kept by `rewrite`), and after " :" the file
name. Only the name's base counts, the part before its first ":"; the flags after it are out of date.

Problems:

*   Dovecot appends lines without changing N: the next UID is the larger of N and the last line's UID plus one.
*   A torn `4` before `5 :name` is read as UID 45. So an append first truncates the file to its last LF.
*   Dovecot drops the whole list, and with it the UIDVALIDITY, at a UID that does not rise, at an invalid line, and at a
    header without V and N. Then every client downloads every message again.
*   A name may occur twice, if a message was removed and restored. The highest of its UIDs counts, as a client may know
    that the lower one is gone.
*   A replaced list may get the same inode again.

Rules:

*   Reading never fails for the file's content. Lines that are invalid or do not rise are left out, and `damaged` is set:
    the caller, who holds the lock, then calls `rewrite`, before Dovecot sees the file.
*   A missing header field is made up (the caller may know better), and is damage too.
*   Lines are appended by one write and a fdatasync; a delivery never rewrites the file. `rewrite` is due when a quarter of
    the lines is dead.
*   A line is dead if no file has its name. The index has no say in that: it may be new, behind or abandoned, and without
    its line a message gets another UID, so that every client downloads it again.
*   All writers hold the account's lock and Dovecot's `dovecot-uidlist.lock`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, cast

from attrs import define

from mailserver.errors import StoreUnavailable
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format.uid_validity import new_uid_validity
from mailserver.store.maildir.format.uidlist_format import (
    LINE,
    header_line,
    is_rising,
    line_of,
    only_rising,
    other_header_fields,
    parse_header,
    parse_lines,
)
from mailserver.types import UID, MailboxId, UIDValidity

FILE_NAME = "dovecot-uidlist"
LOCK_NAME = "dovecot-uidlist.lock"

_FEW_LINES = 64


class Signature(NamedTuple):
    """The identity of one state of the file."""

    dev: int
    inode: int
    size: int
    mtime_ns: int


class Tail(NamedTuple):
    """The part that was appended after a known state."""

    entries: list[tuple[UID, str]]
    """UID and base, rising."""
    signature: Signature
    damaged: bool
    """Part of it is invalid, or it does not end in LF: `rewrite` is needed."""


@define
class UidList:
    """The list in memory."""

    path: str
    uid_validity: UIDValidity
    uid_next: UID
    """Above every UID of the list, and at least the value in its header."""
    guid: MailboxId
    entries: dict[str, UID]
    """By base, in the order of rising UIDs."""
    signature: Signature
    """The state of the file when it was read."""
    damaged: bool = False
    """It must be rewritten: Dovecot would drop it, or read something else."""
    lines: int = 0
    """Lines with a UID; more than entries if a name stands twice."""
    header_missing: frozenset[str] = frozenset()
    """The fields of "V", "N", "G" that the file did not have, and that were made up."""

    @property
    def is_long(self) -> bool:
        """True if its dead lines may be worth removing; a handful is not."""
        return self.lines >= _FEW_LINES

    def worth_rewriting(self, alive: int) -> bool:
        """Tell whether a quarter of the lines is dead, if `alive` names have a file."""
        return self.is_long and (self.lines - alive) * 4 >= self.lines


def signature(path: str) -> Signature | None:
    """Return the current state of the file; None without a file. Raises: StoreUnavailable."""
    try:
        return _signature(os.stat(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise safeio.failure(error) from error


def new_guid() -> MailboxId:
    """Return 16 random bytes."""
    return MailboxId(os.urandom(16))


def create(path: str, uid_validity: UIDValidity, guid: MailboxId | None = None, uid_next: int = 1) -> UidList:
    """Write a list without messages, durably. Raises: NoSpace, StoreUnavailable, FileNotFoundError (no directory)."""
    listed = unwritten(path, uid_validity, guid, uid_next)
    listed.signature = create_with(listed, b"")
    return listed


def unwritten(path: str, uid_validity: UIDValidity, guid: MailboxId | None = None, uid_next: int = 1) -> UidList:
    """Make a list without messages that is not written yet."""
    return UidList(path, uid_validity, UID(uid_next), guid or new_guid(), {}, Signature(0, 0, 0, 0))


def create_with(listed: UidList, lines: bytes) -> Signature:
    """Write an unwritten list with these lines, durably, all or none. Return the file's state.

    Raises: NoSpace, StoreUnavailable, FileNotFoundError (no directory).
    """
    safeio.replace(listed.path, header_line(listed.uid_validity, listed.uid_next, listed.guid) + lines)
    return _known_signature(listed.path)


def read(path: str) -> UidList:
    """Read the list; `damaged` is set if it needs `rewrite`. Raises: FileNotFoundError, StoreUnavailable."""
    data, state = _read_from(path, 0)
    first, newline, body = data.partition(b"\n")
    if not newline:
        # A torn header could have a shorter, wrong number.
        first = b""
    fields, damaged = parse_header(first)
    version_1 = first.split(b" ", 1)[:1] == [b"1"]
    if damaged and not version_1 and LINE.fullmatch(first):
        # No header at all: a line that looks like a message is one.
        body = data
    pairs = parse_lines(body, version_1=version_1)
    uids = [uid for uid, _ in pairs]
    if not is_rising(uids, 0):
        damaged = True
        pairs = only_rising(pairs, 0)
    entries = cast("dict[str, UID]", {base: uid for uid, base in pairs})
    if len(entries) != len(pairs):
        # The dict is in the order of the UIDs: a name that stands twice belongs to its last place.
        entries = cast("dict[str, UID]", {base: uid for uid, base in pairs if entries[base] == uid})
    last = pairs[-1][0] if pairs else 0
    if len(uids) != body.count(b"\n") or not data.endswith(b"\n"):
        damaged = True
    missing = frozenset(key for key in "VNG" if key not in fields)
    return UidList(
        path,
        UIDValidity(int(fields.get("V") or new_uid_validity())),
        UID(max(int(fields.get("N", 1)), last + 1)),
        MailboxId(bytes.fromhex(fields["G"])) if "G" in fields else new_guid(),
        entries,
        state,
        damaged or bool(missing),
        len(uids),
        missing,
    )


def read_header(path: str) -> tuple[UIDValidity, MailboxId] | None:
    """Read UIDVALIDITY and GUID from the first line alone; None if one of them is missing.

    Raises: FileNotFoundError, StoreUnavailable.
    """
    fd = safeio.open_existing(path)
    try:
        with safeio.boundary():
            first, newline, _ = os.pread(fd, 4096, 0).partition(b"\n")
    finally:
        os.close(fd)
    fields, _ = parse_header(first if newline else b"")
    if "V" not in fields or "G" not in fields:
        return None
    return UIDValidity(int(fields["V"])), MailboxId(bytes.fromhex(fields["G"]))


def read_tail(path: str, known: Signature, last_uid: int = 0) -> Tail | None:
    """Read the part that was appended since `known`; None if the file was replaced or rewritten.

    `last_uid` is the UID of the last line then (0: unknown). It guards against a replaced file with the same inode.
    Raises: FileNotFoundError, StoreUnavailable.
    """
    start = max(0, known.size - 1024)
    data, state = _read_from(path, start)
    if (state.dev, state.inode) != (known.dev, known.inode) or state.size < known.size:
        return None
    before, added = data[: known.size - start], data[known.size - start :]
    if not before.endswith(b"\n"):
        return None
    if last_uid:
        last_line = LINE.fullmatch(before[:-1].rpartition(b"\n")[2])
        if last_line is None or int(last_line[1]) != last_uid:
            return None
    pairs = parse_lines(added)
    rising = only_rising(pairs, last_uid)
    damaged = len(rising) != added.count(b"\n") or bool(added and not added.endswith(b"\n"))
    return Tail([(UID(uid), base) for uid, base in rising], state, damaged)


def append(path: str, entries: Sequence[tuple[int, str]]) -> Signature:
    """Append a line for each (UID, base), rising and above all earlier ones: durably, all or none. Return the new
    state.

    A torn last line is cut off first. Raises: FileNotFoundError, NoSpace, StoreUnavailable.
    """
    return append_lines(path, os.fsencode("".join([f"{uid} :{base}\n" for uid, base in entries])))


def append_lines(path: str, data: bytes) -> Signature:
    """Do `append` with lines that are formatted already."""
    fd = safeio.open_existing(path, os.O_RDWR)
    try:
        size = cut_torn_line(fd)
        if data:
            safeio.append(fd, data, size)
        return _signature(os.fstat(fd))
    finally:
        os.close(fd)


def cut_torn_line(fd: int) -> int:
    """Truncate the file to its last LF, as a torn `4` would join with the `5 :name` that follows. Return its size."""
    with safeio.boundary():
        size = end = os.fstat(fd).st_size
        while end and os.pread(fd, 1, end - 1) != b"\n":
            start = max(0, end - 4096)
            found = os.pread(fd, end - start, start).rfind(b"\n")
            end = start + found + 1
    if end != size:
        safeio.truncate(fd, end)
    return end


def rewrite(
    known: UidList,
    keep: Collection[str] | Callable[[str], bool] | None = None,
    add: Iterable[tuple[int, str]] = (),
) -> UidList:
    """Replace the file by the entries of `known` that `keep` has (bases; None is all), then those of `add`.

    `keep` must have the base of each listed file that exists (`scan.bases_there`), unless `add` lists it. UIDVALIDITY,
    UIDNEXT and GUID are those of `known`, which the caller may have set. Extension fields, the names with their flags,
    and unknown header letters are kept. Returns the new list. Raises: NoSpace, StoreUnavailable.
    """
    try:
        data = safeio.read_file(known.path)
    except FileNotFoundError:
        data = b""
    wanted = _keeper(keep)
    lines: list[bytes] = []
    entries: dict[str, UID] = {}
    found = {line.partition(b" ")[0]: line for line in data.split(b"\n")}
    for base, uid in known.entries.items():
        if not wanted(base):
            continue
        lines.append(line_of(found, uid, base))
        entries[base] = uid
    uid_next = known.uid_next
    for number, base in add:
        lines.append(line_of(found, number, base))
        entries.pop(base, None)
        entries[base] = UID(number)
        uid_next = UID(max(uid_next, number + 1))
    lines.append(b"")
    header = header_line(known.uid_validity, uid_next, known.guid, other_header_fields(data))
    safeio.point("uidlist.before-rewrite")
    safeio.replace(known.path, header + b"\n".join(lines))
    safeio.point("uidlist.after-rewrite")
    return UidList(
        known.path,
        known.uid_validity,
        uid_next,
        known.guid,
        entries,
        _known_signature(known.path),
        lines=len(lines) - 1,
    )


def _signature(status: os.stat_result) -> Signature:
    return Signature(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _known_signature(path: str) -> Signature:
    known = signature(path)
    if known is None:
        # Another program removes files under our lock.
        raise StoreUnavailable
    return known


def _read_from(path: str, start: int) -> tuple[bytes, Signature]:
    """Read the file from `start`, with the state of these bytes: a file that grew meanwhile has another size."""
    fd = safeio.open_existing(path)
    try:
        with safeio.boundary():
            state = _signature(os.fstat(fd))
            wanted = max(0, state.size - start)
            chunks = []
            while wanted and (chunk := os.pread(fd, wanted, start)):
                chunks.append(chunk)
                start += len(chunk)
                wanted -= len(chunk)
            return b"".join(chunks), state
    finally:
        os.close(fd)


def _keeper(keep: Collection[str] | Callable[[str], bool] | None) -> Callable[[str], bool]:
    if keep is None:
        return lambda _base: True
    return keep if callable(keep) else keep.__contains__
