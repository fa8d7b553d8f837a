"""A mixed load: 50 clients run the commands of mail programs at the same time, and each command is timed.

The clients run in four processes, so that they are not the bottleneck. Each client waits for one answer before its next
command. A user has about two clients, some with POP3, some sending mail.

Saturated: the next command follows at once, which shows the throughput of a server. Paced: each client waits before a
command, which shows the latency of a server that is not saturated.
"""

from __future__ import annotations

import base64
import contextlib
import multiprocessing
import random
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

from attrs import frozen

from benchmarks.accounts import Accounts
from benchmarks.client import Imap, Lines
from benchmarks.report import Row, Section
from benchmarks.scenarios.scenario import MOST
from benchmarks.servers import TestedServer

CLIENTS = 50
SECONDS = 12.0
PROCESSES = 4
USERS = 25
THINKING = 0.5
"""Mean seconds that a paced client waits before a command."""

Times = dict[str, list[float]]


@frozen
class Pace:
    """How the clients of a load connect, and how long they wait."""

    thinking: float = 0.0
    """Mean seconds that a client waits before a command."""
    tls: bool = False

    @property
    def name(self) -> str:
        """The name of such a load."""
        return f"mixed load, {'paced' if self.thinking else 'saturated'}, {'TLS' if self.tls else 'plain'}"


SATURATED = Pace()


class _Clock:
    """The seconds that each command took, by its name."""

    def __init__(self, thinking: float, rng: random.Random) -> None:
        self.times: Times = defaultdict(list)
        self._thinking = thinking
        self._rng = rng

    @contextlib.contextmanager
    def time(self, name: str) -> Iterator[None]:
        if self._thinking:
            time.sleep(min(self._rng.expovariate(1 / self._thinking), 4 * self._thinking))
        start = time.perf_counter()
        yield
        self.times[name].append(time.perf_counter() - start)


def _imap(side: TestedServer, accounts: Accounts, user: str, clock: _Clock, rng: random.Random, *, tls: bool) -> None:
    """Run one session of a mail program, from login to logout."""
    client = Imap(side.ports["imaps" if tls else "imap"], tls=side.ca if tls else None)
    with clock.time("IMAP login"):
        client.login(user, accounts.passwords[user])
    with clock.time("SELECT"):
        client.command(b"SELECT INBOX")
    text = accounts.mail.wire(rng.randrange(1000))
    last = accounts.size(user)
    for _ in range(12):
        at = rng.randrange(1, last + 1)
        match rng.choice(("list", "list", "body", "body", "search", "store", "append", "idle", "noop")):
            case "list":
                with clock.time("FETCH list"):
                    client.command(b"FETCH %d:%d (UID FLAGS RFC822.SIZE ENVELOPE)" % (at, min(at + 49, last)))
            case "body":
                with clock.time("FETCH body"):
                    client.command(b"FETCH %d (BODY.PEEK[])" % at)
            case "search":
                with clock.time("SEARCH"):
                    client.command(b"SEARCH UNSEEN")
            case "store":
                with clock.time("STORE"):
                    client.command(b"STORE %d %bFLAGS (\\Flagged)" % (at, rng.choice((b"+", b"-"))))
            case "append":
                with clock.time("APPEND"):
                    client.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(text), text))
                    client.answer(b"a ")
            case "idle":
                with clock.time("IDLE"):
                    client.send(b"i IDLE\r\n")
                    while not client.line().startswith(b"+"):
                        pass
                    client.send(b"DONE\r\n")
                    client.answer(b"i ")
            case _:
                with clock.time("NOOP"):
                    client.command(b"NOOP")
    with clock.time("LOGOUT"):
        client.close()


def _pop3(side: TestedServer, accounts: Accounts, user: str, clock: _Clock, rng: random.Random, *, tls: bool) -> None:
    client = Lines(side.ports["pop3s" if tls else "pop3"], tls=side.ca if tls else None)
    client.reply(b"+OK")
    with clock.time("POP3 login"):
        client.ask(b"USER %b\r\n" % user.encode(), b"+OK")
        client.ask(b"PASS %b\r\n" % accounts.passwords[user].encode(), b"+OK")
    with clock.time("UIDL"):
        client.ask(b"UIDL\r\n", b"+OK")
        client.until_dot()
    last = accounts.size(user)
    for _ in range(10):
        with clock.time("RETR"):
            client.ask(b"RETR %d\r\n" % rng.randrange(1, last + 1), b"+OK")
            client.until_dot()
    client.ask(b"QUIT\r\n", b"+OK")
    client.close()


def _submission(
    side: TestedServer, accounts: Accounts, user: str, clock: _Clock, rng: random.Random, *, tls: bool
) -> None:
    client = Lines(side.ports["submissions" if tls else "submission"], tls=side.ca if tls else None)
    client.reply(b"220")
    client.ask(b"EHLO bench.example.net\r\n", b"250")
    login = base64.b64encode(f"\0{user}\0{accounts.passwords[user]}".encode())
    with clock.time("SMTP login"):
        client.ask(b"AUTH PLAIN " + login + b"\r\n", b"235")
    body = accounts.mail.wire(rng.randrange(1000)).replace(b"From: ", b"X-From: ", 1)
    data = f"From: <{user}>\r\n".encode() + body.replace(b"\r\n.", b"\r\n..")
    for _ in range(2):
        with clock.time("send a message"):
            client.ask(f"MAIL FROM:<{user}>\r\n".encode(), b"250")
            client.ask(b"RCPT TO:<someone@example.net>\r\n", b"250")
            client.ask(b"DATA\r\n", b"354")
            client.ask(data + b"\r\n.\r\n", b"250")
    client.ask(b"QUIT\r\n", b"221")
    client.close()


