"""Logins and look-ups of ours with a directory, beside those with a passwd-file. Dovecot has no app passwords."""

from __future__ import annotations

import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from itertools import count, islice
from pathlib import Path

from attrs import frozen

from benchmarks.client import Imap
from benchmarks.directory_server import (
    ALIASES,
    FEW,
    GROUP,
    LOGINS,
    USERS,
    DirectoryServers,
    alias,
    ask_for,
    password,
    user,
)
from benchmarks.report import Section
from benchmarks.servers import Mailserver, worker_memory
from mailserver.auth.interfaces import LoginContext
from mailserver.auth.login_records import refusal_record
from mailserver.errors import AuthFailed
from mailserver.explain.log import LoginLog
from mailserver.explain.refs import new_ref
from mailserver.explain.ring import SLOTS
from mailserver.explain.trace import Rule

ROUNDS = 9
_TIMES = 100
"""Logins, refusals or recipients of one round."""
_LOGGING_IN = 20
"""Accounts that log in again and again: what opening an account costs has no part in it."""
_AT_ONCE = 50
"""Refused logins that wait for their answer together."""
_ASKED = 6000
"""Recipients that each server is asked for before the memory of its workers is read."""
_RECORDED = 256
"""Refusals that are recorded in one round to time it."""

Work = Callable[[Mailserver, list[int]], None]


@frozen
class _Variant:
    """One line of the table: a kind of login or look-up on one server."""

    name: str
    side: Mailserver
    work: Work
    """Does something once for each number of a user."""
    beside: str = ""
    """The line that its cost is compared with; empty: none."""
    times: int = _TIMES
    users: int = _LOGGING_IN
    """Those whose numbers it gets, in turn."""


def _by(secret: Callable[[int], str], *, tls: bool = False) -> Work:
    """Connect, log in and log out; with TLS by the session of the connection before."""

    def work(side: Mailserver, numbers: list[int]) -> None:
        session: ssl.SSLSession | None = None
        for number in numbers:
            client = Imap(side.ports["imaps" if tls else "imap"], tls=side.ca if tls else None, session=session)
            client.login(user(number), secret(number))
            if isinstance(client.raw, ssl.SSLSocket):
                assert client.raw.session_reused or session is None, "the session was not resumed"
                session = client.raw.session
            client.close()

    return work


def _refused() -> Work:
    """Guess at a name that does not exist, always another one from another network: others would wait for each other."""
    guesses = count(1)

    def work(side: Mailserver, numbers: list[int]) -> None:
        for start in range(0, len(numbers), _AT_ONCE):
            opened = []
            for guess in islice(guesses, len(numbers[start : start + _AT_ONCE])):
                source = f"127.{guess // 250 + 1}.{guess % 250}.1"
                raw = socket.create_connection(("127.0.0.1", side.ports["imap"]), 60, (source, 0))
                file = raw.makefile("rb")
                assert file.readline().startswith(b"* OK")
                raw.sendall(b'a LOGIN "nobody%d@example.test" "wrong"\r\n' % guess)
                opened.append((raw, file))
            for raw, file in opened:
                assert file.readline().startswith(b"a NO [AUTHENTICATIONFAILED]")
                raw.sendall(b"b LOGOUT\r\n")
                assert file.readline().startswith(b"* BYE")
                file.close()
                raw.close()

    return work


def _recipients(name: Callable[[int], str], *, each_time: int = 100) -> Work:
    return lambda side, numbers: ask_for(side, [name(number) for number in numbers], each_time=each_time)


def _variants(servers: DirectoryServers) -> list[_Variant]:
    app, large, file = servers.app_passwords, servers.large, servers.file
    by_password, by_app = _by(password), _by(lambda number: app[number])
    plain, resumed = "login with a password, passwd-file", "the same over TLS, resumed"
    user_of_file = "RCPT of a user, passwd-file"
    return [
        _Variant(plain, file, by_password),
        _Variant("login with a password, directory", large, by_password, plain),
        _Variant("login with an app password, directory", large, by_app, plain),
        _Variant(resumed, file, _by(password, tls=True)),
        _Variant("app password over TLS, resumed", large, _by(lambda number: app[number], tls=True), resumed),
        _Variant("refused login, passwd-file", file, _refused()),
        _Variant("refused login, directory", large, _refused(), "refused login, passwd-file"),
        _Variant(user_of_file, file, _recipients(user), users=LOGINS),
        _Variant("RCPT of a user, directory", large, _recipients(user), user_of_file, users=USERS),
        _Variant("RCPT of an alias, directory", large, _recipients(alias), user_of_file, users=USERS),
        _Variant("RCPT of a group of 1,000", large, _recipients(lambda _number: GROUP, each_time=1), times=10),
    ]


def make_maildirs(side: Mailserver, users: int = LOGINS) -> None:
    """Let the first accounts log in once, as a first login makes the Maildir."""
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda first: _by(password)(side, list(range(first, users, 16))), range(16)))


