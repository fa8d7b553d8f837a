"""Commands of the AUTHORIZATION state: USER, PASS, AUTH, STLS, and CAPA of both states.

Without TLS a password is neither offered nor taken, whatever it is: the answer comes before anything about it is
looked at (RFC 2595 2.1).
"""

from __future__ import annotations

import binascii
import re
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from mailserver.errors import AuthFailed, BadSyntax, MailError, PrivacyRequired, WrongState
from mailserver.lines import Refused
from mailserver.pop3.spec import CommandSpec, State
from mailserver.sasl.mechanism import Challenge, Credentials, Failed
from mailserver.types import Secret

if TYPE_CHECKING:
    from mailserver.pop3.session import Session


_MECHANISM = re.compile(rb"[A-Za-z0-9_-]{1,20}")


class NotCompleted(MailError):
    """A SASL exchange that ended without credentials: cancelled, or not understood (RFC 5034 4)."""

    text = "authentication was cancelled"


def _require_privacy(session: Session) -> None:
    if not session.channel.info.password_allowed:
        raise PrivacyRequired


async def capa(session: Session, argument: bytes) -> None:
    """CAPA (RFC 2449 5): the capabilities of this state."""
    if argument:
        raise BadSyntax("CAPA takes no argument")
    info = session.channel.info
    capabilities = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER"]
    if info.password_allowed:
        capabilities += ["USER", " ".join(["SASL", *session.services.mechanisms])]
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
    _require_privacy(session)
    session.user_name = _read_name(argument)
    session.ok("send the password")


async def pass_(session: Session, argument: bytes) -> None:
    """PASS (RFC 1939 7). The password is all that follows the first space."""
    _require_privacy(session)
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
    _require_privacy(session)
    name, space, initial = argument.partition(b" ")
    if not _MECHANISM.fullmatch(name) or (space and not initial) or b" " in initial:
        raise BadSyntax("AUTH needs a mechanism, and at most an initial response")
    mechanism_name = name.decode("ascii").upper()
    make = session.services.mechanisms.get(mechanism_name)
    if make is None:
        raise BadSyntax("no such mechanism")
    mechanism = make()
    response = None if not initial else b"" if initial == b"=" else _decode(initial)
    step = mechanism.step(response)
    while isinstance(step, Challenge):
        session.channel.write(b"+ " + binascii.b2a_base64(step.data, newline=False) + b"\r\n")
        line = await session.read_line()
        if isinstance(line, Refused):
            raise BadSyntax(line.value)
        if line == b"*":
            raise NotCompleted
        step = mechanism.step(_decode(line))
    if isinstance(step, Failed):
        session.channel.log("login-failed", method=mechanism_name, reason=step.reason)
        session.count_login_failure()
        raise AuthFailed
    await session.login(step.credentials, mechanism_name)


def _decode(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        raise BadSyntax("that is not base64") from None


_AUTHORIZATION = frozenset([State.AUTHORIZATION])
_ANY = frozenset(State)

COMMANDS = (
    CommandSpec(b"CAPA", _ANY, capa, "RFC 2449 5"),
    CommandSpec(b"STLS", _AUTHORIZATION, stls, "RFC 2595 4"),
    CommandSpec(b"USER", _AUTHORIZATION, user, "RFC 1939 7"),
    CommandSpec(b"PASS", _AUTHORIZATION, pass_, "RFC 1939 7"),
    CommandSpec(b"AUTH", _AUTHORIZATION, auth, "RFC 5034 4"),
)
