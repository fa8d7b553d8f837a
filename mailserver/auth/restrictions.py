"""Which names are whose, and what a user's networks and domain demand of a connection (no I/O).

A restriction is judged once the password, proof or certificate is right: before, its answer would tell who exists.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import frozen

from mailserver.auth.interfaces import LoginContext, User
from mailserver.auth.schemes.passwd import BadName, normalise

Find = Callable[[Sequence[str]], Awaitable[object | None]]
"""Finds the first name that a user has; None if nobody has one of them."""


@frozen
class Names:
    """How names without a domain are completed, and which domains are ours. All in lower case."""

    domains: frozenset[str]
    default_domain: str
    """Empty: none."""
    domain_of: Callable[[str | None], str | None]
    """The mail domain that a host of the configuration belongs to."""
    vouches: Callable[[str | None, str], bool] = lambda _host, _domain: False
    """May a client's certificate taken for a host speak for users of a mail domain; of any, when empty?"""
    demands: Callable[[str], bool] = lambda _domain: False
    """Must the clients of a mail domain's users show a certificate; of any, when empty?"""
    names_user: Callable[[str], bool] = lambda _domain: True
    """Must that certificate name the user who logs in?"""

    def candidates(self, name: str, host: str | None) -> list[str]:
        """What a normalised name may mean, in the order tried: as it is; then in the domain of the host that was
        served, or in the default domain where that tells none.
        """
        if "@" in name:
            return [name]
        domain = self.domain_of(host) or self.default_domain
        return [name, f"{name}@{domain}"] if domain else [name]

    def domain_of_user(self, user: User) -> str:
        """The mail domain of an account; empty where it has none."""
        return user.name.partition("@")[2] or self.default_domain


def network_fault(user: User, context: LoginContext) -> str:
    """Why the user may not log in from the client's address, for the log; empty if it may."""
    if user.limits.allows(context.peer):
        return ""
    listed = ",".join(user.limits.networks or ())
    return f"{user.name} may not log in from {context.peer or 'a Unix socket'}: its allow_nets is {listed or 'empty'}"


async def certificate_fault(names: Names, find: Find, user: User, context: LoginContext) -> str:
    """Why the client's certificate does not do for the user's domain, for the log; empty if it does, or need not be.

    A host name that asks for none must be no way around a demand of the user's domain, and neither must the certificate
    of another user. Raises: AuthUnavailable.
    """
    domain = names.domain_of_user(user)
    if not names.demands(domain):
        return ""
    right = f"the password is right, and {user.name} is of a domain that requires a client certificate"
    if context.certificate is None:
        return f"{right}: the client has shown none, or connected under a host name that asks for none"
    shown = f"the client has shown {context.certificate.label}"
    if not names.vouches(context.host, domain):
        return f"{right}: {shown}, which was not taken under a host name of that domain"
    if names.names_user(domain) and not await _is_named(names, find, user, context):
        return f"{right} in the user's own name: {shown}"
    return ""


async def _is_named(names: Names, find: Find, user: User, context: LoginContext) -> bool:
    """Does the certificate name that user? As with EXTERNAL, the first of its names that somebody has counts."""
    assert context.certificate is not None
    try:
        name = normalise(context.certificate.user)
    except BadName:
        return False
    if "@" not in user.name and name == f"{user.name}@{names.default_domain}":
        return True
    candidates = names.candidates(name, context.host)
    if user.name not in candidates:
        return False
    return await find(candidates[: candidates.index(user.name)]) is None
