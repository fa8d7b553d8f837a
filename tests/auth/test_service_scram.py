"""The login service on what is no password: SCRAM proofs and certificates."""

from ipaddress import ip_address
from typing import Any

import pytest
from attrs import evolve
from zope.interface import implementer

from mailserver.auth.interfaces import (
    Abilities,
    IAuthBackend,
    IScramKeys,
    ITrustsCertificates,
    LoginContext,
    TypicalScram,
    User,
)
from mailserver.errors import AuthFailed, AuthorizationFailed, AuthUnavailable
from mailserver.sasl.mechanism import Certified, Claim, ScramProof
from mailserver.sasl.scram_keys import SALT, ScramKeys, make_keys
from mailserver.types import Secret
from tests.auth.test_service import Checker, Hashed, Site
from tests.auth.waiting import Task
from tests.fakes import run_now

KEYS = make_keys("SHA-256", b"secret", 5000)
CONTEXT = LoginContext("imap", ip_address("192.0.2.1"), None, "s1")


@implementer(IAuthBackend, IScramKeys, ITrustsCertificates)
class Keyed:
    """Users with SCRAM-SHA-256 keys, None for those without."""

    def __init__(self, users: dict[str, ScramKeys | None], *, everybody: bool = True) -> None:
        self.users = users
        self.everybody = everybody
        self.disabled: set[str] = set()
        self.down = False

    def find_user(self, name: str) -> User | None:
        return User(name) if name in self.users else None

    def verify_password(self, user: User, password: Secret) -> bool:
        raise AssertionError("there is no password")

    async def scram_keys(self, user: User, hash_name: str) -> ScramKeys | None:
        if self.down:
            raise AuthUnavailable
        return self.users.get(user.name) if hash_name == "SHA-256" and user.name not in self.disabled else None

    def typical_scram(self, hash_name: str) -> TypicalScram | None:
        if self.down:
            raise AuthUnavailable
        return TypicalScram(5000, 12, self.everybody) if hash_name == "SHA-256" else None

    async def may_log_in(self, user: User) -> bool:
        return user.name not in self.disabled


@pytest.fixture
def backend() -> Keyed:
    return Keyed({"anna@example.test": KEYS, "ben@example.test": None})


@pytest.fixture
def site(backend: Keyed) -> Site:
    return Site(backend)


def keys_of(site: Site, name: str, hash_name: str = "SHA-256") -> ScramKeys:
    return run_now(site.service.scram_keys(name, hash_name, CONTEXT))


def proof(name: str, keys: ScramKeys = KEYS, *, fits: bool = True, octets: bytes = b"p", acts: str = "") -> ScramProof:
    return ScramProof(name, "SHA-256", keys, fits, Secret(octets), acts)


def log_in(site: Site, claim: Claim) -> Task:
    return Task(site.service.login(claim, CONTEXT))


def reason(site: Site, claim: Claim) -> str:
    task = log_in(site, claim)
    while not task.done:
        site.timers.advance(0.1)
    with pytest.raises(AuthFailed) as caught:
        task.outcome()
    assert caught.value.sentence == AuthFailed.text, "the client reads the same words always"
    return caught.value.reason


def test_keys_of_a_user_however_the_name_is_written(site: Site) -> None:
    for name in ("anna@example.test", "Anna@Example.TEST", "anna"):
        assert keys_of(site, name) == KEYS


def test_made_up_keys_are_as_real_ones(site: Site) -> None:
    for name in ("nobody@example.test", "ben@example.test", "", "a b", "x" * 300):
        first, second = keys_of(site, name), keys_of(site, name)
        assert (first.salt, first.rounds) == (second.salt, second.rounds)
        assert first.rounds == 5000
        assert len(first.salt) == 12
        assert len(first.stored_key) == len(KEYS.stored_key)
        assert first.stored_key != second.stored_key, "a proof cannot be learnt"
    assert keys_of(site, "nobody@example.test").salt != keys_of(site, "other@example.test").salt
    assert keys_of(site, "nobody").salt == keys_of(site, "Nobody@Example.test").salt
    assert keys_of(site, "nobody", "SHA-1").salt != keys_of(site, "nobody", "SHA-256").salt


class Recording(Keyed):
    """Notes its calls."""

    def __init__(self, users: dict[str, ScramKeys | None]) -> None:
        super().__init__(users)
        self.calls: list[str] = []

    def find_user(self, name: str) -> User | None:
        self.calls.append("find_user")
        return super().find_user(name)

    async def scram_keys(self, user: User, hash_name: str) -> ScramKeys | None:
        self.calls.append("scram_keys")
        return await super().scram_keys(user, hash_name)

    def typical_scram(self, hash_name: str) -> TypicalScram | None:
        self.calls.append("typical_scram")
        return super().typical_scram(hash_name)


@pytest.mark.parametrize("others", [0, 1], ids=["one back end", "behind one without keys"])
def test_a_name_takes_the_same_calls_whether_it_has_keys_or_not(others: int) -> None:
    """The client has its answer at once, so the time of the calls would show who exists."""
    backend = Recording({"anna@example.test": KEYS, "ben@example.test": None, "carl@example.test": KEYS})
    backend.disabled.add("carl@example.test")
    site = Site(*[Hashed({"david@example.test": "{PLAIN}x"})] * others, backend, scram_for_some=True)
    found: dict[str, list[str]] = {}
    for name in ("anna", "ben", "carl", "nobody"):
        backend.calls.clear()
        keys_of(site, f"{name}@example.test")
        found[name] = list(backend.calls)
        backend.calls.clear()
        reason(site, proof(f"{name}@example.test", fits=False))
        found[name] += backend.calls
    assert found["anna"].count("scram_keys") == 2, "for the challenge, and for the proof"
    assert {name: calls for name, calls in found.items() if calls != found["anna"]} == {}


