"""Delegates (master users): an account logs in as another one, with its own password, where a back end allows it.

A client names both in one of two ways: by an authorization identity (authzid, RFC 4616 2, RFC 5802 5.1), or, where the
configuration sets a separator, in the user name, "user*delegate", as Dovecot's master users do.

The rules. The password, its delays and its restrictions are the delegate's: nothing here is asked before they were right.
Then the delegate's own back end must allow it (`IDelegates`), and the user must exist and not be disabled. Networks and
protocols of the user do not matter, as it is not the user who logs in; but a domain that requires a client certificate requires it of delegates,
too. All refusals are the same, so that a delegate learns nothing of users that it is not responsible for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar, cast

import attrs

from mailserver.auth.backend_calls import answer
from mailserver.auth.credential_check import CredentialCheck
from mailserver.auth.interfaces import (
    IAuthBackend,
    IDelegates,
    IHashedPasswords,
    ITrustsCertificates,
    LoginContext,
    User,
)
from mailserver.auth.restrictions import Names
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.errors import AuthorizationFailed
from mailserver.explain.names import shown_name
from mailserver.explain.trace import Trace
from mailserver.sasl.mechanism import Certified, Claim

C = TypeVar("C", bound=Claim)


def split_name(name: str, separator: str) -> tuple[str, str]:
    """The owner of the password and the user to act for, of a name as it was sent; the latter is empty without a separator."""
    user, found, delegate = name.partition(separator) if separator else (name, "", "")
    return (delegate, user) if found and user and delegate else (name, "")


def shown_login(name: str, separator: str, trace: Trace) -> str:
    """A name as it was sent, as logs may show it. Of two in one, the user's may be a password though the delegate exists."""
    owner, user = split_name(name, separator)
    shown = shown_name(owner, is_user=bool(trace.user))
    if not user:
        return shown
    known = (trace.acting_for, trace.acting_for.partition("@")[0]) if trace.acting_for else ()
    return f"{shown_name(user, is_user=user.lower() in known)}{separator}{shown}"


def split_claim(claim: C, separator: str) -> C:
    """The claim in which both are apart. A claim of a certificate, or with an authorization identity, stays as it is."""
    if isinstance(claim, Certified) or claim.authorization:
        return claim
    name, user = split_name(claim.name, separator)
    return claim if not user else cast("C", attrs.evolve(claim, name=name, authorization=user))


def is_self(authorization: str, names: set[str]) -> bool:
    """Is the authorization identity (authzid, RFC 4616 2) the user's own?"""
    if not authorization:
        return True
    try:
        return normalise(authorization) in names
    except BadName:
        return False


async def delegated_user(
    check: CredentialCheck, names: Names, claim: Claim, candidates: Sequence[str], context: LoginContext
) -> User:
    """The user as whom the owner of a right password may act. `candidates`: the owner's possible names.

    Raises: AuthorizationFailed, AuthUnavailable.
    """
    context.trace.acting_for = shown_name(claim.authorization)
    try:
        wanted = names.candidates(normalise(claim.authorization), context.host)
    except BadName:
        raise AuthorizationFailed from None
    owner = await check.find(candidates)
    if isinstance(claim, Certified) or owner is None or not IDelegates.providedBy(owner[1]):
        raise AuthorizationFailed
    found = await check.find(wanted)
    if found is None:
        raise AuthorizationFailed
    delegate, user = owner[0].name, found[0]
    context.trace.acting_for = user.name
    domain = names.domain_of_user(user)
    allowed = await answer(cast("IDelegates", owner[1]).may_act_for(delegate, user.name, domain))
    if not allowed or await _is_disabled(*found):
        raise AuthorizationFailed
    if names.demands(domain) and (context.certificate is None or not names.vouches(context.host, domain)):
        raise AuthorizationFailed
    return attrs.evolve(user, delegate=delegate)


async def _is_disabled(user: User, backend: IAuthBackend) -> bool:
    """Does the back end say that the user may not log in? One that has no such words is asked for nothing."""
    if IHashedPasswords.providedBy(backend):
        return cast("IHashedPasswords", backend).password_hash(user) is None
    if ITrustsCertificates.providedBy(backend):
        return not await answer(cast("ITrustsCertificates", backend).may_log_in(user))
    return False
