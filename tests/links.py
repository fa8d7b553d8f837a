"""Workers of one server without processes: real datagram sockets between them, and their broadcasts in order.

links = Links(2)
links.deliver()          # broadcasts arrive
links.join(); links.end(0)
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred

from mailserver.net.ipc.message_schema import Json, structure_text, to_text
from mailserver.net.ipc.open_mailbox_table import ROW, OpenMailboxTable
from mailserver.net.ipc.worker_messages import (
    BroadcastBody,
    WorkerMessage,
    decode_worker_message,
    encode_worker_message,
)

M = TypeVar("M", bound=WorkerMessage)
MOST = 64
"""Workers of one server."""


class FakeLink:
    """`mailserver.net.ipc.server_link.ServerLink` of one worker."""

    penalty_key = b"k" * 32
    known_key = b"n" * 32

    def __init__(self, links: Links, number: int) -> None:
        self.number = number
        self.poke_receive, self.poke_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.poke_receive.setblocking(False)
        self.poke_end.setblocking(False)
        self.open_mailboxes = OpenMailboxTable(links.memory, number)
        self.sent: list[BroadcastBody] = []
        self.receivers: dict[type[Any], Callable[[int, Any], None]] = {}
        self.joined: list[Callable[[int], None]] = []
        self.gone: list[Callable[[int], None]] = []
        self.answers: dict[str, Callable[[Json], Deferred[Json]]] = {}
        self.reports: list[WorkerMessage] = []
        self.known_loaders: list[Callable[[bytes], None]] = []
        self.ban_appliers: list[Callable[[Any], None]] = []
        self._links = links

    def report(self, message: WorkerMessage) -> None:
        # What the master makes of the frame.
        self.reports.append(decode_worker_message(encode_worker_message(message)))

    def reported(self, message_class: type[M]) -> list[M]:
        """The reports of a class."""
        return [message for message in self.reports if isinstance(message, message_class)]

    def on_known_networks(self, load: Callable[[bytes], None]) -> None:
        self.known_loaders.append(load)

    def on_bans(self, apply: Callable[[Any], None]) -> None:
        self.ban_appliers.append(apply)

    @property
    def poke_send(self) -> dict[int, socket.socket]:
        return {number: other.poke_end for number, other in self._links.living.items() if other is not self}

    def broadcast(self, message: BroadcastBody) -> None:
        self.sent.append(message)
        for number, other in self._links.living.items():
            if other is not self:
                # What passes between processes is JSON.
                self._links.queue.append((other, type(message), number, self.number, to_text(message)))

    def on_broadcast(self, message_class: type[Any], receive: Callable[[int, Any], None]) -> None:
        assert message_class not in self.receivers
        self.receivers[message_class] = receive

    def on_joined(self, call: Callable[[int], None]) -> None:
        self.joined.append(call)

    def on_gone(self, call: Callable[[int], None]) -> None:
        self.gone.append(call)

    def on_query(self, name: str, answer: Callable[[Json], Deferred[Json]]) -> None:
        assert name not in self.answers
        self.answers[name] = answer

    def ask(self, name: str, body: Json = None) -> Any:
        """What the master would get; the answer must come at once."""
        results: list[Json] = []
        maybeDeferred(self.answers[name], json.loads(json.dumps(body))).addCallback(results.append)
        [result] = results
        return json.loads(json.dumps(result))


class Links:
    """All of them; numbers are not used again."""

    def __init__(self, count: int) -> None:
        self.living: dict[int, FakeLink] = {}
        self.memory = bytearray(MOST * ROW)
        self.queue: deque[tuple[FakeLink, type[Any], int, int, str]] = deque()
        for number in range(count):
            self.living[number] = FakeLink(self, number)

    def __getitem__(self, number: int) -> FakeLink:
        return self.living[number]

    def deliver(self) -> None:
        """Broadcasts arrive, and those that they cause."""
        while self.queue:
            other, message_class, number, sender, body = self.queue.popleft()
            if number in self.living and message_class in other.receivers:
                other.receivers[message_class](sender, structure_text(body, message_class))

    def join(self) -> FakeLink:
        """A new worker; the others hear of it once the caller calls `greet` for it."""
        number = max(self.living, default=-1) + 1
        link = self.living[number] = FakeLink(self, number)
        return link

    def greet(self, link: FakeLink) -> None:
        """The others hear that it has begun."""
        for other in tuple(self.living.values()):
            if other is not link:
                for call in other.joined:
                    call(link.number)

    def end(self, number: int) -> None:
        """That worker has died."""
        link = self.living.pop(number)
        link.poke_receive.close()
        link.poke_end.close()
        for other in self.living.values():
            for call in other.gone:
                call(number)

    def close(self) -> None:
        """Close every socket."""
        for number in tuple(self.living):
            link = self.living.pop(number)
            link.poke_receive.close()
            link.poke_end.close()
