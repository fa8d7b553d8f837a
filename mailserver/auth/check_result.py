"""Results of the check of one claim, with the reasons for the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from attrs import frozen

from mailserver.auth.interfaces import IAppPasswords, IAuthBackend, LoginContext, User
from mailserver.explain.names import shown_name
from mailserver.explain.trace import Rule


@frozen
class CheckResult:
    """The result of a check."""

    user: User | None
    reason: str = ""
    """For the log, where there is no user."""
    rule: Rule = Rule.OTHER
    """The rule behind the reason."""
    reused: bool = False
    """Nothing was hashed, as the password was right recently."""
    entry: tuple[IAuthBackend, str] | None = None
    """The back end, and the stored entry that the password is right for."""


def result_of_app_password(credential: str, user: User, backend: IAuthBackend, context: LoginContext) -> CheckResult:
    """The user, let in by an app password that was proved, if it is for this protocol."""
    found = None
    if IAppPasswords.providedBy(backend):
        found = cast("IAppPasswords", backend).app_password(credential, user)
    if found is None:
        return CheckResult(
            None, f"an app password of {user.name} was revoked, or expired, while it was checked", Rule.EXPIRED
        )
    if found.protocols is not None and context.protocol not in found.protocols:
        return CheckResult(
            None, f"the app password {found.label} of {user.name} is not for {context.protocol}", Rule.PROTOCOL
        )
    return CheckResult(found.user)


def unknown_user(candidates: Sequence[str]) -> str:
    """The reason for the log: no such user. A name without a domain may be a password, typed into the wrong field."""
    typed = candidates[0]
    if shown_name(typed) == typed:
        return f"there is no user {typed}"
    completed = f", with or without @{candidates[-1].partition('@')[2]}" if len(candidates) > 1 else ""
    return f"there is no user of the typed name {shown_name(typed)}{completed}"
