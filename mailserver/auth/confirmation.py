"""One more look at a login, before its session is registered.

The problem: a session that is registered ends when its account changes, but between the decision and the registration
time passes. The account is opened, and a client may hold back the empty line that ends an exchange of SCRAM. A change meanwhile
would end nothing, as there is no session yet.

So a login remembers where the records of changes stood when it was decided (`IRecordsChanges`), and is looked at once more: by
the questions that were asked after the password, whose answers may depend on the time, then by the record. The record comes last, and
the session is registered without a wait after it. A changed account makes a login unavailable, not wrong: the client's next try
is decided by what holds now. Of a back end without a record, all but its passwords is asked again, and the SCRAM keys.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import cast

import attrs
from attrs import frozen

from mailserver.auth.backend_calls import answer, keys_of, unguarded
from mailserver.auth.credential_check import CredentialCheck
from mailserver.auth.delegation import delegated_user
from mailserver.auth.ended_sessions import EndedSessions, OpenSession
from mailserver.auth.interfaces import (
    IAppPasswords,
    IAuthBackend,
    IRecordsChanges,
    ITrustsCertificates,
    LoginContext,
    User,
)
from mailserver.auth.restrictions import Names
from mailserver.errors import AccountChanged, AuthorizationFailed, AuthUnavailable
from mailserver.sasl.mechanism import Certified, Claim, Credentials, ScramProof
from mailserver.sasl.scram_keys import ScramKeys
from mailserver.types import Secret

Positions = tuple[tuple[object, object], ...]
"""The back ends that record changes, each with its position; None where it could not be read."""


@frozen
class LetIn:
    """What a login was decided by."""

    candidates: tuple[str, ...]
    """The possible names of the account that has logged in."""
    by_certificate: bool
    hash_name: str
    """Of SCRAM; empty without it."""
    keys: bytes
    """A digest of the keys that SCRAM used."""
    positions: Positions


class Confirmation:
    """Looks at logins once more. All calls are made on one thread."""

    def __init__(self, check: CredentialCheck, names: Names, backends: Sequence[object]) -> None:
        self._check = check
        self._names = names
        self._recording = [each for each in backends if IRecordsChanges.providedBy(each)]

    def begin(self) -> Positions:
        """Where the records stand; called before anything is asked that the decision depends on."""
        return tuple((unguarded(each), _position(each)) for each in self._recording)

    @staticmethod
    def remember(user: User, claim: Claim, candidates: Sequence[str], begun: Positions) -> User:
        """The user, with what it was let in by. `candidates`: the possible names of the owner of the password."""
        proof = claim if isinstance(claim, ScramProof) else None
        let_in = LetIn(
            tuple(candidates),
            isinstance(claim, Certified),
            "" if proof is None else proof.hash_name,
            b"" if proof is None else _digest(proof.keys),
            begun,
        )
        return attrs.evolve(user, let_in=let_in)

    async def confirm(self, user: User, context: LoginContext) -> None:
        """See Authenticator. Raises: AccountChanged, AuthUnavailable."""
        let_in = cast("LetIn", user.let_in)
        if not self._check.lists_users:
            # The name is as given, and a back end has verified the password: nobody knows more.
            return
        owner = user.delegate or user.name
        found = await self._check.find(let_in.candidates)
        if found is None or found[0].name != owner:
            raise AccountChanged(f"{owner} is no user any more")
        if fault := await self._fault(found, user, let_in, context):
            raise AccountChanged(fault)
        if user.delegate:
            await self._confirm_delegate(user, let_in, context)
        session = OpenSession(user.name, context.protocol, context.peer, user.credential, user.delegate)
        for backend, position in let_in.positions:
            if backend is unguarded(found[1]) or user.delegate:
                _look(cast("IRecordsChanges", backend), position, session)

    async def _fault(self, found: tuple[User, IAuthBackend], user: User, let_in: LetIn, context: LoginContext) -> str:
        """The reason why the owner of the password may not log in now; empty if it may."""
        owner, backend = found
        if user.credential:
            app = None
            if IAppPasswords.providedBy(backend):
                app = cast("IAppPasswords", backend).app_password(user.credential, owner)
            if app is None:
                return f"the app password of {owner.name} was revoked, or has expired"
            return await self._check.restriction(app.user, context, by_password=False)
        if let_in.by_certificate:
            may_log_in = await answer(cast("ITrustsCertificates", backend).may_log_in(owner))
        else:
            may_log_in = self._check.stored(found) is not None
        if not may_log_in:
            return f"{owner.name} was disabled"
        if let_in.hash_name and not IRecordsChanges.providedBy(backend):
            # With a record this is left to it: keys are also added without a change of the password.
            keys = await keys_of(found, let_in.hash_name)
            if keys is None or _digest(keys) != let_in.keys:
                return f"the password of {owner.name} was changed"
        return await self._check.restriction(owner, context, by_password=not let_in.by_certificate)

    async def _confirm_delegate(self, user: User, let_in: LetIn, context: LoginContext) -> None:
        # Who owns the password is known: only the names count.
        claim = Credentials(user.delegate, Secret(b""), user.name)
        try:
            acting = await delegated_user(self._check, self._names, claim, let_in.candidates, context)
        except AuthorizationFailed:
            raise AccountChanged(f"{user.delegate} may not act for {user.name} any more") from None
        if acting.name != user.name:
            raise AccountChanged(f"{user.name} is no user any more")


def _look(backend: IRecordsChanges, position: object, session: OpenSession) -> None:
    """Raises: AccountChanged if changes since a position end the session, AuthUnavailable."""
    if position is None:
        raise AuthUnavailable
    changed = backend.changed_since(position)
    if changed is None:
        raise AccountChanged("it is not known whom the last changes concern")
    if EndedSessions(changed).includes(session):
        raise AccountChanged(f"the account {session.owner} was changed before its session began")


def _position(backend: IRecordsChanges) -> object:
    try:
        return backend.position()
    except AuthUnavailable:
        # A user of another back end may log in.
        return None


def _digest(keys: ScramKeys) -> bytes:
    """The same for equal keys, and no use to anybody who sees it."""
    return hashlib.blake2b(repr(attrs.astuple(keys)).encode(), digest_size=16).digest()
