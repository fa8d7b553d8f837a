"""The connection of a transcript to a session without a reactor, and how the client's octets are cut."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from tests.fakes import Client

Cut = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> Iterable[bytes]:
    return [data]


def bytewise(data: bytes) -> Iterable[bytes]:
    return (data[at : at + 1] for at in range(len(data)))


def randomly(seed: int) -> Cut:
    source = random.Random(seed)

    def cut(data: bytes) -> Iterable[bytes]:
        at = 0
        while at < len(data):
            size = source.choice((1, 2, 3, 7, 20, 100, 1000))
            yield data[at : at + size]
            at += size

    return cut


CUTS: dict[str, Callable[[str], Cut]] = {
    "whole": lambda _name: whole,
    "bytewise": lambda _name: bytewise,
    "random": lambda name: randomly(sum(name.encode())),
}
"""How a client's octets arrive, by the transcript's name."""


class FakeConnection:
    """A transcript's connection to a session without a reactor."""

    def __init__(self, client: Client, cut: Cut) -> None:
        self.client = client
        self.cut = cut

    def send(self, data: bytes) -> None:
        for piece in self.cut(data):
            self.client.send(piece)

    def receive(self, *, patient: bool) -> bytes:
        self.client.settle()
        return self.client.take()

    def wait(self, seconds: float) -> None:
        self.client.wait(seconds)

    def hang_up(self) -> None:
        self.client.hang_up()

    @property
    def closed(self) -> bool:
        return self.client.done and self.client.channel.closed
