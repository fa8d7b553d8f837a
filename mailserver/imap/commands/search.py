"""SEARCH (RFC 3501 6.4.4, 7.2.5) and its RETURN options (RFC 4466 2.6, RFC 4731)."""

from __future__ import annotations

from typing import Final

from mailserver.imap import condstore, message_limit
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.commands.fetch import read_items
from mailserver.imap.commands.notify import NOTIFY
from mailserver.imap.new_messages import enable_condstore, fetch_new_messages
from mailserver.imap.object_ids import OBJECTID
from mailserver.imap.partial import PARTIAL
from mailserver.imap.progress import ProgressReporter
from mailserver.imap.rev2 import IMAP4REV2, is_on
from mailserver.imap.search.charset import read_codec
from mailserver.imap.search.contexts import check_update, open_context
from mailserver.imap.search.evaluation import SearchWork, find, limited, numbers_of
from mailserver.imap.search.filters import FILTERS, load_filters, may_name_filters
from mailserver.imap.search.fuzzy import FUZZY, check_relevancy, relevancies
from mailserver.imap.search.keys import at_set, read_keys
from mailserver.imap.search.parser import SearchParser
from mailserver.imap.search.results import Result, read_return, write_extended, write_numbers
from mailserver.imap.search.saved_result import save_result, saving
from mailserver.imap.session import Session
from mailserver.imap.uidonly import UIDONLY
from mailserver.imap.utf8_accept import UTF8_ACCEPT, refuse_charset
from mailserver.session.cost import BOTH, Cost

EXPUNGED = "[EXPUNGEISSUED] some of the messages no longer exist"


async def search(session: Session, command: Command) -> str | None:
    """SEARCH, UID SEARCH (RFC 3501 6.4.4, RFC 4731)."""
    reader = command.reader
    parser = SearchParser(reader, session)
    names_filters = may_name_filters(reader)
    reader.read_sp()
    options = None
    word = None if reader.peek(b"(") or at_set(reader) else reader.read_word()
    if word == "RETURN":
        reader.read_sp()
        options = read_return(reader, read_items)
        reader.read_sp()
        word = None if reader.peek(b"(") or at_set(reader) else reader.read_word()
    mark = check_update(session, command, options)
    parser.follows = options is not None and "UPDATE" in options
    if options is None and is_on(session):
        options = {"ALL": None}  # RFC 9051 6.4.4: the SEARCH response is obsolete
    with saving(session, options):
        if names_filters:
            parser.filters = await load_filters(session)
        if word == "CHARSET":
            refuse_charset(session)
            reader.read_sp()
            parser.codec = read_codec(reader)
            reader.read_sp()
            word = None
        query = read_keys(parser, word)
        reader.read_end()
        wants_relevancy = options is not None and "RELEVANCY" in options
        check_relevancy(asked=wants_relevancy, is_fuzzy=parser.is_fuzzy)
        has_modseq = condstore.enable_by(session, query)
        with ProgressReporter(session, command) as reporter:
            searched, lowest = limited(session, query)
            work = SearchWork()
            positions, expunged = await find(session, searched, reporter, work)
            scores = await relevancies(session, query, positions, reporter, work) if wants_relevancy else None
    save_result(session, options, positions)
    numbers = numbers_of(session, positions, uids=command.uid)
    if options is None:
        modseq = await condstore.highest_of(session, numbers, uids=command.uid) if has_modseq else None
        session.write(await write_numbers(session, b"SEARCH", numbers, modseq))
    else:
        result = Result(session, numbers, has_modseq, scores, options.get("PARTIAL"))
        session.write(await write_extended(command, options, result))
    if parser.follows:
        items = () if options is None else options["UPDATE"]
        enable_condstore(session, items)
        open_context(command, parser, query, None, (mark, positions), items=items, fetch=fetch_new_messages)
    return message_limit.report(session, lowest, EXPUNGED if expunged else None)


ESEARCH = Capability("ESEARCH", "RFC 4731", __name__, "esearch")
SEARCHRES = Capability("SEARCHRES", "RFC 5182", __name__, "searchres")
CONTEXT = Capability("CONTEXT=SEARCH", "RFC 5267", __name__, "context")
WITHIN = Capability("WITHIN", "RFC 5032", __name__, "within")

SEARCHING: Final = (
    SEARCHRES,
    WITHIN,
    PARTIAL,
    CONTEXT,
    condstore.CONDSTORE,
    UIDONLY,
    OBJECTID,
    FILTERS,
    FUZZY,
    message_limit.MESSAGELIMIT,
    NOTIFY,
    UTF8_ACCEPT,
)
"""Capabilities of SEARCH that ESEARCH has, too."""

COMMANDS = (
    CommandSpec(
        "SEARCH",
        State.SELECTED,
        search,
        uses_sequence_numbers=True,
        capabilities=(ESEARCH, *SEARCHING, IMAP4REV2),
        reference="RFC 3501, RFC 8474, RFC 9051, RFC 4731, RFC 5032, RFC 5182, RFC 5267, RFC 5465, RFC 5466, RFC 6203, RFC 7162, RFC 9394, RFC 9586, RFC 9738, RFC 9755",
        uid_form=True,
        cost=Cost("messages times keys, octets of the messages times text keys; up to 8 GiB beyond 20 keys", BOTH),
    ),
)
