"""A message file in the form in which it is sent: every line ends in CRLF, whatever the file has.

A file with CRLF throughout is read as it is. One with bare LFs is converted while it is read: a table has the offset in
the sent form for each 64 KiB of the file. So any range costs no more than its own length, and no copy is kept. A bare
CR stays.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right

from mailserver.cancellation import check
from mailserver.errors import StoreUnavailable
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.page_cache import PageCache
from mailserver.store.name_sizes import claims_conversion

_BLOCK = 64 << 10
HEAD = 8 << 10
"""Octets that hold nearly every header."""


class PlainFile:
    """A file that is sent as it is."""

    def __init__(self, fd: int, size: int, date: int) -> None:
        self.size = size
        self.date = date
        """The file's mtime, INTERNALDATE, in seconds since 1970."""
        self._fd = fd

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Read these octets; fewer at the end."""
        end = self.size if count is None else min(self.size, offset + count)
        return _read(self._fd, offset, end)

    def read_now(self, offset: int, count: int) -> bytes | None:
        """Read the first of these octets if the page cache has them, without waiting even for a disk.

        None: only `read` can tell, also for errors and at the end.
        """
        return _read_now(self._fd, offset, min(count, max(0, self.size - offset))) or None

    def close(self) -> None:
        """Close the file. Repeating it is harmless."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class ConvertedFile(PlainFile):
    """A file with bare LFs."""

    def __init__(self, fd: int, raw_size: int, date: int, starts: array[int]) -> None:
        super().__init__(fd, starts[-1], date)
        self._raw_size = raw_size
        self._starts = starts

    def read(self, offset: int = 0, count: int | None = None) -> bytes:
        """Read these octets; fewer at the end."""
        end = self.size if count is None else min(self.size, offset + count)
        if offset >= end:
            return b""
        block = bisect_right(self._starts, offset) - 1
        first = self._starts[block]
        parts = []
        while self._starts[block] < end:
            check()
            parts.append(self._convert(block))
            block += 1
        return b"".join(parts)[offset - first : end - first]

    def read_now(self, offset: int, count: int) -> bytes | None:
        """Do the same for a file with bare LFs; the octets end with a block."""
        if not 0 <= offset < self.size:
            return None
        block = bisect_right(self._starts, offset) - 1
        start = block * _BLOCK
        before = 1 if start else 0
        wanted = before + min(self._raw_size - start, _BLOCK)
        data = _read_now(self._fd, start - before, wanted)
        if data is None or len(data) < wanted:
            return None
        at = offset - self._starts[block]
        return _convert(data, start)[at : at + count]

    def _convert(self, block: int) -> bytes:
        start = block * _BLOCK
        return _convert(_read(self._fd, max(0, start - 1), min(self._raw_size, start + _BLOCK)), start)


def _convert(data: bytes, start: int) -> bytes:
    """Convert the octets from `start` of a file on, which the octet before them precedes if there is one."""
    return to_crlf(data)[len(to_crlf(data[:1])) :] if start else to_crlf(data)


def open_file(path: str, size: int | None = None) -> PlainFile:
    """Open a message; `size` is its known size as sent.

    Raises: FileNotFoundError, StoreUnavailable (also for anything that is not a regular file).
    """
    fd, status = safeio.open_with_status(path)
    try:
        raw_size = status.st_size
        # The same size on disk as sent: there is nothing to convert, unless the size is a wrong one of the file's name.
        starts = None if size == raw_size and not claims_conversion(path) else _measure(fd, raw_size)
    except BaseException:
        os.close(fd)
        raise
    date = status.st_mtime_ns // 1_000_000_000
    return PlainFile(fd, raw_size, date) if starts is None else ConvertedFile(fd, raw_size, date, starts)


def read_small(path: str, size: int | None, limit: int) -> bytes | None:
    """Read a whole message, as sent. None if it has more than `limit` octets, or not the known `size`.

    Raises: FileNotFoundError, StoreUnavailable.
    """
    if size is None:
        found = read_dated(path, size, limit)
        return None if found is None else found[0]
    if size > limit:
        return None
    # Only a message has exactly this size: no need for a stat of each.
    fd = safeio.open_unasked(path)
    try:
        return _read_small(fd, path, size, size, limit)
    except IsADirectoryError as error:
        raise StoreUnavailable from error
    finally:
        os.close(fd)


