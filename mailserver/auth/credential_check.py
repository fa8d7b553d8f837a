"""The check of one claim: which user it is right for, or the reason for the log. `service` handles delays and penalties.

For a name without an account a dummy of the typical scheme and cost is hashed, so that the time reveals nothing. A
password that was right recently (`verified_passwords`) needs no hash; if it is then refused for its network or certificate,
a dummy takes the time of a hash, as for a wrong password.
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
    """Nothing was hashed, as the password was right recently."""


class CredentialCheck:
    """Checks claims against the configured back ends. All calls are made on one thread."""

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
        """Return the user that the claim is right for; or None, and the reason for the log.

        `again`: the caller checks a refused claim once more, which takes the time of a hash. Raises: TooManyLogins,
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
        # Restrictions are checked only now: an earlier refusal would reveal the user.
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
        """Was the claim right recently, and may it still be? Hashes nothing. Raises: AuthUnavailable."""
        found = await self.find(candidates, asking)
        user = User(candidates[0]) if found is None else found[0]
        match claim:
            case Credentials(password=password) if password.reveal():
                stored = self._stored(found)
                can_be = stored is not None and (stored or self._back_end_verifies(found))
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
        """May such a user exist? Raises: AuthUnavailable."""
        return not self._listing or await self.find(candidates) is not None

    async def owner(self, candidates: Sequence[str], password: Secret, asking: Asking) -> User | None:
        """Return the user whose password it is, without remembering it. Raises: AuthUnavailable."""
        return (await self._check_password(candidates, password, asking, keep=False)).user

    async def find(self, candidates: Sequence[str], asking: Asking = ANYBODY) -> tuple[User, IAuthBackend] | None:
        """Find the first candidate that a back end lists, and that back end. Raises: AuthUnavailable."""
        for name in candidates:
            for each in self._listing:
                backend = _with_asking(each, asking)
                user = await _answer(backend.find_user(name))
                if user is not None:
                    return user, backend
        return None

    async def _check_password(
        self, candidates: Sequence[str], password: Secret, asking: Asking, *, keep: bool
    ) -> _Result:
        """Check the password with exactly one hash. `keep`: remember a right password."""
        if not password.reveal():
            return _Result(None, "the client sent an empty password")
        found = await self.find(candidates, asking)
        if found is None and self._listing:
            await self.check_dummy(password, asking)
            return _Result(None, _unknown(candidates))
        # If no back end lists users, the name is used as given, and the password decides.
        user = User(candidates[0]) if found is None else found[0]
        stored = self._stored(found)
        reused = False
        if self._back_end_verifies(found):
            reason = await self._ask_back_ends(found, user, password, asking)
        else:
            reason = self._stored_fault(stored, user)
            reused = not reason and self._checked.contains(user.name, stored or "", password)
            if reason:
                await self.check_dummy(password, asking)
            elif not reused and not await self._hasher.verify(stored or "", password, asking.share, asking.rank):
                reason = f"wrong password for {user.name}"
            elif self._stored(found) != stored:
                # A hash takes time: if the user was disabled or got another password meanwhile, the old one is refused.
                reason = f"the entry of {user.name} was changed while the password was checked"
        if reason:
            if not stored and self._checked.contains(user.name, "", password):
                # The password was right recently: it was changed in the back end.
                self._checked.forget(user.name)
            return _Result(None, reason)
        if keep and not reused:
            self._checked.add(user.name, stored or "", password)
        return _Result(user, reused=reused)

    @staticmethod
    def _stored(found: tuple[User, IAuthBackend] | None) -> str | None:
        """The stored entry; None for a disabled user, empty where the back end provides none."""
        if found is None or not IHashedPasswords.providedBy(found[1]):
            return ""
        return cast("IHashedPasswords", found[1]).password_hash(found[0])

    def _back_end_verifies(self, found: tuple[User, IAuthBackend] | None) -> bool:
        """Does a back end verify the password, instead of the hash pool?"""
        if found is None:
            return not self._listing
        return not IHashedPasswords.providedBy(found[1]) or (self._stored(found) == "" and bool(self._passwords_only))

    async def _ask_back_ends(
        self, found: tuple[User, IAuthBackend] | None, user: User, password: Secret, asking: Asking
    ) -> str:
        """Have back ends verify the password. Return the reason of a refusal, empty if it is right."""
        if found is not None and not IHashedPasswords.providedBy(found[1]):
            right = await _answer(found[1].verify_password(user, password))
            return "" if right else f"wrong password for {user.name}, or the user is disabled"
        for backend in self._passwords_only:
            if await _answer(_with_asking(backend, asking).verify_password(user, password)):
                return ""
        return f"wrong password for {user.name}, or there is no such user"

    def _stored_fault(self, stored: str | None, user: User) -> str:
        """The reason why no password matches a stored entry, for the log; empty if one may."""
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
        """Return the user whose keys the exchange used, if the proof is right."""
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
        """Return the user that the certificate names, if it may log in."""
        reason, found = "", await self.find(candidates, asking)
        if found is None:
            reason = f"the certificate is valid and names {candidates[-1]}, which is not a user here"
        else:
            user, backend = found
            if not ITrustsCertificates.providedBy(backend):
                reason = f"the back end of {user.name} accepts no logins by certificate"
            elif not self._names.vouches(context.host, self._names.domain_of_user(user)):
                # The authority of one domain must not let anybody into another domain.
                reason = (
                    f"the certificate is valid for {context.host or 'the default host'}, but {user.name} is of a domain"
                    " with another client_ca, client_crl or client_user"
                )
            elif not await _answer(cast("ITrustsCertificates", backend).may_log_in(user)):
                reason = f"the certificate is valid, but its user {user.name} is disabled"
            else:
                return _Result(user)
        shown = "" if context.certificate is None else f"; the client presented {context.certificate.label}"
        return _Result(None, f"{reason}{shown}")

    async def check_dummy(self, password: Secret, asking: Asking) -> None:
        """Hash a dummy, as for the password of an existing user. Raises: TooManyLogins, AuthUnavailable."""
        for backend in self._listing:
            if IHashedPasswords.providedBy(backend):
                dummy = cast("IHashedPasswords", backend).typical_hash()
                if dummy:
                    await self._hasher.verify(dummy, password, asking.share, asking.rank)
                    return


async def keys_of(found: tuple[User, IAuthBackend], hash_name: str) -> ScramKeys | None:
    """The SCRAM keys of a user; None if there are none. Raises: AuthUnavailable."""
    user, backend = found
    if not IScramKeys.providedBy(backend):
        return None
    keys: ScramKeys | None = await _answer(cast("IScramKeys", backend).scram_keys(user, hash_name))
    return keys


def _with_asking(backend: IAuthBackend, asking: Asking) -> IAuthBackend:
    return cast("IAuthBackend", backend.with_asking(asking)) if isinstance(backend, GuardedBackend) else backend


async def _answer(given: T | Awaitable[T]) -> T:
    """The answer of a back end, awaited if necessary."""
    return await given if inspect.isawaitable(given) else given


def _unknown(candidates: Sequence[str]) -> str:
    """The reason for the log: no such user."""
    return f"there is no user {' or '.join(candidates)}"
