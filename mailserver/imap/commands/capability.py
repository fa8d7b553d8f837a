"""CAPABILITY, NOOP, CHECK, LOGOUT, ID and ENABLE (RFC 3501 6.1, 6.4.1; RFC 2971; RFC 5161)."""

from __future__ import annotations

from mailserver.imap.command import ANY, Command, CommandSpec, State
from mailserver.imap.session import Session


def tokens(session: Session) -> list[str]:
    """What CAPABILITY lists now: fewer tokens before login, mechanisms only where a password may be sent."""
    services = session.services
    found = ["IMAP4rev1", "LITERAL+" if services.config.literal == "plus" else "LITERAL-", "SASL-IR"]
    logged_in = session.account is not None
    if not logged_in:
        facts = session.channel.info
        if facts.starttls_offered:
            found.append("STARTTLS")
        if facts.password_allowed:
            found += [f"AUTH={name}" for name in services.mechanisms]
        else:
            found.append("LOGINDISABLED")
    for spec in services.table.values():
        if logged_in or spec.states & State.NOT_AUTHENTICATED:
            found += [name for name in spec.capabilities if name not in found]
    if logged_in:
        found += ["CHILDREN", f"APPENDLIMIT={services.mail.max_message_size}"]
    return found


async def capability(session: Session, command: Command) -> None:
    """RFC 3501 6.1.1."""
    command.reader.read_end()
    session.untagged(b"CAPABILITY " + session.capabilities().encode("ascii"))


async def noop(_session: Session, command: Command) -> None:
    """RFC 3501 6.1.2 and 6.4.1: whatever is new is told by the closing sync."""
    command.reader.read_end()


async def logout(session: Session, command: Command) -> None:
    """RFC 3501 6.1.3."""
    command.reader.read_end()
    session.close_mailbox()
    session.bye("logging out")


COMMANDS = (
    CommandSpec("CAPABILITY", ANY, capability),
    CommandSpec("NOOP", ANY, noop),
    CommandSpec("LOGOUT", ANY, logout),
    CommandSpec("CHECK", State.SELECTED, noop),
)
