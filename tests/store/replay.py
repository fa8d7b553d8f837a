"""A client that believes only what it is told: it replays EXPUNGE, EXISTS and FETCH FLAGS of one view."""

from __future__ import annotations

from collections.abc import Iterable

from mailserver.store.flags import KEYWORD_BIT, SYSTEM_FLAGS
from mailserver.store.interfaces import Mailbox
from mailserver.store.view import View
from mailserver.types import UID, SeqNum


class Replay:
    """One session: its view, and the client's own list of messages and flags."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.uids = list(view.uids[: view.count])
        self.keywords = view.columns.keywords
        self.flags: dict[int, int] = {}
        for uid in self.uids:
            self._fetch(uid)

    def sync(self, *, allow_expunge: bool, below: int | None = None) -> None:
        """Read the untagged answers, one after another."""
        told = self.view.sync(allow_expunge=allow_expunge, below=None if below is None else UID(below))
        assert allow_expunge or not told.expunged
        for seq, uid in told.expunged:
            assert 1 <= seq <= len(self.uids), "EXPUNGE of a number that is not there"
            assert self.uids[seq - 1] == uid, "EXPUNGE of another message than was meant"
            del self.uids[seq - 1]
            self.flags.pop(uid, None)
        if told.exists is not None:
            assert told.exists > len(self.uids), "EXISTS never shrinks and never repeats"
            for number in range(len(self.uids) + 1, told.exists + 1):
                new = self.view.uid(SeqNum(number))
                assert new is not None
                assert not self.uids or new > self.uids[-1], "UIDs rise"
                self.uids.append(new)
                self._fetch(new)
        if told.keywords is not None:
            assert told.keywords != self.keywords
            self.keywords = told.keywords
        seqs = [seq for seq, _uid in told.flags]
        assert seqs == sorted(set(seqs))
        for seq, uid in told.flags:
            assert self.uids[seq - 1] == uid
            self._fetch(uid)
        assert told.exists is None or told.recent == self.view.recent()

    def stored_silently(self, uids: Iterable[int], flag: str) -> None:
        """This client sent STORE +FLAGS.SILENT, and adds the flag to what it knew."""
        mask = _mask(flag, self.view.columns.keywords)
        uids = list(uids)
        for uid in uids:
            if uid in self.flags:
                self.flags[uid] |= mask
        self.view.silence(uids)

    def check_numbers(self) -> None:
        """The server numbers the messages as the client does."""
        view = self.view
        assert view.count == len(self.uids)
        assert [view.uid(seq) for seq in range(1, view.count + 2)] == [*self.uids, None]
        assert [view.seq(uid) for uid in self.uids] == list(range(1, view.count + 1))

    def check_equal(self, mailbox: Mailbox) -> None:
        """Nothing is left to be told: the client's picture is the truth."""
        self.check_numbers()
        snapshot = mailbox.load()
        assert self.uids == [row.uid for row in snapshot.rows]
        assert self.flags == {row.uid: row.flags for row in snapshot.rows}
        assert self.keywords == snapshot.keywords

    def _fetch(self, uid: int) -> None:
        columns = self.view.columns
        at = columns.position(uid)
        if at >= 0:
            self.flags[uid] = columns.flags[at]
        else:
            # Expunged, untold: the client gets NO to its FETCH, and hears of the expunge later.
            self.flags.setdefault(uid, 0)


def _mask(flag: str, keywords: tuple[str, ...]) -> int:
    if flag in SYSTEM_FLAGS:
        return SYSTEM_FLAGS[flag]
    return 1 << KEYWORD_BIT + keywords.index(flag) if flag in keywords else 0
