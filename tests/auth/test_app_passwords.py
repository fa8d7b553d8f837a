"""App passwords: their form, scope and expiry, logins by password and by SCRAM, and the sessions that end."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from scramp import ScramClient

from mailserver.auth.app_passwords import generate, printed, probe_of
from mailserver.auth.backends.directory import DirectoryBackend
from mailserver.auth.changed_users import SessionsOf
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.interfaces import FoundAppPassword, LoginContext, User
from mailserver.auth.sources import Source, find_app_password
from mailserver.config.model import BackendUse
from mailserver.directory import address_changes, changing, credentials, reading
from mailserver.directory.changing import Author
from mailserver.directory.credentials import MOST, AppPassword
from mailserver.directory.model import AccountLimits, NewAccount, Password, Refused, State, StoredDomain, StoredKeys
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.errors import AuthFailed
from mailserver.sasl.mechanism import Challenge, Credentials, Done, NeedKeys
from mailserver.sasl.scram import Scram
from mailserver.sasl.scram_keys import derive
from mailserver.types import Secret
from tests.auth.test_service import Site
from tests.auth.waiting import Task

ANNA, BEN = "anna@example.test", "ben@example.test"
ROOT = Author("root", 1_790_000_000)
MAIN = "main password"
SALT = b"salt of 16 octet"
APP = "abcd-efgh-ijkl-mnop-qrst-uvwx"


class World:
    """Anna and Ben in a directory, and the login service over it."""

    def __init__(self, path: Path) -> None:
        self.wall = 1_790_000_000.0
        self.directory = SQLiteDatabase.create(path)
        for name in (ANNA, BEN):
            keys = StoredKeys.parse(derive("SHA-256", MAIN.encode(), SALT, 4096).text())
            new = NewAccount(name, Password(f"{{PLAIN}}{MAIN}", {"SHA-256": keys}))
            changing.add_account(self.directory, ROOT, new)
        self.site = Site()
        self.now = 100.0
        self.backend = DirectoryBackend(path, DirectHasher(), lambda: self.now, lambda: self.wall)
        self.site = Site(self.backend)
        assert self.backend.changed_users() == frozenset()

    def add(self, label: str = "phone", password: str = APP, user: str = ANNA, **values: Any) -> AppPassword:
        keys = StoredKeys.parse(derive("SHA-256", password.encode(), SALT, 4096).text())
        new = AppPassword(credentials.new_id(), user, label, scram={"SHA-256": keys}, **values)
        probe = probe_of(password.encode())
        assert probe is not None
        credentials.add_app_password(self.directory, ROOT, new, probe, {"SHA-256": keys.parameters})
        return new

    def task(self, password: str, user: str = ANNA, *, protocol: str = "imap", peer: str = "192.0.2.1") -> Task:
        context = LoginContext(protocol, ip_address(peer), None, "s1")
        return Task(self.site.service.login(Credentials(user, Secret(password.encode())), context))

    def log_in(self, password: str, user: str = ANNA, **how: str) -> User:
        """Let it in at once. Raises: AuthFailed."""
        task = self.task(password, user, **how)
        while not task.done:
            self.site.timers.advance(0.1)
        found = task.outcome()
        assert isinstance(found, User)
        return found

    def refusal(self, password: str, user: str = ANNA, **how: str) -> str:
        with pytest.raises(AuthFailed) as caught:
            self.log_in(password, user, **how)
        assert caught.value.sentence == AuthFailed.text
        return caught.value.reason

    def by_scram(self, password: str, user: str = ANNA, protocol: str = "imap") -> User:
        """Log in by SCRAM-SHA-256, as another implementation does. Raises: AuthFailed."""
        client: Any = ScramClient(["SCRAM-SHA-256"], user, password)
        mechanism = Scram("SHA-256")
        asked = mechanism.step(client.get_client_first().encode())
        assert isinstance(asked, NeedKeys)
        context = LoginContext(protocol, ip_address("192.0.2.1"), None, "s1")
        keys = Task(self.site.service.scram_keys(asked.name, "SHA-256", context))
        challenge = asked.take(keys.outcome())
        assert isinstance(challenge, Challenge)
        client.set_server_first(challenge.data.decode())
        done = mechanism.step(client.get_client_final().encode())
        assert isinstance(done, Done)
        task = Task(self.site.service.login(done.claim, context))
        while not task.done:
            self.site.timers.advance(0.1)
        found = task.outcome()
        assert done.last is not None
        client.set_server_final(done.last.decode())
        assert isinstance(found, User)
        return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "directory.db")


def test_new_ones_are_random_letters_in_groups() -> None:
    made = {generate() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"([a-z2-7]{4}-){5}[a-z2-7]{4}", each) for each in made)


@pytest.mark.parametrize(
    "written", [APP, APP.upper(), APP.replace("-", ""), APP.replace("-", " "), f" {APP} ", "ab cd" + APP[4:]]
)
def test_case_spaces_and_hyphens_do_not_count(world: World, written: str) -> None:
    assert printed(written.encode()) == APP.encode()
    world.add()
    assert world.log_in(written).credential


@pytest.mark.parametrize(
    "other",
    [
        b"",
        b"secret",
        APP[:-1].encode(),
        (APP + "y").encode(),
        APP.replace("b", "1").encode(),
        b"\0" * 24,
        b"-" * 100_000,
        APP.encode() + b" " * 100,
    ],
)
def test_what_is_no_app_password(other: bytes) -> None:
    assert printed(other) is None
    assert probe_of(other) is None


def test_it_lets_in_at_once_without_a_hash(world: World) -> None:
    added = world.add()
    user = world.task(APP).outcome()
    assert (user.name, user.credential) == (ANNA, added.id)
    assert world.site.hasher.checks == []
    assert world.log_in(MAIN).credential == ""


def test_whoever_has_one_is_not_slowed_by_an_attack(world: World) -> None:
    world.add()
    guesses = [world.task(f"guess {number}", peer=f"198.51.100.{number}") for number in range(34)]
    world.site.timers.advance(1)
    for peer in ("203.0.113.9", "198.51.100.3"):
        started = world.site.timers.now
        assert world.task(APP, peer=peer).outcome().name == ANNA
        assert world.site.timers.now == started
    assert not all(task.done for task in guesses)


def test_it_is_its_users_alone(world: World) -> None:
    world.add()
    assert world.refusal(APP, BEN) == f"wrong password for {BEN}"
    assert world.refusal(APP, "nobody@example.test").startswith("there is no user")


def test_a_back_end_lets_in_users_of_its_domains_alone(world: World) -> None:
    world.add()
    password = Secret(APP.encode())
    mine = Source(world.backend, BackendUse("directory:x", domains=(ANNA.partition("@")[2],)))
    assert find_app_password([mine], [ANNA], password) is not None
    other = Source(world.backend, BackendUse("directory:x", domains=("example.net",)))
    assert find_app_password([other], [ANNA], password) is None


@pytest.mark.parametrize(("protocol", "lets_in"), [("imap", True), ("pop3", False), ("submission", True)])
def test_its_protocols(world: World, protocol: str, lets_in: bool) -> None:
    world.add(protocols=frozenset({"imap", "submission"}))
    if lets_in:
        assert world.log_in(APP, protocol=protocol).credential
        assert world.by_scram(APP, protocol=protocol).credential
        return
    assert world.refusal(APP, protocol=protocol) == f"the app password phone of {ANNA} is not for {protocol}"
    with pytest.raises(AuthFailed):
        world.by_scram(APP, protocol=protocol)


def test_one_that_is_barred_costs_and_takes_what_a_wrong_one_does(world: World) -> None:
    world.add(protocols=frozenset({"pop3"}))
    times = []
    for password, user in ((APP, ANNA), ("wrong password", BEN)):
        started, checks = world.site.timers.now, len(world.site.hasher.checks)
        world.refusal(password, user)
        times.append((round(world.site.timers.now - started, 1), len(world.site.hasher.checks) - checks))
    assert times[0] == times[1]
    assert times[0][1] == 1
    assert [each.name for each in world.site.guesses] == [BEN], (
        "a right password is no guess, for which clients are banned"
    )


SLOW = "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$c29tZSBzYWx0$" + "A" * 43
GONE = "gone-gone-gone-gone-gone-gone"


@pytest.mark.parametrize(
    "password",
    [
        pytest.param(APP.replace("a", "z"), id="wrong app password"),
        pytest.param(APP, id="of another user"),
        pytest.param(GONE, id="revoked"),
        pytest.param("wrong password", id="wrong main password"),
    ],
)
def test_a_refusal_shows_neither_who_exists_nor_who_has_app_passwords(world: World, password: str) -> None:
    """One hash, one look-up where it may be an app password, and the same delay."""
    names = {who: f"{who}@example.test" for who in ("both", "main", "app", "nothing", "disabled", "unknown")}
    for who in ("both", "main", "app", "nothing", "disabled"):
        secret = SLOW if who in {"both", "main", "disabled"} else ""
        state = State.DISABLED if who == "disabled" else State.ACTIVE
        changing.add_account(world.directory, ROOT, NewAccount(names[who], Password(secret), state=state))
    world.add()
    for number, who in enumerate(("both", "app", "disabled")):
        world.add(user=names[who], password=APP.replace("a", "bcd"[number]))
    world.add("old", GONE, names["both"])
    credentials.revoke(world.directory, ROOT, names["both"], "old")
    world.now += 10  # by then the directory knows which hash most have
    probes: list[str] = []
    find = world.backend.find_app_password

    def look_up(probe: str) -> FoundAppPassword | None:
        probes.append(probe)
        return find(probe)

    work = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.backend, "find_app_password", look_up)
        for who, name in names.items():
            world.site.hasher.checks.clear()
            probes.clear()
            started = world.site.timers.now
            world.refusal(password, name)
            hashed = [each.partition("$")[0] for each in world.site.hasher.checks]
            work[who] = hashed, len(probes), round(world.site.timers.now - started, 1)
    may_be_one = int(password != "wrong password")
    assert work == dict.fromkeys(names, (["{ARGON2ID}"], may_be_one, 1.0))


def test_scram_keys_that_are_remembered_expire_with_their_app_password(world: World) -> None:
    world.add(expires=int(world.wall) + 60)
    assert world.by_scram(APP).credential
    asked = len(world.backend.scram_keys(User(ANNA), "SHA-256").others)
    world.wall += 60
    assert (asked, len(world.backend.scram_keys(User(ANNA), "SHA-256").others)) == (1, 0)
    world.wall -= 30
    assert len(world.backend.scram_keys(User(ANNA), "SHA-256").others) == 1, "the clock was set back"
    world.add("tablet", "abcd-efgh-ijkl-mnop-qrst-uvwz")
    assert len(world.backend.scram_keys(User(ANNA), "SHA-256").others) == 2


def test_many_names_are_not_remembered(world: World) -> None:
    for number in range(1_500):
        world.backend.scram_keys(User(f"u{number}@example.test"), "SHA-256")
    assert len(world.backend._keys) <= 512


def test_it_expires_and_its_sessions_end(world: World) -> None:
    phone = world.add(expires=int(world.wall) + 60)
    world.add("laptop", APP.replace("x", "y"))
    assert world.log_in(APP).credential == phone.id
    world.wall += 59
    assert world.log_in(APP).credential == phone.id
    assert world.backend.changed_users() == frozenset()
    world.wall += 1
    world.refusal(APP)
    with pytest.raises(AuthFailed):
        world.by_scram(APP)
    assert world.backend.changed_users() == {SessionsOf(ANNA, phone.id)}
    assert world.backend.changed_users() == frozenset()
    # A clock that is set back.
    world.wall -= 30
    assert world.log_in(APP).credential == phone.id


def test_a_revoked_one_ends_its_sessions_alone(world: World) -> None:
    phone, laptop = world.add(), world.add("laptop", APP.replace("x", "y"))
    assert world.backend.changed_users() == frozenset()
    assert credentials.revoke(world.directory, ROOT, ANNA, "phone").id == phone.id
    assert world.backend.changed_users() == {SessionsOf(ANNA, phone.id)}
    world.refusal(APP)
    assert world.log_in(APP.replace("x", "y")).credential == laptop.id
    credentials.revoke(world.directory, ROOT, ANNA, laptop.id)
    world.refusal(APP.replace("x", "y"))


def test_another_main_password_leaves_them(world: World) -> None:
    phone = world.add()
    keys = StoredKeys.parse(derive("SHA-256", b"new", SALT, 4096).text())
    changing.set_password(world.directory, ROOT, ANNA, Password("{PLAIN}new", {"SHA-256": keys}))
    assert world.backend.changed_users() == {SessionsOf(ANNA, credential="")}
    assert world.log_in(APP).credential == phone.id
    assert world.by_scram(APP).credential == phone.id
    assert world.by_scram("new").credential == ""


def test_a_main_password_under_another_salt_takes_their_scram_keys_alone(world: World) -> None:
    phone = world.add()
    keys = StoredKeys.parse(derive("SHA-256", b"new", b"another salt", 4096).text())
    changing.set_password(world.directory, ROOT, ANNA, Password("{PLAIN}new", {"SHA-256": keys}))
    assert world.log_in(APP).credential == phone.id
    assert world.by_scram("new").credential == ""
    with pytest.raises(AuthFailed):
        world.by_scram(APP)


def test_a_disabled_or_deleted_user_is_not_let_in(world: World) -> None:
    world.add()
    changing.set_state(world.directory, ROOT, ANNA, State.DISABLED)
    world.refusal(APP)
    with pytest.raises(AuthFailed):
        world.by_scram(APP)
    changing.set_state(world.directory, ROOT, ANNA, State.ACTIVE)
    assert world.log_in(APP).credential
    changing.delete(world.directory, ROOT, ANNA)
    world.refusal(APP)


def test_it_goes_with_a_renamed_user(world: World) -> None:
    phone = world.add()
    changing.rename(world.directory, ROOT, ANNA, "zoe@example.test")
    assert world.log_in(APP, "zoe@example.test").credential == phone.id


def test_scram_finds_the_password_that_was_proved(world: World) -> None:
    added = {
        password: world.add(password[:4], password) for password in (APP, APP.replace("a", "z"), APP.replace("c", "z"))
    }
    for password, app in added.items():
        assert world.by_scram(password).credential == app.id
    assert world.by_scram(MAIN).credential == ""
    with pytest.raises(AuthFailed):
        world.by_scram("wrong")


def test_scram_without_a_main_password_of_keys(world: World) -> None:
    phone = world.add()
    changing.set_password(world.directory, ROOT, ANNA, Password(""))
    assert world.by_scram(APP).credential == phone.id
    for password in (MAIN, ""):
        with pytest.raises(AuthFailed):
            world.by_scram(password or " ")


def test_scram_by_one_is_not_slowed_by_an_attack(world: World) -> None:
    world.add()
    guesses = [world.task(f"guess {number}", peer="192.0.2.1") for number in range(25)]
    started = world.site.timers.now
    assert world.by_scram(APP).name == ANNA
    assert world.site.timers.now == started
    assert not all(task.done for task in guesses)


def test_the_main_password_may_be_barred_from_protocols(world: World) -> None:
    world.add()
    changing.set_main_protocols(world.directory, ROOT, ANNA, frozenset({"imap"}))
    assert world.log_in(MAIN).credential == ""
    assert world.refusal(MAIN, protocol="pop3") == f"the password is right, but for pop3 {ANNA} needs an app password"
    with pytest.raises(AuthFailed):
        world.by_scram(MAIN, protocol="pop3")
    assert world.log_in(APP, protocol="pop3").credential
    changing.set_main_protocols(world.directory, ROOT, ANNA, frozenset())
    world.refusal(MAIN)
    changing.set_main_protocols(world.directory, ROOT, ANNA, None)
    assert world.log_in(MAIN).name == ANNA


def test_limits_of_the_user_and_its_domain(world: World) -> None:
    world.add()
    address_changes.add_domain(world.directory, ROOT, StoredDomain("example.test"))
    limits = AccountLimits(("192.0.2.0/24",), protocols=("imap",))
    address_changes.change_domain(world.directory, ROOT, "example.test", limits=limits.text())
    for password in (MAIN, APP):
        assert world.log_in(password).name == ANNA
        assert world.refusal(password, protocol="pop3") == f"{ANNA} may not log in by pop3"
        assert "may not log in from 198.51.100.1" in world.refusal(password, peer="198.51.100.1")
    changing.set_limits(world.directory, ROOT, ANNA, AccountLimits(("198.51.100.0/24",), protocols=("pop3",)))
    assert world.log_in(APP, protocol="pop3", peer="198.51.100.1").name == ANNA
    assert world.refusal(APP) != ""


def test_narrowed_limits_end_the_sessions_that_they_would_not_let_in(world: World) -> None:
    changing.set_limits(world.directory, ROOT, ANNA, AccountLimits(protocols=("imap",), storage=5))
    found = world.backend.changed_users()
    assert found is not None
    [part] = found
    assert isinstance(part, SessionsOf)
    assert part.limits is not None
    assert part.limits.allow_protocol("imap", by_password=True)
    assert not part.limits.allow_protocol("pop3", by_password=True)
    changing.set_limits(world.directory, ROOT, ANNA, AccountLimits(protocols=("imap",), storage=6))
    assert world.backend.changed_users() == frozenset()
    changing.set_main_protocols(world.directory, ROOT, ANNA, frozenset({"pop3"}))
    found = world.backend.changed_users()
    assert found is not None
    [part] = found
    assert isinstance(part, SessionsOf)
    assert part.limits is not None
    assert not part.limits.allow_protocol("imap", by_password=True)
    assert part.limits.allow_protocol("imap", by_password=False)


def test_labels_are_unique_and_their_number_bounded(world: World) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    for number in range(MOST):
        world.add(f"app {number}", letters[number] * 24)
    with pytest.raises(Refused, match="no more"):
        world.add("one more", "ab" * 12)
    with pytest.raises(Refused, match="app 3 already"):
        world.add("app 3", "ab" * 12)
    assert len(credentials.app_passwords(world.directory, ANNA)) == MOST
    with pytest.raises(Refused, match="no app password with the label x"):
        credentials.revoke(world.directory, ROOT, ANNA, "x")


def test_each_change_is_recorded_without_the_secret(world: World) -> None:
    _identity, before = reading.identity(world.directory)
    added = world.add()
    credentials.revoke(world.directory, ROOT, ANNA, "phone")
    found = [(each.what, each.account, each.facts) for each in reading.changes(world.directory, before)]
    facts = {"credential": added.id, "label": "phone"}
    assert found == [("app password added", ANNA, facts), ("app password revoked", ANNA, facts)]
