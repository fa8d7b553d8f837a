"""The contract tests find what they are for: each back end here breaks one promise."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from zope.interface import implementer

from mailserver.auth.backends.directory import DirectoryBackend
from mailserver.auth.backends.file import FileBackend
from mailserver.auth.backends.memory import MemoryBackend
from mailserver.auth.conformance import DirectHasher, Finding, examine
from mailserver.auth.conformance_trial import NoAnswer
from mailserver.auth.interfaces import (
    DomainEntry,
    Entry,
    FoundAppPassword,
    IAddresses,
    IAppPasswords,
    IAuthBackend,
    IHashedPasswords,
    IPasswordsOnly,
    IReloadable,
    User,
)
from mailserver.directory import changing
from mailserver.directory.changing import Author
from mailserver.directory.model import NewAccount, Password
from mailserver.directory.sqlite import SQLiteDatabase
from mailserver.errors import AuthUnavailable
from mailserver.types import Secret
from tests.fakes import run_now

SSHA = "{SSHA}EgaM5yyKjPk4uAAGtrGQZI/vKjA7jOyU"  # doveadm pw -s SSHA -p secret


async def at_once(call: Callable[[], Any]) -> Any:
    given = call()
    return await given if inspect.isawaitable(given) else given


def findings(backend: Any, name: str = "anna@example.test", password: bytes = b"secret") -> list[Finding]:
    async def collect() -> list[Finding]:
        return [finding async for finding in examine(backend, name, Secret(password), at_once)]

    return run_now(collect())


def faults(backend: Any, name: str = "anna@example.test", password: bytes = b"secret") -> list[Finding]:
    found = findings(backend, name, password)
    assert len(found) == 22
    return [finding for finding in found if finding.fault]


def test_what_a_back_end_has_not_is_not_offered(tmp_path: Path) -> None:
    offered = [finding.offered for finding in findings(MemoryBackend({"anna@example.test": "secret"}))]
    assert offered == [True] * 6 + [False] * 6 + [True] * 3 + [False] + [True] * 4 + [False] * 2
    (tmp_path / "users").write_text(f"anna@example.test:{SSHA}\n")
    offered = [finding.offered for finding in findings(FileBackend(tmp_path / "users", DirectHasher()))]
    assert offered == [True] * 10 + [False] * 2 + [True] * 2 + [False] * 2 + [True] * 4 + [False] * 2


def test_a_call_without_an_answer_ends_the_trial() -> None:
    async def never(call: Callable[[], Any]) -> Any:
        raise NoAnswer

    async def collect() -> list[Finding]:
        return [finding async for finding in examine(Good(), "anna@example.test", Secret(b"secret"), never)]

    first, second = run_now(collect())
    assert not first.fault
    assert "did not answer within 5 s" in second.fault


@implementer(IAuthBackend, IHashedPasswords, IReloadable)
class Good:
    stored = SSHA

    def find_user(self, name: str) -> User | None:
        return User(name) if name == "anna@example.test" else None

    async def verify_password(self, user: User, password: Secret) -> bool:
        return user.name == "anna@example.test" and password.reveal() == b"secret"

    def password_hash(self, user: User) -> str | None:
        return self.stored

    def typical_hash(self) -> str | None:
        return "{SSHA}" + "A" * 32

    def reload(self) -> None: ...


def test_ours_keep_it(tmp_path: Path) -> None:
    (tmp_path / "users").write_text(f"anna@example.test:{SSHA}\n")
    assert faults(Good()) == []
    assert faults(FileBackend(tmp_path / "users", DirectHasher())) == []
    assert faults(MemoryBackend({"anna@example.test": "secret"})) == []


def test_a_back_end_of_passwords_only_lists_nobody() -> None:
    @implementer(IPasswordsOnly)
    class Checker(Good):
        def find_user(self, name: str) -> None:
            return None

    assert faults(Checker()) == []

    @implementer(IPasswordsOnly)
    class Listing(Good): ...

    assert len(faults(Listing())) == 2


def _other_name(self: Any, name: str) -> User | None:
    return User("someone") if name == "anna@example.test" else None


def _finds_all(self: Any, name: str) -> User:
    return User(name)


def _prefix(self: Any, name: str) -> User | None:
    return User(name) if name.startswith("anna@example.test") else None


def _down(self: Any, name: str) -> User | None:
    raise AuthUnavailable


async def _truthy(self: Any, user: User, password: Secret) -> Any:
    return 1 if password.reveal() == b"secret" and user.name == "anna@example.test" else 0


async def _always(self: Any, user: User, password: Secret) -> bool:
    return True


async def _empty(self: Any, user: User, password: Secret) -> bool:
    return user.name == "anna@example.test" and password.reveal() in {b"secret", b""}


async def _until_nul(self: Any, user: User, password: Secret) -> bool:
    return user.name == "anna@example.test" and password.reveal().split(b"\0")[0] == b"secret"


async def _decodes(self: Any, user: User, password: Secret) -> bool:
    return user.name == "anna@example.test" and password.reveal().decode() == "secret"


async def _any_user(self: Any, user: User, password: Secret) -> bool:
    return password.reveal() == b"secret"


@pytest.mark.parametrize(
    ("method", "broken", "words"),
    [
        ("find_user", _other_name, "not the one asked for"),
        ("find_user", _finds_all, "a user is found for"),
        ("find_user", _prefix, "a user is found for"),
        ("find_user", _down, "cannot answer now"),
        ("verify_password", _truthy, "not True"),
        ("verify_password", _always, "not False"),
        ("verify_password", _empty, "0 octets"),
        ("verify_password", _until_nul, "not False"),
        ("verify_password", _decodes, "UnicodeDecodeError"),
        ("verify_password", _any_user, "user that does not exist any more"),
        ("password_hash", lambda self, user: None, "no stored password"),
        ("password_hash", lambda self, user: "{ROT13}x", "UnknownScheme"),
        ("password_hash", lambda self, user: "{PLAIN}other", "does not match"),
        ("typical_hash", lambda self: SSHA, "dummy matches"),
        ("typical_hash", lambda self: "x", "UnknownScheme"),
        ("reload", lambda self, extra: None, "IReloadable"),
        ("reload", lambda self: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_each_broken_promise_is_told(method: str, broken: Any, words: str) -> None:
    backend = type("Broken", (Good,), {method: broken})()
    found = faults(backend)
    assert found
    assert any(words in finding.fault for finding in found), found
    assert "secret" not in "".join(finding.fault for finding in found)


@implementer(IAddresses, IAppPasswords)
class WithAddresses(Good):
    """Has an alias; `entry` is what it answers for it, `found` for app passwords."""

    entry: Any = Entry(("anna@example.test",))
    everywhere: Any = None
    domain: Any = None
    found: Any = None

    def find_address(self, name: str) -> Any:
        return self.entry if name == "anna@example.test" else self.everywhere

    def find_domain(self, name: str) -> Any:
        return self.domain

    def find_app_password(self, probe: str) -> Any:
        return self.found

    def app_password(self, credential: str, user: User) -> Any:
        return self.found if not credential else None


def test_addresses_and_app_passwords_that_keep_the_contract() -> None:
    assert faults(WithAddresses()) == []


@pytest.mark.parametrize(
    ("attribute", "value", "fault"),
    [
        ("entry", Entry(("Anna@example.test",)), "the answer for the user's own name"),
        ("entry", ("anna@example.test",), "the answer for the user's own name"),
        ("everywhere", Entry(("anna@example.test",)), "an address is found for"),
        ("domain", DomainEntry(), "a domain is found that nobody has"),
        ("found", FoundAppPassword(User("anna@example.test"), "x"), "an app password is found that nobody has"),
    ],
)
def test_faults_of_addresses_and_app_passwords(attribute: str, value: Any, fault: str) -> None:
    backend = WithAddresses()
    setattr(backend, attribute, value)
    [found] = faults(backend)
    assert found.fault.startswith(fault)


def test_a_directory_keeps_all_of_it(tmp_path: Path) -> None:
    database = SQLiteDatabase.create(tmp_path / "directory.db")
    changing.add_account(database, Author("tests", 1), NewAccount("anna@example.test", Password(SSHA)))
    found = findings(DirectoryBackend(tmp_path / "directory.db", DirectHasher()))
    assert [(each.promise, each.fault) for each in found if each.fault] == []
    missing = [each.promise for each in found if not each.offered]
    # The service checks its hashes, and the settings are those of a guard.
    assert [any(word in each for word in ("passwords at once", "`cache`", "`domains`")) for each in missing] == [
        True
    ] * 3
