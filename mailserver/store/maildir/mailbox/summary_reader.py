"""Reading message files for facts that the index lacks: summaries, header texts, sizes, dates.

For a header alone only the beginning of the file is read, and nothing is measured: bodies are most of the octets of a
mailbox. Of the header that is made which was asked for: an envelope, or the text for SEARCH. Each of them costs as much
as reading and indexing it. A text is made without the file where the index has the header's lines. The mailbox finds a file that is not at its indexed place (`reopen`). Messages that are gone or unreadable are
left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from mailserver.cancellation import check
from mailserver.errors import MessageExpunged, StoreUnavailable
from mailserver.message.header_summary import NO_LINES, HeaderSummary, fields_text
from mailserver.message.headers import header_end
from mailserver.message.limits import SEEN
from mailserver.message.sort_keys import ALL_GROUPS, Groups, SortKeys, sort_keys
from mailserver.message.summary import INCOMPLETE, Summary
from mailserver.store.index.database import Index
from mailserver.store.index.records import MailboxState
from mailserver.store.maildir.disk import safeio
from mailserver.store.maildir.format.message_file import PlainFile, open_file, read_dated, to_crlf
from mailserver.store.maildir.home.home import Home
from mailserver.store.rows import Row
from mailserver.store.time_slice import TimeSlice
from mailserver.types import UID, UNKNOWN_DATE, UNKNOWN_SIZE

BATCH: Final = 256
"""Messages between two commits."""
_DATED: Final = 2000
"""The same if no message is read."""
_SMALL: Final = 256 * 1024
_HEADER: Final = 8192
"""Octets of a file that are read first for its header."""
_LINE: Final = 1024
"""Octets of a file in which there is a CR if its lines end with one."""
_MARK: Final = 3
"""Octets of an empty line and of the line end before it, without the last."""

Rendered = tuple[UID, int, int, Summary]
"""UID, size as sent, date, summary; UNKNOWN_SIZE and UNKNOWN_DATE where only the header was read."""


class SummaryReader:
    """A reader of one mailbox, for one operation."""

    def __init__(self, home: Home, state: MailboxState, reopen: Callable[[UID], PlainFile]) -> None:
        """`reopen` opens a message at its current place. Raises: MessageExpunged, StoreUnavailable."""
        self._home = home
        self._key = state.key
        self._guid = state.guid
        paths = home.paths(state.name)
        self._places = os.path.join(paths.new, ""), os.path.join(paths.cur, "")
        self._reopen = reopen

    def answer(
        self, uids: Sequence[UID], *, only_head: bool, time_slice: TimeSlice | None
    ) -> list[tuple[UID, Row, Summary]]:  # fmt: skip
        """Do `Mailbox.summaries` for these messages (rising): from the index, else from the files.

        Of many messages a time slice has room for some hundred: the index is not asked for all of them each time.
        """
        found: list[tuple[UID, Row, Summary]] = []
        for start in range(0, len(uids), BATCH):
            found += self._answer(uids[start : start + BATCH], only_head=only_head, time_slice=time_slice)
            if time_slice is not None and time_slice.full:
                break
        return found

    def _answer(
        self, uids: Sequence[UID], *, only_head: bool, time_slice: TimeSlice | None
    ) -> list[tuple[UID, Row, Summary]]:  # fmt: skip
        key = self._key
        rows = {row.uid: row for row in self._home.read(lambda index: index.messages.rows_of(key, uids))}
        known = self._home.read(lambda index: index.summaries.get(key, list(rows), time_slice))
        if time_slice is not None and time_slice.full:
            rows = {uid: row for uid, row in rows.items() if uid <= max(known)}
        if only_head:
            missing = [uid for uid in rows if uid not in known]
        else:
            missing = [
                uid for uid, row in rows.items() if uid not in known or not known[uid].body or is_unmeasured(row)
            ]
        gone = set(missing)
        last = None
        for uid, size, date, summary in self.summaries(missing, only_head=only_head, time_slice=time_slice):
            if size != UNKNOWN_SIZE:
                rows[uid] = filled(rows[uid], size, date)
            known[uid] = summary
            gone.discard(uid)
            last = uid
        if time_slice is not None and time_slice.full and last is not None:
            # Those after it have not been examined.
            rows = {uid: row for uid, row in rows.items() if uid <= last}
        return [(uid, row, known[uid]) for uid, row in rows.items() if uid not in gone]

    def summaries(
        self, uids: Sequence[UID], *, only_head: bool, time_slice: TimeSlice | None = None
    ) -> Iterator[Rendered]:  # fmt: skip
        """Read summaries of these messages (rising) into the index; arguments as in `Mailbox.summaries`."""
        for start in range(0, len(uids), BATCH):
            part = uids[start : start + BATCH]
            read = self._read_heads(part) if only_head else self._read_whole(self._files(part))
            batch = list(read) if time_slice is None else list(_within(time_slice, read))
            measured = [(uid, size, date) for uid, size, date, _summary in batch if size != UNKNOWN_SIZE]
            self._keep(measured, summaries=[(uid, summary) for uid, _size, _date, summary in batch])
            yield from batch
            if time_slice is not None and time_slice.full:
                return

    def texts(
        self, uids: Sequence[UID], names: Collection[str] | None = None
    ) -> Iterator[tuple[UID, str, int | None]]:  # fmt: skip
        """Read header texts of these messages (rising) into the index: (uid, HeaderText.text, HeaderText.sent).

        `names`: the kept fields of which a text is needed; no day is needed then.
        """
        for start in range(0, len(uids), BATCH):
            part = uids[start : start + BATCH]
            lines, is_searched = self._home.read(partial(self._known_lines, part))
            # A mailbox that is searched by other fields as well is searched often.
            of_fields = None if is_searched else names
            found: list[tuple[UID, str, int | None]] = []
            for uid, kept in lines.items():
                check()
                found.append((uid, *_text_of(kept, of_fields)))
            if len(found) < len(part):
                for uid, header, is_whole in self._headers([uid for uid in part if uid not in lines]):
                    found.append((uid, *_text_of(header, of_fields, is_whole=is_whole)))
            self._keep([], texts=found, names=of_fields)
            yield from found

    def sort_keys(self, uids: Sequence[UID], groups: Groups) -> list[tuple[UID, SortKeys]]:
        """Make sort keys of these groups of these messages (rising), and keep them in the index."""
        found: list[tuple[UID, SortKeys]] = []
        for start in range(0, len(uids), BATCH):
            part = uids[start : start + BATCH]
            lines, _is_searched = self._home.read(partial(self._known_lines, part))
            made = [(uid, sort_keys(kept, groups)) for uid, kept in lines.items()]
            rest = [uid for uid in part if uid not in lines] if lines else part
            made += [(uid, sort_keys(header, groups)) for uid, header, _is_whole in self._headers(rest)]
            self._keep([], keys=(groups, made))
            found += made
        return found

    def _known_lines(self, uids: Sequence[UID], index: Index) -> tuple[dict[UID, bytes], bool]:
        """Return kept lines by UID, and whether a search has been here."""
        lines = index.summaries.lines(self._key, uids)
        return (
            {uid: kept for uid, kept in lines.items() if kept != NO_LINES},
            index.field_texts.is_used(self._key, uids),
        )

    def complete(
        self, rows: Sequence[Row], *, only_dates: bool = False, time_slice: TimeSlice | None = None
    ) -> list[Row]:  # fmt: skip
        """Return the rows with sizes and dates, read where unknown; arguments as in `Mailbox.measure`.

        Only a size that is unknown costs the reading of a message; a date is a stat.
        """
        unsized = [] if only_dates else [row.uid for row in rows if row.size == UNKNOWN_SIZE]
        measured = self.measure(unsized, time_slice) if unsized else []
        if measured and time_slice is not None and time_slice.full:
            # Those after it have not been examined.
            rows = [row for row in rows if row.uid <= measured[-1][0]]
        found = {uid: (size, date) for uid, size, date in measured}
        undated = [row.uid for row in rows if row.date == UNKNOWN_DATE and row.uid not in found]
        if undated:
            dated = self.dates(undated, None if only_dates else time_slice)
            if dated and not only_dates and time_slice is not None and time_slice.full and len(dated) < len(undated):
                rows = [row for row in rows if row.uid <= dated[-1][0]]
            found.update((uid, (size, date)) for uid, size, date in dated)
        filled_rows = [filled(row, *found[row.uid]) if row.uid in found else row for row in rows]
        return [row for row in filled_rows if not is_unmeasured(row, only_dates=only_dates)]

    def learn(self, uid: UID, file: PlainFile) -> None:
        """Correct the size of a message in the index."""
        self._keep([(uid, file.size, file.date)])

    def measure(self, uids: Sequence[UID], time_slice: TimeSlice | None = None) -> list[tuple[UID, int, int]]:
        """Read size and date of these messages (rising) into the index, until the time slice is full."""
        measured: list[tuple[UID, int, int]] = []
        for start in range(0, len(uids), BATCH):
            facts = []
            for uid, path, size in self._files(uids[start : start + BATCH]):
                check()
                message = self._open(uid, path, size)
                if message is not None:
                    facts.append((uid, message.size, message.date))
                    message.close()
                    if time_slice is not None and time_slice.take(0):
                        break
            self._keep(facts)
            measured += facts
            if time_slice is not None and time_slice.full:
                break
        return measured

    def dates(self, uids: Sequence[UID], time_slice: TimeSlice | None = None) -> list[tuple[UID, int, int]]:
        """Do `measure` without reading messages: sizes are UNKNOWN_SIZE, whatever the index knows."""
        dated: list[tuple[UID, int, int]] = []
        at_once = _DATED if time_slice is None else BATCH
        for start in range(0, len(uids), at_once):
            facts = []
            for uid, path, _size in self._files(uids[start : start + at_once]):
                date = self._date(uid, path)
                if date is not None:
                    facts.append((uid, UNKNOWN_SIZE, date))
            self._keep(facts)
            dated += facts
            if time_slice is not None and facts and time_slice.take(0):
                break
        return dated

    def _date(self, uid: UID, path: str) -> int | None:
        try:
            status = os.lstat(path)
        except OSError:
            status = None
        if status is not None and stat.S_ISREG(status.st_mode):
            return status.st_mtime_ns // 1_000_000_000
        message = self._open(uid, path, None)
        if message is None:
            return None
        message.close()
        return message.date

    def _keep(
        self,
        measured: Sequence[tuple[UID, int, int]],
        *,
        summaries: Sequence[tuple[UID, Summary]] = (),
        texts: Sequence[tuple[UID, str, int | None]] = (),
        names: Collection[str] | None = None,
        keys: tuple[Groups, Sequence[tuple[UID, SortKeys]]] = (ALL_GROUPS, ()),
    ) -> None:
        """Write to the index, unless it was made anew while files were read: the key may be another mailbox's."""

        def save(index: Index) -> None:
            if index.mailboxes.has(self._key, self._guid):
                index.messages.learn(self._key, measured)
                index.summaries.put(self._key, summaries)
                index.sort_keys.put(self._key, *keys)
                if names is None:
                    index.header_texts.put(self._key, texts)
                else:
                    index.field_texts.put(self._key, names, [(uid, text) for uid, text, _sent in texts])

        self._home.update(save, max(len(measured), len(summaries), len(texts), len(keys[1])))

    def _files(self, uids: Sequence[UID]) -> list[tuple[UID, str, int | None]]:
        """(uid, path, size)."""
        rows = self._home.read(lambda index: index.messages.files_of(self._key, uids))
        return [
            (uid, self._places[place] + name.decode("utf-8", "surrogateescape"), size)
            for uid, place, name, size in rows
        ]

    def _read_heads(self, uids: Sequence[UID]) -> Iterator[Rendered]:
        for uid, octets, is_whole in self._headers(uids):
            header = HeaderSummary(octets, is_whole=is_whole)
            yield uid, UNKNOWN_SIZE, UNKNOWN_DATE, Summary(header.envelope(), b"", b"", header.fields)

    def _headers(self, uids: Sequence[UID]) -> Iterator[tuple[UID, bytes, bool]]:
        """Yield (uid, header, is_whole); see `read_header`."""
        names = self._home.read(lambda index: index.messages.names_of(self._key, uids))
        places = self._places
        for uid, place, name in names:
            check()
            path = places[place] + name.decode("utf-8", "surrogateescape")
            try:
                header, is_whole = read_header(path)
            except (FileNotFoundError, StoreUnavailable):
                message = self._open(uid, path, None)
                if message is not None:
                    try:
                        start = message.read(0, SEEN + 1)
                    finally:
                        message.close()
                    end = header_end(start)
                    yield uid, start[: min(end, SEEN)], end <= SEEN
                continue
            yield uid, header, is_whole

    def _read_whole(self, files: Sequence[tuple[UID, str, int | None]]) -> Iterator[Rendered]:
        summarise = self._home.settings.summarise
        for uid, path, size in files:
            check()
            try:
                small = read_dated(path, size, _SMALL)
            except (FileNotFoundError, StoreUnavailable):
                small = None
            if small is not None:
                yield uid, len(small[0]), small[1], summarise(small[0])
                continue
            message = self._open(uid, path, size)
            if message is not None:
                try:
                    yield uid, message.size, message.date, summarise(message.read())
                finally:
                    message.close()

    def _open(self, uid: UID, path: str, size: int | None) -> PlainFile | None:
        try:
            return open_file(path, size)
        except FileNotFoundError:
            try:
                return self._reopen(uid)
            except (MessageExpunged, StoreUnavailable):
                return None
        except StoreUnavailable:
            return None


