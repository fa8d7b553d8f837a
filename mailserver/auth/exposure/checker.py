"""Passwords that came before TLS: anybody may have read them, so the right ones among them are found and recorded.

The problems. The client is refused in any case. It must not learn, from words, time or later behaviour, whether the
password was right, whether the user exists, or whether anything was checked at all. And neither junk in clear text nor a
wrong password sent after the right one may keep the right one from being found.

The rules. The session writes its refusal before it submits the password here, and waits for nothing. After
CHECK_INTERVAL the checker looks up whether the user exists: names without an account take no place among the passwords
that wait for a check. Networks share both queues (`exposure.queue`). Checks run one at a time, CHECK_INTERVAL apart; while
logins wait for the hash pool they are postponed, by MAX_POSTPONE at most. A check that failed for another reason is
postponed, too, never dropped. The same password of a user and network is checked once in RECHECK_AFTER.

What an observer learns. Each submitted password causes one check at one of the next times: of a password that waits or,
if none waits because no such user exists, of a dummy. So the load of the pool shows how many passwords came in clear text,
and nothing about the names. A check causes no penalty, and a right password is neither remembered as verified nor makes its
network known: no later login gets faster or slower. Only a right password leaves a trace: the session logs it, and the
record keeps it. A right app password is revoked at once where it can be (`exposure.revocation`), and needs no record.

Rejected: counting wrong passwords as failed logins. An attacker could then read the result from the delay of a login,
unless right passwords and names without an account were counted alike; and then junk in clear text would slow the user down.
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

RECHECK_AFTER: Final = 60.0
"""Seconds between two checks of the same password of a user and network."""
CHECK_INTERVAL: Final = 1.0
"""Seconds from the submission to the lookup of the name, and between two checks."""
MAX_POSTPONE: Final = 30.0
"""Seconds for which a check is postponed while logins wait for the hash pool."""
MAX_RECENT: Final = 10_000
"""Passwords of users and networks remembered for RECHECK_AFTER; the oldest is dropped, and may be checked once more."""
MAX_NAMES: Final = 256
"""Passwords that wait for the lookup of their name."""
MAX_WAITING: Final = 64
"""Passwords that wait for their check..."""
PER_NETWORK: Final = 16
"""...of one network..."""
PER_PAIR: Final = 4
"""...and of one user from one network."""

ExposureMark: TypeAlias = dict[str, str]
"""An entry for the record: "user", "protocol", "method" and "peer"."""
Key: TypeAlias = tuple[str, str, str]
"""Name, network, and a digest of the password in hexadecimal."""
_log = logging.getLogger(__name__)


@frozen
class ExposedPassword:
    """A password that came in clear text."""

    pairs: tuple[Pair, ...]
    """The network with each name that the account may have."""
    password: Secret
    method: str
    """LOGIN, USER, or the name of a SASL mechanism."""
    context: LoginContext
    exists: Callable[[], Awaitable[bool]] = field(repr=False)
    """May such a user exist? Raises: AuthUnavailable."""
    verify: Callable[[], Awaitable[User | None]] = field(repr=False)
    """Return the user whose password it is; None if it is wrong. Raises: AuthUnavailable."""
    check_dummy: Callable[[], Awaitable[None]] = field(repr=False)
    """Take the time of a check, without the password. Raises: AuthUnavailable."""
    report: Callable[[str], None] = field(repr=False)
    """Called with the user's name if it is right."""
    revoke: Callable[[], Awaitable[bool]] = field(repr=False)
    """Revoke it, which is an app password. Return False if the administrator must. Raises: AuthUnavailable."""

    @property
    def client(self) -> str:
        """The client's address, or its /64 for IPv6."""
        return client_of(self.context.peer)


@define
class _Checks:
    """Pending checks."""

    due: int = 0
    """Number of checks to make, of waiting passwords or of dummies."""
    since: float = 0.0
    """Time at which the first of them was due."""
    is_running: bool = False
    is_looking_up: bool = False


