"""The login service: what is asked of whom, what is told, and when."""

from collections.abc import Awaitable
from ipaddress import ip_address
from typing import Any

import pytest
from zope.interface import implementer

from mailserver.auth.asking import NEW
from mailserver.auth.interfaces import (
    IAuthBackend,
    IHashedPasswords,
    IPasswordsOnly,
    LoginContext,
    ShownCertificate,
    User,
)
from mailserver.auth.limits import Limits
from mailserver.auth.restrictions import Names
from mailserver.auth.service import MIN_FAILURE_TIME, LoginService
from mailserver.auth.throttling.banned_clients import BannedClients, client_number
from mailserver.auth.throttling.guess_counts import Guess
from mailserver.auth.throttling.login_throttle import REFUSAL_DELAY, LoginThrottle
from mailserver.auth.throttling.penalties import Penalties
from mailserver.errors import AuthFailed, AuthorizationFailed, AuthUnavailable, MailError
from mailserver.explain.refs import read_ref
from mailserver.sasl.mechanism import Credentials
from mailserver.types import Secret
from tests.auth.waiting import Task, Timers, Waiting

DUMMY = "{PLAIN}the dummy of most"


@implementer(IAuthBackend, IHashedPasswords)
class Hashed:
    """Names with PLAIN entries; None for the disabled, "" for those listed alone."""

    def __init__(self, entries: dict[str, str | None], networks: dict[str, tuple[str, ...]] | None = None) -> None:
        self.entries = entries
        self.networks = networks or {}
        self.down = False

    def find_user(self, name: str) -> User | None:
        if self.down:
            raise AuthUnavailable
        return User(name, limits=Limits(self.networks.get(name))) if name in self.entries else None

    def verify_password(self, user: User, password: Secret) -> bool:
        raise AssertionError("the service checks the hash itself")

    def password_hash(self, user: User) -> str | None:
        return self.entries[user.name]

    def typical_hash(self) -> str | None:
        return DUMMY


@implementer(IAuthBackend)
class Directory:
    """Answers later, like a directory on the network."""

    def __init__(self, passwords: dict[str, bytes]) -> None:
        self.passwords = passwords
        self.waiting: list[tuple[Waiting, Any]] = []
        self.verified: list[str] = []

    def _later(self, value: Any) -> Awaitable[Any]:
        waiting = Waiting()
        self.waiting.append((waiting, value))
        return waiting

    def find_user(self, name: str) -> Awaitable[User | None]:
        return self._later(User(name) if name in self.passwords else None)

    def verify_password(self, user: User, password: Secret) -> Awaitable[bool]:
        self.verified.append(user.name)
        return self._later(self.passwords[user.name] == password.reveal())

    def settle(self) -> None:
        while self.waiting:
            waiting, value = self.waiting.pop(0)
            waiting.callback(value)


@implementer(IAuthBackend, IPasswordsOnly)
class Checker:
    def __init__(self, passwords: dict[str, bytes]) -> None:
        self.passwords = passwords
        self.asked: list[str] = []

    def find_user(self, name: str) -> None:
        raise AssertionError("it cannot know")

    def verify_password(self, user: User, password: Secret) -> bool:
        self.asked.append(user.name)
        return self.passwords.get(user.name) == password.reveal()


class CountingHasher:
    """Checks PLAIN entries and takes `cost` seconds."""

    def __init__(self, timers: Timers) -> None:
        self.checks: list[str] = []
        self.shares: list[str] = []
        self.timers = timers
        self.cost = 0.0
        self.full = False

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        if self.full:
            raise AuthUnavailable
        self.checks.append(stored)
        self.shares.append(share)
        if self.cost:
            await self.timers.sleep(self.cost)
        return stored == "{PLAIN}" + password.reveal().decode()


