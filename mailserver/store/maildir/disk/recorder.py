"""A durable change on disk, as tests record it to replay power cuts: see `safeio.recorder`."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen


@frozen
class Change:
    """One successful step on disk.

    `operation` is one of: create, write, truncate, utime, sync (a file's data and attributes are safe), rename, link,
    unlink, mkdir, rmdir, sync_directory (the directory's names are safe); tests add lost (a file's sync failed).
    """

    operation: str
    path: str
    other: str = ""
    """The new name of rename and link."""
    offset: int = 0
    """Offset of `data`; the new size of truncate; nanoseconds of utime."""
    data: bytes = b""


class Recorder(Protocol):
    """A receiver of every change, in order."""

    def record(self, change: Change) -> None:
        """Record a change that was made."""
