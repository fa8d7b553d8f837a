"""ESEARCH (RFC 7377): a search in several mailboxes, of which none need be selected.

The selected mailbox is searched as the session sees it. Any other one is read into columns for the search, as many in one
turn of the account's thread as a bound of time and memory permits, and dropped. Before that its status is read: that brings
the index up to date, costs little where nothing has changed, and an empty mailbox needs no more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from attrs import define

from mailserver.errors import BadSyntax, InUse, MailboxChanged, MailError, NoSuchMailbox, StorageFailure, WrongState
from mailserver.imap import condstore, message_limit
from mailserver.imap.capabilities import Capability
from mailserver.imap.command import LOGGED_IN, Command, CommandSpec
from mailserver.imap.commands.fetch import read_items
from mailserver.imap.commands.search import EXPUNGED, SEARCHING
from mailserver.imap.new_messages import enable_condstore, fetch_new_messages
from mailserver.imap.progress import PartReporter, ProgressReporter
from mailserver.imap.search.charset import read_codec
from mailserver.imap.search.contexts import Mark, check_update, open_context, refuse_update
from mailserver.imap.search.evaluation import SearchWork, find, numbers_of
from mailserver.imap.search.filters import load_filters, may_name_filters
from mailserver.imap.search.fuzzy import check_relevancy, relevancies
from mailserver.imap.search.keys import at_set, read_keys
from mailserver.imap.search.parser import SearchParser
from mailserver.imap.search.results import Options, Result, read_return, write_extended
from mailserver.imap.search.saved_result import save_result, saving
from mailserver.imap.search.scope import UnselectedScope, depends_on_mailbox, resolve_for
from mailserver.imap.search.sources import SELECTED, Sources, check_state, names_of, read_sources
from mailserver.imap.selected_mailbox import SearchScope
from mailserver.imap.session import Session
from mailserver.imap.utf8_accept import refuse_charset
from mailserver.imap.wire.reader import Reader
from mailserver.session.cost import BOTH, Cost
from mailserver.store.interfaces import Status
from mailserver.store.live.unselected import open_unselected
from mailserver.store.query import Query

_STATUSES_AT_ONCE: Final = 256
"""Mailboxes whose status is read before the first of them is searched."""


@define
class _Search:
    """One ESEARCH."""

    session: Session
    command: Command
    options: Options
    parser: SearchParser
    query: Query
    sources: Sources
    mark: Mark | None
    """Where updates of the selected mailbox begin; None without UPDATE."""
    has_modseq: bool = False
    is_followed: bool = False
    """The selected mailbox was searched, and its result is kept up to date."""
    expunged: bool = False
    """Messages of the selected mailbox were left out because they no longer exist."""

    async def run(self, reporter: ProgressReporter) -> None:
        """Search the mailboxes, one after another, and answer for each. Raises: MailError."""
        session = self.session
        part = PartReporter(reporter)
        per_mailbox = depends_on_mailbox(self.query)
        names = await names_of(session, self.sources)
        work = SearchWork()
        reporter.progress.goal = len(names)
        failure: MailError | None = None
        wants_relevancy = "RELEVANCY" in self.options
        messages = 0
        async for name, scope in self._scopes(names):
            reporter.progress.done += 1
            if isinstance(scope, MailError):
                failure = failure or scope
                continue
            messages += scope.view.count
            message_limit.refuse(session, messages)
            query = resolve_for(self.query, scope.view) if per_mailbox else self.query
            try:
                positions, expunged = await find(scope, query, part, work)
                scores = await relevancies(scope, query, positions, part, work) if wants_relevancy else None
            except (MailboxChanged, StorageFailure, InUse) as error:
                if scope is session:
                    raise
                if not isinstance(error, MailboxChanged):
                    failure = failure or error
                continue
            await self._answer(name, scope, positions, scores)
            if scope is session:
                self.expunged = expunged
                self._follow(query, positions)
            await session.channel.drain()
        if failure is not None:
            raise failure

    async def _scopes(self, names: Sequence[str]) -> AsyncIterator[tuple[str, SearchScope | MailError]]:
        """The mailboxes with messages, or why one cannot be read."""
        selected = self.session.mailbox_name
        if selected is not None and selected in names:
            yield selected, self.session
        others = [name for name in names if name != selected]
        for start in range(0, len(others), _STATUSES_AT_ONCE):
            async for each in self._unselected(others[start : start + _STATUSES_AT_ONCE]):
                yield each

    async def _unselected(self, names: Sequence[str]) -> AsyncIterator[tuple[str, SearchScope | MailError]]:
        session, account = self.session, self.session.account
        assert account is not None
        statuses: Mapping[str, Status | MailError] = await account.statuses(names)
        left = []
        for name in names:
            status = statuses[name]
            if isinstance(status, Status):
                if status.messages:
                    left.append(name)
            elif not isinstance(status, NoSuchMailbox | MailboxChanged):
                yield name, status
        while left:
            opened = await open_unselected(account, left)
            for name, each in opened.items():
                if each is not None and each[1].count:
                    yield name, UnselectedScope(session.channel, *each)
            left = [name for name in left if name not in opened]
            await session.channel.drain()

    async def _answer(
        self, name: str, scope: SearchScope, positions: Sequence[int], scores: Sequence[int] | None
    ) -> None:
        if not positions:
            return
        validity = scope.view.columns.uid_validity
        correlators = b" MAILBOX %b UIDVALIDITY %d" % (self.session.mailbox_octets(name), validity)
        result = Result(
            scope, numbers_of(scope, positions, uids=True), self.has_modseq, scores, self.options.get("PARTIAL")
        )
        self.session.write(await write_extended(self.command, self.options, result, correlators))

    def _follow(self, query: Query, positions: Sequence[int]) -> None:
        save_result(self.session, self.options, positions)
        if self.mark is not None:
            self.is_followed = True
            items = self.options["UPDATE"]
            enable_condstore(self.session, items)
            open_context(
                self.command,
                self.parser,
                query,
                None,
                (self.mark, positions),
                items=items,
                fetch=fetch_new_messages,
                of_several=True,
            )


async def esearch(session: Session, command: Command) -> str | None:
    """ESEARCH (RFC 7377 2)."""
    # Its responses have UIDs always.
    command = command._replace(uid=True)
    reader = command.reader
    parser = SearchParser(reader, session)
    if may_name_filters(reader):
        parser.filters = await load_filters(session)
    reader.read_sp()
    sources: Sources = SELECTED
    options: Options = {"ALL": None}
    word = _word(reader)
    if word == "IN":
        reader.read_sp()
        sources = read_sources(reader, session.services.namespace)
        reader.read_sp()
        word = _word(reader)
    if word == "RETURN":
        reader.read_sp()
        options = read_return(reader, read_items)
        reader.read_sp()
        word = _word(reader)
    check_state(session, sources)
    if "SAVE" in options and sources != SELECTED:
        raise BadSyntax("SAVE is for the selected mailbox alone")
    parser.follows = "UPDATE" in options
    if parser.follows and session.selected is None:
        raise WrongState("UPDATE is for the selected mailbox")
    mark = check_update(session, command, options) if parser.follows else None
    parser.in_several = sources != SELECTED
    with saving(session, options):
        if word == "CHARSET":
            refuse_charset(session)
            reader.read_sp()
            parser.codec = read_codec(reader)
            reader.read_sp()
            word = None
        query = read_keys(parser, word)
        reader.read_end()
        check_relevancy(asked="RELEVANCY" in options, is_fuzzy=parser.is_fuzzy)
        searching = _Search(session, command, options, parser, query, sources, mark)
        searching.has_modseq = condstore.enable_by(session, query)
        with ProgressReporter(session, command) as reporter:
            await searching.run(reporter)
    if parser.follows and not searching.is_followed:
        refuse_update(session, command.tag, "the selected mailbox was not searched")
    return EXPUNGED if searching.expunged else None


def _word(reader: Reader) -> str | None:
    """The next word; None where a key without one begins."""
    return None if reader.peek(b"(") or at_set(reader) else reader.read_word()


MULTISEARCH = Capability("MULTISEARCH", "RFC 7377", __name__, "multisearch")

COMMANDS = (
    CommandSpec(
        "ESEARCH",
        LOGGED_IN,
        esearch,
        uses_sequence_numbers=True,
        capabilities=(MULTISEARCH, *SEARCHING),
        reference="RFC 7377",
        cost=Cost("as SEARCH in each of the mailboxes; up to 8 GiB beyond 20 keys in all of them", BOTH),
    ),
)
