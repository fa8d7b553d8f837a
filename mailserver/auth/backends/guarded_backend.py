"""A back end behind its guard: each method of its interfaces, as a call that the guard may refuse or lose."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, cast

from zope.interface import alsoProvides, providedBy

from mailserver.auth.asking import ANYBODY, Asking
from mailserver.auth.backends.guard import Guard
from mailserver.auth.changed_users import ChangedUsers
from mailserver.auth.credential_store import CredentialStore
from mailserver.auth.interfaces import (
    DomainEntry,
    Entry,
    FoundAppPassword,
    IBlocking,
    IReadsAhead,
    IReloadable,
    TypicalScram,
    User,
)
from mailserver.sasl.scram_keys import ScramKeys
from mailserver.types import Secret

_log = logging.getLogger(__name__)


class GuardedBackend:
    """A back end behind its guard. It provides the back end's interfaces."""

    def __init__(self, backend: Any, guard: Guard, asking: Asking = ANYBODY) -> None:
        self._backend = backend
        self._guard = guard
        self._asking = asking
        alsoProvides(self, *providedBy(backend))

    @classmethod
    def of(cls, backend: Any, guard: Guard) -> GuardedBackend:
        """A new back end with its guard, which calls it in threads if it blocks."""
        if IBlocking.providedBy(backend):
            guard.use_threads()
        return cls(backend, guard)

    @property
    def name(self) -> str:
        """The back end's name, without its argument."""
        return self._guard.name

    def with_asking(self, asking: Asking) -> GuardedBackend:
        """The same back end and guard, with the class and share of a login attempt."""
        return GuardedBackend(self._backend, self._guard, asking)

    def changed_users(self) -> ChangedUsers | None:
        """See IChanges. A back end that fails there has no changed users."""
        try:
            changed: ChangedUsers | None = self._backend.changed_users()
        except Exception:
            _log.exception("a back end raised an exception in changed_users()")
            return frozenset()
        return changed

    @property
    def unguarded(self) -> object:
        """The back end itself."""
        return self._backend

    def position(self) -> object:
        """See IRecordsChanges. Raises: AuthUnavailable."""
        return self._guard.ask_now(self._backend.position)

    def changed_since(self, position: object) -> ChangedUsers | None:
        """See IRecordsChanges. Raises: AuthUnavailable."""
        return cast("ChangedUsers | None", self._guard.ask_now(lambda: self._backend.changed_since(position)))

    async def find_user(self, name: str) -> User | None:
        """See IAuthBackend."""
        return cast("User | None", await self._ask(lambda: self._backend.find_user(name)))

    async def verify_password(self, user: User, password: Secret) -> bool:
        """See IAuthBackend."""
        return bool(await self._ask(lambda: self._backend.verify_password(user, password), password))

    def password_hash(self, user: User) -> str | None:
        """See IHashedPasswords. Raises: AuthUnavailable."""
        return cast("str | None", self._guard.ask_now(lambda: self._backend.password_hash(user)))

    def typical_hash(self) -> str | None:
        """See IHashedPasswords. Raises: AuthUnavailable."""
        return cast("str | None", self._guard.ask_now(self._backend.typical_hash))

    async def scram_keys(self, user: User, hash_name: str) -> ScramKeys | None:
        """See IScramKeys."""
        return cast("ScramKeys | None", await self._ask(lambda: self._backend.scram_keys(user, hash_name)))

    def typical_scram(self, hash_name: str) -> TypicalScram | None:
        """See IScramKeys. Raises: AuthUnavailable."""
        return cast("TypicalScram | None", self._guard.ask_now(lambda: self._backend.typical_scram(hash_name)))

    async def may_log_in(self, user: User) -> bool:
        """See ITrustsCertificates."""
        return bool(await self._ask(lambda: self._backend.may_log_in(user)))

    async def _ask(self, function: Callable[[], Any], password: Secret | None = None) -> Any:
        return await self._guard.ask(function, password, self._asking)

    @property
    def credentials(self) -> CredentialStore:
        """See IStoresCredentials. Its methods are called in a thread, without the guard."""
        return cast("CredentialStore", self._backend.credentials)

    def find_app_password(self, probe: str) -> FoundAppPassword | None:
        """See IAppPasswords. Raises: AuthUnavailable."""
        return cast("FoundAppPassword | None", self._guard.ask_now(lambda: self._backend.find_app_password(probe)))

    def app_password(self, credential: str, user: User) -> FoundAppPassword | None:
        """See IAppPasswords. Raises: AuthUnavailable."""
        return cast(
            "FoundAppPassword | None", self._guard.ask_now(lambda: self._backend.app_password(credential, user))
        )

    async def may_act_for(self, delegate: str, user: str, domain: str) -> bool:
        """See IDelegates."""
        return bool(await self._ask(lambda: self._backend.may_act_for(delegate, user, domain)))

    async def find_address(self, name: str) -> Entry | None:
        """See IAddresses."""
        return cast("Entry | None", await self._ask(lambda: self._backend.find_address(name)))

    async def find_owners(self, address: str) -> frozenset[str]:
        """See IOwnAddresses."""
        return cast("frozenset[str]", await self._ask(lambda: self._backend.find_owners(address)))

    async def find_domain(self, name: str) -> DomainEntry | None:
        """See IAddresses."""
        return cast("DomainEntry | None", await self._ask(lambda: self._backend.find_domain(name)))

    def reload(self) -> None:
        """See IReloadable. Exceptions are logged."""
        try:
            cast("IReloadable", self._backend).reload()
        except Exception:
            _log.exception("a back end raised an exception in reload()")

    def read_ahead(self) -> None:
        """See IReadsAhead. Exceptions are logged."""
        try:
            cast("IReadsAhead", self._backend).read_ahead()
        except Exception:
            _log.exception("a back end raised an exception in read_ahead()")
