"""What changes in a whole account: read once for all sessions of this worker that follow it (RFC 5465).

A poke says that something may have changed: an id (of a mailbox, from this worker or another), a name (from the watcher), or
everything. The next session that is woken reads what is new, `STATUSES` mailboxes an operation, and each session keeps what is
of interest to it. A status that is as it was is no change, so lost, repeated and reordered pokes do no harm, as in a mailbox.

In memory are a few numbers of each mailbox that a session follows, and the names of those that may have changed.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from attrs import evolve

from mailserver.errors import MailError, StoreUnavailable
from mailserver.store.interfaces import MailboxList, Progress, Status
from mailserver.store.live.followed_annotations import OF_ACCOUNT, FollowedAnnotations, TooManyFollowed
from mailserver.store.live.name_changes import NameChange, Names, compare
from mailserver.types import UID, MailboxId, ModSeq, UIDValidity, account_id

if TYPE_CHECKING:
    from mailserver.store.live.account import LiveAccount

STATUSES: Final = 256
"""Mailboxes whose status is read in one operation."""
MOST_OPENED: Final = 64
"""New mailboxes that are opened to find out whether they were renamed by another program."""
MOST_UNKNOWN: Final = 1024
"""Ids of unknown mailboxes that are kept: beyond, every mailbox is compared."""


class Kind(enum.Flag):
    """The kind of a change in a mailbox."""

    NEW = enum.auto()
    EXPUNGE = enum.auto()
    FLAGS = enum.auto()
    """Of flags, or of UIDVALIDITY."""


class Counts(NamedTuple):
    """The numbers of one mailbox that clients are sent."""

    messages: int
    uid_next: UID
    uid_validity: UIDValidity
    unseen: int
    modseq: ModSeq

    @classmethod
    def of(cls, status: Status) -> Counts:
        """Take them from a status."""
        return cls(status.messages, status.uid_next, status.uid_validity, status.unseen, status.highest_modseq)

    def changed(self, since: Counts) -> Kind:
        """Return the kinds of the changes since then. New messages may hide a change of flags."""
        if self.uid_validity != since.uid_validity:
            return Kind.NEW | Kind.EXPUNGE | Kind.FLAGS if since.uid_validity or self.messages else Kind(0)
        kinds = Kind(0)
        if self.uid_next != since.uid_next:
            kinds |= Kind.NEW
        if self.messages - since.messages != self.uid_next - since.uid_next:
            kinds |= Kind.EXPUNGE
        if self.unseen != since.unseen or (not kinds and self.modseq != since.modseq):
            kinds |= Kind.FLAGS
        return kinds


NOTHING: Final = Counts(0, UID(1), UIDValidity(0), 0, ModSeq(0))
"""Of a mailbox that has just been made."""


class Follower(Protocol):
    """A session that follows the account. No method waits or raises."""

    def follows(self, name: str) -> bool:
        """Tell whether it wants to know of messages in that mailbox. Also called in the account's thread."""

    def needs(self, name: str) -> bool:
        """Tell whether it follows the mailbox, and does not have it open itself. Also called in the account's thread."""

    def mailbox_changed(self, name: str, kinds: Kind) -> None:
        """Take up a change in a mailbox."""

    def name_changed(self, change: NameChange) -> None:
        """Take up a change of names."""

    def mailboxes_renamed(self, renamed: Mapping[str, str]) -> None:
        """Keep what has been taken up under the new names, which are given by the old ones."""

    def follows_annotations(self, name: str) -> bool:
        """Tell whether it wants to know of annotations of that mailbox, or of the account. Also called in the account's thread."""

    def annotations_changed(self, name: str, entries: Sequence[str]) -> None:
        """Take up changed entries of a mailbox, or of the account."""

    def overflow(self) -> None:
        """Follow no more, as it costs too much."""

    def wake(self) -> None:
        """Call `AccountChanges.collect` soon, as something may have changed."""


