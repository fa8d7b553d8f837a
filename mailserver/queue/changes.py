"""What outcomes change: recipients that go or wait, reports that are due. Pure functions of rows, outcomes and the time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import define, evolve, field, frozen

from mailserver.queue import dsn_rules, schedule
from mailserver.queue.model import Message, Recipient, Settings
from mailserver.queue.outcome import Outcome
from mailserver.queue.report import MAX_RECIPIENTS, Action, ReportedRecipient

MAX_REPLY: Final = 512
"""Characters of a reply that are kept in a row."""


@frozen
class Pending:
    """A report to be written."""

    action: Action
    message: Message
    recipients: tuple[ReportedRecipient, ...]


@define
class Changes:
    """The changes of one transaction, and the rows that they were made from."""

    rows: list[Recipient] = field(factory=list)
    """As they were read: the transaction is made anew if one has changed meanwhile."""
    gone: list[Recipient] = field(factory=list)
    waiting: list[tuple[Recipient, int]] = field(factory=list)
    """Recipients as they shall be, with the expiry of their message."""
    reported: dict[tuple[Action, Message], list[ReportedRecipient]] = field(factory=dict)
    destinations: dict[str, str | None] = field(factory=dict)
    """Those that answered (empty), failed (the reason), or only have other recipients (None)."""
    failures: list[tuple[Message, Recipient, Outcome, bool]] = field(factory=list)
    """Recipients that failed for good, and whether it is reported."""

    def reports(self) -> Iterable[Pending]:
        """Yield the reports, each with a bounded number of recipients."""
        for (action, message), recipients in self.reported.items():
            for start in range(0, len(recipients), MAX_RECIPIENTS):
                yield Pending(action, message, tuple(recipients[start : start + MAX_RECIPIENTS]))

    def add(self, message: Message, recipient: Recipient, outcome: Outcome, settings: Settings, now: int) -> None:
        """Add the outcome of a try."""
        self.rows.append(recipient)
        destination = recipient.target.destination
        if outcome.result == "hop_failed":
            self.destinations[destination] = outcome.diagnostic[:MAX_REPLY] or "no connection"
        elif outcome.stage is not None or outcome.result in {"passed_on", "relayed", "delivered"}:
            self.destinations[destination] = ""
        else:
            self.destinations.setdefault(destination, None)
        match outcome.result:
            case "passed_on":
                self.gone.append(recipient)
            case "relayed":
                self._succeed("relayed", message, recipient, outcome, now)
            case "delivered":
                self._succeed("delivered", message, recipient, outcome, now)
            case "failed":
                self._fail(message, recipient, outcome, now)
            case "again":
                self._wait(message, recipient, outcome, now, due=now, tries=recipient.tries)
            case "deferred":
                tries = recipient.tries + 1
                due = schedule.next_due(settings, now, tries, message.expires)
                self._wait(message, recipient, outcome, now, due=due, tries=tries)
            case "hop_failed":
                # The tries do not count: once the hop answers, a first refusal for now is to be tried again soon.
                due = schedule.next_due(settings, now, 1, message.expires)
                self._wait(message, recipient, outcome, now, due=due, tries=recipient.tries)

    def add_overdue(self, message: Message, recipient: Recipient, hop_reply: str, now: int) -> None:
        """Add a recipient whose notice or expiry has come while its destination cannot be reached."""
        self.rows.append(recipient)
        self.destinations.setdefault(recipient.target.destination, None)
        outcome = Outcome("hop_failed", "4.4.7", recipient.reply or hop_reply, hop=recipient.hop)
        due = None if now >= message.expires else recipient.due
        self._wait(message, recipient, outcome, now, due=due, tries=recipient.tries)

    def _succeed(self, action: Action, message: Message, recipient: Recipient, outcome: Outcome, now: int) -> None:
        self.gone.append(recipient)
        if dsn_rules.wants_success(message.envelope, recipient.target):
            self._report(action, message, recipient, outcome, now)

    def _fail(self, message: Message, recipient: Recipient, outcome: Outcome, now: int) -> None:
        self.gone.append(recipient)
        wanted = dsn_rules.wants_failure(message.envelope, recipient.target)
        self.failures.append((message, recipient, outcome, wanted))
        if wanted:
            self._report("failed", message, recipient, outcome, now)

    def _wait(
        self, message: Message, recipient: Recipient, outcome: Outcome, now: int, *, due: int | None, tries: int
    ) -> None:
        """Let it wait; None: it has expired, and fails with its last reply."""
        if due is None:
            self._fail(message, recipient, outcome, now)
            return
        notice = recipient.notice
        if notice is not None and now >= notice:
            notice = None
            if dsn_rules.wants_delay(message.envelope, recipient.target):
                self._report("delayed", message, recipient, outcome, now)
        reply = outcome.diagnostic[:MAX_REPLY]
        hop = outcome.hop[:MAX_REPLY]
        self.waiting.append(
            (evolve(recipient, due=due, tries=tries, notice=notice, hop=hop, reply=reply), message.expires)
        )

    def _report(self, action: Action, message: Message, recipient: Recipient, outcome: Outcome, now: int) -> None:
        reported = ReportedRecipient(recipient.target, outcome, now)
        self.reported.setdefault((action, message), []).append(reported)
