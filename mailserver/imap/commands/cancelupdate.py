"""CANCELUPDATE (RFC 5267 4.3.5)."""

from __future__ import annotations

from mailserver.errors import Cannot
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.commands.search import CONTEXT
from mailserver.imap.search.contexts import Contexts
from mailserver.imap.session import Session
from mailserver.session.cost import CONSTANT


async def cancelupdate(session: Session, command: Command) -> None:
    """RFC 5267 4.3.5. Raises: Cannot if a tag has no updates, as after NOUPDATE; then none is cancelled."""
    reader = command.reader
    reader.read_sp()
    tags = [reader.read_string()]
    while reader.skip(b" "):
        tags.append(reader.read_string())
    reader.read_end()
    contexts = session.mailbox.result_updates
    if not isinstance(contexts, Contexts):
        raise Cannot("there is no search with UPDATE")
    contexts.cancel({tag.decode("ascii", "replace") for tag in tags})


COMMANDS = (
    CommandSpec(
        "CANCELUPDATE", State.SELECTED, cancelupdate, capabilities=(CONTEXT,), reference="RFC 5267", cost=CONSTANT
    ),
)
