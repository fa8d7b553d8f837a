"""Checkers of twisted.cred as back ends."""

from pathlib import Path
from typing import Any

import pytest
from twisted.cred import checkers, error
from twisted.cred.credentials import IAnonymous, IUsernamePassword
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailserver.auth.asking import NEW
from mailserver.auth.backends.strcred import CheckerBackend, check_backend, make_backend
from mailserver.auth.interfaces import IAuthBackend, IPasswordsOnly, User
from mailserver.errors import AuthUnavailable
from mailserver.types import Secret


class NoHasher:
    async def verify(self, stored: str, password: Secret, share: str = "", rank: int = NEW) -> bool:
        raise AssertionError("a checker checks by itself")


@implementer(checkers.ICredentialsChecker)
class Answering:
    credentialInterfaces = (IUsernamePassword,)  # noqa: N815 - Twisted's name

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.seen: list[tuple[bytes, bytes]] = []

    def requestAvatarId(self, credentials: Any) -> Any:
        self.seen.append((credentials.username, credentials.password))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def verify(backend: CheckerBackend, password: bytes = b"secret", name: str = "zoë") -> Any:
    """The outcome of a check under a real Deferred."""
    outcome: list[Any] = []
    waiting = Deferred.fromCoroutine(backend.verify_password(User(name), Secret(password)))
    waiting.addBoth(outcome.append)
    assert outcome, "the checker's Deferred was not followed"
    if hasattr(outcome[0], "value"):
        raise outcome[0].value
    return outcome[0]


def test_a_checker_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("anna:secret\n")
    backend = make_backend(f"file:{tmp_path}/passwords", NoHasher())
    assert verifyObject(IAuthBackend, backend)
    assert IPasswordsOnly.providedBy(backend)
    assert backend.find_user("anna") is None
    for name, password, right in (("anna", b"secret", True), ("anna", b"wrong", False), ("ben", b"secret", False)):
        assert verify(backend, password, name) is right


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (b"avatar", True),
        ("avatar", True),
        (succeed(b"avatar"), True),
        (checkers.ANONYMOUS, False),
        (error.UnauthorizedLogin(), False),
        (fail(error.UnauthorizedLogin()), False),
        (fail(error.LoginFailed()), False),
    ],
)
def test_checkers_answer_in_several_ways(answer: Any, right: bool) -> None:
    checker = Answering(answer)
    assert verify(CheckerBackend(checker)) is right
    assert checker.seen == [("zoë".encode(), b"secret")]


def test_a_checker_that_fails_is_neither_right_nor_wrong() -> None:
    with pytest.raises(AuthUnavailable):
        verify(CheckerBackend(Answering(RuntimeError("directory down"))))


def test_a_checker_for_other_credentials() -> None:
    checker = Answering(b"x")
    checker.credentialInterfaces = (IAnonymous,)
    with pytest.raises(ValueError, match="user names with passwords"):
        CheckerBackend(checker)


@pytest.mark.parametrize("argument", ["", "no-such-type", "no-such-type:x", "memory:odd"])
def test_arguments_that_name_no_checker(argument: str) -> None:
    with pytest.raises(ValueError, match=r"twisted\.cred"):
        check_backend(argument)
