"""Passwords that came before TLS: whoever listened has them, so it must be known which of them are right.

The problems. The client is refused in any case, and must learn nothing: neither by words or time, nor by what it finds
later, whether the password was right, whether there is such a user, or whether anything was looked at at all. And junk that
comes in clear, or a wrong password behind the right one, must not keep a right one from being found.

The rules. The session has written its refusal before it tells of the password here, and waits for nothing. First, GAP
later, it is looked up whether there is such a user: names that nobody has take no place among those that wait for a check, and networks share
both queues (`exposed_queue`). Checks are made one at a time, GAP apart, and while logins wait for the pool they are
put off, for POSTPONED at most. A check that could not be made is put off too, never given up. The same password of a user
and network is checked once in EVERY.

What shows of it. Each notice brings one check at one of the next times, of whatever waits; where nothing does, as the name was
nobody's, a dummy is checked. So how busy the pool is tells how much came in clear, and nothing about the names. A check counts for no
penalty, and a right password is neither noted as checked nor does it make its network known: no later login is faster or
slower for it. Only a right one leaves a trace: it is told to the session, for the log, and to whoever keeps the record.

Rejected: to count wrong ones as failed logins. A stranger could then read the answer off the delay of a login, unless
right ones and names that nobody has are counted alike; and then junk in clear would slow the user down.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

from attrs import define, field, frozen

from mailserver.auth.exposure.queue import ExposureQueue
from mailserver.auth.interfaces import LoginContext, User
from mailserver.auth.throttling.attacks import Pair
from mailserver.errors import AuthUnavailable
from mailserver.types import Secret, client_of

EVERY: Final = 60.0
"""Seconds between two checks of the same password of a user and network."""
GAP: Final = 1.0
"""Seconds from being told to the look-up of the name, and between two checks."""
POSTPONED: Final = 30.0
"""Seconds for which a check is put off while logins wait for theirs."""
MAX_RECENT: Final = 10_000
"""Passwords of users and networks remembered for EVERY; the oldest makes room, and is then checked once more."""
MAX_NAMES: Final = 256
"""Passwords that wait for the look-up of their name, for GAP."""
MAX_WAITING: Final = 64
"""Passwords that wait for their check..."""
PER_NETWORK: Final = 16
"""...of one network..."""
PER_PAIR: Final = 4
"""...and of one user from one network."""

ExposureMark: TypeAlias = dict[str, str]
"""What the record is told: "user", "protocol", "method" and "peer"."""
Key: TypeAlias = tuple[str, str, str]
"""Name, network, and a digest of the password in hexadecimal."""
_log = logging.getLogger(__name__)


@frozen
class ExposedPassword:
    """One password that came in clear text."""

    pairs: tuple[Pair, ...]
    """The network with each name that the account may have."""
    password: Secret
    method: str
    """LOGIN, USER, or the name of a SASL mechanism."""
    context: LoginContext
    exists: Callable[[], Awaitable[bool]] = field(repr=False)
    """May there be such a user? Raises: AuthUnavailable."""
    verify: Callable[[], Awaitable[User | None]] = field(repr=False)
    """The user whose it is, if it is right. Raises: AuthUnavailable."""
    check_dummy: Callable[[], Awaitable[None]] = field(repr=False)
    """Takes the time of a check; it knows no password. Raises: AuthUnavailable."""
    report: Callable[[str], None] = field(repr=False)
    """Called with the user's name if it is right."""

    @property
    def client(self) -> str:
        """The address of the client that has sent it, or the /64 of IPv6."""
        return client_of(self.context.peer)


@define
class _Checks:
    """The checks that are to come."""

    due: int = 0
    """How many, of passwords that wait and of dummies."""
    since: float = 0.0
    """When the first of them could have been made."""
    are_going: bool = False
    are_looking: bool = False


