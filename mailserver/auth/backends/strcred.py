"""Checkers of twisted.cred as back ends: `strcred:unix`, `strcred:file:/etc/passwords`, as in `twistd --auth`.

A checker decides whether a password is right, and cannot say whether a user exists. So another back end lists the users
(`file:` with entries of an empty password, `anna@example.test:`), or the checker is used alone: then logins work under the name
as typed, and LMTP finds no user. The checker gets the account's name unchanged.
"""

from __future__ import annotations

import inspect
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.cred.strcred import InvalidAuthArgumentString, InvalidAuthType, UnsupportedInterfaces, makeChecker
from twisted.logger import Logger
from zope.interface import implementer

from mailserver.auth.interfaces import Hasher, IAuthBackend, IPasswordsOnly, User
from mailserver.config.model import Problem
from mailserver.errors import AuthUnavailable
from mailserver.types import Secret

_log = Logger()


@implementer(IAuthBackend, IPasswordsOnly)
class CheckerBackend:
    """A checker for names and passwords."""

    def __init__(self, checker: Any) -> None:
        """`checker` provides ICredentialsChecker for IUsernamePassword. Raises: ValueError if it does not."""
        if IUsernamePassword not in ICredentialsChecker(checker).credentialInterfaces:
            raise ValueError("this checker takes no user names with passwords")
        self._checker = checker

    def find_user(self, name: str) -> None:
        """None: a checker does not know its users."""
        del name

    async def verify_password(self, user: User, password: Secret) -> bool:
        """Ask the checker. Raises: AuthUnavailable if it fails otherwise than by refusing."""
        credentials = UsernamePassword(user.name.encode("utf-8"), password.reveal())
        try:
            # A checker may answer with a value or a Deferred.
            avatar = self._checker.requestAvatarId(credentials)
            if inspect.isawaitable(avatar):
                avatar = await avatar
        except (UnauthorizedLogin, LoginFailed):
            return False
        except Exception as error:
            _log.failure("a twisted.cred checker failed")
            raise AuthUnavailable from error
        # checkers.ANONYMOUS is an empty tuple, not an account.
        return bool(avatar)


def make_backend(argument: str, hasher: Hasher) -> CheckerBackend:
    """The back end of `strcred:TYPE[:ARGUMENT]`. Raises: ValueError when there is no such checker."""
    del hasher
    return _make(argument)


def check_backend(argument: str) -> list[Problem]:
    """Check only that the back end can be made. Raises: ValueError."""
    _make(argument)
    return []


def _make(argument: str) -> CheckerBackend:
    try:
        return CheckerBackend(makeChecker(argument))
    except InvalidAuthType as error:
        raise ValueError(f"twisted.cred has no checker of the type {argument.partition(':')[0]!r}") from error
    except (InvalidAuthArgumentString, UnsupportedInterfaces) as error:
        raise ValueError(f"the argument of this twisted.cred checker is wrong: {error}") from error
