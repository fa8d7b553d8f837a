"""The trial of a login for the administrator: the server's own check, without turns, delays, penalties and records."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from mailserver.auth.asking import ANYBODY
from mailserver.auth.credential_check import CredentialCheck
from mailserver.auth.interfaces import Hasher, LoginContext
from mailserver.auth.restrictions import Names
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.auth.sources import Source
from mailserver.auth.throttling.verified_passwords import VerifiedPasswords
from mailserver.errors import AuthUnavailable
from mailserver.explain.trace import Rule
from mailserver.sasl.mechanism import Credentials
from mailserver.types import Secret


@frozen
class Trial:
    """What a login would come to. The trace of its context has the account, the names and the back ends."""

    reason: str = ""
    """The reason of a refusal; empty if the login would succeed."""
    rule: Rule | None = None
    """The rule behind the reason."""
    restrictions: tuple[str, ...] = ()
    """All that would refuse the right main password of the user, too."""


async def try_login(
    sources: Sequence[Source],
    hasher: Hasher,
    names: Names,
    name: str,
    context: LoginContext,
    *,
    password: Secret | None,
    weak_schemes: bool,
) -> Trial:
    """Try a login by a name and a password, or all but the password if that is None. Raises nothing of the back ends' kind."""
    check = CredentialCheck(sources, hasher, names, VerifiedPasswords(lambda: 0.0), weak_schemes=weak_schemes)
    trace = context.trace
    try:
        candidates = names.candidates(normalise(name), context.host)
    except BadName as error:
        return Trial(str(error), Rule.BAD_NAME)
    trace.names = tuple(candidates)
    try:
        reason = ""
        if password is not None:
            claim = Credentials(name, password)
            user, barred = await check.by_app_password(claim, candidates, context)
            rule = trace.rule
            if user is None:
                user, reason = await check.check(claim, candidates, context, ANYBODY, again=True)
                reason, rule = (barred, rule) if barred else (reason, trace.rule)
            if user is not None:
                return Trial()
        restrictions = await check.restrictions(candidates, context)
    except AuthUnavailable:
        return Trial("a back end cannot answer now", Rule.UNAVAILABLE)
    if password is None:
        if restrictions is None:
            return Trial("there is no such user, as far as the back ends list users", Rule.UNKNOWN_USER)
        found = restrictions[0] if restrictions else (None, "")
        return Trial(found[1], found[0], tuple(text for _rule, text in restrictions))
    return Trial(reason, rule, tuple(text for _rule, text in restrictions or ()))
