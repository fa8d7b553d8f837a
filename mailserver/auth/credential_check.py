"""One check of a claim: which user it is right for, or why it is right for none. Who pays for it, and when, is `service`'s.

For a name that nobody has a dummy is checked, of the scheme and cost that most entries have, so that the time tells nothing.
What has been found right lately (`checked`) needs no hash; where it is then refused for its network or certificate, a
dummy takes that time, as the hash of a wrong password does.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Sequence
from typing import TypeVar, cast

from attrs import frozen

from mailserver.auth.backends.guard import GuardedBackend
from mailserver.auth.interfaces import (
    ANYBODY,
    Asking,
    Hasher,
    IAuthBackend,
    IHashedPasswords,
    IPasswordsOnly,
    IScramKeys,
    ITrustsCertificates,
    LoginContext,
    User,
)
from mailserver.auth.restrictions import Names, certificate_fault, network_fault
from mailserver.auth.schemes import schemes
from mailserver.auth.throttling.verified_passwords import VerifiedPasswords
from mailserver.sasl.mechanism import Certified, Claim, Credentials, ScramProof
from mailserver.sasl.scram_keys import ScramKeys
from mailserver.types import Secret

T = TypeVar("T")


@frozen
class _Result:
    """The result of a check."""

    user: User | None
    reason: str = ""
    """For the log, where there is no user."""
    reused: bool = False
    """Nothing was hashed, as the password was found right lately."""


class CredentialCheck:
    """Over the configured back ends. All calls are made on one thread."""

    def __init__(
        self,
        backends: Sequence[IAuthBackend],
        hasher: Hasher,
        names: Names,
        checked: VerifiedPasswords,
        *,
        weak_schemes: bool,
    ) -> None:
        """`weak_schemes`: verify entries of weak schemes."""
        self._listing = [each for each in backends if not IPasswordsOnly.providedBy(each)]
        self._passwords_only = [each for each in backends if IPasswordsOnly.providedBy(each)]
        self._hasher = hasher
        self._names = names
        self._checked = checked
        self._weak_schemes = weak_schemes

    async def check(
        self, claim: Claim, candidates: Sequence[str], context: LoginContext, asking: Asking, *, again: bool = False
    ) -> tuple[User | None, str]:
        """The user that the claim is right for; else what to log, if there is more to say than that it is wrong.

        `again`: where it is right for nobody, it is checked once more, and that may take its time. Raises: TooManyLogins,
        AuthUnavailable.
        """
        match claim:
            case Credentials(password=password):
                result = await self._check_password(candidates, password, asking, keep=True)
            case ScramProof():
                result = await self._check_proof(candidates, claim, asking)
            case Certified():
                result = await self._check_certificate(candidates, context, asking)
        user = result.user
        if user is None:
            return None, result.reason
        # Judged as late as this, it tells nobody whose password it is.
        fault = network_fault(user, context) or await certificate_fault(self._names, self.find, user, context)
        if not fault:
            return user, ""
        if result.reused and not again and isinstance(claim, Credentials):
            await self.check_dummy(claim.password, asking)
        return None, fault

    def was_right_recently(self, candidates: Sequence[str]) -> bool:
        """Was a password of one of these users right recently?"""
        return self._checked.has_any(candidates)

    async def was_right(self, claim: Claim, candidates: Sequence[str], asking: Asking) -> bool:
        """Has it been found right lately, and may it still be? Nothing is hashed. Raises: AuthUnavailable."""
        found = await self.find(candidates, asking)
        user = User(candidates[0]) if found is None else found[0]
        match claim:
            case Credentials(password=password) if password.reveal():
                stored = self._stored(found)
                can_be = stored is not None and (stored or self._is_elsewhere(found))
                return bool(can_be) and self._checked.contains(user.name, stored or "", password)
            case ScramProof():
                keys = None if found is None else await keys_of(found, claim.hash_name)
                right = keys is not None and claim.fits and claim.keys == keys
                return right and self._checked.contains(
                    user.name, f"SCRAM-{claim.hash_name}", Secret(claim.keys.stored_key)
                )
            case _:
                return False

    async def may_exist(self, candidates: Sequence[str]) -> bool:
        """Is there such a user, as far as that can be known? Raises: AuthUnavailable."""
        return not self._listing or await self.find(candidates) is not None

    async def owner(self, candidates: Sequence[str], password: Secret, asking: Asking) -> User | None:
        """The user whose password it is. That is not remembered. Raises: AuthUnavailable."""
        return (await self._check_password(candidates, password, asking, keep=False)).user

    async def find(self, candidates: Sequence[str], asking: Asking = ANYBODY) -> tuple[User, IAuthBackend] | None:
        """The first candidate that a back end lists, and which one does. No password is checked. Raises: AuthUnavailable."""
        for name in candidates:
            for each in self._listing:
                backend = _asked_by(each, asking)
                user = await _answer(backend.find_user(name))
                if user is not None:
                    return user, backend
        return None

    async def _check_password(
        self, candidates: Sequence[str], password: Secret, asking: Asking, *, keep: bool
    ) -> _Result:
        """After exactly one check. `keep`: remember that it was right."""
        if not password.reveal():
            return _Result(None, "the client sent an empty password")
        found = await self.find(candidates, asking)
        if found is None and self._listing:
            await self.check_dummy(password, asking)
            return _Result(None, _unknown(candidates))
        # Where nobody can say who exists, it is the name as given, and the password decides.
        user = User(candidates[0]) if found is None else found[0]
        stored = self._stored(found)
        reused = False
        if self._is_elsewhere(found):
            reason = await self._ask_back_ends(found, user, password, asking)
        else:
            reason = self._stored_fault(stored, user)
            reused = not reason and self._checked.contains(user.name, stored or "", password)
            if reason:
                await self.check_dummy(password, asking)
            elif not reused and not await self._hasher.verify(stored or "", password, asking.share, asking.rank):
                reason = f"wrong password for {user.name}"
            elif self._stored(found) != stored:
                # A hash takes a while: who was disabled or got another password meanwhile is not let in by the old one.
                reason = f"the entry of {user.name} was changed while the password was checked"
        if reason:
            if not stored and self._checked.contains(user.name, "", password):
                # Right until lately: it has been changed there.
                self._checked.forget(user.name)
            return _Result(None, reason)
        if keep and not reused:
            self._checked.add(user.name, stored or "", password)
        return _Result(user, reused=reused)

    @staticmethod
    def _stored(found: tuple[User, IAuthBackend] | None) -> str | None:
        """The entry that a password is compared with; None for the disabled, empty where the back end gives none."""
        if found is None or not IHashedPasswords.providedBy(found[1]):
            return ""
        return cast("IHashedPasswords", found[1]).password_hash(found[0])

    def _is_elsewhere(self, found: tuple[User, IAuthBackend] | None) -> bool:
        """Is it a back end that compares the password?"""
        if found is None:
            return not self._listing
        return not IHashedPasswords.providedBy(found[1]) or (self._stored(found) == "" and bool(self._passwords_only))

    async def _ask_back_ends(
        self, found: tuple[User, IAuthBackend] | None, user: User, password: Secret, asking: Asking
    ) -> str:
        """Have back ends compare; why none finds it right, empty where one does."""
        if found is not None and not IHashedPasswords.providedBy(found[1]):
            right = await _answer(found[1].verify_password(user, password))
            return "" if right else f"wrong password for {user.name}, or the user is disabled"
        for backend in self._passwords_only:
            if await _answer(_asked_by(backend, asking).verify_password(user, password)):
                return ""
        return f"wrong password for {user.name}, or there is no such user"

    def _stored_fault(self, stored: str | None, user: User) -> str:
        """Why no password is right for a stored entry, for the log; empty if one can be."""
        if stored is None:
            return f"{user.name} is disabled"
        if not stored:
            return f"{user.name} has no password"
        try:
            scheme = schemes.parse(stored).scheme
        except schemes.BadHash as error:
            return f"the stored password of {user.name} cannot be used: {error}"
        if scheme.is_weak and not self._weak_schemes:
            return f"the password of {user.name} is stored by {scheme.name}, and weak_schemes of [auth] is false"
        return ""

    async def _check_proof(self, candidates: Sequence[str], proof: ScramProof, asking: Asking) -> _Result:
        """The user that the exchange's keys belong to, if the proof fits them."""
        found = await self.find(candidates, asking)
        if found is None:
            return _Result(None, _unknown(candidates))
        user, backend = found
        keys = await keys_of(found, proof.hash_name)
        if keys is None:
            if IHashedPasswords.providedBy(backend) and cast("IHashedPasswords", backend).password_hash(user) is None:
                return _Result(None, f"{user.name} is disabled")
            return _Result(
                None,
                f"{user.name} is disabled, or has no SCRAM-{proof.hash_name} keys that belong to the password:"
                f" `mailserver user password {user.name}` makes them",
            )
        if not proof.fits or proof.keys != keys:
            return _Result(None, f"wrong password for {user.name}")
        self._checked.add(user.name, f"SCRAM-{proof.hash_name}", Secret(keys.stored_key))
        return _Result(user)

    async def _check_certificate(self, candidates: Sequence[str], context: LoginContext, asking: Asking) -> _Result:
        """The user that a certificate names."""
        reason, found = "", await self.find(candidates, asking)
        if found is None:
            reason = f"the certificate is in order and names {candidates[-1]}, who is no user here"
        else:
            user, backend = found
            if not ITrustsCertificates.providedBy(backend):
                reason = f"the back end of {user.name} lets nobody in by a certificate"
            elif not self._names.vouches(context.host, self._names.domain_of_user(user)):
                # Who signs for one domain must not let anybody into another.
                reason = (
                    f"the certificate is in order for {context.host or 'the default host'}, and {user.name} is of a domain"
                    " with another client_ca, client_crl or client_user"
                )
            elif not await _answer(cast("ITrustsCertificates", backend).may_log_in(user)):
                reason = f"the certificate is in order; its user {user.name} is disabled"
            else:
                return _Result(user)
        shown = "" if context.certificate is None else f"; the client has shown {context.certificate.label}"
        return _Result(None, f"{reason}{shown}")

    async def check_dummy(self, password: Secret, asking: Asking) -> None:
        """Take the time that the password of an existing user would. Raises: TooManyLogins, AuthUnavailable."""
        for backend in self._listing:
            if IHashedPasswords.providedBy(backend):
                dummy = cast("IHashedPasswords", backend).typical_hash()
                if dummy:
                    await self._hasher.verify(dummy, password, asking.share, asking.rank)
                    return


async def keys_of(found: tuple[User, IAuthBackend], hash_name: str) -> ScramKeys | None:
    """The SCRAM keys of a user that a back end lists. Raises: AuthUnavailable."""
    user, backend = found
    if not IScramKeys.providedBy(backend):
        return None
    keys: ScramKeys | None = await _answer(cast("IScramKeys", backend).scram_keys(user, hash_name))
    return keys


def _asked_by(backend: IAuthBackend, asking: Asking) -> IAuthBackend:
    return cast("IAuthBackend", backend.asked_by(asking)) if isinstance(backend, GuardedBackend) else backend


async def _answer(given: T | Awaitable[T]) -> T:
    """The answer of a back end, given now or later."""
    return await given if inspect.isawaitable(given) else given


def _unknown(candidates: Sequence[str]) -> str:
    """The reason in the log for a name that nobody has."""
    return f"there is no user {' or '.join(candidates)}"
