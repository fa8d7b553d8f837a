"""AUTH (RFC 4954), of submission only."""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING, ClassVar

from mailserver.auth.interfaces import LoginContext
from mailserver.errors import AuthFailed, AuthUnavailable, BadSyntax, LimitReached, MailError, WrongState
from mailserver.lines import Refused
from mailserver.sasl.mechanism import Challenge, Credentials, Failed
from mailserver.smtp.spec import CommandSpec
from mailserver.smtp.wire import reply, reply_to

if TYPE_CHECKING:
    from mailserver.smtp.submission import SubmissionSession

MAX_LOGIN_FAILURES = 5
"""Failed logins that a connection may make."""

_MECHANISM = re.compile(rb"[A-Za-z0-9_-]{1,20}")


class UnknownMechanism(BadSyntax):
    """RFC 4954 4."""

    smtp_reply: ClassVar[tuple[int, str]] = (504, "5.5.4")
    text = "no such mechanism"


class BadExchange(BadSyntax):
    """What a client sent is not base64, or not what the mechanism wants (RFC 4954 4)."""

    smtp_reply: ClassVar[tuple[int, str]] = (501, "5.5.2")
    text = "that is not base64"


class Cancelled(MailError):
    """The client sent `*` (RFC 4954 4)."""

    smtp_reply: ClassVar[tuple[int, str]] = (501, "5.7.0")
    text = "authentication was cancelled"


class ExchangeTooLong(BadSyntax):
    """A response over the limit (RFC 4954 4.1)."""

    smtp_reply: ClassVar[tuple[int, str]] = (500, "5.5.6")
    text = "authentication exchange line is too long"


async def auth(session: SubmissionSession, argument: bytes) -> None:
    """AUTH: once, after EHLO. It never comes within a transaction: that needs a login first."""
    name, space, initial = argument.partition(b" ")
    if not _MECHANISM.fullmatch(name) or (space and not initial) or b" " in initial:
        raise BadSyntax("AUTH needs a mechanism, and at most an initial response")
    if not session.extended:
        raise WrongState("say EHLO first")
    if session.user is not None:
        raise WrongState("you are logged in")
    mechanism_name = name.decode("ascii").upper()
    make = session.services.mechanisms.get(mechanism_name)
    if make is None:
        raise UnknownMechanism
    mechanism = make()
    step = mechanism.step(None if not initial else b"" if initial == b"=" else _decode(initial))
    while isinstance(step, Challenge):
        challenge = binascii.b2a_base64(step.data, newline=False).decode("ascii")
        session.reply(reply(334, None, challenge))
        line = await session.read_line()
        if line is Refused.TOO_LONG:
            raise ExchangeTooLong
        if isinstance(line, Refused):
            raise BadExchange
        if line == b"*":
            raise Cancelled
        step = mechanism.step(_decode(line))
    if isinstance(step, Failed):
        session.channel.log("login-failed", method=mechanism_name, reason=step.reason)
        _refuse(session, AuthFailed())
        return
    await _log_in(session, step.credentials, mechanism_name)


async def _log_in(session: SubmissionSession, credentials: Credentials, method: str) -> None:
    channel, info = session.channel, session.channel.info
    server_name = info.tls.server_name if info.tls else None
    context = LoginContext("submission", info.peer, server_name, info.session_id)
    try:
        user = await session.common.authenticator.login(credentials, context)
        channel.logged_in(user.name)
    except MailError as error:
        channel.log("login-failed", user=credentials.name, method=method, reason=error.sentence)
        _refuse(session, AuthUnavailable(error.sentence) if isinstance(error, LimitReached) else error)
        return
    session.user = user
    channel.log("login", user=user.name, method=method)
    session.reply(reply(235, "2.7.0", "logged in"))


def _refuse(session: SubmissionSession, error: MailError) -> None:
    session.reply(reply_to(error))
    session.login_failures += 1
    if session.login_failures >= MAX_LOGIN_FAILURES:
        session.cut(reply(421, "4.7.0", "too many failed logins, closing the connection"), "too-many-errors")


def _decode(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise BadExchange from None


COMMANDS = (CommandSpec(b"AUTH", auth, "RFC 4954 4"),)
