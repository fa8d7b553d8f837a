"""STARTTLS, LOGIN and AUTHENTICATE (RFC 3501 6.2, RFC 4959): the way from a connection to a user.

Without TLS no password is accepted, nor asked for by a continuation or a literal: the rows' precondition refuses the
command first, alike for right, wrong and unknown names.
"""

from __future__ import annotations

import binascii

from mailserver.auth.interfaces import LoginContext
from mailserver.errors import AuthFailed, BadSyntax, Cannot, MailError, PrivacyRequired
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.session import Session
from mailserver.sasl.mechanism import Challenge, Credentials, Done
from mailserver.types import Secret

LOGGED_NAME = 255
"""Characters of a name that the log keeps: anybody can send one."""


def password_allowed(session: Session) -> None:
    """Raises: PrivacyRequired before TLS."""
    if not session.channel.info.password_allowed:
        raise PrivacyRequired


def tls_offered(session: Session) -> None:
    """Raises: BadSyntax where TLS cannot be started."""
    if not session.channel.info.starttls_offered:
        raise BadSyntax("TLS is on already" if session.channel.info.tls else "TLS is not offered here")


async def starttls(session: Session, command: Command) -> str:
    """RFC 3501 6.2.1. Bytes behind the command could be run as if they came inside TLS: the connection ends."""
    command.reader.read_end()
    if session.input.buffered:
        session.channel.log("plaintext-behind-starttls")
        session.bye("bytes were sent behind STARTTLS")
        raise BadSyntax("nothing may be sent behind STARTTLS before TLS is on")

    async def start() -> None:
        await session.channel.start_tls()
        session.forget()

    session.then(start)
    return "begin TLS now"


async def login(session: Session, command: Command) -> str:
    """RFC 3501 6.2.3."""
    reader = command.reader
    reader.read_sp()
    name = reader.read_astring()
    reader.read_sp()
    password = reader.read_astring()
    reader.read_end()
    try:
        credentials = Credentials(name.decode("utf-8"), Secret(password))
    except UnicodeDecodeError:
        raise AuthFailed from None
    return await _log_in(session, credentials, "LOGIN")


async def authenticate(session: Session, command: Command) -> str:
    """RFC 3501 6.2.2, with an initial response (RFC 4959)."""
    reader = command.reader
    reader.read_sp()
    name = reader.read_word()
    response = None
    if not reader.at_end:
        reader.read_sp()
        rest = reader.rest()
        if not rest:
            raise BadSyntax("expected an initial response")
        response = b"" if rest == b"=" else _decode(rest)
    make_mechanism = session.services.mechanisms.get(name)
    if make_mechanism is None:
        raise Cannot("that mechanism is not offered")
    mechanism = make_mechanism()
    step = mechanism.step(response)
    while isinstance(step, Challenge):
        line = await session.input.read_continuation(binascii.b2a_base64(step.data, newline=False))
        if line == b"*":
            raise BadSyntax("cancelled")
        step = mechanism.step(_decode(line))
    if not isinstance(step, Done):
        raise BadSyntax(step.reason)
    return await _log_in(session, step.credentials, name)


def _decode(data: bytes) -> bytes:
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except binascii.Error:
        raise BadSyntax("expected base64") from None


async def _log_in(session: Session, credentials: Credentials, method: str) -> str:
    channel, accounts = session.channel, session.services.accounts
    facts = channel.info
    server_name = facts.tls.server_name if facts.tls else None
    try:
        user = await session.services.authenticator.login(
            credentials, LoginContext("imap", facts.peer, server_name, facts.session_id)
        )
        account = await accounts.open(user.name, user.home)
        try:
            channel.logged_in(user.name)
        except MailError:
            accounts.release(account)
            raise
    except MailError as error:
        channel.log("login-failed", user=credentials.name[:LOGGED_NAME], method=method, reason=error.sentence)
        raise
    session.enter(account, user.name)
    channel.log("login", user=user.name, method=method)
    return f"[CAPABILITY {session.capabilities()}] logged in"


COMMANDS = (
    CommandSpec("STARTTLS", State.NOT_AUTHENTICATED, starttls, precondition=tls_offered),
    CommandSpec("LOGIN", State.NOT_AUTHENTICATED, login, precondition=password_allowed),
    CommandSpec(
        "AUTHENTICATE",
        State.NOT_AUTHENTICATED,
        authenticate,
        capabilities=("SASL-IR",),
        reference="RFC 3501, RFC 4959",
        precondition=password_allowed,
        max_literal=0,
    ),
)
