"""The login service: finds the account of a name, checks one credential, and delays failures.

The problems. An attacker must not learn from words or time whether a user exists, nor try passwords at the server's
speed; and attackers must not lock out a user who mistypes. A name may come without its domain. Back ends differ:
some hold hashes, some only verify passwords, some cannot list users.

The rules. The name is resolved first, without hashing. Then exactly one hash is checked: the user's or, for an unknown
user, a dummy of the scheme and cost that most entries have. The answer to a failure is due at a time counted from the
start of the attempt, which hides the time of the checks; the delay grows for the pair of user and network. An attempt that
is not checked, as too many wait, is never called wrong, and its answer is delayed, too: a flood gains nothing by being
refused. A password that was right recently (`verified_passwords`) passes at once, ahead of its turn. The authorization
identity (authzid) is compared only after the password was right, and so are the restrictions of the user and its domain.
If a back end cannot answer, the login is unavailable, never wrong.

SCRAM asks for a user's salt before the client has proved anything. An unknown user, or one without keys, gets a salt
derived from the name and a secret, and keys that no proof matches. A wrong proof is a failure like a wrong password, but
never counts as a repetition: each proof is different.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import attrs

from mailserver.auth.addresses import Addresses
from mailserver.auth.asking import GUESSING, Asking
from mailserver.auth.confirmation import Confirmation
from mailserver.auth.credential_check import CredentialCheck
from mailserver.auth.credential_uses import CredentialUses
from mailserver.auth.delegation import delegated_user, is_self, shown_login, split_claim, split_name
from mailserver.auth.exposure.checker import ExposedPassword, ExposureChecker
from mailserver.auth.exposure.revocation import Revocations
from mailserver.auth.interfaces import (
    Abilities,
    Hasher,
    IAuthBackend,
    IPasswordsOnly,
    ITrustsCertificates,
    LoginContext,
    LookUpBudget,
    Resolution,
    User,
)
from mailserver.auth.login_records import login_record, refusal_record
from mailserver.auth.plugins import is_source_of_addresses
from mailserver.auth.renewal import Renewals
from mailserver.auth.restrictions import Names
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.auth.scram_offer import ScramOffer
from mailserver.auth.sources import Source
from mailserver.auth.throttling.banned_clients import BannedClients
from mailserver.auth.throttling.guess_counts import Guess, peer_text
from mailserver.auth.throttling.login_throttle import REFUSAL_DELAY, LoginAttempt, LoginThrottle, pairs_of
from mailserver.auth.throttling.verified_passwords import VerifiedPasswords
from mailserver.config.model import BackendUse
from mailserver.errors import AuthFailed, Cancelled, MailError, TooManyLogins
from mailserver.explain.log import LoginLog
from mailserver.explain.names import shown_name
from mailserver.explain.refs import new_ref
from mailserver.explain.trace import Rule
from mailserver.sasl.mechanism import Certified, Claim, Credentials, ScramProof
from mailserver.sasl.scram_keys import HASHES, ScramKeys
from mailserver.types import Secret

MIN_FAILURE_TIME: Final = 0.25
"""Seconds until the answer to a failure, at least, whatever the configuration says: longer than most hashes."""

EXPOSED_ASKING: Final = Asking("exposed", GUESSING)
"""Class and share of the checks of exposed passwords."""


def ignore_guess(_guess: Guess) -> None:
    """Count no guesses."""


class LoginService:
    """Implements `interfaces.Authenticator` over the configured back ends. All calls are made on one thread."""

    def __init__(
        self,
        backends: Sequence[Any],
        hasher: Hasher,
        names: Names,
        throttle: LoginThrottle,
        *,
        secret: bytes | None = None,
        scram_for_some: bool = False,
        weak_schemes: bool = False,
        exposures: ExposureChecker | None = None,
        checked: VerifiedPasswords | None = None,
        show_refs: bool = True,
        uses: Sequence[BackendUse] = (),
        banned: BannedClients | None = None,
        on_guess: Callable[[Guess], None] = ignore_guess,
        log: LoginLog | None = None,
        renewals: Renewals | None = None,
        revocations: Revocations | None = None,
        delegate_separator: str = "",
        credential_uses: CredentialUses | None = None,
    ) -> None:
        """`backends`: providers of IAuthBackend, or of IAddresses alone, asked in this order.

        `secret`: up to 64 octets for the salts of unknown users, the same in all processes and after a restart, as real
        salts are; random if None. `scram_for_some`: offer SCRAM though some users have no keys. `weak_schemes`: verify
        entries of weak schemes. `exposures`: checks passwords that came in clear text; None: they are not checked.
        `checked`: passwords that were right recently; an empty table if None. `show_refs`: clients see the ids of refusals.
        `uses`: settings of each of `backends`; empty: all have the defaults.
        `banned`: clients whose attempts are refused; none if None. `on_guess` is called with each wrong guess.
        `log`: keeps what `mailserver explain` and `mailserver last` show; None: nothing is kept.
        `renewals`: makes weaker hashes anew. `revocations`: revokes app passwords that came in clear text.
        `delegate_separator`: between the names of a user and its delegate, in one; empty: none.
        `credential_uses`: notes the uses of app passwords; None: nothing notes them.
        """
        provided: list[IAuthBackend] = [IAuthBackend(each) for each in backends if not is_source_of_addresses(each)]
        listing = [each for each in provided if not IPasswordsOnly.providedBy(each)]
        self._scram = ScramOffer(listing, secret or secrets.token_bytes(32), for_some=scram_for_some)
        self._trusts_certificates = any(map(ITrustsCertificates.providedBy, listing))
        if checked is None:
            checked = VerifiedPasswords(throttle.clock)
        settings = list(uses) or [BackendUse("")] * len(backends)
        sources = [Source(*pair) for pair in zip(backends, settings, strict=True)]
        with_users = [each for each in sources if not is_source_of_addresses(each.backend)]
        self._check = CredentialCheck(with_users, hasher, names, checked, weak_schemes=weak_schemes, renewals=renewals)
        self._confirmation = Confirmation(self._check, names, [each.backend for each in with_users])
        self._names = names
        self._throttle = throttle
        self._addresses = Addresses(
            sources,
            self.find,
            self.is_local_domain,
            lambda: throttle.sleep(0),
            names.default_domain,
            detail_separator=names.detail_separator,
        )
        self._separator = delegate_separator
        self._exposures = exposures
        self._revocations = revocations
        self._show_refs = show_refs
        self._banned = BannedClients() if banned is None else banned
        self._on_guess = on_guess
        self._log = log
        self._credential_uses = credential_uses

    def abilities(self) -> Abilities:
        """Credentials that can succeed besides passwords."""
        return Abilities(frozenset(filter(self._scram.offers, HASHES)), self._trusts_certificates)

    async def scram_keys(self, name: str, hash_name: str, context: LoginContext) -> ScramKeys:
        """The user's keys, or keys that no proof matches. Raises: AuthUnavailable."""
        name, _user = split_name(name, self._separator)
        try:
            candidates = self._names.candidates(normalise(name), context.host)
        except BadName:
            candidates = [name]
        context.trace.names = tuple(candidates)
        asking = self._throttle.asking(candidates, context.peer)
        found = await self._check.find(candidates, asking, context.trace)
        # Both in any case: the client has its answer at once, so the work must be the same for all names.
        keys = await self._check.keys_of(found, candidates, hash_name, asking)
        dummy = self._scram.dummy_keys(candidates[-1], hash_name)
        return keys or dummy

    def shown_name(self, name: str, context: LoginContext) -> str:
        """See Authenticator."""
        return shown_login(name, self._separator, context.trace)

    def refused(self, error: MailError, name: str, method: str, context: LoginContext) -> str:
        """See Authenticator."""
        ref = _ref_of(context)
        if self._show_refs:
            error.ref = ref
        if self._log is not None:
            shown = self.shown_name(name, context)
            self._log.refused(refusal_record(error, ref, (name, shown), method, context))
        return ref

    def accepted(self, user: User, method: str, context: LoginContext) -> None:
        """See Authenticator."""
        if self._log is not None:
            self._log.logged_in(login_record(user, method, context))
        if user.credential and self._credential_uses is not None:
            self._credential_uses.note(user.credential, user.delegate or user.name, context.peer, context.protocol)

    async def login(self, claim: Claim, context: LoginContext) -> User:
        """Verify a claim. Raises: AuthFailed, AuthUnavailable, TooManyLogins."""
        started = self._throttle.clock()
        if self._banned.is_banned(context.peer):
            # A server that asks for its clients, or a session that begins to end.
            context.trace.rule = Rule.BANNED
            await self._throttle.sleep(min(REFUSAL_DELAY, context.answer_within))
            raise TooManyLogins
        evidence = _evidence(claim)
        claim = split_claim(claim, self._separator)
        try:
            name = normalise(claim.name)
        except BadName as error:
            # No account can have this name: the missing hash reveals nothing.
            context.trace.rule = Rule.BAD_NAME
            delay = self._throttle.failed(("",), context.peer, evidence)
            self._report_guess(claim, claim.name, context)
            await self._fail(min(delay, context.answer_within), started, str(error))
        candidates = self._names.candidates(name, context.host)
        context.trace.names = tuple(candidates)
        attempt = self._throttle.begin(candidates, context.peer, evidence, context.answer_within)
        refusal_delay: float | None = None
        try:
            # Who has an app password is not slowed, from whatever network, under whatever attack.
            begun = self._confirmation.begin()
            user, barred = await self._check.by_app_password(claim, candidates, context)
            barred_by = context.trace.rule
            if user is None:
                user = await self._reuse_verified(claim, candidates, context, attempt)
            if user is None:
                try:
                    await attempt.wait_turn()
                finally:
                    context.trace.waited = self._throttle.clock() - started
                begun = self._confirmation.begin()
                user, reason = await self._check.check(claim, candidates, context, attempt.asking)
                if barred:
                    reason, context.trace.rule = barred, barred_by
            if user is None:
                delay = attempt.failed()
                if not barred:
                    self._report_guess(claim, candidates[-1], context)
            else:
                attempt.succeeded()
        except TooManyLogins:
            refusal_delay = attempt.refused()
        except Cancelled:
            attempt.refused()
            raise
        finally:
            attempt.end()
        if refusal_delay is not None:
            await self._sleep_until(started + min(refusal_delay, context.answer_within))
            raise TooManyLogins
        if user is None:
            context.trace.delay = max(min(delay, context.answer_within), MIN_FAILURE_TIME)
            await self._fail(min(delay, context.answer_within), started, reason)
        if not is_self(claim.authorization, {user.name, *candidates}):
            acting = await delegated_user(self._check, self._names, claim, candidates, context)
            user = attrs.evolve(acting, credential=user.credential)
        return self._confirmation.remember(self._with_own_address(user), claim, candidates, begun)

    async def confirm(self, user: User, context: LoginContext) -> None:
        """See Authenticator. Raises: AccountChanged, AuthUnavailable."""
        await self._confirmation.confirm(user, context)

    async def _reuse_verified(
        self, claim: Claim, candidates: Sequence[str], context: LoginContext, attempt: LoginAttempt
    ) -> User | None:
        """Return the user, ahead of the attempt's turn, if the claim was right recently and still is."""
        if not self._check.was_right_recently(candidates) or not await attempt.take_lookup():
            return None
        if not await self._check.was_right(claim, candidates, attempt.asking, context.trace):
            return None
        attempt.lookup_succeeded()
        user, _reason = await self._check.check(claim, candidates, context, attempt.asking, again=True)
        context.trace.calls.clear()
        return user

    def exposed(
        self, credentials: Credentials, method: str, context: LoginContext, tell: Callable[[str], None]
    ) -> None:
        """See Authenticator."""
        password = credentials.password
        if self._exposures is None or not password.reveal():
            return
        try:
            name = normalise(split_claim(credentials, self._separator).name)
        except BadName:
            return
        candidates = self._names.candidates(name, context.host)
        self._exposures.submit(
            ExposedPassword(
                pairs_of(candidates, context.peer),
                password,
                method,
                context,
                # Not in the client's share: its next login must not wait for this check.
                exists=lambda: self._check.may_exist(candidates),
                verify=lambda: self._check.owner(candidates, password, EXPOSED_ASKING),
                check_dummy=lambda: self._check.check_dummy(Secret(b"none"), EXPOSED_ASKING),
                report=tell,
                revoke=lambda: self._revoke(candidates, password, context),
            )
        )

    async def _revoke(self, candidates: Sequence[str], password: Secret, context: LoginContext) -> bool:
        """Revoke an exposed app password. Return False if the administrator must. Raises: AuthUnavailable."""
        named = self._check.find_app_password(candidates, password)
        if named is None:
            # Another process has revoked it.
            return True
        if self._revocations is None:
            return False
        peer = "" if context.peer is None else str(context.peer)
        return await self._revocations.revoke(named[1], named[0].user, context.protocol, peer)

    async def find(self, address: str) -> User | None:
        """Find the user of an address, for delivery; SNI does not matter. Raises: AuthUnavailable."""
        try:
            name = normalise(address)
        except BadName:
            return None
        candidates = self._names.candidates(name, None)
        local, _, domain = name.partition("@")
        if domain and domain == self._names.default_domain:
            # Bare names in a users file belong to the default domain.
            candidates.append(local)
        found = await self._check.find(candidates)
        return None if found is None else self._with_own_address(found[0])

    async def resolve(self, address: str, separator: str, budget: LookUpBudget | None = None) -> Resolution:
        """See Authenticator."""
        return await self._addresses.resolve(address, separator, budget)

    async def may_send_as(self, user: User, address: str) -> bool:
        """See Authenticator."""
        return await self._addresses.may_send_as(user, address)

    async def senders_of(self, address: str) -> frozenset[str]:
        """See Authenticator."""
        return await self._addresses.senders_of(address)

    async def separator_of(self, domain: str, separator: str) -> str:
        """See Authenticator."""
        return await self._addresses.separator_of(domain, separator)

    async def serves_domain(self, domain: str) -> bool:
        """See Authenticator."""
        return await self._addresses.serves_domain(domain)

    def is_local_domain(self, domain: str) -> bool:
        """Is it (any case) a domain of the configuration?"""
        return domain.lower() in self._names.domains

    async def _fail(self, delay: float, started: float, reason: str = "") -> NoReturn:
        """Wait until the answer to a failure is due. Raises: AuthFailed, always."""
        await self._sleep_until(started + max(delay, MIN_FAILURE_TIME))
        raise AuthFailed(reason)

    def _report_guess(self, claim: Claim, name: str, context: LoginContext) -> None:
        if context.trace.was_right:
            return
        # Two proofs of one wrong password differ, so of each name they count as one.
        evidence = Secret(name.encode("utf-8", "surrogatepass")) if isinstance(claim, ScramProof) else _evidence(claim)
        self._on_guess(
            Guess(
                peer=peer_text(context.peer),
                name=name,
                shown=shown_name(claim.name, is_user=bool(context.trace.user)),
                digest=self._throttle.penalties.digest(evidence).hex(),
                protocol=context.protocol,
                id=_ref_of(context),
                is_proof=isinstance(claim, ScramProof),
            )
        )

    async def _sleep_until(self, time: float) -> None:
        rest = time - self._throttle.clock()
        if rest > 0:
            await self._throttle.sleep(rest)

    def _with_own_address(self, user: User) -> User:
        """The user, with its address in the default domain if it has a bare name."""
        if "@" in user.name or not self._names.default_domain:
            return user
        own = f"{user.name}@{self._names.default_domain}"
        return attrs.evolve(user, addresses=user.addresses | {own})


def _ref_of(context: LoginContext) -> str:
    """The id of the attempt's refusal; a guess has it before the client's answer is due."""
    context.trace.ref = context.trace.ref or new_ref()
    return context.trace.ref


def _evidence(claim: Claim) -> Secret:
    """The part of a claim that distinguishes one guess from another."""
    match claim:
        case Credentials(password=password):
            return password
        case ScramProof(proof=proof):
            return proof
        case Certified(name=name):
            return Secret(name.encode("utf-8", "surrogatepass"))
