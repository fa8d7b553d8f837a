"""CAPA, NOOP and QUIT, and the capabilities that belong to no command (RFC 2449)."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from mailserver.errors import BadSyntax
from mailserver.pop3.command import ANY, TRANSACTION, Capability, CommandSpec, State, no_argument
from mailserver.pop3.session import Session
from mailserver.session.cost import ACCOUNT, CONSTANT, Cost


async def capa(session: Session, argument: bytes) -> None:
    """CAPA (RFC 2449 5): the capabilities of this state."""
    if argument:
        raise BadSyntax("CAPA takes no argument")
    lines = [line for each in session.services.table.capabilities if (line := each.line(session)) is not None]
    session.ok("capabilities follow")
    session.channel.write("\r\n".join([*lines, ".", ""]).encode("ascii"))


def implementation(session: Session) -> str | None:
    """The line of CAPA with the version (RFC 2449 6.9), for clients that have logged in."""
    if session.state is not State.TRANSACTION:
        return None
    try:
        return f"IMPLEMENTATION mailserver-{version('mailserver')}"
    except PackageNotFoundError:
        return "IMPLEMENTATION mailserver"


async def noop(session: Session, argument: bytes) -> None:
    """NOOP (RFC 1939 5)."""
    no_argument(argument)
    session.ok("nothing done")


async def quit_(session: Session, argument: bytes) -> None:
    """QUIT (RFC 1939 4 and 6): in TRANSACTION, first remove the messages marked deleted, in one operation.

    It also stores \\Seen of the messages that were retrieved.
    """
    no_argument(argument)
    session.end()
    if session.state is State.TRANSACTION:
        removed = await session.maildrop.update()
        if removed:
            session.channel.log("expunge", user=session.user.name if session.user else None, messages=removed)
    session.ok("goodbye")


COMMANDS = (
    CommandSpec(b"CAPA", ANY, capa, "RFC 2449 5", (Capability("IMPLEMENTATION", implementation),), cost=CONSTANT),
    CommandSpec(b"NOOP", TRANSACTION, noop, "RFC 1939 5", cost=CONSTANT),
    CommandSpec(b"QUIT", ANY, quit_, "RFC 1939 6", cost=Cost("messages marked deleted, messages retrieved", ACCOUNT)),
)

CAPABILITIES = (
    Capability("RESP-CODES"),
    Capability("AUTH-RESP-CODE"),
    Capability("PIPELINING"),
    Capability("EXPIRE", lambda _session: "EXPIRE NEVER"),
)
