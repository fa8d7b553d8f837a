"""10,000 logins a minute with app passwords, beside running sessions whose latency is recorded.

The clients that log in are processes of their own, and so are the sessions: the queues of the former would count as delays of
the latter otherwise. Half of the logins are in clear text, the others over TLS with the session of the connection before, as
mail programs do. A login is due at its time, whether those before it are done or not.
"""

from __future__ import annotations

import multiprocessing
import random
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection

from attrs import define, field

from benchmarks.client import Imap, Lines, tls_context
from benchmarks.directory_server import LOGINS, DirectoryServers, password, user
from benchmarks.mail import Mail
from benchmarks.mixed import Times, percentile
from benchmarks.report import Section
from benchmarks.scenarios.logins import make_maildirs
from benchmarks.servers import Mailserver

A_MINUTE = 10_000
SECONDS = 30.0
SESSIONS = 50
"""Sessions that run beside the logins, each of an account of its own."""
EACH = 0.25
"""Mean seconds that such a session waits before a command."""
MESSAGES = 20
"""Messages in the INBOX of each."""
CLIENTS, PROCESSES = 24, 2
"""Threads of each process that logs in, and such processes."""
MOST = 50.0
"""Milliseconds that p99 of the sessions may reach."""

Password = Callable[[int], str]


@define
class Found:
    """What the clients of one kind have seen."""

    times: Times = field(factory=lambda: defaultdict(list))
    """Seconds, by command."""
    problems: list[str] = field(factory=list)
    late: float = 0.0
    """Seconds by which the last login began after it was due."""

    def extend(self, other: Found) -> None:
        """Add those of another process or thread."""
        for name, seconds in other.times.items():
            self.times[name] += seconds
        self.problems += other.problems
        self.late = max(self.late, other.late)


