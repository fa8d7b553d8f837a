"""FETCH of flags, envelopes, header fields, headers and bodies."""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.accounts import SIZES, Accounts
from benchmarks.mail import DISTINCT
from benchmarks.scenarios.scenario import Scenario, Work, draw, forget
from benchmarks.servers import TestedServer

LIST = b"FETCH 9951:* (UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)"
"""What a mail program asks for to show the newest messages."""
FIELDS = b"FETCH 1:* (BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT DATE)])"
BODIES = b"FETCH 1:* (BODY.PEEK[])"
RANDOM = 500
"""Bodies that are fetched one by one."""
_BODY = re.compile(rb"\* (\d+) FETCH \(BODY\[\] \{(\d+)\}\r\n")


def _fetch(name: str, command: bytes, lines: int, times: int, *, tls: bool = False) -> Work:
    """Send a command repeatedly; the first time is not counted."""

    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = accounts.imap(side, getattr(accounts, name), tls=tls)
        client.command(command)
        yield None
        for _ in range(times):
            answer = client.command(command)
            assert answer.count(b" FETCH (") == lines, answer.count(b" FETCH (")
        yield times
        client.close()

    return work


def envelope_cold(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    forget(side, accounts, accounts.k10)
    client = accounts.imap(side, accounts.k10)
    yield None
    answer = client.command(b"FETCH 1:* (ENVELOPE)")
    assert answer.count(b" FETCH (ENVELOPE ") == SIZES["k10"]
    yield 1
    client.close()


def _pipelined(item: bytes, response: bytes) -> Work:
    """Send 200 commands for one message each at a time."""
    batch = b"".join(b"p FETCH %d (%b)\r\n" % (number, item) for number in range(1, 201))

    def work(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
        client = accounts.imap(side, accounts.k10)
        yield None
        for _ in range(10):
            client.send(batch)
            done = reported = 0
            while done < 200:
                line = client.line()
                # A server may answer several commands before it completes them (RFC 3501 5.5).
                done += line.startswith(b"p OK")
                reported += response in line
            assert reported == 200, reported
        yield 2000
        client.close()

    return work


def random_bodies(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    numbers = [draw(side, "bodies").randint(1, SIZES["k10"]) for _ in range(RANDOM)]
    client = accounts.imap(side, accounts.k10)
    answers = []
    yield None
    for number in numbers:
        answer = client.command(b"FETCH %d (BODY.PEEK[])" % number)
        head = _BODY.match(answer)
        assert head is not None, answer[:200]
        answers.append((number, head, answer))
    yield RANDOM
    for number, head, answer in answers:
        assert int(head[1]) == number, head[1]
        end = head.end() + int(head[2])
        assert answer[end : end + 3] == b")\r\n", answer[end : end + 100]
    for number, head, answer in answers[::50]:
        assert answer[head.end() : head.end() + int(head[2])] == accounts.mail.wire((number - 1) % DISTINCT)
    client.close()


SCENARIOS = (
    Scenario("FETCH flags of 100k", _fetch("k100", b"FETCH 1:* (UID FLAGS)", 100_000, 2), needs=("k100",)),
    Scenario("FETCH flags one by one, pipelined", _pipelined(b"FLAGS", b" FETCH (FLAGS ("), needs=("k10",)),
    Scenario("ENVELOPE of 10k, first", envelope_cold, rounds=2, needs=("k10", "warm")),
    Scenario("ENVELOPE of 10k, warm", _fetch("k10", b"FETCH 1:* (ENVELOPE)", 10_000, 2), 0.37, needs=("k10",)),
    Scenario("HEADER.FIELDS of 10k, warm", _fetch("k10", FIELDS, 10_000, 2), needs=("k10",)),
    Scenario("newest 50 of 10k", _fetch("k10", LIST, 50, 40), needs=("k10",)),
    Scenario(
        "headers one by one, pipelined", _pipelined(b"BODY.PEEK[HEADER]", b" FETCH (BODY[HEADER] {"), needs=("k10",)
    ),
    Scenario("bodies one by one, random in 10k", random_bodies, needs=("k10",)),
    Scenario("bodies of 1k, plain", _fetch("k1", BODIES, 1000, 1)),
    Scenario("bodies of 1k, TLS", _fetch("k1", BODIES, 1000, 1, tls=True), 0.5),
)