class Site:
    def __init__(
        self,
        *backends: Any,
        default_domain: str = "example.test",
        scram_for_some: bool = False,
        demands: str | None = None,
        names_user: bool = True,
        weak_schemes: bool = False,
        show_refs: bool = True,
        hasher: type[CountingHasher] = CountingHasher,
        timers: Timers | None = None,
        **services: Any,
    ) -> None:
        """`services`: "exposures", "renewals", "revocations"."""
        self.backends = backends
        self.timers = timers or Timers()
        self.hasher = hasher(self.timers)
        self.penalties = Penalties(self.timers.clock)
        self.banned = BannedClients(self.timers.clock)
        self.guesses: list[Guess] = []
        hosts = {"mail.example.test": "example.test", "mail.example.org": "example.org"}
        self.service = LoginService(
            backends,
            self.hasher,
            Names(
                frozenset({"example.test", "example.org"}),
                default_domain,
                lambda name: hosts.get(name or ""),
                lambda name, domain: hosts.get(name or "mail.example.test") == domain,
                lambda domain: domain == demands,
                lambda _domain: names_user,
            ),
            LoginThrottle(self.penalties, self.timers.sleep, self.timers.clock, Waiting, self.timers.call_later),
            scram_for_some=scram_for_some,
            weak_schemes=weak_schemes,
            show_refs=show_refs,
            banned=self.banned,
            on_guess=self.guesses.append,
            **services,
        )

    def login(
        self,
        name: str,
        password: str,
        *,
        authorization: str = "",
        host: str | None = None,
        peer: str | None = "192.0.2.1",
        certified: str | None = None,
    ) -> Task:
        """`certified`: the user that the client's certificate names."""
        shown = ShownCertificate(certified, f"the certificate of {certified}") if certified is not None else None
        context = LoginContext("imap", ip_address(peer) if peer else None, host, "s1", shown)
        return Task(self.service.login(Credentials(name, Secret(password.encode()), authorization), context))

    def failure(self, task: Task) -> tuple[str, str, float]:
        """How an attempt fails: error, sentence, seconds it took."""
        start = self.timers.now
        while not task.done:
            self.timers.advance(0.01)
        with pytest.raises(MailError) as caught:
            task.outcome()
        return type(caught.value).__name__, str(caught.value), round(self.timers.now - start, 1)


@pytest.fixture
def site() -> Site:
    return Site(
        Hashed(
            {
                "anna@example.test": "{PLAIN}secret",
                "anna@example.org": "{PLAIN}other",
                "david@example.org": "{PLAIN}dave",
                "bare": "{PLAIN}bare",
                "disabled@example.test": None,
                "broken@example.test": "{ROT13}frperg",
            }
        )
    )


def test_the_right_password_logs_in_at_once_with_one_check(site: Site) -> None:
    assert site.login("Anna@Example.Test", "secret").outcome().name == "anna@example.test"
    assert site.hasher.checks == ["{PLAIN}secret"]


def test_checks_are_asked_for_in_the_name_of_the_address(site: Site) -> None:
    site.login("anna@example.test", "secret", peer="192.0.2.77")
    site.login("nobody@example.test", "x", peer="2001:db8::1")
    # Not of the network: a flood must not take its neighbours' share.
    assert site.hasher.shares == ["192.0.2.77", "2001:db8::/64"]


def test_unknown_and_wrong_and_disabled_look_alike(site: Site) -> None:
    site.hasher.cost = 0.1
    outcomes = set()
    for name in ("anna@example.test", "nobody@example.test", "disabled@example.test", "broken@example.test"):
        site.hasher.checks.clear()
        outcomes.add((*site.failure(site.login(name, "wrong")), len(site.hasher.checks)))
    assert outcomes == {("AuthFailed", AuthFailed.text, 1.0, 1)}


def test_the_dummy_fits_nobody(site: Site) -> None:
    for name in ("nobody@example.test", "disabled@example.test"):
        assert site.failure(site.login(name, DUMMY.removeprefix("{PLAIN}")))[0] == "AuthFailed"
    assert site.hasher.checks == [DUMMY, DUMMY]


def test_the_time_of_a_failure_hides_what_the_check_took(site: Site) -> None:
    for cost, peer in ((0.0, "192.0.2.1"), (0.4, "198.51.100.1"), (0.9, "203.0.113.1")):
        site.hasher.cost = cost
        assert site.failure(site.login("anna@example.test", "wrong", peer=peer))[2] == 1.0