class ExposureChecker:
    """Checks exposed passwords out of band. One for the life of the process; all calls are made on one thread."""

    def __init__(
        self,
        digest: Callable[[Secret], bytes],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        busy: Callable[[], bool],
    ) -> None:
        """`digest`: of a password, the same in all workers. `spawn`: run a coroutine. `busy`: do logins wait for a check?"""
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
        self._warned_at = float("-inf")
        self.on_claim: Callable[[Key], None] = lambda _key: None
        """Called with each key that is checked here, so that other processes do not check it."""
        self.on_exposed: Callable[[ExposureMark], None] = lambda _mark: None
        """Called with each right password."""

    def submit(self, exposed: ExposedPassword) -> None:
        """Queue a password whose login was refused."""
        keys = self._keys(exposed)
        if not all([self.claim(key) for key in keys]):  # noqa: C419 - claims each key
            return
        for key in keys:
            self.on_claim(key)
        self._names.add(exposed)
        self._check_dummy = exposed.check_dummy
        self._checks.due = min(self._checks.due + 1, MAX_WAITING)
        self._begin()

    def claim(self, key: Key) -> bool:
        """Claim a key for a check, here or in another process. Return False if it was claimed before."""
        now = self._clock()
        self._forget(now)
        if key in self._recent:
            return False
        self._recent[key] = now
        if len(self._recent) > MAX_RECENT:
            self._recent.popitem(last=False)
        return True

    def drop(self, key: Key) -> None:
        """Drop queued passwords with that key: another process checks it."""
        for queue in (self._names, self._waiting):
            queue.discard(lambda each: key in self._keys(each))

    def claimed(self) -> list[Key]:
        """The keys that were claimed within RECHECK_AFTER."""
        self._forget(self._clock())
        return list(self._recent)

    def _keys(self, exposed: ExposedPassword) -> list[Key]:
        digest = self._digest(exposed.password).hex()
        return [(*pair, digest) for pair in exposed.pairs]

    def _forget(self, now: float) -> None:
        while self._recent and next(iter(self._recent.values())) <= now - RECHECK_AFTER:
            self._recent.popitem(last=False)

    def _begin(self) -> None:
        if not self._checks.is_running:
            self._checks.is_running = True
            self._checks.since = self._clock() + CHECK_INTERVAL
            self._call_later(CHECK_INTERVAL, self._step)

    def _step(self) -> None:
        checks = self._checks
        if len(self._names) and not checks.is_looking_up:
            checks.is_looking_up = True
            self._spawn(self._look_up())
        if not checks.due and not len(self._waiting):
            checks.is_running = False
        elif self._busy() and self._clock() - checks.since < MAX_POSTPONE:
            self._call_later(CHECK_INTERVAL, self._step)
        else:
            checks.due = max(checks.due - 1, 0)
            checks.since = self._clock() + CHECK_INTERVAL
            self._spawn(self._check(self._waiting.take()))

    async def _look_up(self) -> None:
        """Look up the users of the queued passwords, and queue those that exist for a check."""
        try:
            for _ in range(len(self._names)):
                exposed = self._names.take()
                if exposed is None:
                    return
                try:
                    exists = await exposed.exists()
                except AuthUnavailable:
                    # Unknown now: the check decides.
                    exists = True
                if exists:
                    self._queue_check(exposed)
        finally:
            self._checks.is_looking_up = False
            self._begin()

    def _queue_check(self, exposed: ExposedPassword) -> None:
        if not self._waiting.add(exposed) and self._clock() - self._warned_at >= RECHECK_AFTER:
            self._warned_at = self._clock()
            _log.warning("passwords that came in clear text are not checked: too many from one network wait")

    async def _check(self, exposed: ExposedPassword | None) -> None:
        """Check a waiting password, or else a dummy."""
        try:
            if exposed is not None:
                await self._verify(exposed)
            elif self._check_dummy is not None:
                await self._check_dummy()
        except AuthUnavailable:
            self._checks.due = min(self._checks.due + 1, MAX_WAITING)
            if exposed is not None:
                self._queue_check(exposed)
        finally:
            self._call_later(CHECK_INTERVAL, self._step)

    async def _verify(self, exposed: ExposedPassword) -> None:
        user = await exposed.verify()
        if user is not None:
            exposed.report(user.name)
            if user.credential and await exposed.revoke():
                return
            context = exposed.context
            peer = "" if context.peer is None else str(context.peer)
            self.on_exposed({"user": user.name, "protocol": context.protocol, "method": exposed.method, "peer": peer})
