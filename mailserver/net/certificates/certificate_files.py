"""Reloading of certificate files that change on disk: inotify reports a change, a poll every few seconds finds the others.

A renewal changes two files one after the other, changes a link of a directory, or writes into a file in use. So a change
counts once nothing has changed for SETTLE seconds. If the files are refused then, they may be half of a renewal: they are
read again after PATIENCE seconds, and only a second refusal is reported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool

from mailserver.net.log.events import log
from mailserver.notify.inotify import MASK, Inotify
from mailserver.tls.keypair.files import FileStates, directories, file_states

POLL_INTERVAL: Final = 2.0
SETTLE: Final = 0.5
PATIENCE: Final = 3.0
RETRY: Final = 60.0
"""Seconds until a change that could not be recorded is tried again."""
_IN_CLOSE_WRITE: Final = 0x8
_IN_ATTRIB: Final = 0x4
"""Permissions granted later make a file readable."""

Hosts = tuple[str, ...]
Paths = tuple[Path, ...]


@define
class _Changing:
    """Files that differ from when they were read."""

    states: FileStates
    since: float
    due: float
    attempts: int = 0


class CertificateFiles:
    """A watch on the files of each domain, which has changed ones loaded."""

    def __init__(
        self,
        reactor: Any,
        seen: Mapping[Paths, FileStates],
        take: Callable[[Hosts, bool], Awaitable[bool | None]],
    ) -> None:
        """`seen` has the state of the files when last read; `take(hosts, report)` reads them.

        `take` returns whether all were loaded, or None if another attempt may succeed. With `report` it logs a refusal.
        """
        self._reactor = reactor
        self._seen = seen
        self._take = take
        self._hosts: dict[Paths, Hosts] = {}
        self._changing: dict[Paths, _Changing] = {}
        self._watched: dict[str, int] = {}
        self._moved = True
        """May the paths lead through other directories than the watched ones?"""
        self._checking = False
        self._again: Any = None
        self._inotify: Inotify | None = None
        self._poll = LoopingCall(self._check)
        self._poll.clock = reactor

    def follow(self, files: Mapping[Hosts, Paths]) -> None:
        """Watch the files of the configuration's domains."""
        self._hosts = {paths: hosts for hosts, paths in files.items()}
        self._moved = True
        self._changing = {paths: each for paths, each in self._changing.items() if paths in self._hosts}
        if not self._poll.running:
            try:
                self._inotify = Inotify(
                    self._reactor,
                    self._reactor,
                    self._changed,
                    self._check_soon,
                    mask=MASK | _IN_CLOSE_WRITE | _IN_ATTRIB,
                )
            except OSError as error:
                log.warn(
                    "no inotify ({reason}): changed certificates are loaded some seconds later",
                    event="certificate-files-polled",
                    reason=str(error),
                )
            self._poll.start(POLL_INTERVAL, now=True)
        else:
            self._check_soon()

    def stop(self) -> None:
        """Stop watching."""
        if self._poll.running:
            self._poll.stop()
        if self._again is not None and self._again.active():
            self._again.cancel()
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._watched.clear()

    def _changed(self, watch: int, names: Sequence[str] | None, _arrived: Collection[str]) -> None:
        self._moved = True
        if names is None:
            # The directory is gone: the next check finds the directories that the paths lead through then.
            self._watched = {path: number for path, number in self._watched.items() if number != watch}
        self._check_soon()

    def _check_soon(self, seconds: float = 0.0) -> None:
        """Check after so many seconds, unless an earlier check is due."""
        if self._again is None or not self._again.active():
            self._again = self._reactor.callLater(seconds, self._check)
        elif self._again.getTime() > self._reactor.seconds() + seconds:
            self._again.reset(seconds)

    def _check(self) -> None:
        if not self._checking:
            self._checking = True
            checking = Deferred.fromCoroutine(self._check_once())
            checking.addErrback(
                lambda failure: log.failure("the check of certificate files has failed", failure, event="bug")
            ).addBoth(self._checked)

    def _checked(self, _result: object) -> None:
        self._checking = False
        due = min((each.due for each in self._changing.values()), default=None)
        if due is not None and self._poll.running:
            self._check_soon(max(0.05, due - self._reactor.seconds()))

    async def _check_once(self) -> None:
        files = list(self._hosts)
        moved, self._moved = self._moved, False
        pool = self._reactor.getThreadPool()
        found, places = await deferToThreadPool(self._reactor, pool, _examine, files, moved)
        if not self._poll.running:
            return
        if places is not None:
            self._watch(places)
        now = self._reactor.seconds()
        for paths, content in found.items():
            known = self._changing.get(paths)
            if known is None and content == self._seen.get(paths):
                continue
            if known is None or known.states != content:
                self._changing[paths] = _Changing(content, now, now + SETTLE)
                self._moved = True
            elif now >= known.due and paths in self._hosts:
                await self._try(paths, known)

    async def _try(self, paths: Paths, changing: _Changing) -> None:
        changing.attempts += 1
        # Retry also after an unexpected exception.
        changing.due = self._reactor.seconds() + RETRY
        taken = await self._take(self._hosts[paths], changing.attempts == 2)
        if taken is True or (taken is False and changing.attempts > 1):
            self._changing.pop(paths, None)
        elif changing.attempts == 1:
            changing.due = changing.since + PATIENCE

    def _watch(self, places: set[str]) -> None:
        if self._inotify is None:
            return
        for gone in self._watched.keys() - places:
            self._inotify.remove(self._watched.pop(gone))
        for place in places - self._watched.keys():
            try:
                self._watched[place] = self._inotify.add(place)
            except OSError:
                continue  # the poll sees changes there


def _examine(files: list[Paths], moved: bool) -> tuple[dict[Paths, FileStates], set[str] | None]:
    """Return the state of the files, and the directories to watch if these may have changed. Runs in a thread."""
    places = set().union(*(directories(path) for paths in files for path in paths)) if moved else None
    return {paths: file_states(paths) for paths in files}, places
