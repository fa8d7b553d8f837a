"""Whatever a client sends, in whatever pieces: the same answers, no bug, nothing left behind, nothing deleted."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pop3.dialogs import World

WORDS = [
    b"USER anna@example.test\r\n", b"PASS secret\r\n", b"PASS wrong\r\n", b"AUTH PLAIN\r\n", b"*\r\n", b"STAT\r\n",
    b"AUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==\r\n", b"AUTH LOGIN\r\n", b"YW5uYUBleGFtcGxlLnRlc3Q=\r\n",
    b"c2VjcmV0\r\n", b"LIST\r\n", b"LIST 1\r\n", b"RETR 1\r\n", b"RETR 2\r\n", b"TOP 1 1\r\n", b"DELE 1\r\n",
    b"DELE 0\r\n", b"RSET\r\n", b"UIDL\r\n", b"CAPA\r\n", b"NOOP\r\n", b"\0\r\n", b"x\n", b"\r\n", b"QUIT now\r\n",
]  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(b"".join), st.booleans(), st.integers(0, 1000))
def test_any_stream(data: bytes, logged_in: bool, seed: int) -> None:
    if logged_in:
        data = b"USER anna@example.test\r\nPASS secret\r\n" + data
    chance = random.Random(seed)
    edges = sorted({0, len(data), *(chance.randint(0, len(data)) for _ in range(20))})
    ways = ([data], [data[at : at + 1] for at in range(len(data))], [data[a:b] for a, b in pairwise(edges)])
    answers = []
    for pieces in ways:
        world = World(uidl_format="%u")
        world.deliver(b"A: b\r\n\r\n.\r\n", b"A: c\r\n")
        client = world.connect()
        for piece in pieces:
            client.send(piece)
        answers.append(client.take())
        client.hang_up()
        assert client.done
        assert world.live_users() == 0
        assert len(world.kept()) == 2
    assert answers[0] == answers[1] == answers[2]