def test_failures_grow_slower_and_success_forgives(site: Site) -> None:
    delays = [site.failure(site.login("anna@example.test", f"wrong{n}"))[2] for n in range(5)]
    assert delays == [1, 2, 4, 8, 15]
    assert site.failure(site.login("anna@example.test", "x", peer="198.51.100.1"))[2] == 1, "other networks"
    assert site.login("anna@example.test", "secret").outcome()
    assert site.failure(site.login("anna@example.test", "wrong9"))[2] == 1


def test_clients_without_an_address_are_delayed_together(site: Site) -> None:
    """As those of the socket for other servers, where the request names no client; also where it is known for the user."""
    assert site.login("anna@example.test", "secret", peer=None).outcome()
    delays = [site.failure(site.login("anna@example.test", f"wrong{n}", peer=None))[2] for n in range(5)]
    assert delays == [1, 2, 4, 8, 15]
    guesses = [site.login("anna@example.test", f"guess{n}", peer=None) for n in range(5)]
    site.hasher.checks.clear()
    site.timers.advance(15.0)
    assert len(site.hasher.checks) == 1, "one after the other"
    assert site.failure(site.login("anna@example.test", "x", peer="198.51.100.1"))[2] == 1, "and nobody else"
    for each in guesses:
        each.cancel()


def test_a_name_with_and_without_its_domain_is_one_pair(site: Site) -> None:
    assert site.failure(site.login("anna", "wrong1"))[2] == 1
    assert site.failure(site.login("anna@example.test", "wrong2"))[2] == 2


def test_a_failure_takes_a_moment_even_when_delays_are_switched_off(site: Site) -> None:
    site.penalties.first_delay = site.penalties.max_delay = 0.0
    assert site.failure(site.login("anna@example.test", "wrong"))[2] >= MIN_FAILURE_TIME


@pytest.mark.parametrize(
    ("name", "password", "host", "user"),
    [
        ("bare", "bare", "mail.example.org", "bare"),  # as it is comes first
        ("anna", "other", "mail.example.org", "anna@example.org"),  # then the SNI name's domain
        ("anna", "secret", "mail.example.test", "anna@example.test"),
        ("anna", "secret", None, "anna@example.test"),  # without SNI the default
        ("anna", "secret", "unknown.example.net", "anna@example.test"),
        ("anna@example.test", "secret", "mail.example.org", "anna@example.test"),  # a full name needs no SNI
    ],
)
def test_names_without_a_domain(site: Site, name: str, password: str, host: str | None, user: str) -> None:
    assert site.login(name, password, host=host).outcome().name == user
    assert len(site.hasher.checks) == 1


def test_the_default_domain_stands_back_where_sni_tells_one(site: Site) -> None:
    # anna of the default domain has this password, but the client asked for the other domain.
    assert site.failure(site.login("anna", "secret", host="mail.example.org"))[0] == "AuthFailed"
    assert site.hasher.checks == ["{PLAIN}other"]


@pytest.mark.parametrize(
    "name", ["anna@example.test\0", "anna\n@example.test", "x" * 300, "\u202eanna", "../anna", "anna @example.test", ""]
)
def test_names_that_nobody_can_have_are_failures(site: Site, name: str) -> None:
    assert site.failure(site.login(name, "secret")) == ("AuthFailed", AuthFailed.text, 1.0)


def test_an_empty_password_is_never_right(site: Site) -> None:
    site.backends[0].entries["empty@example.test"] = "{PLAIN}"
    assert site.failure(site.login("empty@example.test", ""))[0] == "AuthFailed"


def test_an_entry_that_changes_while_the_hash_is_checked_lets_nobody_in() -> None:
    for changed in (None, "{PLAIN}another"):
        backend = Hashed({"anna@example.test": "{PLAIN}secret"})
        site = Site(backend)
        site.hasher.cost = 0.1
        task = site.login("anna@example.test", "secret")
        assert not task.done
        backend.entries["anna@example.test"] = changed
        assert site.failure(task)[0] == "AuthFailed"


def test_an_entry_of_a_weak_scheme_counts_where_the_configuration_says_so() -> None:
    md5 = "{MD5-CRYPT}$1$salt$wa8aFuC3rkp5bjoBIGTc41"
    site = Site(Hashed({"anna@example.test": md5}))
    assert site.failure(site.login("anna@example.test", "x"))[0] == "AuthFailed"
    assert site.hasher.checks == [DUMMY]
    site = Site(Hashed({"anna@example.test": md5}), weak_schemes=True)
    site.login("anna@example.test", "x")
    assert site.hasher.checks == [md5]


