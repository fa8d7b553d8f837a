"""A login that is looked at once more before its session is registered, by each way in and after each change."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from zope.interface import implementer_only

from mailserver.auth.backends.directory import DirectoryBackend
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.interfaces import (
    IAppPasswords,
    IAuthBackend,
    IHashedPasswords,
    IRecordsChanges,
    LoginContext,
    User,
)
from mailserver.auth.login_records import refusal_record
from mailserver.directory import address_changes, changing, credentials, delegates, renewal
from mailserver.directory.delegates import StoredDelegate
from mailserver.directory.model import AccountLimits, NewAccount, Password, State, StoredDomain
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.errors import AccountChanged, AuthUnavailable
from mailserver.explain.trace import Rule
from mailserver.sasl.mechanism import Certified, Claim, Credentials, ScramProof
from mailserver.sasl.scram_keys import make_keys
from mailserver.types import Secret
from tests.auth.test_app_passwords import ANNA, APP, BEN, MAIN, ROOT, World
from tests.auth.test_service import Checker, Directory, Hashed, Site
from tests.auth.test_service_scram import Keyed
from tests.auth.waiting import Task

ADMIN = "admin@example.org"


class Waits(World):
    """A directory, and logins that wait between the decision and the registration."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        changing.add_account(self.directory, ROOT, NewAccount(ADMIN, Password(f"{{PLAIN}}{MAIN}")))
        address_changes.add_domain(self.directory, ROOT, StoredDomain("example.test"))
        delegates.put_delegate(self.directory, ROOT, StoredDelegate(ADMIN, ANNA, int(self.wall) + 60))
        self.phone = self.add(expires=int(self.wall) + 60)
        self.backend.changed_users()

    def let_in(self, way: str) -> User:
        if way.startswith("scram"):
            return self.by_scram(MAIN if way == "scram" else APP)
        claims: dict[str, Claim] = {
            "password": Credentials(ANNA, Secret(MAIN.encode())),
            "app-password": Credentials(ANNA, Secret(APP.encode())),
            "certificate": Certified(ANNA),
            "delegate": Credentials(ADMIN, Secret(MAIN.encode()), ANNA),
        }
        return outcome(self.site, self.site.service.login(claims[way], context()))

    def holds(self, user: User) -> bool:
        # The look of each second sees the change, too, and has no session to end.
        self.backend.changed_users()
        return holds(self.site, user)


@implementer_only(IAuthBackend, IAppPasswords, IHashedPasswords)
class WithoutRecord(DirectoryBackend):
    """A back end that does not say what has changed."""


def context() -> LoginContext:
    return LoginContext("imap", ip_address("192.0.2.1"), None, "s1")


def outcome(site: Site, running: Any) -> Any:
    task = Task(running)
    while not task.done:
        site.timers.advance(0.1)
    return task.outcome()


def holds(site: Site, user: User) -> bool:
    try:
        outcome(site, site.service.confirm(user, context()))
    except AccountChanged:
        return False
    return True


@pytest.fixture
def world(tmp_path: Path) -> Waits:
    return Waits(tmp_path / "directory.db")


WAYS = ("password", "scram", "app-password", "scram-app-password", "certificate", "delegate")
OWN = set(WAYS) - {"delegate"}
BY_MAIN = {"password", "scram", "certificate"}
BY_APP = {"app-password", "scram-app-password"}


def limit(**values: Any) -> Callable[[Waits], object]:
    return lambda w: changing.set_limits(w.directory, ROOT, ANNA, AccountLimits(**values))


def limit_domain(**values: Any) -> Callable[[Waits], object]:
    text = AccountLimits(**values).text()
    return lambda w: address_changes.change_domain(w.directory, ROOT, "example.test", limits=text)


def renew(w: Waits) -> None:
    assert renewal.renew_password(w.directory, ANNA, f"{{PLAIN}}{MAIN}", "{PLAIN}another hash", {})


def again(w: Waits) -> None:
    changing.delete(w.directory, ROOT, ANNA)
    keys = {"SHA-256": w.phone.scram["SHA-256"]}
    changing.add_account(w.directory, ROOT, NewAccount(ANNA, Password("{PLAIN}somebody else's", keys)))


