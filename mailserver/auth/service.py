"""The login service: which account a name means, one check of its password, and what failures cost.

The problems. A stranger must not learn from words or time whether a user exists, nor try passwords at the server's
speed; the user that mistypes must not be locked out by strangers. A name may come without its domain. Back ends
differ: some hold hashes, some only answer yes or no, some cannot list users.

The rules. The name is resolved first, without hashing. Then exactly one hash is checked: the user's, or for an
unknown user a dummy of the scheme and cost that most have. A failure is answered at a time counted from the attempt's
start, which hides what the checks took; how long grows for the pair of user and network. An identity to act for
(authzid) is looked at only after the password is right. A back end that cannot answer makes the login unavailable,
never wrong.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar, cast

import attrs

from mailserver.auth import schemes
from mailserver.auth.attacks import Pair
from mailserver.auth.interfaces import (
    Hasher,
    IAuthBackend,
    IHashedPasswords,
    IPasswordsOnly,
    LoginContext,
    User,
)
from mailserver.auth.passwd import BadName, normalise
from mailserver.auth.penalties import LONGEST_QUEUE, Penalties, network_of
from mailserver.errors import AuthFailed, AuthorizationFailed
from mailserver.sasl.mechanism import Credentials
from mailserver.types import Secret, client_of

LEAST_FAILURE: Final = 0.25
"""Seconds that every failure takes at least, whatever the configuration says: longer than most hashes."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


@attrs.frozen
class Names:
    """How names without a domain are completed, and which domains are ours. All in lower case."""

    domains: frozenset[str]
    default_domain: str
    """Empty: none."""
    domain_of: Callable[[str | None], str | None]
    """The mail domain that a server name (SNI) belongs to."""

    def candidates(self, name: str, server_name: str | None) -> list[str]:
        """What a normalised name may mean, in the order tried: as it is; then in the domain of the SNI name asked
        for, or in the default domain where that tells none.
        """
        if "@" in name:
            return [name]
        domain = self.domain_of(server_name) or self.default_domain
        return [name, f"{name}@{domain}"] if domain else [name]


class LoginService:
    """Implements `interfaces.Authenticator` over the configured back ends. All calls are made on one thread."""

    def __init__(
        self,
        backends: Sequence[Any],
        hasher: Hasher,
        names: Names,
        penalties: Penalties,
        *,
        sleep: Callable[[float], Awaitable[object]],
        clock: Callable[[], float],
    ) -> None:
        """`backends` provide IAuthBackend and are asked in this order; `clock` is monotonic seconds."""
        self._backends: list[IAuthBackend] = [IAuthBackend(each) for each in backends]
        self._listing = [each for each in self._backends if not IPasswordsOnly.providedBy(each)]
        self._passwords_only = [each for each in self._backends if IPasswordsOnly.providedBy(each)]
        self._hasher = hasher
        self._names = names
        self._penalties = penalties
        self._sleep = sleep
        self._clock = clock

    async def login(self, credentials: Credentials, context: LoginContext) -> User:
        """Verify. Raises: AuthFailed, AuthorizationFailed, AuthUnavailable."""
        started = self._clock()
        try:
            name = normalise(credentials.name)
        except BadName:
            # No account can have it: nothing is learnt from the missing hash check.
            await self._fail(("", network_of(context.peer)), credentials.password, started)
        candidates = self._names.candidates(name, context.server_name)
        # The completed name: the same account is slowed however its name is written.
        pair = (candidates[-1], network_of(context.peer))
        password = credentials.password
        turn = self._penalties.turn(pair)
        if turn > 0:
            await self._sleep(min(turn, LONGEST_QUEUE))
            if turn > LONGEST_QUEUE:
                raise AuthFailed
        user = await self._verified(candidates, password, client_of(context.peer)) if password.reveal() else None
        if user is None:
            await self._fail(pair, password, started)
        self._penalties.succeeded(pair)
        if not _is_self(credentials.authorization, {user.name, *candidates}):
            raise AuthorizationFailed
        return self._with_own_address(user)

    async def find(self, address: str) -> User | None:
        """The user that an address belongs to, for delivery; SNI plays no part. Raises: AuthUnavailable."""
        try:
            name = normalise(address)
        except BadName:
            return None
        candidates = self._names.candidates(name, None)
        local, _, domain = name.partition("@")
        if domain and domain == self._names.default_domain:
            # Users files with bare names are of one domain, this one.
            candidates.append(local)
        found = await self._find(candidates)
        return None if found is None else self._with_own_address(found[0])

    def is_local_domain(self, domain: str) -> bool:
        """Is mail for that domain (any case) kept here?"""
        return domain.lower() in self._names.domains

    async def _fail(self, pair: Pair, password: Secret, started: float) -> NoReturn:
        """Answer a failure, when its time has come. Raises: AuthFailed, always."""
        delay = max(self._penalties.failed(pair, password), LEAST_FAILURE)
        rest = started + delay - self._clock()
        if rest > 0:
            await self._sleep(rest)
        raise AuthFailed

    async def _find(self, candidates: Sequence[str]) -> tuple[User, IAuthBackend] | None:
        """The first candidate that a back end lists, and which one does. No password is checked."""
        for name in candidates:
            for backend in self._listing:
                user = await _answer(backend.find_user(name))
                if user is not None:
                    return user, backend
        return None

    async def _verified(self, candidates: Sequence[str], password: Secret, share: str) -> User | None:
        """The user whose password it is, or None, after exactly one check. `share` is the client."""
        found = await self._find(candidates)
        if found is None:
            if self._listing:
                await self._check_dummy(password, share)
                return None
            # Nobody can say who exists: the name as given, and the password decides.
            user = User(candidates[0])
            return user if await self._ask_passwords_only(user, password) else None
        user, backend = found
        if not IHashedPasswords.providedBy(backend):
            return user if await _answer(backend.verify_password(user, password)) else None
        stored = cast("IHashedPasswords", backend).password_hash(user)
        if stored == "" and self._passwords_only:
            return user if await self._ask_passwords_only(user, password) else None
        if not stored or not _usable(stored, user):
            await self._check_dummy(password, share)
            return None
        return user if await self._hasher.verify(stored, password, share) else None

    async def _ask_passwords_only(self, user: User, password: Secret) -> bool:
        for backend in self._passwords_only:
            if await _answer(backend.verify_password(user, password)):
                return True
        return False

    async def _check_dummy(self, password: Secret, share: str) -> None:
        """Take the time that the password of an existing user would."""
        for backend in self._listing:
            if IHashedPasswords.providedBy(backend):
                dummy = cast("IHashedPasswords", backend).typical_hash()
                if dummy:
                    await self._hasher.verify(dummy, password, share)
                    return

    def _with_own_address(self, user: User) -> User:
        """A user with a bare name has the address in the default domain."""
        if "@" in user.name or not self._names.default_domain:
            return user
        own = f"{user.name}@{self._names.default_domain}"
        return attrs.evolve(user, addresses=user.addresses | {own})


async def _answer(given: T | Awaitable[T]) -> T:
    """What a back end answers, now or later."""
    return await given if inspect.isawaitable(given) else given


def _usable(stored: str, user: User) -> bool:
    try:
        schemes.parse(stored)
    except schemes.BadHash as error:
        _log.error("user %s cannot log in: %s", user.name, error)
        return False
    return True


def _is_self(authorization: str, names: set[str]) -> bool:
    """Is the identity to act for (RFC 4616 2: authzid) the user's own?"""
    if not authorization:
        return True
    try:
        return normalise(authorization) in names
    except BadName:
        return False
