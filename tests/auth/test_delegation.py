"""Delegates: an account logs in as another one, where a back end allows it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from mailserver.auth.backends.directory import DirectoryBackend
from mailserver.auth.changed_users import SessionsOf
from mailserver.auth.conformance import DirectHasher
from mailserver.auth.delegation import shown_login, split_claim, split_name
from mailserver.auth.interfaces import IDelegates, LoginContext, ShownCertificate, User
from mailserver.auth.restrictions import Names
from mailserver.auth.service import LoginService
from mailserver.auth.throttling.login_throttle import LoginThrottle
from mailserver.auth.throttling.penalties import Penalties
from mailserver.directory import changing, delegates
from mailserver.directory.changing import Author
from mailserver.directory.delegates import StoredDelegate
from mailserver.directory.model import AccountLimits, NewAccount, Password, State
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.errors import AuthFailed, AuthorizationFailed, AuthUnavailable
from mailserver.explain.trace import Trace
from mailserver.sasl.mechanism import Certified, Claim, Credentials
from mailserver.types import Quota, Secret
from tests.auth.test_service import CountingHasher, Hashed
from tests.auth.waiting import Task, Timers, Waiting
from tests.fakes import run_now

ROOT = Author("root", 1)
ADMIN, ANNA, BEN = "admin@example.org", "anna@example.test", "ben@example.test"
NOW = 1_800_000_000


class Site:
    """A directory with an administrator and two users, and a users file with one more."""

    def __init__(self, path: Path, *, separator: str = "*", demands: str | None = None) -> None:
        self.directory = SQLiteDatabase.create(path)
        for name in (ADMIN, ANNA, BEN):
            changing.add_account(self.directory, ROOT, NewAccount(name, Password(f"{{PLAIN}}of {name}")))
        self.wall = float(NOW)
        self.backend = DirectoryBackend(path, DirectHasher(), wall=lambda: self.wall)
        self.file = Hashed({"carla@example.test": "{PLAIN}carla", "root@example.org": "{PLAIN}root"})
        self.timers = Timers()
        throttle = LoginThrottle(
            Penalties(self.timers.clock), self.timers.sleep, self.timers.clock, Waiting, self.timers.call_later
        )
        names = Names(
            frozenset({"example.test", "example.org"}),
            "example.test",
            lambda _host: None,
            lambda _host, domain: domain == "example.test",
            lambda domain: domain == demands,
        )
        self.service = LoginService(
            [self.backend, self.file], CountingHasher(self.timers), names, throttle, delegate_separator=separator
        )
        self.backend.changed_users()

    def allow(self, over: str, expires: int | None = None, account: str = ADMIN) -> None:
        delegates.put_delegate(self.directory, ROOT, StoredDelegate(account, over, expires, "holiday"))

    def claim(self, claim: Claim, peer: str = "192.0.2.1", certificate: ShownCertificate | None = None) -> User:
        """Raises what the login raises."""
        context = LoginContext("imap", ip_address(peer), None, "s1", certificate)
        task = Task(self.service.login(claim, context))
        while not task.done:
            self.timers.advance(0.5)
        user = task.outcome()
        assert isinstance(user, User)
        return user

    def login(self, name: str, password: str = f"of {ADMIN}", authorization: str = "") -> User:
        return self.claim(Credentials(name, Secret(password.encode()), authorization))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "directory.db")
    yield made
    made.directory.close()


def test_a_name_is_divided_at_its_first_separator() -> None:
    assert split_name("anna*admin", "*") == ("admin", "anna")
    assert split_name("anna*admin*x", "*") == ("admin*x", "anna"), "as in Dovecot"
    for whole in ("anna", "anna*", "*admin", "*"):
        assert split_name(whole, "*") == (whole, "")
    assert split_name("anna*admin", "") == ("anna*admin", "")
    both = Credentials("anna*admin", Secret(b"x"), "ben")
    assert split_claim(both, "*") is both


@pytest.mark.parametrize(
    ("typed", "trace", "shown"),
    [
        (f"hunter2*{ADMIN}", Trace(user=ADMIN), f"(7 characters)*{ADMIN}"),
        (f"hunter2*{ADMIN}", Trace(), f"(7 characters)*{ADMIN}"),
        ("hunter2*s3cret", Trace(), "(7 characters)*(6 characters)"),
        (f"{ANNA}*admin", Trace(user=ADMIN), f"{ANNA}*admin"),
        (f"{ANNA}*admin", Trace(), f"{ANNA}*(5 characters)"),
        ("Anna*admin", Trace(user=ADMIN, acting_for=ANNA), "Anna*admin"),
        ("ann*admin", Trace(user=ADMIN, acting_for=ANNA), "(3 characters)*admin"),
        ("anna", Trace(user=ANNA), "anna"),
        ("*admin", Trace(), "(6 characters)"),
    ],
    ids=["password", "unknown-delegate", "neither", "address", "bare-delegate", "user", "other", "one-name", "no-user"],
)
def test_either_part_of_a_name_is_shown_only_if_it_is_no_password(typed: str, trace: Trace, shown: str) -> None:
    assert shown_login(typed, "*", trace) == shown


def test_a_refused_login_keeps_no_password_typed_before_the_separator(site: Site) -> None:
    site.allow(ANNA)
    for name, password in ((f"hunter2*{ADMIN}", f"of {ADMIN}"), (f"hunter2*{ADMIN}", "wrong")):
        context = LoginContext("imap", ip_address("192.0.2.1"), None, "s1")
        task = Task(site.service.login(Credentials(name, Secret(password.encode())), context))
        while not task.done:
            site.timers.advance(0.5)
        with pytest.raises((AuthFailed, AuthorizationFailed)):
            task.outcome()
        assert site.service.shown_name(name, context) == f"(7 characters)*{ADMIN}"
        assert "hunter2" not in repr(context.trace)


def test_the_trace_of_a_refused_delegate_names_the_user(site: Site) -> None:
    context = LoginContext("imap", ip_address("192.0.2.1"), None, "s1")
    claim = Credentials(ADMIN, Secret(f"of {ADMIN}".encode()), "anna")
    with pytest.raises(AuthorizationFailed):
        run_now(site.service.login(claim, context))
    assert (context.trace.user, context.trace.acting_for) == (ADMIN, ANNA)


def test_a_delegate_logs_in_as_a_user_by_both_ways(site: Site) -> None:
    site.allow(ANNA)
    for user in (site.login(f"{ANNA}*{ADMIN}"), site.login(ADMIN, authorization=ANNA), site.login(f"anna*{ADMIN}")):
        assert (user.name, user.delegate) == (ANNA, ADMIN)
    own = site.login(ADMIN)
    assert (own.name, own.delegate) == (ADMIN, "")


def test_without_a_row_a_delegate_is_refused_after_the_password_was_right(site: Site) -> None:
    site.allow(BEN)
    for user in (ANNA, "nobody@example.test", "bad name", "*"):
        with pytest.raises(AuthorizationFailed):
            site.login(ADMIN, authorization=user)
    with pytest.raises(AuthFailed):
        site.login(f"{BEN}*{ADMIN}", "wrong")
    with pytest.raises(AuthFailed):
        site.login(f"{BEN}*{ADMIN}", f"of {BEN}")
    with pytest.raises(AuthorizationFailed):
        site.login(ANNA, f"of {ANNA}", authorization=ADMIN)


def test_a_domain_stands_for_its_users(site: Site) -> None:
    site.allow("example.test")
    assert site.login(ADMIN, authorization=ANNA).delegate == ADMIN
    assert site.login(ADMIN, authorization="carla@example.test").name == "carla@example.test", "of another back end"
    with pytest.raises(AuthorizationFailed):
        site.login(ADMIN, authorization="root@example.org")


def test_names_are_not_divided_by_default(tmp_path: Path) -> None:
    site = Site(tmp_path / "other.db", separator="")
    site.allow(ANNA)
    with pytest.raises(AuthFailed):
        site.login(f"{ANNA}*{ADMIN}")
    assert site.login(ADMIN, authorization=ANNA).delegate == ADMIN


def test_users_of_a_users_file_are_no_delegates(site: Site) -> None:
    assert not IDelegates.providedBy(site.file)
    with pytest.raises(AuthorizationFailed):
        site.login("root@example.org", "root", authorization=ANNA)


def test_a_disabled_delegate_or_user_is_refused(site: Site) -> None:
    site.allow(ANNA)
    changing.set_state(site.directory, ROOT, ANNA, State.DISABLED)
    with pytest.raises(AuthorizationFailed):
        site.login(ADMIN, authorization=ANNA)
    site.allow("carla@example.test")
    site.file.entries["carla@example.test"] = None
    with pytest.raises(AuthorizationFailed):
        site.login(ADMIN, authorization="carla@example.test")
    changing.set_state(site.directory, ROOT, ANNA, State.ACTIVE)
    changing.set_state(site.directory, ROOT, ADMIN, State.DISABLED)
    with pytest.raises(AuthFailed):
        site.login(ADMIN, authorization=ANNA)


def test_the_networks_are_the_delegates_and_the_quota_is_the_users(site: Site) -> None:
    site.allow(ANNA)
    changing.set_limits(site.directory, ROOT, ANNA, AccountLimits(networks=("203.0.113.0/24",), storage=1000))
    assert site.login(ADMIN, authorization=ANNA).limits.quota == Quota(1000)
    changing.set_limits(site.directory, ROOT, ADMIN, AccountLimits(networks=("203.0.113.0/24",)))
    with pytest.raises(AuthFailed):
        site.login(ADMIN, authorization=ANNA)


def test_a_domain_that_requires_certificates_requires_them_of_delegates(tmp_path: Path) -> None:
    site = Site(tmp_path / "other.db", demands="example.test")
    site.allow(ANNA)
    with pytest.raises(AuthorizationFailed):
        site.login(ADMIN, authorization=ANNA)
    claim = Credentials(ADMIN, Secret(f"of {ADMIN}".encode()), ANNA)
    assert site.claim(claim, certificate=ShownCertificate(ADMIN, "a certificate")).delegate == ADMIN


def test_a_certificate_of_another_domain_is_none_for_delegates(tmp_path: Path) -> None:
    """The host's certificates hold for example.test alone, and the user is of example.org."""
    site = Site(tmp_path / "other.db", demands="example.org")
    site.allow(ADMIN, account=BEN)
    claim = Credentials(BEN, Secret(f"of {BEN}".encode()), ADMIN)
    with pytest.raises(AuthorizationFailed):
        site.claim(claim, certificate=ShownCertificate(BEN, "a certificate"))


