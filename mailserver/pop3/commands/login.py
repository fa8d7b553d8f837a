"""USER, PASS and AUTH: the way from a connection to a maildrop (RFC 1939 7, RFC 5034).

Without TLS a password is neither offered nor accepted, whatever it is: the answer comes before anything about it is
checked (RFC 2595 2.1).
"""

from __future__ import annotations

from mailserver.errors import BadSyntax, MailError, PrivacyRequired, WrongState
from mailserver.pop3.command import AUTHORIZATION, Capability, CommandSpec
from mailserver.pop3.session import Session
from mailserver.sasl.mechanism import Credentials
from mailserver.session.cost import CONSTANT, Cost
from mailserver.session.lines import LineFault
from mailserver.session.sasl_exchange import (
    ExchangeCancelled,
    SaslExchange,
    login_context,
    report_exposed_password,
    situation,
)
from mailserver.types import Secret


async def user(session: Session, argument: bytes) -> None:
    """USER (RFC 1939 7). Every name gets the same answer."""
    if not session.channel.info.password_allowed:
        # A client that sends PASS all the same, as one that pipelines may, has disclosed the password.
        session.user_name = argument.decode("utf-8", "replace")
        raise PrivacyRequired
    session.user_name = _read_name(argument)
    session.ok("send the password")


async def pass_(session: Session, argument: bytes) -> None:
    """PASS (RFC 1939 7). The password is all that follows the first space."""
    if not session.channel.info.password_allowed:
        name, session.user_name = session.user_name, None
        if name:
            channel, authenticator = session.channel, session.services.authenticator
            report_exposed_password(channel, authenticator, "pop3", Credentials(name, Secret(argument)), "USER")
        raise PrivacyRequired
    if session.user_name is None:
        raise WrongState("USER must come first")
    if session.utf8:
        _decode(argument, "a password")
    await session.login(Credentials(session.user_name, Secret(argument)), "USER")


def _read_name(argument: bytes) -> str:
    name = _decode(argument, "a name")
    if not name:
        raise BadSyntax("USER needs a name")
    return name


def _decode(argument: bytes, what: str) -> str:
    try:
        return argument.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSyntax(f"{what} is UTF-8") from None


async def auth(session: Session, argument: bytes) -> None:
    """AUTH (RFC 5034): a SASL exchange, with or without an initial response."""
    method, initial = session.read_auth(session.services.authenticator, argument)
    channel, services = session.channel, session.services
    mechanism = services.mechanisms.start(method, situation(channel, services.authenticator))
    if mechanism is None:
        raise BadSyntax("no such mechanism")

    async def ask(challenge: bytes) -> bytes:
        channel.write(b"+ %b\r\n" % challenge)
        line = await session.read_line()
        if isinstance(line, LineFault):
            raise BadSyntax(line.value)
        return line

    context = login_context("pop3", channel.info)
    exchange = SaslExchange(mechanism, ask, services.authenticator, context)
    try:
        user = await exchange.run(initial or None)
    except (BadSyntax, ExchangeCancelled) as error:
        if exchange.lacks_proof:
            session.login_failed(context, exchange.name, method, error)
        raise
    except MailError as error:
        session.login_failed(context, exchange.name, method, error)
        raise
    session.user_name = None
    await session.enter(user, method, context)


def offer_user(session: Session) -> str | None:
    """The line of CAPA, where a password may come (RFC 2595 2.1)."""
    return "USER" if session.channel.info.password_allowed else None


def offer_sasl(session: Session) -> str | None:
    """The line of CAPA: the mechanisms that may come now (RFC 5034 3)."""
    if not session.channel.info.login_allowed:
        return None
    services = session.services
    mechanisms = services.mechanisms.offered(situation(session.channel, services.authenticator))
    return " ".join(["SASL", *mechanisms]) if mechanisms else None


_LOGIN = Cost("messages of the INBOX", "hashing process, then the account's thread")

COMMANDS = (
    CommandSpec(b"USER", AUTHORIZATION, user, "RFC 1939 7", (Capability("USER", offer_user),), cost=CONSTANT),
    CommandSpec(b"PASS", AUTHORIZATION, pass_, "RFC 1939 7", cost=_LOGIN),
    CommandSpec(b"AUTH", AUTHORIZATION, auth, "RFC 5034 4", (Capability("SASL", offer_sasl),), cost=_LOGIN),
)