def _in_threads(work: Callable[[int, Found], None], numbers: Sequence[int], answer: Connection) -> None:
    """Run the clients of one process, and send what they have found."""
    each = [Found() for _ in numbers]

    def run(number: int, found: Found) -> None:
        try:
            work(number, found)
        except Exception as error:
            found.problems.append(f"client {number}: {type(error).__name__}: {str(error)[:300]}")

    threads = [threading.Thread(target=run, args=pair) for pair in zip(numbers, each, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = Found()
    for one in each:
        whole.extend(one)
    answer.send(whole)
    answer.close()


def _log_in(side: Mailserver, secret: Password, start: float, number: int, found: Found) -> None:
    """Log in at each due time of one client, until the end."""
    session: ssl.SSLSession | None = None
    clients = CLIENTS * PROCESSES
    pause = 60 / A_MINUTE
    for turn in range(number, int(SECONDS / pause), clients):
        due = start + turn * pause
        time.sleep(max(0.0, due - time.monotonic()))
        found.late = max(0.0, time.monotonic() - due)
        tls = turn // clients % 2 == 1
        client = Imap(
            side.ports["imaps" if tls else "imap"], tls=side.ca if tls else None, session=session if tls else None
        )
        who = turn % (LOGINS - SESSIONS) + SESSIONS
        client.login(user(who), secret(who))
        found.times["login over TLS" if tls else "login"].append(time.monotonic() - due)
        if isinstance(client.raw, ssl.SSLSocket):
            assert client.raw.session_reused or session is None, "the session was not resumed"
            session = client.raw.session
        client.close()


def _stay(side: Mailserver, start: float, number: int, found: Found) -> None:
    """Run commands of one session until the end."""
    rng = random.Random(number)
    client = Imap(side.ports["imaps" if number % 2 else "imap"], tls=side.ca if number % 2 else None)
    client.login(user(number), password(number))
    client.command(b"SELECT INBOX")
    time.sleep(max(0.0, start - time.monotonic()))
    while time.monotonic() < start + SECONDS:
        time.sleep(min(rng.expovariate(1 / EACH), 4 * EACH))
        name = rng.choice(("NOOP", "IDLE", "FETCH list", "FETCH body"))
        began = time.monotonic()
        match name:
            case "NOOP":
                client.command(b"NOOP")
            case "IDLE":
                client.send(b"i IDLE\r\n")
                while not client.line().startswith(b"+"):
                    pass
                client.send(b"DONE\r\n")
                client.answer(b"i ")
            case "FETCH list":
                answer = client.command(b"FETCH 1:* (UID FLAGS RFC822.SIZE ENVELOPE)")
                assert answer.count(b" FETCH (") == MESSAGES, answer[:200]
            case _:
                client.command(b"FETCH %d (BODY.PEEK[])" % rng.randint(1, MESSAGES))
        found.times[name].append(time.monotonic() - began)
    client.close()


@define
class Load:
    """The result of one load."""

    sessions: Found
    logins: Found
    passed: float
    spent: float
    """Seconds of server CPU."""

    @property
    def rate(self) -> float:
        """Logins a minute."""
        return sum(map(len, self.logins.times.values())) / (SECONDS + self.logins.late) * 60


def load(side: Mailserver, secret: Password | None) -> Load:
    """Run the sessions, and the logins with these passwords; None: no logins. Raises: AssertionError for a wrong answer."""
    # Before the threads begin: they share it, as a session of TLS belongs to a context.
    tls_context(side.ca)
    context = multiprocessing.get_context("fork")
    start = time.monotonic() + 3
    started: list[tuple[bool, multiprocessing.process.BaseProcess, Connection]] = []

    def begin(work: Callable[[int, Found], None], numbers: Sequence[int], *, logs_in: bool) -> None:
        mine, other = context.Pipe(duplex=False)
        process = context.Process(target=_in_threads, args=(work, numbers, other))
        process.start()
        other.close()
        started.append((logs_in, process, mine))

    begin(partial(_stay, side, start), range(SESSIONS), logs_in=False)
    if secret is not None:
        for at in range(PROCESSES):
            numbers = range(at, CLIENTS * PROCESSES, PROCESSES)
            begin(partial(_log_in, side, secret, start), numbers, logs_in=True)
    time.sleep(max(0.0, start - time.monotonic()))
    before = side.cpu()
    found = {True: Found(), False: Found()}
    for logs_in, process, answer in started:
        found[logs_in].extend(answer.recv())
        process.join()
    passed, spent = time.monotonic() - start, side.cpu() - before
    problems = found[True].problems + found[False].problems
    assert not problems, "; ".join(problems[:3])
    return Load(found[False], found[True], passed, spent)


def _deliver(side: Mailserver, mail: Mail) -> None:
    """Fill the INBOXes of the sessions."""
    client = Lines(side.ports["lmtp"])
    client.reply(b"220")
    client.ask(b"LHLO bench.example.net\r\n", b"250")
    for number in range(MESSAGES):
        data = mail.wire_of_size(4096, number).replace(b"\r\n.", b"\r\n..")
        client.ask(b"MAIL FROM:<anna@example.net>\r\n", b"250")
        for session in range(SESSIONS):
            client.ask(b"RCPT TO:<%b>\r\n" % user(session).encode(), b"250")
        client.ask(b"DATA\r\n", b"354")
        client.ask(data + b"\r\n.\r\n", b"250")
        for _ in range(SESSIONS - 1):
            client.reply(b"250")
    client.ask(b"QUIT\r\n", b"221")
    client.close()


def measure(servers: DirectoryServers, mail: Mail) -> Section:
    """Return the table: the sessions alone, beside logins with app passwords, and beside logins with PLAIN hashes."""
    app = servers.app_passwords
    for side in (servers.large, servers.file):
        make_maildirs(side)
        _deliver(side, mail)
    lines = []
    alone = 0.0
    for name, side, secret in (
        ("sessions alone", servers.large, None),
        ("app passwords", servers.large, app.__getitem__),
        ("passwords, passwd-file", servers.file, password),
    ):
        one = load(side, secret)
        times = [second * 1000 for each in one.sessions.times.values() for second in each]
        cells = [name, *_percentiles(times), f"{max(times):.1f}"]
        if secret is None:
            alone = one.spent / one.passed
            cells += ["-"] * 6
        else:
            logins = sum(map(len, one.logins.times.values()))
            cost = (one.spent - alone * one.passed) / logins * 1e6
            cells += [f"{one.rate:,.0f}", f"{cost:,.0f}"]
            for kind in ("login", "login over TLS"):
                cells += _percentiles([second * 1000 for second in one.logins.times[kind]])
        lines.append(cells)
    heads = [
        "beside", "p50 ms", "p99 ms", "longest", "logins/min", "CPU us", "login p50", "p99", "TLS p50", "p99",
    ]  # fmt: skip
    note = (
        f"{SESSIONS} sessions in IDLE, NOOP and FETCH, each waiting {EACH:g} s in the mean before a command; the target is"
        f" a p99 of {MOST:g} ms. CPU is the server's for a login, connection and LOGOUT included, without what the sessions take"
        " alone; half of the logins are over TLS, resumed. Times of logins are from when they were due, the connection included."
        " The clients share the processors with the server."
    )
    return Section(
        f"{A_MINUTE:,} logins a minute beside {SESSIONS} sessions, {servers.workers} workers", heads, lines, [note]
    )


def _percentiles(times: Sequence[float]) -> list[str]:
    return [f"{percentile(times, each):.1f}" for each in (50, 99)]