OWN = "anna@example.org"


@pytest.mark.parametrize(
    ("name", "host", "certified", "lets_in"),
    [
        (OWN, "mail.example.org", OWN, True),
        (OWN, "mail.example.org", None, False),
        (OWN, "mail.example.test", None, False),
        (OWN, "mail.example.test", OWN, False),
        (OWN, None, None, False),
        (OWN, "nobody.invalid", None, False),
        ("anna", "mail.example.org", OWN, True),
        ("anna@example.test", "mail.example.org", None, True),
        # Somebody else's, nobody's, one that is no name; and a name that is completed as a login's.
        (OWN, "mail.example.org", "ben@example.org", False),
        (OWN, "mail.example.org", "anna@example.test", False),
        (OWN, "mail.example.org", "", False),
        (OWN, "mail.example.org", "an na", False),
        (OWN, "mail.example.org", "Anna@Example.ORG", True),
        (OWN, "mail.example.org", "anna", True),
        # There is a user "ben": the certificate means that one.
        ("ben@example.org", "mail.example.org", "ben", False),
    ],
)
def test_a_domain_that_requires_certificates_lets_nobody_in_without_the_user_s_own(
    name: str, host: str | None, certified: str | None, lets_in: bool
) -> None:
    names = ("anna@example.test", OWN, "ben@example.org", "ben")
    passwords: dict[str, str | None] = dict.fromkeys(names, "{PLAIN}secret")
    site = Site(Hashed(passwords), demands="example.org")
    if lets_in:
        user = site.login(name, "secret", host=host, certified=certified).outcome()
        assert user.name.partition("@")[0] == "anna"
    else:
        right = site.failure(site.login(name, "secret", host=host, certified=certified))
        other = Site(Hashed(passwords), demands="example.org")
        wrong = other.failure(other.login(name, "wrong", host=host, certified=certified))
        assert right == (wrong[0], right[1], wrong[2]), "whose password it is does not show in the time either"
        assert right[0] == "AuthFailed"


def test_where_any_certificate_does_it_need_not_name_the_user() -> None:
    site = Site(Hashed({OWN: "{PLAIN}secret"}), demands="example.org", names_user=False)
    assert site.login(OWN, "secret", host="mail.example.org", certified="").outcome().name == OWN
    assert site.failure(site.login(OWN, "secret", host="mail.example.org"))[0] == "AuthFailed"


def test_a_bare_user_is_named_by_its_address_in_the_default_domain() -> None:
    site = Site(Hashed({"anna": "{PLAIN}secret"}), demands="example.test")
    for named in ("anna", "anna@example.test"):
        assert site.login("anna", "secret", host="mail.example.test", certified=named).outcome().name == "anna"
    assert site.failure(site.login("anna", "secret", host="mail.example.test", certified="anna@example.org"))


@pytest.mark.parametrize(
    ("networks", "peer", "lets_in"),
    [
        (("192.0.2.0/24",), "192.0.2.9", True),
        (("192.0.2.0/24",), "::ffff:192.0.2.9", True),
        (("192.0.2.0/24",), "198.51.100.9", False),
        (("192.0.2.77/24",), "192.0.2.9", True),
        (("198.51.100.9", "2001:db8::/32"), "198.51.100.9", True),
        (("198.51.100.9", "2001:db8::/32"), "2001:db8::1%eth0", True),
        (("198.51.100.9",), None, False),
        (("local",), None, True),
        (("local",), "127.0.0.1", False),
        (("nonsense", "192.0.2.1"), "192.0.2.1", True),
        (("nonsense",), "192.0.2.1", False),
        ((), "192.0.2.1", False),
    ],
)
def test_a_user_of_some_networks_logs_in_from_no_other(
    networks: tuple[str, ...], peer: str | None, lets_in: bool
) -> None:
    site = Site(Hashed({"anna@example.test": "{PLAIN}secret"}, {"anna@example.test": networks}))
    task = site.login("anna@example.test", "secret", peer=peer)
    if lets_in:
        assert task.outcome().name == "anna@example.test"
        return
    refused = site.failure(task)
    other = Site(Hashed({"anna@example.test": "{PLAIN}secret"}))
    assert refused == other.failure(other.login("anna@example.test", "wrong", peer=peer)), "as a wrong password"
    assert len(site.hasher.checks) == 1


