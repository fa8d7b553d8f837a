"""THREAD (RFC 5256, draft-ietf-morg-inthread)."""

from __future__ import annotations

from mailserver.errors import BadSyntax
from mailserver.imap import condstore, message_limit
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.commands.search import EXPUNGED
from mailserver.imap.progress import ProgressReporter
from mailserver.imap.search.evaluation import find, numbers_of
from mailserver.imap.search.filters import FILTERS, load_filters, may_name_filters
from mailserver.imap.search.keys import read_criteria
from mailserver.imap.search.ordering import ALGORITHMS, thread_positions
from mailserver.imap.search.parser import SearchParser
from mailserver.imap.search.thread_response import write_threads
from mailserver.imap.session import Session
from mailserver.session.cost import BOTH, Cost


async def thread(session: Session, command: Command) -> str | None:
    """THREAD, UID THREAD (RFC 5256 3)."""
    reader = command.reader
    reader.read_sp()
    algorithm = reader.read_word()
    if algorithm not in ALGORITHMS:
        raise BadSyntax("unknown threading algorithm")
    parser = SearchParser(reader, session)
    if may_name_filters(reader):
        parser.filters = await load_filters(session)
    query = read_criteria(parser)
    reader.read_end()
    message_limit.refuse(session, session.view.count)
    condstore.enable_by(session, query)
    with ProgressReporter(session, command) as reporter:
        found, expunged = await find(session, query, reporter)
        live, view = session.mailbox.live, session.view
        orders, request = live.account.orders, (algorithm, command.uid)
        answer = orders.answer(live, view, request, found)
        if answer is None:
            forest, is_complete = await thread_positions(session, found, algorithm, reporter)
            pieces = []
            for piece in write_threads(forest, numbers_of(session, found, uids=command.uid)):
                pieces.append(piece)
                await session.channel.drain()
            answer = b"".join(pieces)
            if is_complete:
                orders.keep_answer(live, view, request, found, answer)
    session.write(answer)
    return EXPUNGED if expunged else None


ORDEREDSUBJECT = Capability("THREAD=ORDEREDSUBJECT", "RFC 5256", __name__, "thread-orderedsubject")
REFERENCES = Capability("THREAD=REFERENCES", "RFC 5256", __name__, "thread")
REFS = Capability("THREAD=REFS", "draft-ietf-morg-inthread", __name__, "thread-refs")

COMMANDS = (
    CommandSpec(
        "THREAD",
        State.SELECTED,
        thread,
        uses_sequence_numbers=True,
        capabilities=(ORDEREDSUBJECT, REFERENCES, REFS, FILTERS, message_limit.MESSAGELIMIT),
        reference="RFC 5256, RFC 5466, RFC 9738",
        uid_form=True,
        cost=Cost("as SEARCH, and messages that match, with their references", BOTH),
    ),
)