class ExposureChecker:
    """Checks them out of band. All calls are made on one thread; one for the life of the process."""

    def __init__(
        self,
        digest: Callable[[Secret], bytes],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        busy: Callable[[], bool],
    ) -> None:
        """`digest` tells passwords apart, the same in all workers; `spawn` runs a coroutine to its end; `busy()`: do
        logins wait for their check?
        """
        self._digest = digest
        self._clock = clock
        self._call_later = call_later
        self._spawn = spawn
        self._busy = busy
        self._names: ExposureQueue[ExposedPassword] = ExposureQueue(MAX_NAMES, MAX_NAMES // 4, PER_PAIR)
        self._waiting: ExposureQueue[ExposedPassword] = ExposureQueue(MAX_WAITING, PER_NETWORK, PER_PAIR)
        self._checks = _Checks()
        self._recent: OrderedDict[Key, float] = OrderedDict()
        self._check_dummy: Callable[[], Awaitable[None]] | None = None
        self._complained = float("-inf")
        self.on_claim: Callable[[Key], None] = lambda _key: None
        """Called with each that is going to be checked here, so that other processes do not."""
        self.on_exposed: Callable[[ExposureMark], None] = lambda _mark: None
        """Called with each right one."""

    def submit(self, exposed: ExposedPassword) -> None:
        """One has come, and was refused."""
        keys = self._keys(exposed)
        if not all([self.claim(key) for key in keys]):  # noqa: C419 - each is to be taken
            return
        for key in keys:
            self.on_claim(key)
        self._names.add(exposed)
        self._check_dummy = exposed.check_dummy
        self._checks.due = min(self._checks.due + 1, MAX_WAITING)
        self._begin()

    def claim(self, key: Key) -> bool:
        """It is going to be checked, here or in another process. Was it free?"""
        now = self._clock()
        self._forget(now)
        if key in self._recent:
            return False
        self._recent[key] = now
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return True

    def drop(self, key: Key) -> None:
        """Another process checks it: what waits here is forgotten."""
        for queue in (self._names, self._waiting):
            queue.discard(lambda each: key in self._keys(each))

    def claimed(self) -> list[Key]:
        """The keys that were taken within EVERY."""
        self._forget(self._clock())
        return list(self._recent)

    def _keys(self, exposed: ExposedPassword) -> list[Key]:
        digest = self._digest(exposed.password).hex()
        return [(*pair, digest) for pair in exposed.pairs]

    def _forget(self, now: float) -> None:
        while self._recent and next(iter(self._recent.values())) <= now - EVERY:
            self._recent.popitem(last=False)

    def _begin(self) -> None:
        if not self._checks.are_going:
            self._checks.are_going = True
            self._checks.since = self._clock() + GAP
            self._call_later(GAP, self._go_on)

    def _go_on(self) -> None:
        checks = self._checks
        if len(self._names) and not checks.are_looking:
            checks.are_looking = True
            self._spawn(self._look_up())
        if not checks.due and not len(self._waiting):
            checks.are_going = False
        elif self._busy() and self._clock() - checks.since < POSTPONED:
            self._call_later(GAP, self._go_on)
        else:
            checks.due = max(checks.due - 1, 0)
            checks.since = self._clock() + GAP
            self._spawn(self._check(self._waiting.take()))

    async def _look_up(self) -> None:
        """Look up the names that have come since the last time."""
        try:
            for _ in range(len(self._names)):
                exposed = self._names.take()
                if exposed is None:
                    return
                try:
                    exists = await exposed.exists()
                except AuthUnavailable:
                    # The check finds out, later.
                    exists = True
                if exists:
                    self._wait(exposed)
        finally:
            self._checks.are_looking = False
            self._begin()

    def _wait(self, exposed: ExposedPassword) -> None:
        if not self._waiting.add(exposed) and self._clock() - self._complained >= EVERY:
            self._complained = self._clock()
            _log.warning("passwords that came in clear text are not checked: too many of one network wait")

    async def _check(self, exposed: ExposedPassword | None) -> None:
        """One that waits, or else a dummy."""
        try:
            if exposed is not None:
                await self._verify(exposed)
            elif self._check_dummy is not None:
                await self._check_dummy()
        except AuthUnavailable:
            self._checks.due = min(self._checks.due + 1, MAX_WAITING)
            if exposed is not None:
                self._wait(exposed)
        finally:
            self._call_later(GAP, self._go_on)

    async def _verify(self, exposed: ExposedPassword) -> None:
        user = await exposed.verify()
        if user is not None:
            exposed.report(user.name)
            context = exposed.context
            peer = "" if context.peer is None else str(context.peer)
            self.on_exposed({"user": user.name, "protocol": context.protocol, "method": exposed.method, "peer": peer})
