"""App passwords that came in clear text: revoked once, with a message to the owner; main passwords are only recorded."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from mailserver.auth.app_passwords import probe_of
from mailserver.auth.backends.directory import DirectoryBackend
from mailserver.auth.backends.directory_credentials import EXPOSED
from mailserver.auth.changed_users import SessionsOf
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.exposure.checker import ExposureChecker, ExposureMark
from mailserver.auth.exposure.revocation import Revocations
from mailserver.auth.interfaces import LoginContext, User
from mailserver.auth.schemes import schemes
from mailserver.directory import changing, credentials, reading
from mailserver.directory.changing import Author
from mailserver.directory.credentials import AppPassword
from mailserver.directory.model import NewAccount, Password
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.errors import AuthUnavailable
from mailserver.sasl.mechanism import Credentials
from mailserver.types import Secret
from tests.auth.test_service import Site
from tests.auth.waiting import Task

ANNA, BEN = "anna@example.test", "ben@example.test"
ROOT = Author("root", 1_790_000_000)
APP, OTHER = "abcd-efgh-ijkl-mnop-qrst-uvwx", "2222-efgh-ijkl-mnop-qrst-uvwx"


class Thread:
    """Runs each function at once, as a thread would."""

    error: Exception | None = None

    async def run(self, function: Callable[[], Any]) -> Any:
        if self.error is not None:
            raise self.error
        return function()


class World:
    """Anna has two app passwords in a directory, and Ben none."""

    def __init__(self, path: Path) -> None:
        self.database = SQLiteDatabase.create(path)
        for name, stored in ((ANNA, "{PLAIN}main password"), (BEN, schemes.make(b"secret", "SSHA"))):
            changing.add_account(self.database, ROOT, NewAccount(name, Password(stored)))
        self.ids = [self.add("phone", APP, frozenset({"pop3"})), self.add("laptop", OTHER, None)]
        self.backend = DirectoryBackend(path, DirectHasher())
        assert self.backend.changed_users() == frozenset()
        self.thread = Thread()
        self.sent: list[tuple[User, str, str]] = []
        self.revocations = Revocations(self.thread, lambda *message: self.sent.append(message))
        self.told: list[str] = []
        self.marks: list[ExposureMark] = []
        self.tasks: list[Task] = []
        self.site = Site(self.backend)
        timers = self.site.timers
        checker = ExposureChecker(
            self.site.penalties.digest, timers.clock, timers.call_later, self.spawn, lambda: False
        )
        checker.on_exposed = self.marks.append
        self.site = Site(self.backend, timers=timers, exposures=checker, revocations=self.revocations)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(Task(coroutine))

    def add(self, label: str, password: str, protocols: frozenset[str] | None) -> str:
        probe = probe_of(password.encode())
        assert probe is not None
        new = AppPassword(credentials.new_id(), ANNA, label, protocols)
        credentials.add_app_password(self.database, ROOT, new, probe, {})
        return new.id

    def expose(self, password: str, user: str = ANNA, peer: str | None = "192.0.2.1") -> None:
        context = LoginContext("imap", ip_address(peer) if peer else None, None, "s1")
        self.site.service.exposed(Credentials(user, Secret(password.encode())), "LOGIN", context, self.told.append)
        self.site.timers.advance(10)
        for task in self.tasks:
            task.outcome()

    def labels(self) -> list[str]:
        return sorted(each.label for each in credentials.app_passwords(self.database, ANNA))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "directory.db")


@pytest.mark.parametrize("typed", [APP, APP.upper().replace("-", " ")])
def test_an_app_password_is_revoked_and_its_owner_informed(world: World, typed: str) -> None:
    # For POP3 alone, and sent by IMAP: whoever read it knows the user, and may try all protocols.
    world.expose(typed)
    assert world.labels() == ["laptop"]
    assert world.told == [ANNA]
    assert world.marks == [], "the administrator has nothing left to do"
    [(user, subject, text)] = world.sent
    assert user.name == ANNA
    assert subject == "An app password of yours was revoked"
    assert '"phone" of anna@example.test' in text
    assert "(imap, from the address 192.0.2.1)" in text
    assert "abcd" not in text
    assert world.backend.changed_users() == {SessionsOf(ANNA, world.ids[0])}
    change = list(reading.changes(world.database, 0))[-1]
    assert (change.who, change.what, change.account) == (EXPOSED, credentials.REVOKED, ANNA)
    world.expose(typed, peer="198.51.100.7")
    assert len(world.sent) == 1, "it is right no more"


def test_the_load_of_the_pool_does_not_show_it(world: World) -> None:
    numbers = []
    for password in (APP, OTHER, "wrong", APP):
        world.site.hasher.checks.clear()
        world.expose(password, peer="198.51.100.7" if numbers else "192.0.2.1")
        numbers.append(len(world.site.hasher.checks))
    assert numbers == [1, 1, 1, 1]


def test_what_is_not_revoked(world: World) -> None:
    world.expose("main password")
    assert [mark["user"] for mark in world.marks] == [ANNA]
    world.expose(APP, BEN)
    world.expose(APP[:-1] + "y")
    assert (len(world.marks), world.sent, world.labels()) == (1, [], ["laptop", "phone"])


def test_one_that_may_not_be_revoked_is_recorded(world: World) -> None:
    world.revocations.enabled = False
    world.expose(APP, peer=None)
    assert [mark["user"] for mark in world.marks] == [ANNA]
    assert (world.sent, world.labels()) == ([], ["laptop", "phone"])


def test_one_that_cannot_be_revoked_is_recorded(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.thread.error = AuthUnavailable("the disk is full")
    world.expose(APP)
    assert [mark["user"] for mark in world.marks] == [ANNA]
    assert world.sent == []
    assert f"an app password of {ANNA} came in clear text, and could not be revoked: the disk is full" in caplog.text
    world.thread.error = None
    world.expose(OTHER, peer=None)
    assert "from this host" in world.sent[0][2]


def test_one_that_another_process_revokes_at_the_same_time_is_told_once(world: World) -> None:
    found = world.backend.find_app_password(probe_of(APP.encode()) or "")
    assert found is not None
    assert world.backend.credentials.revoke(found.user, found.user.credential) == "phone"
    assert world.backend.credentials.revoke(found.user, found.user.credential) is None
    done = Task(world.revocations.revoke(world.backend, found.user, "imap", "192.0.2.1"))
    assert done.outcome() is True
    assert world.sent == []
