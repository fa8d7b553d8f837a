"""AUTH (RFC 4954), in submission only: the command, the mechanisms that EHLO lists, the parameter of MAIL."""

from __future__ import annotations

from typing import ClassVar

from mailserver.errors import AuthUnavailable, BadSyntax, LimitReached, MailError, WrongState
from mailserver.session.cost import HASHING, Cost
from mailserver.session.lines import LineFault
from mailserver.session.login_refusal import refuse_login
from mailserver.session.sasl_exchange import (
    ExchangeCancelled,
    InvalidBase64,
    SaslExchange,
    login_context,
    situation,
)
from mailserver.smtp.address import is_auth_parameter
from mailserver.smtp.command import SUBMISSION_ONLY, CommandSpec, Extension, Parameter
from mailserver.smtp.submission import SubmissionSession
from mailserver.smtp.wire import reply, reply_to

MAX_LOGIN_FAILURES = 5
"""Failed logins that a connection may make."""


class UnknownMechanism(BadSyntax):
    """RFC 4954 4."""

    smtp_reply: ClassVar[tuple[int, str]] = (504, "5.5.4")
    text = "no such mechanism"


class ExchangeTooLong(BadSyntax):
    """A response over the limit (RFC 4954 4.1)."""

    smtp_reply: ClassVar[tuple[int, str]] = (500, "5.5.6")
    text = "authentication exchange line is too long"


def offer(session: SubmissionSession) -> str | None:
    """The EHLO line: the mechanisms that may come now, until the client has logged in (RFC 4954 4)."""
    if session.user is not None or not session.channel.info.login_allowed:
        return None
    mechanisms = session.services.mechanisms.offered(situation(session.channel, session.services.authenticator))
    return " ".join(["AUTH", *mechanisms]) if mechanisms else None


def parse_auth(_session: SubmissionSession, value: str | None) -> str:
    """AUTH of MAIL (RFC 4954 5), which is not used. Raises: BadSyntax."""
    if value is None or not is_auth_parameter(value):
        raise BadSyntax("AUTH is xtext or <>")
    return value


async def auth(session: SubmissionSession, argument: bytes) -> None:
    """AUTH (RFC 4954 4): once, after EHLO and TLS. It never comes within a transaction, which needs a login first."""
    method, initial = session.read_auth(session.services.authenticator, argument)
    if not session.extended:
        raise WrongState("say EHLO first")
    if session.user is not None:
        raise WrongState("you are logged in")
    channel, authenticator = session.channel, session.services.authenticator
    mechanism = session.services.mechanisms.start(method, situation(channel, authenticator))
    if mechanism is None:
        raise UnknownMechanism

    async def ask(challenge: bytes) -> bytes:
        session.reply(reply(334, None, challenge.decode("ascii")))
        line = await session.read_line()
        if line is LineFault.TOO_LONG:
            raise ExchangeTooLong
        if isinstance(line, LineFault):
            raise InvalidBase64
        return line

    context = login_context("submission", channel.info)
    exchange = SaslExchange(mechanism, ask, authenticator, context)
    try:
        user = await exchange.run(initial or None)
        await authenticator.confirm(user, context)
        channel.logged_in(user.name, user.credential, user.delegate)
    except (BadSyntax, ExchangeCancelled) as error:
        if not exchange.lacks_proof:
            raise
        refuse_login(channel, authenticator, context, exchange.name, error, method=method)
        _refuse(session, error)
        return
    except MailError as error:
        refuse_login(channel, authenticator, context, exchange.name, error, method=method)
        _refuse(session, AuthUnavailable(error.sentence) if isinstance(error, LimitReached) else error)
        return
    session.user = user
    channel.log("login", user=user.name, method=method)
    authenticator.accepted(user, method, context)
    session.reply(reply(235, "2.7.0", "logged in"))


def _refuse(session: SubmissionSession, error: MailError) -> None:
    session.reply(reply_to(error))
    session.login_failures += 1
    if session.login_failures >= MAX_LOGIN_FAILURES:
        session.cut(reply(421, "4.7.0", "too many failed logins, closing the connection"), "too-many-errors")


EXTENSIONS = (
    Extension(
        "AUTH",
        "RFC 4954",
        offer,
        mail=(Parameter("AUTH", parse_auth),),
        commands=(CommandSpec(b"AUTH", auth, "RFC 4954 4", before_tls=True, cost=Cost("", HASHING)),),
        roles=SUBMISSION_ONLY,
        defined_in=__name__,
    ),
)
