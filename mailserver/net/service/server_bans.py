"""The bans of the server, in the master or in the single process: counted here, kept in a file, changed by the administrator.

The file is read at the start, in steps between which clients are served, and written in a thread. A ban is written at once,
and further ones after SAVE_AFTER seconds. With 100,000 bans a write takes some tenths of a second, so the time until the next one
grows with the last one. What is not written when the process is killed is lost.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from mailserver.auth.throttling.ban_file import LARGEST_FILE, DamagedBans, from_text, to_text
from mailserver.auth.throttling.banned_clients import BanChange
from mailserver.auth.throttling.bans import ADMINISTRATOR, MAX_ADDED_TIME, MAX_REASON, Ban, BanRules, Bans, CannotBan
from mailserver.auth.throttling.guess_counts import Guess
from mailserver.auth.throttling.known_networks import KnownNetworks, Row
from mailserver.config.model import Config
from mailserver.net.admin.control_socket import Arguments, BadRequest, Command, DataAnswer
from mailserver.net.ipc.message_schema import Json
from mailserver.net.log.events import EventText, log
from mailserver.system.atomic_file import replace_file

FILE: Final = "bans"
SAVE_AFTER: Final = 1.0
"""Seconds after a write for which changes are gathered, at least."""
SAVE_SHARE: Final = 20.0
"""The time until the next write is at least so many times that of the last one."""


class ServerBans:
    """The table of bans and its file."""

    def __init__(
        self,
        reactor: Any,
        directory: Path,
        known: KnownNetworks,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`known`: the server's table of known networks. `clock`: monotonic seconds, which are not the reactor's."""
        self.bans = Bans(known, clock, wall)
        self.bans.on_change = self._changed
        self.send: Callable[[list[BanChange]], None] = lambda _changes: None
        """Sends changes to all processes that serve."""
        self._reactor = reactor
        self._clock = clock
        self._path = directory / FILE
        self._is_changed = False
        self._is_timed = False
        self._save_from = clock()
        """Time of the next write, if there is anything to write."""
        self._saving: Deferred[None] | None = None
        self._loading: Iterator[list[Ban]] | None = None
        """The rest of the file, while it is read."""
        self._has_complained = False

    def __len__(self) -> int:
        return len(self.bans)

    def load(self, config: Config) -> None:
        """Read the file: STEP bans at once, the others step by step when the reactor runs.

        A damaged file is renamed; the bans before the damage hold, and none of a file that was cut.
        """
        self.bans.configure(rules_of(config))
        try:
            with open(self._path, "rb") as file:
                self._loading = from_text(file.read(LARGEST_FILE))
        except FileNotFoundError:
            return
        except OSError as error:
            self._complain(str(error))
        self._load_more()

    def _load_more(self) -> None:
        self._load_step()
        if self._loading is not None:
            self._reactor.callLater(0, self._load_more)
        elif self._is_changed:
            self._save_later()

    def _load_step(self) -> None:
        """Take some more bans of the file, if it is being read."""
        try:
            rows = next(self._loading, None) if self._loading is not None else None
        except DamagedBans as error:
            rows, aside = None, self._path.with_suffix(".damaged")
            self._complain(f"{error}: {self._path} is set aside as {aside}")
            try:
                os.replace(self._path, aside)
            except OSError as failure:
                self._complain(str(failure))
        if rows is None:
            self._loading = None
        elif changes := self.bans.restore(rows):
            self.send(changes)

    def configure(self, config: Config) -> None:
        """Use the settings of a changed configuration."""
        self._log_lifted(self.bans.configure(rules_of(config)), "it is never banned now")

    def take(self, guess: Guess) -> None:
        """Count a guess of a worker, and log it if it is new; a malformed one is ignored."""
        try:
            is_new, ban = self.bans.guess(guess)
        except ValueError:
            return
        if is_new:
            fields: dict[str, object] = {
                "peer": guess.peer,
                "user": guess.shown,
                "protocol": guess.protocol,
                "id": guess.id,
            }
            log.info("{text}", event="guess", text=EventText("guess v1", fields), **fields)
        if ban is not None:
            self._log_ban(ban)

    def users_came(self, rows: Sequence[Row]) -> None:
        """Lift the bans of networks from which users have logged in."""
        self._log_lifted(self.bans.users_came(digest for digest, _day in rows), "a user has logged in from its network")

    def commands(self) -> dict[str, Command]:
        """Return the commands of the control socket, by name."""
        return {"bans": self._list, "bans-add": self._add, "bans-remove": self._remove}

    def stop(self) -> Deferred[None]:
        """Write unwritten changes."""
        while self._loading is not None:
            # The file would otherwise be replaced by a part of it.
            self._load_step()
        if self._saving is not None:
            return self._saving.addCallback(lambda _none: self.stop())
        return self._save() if self._is_changed else succeed(None)

    # --- Commands

    def _list(self, arguments: Arguments) -> Deferred[DataAnswer]:
        if arguments:
            raise BadRequest("bans takes no arguments")
        return succeed(DataAnswer([self._row(ban) for ban in self.bans.active()]))

    def _add(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """{"client", "reason"}, and optionally {"seconds", "force": "yes"}. Raises: BadRequest."""
        client, reason = arguments.get("client"), arguments.get("reason")
        seconds, force = arguments.get("seconds", ""), arguments.get("force", "")
        if set(arguments) - {"client", "reason", "seconds", "force"} or not all(
            isinstance(each, str) for each in (client, reason, seconds, force)
        ):
            raise BadRequest("bans-add takes a client and a reason, and may take seconds and force, all as texts")
        if not str(reason).isprintable() or len(str(reason)) > MAX_REASON:
            raise BadRequest(f"a reason has up to {MAX_REASON} printable characters")
        try:
            ban = self.bans.add(str(client), str(reason), _seconds(seconds), force=bool(force))
        except CannotBan as error:
            return succeed(DataAnswer(None, ok=False, lines=(str(error),)))
        self._log_ban(ban)
        return succeed(DataAnswer(self._row(ban)))

    def _remove(self, arguments: Arguments) -> Deferred[DataAnswer]:
        """{"client"}. Raises: BadRequest."""
        client = arguments.get("client")
        if set(arguments) != {"client"} or not isinstance(client, str):
            raise BadRequest("bans-remove takes a client")
        try:
            ban = self.bans.remove(client)
        except CannotBan as error:
            return succeed(DataAnswer(None, ok=False, lines=(str(error),)))
        if ban is None:
            return succeed(DataAnswer(None, ok=False, lines=(f"{client} is not banned",)))
        self._log_lifted([ban], "the administrator has removed it")
        return succeed(DataAnswer(self._row(ban)))

    def _row(self, ban: Ban) -> Json:
        """A ban as the administrator sees it; times in Unix time, the end by the present clock."""
        shown = self.bans.shown(ban)
        return {
            "client": ban.client,
            "reason": ban.reason,
            "by": ban.by,
            "since": round(shown.since),
            "until": round(shown.until),
            "seconds_left": round(self.bans.seconds_left(ban)),
            "times": ban.times,
        }

    # --- The log

    @staticmethod
    def _log_ban(ban: Ban) -> None:
        log.warn(
            "{client} is banned for {seconds} seconds: {reason}",
            event="banned",
            client=ban.client,
            seconds=round(ban.until - ban.since),
            reason=ban.reason or f"by the {ADMINISTRATOR}",
            by=ban.by,
            times=ban.times,
        )

    @staticmethod
    def _log_lifted(bans: list[Ban], reason: str) -> None:
        for ban in bans:
            log.info(
                "the ban of {client} is lifted: {reason}",
                event="ban-lifted",
                client=ban.client,
                reason=reason,
                by=ban.by,
            )

    @staticmethod
    def _complain(reason: str) -> None:
        log.warn("bans: {reason}", event="bans-problem", reason=reason)

    # --- The file

    def _changed(self, changes: list[BanChange]) -> None:
        self.send(changes)
        self._is_changed = True
        self._save_later()

    def _save_later(self) -> None:
        if not self._is_timed and self._loading is None:
            self._is_timed = True
            self._reactor.callLater(max(self._save_from - self._clock(), 0.0), self._save_now)

    def _save_now(self) -> None:
        self._is_timed = False
        if self._is_changed and self._saving is None:
            self._save()

    def _save(self) -> Deferred[None]:
        self._is_changed = False
        pool = self._reactor.getThreadPool()
        began = self._clock()
        writing = deferToThreadPool(self._reactor, pool, _write, self._path, self.bans.snapshot())
        done: Deferred[None] = Deferred()
        self._saving = done

        def failed(failure: Failure) -> None:
            failure.trap(OSError)
            if not self._has_complained:
                self._has_complained = True
                self._complain(f"they are remembered until the server stops: {failure.value}")

        def end(result: Failure | None) -> None:
            self._saving = None
            ended = self._clock()
            self._save_from = ended + max(SAVE_AFTER, SAVE_SHARE * (ended - began))
            if isinstance(result, Failure):
                log.failure("the bans are not written", result, event="bug")
            if self._is_changed:
                self._save_later()
            done.callback(None)

        writing.addErrback(failed).addBoth(end)
        return done


def rules_of(config: Config) -> BanRules:
    """The rules of a configuration; the networks of proxies are never banned."""
    proxies = [network for listener in config.listeners for network in listener.proxy_from]
    return BanRules(
        enabled=config.bans.enabled,
        never=tuple(ip_network(each, strict=False) for each in dict.fromkeys([*config.bans.never, *proxies])),
        names=config.bans.names,
        guesses=config.bans.guesses,
        time=config.bans.time,
        private=config.bans.private,
    )


def _seconds(text: str) -> float | None:
    """Raises: CannotBan."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= MAX_ADDED_TIME:
        raise CannotBan(f"a ban lasts 1 second to {MAX_ADDED_TIME / 86_400:.0f} days")
    return seconds


def _write(path: Path, bans: Callable[[], list[Ban]]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_file(path, to_text(bans()), follow=False)