@pytest.mark.parametrize(
    ("name", "password", "reason"),
    [
        ("nobody@example.test", "x", "there is no user nobody@example.test"),
        ("nobody", "x", "there is no user of the typed name (6 characters), with or without @example.test"),
        ("anna@example.test", "wrong", "wrong password for anna@example.test"),
        ("anna", "wrong", "wrong password for anna@example.test"),
        ("disabled@example.test", "x", "disabled@example.test is disabled"),
        ("broken@example.test", "x", "the stored password of broken@example.test cannot be used"),
        ("", "x", "1 to 255 octets"),
        ("anna@example.test", "", "an empty password"),
    ],
)
def test_the_log_says_why_and_the_client_does_not(site: Site, name: str, password: str, reason: str) -> None:
    task = site.login(name, password)
    while not task.done:
        site.timers.advance(0.01)
    with pytest.raises(AuthFailed) as caught:
        task.outcome()
    assert reason in caught.value.reason
    assert caught.value.sentence == AuthFailed.text


def test_the_log_names_the_network_and_the_certificate() -> None:
    site = Site(Hashed({OWN: "{PLAIN}secret"}, {OWN: ("198.51.100.0/24",)}), demands="example.org")
    for peer, reason in (
        ("192.0.2.1", "may not log in from 192.0.2.1: its allow_nets is 198.51.100.0/24"),
        (
            "198.51.100.1",
            "requires a client certificate with the user's own name: the client presented the certificate of b",
        ),
    ):
        task = site.login(OWN, "secret", peer=peer, host="mail.example.org", certified="ben@example.org")
        while not task.done:
            site.timers.advance(0.01)
        with pytest.raises(AuthFailed) as caught:
            task.outcome()
        assert reason in caught.value.reason


def test_acting_for_another_is_refused_only_after_the_right_password(site: Site) -> None:
    right = site.login("anna@example.test", "secret", authorization="david@example.org")
    with pytest.raises(AuthorizationFailed):
        right.outcome()
    wrong = site.login("anna@example.test", "wrong", authorization="david@example.org")
    assert site.failure(wrong)[0] == "AuthFailed"
    assert site.login("anna", "secret", authorization="Anna@example.test").outcome().name == "anna@example.test"
    assert site.login("anna", "secret", authorization="anna").outcome().name == "anna@example.test"
    with pytest.raises(AuthorizationFailed):
        site.login("anna", "secret", authorization="a\0b").outcome()


def test_a_back_end_that_is_down_or_a_full_queue_is_neither_right_nor_wrong(site: Site) -> None:
    site.hasher.full = True
    for name in ("anna@example.test", "nobody@example.test"):
        with pytest.raises(AuthUnavailable):
            site.login(name, "secret").outcome()
    site.hasher.full = False
    site.backends[0].down = True
    with pytest.raises(AuthUnavailable):
        site.login("anna@example.test", "secret").outcome()
    assert len(site.penalties) == 0, "not the user's failure"


def test_back_ends_may_answer_later_and_are_asked_in_order() -> None:
    first, second = Directory({"anna@example.test": b"one"}), Directory({"anna@example.test": b"two", "b@c": b"x"})
    site = Site(first, second)
    task = site.login("anna@example.test", "one")
    assert not task.done
    first.settle()
    assert task.outcome().name == "anna@example.test"
    assert second.verified == []
    task = site.login("b@c", "x")
    first.settle()
    second.settle()
    assert task.outcome().name == "b@c"


def test_the_first_back_end_that_knows_a_user_decides() -> None:
    first, second = Hashed({"anna@example.test": "{PLAIN}one"}), Hashed({"anna@example.test": "{PLAIN}two"})
    site = Site(first, second)
    assert site.failure(site.login("anna@example.test", "two"))[0] == "AuthFailed"
    assert site.hasher.checks == ["{PLAIN}one"]


