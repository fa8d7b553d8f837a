"""Answers to LIST and LSUB that are kept as long as the account's list of mailboxes holds.

A client asks the same at each start, and sessions of one account ask alike. An answer belongs to the `MailboxList` that it
was made of, and goes with it: when a mailbox comes or goes, or the account is closed.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final
from weakref import WeakKeyDictionary

from mailserver.store.interfaces import MailboxList

MOST: Final = 4
"""Answers of one list: a client asks for all mailboxes, for the subscribed ones, and for those of one level."""
LARGEST: Final = 64 << 10
"""Octets of the largest answer that is kept."""


class ListAnswers:
    """The answers of all sessions of a worker."""

    def __init__(self) -> None:
        self._answers: WeakKeyDictionary[MailboxList, dict[Hashable, bytes]] = WeakKeyDictionary()

    def get(self, listed: MailboxList, question: Hashable) -> bytes | None:
        """Return the answer to a question about that list, None if it is not kept."""
        return self._answers.get(listed, {}).get(question)

    def keep(self, listed: MailboxList, question: Hashable, answer: bytes) -> None:
        """Keep an answer unless it is large; the oldest of the list makes room."""
        if len(answer) > LARGEST:
            return
        answers = self._answers.setdefault(listed, {})
        if len(answers) >= MOST:
            del answers[next(iter(answers))]
        answers[question] = answer