def _client(number: int, side: TestedServer, accounts: Accounts, until: float, clock: _Clock, *, tls: bool) -> None:
    rng = random.Random(number)
    user = accounts.people[number % USERS]
    session = {8: _pop3, 9: _submission}.get(number % 10, _imap)
    while time.monotonic() < until:
        session(side, accounts, user, clock, rng, tls=tls)


def _process(
    numbers: Sequence[int], side: TestedServer, accounts: Accounts, seconds: float, pace: Pace, answer: Connection
) -> None:
    clocks = [_Clock(pace.thinking, random.Random(-number)) for number in numbers]
    problems: list[str] = []
    until = time.monotonic() + seconds

    def serve(number: int, clock: _Clock) -> None:
        try:
            _client(number, side, accounts, until, clock, tls=pace.tls)
        except (AssertionError, OSError) as error:
            problems.append(f"client {number}: {type(error).__name__}: {str(error)[:300]}")

    threads = [threading.Thread(target=serve, args=pair) for pair in zip(numbers, clocks, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answer.send((problems, [dict(clock.times) for clock in clocks]))
    answer.close()


@frozen
class Load:
    """The result of one load."""

    times: Times
    """Milliseconds, by command."""
    passed: float
    spent: float
    """Seconds of server CPU."""

    @property
    def all(self) -> list[float]:
        """The milliseconds of every command."""
        return [time for each in self.times.values() for time in each]

    @property
    def rate(self) -> float:
        """Commands per second."""
        return len(self.all) / self.passed

    @property
    def cost(self) -> float:
        """Microseconds of server CPU per command."""
        return self.spent / len(self.all) * 1e6


def load(side: TestedServer, accounts: Accounts, seconds: float = SECONDS, pace: Pace = SATURATED) -> Load:
    """Run all clients. Raises: AssertionError for a wrong answer."""
    context = multiprocessing.get_context("fork")
    processes, answers = [], []
    before, start = side.cpu(), time.monotonic()
    for number in range(PROCESSES):
        mine, other = context.Pipe(duplex=False)
        process = context.Process(
            target=_process, args=(range(number, CLIENTS, PROCESSES), side, accounts, seconds, pace, other)
        )
        process.start()
        other.close()
        processes.append(process)
        answers.append(mine)
    times: Times = defaultdict(list)
    failed: list[str] = []
    for answer in answers:
        problems, found = answer.recv()
        failed += problems
        for each in found:
            for name, seconds_of in each.items():
                times[name] += [second * 1000 for second in seconds_of]
    for process in processes:
        process.join()
    assert not failed, "; ".join(failed[:3])
    return Load(times, time.monotonic() - start, side.cpu() - before)


def rows(name: str, mine: Load, other: Load, *, saturated: bool) -> list[Row]:
    """Return the rows of a load; one that is not saturated has the same rate on all servers."""
    found = [
        Row(f"{name}, {percent}", percentile(mine.all, at), percentile(other.all, at), "ms", MOST, 1.0)
        for percent, at in (("median", 50), ("p99", 99))
    ]
    if saturated:
        found += [
            Row(f"{name}, 1,000 commands take", 1e6 / mine.rate, 1e6 / other.rate, "ms", MOST, 1.0),
            Row(f"{name}, a command", mine.cost, other.cost, "us", MOST, 1.0),
        ]
    return found


def measure(
    ours: TestedServer, theirs: TestedServer, accounts: Accounts, words: str, pace: Pace = SATURATED
) -> tuple[list[Row], Section]:
    """Return the rows and the table of a load; `words` say how ours runs."""
    for side in (ours, theirs):
        load(side, accounts, 3.0, Pace(tls=pace.tls))  # both servers know the mailboxes then
    found = [load(side, accounts, pace=pace) for side in (ours, theirs)]
    lines = []
    for name in sorted(found[0].times.keys() | found[1].times.keys()):
        cells = [name]
        for each in (one.times.get(name, [0.0]) for one in found):
            cells += [f"{len(each):,}", f"{percentile(each, 50):.1f}", f"{percentile(each, 99):.1f}"]
        lines.append(cells)
    notes = [
        f"{side.name}: {one.rate:,.0f} commands a second, p50 of all {percentile(one.all, 50):.1f} ms, p99"
        f" {percentile(one.all, 99):.1f} ms, {one.cost:,.0f} us of server CPU a command."
        for side, one in zip((ours, theirs), found, strict=True)
    ]
    speed = f"each thinking for {pace.thinking:g} s before a command" if pace.thinking else "each as fast as it can"
    protocol = "TLS" if pace.tls else "clear text"
    heads = ["command", "ours", "p50 ms", "p99 ms", "Dovecot", "p50 ms", "p99 ms"]
    title = f"Mixed load of {CLIENTS} clients, {protocol}, {speed}; {words}"
    return rows(pace.name, *found, saturated=not pace.thinking), Section(title, heads, lines, notes)


def percentile(times: Sequence[float], percent: int) -> float:
    """Return a percentile as `statistics.quantiles` computes it, also for a single time."""
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1] if len(times) > 1 else times[0]
