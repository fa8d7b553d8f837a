"""The store of all accounts in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from mailserver.message.summary import Summary
from mailserver.store.interfaces import Bounds
from mailserver.store.memory.account import MemoryAccount


class MemoryStore:
    """All accounts, for as long as the process lives. Any user exists."""

    def __init__(
        self,
        summarise: Callable[[bytes], Summary],
        *,
        special_use: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        quota_warnings: tuple[int, ...] = (),
    ) -> None:
        self._bounds = bounds
        self._quota_warnings = quota_warnings
        self._summarise = summarise
        self._special_use = special_use or {}
        self._clock = clock
        self._accounts: dict[str, MemoryAccount] = {}

    def account(self, user: str, home: str | None = None) -> MemoryAccount:  # noqa: ARG002 - nothing is on disk
        """Return the account, made if it is new, with INBOX and the special-use folders (attribute -> name)."""
        if user not in self._accounts:
            self._accounts[user] = MemoryAccount(
                user,
                self._summarise,
                self._special_use,
                self._clock,
                self._bounds,
                quota_warnings=self._quota_warnings,
            )
        return self._accounts[user]
