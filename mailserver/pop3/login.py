"""Commands of the AUTHORIZATION state: USER, PASS, AUTH, STLS, and CAPA of both states.

Without TLS a password is neither offered nor taken, whatever it is: the answer comes before anything about it is
looked at (RFC 2595 2.1).
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from mailserver.errors import BadSyntax, MailError, PrivacyRequired, WrongState
from mailserver.pop3.spec import CommandSpec, State
from mailserver.sasl.mechanism import Credentials
from mailserver.session.cost import CONSTANT, Cost
from mailserver.session.lines import Refused
from mailserver.session.sasl_exchange import Exchange, ExchangeCancelled, login_context, situation, tell_exposed
from mailserver.types import Secret

if TYPE_CHECKING:
    from mailserver.pop3.session import Session


async def capa(session: Session, argument: bytes) -> None:
    """CAPA (RFC 2449 5): the capabilities of this state."""
    if argument:
        raise BadSyntax("CAPA takes no argument")
    info = session.channel.info
    capabilities = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER"]
    if info.password_allowed:
        capabilities.append("USER")
    if info.login_allowed:
        services = session.services
        offered = services.mechanisms.offered(situation(session.channel, services.authenticator))
        capabilities += [" ".join(["SASL", *offered])] if offered else []
    if info.starttls_offered and info.tls is None and session.state is State.AUTHORIZATION:
        capabilities.append("STLS")
    if session.state is State.TRANSACTION:
        capabilities.append(f"IMPLEMENTATION {_implementation()}")
    session.ok("capabilities follow")
    session.channel.write("\r\n".join([*capabilities, ".", ""]).encode("ascii"))


def _implementation() -> str:
    try:
        return f"mailserver-{version('mailserver')}"
    except PackageNotFoundError:
        return "mailserver"


async def stls(session: Session, argument: bytes) -> None:
    """STLS (RFC 2595 4). What was learnt before TLS is forgotten; a byte behind the command ends the connection."""
    if argument:
        raise BadSyntax("STLS takes no argument")
    info = session.channel.info
    if info.tls is not None or not info.starttls_offered:
        raise WrongState("TLS cannot be started here")
    if session.reader.pending:
        session.channel.log("plaintext-behind-stls")
        session.error("nothing may follow STLS before the handshake")
        session.end()
        return
    session.ok("begin TLS")
    await session.channel.start_tls()
    session.user_name = None


async def user(session: Session, argument: bytes) -> None:
    """USER (RFC 1939 7). Every name gets the same answer."""
    if not session.channel.info.password_allowed:
        # Who sends PASS all the same, as pipelined commands may, has given the password away.
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
            tell_exposed(channel, authenticator, "pop3", Credentials(name, Secret(argument)), "USER")
        raise PrivacyRequired
    if session.user_name is None:
        raise WrongState("USER must come first")
    await session.login(Credentials(session.user_name, Secret(argument)), "USER")


def _read_name(argument: bytes) -> str:
    try:
        name = argument.decode("utf-8")
    except UnicodeDecodeError:
        raise BadSyntax("a name is UTF-8") from None
    if not name:
        raise BadSyntax("USER needs a name")
    return name


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
        if isinstance(line, Refused):
            raise BadSyntax(line.value)
        return line

    exchange = Exchange(mechanism, ask, services.authenticator, login_context("pop3", channel.info))
    try:
        user = await exchange.run(initial or None)
    except (BadSyntax, ExchangeCancelled):
        raise
    except MailError as error:
        session.login_failed(exchange.name, method, error)
        raise
    session.user_name = None
    await session.enter(user, method)


_AUTHORIZATION = frozenset([State.AUTHORIZATION])
_ANY = frozenset(State)

COMMANDS = (
    CommandSpec(b"CAPA", _ANY, capa, "RFC 2449 5", cost=CONSTANT),
    CommandSpec(b"STLS", _AUTHORIZATION, stls, "RFC 2595 4", cost=CONSTANT),
    CommandSpec(b"USER", _AUTHORIZATION, user, "RFC 1939 7", cost=CONSTANT),
    CommandSpec(
        b"PASS",
        _AUTHORIZATION,
        pass_,
        "RFC 1939 7",
        cost=Cost("messages of the INBOX", "hashing process, then the account's thread"),
    ),
    CommandSpec(
        b"AUTH",
        _AUTHORIZATION,
        auth,
        "RFC 5034 4",
        cost=Cost("messages of the INBOX", "hashing process, then the account's thread"),
    ),
)