def test_no_keys_are_asked_for_where_no_back_end_has_them() -> None:
    site = Site(Hashed({"david@example.test": "{PLAIN}x"}))
    assert len(keys_of(site, "nobody@example.test").salt) == SALT


def test_a_proof_logs_in(site: Site) -> None:
    assert log_in(site, proof("anna")).outcome().name == "anna@example.test"
    assert log_in(site, proof("anna", acts="ANNA@example.test")).outcome()
    task = log_in(site, proof("anna", acts="ben@example.test"))
    with pytest.raises(AuthorizationFailed):
        task.outcome()


def test_what_is_no_proof(site: Site, backend: Keyed) -> None:
    assert reason(site, proof("anna", fits=False)) == "wrong password for anna@example.test"
    assert (
        reason(site, proof("nobody"))
        == "there is no user of the typed name (6 characters), with or without @example.test"
    )
    # Proved by keys that are not the user's: the exchange was begun for another, or they have changed.
    assert reason(site, proof("anna", evolve(KEYS, salt=b"other"))) == "wrong password for anna@example.test"
    assert "mailserver user password ben@example.test" in reason(site, proof("ben"))
    backend.disabled.add("anna@example.test")
    assert "disabled" in reason(site, proof("anna"))


def test_failed_proofs_cost_what_wrong_passwords_cost(site: Site) -> None:
    delays = []
    for number in range(5):
        start = site.timers.now
        reason(site, proof("anna", fits=False, octets=b"%d" % number))
        delays.append(round(site.timers.now - start))
    assert delays == [1, 2, 4, 8, 15]
    waited = log_in(site, proof("anna"))
    assert waited.done, "its turn has come"
    assert waited.outcome()
    start = site.timers.now
    reason(site, proof("nobody", fits=False))
    assert round(site.timers.now - start) == 1, "unknown users take as long"


def test_proofs_wait_for_their_turn(site: Site) -> None:
    """Who does not wait for the answers is no faster for it, even with the right proof."""
    for number in range(3):
        log_in(site, proof("anna", fits=False, octets=b"%d" % number))
    right = log_in(site, proof("anna"))
    site.timers.advance(1.0)
    assert not right.done


def test_a_back_end_that_cannot_answer(site: Site, backend: Keyed) -> None:
    backend.down = True
    with pytest.raises(AuthUnavailable):
        keys_of(site, "anna")
    with pytest.raises(AuthUnavailable):
        log_in(site, proof("anna")).outcome()
    assert site.service.abilities() == Abilities(frozenset(), certificates=True)


def test_scram_is_offered_where_everybody_has_keys(backend: Keyed) -> None:
    def offered(*backends: Any, some: bool = False) -> frozenset[str]:
        site = Site(*backends, scram_for_some=some)
        return site.service.abilities().scram_hashes

    assert offered(backend) == {"SHA-256"}
    assert offered(backend, Checker({})) == {"SHA-256"}
    assert offered(Checker({})) == set()
    assert offered(backend, Hashed({"x": "{PLAIN}x"})) == set(), "users of the second could not"
    assert offered(backend, Hashed({"x": "{PLAIN}x"}), some=True) == {"SHA-256"}
    down = Keyed({})
    down.down = True
    assert offered(backend, down, some=True) == set(), "whether its users could is not known"
    backend.everybody = False
    assert offered(backend) == set()
    assert offered(backend, some=True) == {"SHA-256"}


def test_certificates(site: Site, backend: Keyed) -> None:
    assert site.service.abilities().certificates
    assert not Site(Hashed({})).service.abilities().certificates
    assert log_in(site, Certified("Anna@example.test")).outcome().name == "anna@example.test"
    assert log_in(site, Certified("anna", "anna@example.test")).outcome()
    task = log_in(site, Certified("anna", "ben@example.test"))
    with pytest.raises(AuthorizationFailed):
        task.outcome()
    elsewhere = evolve(CONTEXT, host="mail.example.org")
    task = Task(site.service.login(Certified("anna@example.test"), elsewhere))
    while not task.done:
        site.timers.advance(0.1)
    with pytest.raises(AuthFailed) as caught:
        task.outcome()
    assert "another client_ca" in caught.value.reason, "the authority of one domain lets nobody into another"
    assert "not a user here" in reason(site, Certified("nobody@example.test"))
    assert "a space" in reason(site, Certified("a b"))
    backend.disabled.add("anna@example.test")
    assert "disabled" in reason(site, Certified("anna"))
    only_passwords = Site(Hashed({"anna@example.test": "{PLAIN}x"}))
    assert "accepts no logins by certificate" in reason(only_passwords, Certified("anna"))


def test_wrong_proofs_are_one_guess_of_each_name(site: Site) -> None:
    """A program with an old password makes another proof each time."""
    for octets in (b"1", b"2", b"3"):
        assert "wrong password" in reason(site, proof("anna@example.test", fits=False, octets=octets))
    assert len(site.guesses) == 3
    assert len({guess.digest for guess in site.guesses}) == 1
    assert all(guess.is_proof for guess in site.guesses), "proofs have a bound of their own"
    reason(site, proof("nobody@example.test", fits=False))
    assert site.guesses[-1].digest != site.guesses[0].digest
