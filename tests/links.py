"""Workers of one server without processes: real datagram sockets between them, and what they tell each other in order.

links = Links(2)
links.deliver()          # what was told arrives
links.join(); links.end(0)
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from mailserver.net.ipc.message_schema import Json


class FakeLink:
    """`mailserver.net.ipc.server_link.ServerLink` of one worker."""

    penalty_key = b"k" * 32
    known_key = b"n" * 32

    def __init__(self, links: Links, number: int) -> None:
        self.number = number
        self.poke_receive, self.poke_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.poke_receive.setblocking(False)
        self.poke_end.setblocking(False)
        self.told: list[tuple[str, Json]] = []
        self.takers: dict[str, Callable[[int, Json], None]] = {}
        self.joined: list[Callable[[int], None]] = []
        self.gone: list[Callable[[int], None]] = []
        self.answers: dict[str, Callable[[Json], Deferred[Json]]] = {}
        self.exposed: list[Json] = []
        self.seen: list[Json] = []
        self.known: list[Json] = []
        self.known_takers: list[Callable[[bytes], None]] = []
        self._links = links

    def report_seen(self, rows: Json) -> None:
        self.seen.append(json.loads(json.dumps(rows)))

    def report_known(self, rows: Json) -> None:
        self.known.append(json.loads(json.dumps(rows)))

    def on_known(self, take: Callable[[bytes], None]) -> None:
        self.known_takers.append(take)

    def report_exposed(self, mark: Json) -> None:
        self.exposed.append(json.loads(json.dumps(mark)))

    @property
    def poke_send(self) -> dict[int, socket.socket]:
        return {number: other.poke_end for number, other in self._links.living.items() if other is not self}

    def tell(self, kind: str, body: Json) -> None:
        self.told.append((kind, body))
        for number, other in self._links.living.items():
            if other is not self:
                # What passes between processes is JSON.
                self._links.queue.append((other, kind, number, self.number, json.dumps(body)))

    def on(self, kind: str, take: Callable[[int, Json], None]) -> None:
        assert kind not in self.takers
        self.takers[kind] = take

    def on_joined(self, take: Callable[[int], None]) -> None:
        self.joined.append(take)

    def on_gone(self, take: Callable[[int], None]) -> None:
        self.gone.append(take)

    def on_query(self, what: str, answer: Callable[[Json], Deferred[Json]]) -> None:
        assert what not in self.answers
        self.answers[what] = answer

    def ask(self, what: str, body: Json = None) -> Any:
        """What the master would get; the answer must come at once."""
        results: list[Json] = []
        maybeDeferred(self.answers[what], json.loads(json.dumps(body))).addCallback(results.append)
        [result] = results
        return json.loads(json.dumps(result))


class Links:
    """All of them; workers are not given again."""

    def __init__(self, count: int) -> None:
        self.living: dict[int, FakeLink] = {}
        self.queue: deque[tuple[FakeLink, str, int, int, str]] = deque()
        for number in range(count):
            self.living[number] = FakeLink(self, number)

    def __getitem__(self, number: int) -> FakeLink:
        return self.living[number]

    def deliver(self) -> None:
        """What was told arrives, and what is told upon that."""
        while self.queue:
            other, kind, number, sender, body = self.queue.popleft()
            if number in self.living and kind in other.takers:
                other.takers[kind](sender, json.loads(body))

    def join(self) -> FakeLink:
        """A new worker; the others hear of it once the caller calls `greet` for it."""
        number = max(self.living, default=-1) + 1
        link = self.living[number] = FakeLink(self, number)
        return link

    def greet(self, link: FakeLink) -> None:
        """The others hear that it has begun."""
        for other in tuple(self.living.values()):
            if other is not link:
                for take in other.joined:
                    take(link.number)

    def end(self, number: int) -> None:
        """That worker has died."""
        link = self.living.pop(number)
        link.poke_receive.close()
        link.poke_end.close()
        for other in self.living.values():
            for take in other.gone:
                take(number)

    def close(self) -> None:
        """Close every socket."""
        for number in tuple(self.living):
            link = self.living.pop(number)
            link.poke_receive.close()
            link.poke_end.close()