def measure(servers: DirectoryServers, rounds: int | None = None) -> list[Section]:
    """Return the table of costs, and that of the directory's size."""
    variants = _variants(servers)
    for side in (servers.file, servers.large):
        make_maildirs(side, _LOGGING_IN)
    numbers = count()
    figures: dict[str, list[float]] = {each.name: [] for each in variants}
    for round_number in range(rounds or ROUNDS):
        for at in range(len(variants)):
            each = variants[(round_number + at) % len(variants)]
            those = [number % each.users for number in islice(numbers, each.times)]
            before = each.side.cpu()
            each.work(each.side, those)
            figures[each.name].append((each.side.cpu() - before) / each.times * 1e6)
    lines = [_line(each, figures) for each in variants]
    refused = min(figures["refused login, directory"])
    record = _cost_of_a_record()
    lines.append(["what explain takes of a refused login", f"{record:,.1f}", f"{record / refused:.3f}", ""])
    note = (
        f"Server CPU, the least of {rounds or ROUNDS} rounds in turns, each of {_TIMES}. {_LOGGING_IN} accounts log in by IMAP,"
        " again and again, with the connection, its greeting and LOGOUT; all passwords are PLAIN. Workers remember accounts and"
        " addresses that they have looked up, but no app passwords; each recipient of the directory is a new one. The ratio is"
        f" to the same with a passwd-file of {LOGINS} users; spread is the largest cost of a round divided by the smallest."
        " Refused are names that do not exist; the record of a refusal is timed in a process by itself, with a"
        " full ring."
    )
    title = f"Logins and look-ups, directory of {USERS:,} users"
    return [Section(title, ["what", "us", "ratio", "spread"], lines, [note]), _sizes(servers)]


def _line(variant: _Variant, figures: dict[str, list[float]]) -> list[str]:
    mine = figures[variant.name]
    ratio = ""
    if variant.beside:
        ratio = f"{min(mine) / min(figures[variant.beside]):.2f}"
    return [variant.name, f"{min(mine):,.1f}", ratio, f"{max(mine) / min(mine):.1f}"]


def _cost_of_a_record() -> float:
    """Return the microseconds of CPU in which a refusal is traced and recorded, in this process, once the ring is full."""
    with tempfile.TemporaryDirectory(prefix="mailserver-bench-") as name:
        complaints: list[str] = []
        log = LoginLog(Path(name) / "explain", "benchmark", complaints.append)
        times = []
        for _round in range(3 * SLOTS // _RECORDED):
            contexts = [
                LoginContext("imap", ip_address("127.0.0.1"), "mail.example.test", "s1", tls="TLSv1.3")
                for _ in range(_RECORDED)
            ]
            before = time.process_time()
            for context in contexts:
                _record(log, context)
            times.append((time.process_time() - before) / _RECORDED)
        log.close()
        assert not complaints, complaints
        # The first third fills the ring.
        return min(times[SLOTS // _RECORDED :]) * 1e6


def _record(log: LoginLog, context: LoginContext) -> None:
    name, trace = user(0), context.trace
    trace.names = (name,)
    for question in ("find", "verify"):
        trace.called("directory", question, 0.0001, "yes")
    trace.rule = Rule.OTHER
    error = AuthFailed("wrong password")
    log.refused(refusal_record(error, new_ref(), (name, name), "LOGIN", context))


def _sizes(servers: DirectoryServers) -> Section:
    large, small, imported = servers.large, servers.small, servers.imported
    assert imported is not None
    for side, users in ((small, FEW), (large, USERS)):
        side.restart()
        names = _names(users)
        ask_for(side, list(islice(names, _ASKED)), connections=16)
    memory = [worker_memory(side.pid) / 2**20 for side in (small, large)]
    lines = [
        ["import, s", f"{imported.seconds:.1f}"],
        ["CPU of the import, s", f"{imported.cpu:.1f}"],
        ["size of the directory, MiB", f"{imported.size / 2**20:.1f}"],
        [f"memory of a worker, {FEW} users, MiB", f"{memory[0]:.1f}"],
        [f"memory of a worker, {USERS:,} users, MiB", f"{memory[1]:.1f}"],
        ["more, MiB", f"{memory[1] - memory[0]:.1f}"],
    ]
    note = (
        f"Imported by `mailserver directory import` from a passwd-file of {USERS:,} users with {ALIASES} aliases each. Memory is"
        f" each worker's own (private pages), after {_ASKED:,} recipients were asked for on 16 connections."
    )
    return Section(f"A directory of {USERS:,} users and {USERS * ALIASES:,} aliases", ["what", "ours"], lines, [note])


def _names(users: int) -> Iterator[str]:
    """Names and aliases of all users in turn, endlessly."""
    for number in count():
        yield alias(number % users, number // users % ALIASES) if number % 2 else user(number % users)
