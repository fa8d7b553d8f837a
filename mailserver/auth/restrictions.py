"""Resolution of names, and the restrictions on networks and client certificates (no I/O).

A restriction is checked after the password, proof or certificate was right: before that, its answer would reveal who exists.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from attrs import frozen

from mailserver.auth.interfaces import LoginContext, User
from mailserver.auth.schemes import schemes
from mailserver.auth.schemes.passwd import BadName, normalise
from mailserver.explain.trace import Rule

Find = Callable[[Sequence[str]], Awaitable[tuple[User, object] | None]]
"""Finds the user of the first name that exists, and its back end; None if none does."""


@frozen
class Names:
    """Local domains, and the completion of names without a domain. All in lower case."""

    domains: frozenset[str]
    default_domain: str
    """Empty: none."""
    domain_of: Callable[[str | None], str | None]
    """The mail domain that a host of the configuration belongs to."""
    vouches: Callable[[str | None, str], bool] = lambda _host, _domain: False
    """(host, domain): does a client certificate accepted for the host hold for users of that mail domain; of any, if empty?"""
    demands: Callable[[str], bool] = lambda _domain: False
    """(domain): must clients of users of that mail domain present a certificate; of any, if empty?"""
    names_user: Callable[[str], bool] = lambda _domain: True
    """(domain): must that certificate name the user that logs in?"""
    detail_separator: str = "+"
    """Of details in addresses, in domains that have none of their own; empty: there are none."""

    def candidates(self, name: str, host: str | None) -> list[str]:
        """The accounts that a normalised name may mean, in the order of lookup: the name itself; then the name with the
        domain of the served host, or with the default domain if the host has none.
        """
        if "@" in name:
            return [name]
        domain = self.domain_of(host) or self.default_domain
        return [name, f"{name}@{domain}"] if domain else [name]

    def domain_of_user(self, user: User) -> str:
        """The mail domain of an account; empty where it has none."""
        return user.name.partition("@")[2] or self.default_domain


def entry_fault(stored: str | None, user: User, *, weak_schemes: bool) -> tuple[Rule, str]:
    """The rule and the reason, for the log, why no password matches a stored entry; an empty reason if one may."""
    if stored is None:
        return Rule.DISABLED, f"{user.name} is disabled"
    if not stored:
        return Rule.UNSET, f"{user.name} has no password"
    try:
        scheme = schemes.parse(stored).scheme
    except schemes.BadHash as error:
        return Rule.UNUSABLE, f"the stored password of {user.name} cannot be used: {error}"
    if scheme.is_weak and not weak_schemes:
        return (
            Rule.WEAK_SCHEME,
            f"the password of {user.name} is stored by {scheme.name}, and weak_schemes of [auth] is false",
        )
    return Rule.OTHER, ""


def limits_fault(user: User, context: LoginContext, *, by_password: bool) -> str:
    """The reason why the user may not log in from the client's address, or by the protocol, for the log; empty if it may.

    `by_password`: it has proved its main password.
    """
    limits = user.limits
    if not limits.allows(context.peer):
        listed = ",".join(limits.networks or ())
        return (
            f"{user.name} may not log in from {context.peer or 'a Unix socket'}: its allow_nets is {listed or 'empty'}"
        )
    if limits.allow_protocol(context.protocol, by_password=by_password):
        return ""
    if limits.allow_protocol(context.protocol, by_password=False):
        return f"the password is right, but for {context.protocol} {user.name} needs an app password"
    return f"{user.name} may not log in by {context.protocol}"


async def certificate_fault(names: Names, find: Find, user: User, context: LoginContext) -> str:
    """The reason why the client's certificate is not sufficient for the user's domain, for the log; empty if it is.

    A host name without client certificates is no way around the requirement of the user's domain, and neither is the
    certificate of another user. Raises: AuthUnavailable.
    """
    domain = names.domain_of_user(user)
    if not names.demands(domain):
        return ""
    right = f"the password is right, but the domain of {user.name} requires a client certificate"
    if context.certificate is None:
        return f"{right}: the client presented none, or connected to a host name that requests none"
    shown = f"the client presented {context.certificate.label}"
    if not names.vouches(context.host, domain):
        return f"{right}: {shown}, which was not accepted for a host name of that domain"
    if names.names_user(domain) and not await _is_named(names, find, user, context):
        return f"{right} with the user's own name: {shown}"
    return ""


async def _is_named(names: Names, find: Find, user: User, context: LoginContext) -> bool:
    """Does the certificate name that user? As with EXTERNAL, the first candidate that exists counts."""
    assert context.certificate is not None
    try:
        name = normalise(context.certificate.user)
    except BadName:
        return False
    if "@" not in user.name and name == f"{user.name}@{names.default_domain}":
        return True
    candidates = names.candidates(name, context.host)
    found = await find(candidates) if user.name in candidates else None
    return found is not None and found[0].name == user.name