def test_a_checker_alone_lets_in_under_the_name_as_given() -> None:
    checker = Checker({"anna": b"secret"})
    site = Site(checker)
    assert site.login("Anna", "secret", host="mail.example.org").outcome().name == "anna"
    assert checker.asked == ["anna"]
    assert site.failure(site.login("anna", "wrong"))[0] == "AuthFailed"
    assert Task(site.service.find("anna@example.test")).outcome() is None


def test_a_checker_beside_a_list_is_asked_for_listed_users_without_password() -> None:
    checker = Checker({"anna@example.test": b"secret", "ghost@example.test": b"boo", "dis@example.test": b"d"})
    listed = Hashed({"anna@example.test": "", "dis@example.test": None, "own@example.test": "{PLAIN}own"})
    site = Site(checker, listed)
    assert site.login("anna@example.test", "secret").outcome().name == "anna@example.test"
    assert site.login("own@example.test", "own").outcome().name == "own@example.test"
    assert checker.asked == ["anna@example.test"]
    for name, password in (("ghost@example.test", "boo"), ("dis@example.test", "d")):
        assert site.failure(site.login(name, password))[0] == "AuthFailed"
    assert checker.asked == ["anna@example.test"]


def test_an_entry_without_password_and_no_checker_is_a_failure() -> None:
    site = Site(Hashed({"anna@example.test": ""}))
    for password in ("", "x"):
        assert site.failure(site.login("anna@example.test", password))[0] == "AuthFailed"


@pytest.mark.parametrize(
    ("address", "user"),
    [
        ("Anna@Example.TEST", "anna@example.test"),
        ("anna", "anna@example.test"),  # the default domain; SNI has no part in it
        ("anna@example.org", "anna@example.org"),
        ("bare@example.test", "bare"),  # a bare name lives in the default domain
        ("bare@example.org", None),
        ("nobody@example.test", None),
        ("disabled@example.test", "disabled@example.test"),  # mail is still taken
        ("a\0b@example.test", None),
        ("", None),
    ],
)
def test_finding_for_delivery(site: Site, address: str, user: str | None) -> None:
    found = Task(site.service.find(address)).outcome()
    assert (found and found.name) == user
    assert site.hasher.checks == []


def test_a_bare_name_has_the_address_in_the_default_domain(site: Site) -> None:
    assert site.login("bare", "bare").outcome().addresses == {"bare@example.test"}


def test_a_look_up_that_fails_is_told(site: Site) -> None:
    site.backends[0].down = True
    with pytest.raises(AuthUnavailable):
        Task(site.service.find("anna@example.test")).outcome()


def test_local_domains(site: Site) -> None:
    assert site.service.is_local_domain("EXAMPLE.test")
    assert not site.service.is_local_domain("example.net")


def test_a_client_that_leaves_during_the_delay(site: Site) -> None:
    task = site.login("anna@example.test", "wrong")
    task.cancel()
    assert site.failure(site.login("anna@example.test", "wrong2"))[2] == 2.0


def test_who_hangs_up_checks_no_faster(site: Site) -> None:
    site.failure(site.login("anna@example.test", "wrong"))
    for number in range(20):  # none waits for its answer
        site.login("anna@example.test", f"guess{number}")
    assert len(site.hasher.checks) == 2, "one answered, and one whose turn it was"
    site.timers.advance(3.0)
    assert len(site.hasher.checks) <= 5
    assert site.login("anna@example.test", "secret", peer="198.51.100.1").outcome(), "other networks"


@pytest.mark.parametrize("shown", [True, False])
def test_clients_see_the_id_of_a_refusal_where_the_configuration_says_so(shown: bool) -> None:
    site = Site(Hashed({}), show_refs=shown)
    context, error = LoginContext("imap", None, None, "s1"), AuthFailed("because")
    ref = site.service.refused(error, "anna", "PLAIN", context)
    assert read_ref(ref) == ref
    assert error.sentence == AuthFailed.text + (f" (ref {ref})" if shown else "")
    assert error.reason == "because"


def test_a_password_in_the_field_of_the_name_is_in_no_reason() -> None:
    for backends in ([Hashed({})], [Checker({})]):
        site = Site(*backends)
        task = site.login("hunter2", "anna")
        while not task.done:
            site.timers.advance(0.01)
        with pytest.raises(AuthFailed) as caught:
            task.outcome()
        assert "(7 characters)" in caught.value.reason
        assert "hunter2" not in caught.value.reason


