"""IDLE (RFC 2177): send changes as they come, until the client sends DONE."""

from __future__ import annotations

from mailserver.errors import BadSyntax, MailboxChanged, MailError
from mailserver.imap import updates
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.input import TimedOut
from mailserver.imap.session import Session
from mailserver.session.channel import Wake
from mailserver.session.cost import CHANGES

MINIMUM = 1860.0
"""Seconds before an IDLE may be ended: clients renew theirs every 29 minutes (RFC 2177 3)."""

RETRY = 5.0
"""Seconds until the next attempt to read what is new, after one that failed."""


async def idle(session: Session, command: Command) -> None:
    """RFC 2177. `* OK Still here` keeps NAT tables and firewalls from forgetting the connection."""
    command.reader.read_end()
    channel, config = session.channel, session.services.config
    session.write(b"+ idling\r\n")
    end = channel.now() + max(config.timeout, MINIMUM)
    notice = channel.now() + config.idle_notice
    failed = False
    while True:
        # Send before waiting: a change from before the command would otherwise wait for the next poke.
        again: float | None = None
        if session.pushes is not None:
            again = await session.pushes.report(idle=True)
        elif session.selected is not None:
            failed = not await _send_changes(session, quiet=failed)
            again = channel.now() + RETRY if failed else None
        with updates.listening(session.selected):
            line = await session.input.read_idle(min(notice, end, end if again is None else again) - channel.now())
        if line is Wake.TIMEOUT:
            if channel.now() >= end:
                raise TimedOut
            if channel.now() >= notice:
                session.untagged(b"OK Still here")
                notice = channel.now() + config.idle_notice
        elif not isinstance(line, Wake):
            if line.upper() != b"DONE":
                raise BadSyntax("expected DONE")
            return


async def _send_changes(session: Session, *, quiet: bool) -> bool:
    """Send what is new. Did it succeed? A lock that another process holds for a moment is no reason to end IDLE."""
    try:
        await updates.sync(session.channel, session.mailbox, allow_expunge=True, wait=False)
    except MailboxChanged:
        raise
    except MailError as error:
        if not quiet:
            session.channel.log("refresh-failed", user=session.user, reason=error.reason)
        return False
    return True


IDLE = Capability("IDLE", "RFC 2177", __name__, "idle")

COMMANDS = (CommandSpec("IDLE", LOGGED_IN, idle, capabilities=(IDLE,), reference="RFC 2177", cost=CHANGES),)
