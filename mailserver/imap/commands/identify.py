"""ID (RFC 2971): the client's name for the log, and ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mailserver.errors import BadSyntax
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import ANY, Command, CommandSpec
from mailserver.imap.hidden import rules_for_client
from mailserver.imap.session import Session
from mailserver.imap.wire import writer
from mailserver.session.cost import CONSTANT

MAX_ID_PAIRS = 30
"""RFC 2971 3.3 bounds fields to 30 octets, values to 1024, pairs to 30."""

LOGGED_ID = 256
"""Characters of an ID that the log keeps: anybody can send one."""


async def identify(session: Session, command: Command) -> None:
    """RFC 2971: the client's first ID goes to the log. Where it hides capabilities, their new list comes with the answer."""
    fields = _read_fields(command)
    if fields and not session.identified:
        session.identified = True
        text = " ".join(f"{key}={value}" for key, value in fields.items())
        session.channel.log("client", user=session.user, id=text[:LOGGED_ID])
    session.untagged(b"ID " + _answer(session.services.config.id))
    if session.services.config.hide:
        before = session.capabilities()
        session.hiding_client = rules_for_client(session.services.config.hide, fields)
        if (now := session.capabilities()) != before:
            session.untagged(b"CAPABILITY " + now.encode("ascii"))


def _answer(fields: Mapping[str, Sequence[str]]) -> bytes:
    words = [writer.string(word.encode()) for name, values in fields.items() for word in (name, " ".join(values))]
    return b"(%b)" % b" ".join(words) if words else b"NIL"


def _read_fields(command: Command) -> dict[str, str]:
    """The fields by their names in lower case; the value of NIL is empty."""
    reader = command.reader
    reader.read_sp()
    fields: dict[str, str] = {}
    if reader.skip(b"("):
        while not reader.skip(b")"):
            if fields:
                reader.read_sp()
            name = reader.read_string()
            reader.read_sp()
            value = reader.read_nstring()
            if len(name) > 30 or len(value or b"") > 1024 or len(fields) >= MAX_ID_PAIRS:
                raise BadSyntax("an ID field is too long, or there are too many")
            fields[name.decode("utf-8", "replace").lower()] = (value or b"").decode("utf-8", "replace")
    elif reader.read_nstring() is not None:
        raise BadSyntax("expected ( or NIL")
    reader.read_end()
    return fields


ID = Capability("ID", "RFC 2971", __name__, "id")

COMMANDS = (CommandSpec("ID", ANY, identify, capabilities=(ID,), reference="RFC 2971", cost=CONSTANT),)
