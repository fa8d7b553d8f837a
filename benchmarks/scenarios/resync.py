"""Resynchronization of a large mailbox in which little has changed (RFC 7162)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.accounts import SIZES, Accounts
from benchmarks.client import Imap
from benchmarks.scenarios.scenario import Scenario
from benchmarks.servers import TestedServer

CHANGED = 50
"""Messages that got a flag since the client was there last."""
EXPUNGED = 10
"""Messages that came since, and are gone."""
TIMES = 20
_NUMBERS = b",".join(b"%d" % number for number in range(1000, SIZES["k100"], SIZES["k100"] // CHANGED))


def _changed(side: TestedServer, accounts: Accounts) -> tuple[Imap, int, int]:
    """A session of a client that was there before the changes: with UIDVALIDITY and the modseq that it knows."""
    client = accounts.imap(side, accounts.k100, select=False)
    client.command(b"ENABLE QRESYNC")
    opened = client.command(b"SELECT INBOX")
    validity, modseq = (re.search(rb"\[%b (\d+)\]" % code, opened) for code in (b"UIDVALIDITY", b"HIGHESTMODSEQ"))
    assert validity is not None
    assert modseq is not None
    other = accounts.imap(side, accounts.k100)
    for number in range(EXPUNGED):
        data = accounts.mail.wire(number)
        other.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(data), data))
        other.answer(b"a ")
    other.command(b"STORE %d:* +FLAGS.SILENT (\\Deleted)" % (SIZES["k100"] + 1))
    other.command(b"EXPUNGE")
    other.command(b"STORE %b +FLAGS.SILENT (\\Answered)" % _NUMBERS)
    other.close()
    client.command(b"NOOP")
    return client, int(validity[1]), int(modseq[1])


def _take_back(client: Imap) -> None:
    client.command(b"STORE %b -FLAGS.SILENT (\\Answered)" % _NUMBERS)
    client.close()


def _check(answer: bytes) -> None:
    vanished = re.findall(rb"\* VANISHED \(EARLIER\) (\d+):(\d+)\r\n", answer)
    assert sum(int(high) - int(low) + 1 for low, high in vanished) == EXPUNGED, answer[:300]
    assert answer.count(b" MODSEQ (") == answer.count(b" FETCH (UID ") == CHANGED, answer[:300]


def changed_since(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client, _validity, modseq = _changed(side, accounts)
    command = b"UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)" % modseq
    yield None
    for _ in range(TIMES):
        _check(client.command(command))
    yield TIMES
    _take_back(client)


def select(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    client, validity, modseq = _changed(side, accounts)
    command = b"SELECT INBOX (QRESYNC (%d %d))" % (validity, modseq)
    yield None
    for _ in range(TIMES):
        _check(client.command(command))
    yield TIMES
    _take_back(client)


def come_back(side: TestedServer, accounts: Accounts) -> Iterator[int | None]:
    """Each time in a connection of its own, as a phone does at each wake-up."""
    first, validity, modseq = _changed(side, accounts)
    command = b"SELECT INBOX (QRESYNC (%d %d))" % (validity, modseq)
    yield None
    for _ in range(TIMES):
        client = accounts.imap(side, accounts.k100, select=False)
        client.command(b"ENABLE QRESYNC")
        _check(client.command(command))
        client.close()
    yield TIMES
    _take_back(first)


SCENARIOS = (
    Scenario("CHANGEDSINCE of 100k", changed_since, 0.15, needs=("k100",)),
    Scenario("SELECT QRESYNC of 100k", select, 0.15, needs=("k100",)),
    Scenario("login and SELECT QRESYNC of 100k", come_back, needs=("k100",)),
)
