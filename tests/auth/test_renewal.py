"""Weaker hashes made anew: which, when, by whom, and what does not change by it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from mailserver.auth.asking import NEW
from mailserver.auth.backends.directory import DirectoryBackend
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.interfaces import User
from mailserver.auth.renewal import FAILURE_PAUSE, MAX_WAIT, MAX_WAITING, PAUSE, Renewals
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.renewal import is_weaker, make_anew
from mailserver.directory import changing, reading, renewal
from mailserver.directory.changing import Author
from mailserver.directory.model import NewAccount, Password, StoredKeys
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.errors import AuthFailed, AuthUnavailable, TooManyLogins
from mailserver.sasl.scram_keys import ScramKeys, derive
from mailserver.types import Secret
from tests.auth.test_service import CountingHasher, Hashed, Site
from tests.auth.waiting import Task, Timers, Waiting

ANNA, BEN = "anna@example.test", "ben@example.test"
ROOT = Author("root", 1_790_000_000)
SECRET = b"secret"
WEAK = "{PLAIN}secret"
STRONG = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$JYrCJPJbJm3R0HXIYDkqIw$C2SyX39i1W3+DBO3Z490NhvdcUDVMlA7cyonCo/CI4g"
SALT = b"salt of 16 octet"
BODY = "x" * 86


def argon2(memory: int, passes: int) -> str:
    return STRONG.replace("m=65536,t=3", f"m={memory},t={passes}")


@pytest.mark.parametrize(
    ("stored", "weaker"),
    [
        (WEAK, True),
        pytest.param(schemes.make(SECRET, "SSHA256"), True, id="SSHA256"),
        ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", True),
        ("{MD5-CRYPT}$1$salt$wa8aFuC3rkp5bjoBIGTc41", True),
        (f"{{SHA512-CRYPT}}$6$saltsaltsaltsalt${BODY}", True),
        (f"{{SHA512-CRYPT}}$6$rounds=49999$saltsaltsaltsalt${BODY}", True),
        (f"{{SHA512-CRYPT}}$6$rounds=50000$saltsaltsaltsalt${BODY}", False),
        (f"{{BLF-CRYPT}}$2y$10${'x' * 53}", True),
        (f"{{BLF-CRYPT}}$2y$11${'x' * 53}", False),
        (f"{{PBKDF2}}$1$saltsalt$5000${'a' * 40}", True),
        (f"{{PBKDF2}}$1$saltsalt$600000${'a' * 40}", False),
        (STRONG, False),
        (argon2(19456, 2), False),
        (argon2(19456, 1), True),
        (f"{{SCRAM-SHA-256}}{derive('SHA-256', SECRET, SALT, 4096).text()}", False),
        ("{ROT13}frperg", False),
        ("", False),
    ],
)
def test_what_is_weaker(stored: str, weaker: bool) -> None:
    assert is_weaker(stored, SECRET) is weaker


def test_what_the_command_makes_is_not_weaker() -> None:
    made = [schemes.make(SECRET, row.name) for row in schemes.SCHEMES.values() if row.make and not row.binary]
    assert [stored for stored in made if is_weaker(stored, SECRET)] == []
    assert not is_weaker(schemes.make(SECRET, cost=schemes.LIGHT), SECRET)


def test_an_entry_that_ignores_the_end_of_its_password_stays() -> None:
    cheap = f"{{BLF-CRYPT}}$2y$05${'x' * 53}"
    assert is_weaker(cheap, b"p" * 71)
    assert not is_weaker(cheap, b"p" * 72)


def test_the_new_entry_and_its_keys() -> None:
    text = derive("SHA-256", SECRET, SALT, 5000).text()
    stored, keys = make_anew(SECRET, {"SHA-256": text.rsplit(",", 2)[0], "SHA-1": ""})
    assert schemes.verify(stored, SECRET)
    assert not schemes.verify(stored, b"Secret")
    assert keys["SHA-256"] == text
    assert ScramKeys.parse(keys["SHA-1"], "SHA-1").rounds == 100_000
    stored, keys = make_anew(b"\xff", {"SHA-256": ""})
    assert schemes.verify(stored, b"\xff")
    assert keys == {}


class Made:
    """A maker whose hashes take a while."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.waiting: list[Waiting] = []
        self.error: Exception | None = None

    async def make_anew(self, password: Secret, scram: Mapping[str, str]) -> tuple[str, dict[str, str]]:
        self.asked.append(password.reveal())
        self.waiting.append(Waiting())
        await self.waiting[-1]
        if self.error is not None:
            raise self.error
        return make_anew(password.reveal(), scram)


