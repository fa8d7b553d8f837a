"""The queue as plain values in memory: what a schedule, results and commands make of recipients and destinations."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from attrs import Factory, define

from mailserver.queue import dsn_rules, schedule
from mailserver.queue.interfaces import Spooled
from mailserver.queue.model import Envelope, Settings, Target


@define
class Entry:
    """A recipient."""

    name: str
    envelope: Envelope
    target: Target
    due: int
    notice: int | None
    held: bool = False
    tries: int = 0

    @property
    def row(self) -> tuple[object, ...]:
        """What must be the same as in the rows."""
        return self.name, self.target.address, self.held, self.due, self.tries, self.notice


@define
class NaiveQueue:
    settings: Settings
    entries: list[Entry] = Factory(list)
    dead: dict[str, tuple[int, int]] = Factory(dict)
    """Until when, and the number of failures."""

    def accept(self, spooled: Spooled, now: int) -> None:
        for target in spooled.targets:
            notice = schedule.notice_at(self.settings, spooled.envelope, target)
            self.entries.append(Entry(spooled.name, spooled.envelope, target, now, notice))

    def ready(self) -> dict[str, int]:
        """When each destination may be tried."""
        first: dict[str, int] = {}
        for each in self.entries:
            if not each.held:
                destination = each.target.destination
                first[destination] = min(first.get(destination, each.due), each.due)
        return {destination: max(due, self.dead.get(destination, (0, 0))[0]) for destination, due in first.items()}

    def due(self, destination: str, now: int) -> list[Entry]:
        return [e for e in self.entries if e.target.destination == destination and not e.held and e.due <= now]

    def results(self, results: Sequence[tuple[Entry, str]], now: int) -> set[tuple[str, str]]:
        """Apply results. Return the reports: what is reported of which message."""
        reports: set[tuple[str, str]] = set()
        for entry, result in results:
            destination = entry.target.destination
            if result == "hop_failed":
                until, failures = self.dead.get(destination, (0, 0))
                if until <= now:
                    self.dead[destination] = now + schedule.wait_after(self.settings, failures + 1), failures + 1
            else:
                self.dead.pop(destination, None)
            expires = schedule.expires_at(self.settings, entry.envelope)
            if result == "relayed":
                self.entries.remove(entry)
            elif result == "failed" or (result in {"deferred", "hop_failed"} and now >= expires):
                reports |= self._fail(entry)
            elif result == "again":
                entry.due = now
                reports |= self._late(entry, now)
            else:
                entry.tries += result == "deferred"
                tries = entry.tries if result == "deferred" else 1
                entry.due = min(now + schedule.wait_after(self.settings, tries), expires)
                reports |= self._late(entry, now)
        return reports

    def overdue(self, now: int) -> set[tuple[str, str]]:
        reports: set[tuple[str, str]] = set()
        for entry in list(self.entries):
            if entry.held or self.dead.get(entry.target.destination, (0, 0))[0] <= now:
                continue
            if now >= schedule.expires_at(self.settings, entry.envelope):
                reports |= self._fail(entry)
            else:
                reports |= self._late(entry, now)
        return reports

    def _fail(self, entry: Entry) -> set[tuple[str, str]]:
        self.entries.remove(entry)
        return {("failed", entry.name)} if dsn_rules.wants_failure(entry.envelope, entry.target) else set()

    def _late(self, entry: Entry, now: int) -> set[tuple[str, str]]:
        if entry.notice is None or now < entry.notice:
            return set()
        entry.notice = None
        return {("delayed", entry.name)}

    def change(self, what: str, destination: str, now: int) -> int:
        """A command on all recipients of a destination. Return their number."""
        chosen = [each for each in self.entries if each.target.destination == destination]
        match what:
            case "hold":
                chosen = [each for each in chosen if not each.held]
            case "release":
                chosen = [each for each in chosen if each.held]
            case "retry":
                chosen = [each for each in chosen if not each.held]
            case "drop":
                self.entries = [each for each in self.entries if each not in chosen]
        for each in chosen:
            each.held = what == "hold"
            if what != "hold":
                each.due = min(each.due, now) if what == "retry" else now
        if what == "retry" and chosen and destination in self.dead:
            self.dead[destination] = 0, self.dead[destination][1]
        return len(chosen)

    def find(self, keys: Collection[tuple[str, str]]) -> list[Entry]:
        return [each for each in self.entries if (each.name, each.target.address) in keys]