class AccountChanges:
    """The changes of one account, for the sessions of this worker that follow it."""

    def __init__(self, account: LiveAccount) -> None:
        self._account = account
        self.id = account_id(account.user)
        self.counts: dict[str, Counts] = {}
        """Of each mailbox that is followed, as of the last time that it was read."""
        self._annotations = FollowedAnnotations()
        self._account_annotations_changed = False
        """Those of the account may be others."""
        self.listed: MailboxList | None = None
        self._names = Names(frozenset(), frozenset(), frozenset(), {})
        self._name_of: dict[MailboxId, str] = {}
        self._followers: dict[Follower, None] = {}
        self._dirty: dict[str, None] = {}
        self._unknown: set[MailboxId] = set()
        self._collecting = False
        self._poked = False
        """Was there a poke since the present reading began?"""

    @property
    def selectable(self) -> Collection[str]:
        """The names of all mailboxes."""
        return self._names.selectable

    @property
    def subscribed(self) -> Collection[str]:
        """The subscribed names."""
        return self._names.subscribed

    @property
    def followed(self) -> bool:
        """True if a session follows the account."""
        return bool(self._followers)

    @property
    def is_large(self) -> bool:
        """True if a change of names costs some milliseconds."""
        return len(self._names.every) > STATUSES

    def watched_paths(self, name: str) -> Sequence[str]:
        """Return the directories in which changes of a mailbox show, or with "" those of the names. Raises: BadMailboxName."""
        account = self._account.account
        return account.watched_paths(name) if name else account.list_paths()

    async def join(self, follower: Follower, progress: Progress | None = None) -> None:
        """Let a session follow the account from now on. Raises: InUse, StoreUnavailable, TooManyFollowed; then it does not."""
        self._followers[follower] = None
        try:
            await self.collect(wait=True)
            missing, unread = await self._account.run(partial(self._missing, follower))
            for start in range(0, len(missing), STATUSES):
                await self._read(missing[start : start + STATUSES], progress, first=True)
            await self._read_annotations(unread)
            self._account.refollow(self)
        except BaseException:
            self.leave(follower)
            raise

    def _missing(self, follower: Follower) -> tuple[Sequence[str], Sequence[str]]:
        """Return the mailboxes whose status and whose annotations have to be read for a new follower.

        In the account's thread: on the reactor's, ten thousand names would hold up other sessions.
        """
        names = self._names.selectable
        return (
            [name for name in names if name not in self.counts and follower.follows(name)],
            [
                name
                for name in (OF_ACCOUNT, *names)
                if name not in self._annotations and follower.follows_annotations(name)
            ],
        )

    async def needed(self, follower: Follower) -> Sequence[str]:
        """Return the mailboxes of `counts` that a follower needs now, sorted."""
        names = tuple(self.counts)
        return await self._account.run(lambda: sorted(filter(follower.needs, names)))

    def leave(self, follower: Follower) -> None:
        """Note that a session follows the account no more. Harmless when repeated."""
        if follower in self._followers:
            del self._followers[follower]
            if not self._followers:
                self._account.end_changes(self)

    def poked(
        self, ids: Iterable[MailboxId] = (), names: Iterable[str] = (), *, whole: bool = False
    ) -> None:  # fmt: skip
        """Note that these mailboxes, or with `whole` all, may have changed; without any, the names."""
        for each in ids:
            name = self._name_of.get(each)
            if name is not None:
                self._dirty[name] = None
            elif each == self.id:
                self._account_annotations_changed = True
            else:
                self._unknown.add(each)
        self._dirty.update(dict.fromkeys(names))
        if whole or len(self._unknown) > MOST_UNKNOWN:
            self._unknown.clear()
            self._dirty.update(dict.fromkeys((*self.counts, *self._annotations.names)))
            self._account_annotations_changed = True
        self._poked = True
        self._wake()

    def _wake(self) -> None:
        for follower in tuple(self._followers):
            follower.wake()

    async def collect(self, *, wait: bool = False) -> None:
        """Read what is new, no more than STATUSES mailboxes, and give it to the followers; they are woken if there is more.

        With `wait`, also what another session is reading now. Raises: InUse, StoreUnavailable. What was not read is read
        the next time.
        """
        while self._collecting:
            if not wait:
                return  # that session wakes this one
            await self._account.run(lambda: None)
        self._collecting = True
        self._poked = False
        names = list(self._dirty)[:STATUSES]
        try:
            await self._take_names()
            await self._find_unknown()
            names = list(self._dirty)[:STATUSES]
            for name in names:
                del self._dirty[name]
            wanted = [name for name in names if name in self._names.selectable and self._is_needed(name)]
            if wanted:
                await self._read(wanted)
            await self._take_annotations([name for name in names if name in self._names.selectable])
        except BaseException:
            self._dirty.update(dict.fromkeys(names))
            raise
        finally:
            self._collecting = False
        if self._poked or self._dirty:
            self._wake()

    async def _find_unknown(self) -> None:
        """Find the names of the mailboxes that were not known by their ids."""
        unknown, self._unknown = self._unknown, set()
        if not unknown:
            return
        try:
            found = await self._account.run(partial(self._account.account.mailbox_ids, unknown))
        except BaseException:
            self._unknown |= unknown
            raise
        self._name_of.update(found)
        self._dirty.update(dict.fromkeys(found.values()))

    async def _take_annotations(self, names: Sequence[str]) -> None:
        """Read those of these mailboxes, and of the account if they may have changed, as far as a session follows them."""
        of_account, self._account_annotations_changed = self._account_annotations_changed, False
        try:
            await self._read_annotations(
                [name for name in ((OF_ACCOUNT, *names) if of_account else names) if self._follows_annotations(name)]
            )
        except TooManyFollowed:
            pass  # no session follows them any more
        except BaseException:
            self._account_annotations_changed |= of_account
            raise

    async def _read_annotations(self, names: Sequence[str]) -> None:
        if not names:
            return
        try:
            changed = await self._annotations.read(self._account.account, names, self._account.run)
        except TooManyFollowed:
            for follower in tuple(self._followers):
                if any(map(follower.follows_annotations, (OF_ACCOUNT, *self._names.selectable))):
                    follower.overflow()
            raise
        for name, entries in changed:
            for follower in tuple(self._followers):
                follower.annotations_changed(name, entries)

    def _follows_annotations(self, name: str) -> bool:
        return any(follower.follows_annotations(name) for follower in self._followers)

    def _is_needed(self, name: str) -> bool:
        return any(follower.needs(name) for follower in self._followers)

    async def _read(self, names: Sequence[str], progress: Progress | None = None, *, first: bool = False) -> None:
        known = len(self.counts)
        for name, status in (await self._account.statuses(names, progress)).items():
            if not isinstance(status, Status):
                if isinstance(status, StoreUnavailable):
                    raise status
                continue  # it is gone, which the list of names will show
            now, before = Counts.of(status), self.counts.get(name)
            self.counts[name] = now
            kinds = Kind(0) if first and before is None else now.changed(before or NOTHING)
            if kinds:
                for follower in tuple(self._followers):
                    follower.mailbox_changed(name, kinds)
        if not first and len(self.counts) > known:
            self._account.refollow(self)

    async def _take_names(self) -> None:
        """Take up the account's list of mailboxes if it has changed."""
        listed = await self._account.mailbox_list()
        known = self.listed
        if listed is known or (
            known is not None and listed.infos == known.infos and listed.subscribed == known.subscribed
        ):
            self.listed = listed
            return
        before = self._names
        names, changes, renamed = await self._account.run(partial(self._compare, before, listed))
        self._names, self.listed = names, listed
        self._name_of = {each: name for name, each in names.ids.items()}
        if known is None:
            return
        moved = {new: self.counts.pop(old) for old, new in renamed.items() if old in self.counts}
        for name in before.selectable - names.selectable:
            self.counts.pop(name, None)
        self.counts.update(moved)
        self._annotations.rename(renamed)
        self._annotations.forget(before.selectable - names.selectable)
        new = names.selectable - before.selectable
        self._dirty.update(dict.fromkeys(new))
        for name in new.difference(renamed.values()):
            if self._follows_annotations(name):
                self._annotations.add_new(name)
        if renamed:
            for follower in tuple(self._followers):
                follower.mailboxes_renamed(renamed)
        for change in changes:
            for follower in tuple(self._followers):
                follower.name_changed(change)
        self._account.refollow(self)

    def _compare(
        self, before: Names, listed: MailboxList
    ) -> tuple[Names, Sequence[NameChange], Mapping[str, str]]:  # fmt: skip
        """Compare two lists, in the account's thread: on the reactor's, ten thousand names would hold up other sessions."""
        account = self._account.account
        selectable = frozenset(info.name for info in listed.infos if info.selectable)
        known = {name: each for each, name in account.mailbox_ids().items()}
        # A mailbox may have been opened for the first time since the last list.
        before = evolve(
            before, ids={**{name: known[name] for name in before.selectable if name in known}, **before.ids}
        )
        ids = {name: each for name, each in known.items() if name in selectable}
        if before.selectable - selectable:
            unknown = sorted(name for name in selectable - before.selectable if name not in ids)
            for name in unknown[:MOST_OPENED]:
                with suppress(MailError):
                    ids[name] = account.mailbox(name).id
        names = Names(frozenset(info.name for info in listed.infos), selectable, listed.subscribed, ids)
        return names, *compare(before, names)
