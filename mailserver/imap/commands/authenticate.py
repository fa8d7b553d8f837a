"""STARTTLS, LOGIN and AUTHENTICATE (RFC 3501 6.2, RFC 4959).

Without TLS no password is accepted, nor requested by a continuation or a literal: the rows' precondition refuses the
command first, alike for right, wrong and unknown names. Afterwards a password that was sent all the same is recorded as
exposed.
"""

from __future__ import annotations

from mailserver.auth.interfaces import LoginContext, User
from mailserver.errors import AuthFailed, BadSyntax, Cannot, MailError, PrivacyRequired
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.session import Session
from mailserver.imap.wire.reader import Reader
from mailserver.sasl.mechanism import Credentials
from mailserver.session.cost import CONSTANT, HASHING, Cost
from mailserver.session.login_refusal import refuse_login
from mailserver.session.sasl_exchange import (
    ExchangeCancelled,
    ExposedExchange,
    ProofMissing,
    SaslExchange,
    login_context,
    may_begin,
    report_exposed_password,
    situation,
)
from mailserver.types import Secret


def password_allowed(session: Session) -> None:
    """Raises: PrivacyRequired before TLS."""
    if not session.channel.info.password_allowed:
        raise PrivacyRequired


def login_allowed(session: Session) -> None:
    """Raises: PrivacyRequired where no mechanism may come without TLS."""
    if not session.channel.info.login_allowed:
        raise PrivacyRequired


def tls_offered(session: Session) -> None:
    """Raises: BadSyntax where TLS cannot be started."""
    if not session.channel.info.starttls_offered:
        raise BadSyntax("TLS is active already" if session.channel.info.tls else "TLS is not offered here")


def offer_starttls(session: Session) -> list[str]:
    """STARTTLS, where TLS can be started."""
    return ["STARTTLS"] if session.account is None and session.channel.info.starttls_offered else []


def offer_login(session: Session) -> list[str]:
    """LOGINDISABLED, where no password may come yet."""
    return ["LOGINDISABLED"] if session.account is None and not session.channel.info.password_allowed else []


def offer_mechanisms(session: Session) -> list[str]:
    """AUTH= and each mechanism that may come now; none once the client has logged in."""
    if session.account is not None or not session.channel.info.login_allowed:
        return []
    services = session.services
    return [f"AUTH={name}" for name in services.mechanisms.offered(situation(session.channel, services.authenticator))]


async def starttls(session: Session, command: Command) -> str:
    """RFC 3501 6.2.1. Bytes behind the command could be run as if they came inside TLS: the connection ends."""
    command.reader.read_end()
    if session.input.buffered:
        session.channel.log("plaintext-behind-starttls")
        session.bye("bytes were sent behind STARTTLS")
        raise BadSyntax("nothing may be sent behind STARTTLS before TLS is active")

    async def start() -> None:
        await session.channel.start_tls()
        session.reset_for_tls()

    session.after_reply(start)
    return "begin TLS now"


async def login(session: Session, command: Command) -> str:
    """RFC 3501 6.2.3."""
    context = login_context("imap", session.channel.info)
    try:
        credentials = _read_login(command.reader)
    except AuthFailed as error:
        _refuse(session, context, "", "LOGIN", error)
        raise
    try:
        user = await session.services.authenticator.login(credentials, context)
    except MailError as error:
        _refuse(session, context, credentials.name, "LOGIN", error)
        raise
    return await _enter(session, user, "LOGIN", context)


def _read_login(reader: Reader) -> Credentials:
    """Raises: BadSyntax; AuthFailed for a name that no user can have."""
    reader.read_sp()
    name = reader.read_astring()
    reader.read_sp()
    password = reader.read_astring()
    reader.read_end()
    try:
        return Credentials(name.decode("utf-8"), Secret(password))
    except UnicodeDecodeError:
        raise AuthFailed("the user name is not UTF-8") from None


def login_exposed(session: Session, reader: Reader) -> None:
    """Record the password of a LOGIN that came before TLS."""
    report_exposed_password(session.channel, session.services.authenticator, "imap", _read_login(reader), "LOGIN")


