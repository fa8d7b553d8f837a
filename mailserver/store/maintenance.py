"""Work on accounts that can wait: done a little at a time while an account has sessions and these ask for nothing.

Rules:

*   An account is looked after once it has been quiet for a while, or busy for so long that it will not be. Each slice is
    one operation in the account's turn; it ends early when another one waits.
*   All accounts together take a share of one processor: after each slice comes a pause in proportion.
*   What an account without sessions leaves undone is done when it has sessions again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from attrs import define

if TYPE_CHECKING:
    from mailserver.store.live import LiveAccount

QUIET: Final = 1.0
"""Seconds without an operation before the work begins."""
PATIENCE: Final = 30
"""Times that an account is found busy before it is looked after all the same."""
SHARE: Final = 1 / 3
"""Of one processor's time."""
_LEAST_PAUSE: Final = 0.002
_TURN: Final = 2.0
"""Seconds after which the next account has its turn."""


@define
class _Due:
    """One account that may have work."""

    operations: int
    """Of the account, when it was looked at last."""
    busy: int = 0
    """Times that it was found busy since it was last found quiet."""
    rounds: int = 0
    """Times to be passed over."""


class Maintenance:
    """Looks after accounts; on the reactor's thread."""

    def __init__(
        self,
        sleep: Callable[[float], Awaitable[None]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`spawn` runs a coroutine to its end, and logs what it raises."""
        self._sleep = sleep
        self._spawn = spawn
        self._clock = clock
        self._due: dict[LiveAccount, _Due] = {}
        self._running = False
        self._stopped = False

    def wake(self, account: LiveAccount) -> None:
        """The account has been used, and may have work. Cheap."""
        if self._stopped:
            return
        if account not in self._due:
            self._due[account] = _Due(-1)
        if not self._running:
            self._running = True
            self._spawn(self._run())

    def stop(self) -> None:
        """Begin nothing more."""
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
        """Slices, until nothing is left, the account is used (unless it always is), or others shall have their turn."""
        end = self._clock() + _TURN
        while self._clock() < end and account.users and account in self._due:
            operations = account.operations
            try:
                pause, spent = await account.maintain(lambda: account.operations != operations)  # noqa: B023 - awaited here
            except BaseException:
                self._due.pop(account, None)
                raise
            if pause is None:
                self._due.pop(account, None)
                return
            if account.operations != operations and due.busy <= PATIENCE:
                return
            if pause > QUIET:
                due.rounds = int(pause / QUIET)
                return
            await self._sleep(max(pause, spent * (1 / SHARE - 1), _LEAST_PAUSE))
