"""One durable change on disk, as tests record it to say what a power cut leaves: see `safeio.recorder`."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen


@frozen
class Change:
    """One step on disk, as a recorder sees it, after it succeeded.

    `operation` is one of: create, write, truncate, utime, sync (a file's data and attributes are safe), rename, link,
    unlink, mkdir, rmdir, sync_directory (the directory's names are safe); tests add lost (a file's sync failed).
    """

    operation: str
    path: str
    other: str = ""
    """The new name of rename and link."""
    offset: int = 0
    """Where `data` went; the new size of truncate; nanoseconds of utime."""
    data: bytes = b""


class Recorder(Protocol):
    """Is told of every change, in order."""

    def record(self, change: Change) -> None:
        """The change has been made."""
