"""SORT (RFC 5256, RFC 5957) and its RETURN options (RFC 5267 3)."""

from __future__ import annotations

from collections.abc import Sequence

from mailserver.errors import BadSyntax, LimitReached
from mailserver.imap import condstore
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import Command, CommandSpec, State
from mailserver.imap.commands.fetch import read_items
from mailserver.imap.commands.notify import NOTIFY
from mailserver.imap.commands.search import EXPUNGED
from mailserver.imap.new_messages import enable_condstore, fetch_new_messages
from mailserver.imap.progress import ProgressReporter
from mailserver.imap.search.contexts import check_update, open_context
from mailserver.imap.search.evaluation import SearchWork, find, numbers_of
from mailserver.imap.search.filters import FILTERS, load_filters, may_name_filters
from mailserver.imap.search.fuzzy import FUZZY, check_relevancy, relevancies
from mailserver.imap.search.keys import read_criteria
from mailserver.imap.search.ordering import sort_positions
from mailserver.imap.search.parser import SearchParser
from mailserver.imap.search.results import Result, read_return, write_extended, write_numbers
from mailserver.imap.search.saved_result import save_result, saving
from mailserver.imap.session import Session
from mailserver.imap.wire.reader import Reader
from mailserver.session.cost import BOTH, Cost
from mailserver.store.order.sorting import KEYS, RELEVANCY, Criterion, Program, needs, without_repeats

MAX_CRITERIA = 50
"""Sort keys of one command; there are fewer."""


async def sort(session: Session, command: Command) -> str | None:
    """SORT, UID SORT (RFC 5256 3, RFC 7162 3.1.9)."""
    reader = command.reader
    reader.read_sp()
    options = None
    if not reader.peek(b"("):
        if reader.read_word() != "RETURN":
            raise BadSyntax("expected RETURN or sort keys")
        reader.read_sp()
        options = read_return(reader, read_items)
        reader.read_sp()
    program = _read_program(reader)
    parser = SearchParser(reader, session)
    mark = check_update(session, command, options)
    parser.follows = options is not None and "UPDATE" in options
    with saving(session, options):
        if may_name_filters(reader):
            parser.filters = await load_filters(session)
        query = read_criteria(parser)
        reader.read_end()
        wants_relevancy = needs(program, RELEVANCY) or (options is not None and "RELEVANCY" in options)
        check_relevancy(asked=wants_relevancy, is_fuzzy=parser.is_fuzzy)
        has_modseq = condstore.enable_by(session, query)
        with ProgressReporter(session, command) as reporter:
            work = SearchWork()
            found, expunged = await find(session, query, reporter, work)
            if options is None and not has_modseq and not wants_relevancy:
                session.write(await _sorted(session, command, found, program, reporter))
                return EXPUNGED if expunged else None
            scores = await relevancies(session, query, found, reporter, work) if wants_relevancy else ()
            positions = await sort_positions(session, found, program, reporter, scores)
    save_result(session, options, positions)
    numbers = numbers_of(session, positions, uids=command.uid)
    if options is None:
        modseq = await condstore.highest_of(session, numbers, uids=command.uid) if has_modseq else None
        session.write(await write_numbers(session, b"SORT", numbers, modseq))
    else:
        by_position = dict(zip(found, scores, strict=True)) if wants_relevancy else {}
        ordered = [by_position[at] for at in positions] if wants_relevancy else None
        result = Result(session, numbers, has_modseq, ordered, options.get("PARTIAL"))
        session.write(await write_extended(command, options, result))
    if parser.follows:
        items = () if options is None else options["UPDATE"]
        enable_condstore(session, items)
        open_context(command, parser, query, program, (mark, positions), items=items, fetch=fetch_new_messages)
    return EXPUNGED if expunged else None


async def _sorted(
    session: Session, command: Command, found: Sequence[int], program: Program, reporter: ProgressReporter
) -> bytes:
    """The SORT response (RFC 5256 4); the last one, if it is about the same messages."""
    live, view = session.mailbox.live, session.view
    orders, request = live.account.orders, ("SORT", command.uid, program)
    answer = orders.answer(live, view, request, found)
    if answer is None:
        positions = await sort_positions(session, found, program, reporter)
        answer = await write_numbers(session, b"SORT", numbers_of(session, positions, uids=command.uid))
        if orders.order(live, without_repeats(program)):
            orders.keep_answer(live, view, request, found, answer)
    return answer


def _read_program(reader: Reader) -> Program:
    """sort-criteria (RFC 5256 5). Raises: BadSyntax, LimitReached."""
    reader.take(b"(")
    criteria = [_read_criterion(reader)]
    while reader.skip(b" "):
        if len(criteria) >= MAX_CRITERIA:
            raise LimitReached("too many sort keys")
        criteria.append(_read_criterion(reader))
    reader.take(b")")
    return tuple(criteria)


def _read_criterion(reader: Reader) -> Criterion:
    key = reader.read_word()
    reverse = key == "REVERSE"
    if reverse:
        reader.read_sp()
        key = reader.read_word()
    if key not in KEYS:
        raise BadSyntax("unknown sort key")
    return Criterion(key, reverse)


SORT = Capability("SORT", "RFC 5256", __name__, "sort")
ESORT = Capability("ESORT", "RFC 5267", __name__, "esort")
CONTEXT = Capability("CONTEXT=SORT", "RFC 5267", __name__, "context-sort")
SORT_DISPLAY = Capability("SORT=DISPLAY", "RFC 5957", __name__, "sort-display")

COMMANDS = (
    CommandSpec(
        "SORT",
        State.SELECTED,
        sort,
        uses_sequence_numbers=True,
        capabilities=(SORT, ESORT, CONTEXT, SORT_DISPLAY, FILTERS, FUZZY, NOTIFY, condstore.CONDSTORE),
        reference="RFC 5256, RFC 5267, RFC 5465, RFC 5466, RFC 5957, RFC 6203, RFC 7162",
        uid_form=True,
        cost=Cost("as SEARCH, and messages that match, times sort keys", BOTH),
    ),
)
