"""GETMETADATA and SETMETADATA (RFC 5464): annotations of mailboxes, and of the server.

An account belongs to one user alone, so /private and /shared entries of a mailbox differ in their name only. Private entries of
the server are the user's own. Its shared entries are the same for all users: the administrator sets them, clients read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mailserver.config.model import Imap
from mailserver.errors import MailError
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.list_answers import ListLine
from mailserver.imap.metadata import MetadataRequest, read_changes, read_getmetadata, response
from mailserver.imap.search.criteria import check_entries
from mailserver.imap.search.filters import FILTERS, administrators_filters
from mailserver.imap.session import Session
from mailserver.session.cost import ACCOUNT, Cost
from mailserver.store.annotations import Annotations
from mailserver.store.time_slice import TimeSlice

MAX_LITERALS: Final = 262144
"""Octets that the literals of one SETMETADATA may have together."""
_SLICE_OCTETS: Final = 262144
"""Octets of annotations that are read for LIST in one turn of the account's thread."""


class AnnotationTooLarge(MailError):
    """RFC 5464 4.3 MAXSIZE."""

    def __init__(self, most: int) -> None:
        """`most`: octets of the largest value."""
        super().__init__()
        self.imap_code = f"METADATA MAXSIZE {most}"  # type: ignore[misc]

    text = "the annotation is too large"


class SharedByAll(MailError):
    """A client would change an entry of all users (RFC 5464 3.3, RFC 5530 NOPERM)."""

    imap_code = "NOPERM"
    text = "shared entries of the server are set by the administrator"


async def getmetadata(session: Session, command: Command) -> str | None:
    """RFC 5464 4.2."""
    wire_name, request = read_getmetadata(command.reader)
    account = session.account
    assert account is not None
    if wire_name:
        name = session.services.namespace.to_store(wire_name)
        octets = session.mailbox_octets(name)
        known = await account.run(lambda: account.account.annotations(name))
    else:
        octets = b'""'
        own = await account.run(lambda: account.account.annotations(None))
        known = {**own, **_of_server(session.services.config)}
    sent, longest = request.select(known)
    session.write(response(octets, sent))
    return f"[METADATA LONGENTRIES {longest}] GETMETADATA completed" if longest else None


async def setmetadata(session: Session, command: Command) -> None:
    """RFC 5464 4.3: all entries, or none."""
    reader = command.reader
    reader.read_sp()
    wire_name = reader.read_mailbox()
    reader.read_sp()
    changes = read_changes(reader)
    reader.read_end()
    config = session.services.config
    if any(octets is not None and len(octets) > config.metadata_size for octets in changes.values()):
        raise AnnotationTooLarge(config.metadata_size)
    if not wire_name and any(entry.startswith("/shared/") for entry in changes):
        raise SharedByAll
    if not wire_name:
        check_entries(changes)
    account = session.account
    assert account is not None
    name = session.services.namespace.to_store(wire_name) if wire_name else None
    await account.annotate(name, changes, config.metadata_entries)
    await session.pass_over_annotations(name)


def _of_server(config: Imap) -> Annotations:
    """The entries that the administrator has set (RFC 5464 3.2.1.1)."""
    entries = {"/shared/comment": config.server_comment, "/shared/admin": config.server_admin}
    return {
        **administrators_filters(config),
        **{entry: text.encode("utf-8") for entry, text in entries.items() if text},
    }


async def listed_metadata(session: Session, lines: Sequence[ListLine], request: MetadataRequest) -> list[bytes]:
    """The METADATA responses of the first of these lines of LIST (RFC 9590 3), as many as one turn of the account has time for.

    One response, maybe empty, for each line: also for a mailbox whose annotations cannot be read now.
    """
    account = session.account
    assert account is not None

    def read() -> list[Annotations | None]:
        time_slice = TimeSlice(_SLICE_OCTETS)
        found: list[Annotations | None] = []
        for line in lines:
            known: Annotations | None = None
            if line.mailbox is not None:
                try:
                    known = account.account.annotations(line.mailbox)
                except MailError:
                    known = None  # RFC 9590 3: the response may be left out
            found.append(known)
            if time_slice.take(1 + sum(map(len, (known or {}).values()))):
                break
        return found

    responses = []
    for line, known in zip(lines, await account.run(read), strict=False):
        if known is None or line.mailbox is None:
            responses.append(b"")
        else:
            responses.append(response(session.mailbox_octets(line.mailbox), request.select(known)[0]))
    return responses


METADATA = Capability("METADATA", "RFC 5464", __name__, "metadata")
METADATA_SERVER = Capability("METADATA-SERVER", "RFC 5464", __name__, "metadata-server")

COMMANDS = (
    CommandSpec(
        "GETMETADATA",
        LOGGED_IN,
        getmetadata,
        capabilities=(METADATA, METADATA_SERVER, FILTERS),
        reference="RFC 5464, RFC 5466",
        cost=Cost("annotations of the mailbox", ACCOUNT),
    ),
    CommandSpec(
        "SETMETADATA",
        LOGGED_IN,
        setmetadata,
        capabilities=(METADATA, METADATA_SERVER, FILTERS),
        reference="RFC 5464, RFC 5466, RFC 7162",
        max_literal=MAX_LITERALS,
        literal8=True,
        refuse_literal=lambda config: AnnotationTooLarge(config.metadata_size),
        cost=Cost("annotations of the mailbox", ACCOUNT),
    ),
)
