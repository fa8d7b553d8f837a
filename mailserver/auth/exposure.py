"""Passwords that came before TLS: whoever listened has them, so it must be known which of them are right.

The problem. The client is refused in any case, and must learn nothing: neither by words or time, nor by what it finds
later, whether the password was right, whether there is such a user, or whether anything was looked at at all.

The rules. The session has written its refusal before it tells of the password here, and waits for nothing. Checks are
made one at a time, each at least GAP after it was told of and after the last one, and never while logins wait for the
pool. A pair of user and network is checked once in EVERY at most. Each check costs the pair what a wrong password
costs, a right one too: else the next login's delay would tell. Who has to wait for that reason is not checked. Only a
right one leaves a trace: it is told to the session, for the log, and to whoever keeps the record.

Rejected: to count wrong ones only, as logins do. A stranger could then try passwords in clear text and read the answer
off the delay of a login.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeAlias

from attrs import field, frozen

from mailserver.auth.attacks import Pair
from mailserver.auth.interfaces import LoginContext, User
from mailserver.auth.penalties import Penalties
from mailserver.errors import AuthUnavailable
from mailserver.types import Secret

EVERY: Final = 60.0
"""Seconds between two checks of a pair of user and network."""
GAP: Final = 1.0
"""Seconds from being told to the check, and between two checks."""
MAX_PAIRS: Final = 10_000
"""Pairs remembered for EVERY; beyond, nobody new is checked."""
MAX_WAITING: Final = 32
"""Passwords that wait for their check; beyond, they are forgotten."""

Mark: TypeAlias = dict[str, str]
"""What the record is told: "user", "protocol", "method" and "peer"."""
_log = logging.getLogger(__name__)


@frozen
class Exposed:
    """One password that came in clear text."""

    pairs: tuple[Pair, ...]
    """The network with each name that the account may have."""
    password: Secret
    method: str
    """LOGIN, USER, or the name of a SASL mechanism."""
    context: LoginContext
    verify: Callable[[], Awaitable[User | None]] = field(repr=False)
    """The user whose it is, if it is right. Raises: AuthUnavailable."""
    tell: Callable[[str], None] = field(repr=False)
    """Called with the user's name if it is right."""


class ExposureWatch:
    """Checks them out of band. All calls are made on one thread; one for the life of the process."""

    def __init__(
        self,
        penalties: Penalties,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        busy: Callable[[], bool],
    ) -> None:
        """`spawn` runs a coroutine to its end; `busy()`: do logins wait for their check?"""
        self._penalties = penalties
        self._clock = clock
        self._call_later = call_later
        self._spawn = spawn
        self._busy = busy
        self._waiting: deque[Exposed] = deque()
        self._last: OrderedDict[Pair, float] = OrderedDict()
        self._going = False
        self.on_notice: Callable[[Pair], None] = lambda _pair: None
        """Called with each pair that is going to be checked here, so that other processes do not."""
        self.on_exposed: Callable[[Mark], None] = lambda _mark: None
        """Called with each right one."""

    def notice(self, exposed: Exposed) -> None:
        """One has come, and was refused."""
        if len(self._waiting) >= MAX_WAITING or not all(self.take(pair) for pair in exposed.pairs):
            return
        for pair in exposed.pairs:
            self.on_notice(pair)
        self._waiting.append(exposed)
        if not self._going:
            self._going = True
            self._call_later(GAP, self._go_on)

    def take(self, pair: Pair) -> bool:
        """The pair's turn, here or in another process. Was it free?"""
        now = self._clock()
        self._forget(now)
        if pair in self._last or len(self._last) >= MAX_PAIRS:
            return False
        self._last[pair] = now
        return True

    def leave(self, pair: Pair) -> None:
        """Another process checks that pair: what waits here for its check is forgotten."""
        self._waiting = deque(each for each in self._waiting if pair not in each.pairs)

    def taken(self) -> list[Pair]:
        """Pairs that had their turn within EVERY."""
        self._forget(self._clock())
        return list(self._last)

    def _forget(self, now: float) -> None:
        while self._last and next(iter(self._last.values())) <= now - EVERY:
            self._last.popitem(last=False)

    def _go_on(self) -> None:
        if not self._waiting:
            self._going = False
        elif self._busy():
            self._call_later(GAP, self._go_on)
        else:
            self._spawn(self._check(self._waiting.popleft()))

    async def _check(self, exposed: Exposed) -> None:
        try:
            if any(self._penalties.turn(pair) > 0 for pair in exposed.pairs):
                return
            for pair in exposed.pairs:
                self._penalties.failed(pair, exposed.password)
            user = await exposed.verify()
            if user is not None:
                exposed.tell(user.name)
                context = exposed.context
                peer = "" if context.peer is None else str(context.peer)
                self.on_exposed(
                    {"user": user.name, "protocol": context.protocol, "method": exposed.method, "peer": peer}
                )
        except AuthUnavailable:
            _log.warning("a password that came in clear text could not be checked")
        finally:
            self._call_later(GAP, self._go_on)