CHANGES: dict[str, tuple[Callable[[Waits], object], set[str]]] = {
    "nothing": (lambda w: None, set()),
    "another account": (lambda w: changing.set_password(w.directory, ROOT, BEN, Password("{PLAIN}y")), set()),
    "hash renewed": (renew, set()),
    "app password added": (lambda w: w.add("laptop", APP.replace("a", "b")), set()),
    "disabled": (lambda w: changing.set_state(w.directory, ROOT, ANNA, State.DISABLED), set(WAYS)),
    "disabled and enabled": (
        lambda w: [changing.set_state(w.directory, ROOT, ANNA, each) for each in (State.DISABLED, State.ACTIVE)],
        set(WAYS),
    ),
    "deleted": (lambda w: changing.delete(w.directory, ROOT, ANNA), set(WAYS)),
    "deleted, and added for somebody else": (again, set(WAYS)),
    "renamed": (lambda w: changing.rename(w.directory, ROOT, ANNA, "carla@example.test"), set(WAYS)),
    "password": (lambda w: changing.set_password(w.directory, ROOT, ANNA, Password("{PLAIN}y")), BY_MAIN),
    # A session by certificate is not told from one by the password: its next try is let in.
    "protocols of the password": (
        lambda w: changing.set_main_protocols(w.directory, ROOT, ANNA, frozenset({"pop3"})),
        BY_MAIN,
    ),
    "revoked": (lambda w: credentials.revoke(w.directory, ROOT, ANNA, "phone"), BY_APP),
    "app password and delegate expired": (lambda w: setattr(w, "wall", w.wall + 60), BY_APP | {"delegate"}),
    "networks": (limit(networks=("198.51.100.0/24",)), OWN),
    "protocols": (limit(protocols=("pop3",)), OWN),
    "wider limits": (limit(protocols=("imap", "pop3"), networks=("0.0.0.0/0",)), set()),
    "networks of the domain": (limit_domain(networks=("198.51.100.0/24",)), OWN),
    "delegate removed": (lambda w: delegates.remove_delegate(w.directory, ROOT, ADMIN, ANNA), {"delegate"}),
    "delegate expired": (
        lambda w: delegates.put_delegate(w.directory, ROOT, StoredDelegate(ADMIN, ANNA, int(w.wall) - 1)),
        {"delegate"},
    ),
    "delegate's password": (
        lambda w: changing.set_password(w.directory, ROOT, ADMIN, Password("{PLAIN}y")),
        {"delegate"},
    ),
    "delegate disabled": (lambda w: changing.set_state(w.directory, ROOT, ADMIN, State.DISABLED), {"delegate"}),
    "restored": (lambda w: changing.mark_restored(w.directory, ROOT), set(WAYS)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", WAYS)
def test_a_change_between_the_decision_and_the_registration(world: Waits, way: str, change: str) -> None:
    make, refused = CHANGES[change]
    user = world.let_in(way)
    assert world.holds(user)
    make(world)
    assert world.holds(user) is (way not in refused)
    assert world.site.guesses == []


def test_the_change_may_come_while_the_password_is_checked(world: Waits) -> None:
    world.site.hasher.cost = 2.0
    task = world.task(MAIN)
    world.site.timers.advance(1)
    # Its entry is the same at the end of the check, and in between was another one.
    for secret in ("{PLAIN}y", f"{{PLAIN}}{MAIN}"):
        changing.set_password(world.directory, ROOT, ANNA, Password(secret))
    while not task.done:
        world.site.timers.advance(0.1)
    assert not world.holds(task.outcome())


def test_a_change_before_the_login_is_none(world: Waits) -> None:
    changing.set_password(world.directory, ROOT, ANNA, Password("{PLAIN}new"))
    assert world.holds(world.log_in("new"))


def test_it_is_unavailable_and_not_wrong(world: Waits) -> None:
    user, at = world.log_in(MAIN), context()
    changing.set_state(world.directory, ROOT, ANNA, State.DISABLED)
    with pytest.raises(AuthUnavailable) as caught:
        outcome(world.site, world.site.service.confirm(user, at))
    error = caught.value
    assert error.sentence == "the account was changed in the meantime, try again"
    assert error.reason == f"{ANNA} was disabled"
    assert refusal_record(error, "REF", (ANNA, ANNA), "LOGIN", at).rule == Rule.CHANGED.value
    world.refusal(MAIN)


@pytest.mark.parametrize("way", WAYS)
def test_a_directory_that_is_gone_in_between_lets_nobody_in(world: Waits, way: str) -> None:
    user = world.let_in(way)
    aside = world.backend._path.with_name("aside.db")
    world.backend._path.rename(aside)
    world.now += 1
    with pytest.raises(AuthUnavailable):
        world.holds(user)
    aside.rename(world.backend._path)
    world.now += 1
    assert not world.holds(user), "as it is not known what happened meanwhile"
    assert world.holds(world.let_in(way))


def test_a_broken_directory_is_in_nobody_elses_way(world: Waits) -> None:
    site = Site(Hashed({"carla@example.test": "{PLAIN}carla"}), world.backend)
    assert IRecordsChanges.providedBy(world.backend)
    world.backend._path.unlink()
    world.now += 1
    claim = Credentials("carla@example.test", Secret(b"carla"))
    assert holds(site, outcome(site, site.service.login(claim, context())))


def test_an_app_password_of_a_delegate(world: Waits) -> None:
    password = APP.replace("a", "b")
    app = world.add("help", password, ADMIN)
    claim = Credentials(ADMIN, Secret(password.encode()), ANNA)
    user = outcome(world.site, world.site.service.login(claim, context()))
    assert (user.name, user.delegate, user.credential) == (ANNA, ADMIN, app.id)
    assert world.holds(user)
    credentials.revoke(world.directory, ROOT, ADMIN, app.id)
    assert not world.holds(user)


def test_a_directory_that_could_not_be_read_at_the_decision(world: Waits, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> object:
        raise AuthUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(world.backend, "position", away)
        user = world.let_in("password")
    with pytest.raises(AuthUnavailable):
        holds(world.site, user)


def test_the_record_of_the_user_counts_beside_that_of_its_delegate(world: Waits, tmp_path: Path) -> None:
    """A directory has the delegate, another one the user."""
    erika = "erika@example.net"
    other = SQLiteDatabase.create(tmp_path / "other.db")
    changing.add_account(other, ROOT, NewAccount(erika))
    delegates.put_delegate(world.directory, ROOT, StoredDelegate(ADMIN, erika))
    site = Site(world.backend, DirectoryBackend(tmp_path / "other.db", DirectHasher()))
    claim = Credentials(ADMIN, Secret(MAIN.encode()), erika)
    user = outcome(site, site.service.login(claim, context()))
    assert holds(site, user)
    changing.delete(other, ROOT, erika)
    changing.add_account(other, ROOT, NewAccount(erika))
    assert not holds(site, user), "it is somebody else"
    other.close()


def test_app_passwords_of_a_back_end_without_a_record(world: Waits) -> None:
    unrecorded = WithoutRecord(world.backend._path, DirectHasher(), lambda: world.now, lambda: world.wall)
    assert not IRecordsChanges.providedBy(unrecorded)
    site = Site(unrecorded)
    user = outcome(site, site.service.login(Credentials(ANNA, Secret(APP.encode())), context()))
    assert holds(site, user)
    changing.set_limits(world.directory, ROOT, ANNA, AccountLimits(networks=("198.51.100.0/24",)))
    assert not holds(site, user)


def test_users_of_a_file(world: Waits) -> None:
    file = Hashed({"carla@example.test": "{PLAIN}carla"})
    site = Site(file)
    user = outcome(site, site.service.login(Credentials("carla@example.test", Secret(b"carla")), context()))
    assert holds(site, user)
    file.entries["carla@example.test"] = None
    assert not holds(site, user)
    del file.entries["carla@example.test"]
    assert not holds(site, user)


@pytest.mark.parametrize("change", ["other keys", "no keys", "gone"])
def test_keys_of_a_back_end_without_a_record(change: str) -> None:
    keys, other = make_keys("SHA-256", b"secret", 5000), make_keys("SHA-256", b"other", 5000)
    backend = Keyed({"anna@example.test": keys})
    site = Site(backend)
    proof = ScramProof("anna@example.test", "SHA-256", keys, True, Secret(b"proof"))
    user = outcome(site, site.service.login(proof, context()))
    assert holds(site, user)
    backend.users["anna@example.test"] = other if change == "other keys" else None
    if change == "gone":
        del backend.users["anna@example.test"]
    assert not holds(site, user)


def test_users_whom_nobody_lists() -> None:
    checker = Checker({"anna@example.test": b"secret", "anna": b"secret"})
    site = Site(checker)
    user = outcome(site, site.service.login(Credentials("anna@example.test", Secret(b"secret")), context()))
    assert holds(site, user)
    assert checker.asked == ["anna@example.test"], "the password is not asked again"


def test_a_back_end_that_answers_later() -> None:
    backend = Directory({"anna@example.test": b"secret"})
    site = Site(backend)
    login = Task(site.service.login(Credentials("anna@example.test", Secret(b"secret")), context()))
    backend.settle()
    again = Task(site.service.confirm(login.outcome(), context()))
    assert not again.done
    backend.settle()
    again.outcome()
    assert backend.verified == ["anna@example.test"]


def test_what_a_login_was_decided_by_is_no_secret(world: Waits) -> None:
    for way in WAYS:
        user = world.let_in(way)
        text = repr(user.let_in)
        assert MAIN not in text
        assert APP not in text
        assert "let_in" not in repr(user)
