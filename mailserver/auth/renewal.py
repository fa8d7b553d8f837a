"""Weaker hashes made anew: the entry of a main password is replaced after a login that it let in.

Only a login has the password. The login does not wait: the new hash is made later, one at a time, PAUSE apart, in the lowest
class of the hash pool, and not while logins wait there. So users of an imported directory whose digests were quick to check
do not meet their hashes all at once. What has waited for too long is dropped, and done after another login.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from typing import Any, Final, Protocol, cast

from attrs import field, frozen

from mailserver.auth.backends.guard import Threads
from mailserver.auth.credential_store import CredentialStore, IStoresCredentials
from mailserver.auth.interfaces import User
from mailserver.auth.schemes.renewal import is_weaker
from mailserver.errors import AuthUnavailable, TooManyLogins
from mailserver.types import Secret

PAUSE: Final = 1.0
"""Seconds from a login to the first hash, and between two of them."""
MAX_WAITING: Final = 16
"""Users whose passwords wait."""
MAX_WAIT: Final = 60.0
"""Seconds for which a password is kept."""
FAILURE_PAUSE: Final = 30.0
"""Seconds without a further attempt after one that failed: the directory may be read-only here."""

_log = logging.getLogger(__name__)


class Maker(Protocol):
    """Makes hashes outside the threads of this process."""

    async def make_anew(self, password: Secret, scram: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        """See `schemes.renewal.make_anew`. Raises: TooManyLogins, AuthUnavailable."""


@frozen
class _Due:
    user: User
    stored: str = field(repr=False)
    password: Secret
    store: CredentialStore
    since: float


class Renewals:
    """The passwords whose hashes are to be made anew, in one process. All calls are made on one thread."""

    def __init__(
        self,
        maker: Maker,
        threads: Threads,
        *,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        busy: Callable[[], bool],
    ) -> None:
        """`threads`: for the store. `spawn`: run a coroutine. `busy`: do logins wait for a check?"""
        self.enabled = True
        self.scram_hashes: Collection[str] = ()
        """Hashes for which keys are made where there are none."""
        self._maker = maker
        self._threads = threads
        self._clock = clock
        self._call_later = call_later
        self._spawn = spawn
        self._busy = busy
        self._due: dict[str, _Due] = {}
        """By user, the oldest first."""
        self._running = False
        self._paused_until = float("-inf")
        self._problem = ""

    def __len__(self) -> int:
        return len(self._due)

    def add(self, backend: object, user: User, stored: str, password: Secret) -> None:
        """Have the entry made anew that has let the user in, if it is a weaker one that the back end can replace."""
        if not self.enabled or user.name in self._due or len(self._due) >= MAX_WAITING:
            return
        if self._clock() < self._paused_until or not IStoresCredentials.providedBy(backend):
            return
        if is_weaker(stored, password.reveal()):
            store = cast("CredentialStore", cast("Any", backend).credentials)
            self._due[user.name] = _Due(user, stored, password, store, self._clock())
            if not self._running:
                self._running = True
                self._call_later(PAUSE, self._step)

    def _step(self) -> None:
        now = self._clock()
        for name, due in list(self._due.items()):
            if now - due.since > MAX_WAIT or not self.enabled:
                del self._due[name]
        if not self._due:
            self._running = False
        elif self._busy():
            self._call_later(PAUSE, self._step)
        else:
            self._spawn(self._run(self._due.pop(next(iter(self._due)))))

    async def _run(self, due: _Due) -> None:
        try:
            await self._renew(due)
        except TooManyLogins:
            _log.debug("the hash of %s is not made anew: too many logins wait", due.user.name)
        except AuthUnavailable as error:
            self._paused_until = self._clock() + FAILURE_PAUSE
            self._due.clear()
            self._log_problem(error.reason)
        finally:
            self._call_later(PAUSE, self._step)

    async def _renew(self, due: _Due) -> None:
        missing = await self._in_thread(lambda: due.store.missing_scram(due.user))
        scram = {hash_name: text for hash_name, text in missing.items() if hash_name in self.scram_hashes}
        made, keys = await self._maker.make_anew(due.password, scram)
        if await self._in_thread(lambda: due.store.renew(due.user, due.stored, made, keys)):
            self._problem = ""
            _log.info("the password of %s is stored by a stronger hash now", due.user.name)

    def _log_problem(self, problem: str) -> None:
        """Log each problem once, not every half minute."""
        if problem != self._problem:
            self._problem = problem
            _log.warning("weaker hashes of passwords are not made anew: %s", problem)

    def _in_thread(self, function: Callable[[], Any]) -> Awaitable[Any]:
        return cast("Awaitable[Any]", self._threads.run(function))
