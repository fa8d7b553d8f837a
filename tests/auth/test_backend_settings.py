"""Settings of a back end in the configuration: the domains it is asked for, and for how long its answers are kept."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from zope.interface import implementer

from mailserver.auth.backends.backends import Backends
from mailserver.auth.backends.guard import Scheduler
from mailserver.auth.backends.guarded_backend import GuardedBackend
from mailserver.auth.interfaces import DomainEntry, Entry, IAddresses, IAuthBackend, LoginContext, User
from mailserver.auth.restrictions import Names
from mailserver.auth.service import LoginService
from mailserver.auth.throttling.login_throttle import LoginThrottle
from mailserver.auth.throttling.penalties import Penalties
from mailserver.auth.throttling.verified_passwords import KEEP_TIME
from mailserver.config.model import BackendUse
from mailserver.sasl.mechanism import Credentials
from mailserver.types import Secret
from tests.auth.test_service import Checker, CountingHasher, Hashed
from tests.auth.waiting import Task, Timers, Waiting
from tests.fakes import run_now

ANNA = "anna@example.test"


@implementer(IAuthBackend, IAddresses)
class Remote:
    """Counts what it is asked."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.password = b"right"
        self.asked: list[str] = []
        self.verified = 0

    def find_user(self, name: str) -> User | None:
        self.asked.append(name)
        return User(name) if name in self.names else None

    def verify_password(self, user: User, password: Secret) -> bool:
        self.verified += 1
        return password.reveal() == self.password

    def find_address(self, name: str) -> Entry | None:
        self.asked.append(name)
        return None

    def find_domain(self, name: str) -> DomainEntry | None:
        self.asked.append(name)
        return None


class Site:
    def __init__(self, *pairs: tuple[Any, BackendUse], default_domain: str = "example.test") -> None:
        self.timers = Timers()
        throttle = LoginThrottle(
            Penalties(self.timers.clock), self.timers.sleep, self.timers.clock, Waiting, self.timers.call_later
        )
        names = Names(frozenset({"example.test", "example.org"}), default_domain, lambda _host: None)
        backends, uses = zip(*pairs, strict=True)
        self.service = LoginService(backends, CountingHasher(self.timers), names, throttle, uses=uses)

    def logs_in(self, name: str, password: bytes = b"right") -> bool:
        context = LoginContext("imap", ip_address("192.0.2.1"), None, "s1")
        task = Task(self.service.login(Credentials(name, Secret(password)), context))
        while not task.done:
            self.timers.advance(0.5)
        try:
            return isinstance(task.outcome(), User)
        except Exception:
            return False


def in_domains(*domains: str, cache: float = 0.0) -> BackendUse:
    return BackendUse("remote:x", domains, cache=cache)


def test_a_back_end_is_asked_for_names_of_its_domains_alone() -> None:
    remote, users = Remote(ANNA, "ben@example.org"), Hashed({"ben@example.org": "{PLAIN}other"})
    site = Site((remote, in_domains("example.test")), (users, BackendUse("file:/users")))
    assert site.logs_in("ben@example.org", b"other"), "though the first knows him, too"
    assert not site.logs_in("carla@example.org")
    assert remote.asked == []
    assert site.logs_in(ANNA)
    assert remote.asked == [ANNA]


def test_a_name_without_a_domain_is_one_of_the_domain_that_completes_it() -> None:
    remote = Remote(ANNA)
    site = Site((remote, in_domains("example.test")))
    assert site.logs_in("anna")
    assert remote.asked == ["anna", ANNA]
    other = Remote(ANNA, "anna")
    assert not Site((other, in_domains("example.org"))).logs_in("anna")
    assert not Site((other, in_domains("example.test")), default_domain="").logs_in("anna")
    assert other.asked == []


def test_its_addresses_and_domains_are_those_of_its_domains_too() -> None:
    remote = Remote()
    site = Site((remote, in_domains("example.test")))
    assert not run_now(site.service.serves_domain("example.net"))
    assert not run_now(site.service.may_send_as(User(ANNA), "info@example.org"))
    assert remote.asked == []
    assert not run_now(site.service.may_send_as(User(ANNA), "info@example.test"))
    assert set(remote.asked) == {"example.test", "info@example.test", "info"}
    assert run_now(site.service.find(ANNA)) is None


def test_a_checker_of_passwords_alone_is_asked_for_its_domains() -> None:
    users = Hashed({ANNA: "", "ben@example.org": ""})
    checker = Checker({ANNA: b"right", "ben@example.org": b"right"})
    site = Site((users, BackendUse("file:/users")), (checker, in_domains("example.test")))
    assert site.logs_in(ANNA)
    assert not site.logs_in("ben@example.org")
    assert checker.asked == [ANNA]


def test_without_a_cache_the_back_end_decides_each_time() -> None:
    remote = Remote(ANNA)
    site = Site((remote, in_domains()))
    for _ in range(3):
        assert site.logs_in(ANNA)
    assert remote.verified == 3
    remote.password = b"new"
    assert not site.logs_in(ANNA)


def test_a_cache_passes_the_right_password_for_its_seconds_since_the_back_end_said_so() -> None:
    remote = Remote(ANNA)
    site = Site((remote, in_domains(cache=60.0)))
    assert site.logs_in(ANNA)
    for _ in range(5):
        site.timers.advance(11.0)
        assert site.logs_in(ANNA), "its use does not make it last longer"
    assert remote.verified == 1
    assert not site.logs_in(ANNA, b"wrong")
    assert remote.verified == 2
    site.timers.advance(5.0)
    remote.password = b"new"
    assert not site.logs_in(ANNA), "it was changed there, and the time is over"
    assert remote.verified == 4, "ahead of its turn, and in it"


def test_a_user_who_is_gone_is_refused_all_the_same() -> None:
    remote = Remote(ANNA)
    site = Site((remote, in_domains(cache=KEEP_TIME)))
    assert site.logs_in(ANNA)
    remote.names.clear()
    assert not site.logs_in(ANNA)


def test_a_password_that_is_wrong_now_is_no_longer_kept() -> None:
    remote = Remote(ANNA)
    site = Site((remote, in_domains(cache=60.0)))
    assert site.logs_in(ANNA)
    site.timers.advance(61.0)
    remote.password = b"new"
    assert not site.logs_in(ANNA)
    remote.password = b"right"
    site.timers.advance(61.0)
    assert site.logs_in(ANNA)
    assert remote.verified == 4, "the wrong one ahead of its turn and in it"


def test_of_two_checkers_the_one_that_keeps_nothing_decides() -> None:
    users = Hashed({ANNA: ""})
    first, second = Checker({}), Checker({ANNA: b"right"})
    site = Site((users, BackendUse("file:/u")), (first, in_domains(cache=60.0)), (second, in_domains()))
    assert site.logs_in(ANNA)
    assert site.logs_in(ANNA)
    assert len(second.asked) == 2


def test_other_domains_or_caches_are_no_other_object_and_other_times_are() -> None:
    timers = Timers()
    scheduler = Scheduler(timers.clock, timers.call_later, Waiting, Task, lambda _most: None)  # type: ignore[arg-type,return-value]
    backends = Backends(CountingHasher(timers), scheduler)
    plain = BackendUse("memory:anna=secret")
    uses = [plain, plain._replace(domains=("example.test",), cache=60.0), plain._replace(time=2.0)]
    backends.add(uses)
    one, same, other = backends.chosen(uses)
    assert isinstance(one, GuardedBackend)
    assert one is same
    assert one is not other
