"""Group delivery: concurrent deliveries into one account are done together, and each is answered afterwards.

Each delivery asks for its own turn of the account's thread. The first turn does all deliveries that wait by then; a
later turn finds its own done, and returns the result. So no delivery waits for others. The busier an account is, the
more its deliveries share: the locks, the uidlist's append, the syncs of directories, the transaction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define

from mailserver.cancellation import shielded
from mailserver.store.interfaces import Account
from mailserver.store.receiving import Appended, Delivery
from mailserver.types import MailboxId

MOST: Final = 100
"""Most deliveries in one group."""

Stage = Callable[[Account], Delivery]
"""Makes the messages in the account's thread. It removes what it staged if it fails."""


@define(eq=False)
class PendingDelivery:
    """One delivery and its outcome."""

    stage: Stage
    outcome: Appended | Exception | None = None


class Deliveries:
    """The waiting deliveries of one account."""

    def __init__(self) -> None:
        self._waiting: deque[PendingDelivery] = deque()

    def add(self, stage: Stage) -> PendingDelivery:
        """Add a delivery, on the reactor's thread. Then ask for a turn of the account and call `finish` in it."""
        waiting = PendingDelivery(stage)
        self._waiting.append(waiting)
        return waiting

    def finish(
        self,
        waiting: PendingDelivery,
        account: Account,
        seen_by: Callable[[MailboxId], bool],
        done: Callable[[Appended], None],
    ) -> Appended:
        """Return a delivery's result, in the account's thread. `done` is called with each delivery that this turn has
        done.

        Raises: as `Account.append`, and what `stage` raises.
        """
        if waiting.outcome is None:
            # The session whose turn it is may have ended: the other deliveries continue.
            with shielded():
                self._do_all(account, seen_by, done)
        assert waiting.outcome is not None
        if isinstance(waiting.outcome, Exception):
            raise waiting.outcome
        return waiting.outcome

    def _do_all(self, account: Account, seen_by: Callable[[MailboxId], bool], done: Callable[[Appended], None]) -> None:
        staged: list[tuple[PendingDelivery, Delivery]] = []
        for _ in range(min(MOST, len(self._waiting))):
            each = self._waiting.popleft()
            try:
                staged.append((each, each.stage(account)))
            except Exception as error:
                each.outcome = error
        try:
            outcomes = account.deliver([delivery for _, delivery in staged], seen_by)
        except Exception as error:
            outcomes = [error] * len(staged)
        for (each, _), outcome in zip(staged, outcomes, strict=True):
            each.outcome = outcome
            if isinstance(outcome, Appended):
                done(outcome)