def authenticate_exposed(session: Session, reader: Reader) -> None:
    """Follow an AUTHENTICATE that came before TLS."""
    _overhear(session, *_read_authenticate(reader))


def _overhear(session: Session, name: str, initial: bytes | None) -> None:
    """Follow a refused exchange: the client may continue it, by lines that are no commands."""
    exchange = session.exposed_exchange = ExposedExchange(session.channel, session.services.authenticator, name)
    if initial is not None:
        exchange.take(initial)


def _read_authenticate(reader: Reader) -> tuple[str, bytes | None]:
    """The mechanism, and the initial response as it was sent. Raises: BadSyntax."""
    reader.read_sp()
    name = reader.read_word()
    if reader.at_end:
        return name, None
    reader.read_sp()
    initial = reader.rest()
    if not initial:
        raise BadSyntax("expected an initial response")
    return name, initial


async def authenticate(session: Session, command: Command) -> str:
    """RFC 3501 6.2.2, with an initial response (RFC 4959)."""
    name, initial = _read_authenticate(command.reader)
    services = session.services
    if not may_begin(session.channel.info, name):
        _overhear(session, name, initial)
        raise PrivacyRequired
    mechanism = services.mechanisms.start(name, situation(session.channel, services.authenticator))
    if mechanism is None:
        raise Cannot("that mechanism is not offered")
    context = login_context("imap", session.channel.info)
    exchange = SaslExchange(mechanism, session.input.read_continuation, services.authenticator, context)
    try:
        user = await exchange.run(initial)
    except (BadSyntax, ExchangeCancelled) as error:
        if not exchange.lacks_proof:
            raise
        missing = ProofMissing()
        _refuse(session, context, exchange.name, name, missing)
        raise missing from error
    except MailError as error:
        _refuse(session, context, exchange.name, name, error)
        raise
    return await _enter(session, user, name, context)


async def _enter(session: Session, user: User, method: str, context: LoginContext) -> str:
    """Open the account of a verified user. Raises: MailError, and the state is as before."""
    channel, accounts = session.channel, session.services.accounts
    try:
        account = await accounts.open(user.name, user.home, session.services.quotas.of_user(user))
        try:
            await session.services.authenticator.confirm(user, context)
            channel.logged_in(user.name, user.credential, user.delegate)
        except MailError:
            accounts.release(account)
            raise
    except MailError as error:
        _refuse(session, context, user.name, method, error)
        raise
    session.enter(account, user.name)
    channel.log("login", user=user.name, method=method)
    session.services.authenticator.accepted(user, method, context)
    return f"[CAPABILITY {session.capabilities()}] logged in"


def _refuse(session: Session, context: LoginContext, name: str, method: str, error: MailError) -> None:
    refuse_login(session.channel, session.services.authenticator, context, name, error, method=method)


STARTTLS = Capability("STARTTLS", "RFC 3501", __name__, "starttls", offer=offer_starttls, when="before TLS")
LOGINDISABLED = Capability("LOGINDISABLED", "RFC 3501", __name__, "logindisabled", offer=offer_login, when="before TLS")
AUTH = Capability("AUTH", "RFC 3501", __name__, "authenticate", offer=offer_mechanisms, when="before login")
SASL_IR = Capability("SASL-IR", "RFC 4959", __name__, "authenticate-initial")

COMMANDS = (
    CommandSpec(
        "STARTTLS",
        State.NOT_AUTHENTICATED,
        starttls,
        capabilities=(STARTTLS,),
        precondition=tls_offered,
        cost=CONSTANT,
    ),
    CommandSpec(
        "LOGIN",
        State.NOT_AUTHENTICATED,
        login,
        capabilities=(LOGINDISABLED,),
        precondition=password_allowed,
        exposed=login_exposed,
        cost=Cost("", HASHING),
    ),
    CommandSpec(
        "AUTHENTICATE",
        State.NOT_AUTHENTICATED,
        authenticate,
        capabilities=(AUTH, SASL_IR),
        reference="RFC 3501, RFC 4959",
        precondition=login_allowed,
        exposed=authenticate_exposed,
        max_literal=0,
        cost=Cost("", HASHING),
    ),
)
