"""What one operation of a FETCH is given, and what it returns: cached data of messages, and responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import Factory, frozen

from mailserver.errors import MailError
from mailserver.imap.fetch.message import LargeResponse
from mailserver.message.summary import Summary
from mailserver.store.interfaces import MessageFile
from mailserver.store.rows import Row
from mailserver.types import UID

ReadCached = Callable[[UID, int | None, bool], bytes | None]
"""Takes the UID, the size if it is known, and whether the header alone is wanted; see `Mailbox.read_cached`."""


@frozen
class CachedData:
    """The cached data of those messages, by UID; the files are this FETCH's alone until it gives them back."""

    texts: dict[int, bytes] = Factory(dict)
    summaries: dict[int, Summary] = Factory(dict)
    files: dict[int, MessageFile] = Factory(dict)
    read: ReadCached | None = None
    """Reads a message that is in no cache but the kernel's."""


@frozen
class FetchResult:
    """The result of one operation."""

    data: bytes
    done: int
    """The number of messages in it. It may be 0: what was read for them is kept for the next operation."""
    learned: Sequence[Row]
    error: MailError | None
    large: LargeResponse | None