def test_a_certificate_alone_makes_no_delegate(site: Site) -> None:
    site.allow(ANNA, account=BEN)
    certificate = ShownCertificate(BEN, "a certificate")
    assert site.claim(Certified(BEN), certificate=certificate).name == BEN
    with pytest.raises(AuthorizationFailed):
        site.claim(Certified(BEN, ANNA), certificate=certificate)


def test_an_expired_delegate_is_refused_and_its_sessions_end(site: Site) -> None:
    site.allow(ANNA, NOW + 100)
    site.allow("example.test", NOW + 200, account=BEN)
    assert site.backend.changed_users() == frozenset()
    site.wall = NOW + 99
    assert site.login(ADMIN, authorization=ANNA).delegate == ADMIN
    assert site.backend.changed_users() == frozenset()
    site.wall = NOW + 100
    assert site.backend.changed_users() == as_others(ADMIN, ANNA)
    assert site.backend.changed_users() == frozenset()
    with pytest.raises(AuthorizationFailed):
        site.login(ADMIN, authorization=ANNA)
    site.wall = NOW + 5000
    assert site.backend.changed_users() == as_others(BEN, "example.test")


def as_others(delegate: str, over: str) -> set[SessionsOf]:
    """The sessions that a delegate has as an account, or as those of a domain."""
    return {SessionsOf(over, delegate=delegate), SessionsOf(f"@{over}", delegate=delegate)}


