"""Submission of messages to a next hop, which accepts and discards them."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Sequence

from benchmarks.accounts import Accounts
from benchmarks.client import Lines
from benchmarks.report import Row
from benchmarks.scenarios.scenario import MOST
from benchmarks.servers import TestedServer

COUNT = 100


class Sink(threading.Thread):
    """A next hop on loopback that accepts every message."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.taken = 0

    def run(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rwb") as file:

            def say(line: bytes) -> None:
                file.write(line + b"\r\n")
                file.flush()

            say(b"220 sink.example.net")
            for line in file:
                word = line.split(maxsplit=1)[0].upper() if line.strip() else b""
                if word == b"EHLO":
                    say(b"250-sink.example.net\r\n250-8BITMIME\r\n250-PIPELINING\r\n250 SIZE 100000000")
                elif word == b"DATA":
                    say(b"354 go on")
                    while file.readline() != b".\r\n":
                        pass
                    self.taken += 1
                    say(b"250 2.0.0 taken")
                elif word == b"BDAT":
                    parts = line.split()
                    file.read(int(parts[1]))
                    self.taken += b"LAST" in line.upper()
                    say(b"250 2.0.0 taken")
                elif word == b"QUIT":
                    say(b"221 2.0.0 bye")
                    return
                else:
                    say(b"250 2.0.0 ok")


def _each(side: TestedServer, accounts: Accounts, sink: Sink) -> float:
    user = accounts.k1
    client = Lines(side.ports["submission"])
    client.reply(b"220")
    client.ask(b"EHLO bench.example.net\r\n", b"250")
    login = base64.b64encode(f"\0{user}\0{accounts.passwords[user]}".encode())
    client.ask(b"AUTH PLAIN " + login + b"\r\n", b"235")
    body = accounts.mail.wire_of_size(4096).replace(b"From: ", b"X-From: ", 1)
    data = f"From: <{user}>\r\n".encode() + body.replace(b"\r\n.", b"\r\n..")
    before, taken = side.cpu(), sink.taken
    for _ in range(COUNT):
        client.ask(f"MAIL FROM:<{user}>\r\n".encode(), b"250")
        client.ask(b"RCPT TO:<someone@example.net>\r\n", b"250")
        client.ask(b"DATA\r\n", b"354")
        client.ask(data + b"\r\n.\r\n", b"250")
    spent = side.cpu() - before
    assert sink.taken - taken == COUNT, "the next hop did not get every message"
    client.ask(b"QUIT\r\n", b"221")
    client.close()
    return spent / COUNT * 1e6


def measure(sides: Sequence[TestedServer], accounts: Accounts, sink: Sink) -> Row:
    """Return a row in microseconds of CPU per message; `sides` are ours, Dovecot, and perhaps ours with stock transports."""
    figures: list[list[float]] = [[] for _ in sides]
    for _ in range(3):
        for at, side in enumerate(sides):
            figures[at].append(_each(side, accounts, sink))
    ours, theirs, *stock = (sorted(each)[1] for each in figures)
    spread = max(figures[0]) / max(min(figures[0]), 1e-9)
    return Row("submission with relay", ours, theirs, "us", MOST, spread, *stock)
