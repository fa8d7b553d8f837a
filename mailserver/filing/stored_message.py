"""A message as it will be stored: fields before it, its octets in memory, and a range of a file behind them."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from mailserver.errors import StoreUnavailable
from mailserver.queue.interfaces import Content
from mailserver.store.interfaces import Account
from mailserver.store.receiving import StagedMessage


class StoredMessage:
    """Implements `Source`. It has a descriptor of its own until the block ends: the work may outlive the session, which
    closes that of the file.
    """

    def __init__(self, prefix: bytes, content: Content) -> None:
        self._start = prefix + content.start
        self._rest = content.rest
        if self._rest is not None:
            descriptor, offset, count = self._rest
            self._rest = os.dup(descriptor), offset, count

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:  # fmt: skip
        rest, self._rest = self._rest, None
        if rest is not None:
            os.close(rest[0])

    @property
    def size(self) -> int:
        """Octets."""
        return len(self._start) + (self._rest[2] if self._rest is not None else 0)

    def read(self, offset: int, count: int) -> bytes:
        """See Source."""
        first = self._start[offset : offset + count]
        if self._rest is None or len(first) == count:
            return first
        descriptor, begin, length = self._rest
        at = max(0, offset - len(self._start))
        try:
            return first + os.pread(descriptor, max(0, min(count - len(first), length - at)), begin + at)
        except OSError as error:
            raise StoreUnavailable("a message that is being received cannot be read") from error

    def stage(self, account: Account) -> StagedMessage:
        """Stage it. The message was written once, however many copies there are: a file is copied within the kernel.

        Raises: NoSpace, StoreUnavailable.
        """
        staged = account.stage()
        try:
            staged.write(self._start)
            if self._rest is not None:
                staged.copy(*self._rest)
        except BaseException:
            staged.abort()
            raise
        return staged
