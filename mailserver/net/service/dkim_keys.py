"""DKIM keys of a running server: read at the start and at each reload, and changed when DNS shows the next ones.

The process that reads the keys of certificates reads them. Workers get those that sign, with the configuration. A domain
whose keys cannot be read is left unsigned, and its mail goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from mailserver.config.model import Config
from mailserver.dkim import key_file
from mailserver.dkim.key_file import BadKeyFile, CannotChange, Reading, read_signing
from mailserver.dkim.keys import record_name
from mailserver.dkim.published import fault
from mailserver.net.admin.control_socket import Answer
from mailserver.net.connection.coroutines import in_thread
from mailserver.net.log.events import log
from mailserver.system.as_user import UserProcess, other_user

CHECK_INTERVAL: Final = 300.0
"""Seconds between two look-ups of records that keys wait for."""
PATIENCE: Final = 60.0
"""Seconds without an answer of the process that asks DNS."""
MOST_AT_ONCE: Final = 20
"""Domains that are looked up at once; the others' turn is the next time."""
_LONGEST: Final = 1 << 20

Texts = Mapping[str, Sequence[str] | None]
"""Name of a record -> its texts; None where there was no answer."""


def with_dkim_keys(config: Config) -> tuple[Config, Reading]:
    """Add the keys that sign to a configuration; also return what was read. Raises nothing."""
    reading = read_signing(config.server.state_dir, config.signed_domains)
    return attrs.evolve(config, dkim_keys=reading.domains), reading


def log_problems(reading: Reading) -> None:
    """Log the domains whose keys cannot be used."""
    for domain, reason in reading.problems:
        log.error("dkim: {domain} is not signed: {reason}", event="dkim-keys-unusable", domain=domain, reason=reason)


def look_up(config: Config, names: Sequence[str]) -> Texts:
    """Look TXT records up in a process of the service's user. Blocks. Raises: OSError, KeyError."""
    question = json.dumps({"names": names, "resolver": None}).encode()
    process = UserProcess("mailserver.cli.dkim_lookup", other_user(config.server))
    answer = process.ask(question, seconds=PATIENCE, longest=_LONGEST)
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return {name: _texts(found.get(name)) for name in names} if isinstance(found, dict) else {}


def _texts(value: Any) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(each, str) for each in value) else None


class DkimRotation:
    """Lets new keys sign once DNS shows their records."""

    def __init__(
        self,
        reactor: Any,
        *,
        config: Callable[[], Config],
        reload: Callable[[], Awaitable[Answer]],
        find: Callable[[Config, Sequence[str]], Texts] = look_up,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`reload` has all processes sign with the keys on disk."""
        self._reactor = reactor
        self._config = config
        self._reload = reload
        self._find = find
        self._wall = wall
        self._checking: Deferred[None] | None = None
        self._next = 0
        self._timer = LoopingCall(self._check)
        self._timer.clock = reactor

    def start(self) -> None:
        """Look the records up now and then."""
        self._timer.start(CHECK_INTERVAL, now=True)

    def stop(self) -> None:
        """Stop looking."""
        if self._timer.running:
            self._timer.stop()

    def _check(self) -> None:
        if self._checking is None:
            self._checking = Deferred.fromCoroutine(self._check_once())
            self._checking.addErrback(
                lambda failure: log.failure("the look-up of DKIM records has failed", failure, event="bug")
            )
            self._checking.addBoth(self._checked)

    def _checked(self, _result: object) -> None:
        self._checking = None

    async def _check_once(self) -> None:
        try:
            changed = await in_thread(self._reactor, self._change, self._config())
        except (BadKeyFile, OSError, KeyError) as error:
            log.warn("dkim: new keys cannot be used yet: {reason}", event="dkim-not-rotated", reason=str(error))
            return
        for domain, name in changed:
            log.info("dkim: {domain} is signed with the keys {name}", event="dkim-rotated", domain=domain, name=name)
        if changed and self._timer.running:
            await self._reload()

    def _change(self, config: Config) -> list[tuple[str, str]]:
        """Let all keys sign whose records are there; return their domains and names. In a thread. Raises: BadKeyFile, OSError."""
        waiting = read_signing(config.server.state_dir, config.signed_domains).waiting
        if not waiting:
            return []
        # In turns, so that domains whose records never come hold up no others.
        start = self._next % len(waiting)
        chosen = (*waiting[start:], *waiting[:start])[:MOST_AT_ONCE]
        self._next = start + len(chosen)
        names = _names(config, chosen)
        found = self._find(config, [name for names_of in names.values() for name in names_of])
        return [change for domain in chosen if (change := self._change_domain(config, domain, found)) is not None]

    def _change_domain(self, config: Config, domain: str, found: Texts) -> tuple[str, str] | None:
        with key_file.changing(config.server.state_dir):
            keys = key_file.read(config.server.state_dir, domain)
            if keys is None or keys.waiting is None:
                return None
            for key in keys.waiting.keys:
                texts = found.get(record_name(key.selector, domain))
                if texts is None or fault(key.record, texts):
                    return None
            try:
                changed = keys.with_waiting_signing(self._wall())
            except CannotChange:
                return None
            key_file.write(config.server.state_dir, changed)
            return domain, keys.waiting.name


def _names(config: Config, domains: Iterable[str]) -> dict[str, list[str]]:
    """The names of the records that each domain's new keys wait for. Raises: BadKeyFile."""
    names = {}
    for domain in domains:
        keys = key_file.read(config.server.state_dir, domain)
        if keys is not None and keys.waiting is not None:
            names[domain] = [record_name(key.selector, domain) for key in keys.waiting.keys]
    return names
