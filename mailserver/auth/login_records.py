"""Records of logins for `explain`, made of the trace, the circumstances and the error."""

from __future__ import annotations

import time
from typing import Final

from mailserver.auth.interfaces import LoginContext, User
from mailserver.errors import (
    AccountChanged,
    AuthFailed,
    AuthorizationFailed,
    AuthUnavailable,
    LimitReached,
    MailError,
    TooManyLogins,
)
from mailserver.explain.record import Record
from mailserver.explain.trace import Rule

_DECIDED: Final = (Rule.BANNED, Rule.CANCELLED)
"""Rules that hold whatever the class of the error is."""


def refusal_record(error: MailError, ref: str, name: tuple[str, str], method: str, context: LoginContext) -> Record:
    """The record of a refused login. `name`: as typed, which may be a password, and as it may be shown."""
    trace = context.trace
    is_delegate = bool(trace.user and trace.acting_for)
    rule = trace.rule
    if rule is None or not (isinstance(error, AuthFailed) or rule in _DECIDED):
        rule = _rule_of(error, trace.user)
    typed, shown = name
    return Record(
        time.time(),
        ref=ref,
        typed=shown,
        user=trace.acting_for if is_delegate else trace.user,
        delegate=trace.user if is_delegate else "",
        # Of a name that may be a password, which is the first one, only the domains that completed it.
        names=trace.names if shown == typed else tuple("@" + each.partition("@")[2] for each in trace.names[1:]),
        protocol=context.protocol,
        peer="" if context.peer is None else str(context.peer),
        session=context.session_id,
        server_name=context.server_name or "",
        host=context.host or "",
        tls=context.tls,
        method=method,
        rule=rule.value,
        reason=error.reason,
        waited=trace.waited,
        delay=trace.delay,
        calls=tuple(trace.calls),
    )


def login_record(user: User, method: str, context: LoginContext) -> Record:
    """The record of a login that was let in."""
    return Record(
        time.time(),
        user=user.name,
        delegate=user.delegate,
        credential=user.credential,
        protocol=context.protocol,
        peer="" if context.peer is None else str(context.peer),
        session=context.session_id,
        server_name=context.server_name or "",
        host=context.host or "",
        tls=context.tls,
        method=method,
    )


def _rule_of(error: MailError, user: str) -> Rule:
    match error:
        case TooManyLogins():
            return Rule.TOO_MANY
        case AccountChanged():
            return Rule.CHANGED
        case AuthUnavailable():
            return Rule.UNAVAILABLE
        case AuthorizationFailed():
            return Rule.AUTHORIZATION
        case AuthFailed():
            return Rule.EXCHANGE
        case LimitReached():
            return Rule.LIMIT
    return Rule.MAILBOX if user else Rule.OTHER
