"""Answers to LIST and LSUB that are kept as long as the account's list of mailboxes holds.

A client asks the same at each start, and sessions of one account ask alike. An answer belongs to the `MailboxList` that it
was made of, and goes with it: when a mailbox comes or goes, or the account is closed.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from mailserver.store.interfaces import MailboxList, Status

T = TypeVar("T")

MOST: Final = 4
"""Answers of one list: a client asks for all mailboxes, for the subscribed ones, and for those of one level."""
LARGEST: Final = 64 << 10
"""Octets of the largest answer that is kept."""
LARGEST_LINES: Final = 512 << 10
"""Octets of the largest answer that is kept as lines: a thousand mailboxes."""


class ListLine(NamedTuple):
    """A LIST response, and the mailbox whose STATUS may follow it."""

    text: bytes
    mailbox: str | None
    """The store's name; None if the mailbox cannot be selected, or does not meet the selection criteria itself."""


class ListLines(NamedTuple):
    """An answer as lines, as the status of each mailbox may change."""

    lines: tuple[ListLine, ...]
    statuses: dict[str, tuple[Status, bytes]]
    """By the store's name: the last status of the mailbox, and the response that it was rendered to."""


class ListAnswers(Generic[T]):
    """The answers of all sessions of a worker."""

    def __init__(self, largest: int = LARGEST) -> None:
        """`largest`: octets of the largest answer that is kept."""
        self._largest = largest
        self._answers: WeakKeyDictionary[MailboxList, dict[Hashable, T]] = WeakKeyDictionary()

    def get(self, listed: MailboxList, question: Hashable) -> T | None:
        """Return the answer to a question about that list, None if it is not kept."""
        return self._answers.get(listed, {}).get(question)

    def keep(self, listed: MailboxList, question: Hashable, answer: T, size: int) -> None:
        """Keep an answer of so many octets unless it is large; the oldest of the list makes room."""
        if size > self._largest:
            return
        answers = self._answers.setdefault(listed, {})
        if len(answers) >= MOST:
            del answers[next(iter(answers))]
        answers[question] = answer
