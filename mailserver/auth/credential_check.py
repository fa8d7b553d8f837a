"""The check of one claim: which user it is right for, or the reason for the log. `service` handles delays and penalties.

For a name without an account a dummy of the typical scheme and cost is hashed, so that the time reveals nothing. A
password that was right recently (`verified_passwords`) needs no hash; if it is then refused for its network or certificate,
a dummy takes the time of a hash, as for a wrong password.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

from attrs import evolve

from mailserver.auth.asking import ANYBODY, Asking
from mailserver.auth.backend_calls import answer, ask, keys_of, with_asking
from mailserver.auth.check_result import CheckResult, result_of_app_password, unknown_user
from mailserver.auth.interfaces import (
    FoundAppPassword,
    Hasher,
    IAppPasswords,
    IAuthBackend,
    IHashedPasswords,
    IPasswordsOnly,
    IScramKeys,
    ITrustsCertificates,
    LoginContext,
    User,
)
from mailserver.auth.limits import Limits
from mailserver.auth.renewal import Renewals
from mailserver.auth.restrictions import Names, certificate_fault, entry_fault, limits_fault
from mailserver.auth.sources import Source, find_app_password
from mailserver.auth.throttling.verified_passwords import VerifiedPasswords
from mailserver.config.model import BackendUse
from mailserver.explain.names import shown_name
from mailserver.explain.trace import Rule, Trace
from mailserver.sasl.mechanism import Certified, Claim, Credentials, ScramProof
from mailserver.sasl.scram_keys import ScramKeys
from mailserver.types import Secret


class CredentialCheck:
    """Checks claims against the configured back ends. All calls are made on one thread."""

    def __init__(
        self,
        sources: Sequence[Source],
        hasher: Hasher,
        names: Names,
        checked: VerifiedPasswords,
        *,
        weak_schemes: bool,
        renewals: Renewals | None = None,
    ) -> None:
        """`weak_schemes`: verify entries of weak schemes. `renewals`: makes weaker ones anew."""
        self._listing = [each for each in sources if not IPasswordsOnly.providedBy(each.backend)]
        self.lists_users = bool(self._listing)
        """Does any back end know which users exist?"""
        self._passwords_only = [each for each in sources if IPasswordsOnly.providedBy(each.backend)]
        self._with_app_passwords = [each for each in self._listing if IAppPasswords.providedBy(each.backend)]
        self._hasher = hasher
        self._names = names
        self._checked = checked
        self._entry_fault = partial(entry_fault, weak_schemes=weak_schemes)
        self._renewals = renewals

    async def check(
        self, claim: Claim, candidates: Sequence[str], context: LoginContext, asking: Asking, *, again: bool = False
    ) -> tuple[User | None, str]:
        """Return the user that the claim is right for; or None, and the reason for the log.

        `again`: the caller checks a refused claim once more, which takes the time of a hash. Raises: TooManyLogins,
        AuthUnavailable.
        """
        match claim:
            case Credentials(password=password):
                result = await self._check_password(candidates, password, asking, context.trace, keep=True)
            case ScramProof():
                result = await self._check_proof(candidates, claim, asking, context)
            case Certified():
                result = await self._check_certificate(candidates, context, asking)
        user = result.user
        if user is None:
            context.trace.rule = result.rule
            return None, result.reason
        context.trace.user = user.name
        # Restrictions are checked only now: an earlier refusal would reveal the user.
        by_password = not user.credential and not isinstance(claim, Certified)
        fault = await self.restriction(user, context, by_password=by_password)
        if not fault:
            if result.entry and self._renewals is not None and isinstance(claim, Credentials):
                self._renewals.add(result.entry[0], user, result.entry[1], claim.password)
            return user, ""
        context.trace.was_right = True
        if result.reused and not again and isinstance(claim, Credentials):
            await self.check_dummy(claim.password, asking)
        return None, fault

    async def by_app_password(
        self, claim: Claim, candidates: Sequence[str], context: LoginContext
    ) -> tuple[User | None, str]:
        """Return the user of an app password that may be used here; or None, and the reason if there is such a one.

        It takes one look-up, and nothing that looks like an app password can be guessed. Raises: AuthUnavailable.
        """
        if isinstance(claim, ScramProof) and claim.fits and claim.credential:
            result = await self._check_proof(candidates, claim, ANYBODY, context)
            fault, context.trace.rule = result.reason, result.rule
            if result.user is not None:
                fault = await self.restriction(result.user, context, by_password=False)
            return (None, fault) if fault else (result.user, "")
        named = self.find_app_password(candidates, claim.password) if isinstance(claim, Credentials) else None
        if named is None:
            return None, ""
        found, _backend = named
        context.trace.user = found.user.name
        fault = await self._app_password_fault(found, context)
        return (None, fault) if fault else (found.user, "")

    def find_app_password(self, candidates: Sequence[str], password: Secret) -> tuple[FoundAppPassword, object] | None:
        """Find an app password of one of these users, wherever it may be used, and its back end. Raises: AuthUnavailable."""
        return find_app_password(self._with_app_passwords, candidates, password)

    async def _app_password_fault(self, found: FoundAppPassword, context: LoginContext) -> str:
        if found.protocols is not None and context.protocol not in found.protocols:
            context.trace.rule = Rule.PROTOCOL
            return f"the app password {found.label} of {found.user.name} is not for {context.protocol}"
        return await self.restriction(found.user, context, by_password=False)

    async def restriction(self, user: User, context: LoginContext, *, by_password: bool) -> str:
        """The reason of a refusal, whose rule the trace gets; empty if there is none."""
        fault = limits_fault(user, context, by_password=by_password)
        context.trace.rule = Rule.PROTOCOL if user.limits.allows(context.peer) else Rule.NETWORK
        if not fault:
            context.trace.rule = Rule.CERTIFICATE
            fault = await certificate_fault(self._names, self.find, user, context)
        return fault

    async def restrictions(self, candidates: Sequence[str], context: LoginContext) -> list[tuple[Rule, str]] | None:
        """All that would refuse the right main password of a user, for the administrator; None if no back end lists the user.

        Raises: AuthUnavailable.
        """
        found = await self.find(candidates, ANYBODY, context.trace)
        if found is None:
            return None
        user = found[0]
        with_networks = evolve(user, limits=Limits(networks=user.limits.networks))
        with_protocols = evolve(user, limits=evolve(user.limits, networks=None))
        faults = [
            (Rule.OTHER, "") if self._back_end_verifies(found) else self._entry_fault(self.stored(found), user),
            (Rule.NETWORK, limits_fault(with_networks, context, by_password=True)),
            (Rule.PROTOCOL, limits_fault(with_protocols, context, by_password=True)),
            (Rule.CERTIFICATE, await certificate_fault(self._names, self.find, user, context)),
        ]
        return [(rule, fault) for rule, fault in faults if fault]

    def was_right_recently(self, candidates: Sequence[str]) -> bool:
        """Was a password of one of these users right recently?"""
        return self._checked.has_any(candidates)

    async def was_right(self, claim: Claim, candidates: Sequence[str], asking: Asking, trace: Trace) -> bool:
        """Was the claim right recently, and may it still be? Hashes nothing. Raises: AuthUnavailable."""
        found = await self.find(candidates, asking, trace)
        user = User(candidates[0]) if found is None else found[0]
        match claim:
            case Credentials(password=password) if password.reveal():
                stored = self.stored(found)
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
        return not self.lists_users or await self.find(candidates) is not None

    async def owner(self, candidates: Sequence[str], password: Secret, asking: Asking) -> User | None:
        """Return the user whose password it is, without remembering it. Raises: AuthUnavailable."""
        named = self.find_app_password(candidates, password)
        if named is not None:
            # The load of the pool must not show that there is such an app password.
            await self.check_dummy(password, asking)
            return named[0].user
        return (await self._check_password(candidates, password, asking, Trace(), keep=False)).user

    async def find(
        self, candidates: Sequence[str], asking: Asking = ANYBODY, trace: Trace | None = None
    ) -> tuple[User, IAuthBackend] | None:
        """Find the first candidate that a back end lists, and that back end. Raises: AuthUnavailable."""
        found = await self._find_source(candidates, asking, trace)
        return None if found is None else found[:2]

    async def keys_of(
        self, found: tuple[User, IAuthBackend] | None, candidates: Sequence[str], hash_name: str, asking: Asking
    ) -> ScramKeys | None:
        """The SCRAM keys of a user; None if there are none. Raises: AuthUnavailable.

        For an unknown name the first back end that may have keys is asked for them, so that the time does not show who exists.
        """
        serving = (each.backend for each in self._listing if each.serves(candidates))
        backend = next(filter(IScramKeys.providedBy, serving), None)
        decoy = None if backend is None else (User(candidates[-1]), with_asking(backend, asking))
        asked = found or decoy
        keys = None if asked is None else await keys_of(asked, hash_name)
        return None if found is None else keys

    async def _find_source(
        self, candidates: Sequence[str], asking: Asking, trace: Trace | None
    ) -> tuple[User, IAuthBackend, BackendUse] | None:
        listing = [each for each in self._listing if each.serves(candidates)]
        for name in candidates:
            for each in listing:
                backend = with_asking(each.backend, asking)
                user = await ask(backend, "find", lambda b=backend, n=name: b.find_user(n), trace)  # type: ignore[misc]
                if user is not None:
                    if trace is not None:
                        trace.user = user.name
                    return user, backend, each.use
        return None

    async def _check_password(
        self, candidates: Sequence[str], password: Secret, asking: Asking, trace: Trace, *, keep: bool
    ) -> CheckResult:
        """Check the password with exactly one hash. `keep`: remember a right password."""
        if not password.reveal():
            return CheckResult(None, "the client sent an empty password", Rule.EMPTY)
        source = await self._find_source(candidates, asking, trace)
        found = None if source is None else source[:2]
        if found is None and self._listing:
            await self.check_dummy(password, asking)
            return CheckResult(None, unknown_user(candidates), Rule.UNKNOWN_USER)
        # If no back end lists users, the name is used as given, and the password decides.
        user = User(candidates[0]) if found is None else found[0]
        stored = self.stored(found)
        reused = False
        if self._back_end_verifies(found):
            verifying = self._verifying(source, candidates)
            seconds = min((each.use.cache for each in verifying), default=0.0)
            reused = self._checked.contains(user.name, "", password, within=seconds)
            rule, reason = Rule.WRONG, ""
            if not reused:
                reason = await self._ask_back_ends(verifying, user, password, asking, trace, is_user=found is not None)
        else:
            rule, reason = self._entry_fault(stored, user)
            reused = not reason and self._checked.contains(user.name, stored or "", password)
            if reason:
                await self.check_dummy(password, asking)
            elif not reused and not await self._hasher.verify(stored or "", password, asking.share, asking.rank):
                rule, reason = Rule.WRONG, f"wrong password for {user.name}"
            elif not await self._is_still_right(found, stored or "", password, asking):
                rule, reason = Rule.CHANGED, f"the entry of {user.name} changed while the password was checked"
        if reason:
            if not stored and self._checked.contains(user.name, "", password):
                # The password was right recently: it was changed in the back end.
                self._checked.forget(user.name)
            return CheckResult(None, reason, rule)
        if keep and not reused:
            self._checked.add(user.name, stored or "", password)
        entry = (found[1], stored) if found is not None and stored else None
        return CheckResult(user, reused=reused, entry=entry)

    async def _is_still_right(
        self, found: tuple[User, IAuthBackend] | None, stored: str, password: Secret, asking: Asking
    ) -> bool:
        """Is a right password still right, if the user was disabled or got another entry while it was hashed?

        The entry may be another one of the same password (`renewal`).
        """
        after = self.stored(found)
        if after == stored:
            return True
        if found is None or self._entry_fault(after, found[0])[1]:
            return False
        right = await self._hasher.verify(after or "", password, asking.share, asking.rank)
        return right and self.stored(found) == after

    @staticmethod
    def stored(found: tuple[User, IAuthBackend] | None) -> str | None:
        """The stored entry; None for a disabled user, empty where the back end provides none."""
        if found is None or not IHashedPasswords.providedBy(found[1]):
            return ""
        return cast("IHashedPasswords", found[1]).password_hash(found[0])

    def _back_end_verifies(self, found: tuple[User, IAuthBackend] | None) -> bool:
        """Does a back end verify the password, instead of the hash pool?"""
        if found is None:
            return not self._listing
        return not IHashedPasswords.providedBy(found[1]) or (self.stored(found) == "" and bool(self._passwords_only))

    def _verifying(
        self, source: tuple[User, IAuthBackend, BackendUse] | None, candidates: Sequence[str]
    ) -> list[Source]:
        """The back ends that may verify the password of a user, in their order."""
        if source is not None and not IHashedPasswords.providedBy(source[1]):
            return [Source(source[1], source[2])]
        return [each for each in self._passwords_only if each.serves(candidates)]

    @staticmethod
    async def _ask_back_ends(
        verifying: Sequence[Source], user: User, password: Secret, asking: Asking, trace: Trace, *, is_user: bool
    ) -> str:
        """Have back ends verify the password. Return the reason of a refusal, empty if it is right."""
        for each in verifying:
            checker = with_asking(each.backend, asking)
            if await ask(checker, "verify", lambda c=checker: c.verify_password(user, password), trace):  # type: ignore[misc]
                return ""
        if any(not IPasswordsOnly.providedBy(each.backend) for each in verifying):
            return f"wrong password for {user.name}, or the user is disabled"
        # If no back end lists users, the name is as typed.
        return f"wrong password for {shown_name(user.name, is_user=is_user)}, or there is no such user"

    async def _check_proof(
        self, candidates: Sequence[str], proof: ScramProof, asking: Asking, context: LoginContext
    ) -> CheckResult:
        """Return the user whose keys the exchange used, if the proof is right."""
        found = await self.find(candidates, asking, context.trace)
        keys = await self.keys_of(found, candidates, proof.hash_name, asking)
        if found is None:
            return CheckResult(None, unknown_user(candidates), Rule.UNKNOWN_USER)
        user, backend = found
        if keys is None:
            if IHashedPasswords.providedBy(backend) and cast("IHashedPasswords", backend).password_hash(user) is None:
                return CheckResult(None, f"{user.name} is disabled", Rule.DISABLED)
            return CheckResult(
                None,
                f"{user.name} is disabled, or has no SCRAM-{proof.hash_name} keys that belong to the password:"
                f" `mailserver user password {user.name}` makes them",
                Rule.NO_KEYS,
            )
        if not proof.fits or proof.keys != keys:
            return CheckResult(None, f"wrong password for {user.name}", Rule.WRONG)
        if proof.credential:
            return result_of_app_password(proof.credential, user, backend, context)
        self._checked.add(user.name, f"SCRAM-{proof.hash_name}", Secret(keys.stored_key))
        return CheckResult(user)

    async def _check_certificate(self, candidates: Sequence[str], context: LoginContext, asking: Asking) -> CheckResult:
        """Return the user that the certificate names, if it may log in."""
        rule, found = Rule.CERTIFICATE, await self.find(candidates, asking, context.trace)
        if found is None:
            rule = Rule.UNKNOWN_USER
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
            elif not await answer(cast("ITrustsCertificates", backend).may_log_in(user)):
                rule, reason = Rule.DISABLED, f"the certificate is valid, but its user {user.name} is disabled"
            else:
                return CheckResult(user)
        shown = "" if context.certificate is None else f"; the client presented {context.certificate.label}"
        return CheckResult(None, f"{reason}{shown}", rule)

    async def check_dummy(self, password: Secret, asking: Asking) -> None:
        """Hash a dummy, as for the password of an existing user. Raises: TooManyLogins, AuthUnavailable."""
        for each in self._listing:
            if IHashedPasswords.providedBy(each.backend):
                dummy = each.backend.typical_hash()
                if dummy:
                    await self._hasher.verify(dummy, password, asking.share, asking.rank)
                    return
