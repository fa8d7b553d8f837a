"""A naive queue in memory (`queue.interfaces.Work`): lists that are searched from end to end."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from attrs import evolve

from mailserver.queue.interfaces import Spooled, Try
from mailserver.queue.model import Envelope, Hop, Message, MessageMissing, Recipient, Settings, Target
from mailserver.queue.outcome import Outcome
from mailserver.queue.schedule import expires_at, next_contact, next_due, notice_at

HEAD = b"one line before the message\n"


class MemoryQueue:
    """The rows are lists; each message is a file of the directory."""

    def __init__(self, directory: Path, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.messages: dict[int, Message] = {}
        self.recipients: dict[int, Recipient] = {}
        self.results_of: dict[str, list[Outcome]] = {}
        """By recipient, as they came."""
        self.failed: list[str] = []
        """Recipients whose senders get a report."""
        self.calls: list[str] = []
        """Calls of `due`, `take`, `open` and `results`, with what they were about."""
        self.commits = 0
        self.upkeep: list[tuple[str, int, frozenset[int]]] = []
        """Calls of `overdue` and `sweep` with their time, and of `sync` with the number of commits."""
        self.error: Exception | None = None
        """Raised by each call but `changed`."""
        self._directory = directory
        self._hops: dict[str, Hop] = {}
        self._number = 0
        self._has_changed = False

    def accept(self, envelope: Envelope, targets: Sequence[Target], data: bytes) -> Message:
        """Queue a message at once."""
        self._number += 1
        name = f"m{self._number}"
        (self._directory / name).write_bytes(HEAD + data)
        expires = expires_at(self.settings, envelope)
        message = Message(self._number, name, len(HEAD), len(data), expires, envelope)
        self.messages[message.id] = message
        for target in targets:
            self._number += 1
            notice = notice_at(self.settings, envelope, target)
            self.recipients[self._number] = Recipient(
                self._number, message.id, target, "waiting", envelope.received, 0, notice, "", ""
            )
        self._has_changed = True
        return message

    def changed(self) -> bool:
        """See Work."""
        found, self._has_changed = self._has_changed, False
        return found

    def due(self, now: int, limit: int, besides: Collection[str] = ()) -> Sequence[str]:
        """See Work."""
        self._call("due")
        found: dict[str, int] = {}
        for each in self._waiting():
            key = each.target.destination
            if key not in besides and self._due(each) <= now:
                found[key] = min(found.get(key, now), each.due)
        return sorted(found, key=lambda key: found[key])[:limit]

    def next_due(self, besides: Collection[str] = ()) -> int | None:
        """See Work."""
        return min(
            (self._due(each) for each in self._waiting() if each.target.destination not in besides), default=None
        )

    def take(self, destination: str, now: int, limit: int, besides: Collection[int] = ()) -> Sequence[Try]:
        """See Work."""
        self._call(f"take {destination}")
        found: dict[int, list[Recipient]] = {}
        for each in self._waiting():
            if each.target.destination == destination and each.due <= now and each.id not in besides:
                found.setdefault(each.message, []).append(each)
        return [Try(self.messages[key], tuple(found[key])) for key in sorted(found)[:limit]]

    def open(self, message: Message) -> int:
        """See Work."""
        self._call(f"open {message.name}")
        try:
            return os.open(self._directory / message.name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise MessageMissing from error

    def results(self, results: Sequence[tuple[Recipient, Outcome]], now: int, *, token: str = "") -> Sequence[Spooled]:
        """See Work. Reports are names in `failed`."""
        self._call("results")
        self.commits += 1
        failures: dict[str, Outcome] = {}
        for recipient, outcome in results:
            key = recipient.target.destination
            self.results_of.setdefault(recipient.target.address, []).append(outcome)
            if outcome.result == "hop_failed":
                failures[key] = outcome
            else:
                self._hops.pop(key, None)
            self._end(recipient, outcome, now)
        for key, outcome in failures.items():
            count = self._hops[key].failures + 1 if key in self._hops else 1
            until = next_contact(self.settings, now, count)
            self._hops[key] = Hop(key, until, count, outcome.diagnostic)
        return ()

    def overdue(self, now: int, besides: Collection[int] = ()) -> Sequence[Spooled]:
        """See Work. It only notes the call."""
        self.upkeep.append(("overdue", now, frozenset(besides)))
        return ()

    def sync(self) -> int:
        """See Work. It only notes the call."""
        self._call("sync")
        self.upkeep.append(("sync", self.commits, frozenset()))
        return 0

    def sweep(self, now: int) -> Sequence[str]:
        """See Work. It only notes the call."""
        self.upkeep.append(("sweep", now, frozenset()))
        return ()

    def hops(self) -> Sequence[Hop]:
        """See Work."""
        return list(self._hops.values())

    def _end(self, recipient: Recipient, outcome: Outcome, now: int) -> None:
        assert recipient.id in self.recipients, "a result for what is not in the queue"
        message = self.messages[recipient.message]
        match outcome.result:
            case "passed_on" | "relayed" | "delivered":
                del self.recipients[recipient.id]
                return
            case "failed":
                due = None
            case "again":
                due = now
            case "hop_failed":
                due = None if now >= message.expires else recipient.due
            case _:
                due = next_due(self.settings, now, recipient.tries + 1, message.expires)
        if due is None:
            self.failed.append(recipient.target.address)
            del self.recipients[recipient.id]
        else:
            tries = recipient.tries + (outcome.result == "deferred")
            self.recipients[recipient.id] = evolve(recipient, due=due, tries=tries, reply=outcome.diagnostic)

    def _waiting(self) -> list[Recipient]:
        return [each for each in self.recipients.values() if each.state == "waiting"]

    def _due(self, recipient: Recipient) -> int:
        hop = self._hops.get(recipient.target.destination)
        return recipient.due if hop is None else max(recipient.due, hop.until)

    def _call(self, words: str) -> None:
        self.calls.append(words)
        if self.error is not None:
            raise self.error