class RealHasher(CountingHasher):
    """Checks entries of all schemes."""

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        await super().verify(stored, password, share, rank)
        return schemes.verify(stored, password.reveal())


class Thread:
    """Runs each function at once, as a thread would."""

    def run(self, function: Callable[[], Any]) -> Waiting:
        done = Waiting()
        done.callback(function())
        return done


class FailingThread:
    async def run(self, function: Callable[[], Any]) -> Any:
        del function
        raise AuthUnavailable("attempt to write a readonly database")


class World:
    """Anna and Ben in a directory by weak hashes, and the login service over it."""

    def __init__(self, path: Path, threads: Any = None) -> None:
        self.database = SQLiteDatabase.create(path)
        for name in (ANNA, BEN):
            changing.add_account(self.database, ROOT, NewAccount(name, Password(WEAK)))
        self.maker = Made()
        self.timers = Timers()
        self.busy = False
        self.tasks: list[Task] = []
        self.renewals = Renewals(
            self.maker,
            threads or Thread(),
            clock=self.timers.clock,
            call_later=self.timers.call_later,
            spawn=self.spawn,
            busy=lambda: self.busy,
        )
        self.renewals.scram_hashes = ("SHA-256",)
        self.backend = DirectoryBackend(path, DirectHasher())
        self.site = Site(self.backend, hasher=RealHasher, renewals=self.renewals)
        assert self.backend.changed_users() == frozenset()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(Task(coroutine))

    def log_in(self, password: str = "secret", user: str = ANNA) -> None:
        task = self.site.login(user, password)
        while not task.done:
            self.site.timers.advance(0.1)
        task.outcome()

    def password(self, user: str = ANNA) -> Password:
        account = reading.find_account(self.database, user)
        assert account is not None
        return account.password

    def finish(self, number: int = -1) -> None:
        self.maker.waiting[number].callback(None)
        for task in self.tasks:
            if task.done:
                task.outcome()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "directory.db")


