"""Maintenance of accounts in small slices, while their sessions are idle: index checkpoints and the text index.

Rules:

*   An account is maintained once it has been idle for a while, or has been busy for too long. Each slice is one
    operation in the account's turn. It ends early when another operation waits.
*   All accounts together take a share of one processor: a pause in proportion follows each slice. SHARE holds for BURST
    seconds of work, as of one large mailbox that is searched; further work gets LASTING_SHARE, so that a server with
    many accounts to maintain is at rest all the same. `spent` is its cost, `due` the number of accounts that wait.
*   Work that is left when an account's last session ends is done when it has sessions again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from attrs import define

if TYPE_CHECKING:
    from mailserver.store.live import LiveAccount

QUIET: Final = 1.0
"""Seconds without an operation before maintenance starts."""
PATIENCE: Final = 30
"""Checks that find an account busy before it is maintained all the same."""
SHARE: Final = 1 / 10
"""Share of one processor's time, for a burst of work."""
BURST: Final = 30.0
"""Seconds of a processor that are spent at SHARE before LASTING_SHARE holds. They come back at that rate."""
LASTING_SHARE: Final = 1 / 50
_LEAST_PAUSE: Final = 0.002
_TURN: Final = 2.0
"""Seconds after which the next account has its turn."""


@define
class _Due:
    """An account that may need maintenance."""

    operations: int
    """The account's number of operations at the last check."""
    busy: int = 0
    """Checks in a row that found it busy."""
    rounds: int = 0
    """Checks to skip."""


class Maintenance:
    """The maintenance of all accounts, on the reactor's thread."""

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`spawn` runs a coroutine and logs its exceptions."""
        self._sleep = sleep
        self._spawn = spawn
        self._clock = clock
        self._due: dict[LiveAccount, _Due] = {}
        self._running = False
        self._stopped = False
        self._credit = BURST
        self._credit_time = clock()
        self.spent = 0.0
        """Processor seconds that maintenance has taken."""

    @property
    def due(self) -> int:
        """The number of accounts that may need maintenance."""
        return len(self._due)

    def wake(self, account: LiveAccount) -> None:
        """Note that the account has been used and may need maintenance. Cheap."""
        if self._stopped:
            return
        if account not in self._due:
            self._due[account] = _Due(-1)
        if not self._running:
            self._running = True
            self._spawn(self._run())

    def stop(self) -> None:
        """Start nothing more."""
        self._stopped = True
        self._due.clear()

    async def _run(self) -> None:
        try:
            while self._due:
                await self._sleep(QUIET)
                for account, due in list(self._due.items()):
                    if account not in self._due:
                        continue
                    if account.users == 0 or not account.opened:
                        del self._due[account]
                    elif due.rounds:
                        due.rounds -= 1
                    elif due.operations != account.operations:
                        due.operations = account.operations
                        due.busy += 1
                        if due.busy > PATIENCE:
                            await self._maintain(account, due)
                    else:
                        due.busy = 0
                        await self._maintain(account, due)
        finally:
            self._running = False

    async def _maintain(self, account: LiveAccount, due: _Due) -> None:
        """Run slices until nothing is left, the account is used (unless it always is), or the next account has its
        turn.
        """
        end = self._clock() + _TURN
        while self._clock() < end and account.users and account in self._due:
            operations = account.operations
            try:
                pause, spent = await account.maintain(lambda: account.operations != operations)  # noqa: B023 - awaited here
            except BaseException:
                self._due.pop(account, None)
                raise
            self.spent += spent
            if pause is None:
                self._due.pop(account, None)
                return
            if account.operations != operations and due.busy <= PATIENCE:
                return
            if pause > QUIET:
                due.rounds = int(pause / QUIET)
                return
            await self._sleep(max(pause, self._pause_after(spent), _LEAST_PAUSE))

    def _pause_after(self, spent: float) -> float:
        """Count the seconds of a slice. Return those that must pass before the next one."""
        now = self._clock()
        self._credit = min(BURST, self._credit + (now - self._credit_time) * LASTING_SHARE) - spent
        self._credit_time = now
        return max(spent * (1 / SHARE - 1), -self._credit / LASTING_SHARE)