def _text_of(header: bytes, names: Collection[str] | None, *, is_whole: bool = True) -> tuple[str, int | None]:
    """Return the text of these fields, or the text of all and the day."""
    if names is None:
        return HeaderSummary(header, is_whole=is_whole).text()
    return fields_text(header, names) if is_whole else INCOMPLETE, None


def _within(time_slice: TimeSlice, rendered: Iterable[Rendered]) -> Iterator[Rendered]:
    for each in rendered:
        yield each
        if time_slice.take(sum(map(len, each[3]))):
            return


def filled(row: Row, size: int, date: int) -> Row:
    """Fill in the row from a file. A known date stays (RFC 3501 2.3.1.1), even if the file has been touched since."""
    return Row(
        row.uid,
        row.flags,
        row.modseq,
        row.size if size == UNKNOWN_SIZE else size,
        date if row.date == UNKNOWN_DATE else row.date,
    )


def is_unmeasured(row: Row, *, only_dates: bool = False) -> bool:
    """Tell whether `measure`, or `dates`, has something to find out."""
    return row.date == UNKNOWN_DATE or (row.size == UNKNOWN_SIZE and not only_dates)


def read_header(path: str) -> tuple[bytes, bool]:
    """Read a message's header, with its empty line. Return whether it is whole, or only its first octets.

    Line ends are those of the file, but for very long headers. Raises: FileNotFoundError, StoreUnavailable.
    """
    fd = safeio.open_unasked(path)
    try:
        data = os.read(fd, _HEADER)
        # A stat of each would cost a fifth more; what is not a file mostly has nothing to read.
        if not data and not stat.S_ISREG(os.fstat(fd).st_mode):
            raise StoreUnavailable
        end = _header_end(data, 0)
        while end < 0 and len(data) <= SEEN and (more := os.read(fd, max(_HEADER, len(data)))):
            looked = max(0, len(data) - _MARK)
            data += more
            end = _header_end(data, looked)
    except IsADirectoryError as error:
        raise StoreUnavailable from error
    except OSError as error:
        raise safeio.failure(error) from error
    finally:
        os.close(fd)
    header = data[:end] if end >= 0 else data
    if 2 * len(header) > SEEN:
        # The limit is one of octets as sent.
        header = to_crlf(header)
    return header[:SEEN], len(header) <= SEEN


def _header_end(data: bytes, start: int) -> int:
    """Return the position after the empty line, with or without CR, -1 without one; none begins before `start`.

    Searches for octets take a tenth of the time of a pattern. The one that most likely fails comes second, and ends where
    the other one has found something.
    """
    end = data.find(b"\n\n", start)
    if end >= 0 and data.find(b"\r", start, end) < 0 and not data.startswith(b"\n"):
        return end + 2
    if not start and data.startswith((b"\n", b"\r\n")):
        return 1 if data.startswith(b"\n") else 2
    if data.find(b"\r", start, start + _LINE) >= 0:
        end = data.find(b"\n\r\n", start)
        bare = data.find(b"\n\n", start, end + 1 if end >= 0 else len(data))
        return bare + 2 if bare >= 0 else end + 3 if end >= 0 else -1
    bare = data.find(b"\n\n", start)
    stop = bare + 1 if bare >= 0 else len(data)
    end = data.find(b"\n\r\n", start, stop) if data.find(b"\r", start, stop) >= 0 else -1
    return end + 3 if end >= 0 else bare + 2 if bare >= 0 else -1