def read_dated(path: str, size: int | None, limit: int) -> tuple[bytes, int] | None:
    """Do `read_small`; return the file's mtime, too, in seconds since 1970."""
    fd, status = safeio.open_with_status(path)
    try:
        data = _read_small(fd, path, status.st_size, size, limit)
    finally:
        os.close(fd)
    return None if data is None else (data, status.st_mtime_ns // 1_000_000_000)


def read_cached(cache: PageCache, path: bytes, size: int | None) -> bytes | None:
    """Do `read_small` from what the kernel has in memory. None: only `read_small` can tell."""
    data = cache.read(path)
    if data is None:
        return None
    # A size may be what the file's name claims, so it does not prove that the file has CRLF already.
    sent = to_crlf(data)
    return sent if size is None or len(sent) == size else None


def read_cached_header(cache: PageCache, path: bytes) -> bytes | None:
    """Read the header and its empty line, as sent. None: it is not in the first HEAD octets, or these are not in memory."""
    data = cache.read_start(path, HEAD)
    if data is None:
        return None
    if data.startswith((b"\n", b"\r\n")):
        return b"\r\n"
    # Each of the two lines may end in LF or in CRLF.
    ends = [at + len(blank) for blank in (b"\n\n", b"\n\r\n") if (at := data.find(blank)) >= 0]
    return to_crlf(data[: min(ends)]) if ends else None


def _read_small(fd: int, path: str, expected: int, size: int | None, limit: int) -> bytes | None:
    """`expected`: the largest possible size on disk, as no message is longer there than as sent."""
    if expected > limit:
        return None
    try:
        # One octet more shows whether there is more.
        data = os.read(fd, expected + 1)
    except OSError as error:
        raise safeio.failure(error) from error
    if len(data) == size and not claims_conversion(path):
        return data
    sent = to_crlf(data)
    if (len(sent) != size) if size is not None else (len(data) != expected or len(sent) > limit):
        return None
    return sent


def to_crlf(data: bytes) -> bytes:
    """Return the same with every line ended by CRLF."""
    if b"\r" not in data:
        return data.replace(b"\n", b"\r\n")
    if not has_bare_lf(data):
        return data
    # A pattern with a lookbehind for each LF takes six times as long as these two.
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def has_bare_lf(data: bytes) -> bool:
    """Tell whether a line ends without CR."""
    # Counting single octets takes three times as long as removing them.
    return len(data) - len(data.replace(b"\n", b"")) != data.count(b"\r\n")


def _measure(fd: int, raw_size: int) -> array[int] | None:
    """Return the offset of each block in the sent form, and the whole size last; None without bare LFs."""
    starts = array("Q", [0])
    sent = 0
    last = b""
    for start in range(0, raw_size, _BLOCK):
        check()
        data = _read(fd, start, min(raw_size, start + _BLOCK))
        bare = data.count(b"\n") - data.count(b"\r\n")
        if last == b"\r" and data[:1] == b"\n":
            bare -= 1
        last = data[-1:]
        sent += len(data) + bare
        starts.append(sent)
    return None if sent == raw_size else starts


def _read_now(fd: int, start: int, count: int) -> bytes | None:
    """Read the first of these octets, as far as the page cache has them."""
    buffer = bytearray(count)
    try:
        got = os.preadv(fd, [buffer], start, os.RWF_NOWAIT)
    except OSError:
        return None  # not in memory (EAGAIN), or a file system that cannot say (EOPNOTSUPP)
    return bytes(buffer[:got])


def _read(fd: int, start: int, end: int) -> bytes:
    with safeio.boundary():
        data = os.pread(fd, max(0, end - start), start)
        parts = [data]
        start += len(data)
        while data and start < end:
            data = os.pread(fd, end - start, start)
            parts.append(data)
            start += len(data)
    return b"".join(parts) if len(parts) > 1 else parts[0]
