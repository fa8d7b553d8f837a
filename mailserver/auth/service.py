"""The login service: which account a name means, one check of its password, and what failures cost.

The problems. A stranger must not learn from words or time whether a user exists, nor try passwords at the server's
speed; the user that mistypes must not be locked out by strangers. A name may come without its domain. Back ends
differ: some hold hashes, some only answer yes or no, some cannot list users.

The rules. The name is resolved first, without hashing. Then exactly one hash is checked: the user's, or for an
unknown user a dummy of the scheme and cost that most have. A failure is answered at a time counted from the attempt's
start, which hides what the checks took; how long grows for the pair of user and network. An attempt that is not checked, as
too many wait, is never called wrong, and is answered late, too: a flood gains nothing by being refused. An identity to act for
(authzid) is looked at only after the password is right, and so is what the user's domain demands of the connection. A back end that cannot answer makes the login unavailable,
never wrong.

SCRAM asks for a user's salt before anything is proved: who is unknown, or has no keys, gets a salt that is made of the
name and a secret, and keys that nothing fits. A wrong proof is a failure as a wrong password is, but never the "same"
one again: each looks different.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar, cast

import attrs

from mailserver.auth import schemes
from mailserver.auth.attempts import Attempts, pairs_of
from mailserver.auth.exposure import Exposed, ExposureWatch
from mailserver.auth.interfaces import (
    GUESSING,
    Abilities,
    Asking,
    Hasher,
    IAuthBackend,
    IHashedPasswords,
    IPasswordsOnly,
    IScramKeys,
    ITrustsCertificates,
    LoginContext,
    TypicalScram,
    User,
)
from mailserver.auth.passwd import BadName, normalise
from mailserver.auth.restrictions import Names, certificate_fault, network_fault
from mailserver.errors import AuthFailed, AuthorizationFailed, AuthUnavailable, TooManyLogins
from mailserver.sasl.mechanism import Certified, Claim, Credentials, ScramProof
from mailserver.sasl.scram_keys import HASHES, ROUNDS, SALT, ScramKeys
from mailserver.types import Secret

LEAST_FAILURE: Final = 0.25
"""Seconds that every failure takes at least, whatever the configuration says: longer than most hashes."""

EXPOSED: Final = Asking("exposed", GUESSING)
"""Who asks where a password that came in clear text is checked."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class LoginService:
    """Implements `interfaces.Authenticator` over the configured back ends. All calls are made on one thread."""

    def __init__(
        self,
        backends: Sequence[Any],
        hasher: Hasher,
        names: Names,
        attempts: Attempts,
        *,
        secret: bytes | None = None,
        scram_for_some: bool = False,
        weak_schemes: bool = False,
        exposures: ExposureWatch | None = None,
    ) -> None:
        """`backends` provide IAuthBackend and are asked in this order.

        `secret`, up to 64 octets, is what the salts of unknown users are made of: the same in all processes, and, as a
        real salt stays, after a start; one of its own when None. `scram_for_some`: offer SCRAM though some users have
        no keys. `weak_schemes`: verify entries of weak schemes. `exposures`: who checks passwords that came in clear text; nobody when None.
        """
        self._backends: list[IAuthBackend] = [IAuthBackend(each) for each in backends]
        self._listing = [each for each in self._backends if not IPasswordsOnly.providedBy(each)]
        self._with_scram = [cast("IScramKeys", each) if IScramKeys.providedBy(each) else None for each in self._listing]
        self._trusts_certificates = any(map(ITrustsCertificates.providedBy, self._listing))
        self._passwords_only = [each for each in self._backends if IPasswordsOnly.providedBy(each)]
        self._hasher = hasher
        self._names = names
        self._attempts = attempts
        self._secret = secret or secrets.token_bytes(32)
        self._scram_for_some = scram_for_some
        self._weak_schemes = weak_schemes
        self._exposures = exposures

    def abilities(self) -> Abilities:
        """What can succeed besides passwords."""
        return Abilities(frozenset(filter(self._offers_scram, HASHES)), self._trusts_certificates)

    async def scram_keys(self, name: str, hash_name: str, context: LoginContext) -> ScramKeys:
        """The user's keys, or such as nothing fits. Raises: AuthUnavailable."""
        try:
            candidates = self._names.candidates(normalise(name), context.host)
        except BadName:
            candidates = [name]
        found = await self._find(candidates)
        keys = None if found is None else await _keys_of(found, hash_name)
        return keys or self._made_up_keys(candidates[-1], hash_name)

    async def login(self, claim: Claim, context: LoginContext) -> User:
        """Verify. Raises: AuthFailed, AuthorizationFailed, AuthUnavailable."""
        started = self._attempts.clock()
        evidence = _evidence(claim)
        try:
            name = normalise(claim.name)
        except BadName as error:
            # No account can have it: nothing is learnt from the missing hash check.
            await self._fail(self._attempts.failed(("",), context.peer, evidence), started, str(error))
        candidates = self._names.candidates(name, context.host)
        attempt = self._attempts.begin(candidates, context.peer, evidence)
        unchecked: float | None = None
        try:
            await attempt.turn()
            user, reason = await self._checked(claim, candidates, context, attempt.asking)
            if user is None:
                delay = attempt.failed()
            else:
                attempt.succeeded()
        except TooManyLogins:
            unchecked = attempt.refused()
        finally:
            attempt.end()
        if unchecked is not None:
            await self._sleep_until(started + unchecked)
            raise TooManyLogins
        if user is None:
            await self._fail(delay, started, reason)
        if not _is_self(claim.authorization, {user.name, *candidates}):
            raise AuthorizationFailed
        return self._with_own_address(user)

    async def _checked(
        self, claim: Claim, candidates: Sequence[str], context: LoginContext, asking: Asking
    ) -> tuple[User | None, str]:
        """The user that the claim is right for; else what to log, if there is more to say than that it is wrong."""
        match claim:
            case Credentials(password=password):
                user, reason = await self._verified(candidates, password, asking)
            case ScramProof():
                user, reason = await self._proved(candidates, claim)
            case Certified():
                user, reason = await self._certified(candidates, context.host)
                if reason and context.certificate is not None:
                    reason = f"{reason}; the client has shown {context.certificate.label}"
        if user is not None:
            # Judged as late as this, it tells nobody whose password it is.
            reason = network_fault(user, context) or await certificate_fault(self._names, self._find, user, context)
            user = None if reason else user
        return user, reason

    def exposed(
        self, credentials: Credentials, method: str, context: LoginContext, tell: Callable[[str], None]
    ) -> None:
        """See Authenticator."""
        password = credentials.password
        if self._exposures is None or not password.reveal():
            return
        try:
            name = normalise(credentials.name)
        except BadName:
            return
        candidates = self._names.candidates(name, context.host)
        self._exposures.notice(
            Exposed(
                pairs_of(candidates, context.peer),
                password,
                method,
                context,
                # Not in the client's share: it must not wait for this when it logs in.
                verify=lambda: self._owner(candidates, password),
                tell=tell,
            )
        )

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

    async def _fail(self, delay: float, started: float, reason: str = "") -> NoReturn:
        """Answer a failure, when its time has come. Raises: AuthFailed, always."""
        await self._sleep_until(started + max(delay, LEAST_FAILURE))
        raise AuthFailed(reason)

    async def _sleep_until(self, time: float) -> None:
        rest = time - self._attempts.clock()
        if rest > 0:
            await self._attempts.sleep(rest)

    async def _find(self, candidates: Sequence[str]) -> tuple[User, IAuthBackend] | None:
        """The first candidate that a back end lists, and which one does. No password is checked."""
        for name in candidates:
            for backend in self._listing:
                user = await _answer(backend.find_user(name))
                if user is not None:
                    return user, backend
        return None

    async def _owner(self, candidates: Sequence[str], password: Secret) -> User | None:
        """The user whose password came in clear text, if it is right. Not in the client's share of the pool: the client
        must not wait for this check when it logs in.
        """
        user, _reason = await self._verified(candidates, password, EXPOSED)
        return user

    async def _verified(self, candidates: Sequence[str], password: Secret, asking: Asking) -> tuple[User | None, str]:
        """The user whose password it is, after exactly one check; else why not, for the log."""
        if not password.reveal():
            return None, "the client sent an empty password"
        found = await self._find(candidates)
        if found is None:
            if self._listing:
                await self._check_dummy(password, asking)
                return None, _unknown(candidates)
            # Nobody can say who exists: the name as given, and the password decides.
            return await self._verified_elsewhere(User(candidates[0]), password)
        user, backend = found
        if not IHashedPasswords.providedBy(backend):
            right = await _answer(backend.verify_password(user, password))
            return (user, "") if right else (None, f"wrong password for {user.name}, or the user is disabled")
        stored = cast("IHashedPasswords", backend).password_hash(user)
        if stored == "" and self._passwords_only:
            return await self._verified_elsewhere(user, password)
        fault = self._stored_fault(stored, user)
        if fault or not stored:
            await self._check_dummy(password, asking)
            return None, fault
        right = await self._hasher.verify(stored, password, asking.share, asking.rank)
        return (user, "") if right else (None, f"wrong password for {user.name}")

    async def _verified_elsewhere(self, user: User, password: Secret) -> tuple[User | None, str]:
        """As `_verified`, by the back ends that know passwords alone."""
        for backend in self._passwords_only:
            if await _answer(backend.verify_password(user, password)):
                return user, ""
        return None, f"wrong password for {user.name}, or there is no such user"

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

    async def _proved(self, candidates: Sequence[str], proof: ScramProof) -> tuple[User | None, str]:
        """The user that the exchange's keys belong to, if the proof fits them; else what to log, if there is more."""
        found = await self._find(candidates)
        if found is None:
            return None, _unknown(candidates)
        user, backend = found
        keys = await _keys_of(found, proof.hash_name)
        if keys is None:
            if IHashedPasswords.providedBy(backend) and cast("IHashedPasswords", backend).password_hash(user) is None:
                return None, f"{user.name} is disabled"
            return None, (
                f"{user.name} is disabled, or has no SCRAM-{proof.hash_name} keys that belong to the password:"
                f" `mailserver user password {user.name}` makes them"
            )
        return (user, "") if proof.fits and proof.keys == keys else (None, f"wrong password for {user.name}")

    async def _certified(self, candidates: Sequence[str], host: str | None) -> tuple[User | None, str]:
        """The user that a certificate names; else what to log."""
        found = await self._find(candidates)
        if found is None:
            return None, f"the certificate is in order and names {candidates[-1]}, who is no user here"
        user, backend = found
        if not ITrustsCertificates.providedBy(backend):
            return None, f"the back end of {user.name} lets nobody in by a certificate"
        if not self._names.vouches(host, self._names.domain_of_user(user)):
            # Who signs for one domain must not let anybody into another.
            return None, (
                f"the certificate is in order for {host or 'the default host'}, and {user.name} is of a domain"
                " with another client_ca, client_crl or client_user"
            )
        if not await _answer(cast("ITrustsCertificates", backend).may_log_in(user)):
            return None, f"the certificate is in order; its user {user.name} is disabled"
        return user, ""

    def _typical_scram(self, hash_name: str) -> list[TypicalScram | None]:
        """Of each back end that lists users."""
        return [each.typical_scram(hash_name) if each is not None else None for each in self._with_scram]

    def _offers_scram(self, hash_name: str) -> bool:
        offers = False
        try:
            for each in self._with_scram:
                found = each.typical_scram(hash_name) if each is not None else None
                if found is not None and (self._scram_for_some or found.everybody):
                    offers = True
                elif not self._scram_for_some:
                    return False
        except AuthUnavailable:
            return False
        return offers

    def _made_up_keys(self, name: str, hash_name: str) -> ScramKeys:
        """Salt and rounds such as the others have, the same whenever that name is asked for; nothing fits the keys."""
        like = next(filter(None, self._typical_scram(hash_name)), None) or TypicalScram(ROUNDS, SALT, False)
        salt = hashlib.blake2b(f"{hash_name} {name}".encode("utf-8", "surrogatepass"), key=self._secret).digest()
        size = hashlib.new(HASHES[hash_name]).digest_size
        return ScramKeys(like.rounds, salt[: like.salt_size], secrets.token_bytes(size), secrets.token_bytes(size))

    async def _check_dummy(self, password: Secret, asking: Asking) -> None:
        """Take the time that the password of an existing user would."""
        for backend in self._listing:
            if IHashedPasswords.providedBy(backend):
                dummy = cast("IHashedPasswords", backend).typical_hash()
                if dummy:
                    await self._hasher.verify(dummy, password, asking.share, asking.rank)
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


async def _keys_of(found: tuple[User, IAuthBackend], hash_name: str) -> ScramKeys | None:
    user, backend = found
    if not IScramKeys.providedBy(backend):
        return None
    keys: ScramKeys | None = await _answer(cast("IScramKeys", backend).scram_keys(user, hash_name))
    return keys


def _evidence(claim: Claim) -> Secret:
    """What tells one failure from another."""
    match claim:
        case Credentials(password=password):
            return password
        case ScramProof(proof=proof):
            return proof
        case Certified(name=name):
            return Secret(name.encode("utf-8", "surrogatepass"))


def _unknown(candidates: Sequence[str]) -> str:
    """What the log says of a name that nobody has."""
    return f"there is no user {' or '.join(candidates)}"


def _is_self(authorization: str, names: set[str]) -> bool:
    """Is the identity to act for (RFC 4616 2: authzid) the user's own?"""
    if not authorization:
        return True
    try:
        return normalise(authorization) in names
    except BadName:
        return False
