"""Certificates that change on disk: seen by inotify within a moment, and by a look every few seconds in any case.

A renewal changes two files, one after the other, or a link of a directory, or writes into a file that is read already.
So a change counts once nothing has changed for SETTLE seconds. What cannot be served then may be half of a renewal: it
is read again after PATIENCE seconds, and only then told as refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool

from mailserver.net.log.events import log
from mailserver.notify.inotify import MASK, Inotify
from mailserver.tls.keypair.files import Signature, directories, signature

LOOK: Final = 2.0
SETTLE: Final = 0.5
PATIENCE: Final = 3.0
RETRY: Final = 60.0
"""Seconds until what could not be recorded is tried again."""
_IN_CLOSE_WRITE: Final = 0x8
_IN_ATTRIB: Final = 0x4
"""Rights that are given later let a file be read."""

Hosts = tuple[str, ...]
Paths = tuple[Path, ...]


@define
class _Changing:
    """Files that are not as they were when they were read."""

    signature: Signature
    since: float
    due: float
    attempts: int = 0


class CertificateFiles:
    """Watches the files of each domain, and has them taken up."""

    def __init__(
        self,
        reactor: Any,
        seen: Mapping[Paths, Signature],
        take: Callable[[Hosts, bool], Awaitable[bool | None]],
    ) -> None:
        """`seen`: as the files were when last read. `take(hosts, tell)` reads them.

        Its result: was all taken up? None if it may be at another time; `tell`: say it if not.
        """
        self._reactor = reactor
        self._seen = seen
        self._take = take
        self._hosts: dict[Paths, Hosts] = {}
        self._changing: dict[Paths, _Changing] = {}
        self._watched: dict[str, int] = {}
        self._moved = True
        """May the paths lead through other directories than those that are watched?"""
        self._looking = False
        self._again: Any = None
        self._inotify: Inotify | None = None
        self._looks = LoopingCall(self._look)
        self._looks.clock = reactor

    def follow(self, files: Mapping[Hosts, Paths]) -> None:
        """Watch these, of the domains of the configuration, from now on."""
        self._hosts = {paths: hosts for hosts, paths in files.items()}
        self._moved = True
        self._changing = {paths: each for paths, each in self._changing.items() if paths in self._hosts}
        if not self._looks.running:
            try:
                self._inotify = Inotify(
                    self._reactor,
                    self._reactor,
                    self._changed,
                    self._look_soon,
                    mask=MASK | _IN_CLOSE_WRITE | _IN_ATTRIB,
                )
            except OSError as error:
                log.warn("no inotify ({error}): changed certificates are seen within some seconds", error=error)
            self._looks.start(LOOK, now=True)
        else:
            self._look_soon()

    def stop(self) -> None:
        """Watch nothing any more."""
        if self._looks.running:
            self._looks.stop()
        if self._again is not None and self._again.active():
            self._again.cancel()
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._watched.clear()

    def _changed(self, watch: int, names: Sequence[str] | None) -> None:
        self._moved = True
        if names is None:
            # The directory has gone: the next look finds what the paths lead through by then.
            self._watched = {path: number for path, number in self._watched.items() if number != watch}
        self._look_soon()

    def _look_soon(self, seconds: float = 0.0) -> None:
        """Unless that is about to happen."""
        if self._again is None or not self._again.active():
            self._again = self._reactor.callLater(seconds, self._look)
        elif self._again.getTime() > self._reactor.seconds() + seconds:
            self._again.reset(seconds)

    def _look(self) -> None:
        if not self._looking:
            self._looking = True
            looking = Deferred.fromCoroutine(self._look_once())
            looking.addErrback(lambda failure: log.failure("files of certificates", failure)).addBoth(self._looked)

    def _looked(self, _result: object) -> None:
        self._looking = False
        due = min((each.due for each in self._changing.values()), default=None)
        if due is not None and self._looks.running:
            self._look_soon(max(0.05, due - self._reactor.seconds()))

    async def _look_once(self) -> None:
        files = list(self._hosts)
        moved, self._moved = self._moved, False
        pool = self._reactor.getThreadPool()
        found, places = await deferToThreadPool(self._reactor, pool, _examine, files, moved)
        if not self._looks.running:
            return
        if places is not None:
            self._watch(places)
        now = self._reactor.seconds()
        for paths, content in found.items():
            known = self._changing.get(paths)
            if known is None and content == self._seen.get(paths):
                continue
            if known is None or known.signature != content:
                self._changing[paths] = _Changing(content, now, now + SETTLE)
                self._moved = True
            elif now >= known.due and paths in self._hosts:
                await self._try(paths, known)

    async def _try(self, paths: Paths, changing: _Changing) -> None:
        changing.attempts += 1
        # Should it fail in a way that nobody expects.
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
                continue  # the looks see what changes there


def _examine(files: list[Paths], moved: bool) -> tuple[dict[Paths, Signature], set[str] | None]:
    """In a thread: what the files are like, and the directories to watch if these may be others."""
    places = set().union(*(directories(path) for paths in files for path in paths)) if moved else None
    return {paths: signature(paths) for paths in files}, places