def test_clocks_that_jump_let_nobody_keep_a_session(site: Site) -> None:
    site.allow(ANNA, NOW + 100)
    assert site.backend.changed_users() == frozenset()
    site.wall = NOW - 10_000
    assert site.backend.changed_users() == frozenset()
    site.wall = NOW + 10_000
    assert site.backend.changed_users() == as_others(ADMIN, ANNA)
    site.wall = NOW
    assert site.backend.changed_users() == frozenset()
    site.wall = NOW + 100
    assert site.backend.changed_users() == as_others(ADMIN, ANNA), "a session may have begun meanwhile"


def test_a_removed_delegate_loses_its_sessions_alone(site: Site) -> None:
    site.allow(ANNA)
    site.allow(ANNA, NOW + 50)
    assert site.backend.changed_users() == frozenset(), "of others, and of a longer time, nothing ends"
    delegates.remove_delegate(site.directory, ROOT, ADMIN, ANNA)
    assert site.backend.changed_users() == as_others(ADMIN, ANNA)
    with pytest.raises(AuthorizationFailed):
        site.login(ADMIN, authorization=ANNA)


def test_a_later_user_of_a_name_is_somebody_else(site: Site) -> None:
    site.allow(ANNA)
    changing.rename(site.directory, ROOT, ANNA, "anne@example.test")
    assert [each.over for each in delegates.delegates(site.directory)] == ["anne@example.test"]
    changing.delete(site.directory, ROOT, "anne@example.test")
    changing.add_account(site.directory, ROOT, NewAccount("anne@example.test", Password("{PLAIN}x")))
    assert list(delegates.delegates(site.directory)) == []
    site.allow(BEN)
    changing.delete(site.directory, ROOT, ADMIN)
    assert list(delegates.delegates(site.directory)) == []


def test_a_directory_that_cannot_be_read_makes_it_unavailable(site: Site, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    backend = DirectoryBackend(tmp_path / "gone" / "directory.db", DirectHasher())
    with pytest.raises(AuthUnavailable):
        backend.may_act_for(ADMIN, ANNA, "example.test")


def test_the_keys_of_a_divided_name_are_the_delegates(site: Site) -> None:
    context = LoginContext("imap", None, None, "s1")
    one = run_now(site.service.scram_keys(f"{ANNA}*{ADMIN}", "SHA-256", context))
    assert one.salt == run_now(site.service.scram_keys(ADMIN, "SHA-256", context)).salt
