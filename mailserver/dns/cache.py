"""Answers of the DNS, until their time is over (RFC 1035 7.4, RFC 2308)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from mailserver.dns.query import Answer, DNSFailure, Question

MOST_ANSWERS: Final = 10_000
"""Questions whose answers are kept; the one that was not asked for the longest time goes first."""
MOST_KEPT_RECORDS: Final = 64
"""An answer with more records is not kept."""
FAILURE_TIME: Final = 5.0
"""Seconds that a failure is kept (RFC 2308 7), so that many messages for one domain do not ask again each."""


class AnswerCache:
    """Bounded. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float], size: int = MOST_ANSWERS) -> None:
        self._clock = clock
        self._size = size
        self._kept: OrderedDict[Question, tuple[float, Answer | DNSFailure]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, question: Question) -> Answer | None:
        """The answer, None if it must be asked for. Raises: DNSFailure if that has just failed."""
        kept = self._kept.get(question)
        if kept is None:
            return None
        until, answer = kept
        if self._clock() >= until:
            del self._kept[question]
            return None
        self._kept.move_to_end(question)
        if isinstance(answer, DNSFailure):
            # A new one each time: an exception that is raised twice keeps the tracebacks of both.
            raise DNSFailure(answer.reason)
        return answer

    def keep(self, question: Question, answer: Answer | DNSFailure) -> None:
        """Remember an answer for its time, a failure for a moment."""
        seconds = FAILURE_TIME if isinstance(answer, DNSFailure) else answer.ttl
        if seconds <= 0 or (isinstance(answer, Answer) and len(answer.records) > MOST_KEPT_RECORDS):
            self._kept.pop(question, None)
            return
        self._kept[question] = (self._clock() + seconds, answer)
        self._kept.move_to_end(question)
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