def test_a_login_by_a_weaker_hash_makes_it_anew_later(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.log_in()
    assert world.maker.asked == [], "the login waits for nothing"
    before = reading.identity(world.database)
    world.timers.advance(PAUSE)
    assert world.maker.asked == [SECRET]
    with caplog.at_level(logging.INFO):
        world.finish()
    assert f"the password of {ANNA} is stored by a stronger hash now" in caplog.text
    stored = world.password()
    assert stored.secret.startswith("{ARGON2ID}$argon2id$v=19$m=65536,t=3")
    assert schemes.verify(stored.secret, SECRET)
    assert set(stored.scram) == {"SHA-256"}
    # No session ends, and the record of changes is as it was.
    assert world.backend.changed_users() == frozenset()
    assert reading.identity(world.database) == before
    assert world.password(BEN).secret == WEAK
    world.log_in()
    world.timers.advance(100)
    assert world.maker.asked == [SECRET], "once is enough"
    assert "secret" not in caplog.text


def test_what_is_not_made_anew(world: World) -> None:
    with pytest.raises(AuthFailed):
        world.log_in("wrong")
    changing.set_password(world.database, ROOT, BEN, Password(schemes.make(SECRET, cost=schemes.LIGHT)))
    world.log_in(user=BEN)
    world.renewals.enabled = False
    world.log_in()
    world.timers.advance(100)
    assert world.maker.asked == []
    # A users file belongs to others.
    assert Site(Hashed({ANNA: "{PLAIN}secret"}), renewals=world.renewals).login(ANNA, "secret").done
    world.timers.advance(100)
    assert world.maker.asked == []


def test_keys_take_the_salt_of_the_account(world: World) -> None:
    keys = StoredKeys.parse(derive("SHA-1", SECRET, SALT, 4096).text())
    changing.set_password(world.database, ROOT, ANNA, Password(WEAK, {"SHA-1": keys}))
    world.renewals.scram_hashes = ("SHA-1", "SHA-256")
    world.log_in()
    world.timers.advance(PAUSE)
    world.finish()
    assert world.password().scram["SHA-1"] == keys, "what is there stays"
    assert set(world.password().scram) == {"SHA-1", "SHA-256"}


def test_a_password_that_was_changed_meanwhile_stays(world: World) -> None:
    world.log_in()
    world.timers.advance(PAUSE)
    changing.set_password(world.database, ROOT, ANNA, Password("{PLAIN}another"))
    world.finish()
    assert world.password().secret == "{PLAIN}another"
    world.log_in("another")


def test_keys_under_a_salt_that_the_account_has_no_more_are_left_out(world: World) -> None:
    keys = {"SHA-256": StoredKeys.parse(derive("SHA-256", SECRET, SALT, 4096).text())}
    assert renewal.missing_keys(world.database, ANNA) == {"SHA-256": "", "SHA-1": ""}
    world.database.change("UPDATE account SET scram_sha256 = :text", text="4096,b3RoZXI=")
    assert renewal.renew_password(world.database, ANNA, WEAK, STRONG, keys)
    assert world.password() == Password(STRONG)
    assert not renewal.renew_password(world.database, ANNA, WEAK, "{PLAIN}x", {})
    assert world.password() == Password(STRONG)


def test_a_login_during_the_change_is_let_in_by_either_hash(world: World) -> None:
    world.site.hasher.cost = 0.1
    task = world.site.login(ANNA, "secret")
    assert not task.done
    assert renewal.renew_password(world.database, ANNA, WEAK, schemes.make(SECRET, cost=schemes.LIGHT), {})
    world.site.timers.advance(1)
    assert task.outcome() == User(ANNA, limits=task.outcome().limits)
    assert len(world.site.hasher.checks) == 2


def test_users_are_few_at_once_and_one_after_another(world: World) -> None:
    store = world.backend
    for number in range(MAX_WAITING + 5):
        world.renewals.add(store, User(f"u{number}@example.test"), WEAK, Secret(b"p%d" % number))
        world.renewals.add(store, User("u0@example.test"), WEAK, Secret(b"again"))
    assert len(world.renewals) == MAX_WAITING
    world.maker.error = TooManyLogins()
    changing.import_accounts(
        world.database, ROOT, [NewAccount(f"u{n}@example.test", Password(WEAK)) for n in range(30)]
    )
    world.timers.advance(10 * PAUSE)
    assert world.maker.asked == [b"p0"]
    world.maker.waiting[-1].callback(None)
    world.timers.advance(PAUSE / 2)
    assert world.maker.asked == [b"p0"]
    world.timers.advance(PAUSE / 2)
    assert world.maker.asked == [b"p0", b"p1"], "one that the pool refused is done after another login"


def test_logins_go_first_and_passwords_are_not_kept(world: World) -> None:
    world.busy = True
    world.log_in()
    world.timers.advance(MAX_WAIT / 2)
    assert (world.maker.asked, len(world.renewals)) == ([], 1)
    world.timers.advance(MAX_WAIT)
    assert len(world.renewals) == 0
    assert world.timers.pending == [], "nothing runs while nothing is to be done"


def test_a_directory_that_cannot_be_written_is_not_tried_at_each_login(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path / "directory.db", FailingThread())
    world.log_in()
    world.timers.advance(PAUSE)
    world.log_in(user=BEN)
    assert len(world.renewals) == 0
    for _ in range(3):
        world.timers.advance(FAILURE_PAUSE + PAUSE)
        # Nothing is hashed for this login, as the password was right recently.
        world.log_in()
        assert len(world.renewals) == 1
    words = "weaker hashes of passwords are not made anew: attempt to write a readonly database"
    assert caplog.text.count(words) == 1


def test_no_representation_shows_a_password(world: World) -> None:
    world.log_in()
    shown = repr(world.renewals._due)
    assert ANNA in shown
    assert "secret" not in shown
    assert WEAK not in shown
