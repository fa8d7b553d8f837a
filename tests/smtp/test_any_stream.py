"""Whatever a client sends, in whatever pieces: the same replies, no bug, nothing left behind."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes import Client
from tests.smtp.world import PLAIN, FakeHop, World

COMMON = [
    b"MAIL FROM:<anna@example.test>\r\n", b"MAIL FROM:<>\r\n", b"RCPT TO:<anna@example.test>\r\n",
    b"RCPT TO:<bert@example.org>\r\n", b"RCPT TO:<anna+x@example.test>\r\n", b"RCPT TO:<x@elsewhere.test>\r\n",
    b"DATA\r\n", b"Subject: x\r\n", b"From: anna@example.test\r\n", b"\r\n", b".\r\n", b"..\r\n", b".\n", b"\r\n.\r\n",
    b"BDAT 5\r\nA: b\r", b"BDAT 1\r\n\n", b"BDAT 6 LAST\r\nRSET\r\n", b"BDAT 0 LAST\r\n", b"RSET\r\n", b"NOOP\r\n",
    b"VRFY x\r\n", b"\0\r\n", b"x\ry\r\n", b"*\r\n", b"HELP\r\n", b"QUIT now\r\n",
]  # fmt: skip
SUBMISSION = [*COMMON, b"EHLO a.test\r\n", b"HELO a.test\r\n", b"AUTH PLAIN\r\n", b"AUTH PLAIN " + PLAIN + b"\r\n"]
LMTP = [*COMMON, b"LHLO a.test\r\n", b"EHLO a.test\r\n"]


def hold(client: Client, pieces: list[bytes]) -> bytes:
    for piece in pieces:
        client.send(piece)
    answer = client.take()
    client.hang_up()
    return answer


def in_cuts(data: bytes, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    pieces = []
    while data:
        count = chance.randint(1, 30)
        pieces.append(data[:count])
        data = data[count:]
    return pieces


def check(data: bytes, seed: int, *, lmtp: bool) -> None:
    results = []
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))], in_cuts(data, seed)):
        with tempfile.TemporaryDirectory() as directory:
            world = World(Path(directory), FakeHop())
            client = world.connect_lmtp() if lmtp else world.connect()
            answer = hold(client, pieces)
            assert client.done
            assert world.left_behind() == []
            assert world.hop is not None
            assert world.hop.connections == world.hop.closed
            kept = len(world.kept()), len(world.kept("bert@example.org")), len(world.hop.messages)
            results.append((answer, kept))
    assert results[0] == results[1] == results[2]
    lines = results[0][0].split(b"\r\n")
    assert lines.pop() == b""
    assert all(line[:3].isdigit() and line[3:4] in (b" ", b"-") for line in lines)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(SUBMISSION), max_size=25).map(b"".join), st.integers(0, 1000))
def test_submission(data: bytes, seed: int) -> None:
    check(data, seed, lmtp=False)
    check(b"EHLO a.test\r\nAUTH PLAIN " + PLAIN + b"\r\nMAIL FROM:<anna@example.test>\r\n" + data, seed, lmtp=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(LMTP), max_size=25).map(b"".join), st.integers(0, 1000))
def test_lmtp(data: bytes, seed: int) -> None:
    check(data, seed, lmtp=True)
    check(b"LHLO a.test\r\nMAIL FROM:<>\r\nRCPT TO:<anna@example.test>\r\n" + data, seed, lmtp=True)
