"""The account's lock as a context manager: for reading, and for changes that will be acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailserver.errors import StoreUnavailable

if TYPE_CHECKING:
    from mailserver.store.maildir.home.home import Home


class LockContext:
    """`Home.locked` and `Home.changing`: two objects, made once, as they are entered for every operation."""

    __slots__ = ("_changing", "_home")

    def __init__(self, home: Home, *, changing: bool) -> None:
        self._home = home
        self._changing = changing

    def __enter__(self) -> None:
        home = self._home
        home.acquire_lock()
        if self._changing and home.unsafe.unsynced:
            home.release_lock(failed=False)
            raise StoreUnavailable("the disk fails: what was changed before is not safe on it yet")

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        self._home.release_lock(failed=kind is not None)
