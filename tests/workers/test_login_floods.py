"""Guesses from 160 networks, and people who log in meanwhile. Each hash takes a third of a real one's time."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from mailserver.auth.schemes import schemes
from tests.live.client import Client, eventually
from tests.live.conftest import no_bug
from tests.server import Server

PEOPLE = 6
HANG = 40.0
"""Seconds that a login may take on a busy machine; ten times what it should."""
LISTENER = """
[[listener]]
protocol = "imap"
addresses = ["127.0.0.1"]
port = {a}
allow_cleartext = true
"""
COST = schemes.Argon2Cost(memory_kib=65536, passes=1)
PASSWORD = "the right one"
NAMES = [f"u{number:03}@example.test" for number in range(PEOPLE)]


def make_server(directory: Path, workers: int) -> Server:
    server = Server(directory, users=PEOPLE, workers=workers, append=LISTENER)
    stored = schemes.make(PASSWORD.encode(), cost=COST)
    users = server.dir / "users"
    lines = users.read_text().splitlines()
    users.write_text("".join(f"{line.split(':')[0]}:{stored}\n" for line in lines))
    return server


def log_in(server: Server, name: str, source: str, password: str = PASSWORD) -> tuple[bytes, float]:
    """The answer and the seconds that it took."""
    with Client(server, "imap", source=source, port=server.spare_ports[0]) as client:
        client.socket.settimeout(2 * HANG)
        client.greeting()
        began = time.monotonic()
        return client.try_login(name, password), time.monotonic() - began


class Flood:
    """One connection from each of many addresses, which guesses without an end."""

    def __init__(self, server: Server, names: list[str], sources: list[str]) -> None:
        self._sources = sources
        self.answers: Counter[bytes] = Counter()
        self._port = server.spare_ports[0]
        self._names = itertools.cycle(names)
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._end = threading.Event()
        self._begun = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(HANG)
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        self._thread.join(HANG)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        guessing = [asyncio.create_task(self._guess(source)) for source in self._sources]
        while not self._end.is_set():
            await asyncio.sleep(0.1)
            if next(self._numbers) > len(self._sources):
                self._begun.set()
        for task in guessing:
            task.cancel()
        await asyncio.gather(*guessing, return_exceptions=True)

    async def _guess(self, source: str) -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, local_addr=(source, 0))
            try:
                await reader.readline()
                while True:
                    writer.write(f'a LOGIN "{next(self._names)}" "guess{next(self._numbers)}"\r\n'.encode())
                    answer = await reader.readline()
                    if not answer.startswith(b"a "):
                        break
                    self.answers[answer.split(b"]")[0]] += 1
            except ConnectionError:
                pass
            finally:
                writer.close()


@pytest.fixture(params=[0, 2])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """In one process, and with two workers."""
    server = make_server(tmp_path / "server", request.param)
    with server:
        yield server
    no_bug(server.log)


def test_a_flood_keeps_out_nobody_and_what_is_known_survives_a_restart(server: Server) -> None:
    for number, name in enumerate(NAMES[:-1]):
        assert b"a OK" in log_in(server, name, f"127.55.{number}.9")[0]
    assert server.stop() == 0
    kept = server.dir / "state" / "known-networks"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert b"example" not in kept.read_bytes()
    server.start()
    names = [*NAMES, *(f"nobody{number}@example.test" for number in range(100))]
    with Flood(server, names, [f"127.77.{network}.1" for network in range(160)]) as flood:
        known = [log_in(server, name, f"127.55.{number}.200") for number, name in enumerate(NAMES[:-1])]
        new = log_in(server, NAMES[-1], "127.56.0.1")
    assert [answer for answer, _seconds in known if b"a OK" not in answer] == [], flood.answers
    assert max(seconds for _answer, seconds in known) < HANG
    assert b"a OK" in new[0], "networks that have not guessed go ahead of those that have"
    assert new[1] < HANG
    assert set(flood.answers) <= {b"a NO [AUTHENTICATIONFAILED", b"a NO [UNAVAILABLE"}


def test_guesses_from_the_users_own_address_do_not_keep_out_its_password(server: Server) -> None:
    home = "127.55.0.9"
    assert b"a OK" in log_in(server, NAMES[0], home)[0]
    with Flood(server, NAMES[:1], [home] * 12) as flood:
        eventually(lambda: flood.answers.total() >= 2, HANG)
        # Whichever worker hears it.
        again = [log_in(server, NAMES[0], home) for _ in range(8)]
    assert [answer for answer, _seconds in again if b"a OK" not in answer] == [], flood.answers
    assert max(seconds for _answer, seconds in again) < HANG


def test_junk_in_clear_keeps_no_right_password_before_tls_from_being_found(server: Server) -> None:
    """At the listener that takes no password without TLS; by clients that do not wait for the refusal."""
    name = "nobody@example.test"

    def say(source: str, *logins: tuple[str, str]) -> None:
        with Client(server, "imap", source=source) as client:
            client.send(b"".join(f'a LOGIN "{user}" "{password}"\r\n'.encode() for user, password in logins))
            for _ in logins:
                assert b"[PRIVACYREQUIRED]" in client.until(rb"a ")[-1]

    for network in range(40):
        say(f"127.66.{network}.1", *((f"{each}{network}{name}", "junk") for each in range(8)))
    for user in NAMES[1:]:
        say("127.67.0.1", *((user, f"junk{number}") for number in range(5)))
    say("127.68.0.1", (NAMES[0], "wrong"), (NAMES[0], PASSWORD), (NAMES[0], "wrong, too"))
    server.wait_for(rf"password-exposed session=.*user={NAMES[0]}", seconds=HANG)
