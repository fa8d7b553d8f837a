"""A message that is being received: a file under tmp/, invisible until it is renamed into new/ or cur/.

Bytes are stored as they come. Line ends are counted meanwhile, so that the sizes for the name (S= on disk, W= with CRLF
line ends) are known without reading the file again.
"""

from __future__ import annotations

import contextlib
import os
import time

from mailserver.errors import StoreUnavailable
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.disk.copying import copy_part
from mailserver.store.maildir.format.filename import new_base, sized
from mailserver.store.maildir.home import folders

_BUFFER = 256 << 10
_ABANDONED_AFTER = 36 * 3600


class StagedFile:
    """Implements `store.receiving.StagedMessage`. The file is made when the buffer first overflows, or by `sync`."""

    def __init__(self, directory: str, host: str | None = None) -> None:
        """`directory`: a tmp/ on the file system of the mailbox."""
        self.size = 0
        """Octets as written."""
        self.base = new_base(host)
        """The base of its final name, without sizes."""
        self.path = os.path.join(directory, self.base)
        """Its file in tmp/."""
        self.date: int | None = None
        """Its mtime, once it is finished."""
        self._made = False
        self._fd = -1
        self._pending: list[bytes] = []
        self._buffered = 0
        self._bare_lf = 0
        self._last = b""
        self._done = False

    @property
    def virtual_size(self) -> int:
        """Octets once every LF without CR is sent as CRLF: RFC822.SIZE."""
        return self.size + self._bare_lf

    @property
    def final_base(self) -> str:
        """The base with `,S=` and `,W=`, correct once everything is written."""
        return sized(self.base, self.size, self.virtual_size)

    def write(self, data: bytes) -> None:
        """Append bytes. Raises: NoSpace, StoreUnavailable."""
        if self._done:
            raise StoreUnavailable("the message was aborted")
        if self.date is not None:
            raise ValueError("the message is finished")
        if not data:
            return
        self._bare_lf += data.count(b"\n") - data.count(b"\r\n")
        if self._last == b"\r" and data[:1] == b"\n":
            # A CRLF across two writes was counted as a bare LF.
            self._bare_lf -= 1
        self._last = data[-1:]
        self.size += len(data)
        self._pending.append(bytes(data))
        self._buffered += len(data)
        if self._buffered >= _BUFFER:
            self._flush()

    def copy(self, descriptor: int, offset: int, count: int) -> None:
        """Append octets of an open file, whose line ends are CRLF. Raises: NoSpace, StoreUnavailable."""
        self._flush()
        copy_part(descriptor, offset, count, self._fd)
        safeio.point("staged.after-copy")
        self.size += count
        self._last = b"\n"

    def content(self) -> bytes:
        """Read all octets so far. Raises: NoSpace, StoreUnavailable."""
        self._flush()
        with safeio.boundary():
            data = os.pread(self._fd, self.size, 0)
            while len(data) < self.size and (more := os.pread(self._fd, self.size - len(data), len(data))):
                data += more
        if len(data) != self.size:
            raise StoreUnavailable("a message file has changed while it was written")
        return data

    def sync(self, date: int | None = None) -> None:
        """Sync the content, with mtime `date` (seconds since 1970). The name in tmp/ is not synced.

        Raises: NoSpace, StoreUnavailable.
        """
        self._flush()
        if date is not None:
            safeio.set_mtime(self._fd, date * 1_000_000_000)
        safeio.sync(self._fd)

    def finish(self, date: int | None) -> None:
        """Do `sync` now, and close the file. Repeated, it does nothing. Raises: NoSpace, StoreUnavailable."""
        if self.date is None:
            date = int(time.time()) if date is None else date
            self.sync(date)
            self._close()
            self.date = date

    def release(self) -> None:
        """Close the file and leave it: it has its final name, or an intent names it. `abort` then does nothing."""
        self._done = True
        self._close()

    def abort(self) -> None:
        """Remove the file. Harmless after `release` and when repeated."""
        if self._done:
            return
        self._done = True
        self._close()
        if self._made:
            safeio.discard(self.path)

    def _flush(self) -> None:
        if self._done:
            raise StoreUnavailable("the message was aborted")
        if self._fd < 0:
            self._fd = self._open()
            self._made = True
        if self._pending:
            safeio.write(self._fd, b"".join(self._pending))
            self._pending.clear()
            self._buffered = 0

    def _open(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return safeio.open_new(self.path)
        # Somebody removed an empty tmp/ below the running server.
        try:
            folders.complete(os.path.dirname(os.path.dirname(self.path)))
            return safeio.open_new(self.path)
        except FileNotFoundError as error:
            raise StoreUnavailable("the account is gone") from error

    def _close(self) -> None:
        self._pending.clear()
        self._buffered = 0
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def sweep(directory: str, keep: frozenset[str] = frozenset()) -> int:
    """Remove files of tmp/ that have not changed for 36 hours (maildir(5)), except `keep`. Return their number.

    `keep` has the file names of intents. Raises: StoreUnavailable.
    """
    limit = time.time() - _ABANDONED_AFTER
    removed = 0
    with safeio.boundary(), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name in keep or not entry.is_file(follow_symlinks=False):
                continue
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                # A message's mtime is its INTERNALDATE; only the ctime tells when it was changed.
                if max(status.st_mtime, status.st_ctime) < limit:
                    safeio.discard(entry.path)
                    removed += 1
    return removed