def test_a_wrong_password_is_a_guess_at_once_with_the_id_of_its_refusal(site: Site) -> None:
    site.login("Anna@Example.Test", "wrong", peer="::ffff:192.0.2.9")
    [guess] = site.guesses
    assert (guess.peer, guess.name, guess.shown, guess.protocol) == (
        "192.0.2.9",
        "anna@example.test",
        "Anna@Example.Test",
        "imap",
    )
    assert read_ref(guess.id) == guess.id
    context, error = LoginContext("imap", ip_address("192.0.2.1"), None, "s1"), AuthFailed("x")
    Task(site.service.login(Credentials("anna@example.org", Secret(b"wrong")), context))
    assert site.service.refused(error, "anna", "PLAIN", context) == site.guesses[-1].id
    assert site.guesses[-1].digest == guess.digest, "the same password"
    site.login("david@example.org", "another")
    assert site.guesses[-1].digest != guess.digest


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("bare", "bare"),
        ("hunter2", "(7 characters)"),
        ("nobody@example.test", "nobody@example.test"),
        ("two words", "(9 characters)"),
        ("", ""),
    ],
)
def test_a_guess_shows_names_of_users_and_addresses_alone(name: str, shown: str) -> None:
    site = Site(Hashed({"bare": "{PLAIN}bare"}), default_domain="")
    site.login(name, "wrong")
    assert [guess.shown for guess in site.guesses] == [shown]


def test_a_right_password_is_no_guess_whether_it_lets_in_or_not() -> None:
    site = Site(Hashed({"anna@example.test": "{PLAIN}secret"}, {"anna@example.test": ("198.51.100.0/24",)}))
    assert site.failure(site.login("anna@example.test", "secret"))[0] == "AuthFailed"
    assert site.login("anna@example.test", "secret", peer="198.51.100.7").outcome()
    with pytest.raises(AuthorizationFailed):
        site.login("anna@example.test", "secret", peer="198.51.100.7", authorization="ben").outcome()
    assert site.guesses == []


def test_a_banned_client_is_not_checked_and_not_called_wrong(site: Site) -> None:
    site.banned.apply([(client_number(ip_address("192.0.2.1")), 60.0)])
    failure = site.failure(site.login("anna@example.test", "secret"))
    assert (failure[0], failure[2]) == ("TooManyLogins", REFUSAL_DELAY)
    assert site.hasher.checks == []
    assert site.guesses == []
    assert site.login("anna@example.test", "secret", peer="192.0.2.2").outcome()
    assert site.login("anna@example.test", "secret", peer=None).outcome()
    site.timers.advance(60)
    assert site.login("anna@example.test", "secret").outcome()


class AnyEntryOfTheWord(CountingHasher):
    """Entries of one password differ, as those with a salt do."""

    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        await super().verify(stored, password, share, rank)
        return stored.startswith("{PLAIN}" + password.reveal().decode())


@pytest.mark.parametrize(
    ("then", "lets_in"),
    [("{PLAIN}secret 2", True), ("{PLAIN}other", False), (None, False)],
    ids=["stays", "other", "disabled"],
)
def test_an_entry_that_changes_again_while_the_next_one_is_checked(then: str | None, lets_in: bool) -> None:
    backend = Hashed({"anna@example.test": "{PLAIN}secret"})
    site = Site(backend, hasher=AnyEntryOfTheWord)
    site.hasher.cost = 2.0
    context = LoginContext("imap", ip_address("192.0.2.1"), None, "s1")
    task = Task(site.service.login(Credentials("anna@example.test", Secret(b"secret")), context))
    site.timers.advance(1)
    backend.entries["anna@example.test"] = "{PLAIN}secret 2"
    site.timers.advance(2)
    assert len(site.hasher.checks) == 2
    backend.entries["anna@example.test"] = then
    while not task.done:
        site.timers.advance(0.5)
    if lets_in:
        assert task.outcome().name == "anna@example.test"
    else:
        with pytest.raises(AuthFailed):
            task.outcome()
