"""Of the contract: how much one user may keep."""

from __future__ import annotations

import contextlib

import pytest

from mailserver.errors import LimitReached, MailboxFull
from mailserver.store.interfaces import Bounds
from tests.store.samples import USER, message, names, staged, uids


class BoundsKept:
    """Mixed into StoreContract."""

    @pytest.fixture
    def bounded(self, make_store):
        account = make_store(bounds=Bounds(mailboxes=4, messages=3)).account(USER)
        yield account
        account.close()

    def test_no_mailbox_more_than_that(self, bounded):
        bounded.create("a/b")
        with pytest.raises(LimitReached):
            bounded.create("c/d")  # with its parent it would be five
        assert set(names(bounded)) == {"INBOX", "a", "a/b"}
        bounded.create("c")
        with pytest.raises(LimitReached):
            bounded.create("d")
        bounded.delete("c")
        bounded.create("d")
        bounded.rename("d", "e")
        with pytest.raises(LimitReached):
            bounded.rename("e", "f/g")
        with pytest.raises(LimitReached):
            bounded.rename("INBOX", "h")
        assert set(names(bounded)) == {"INBOX", "a", "a/b", "e"}

    def test_no_expunge_is_remembered_beyond_the_bound(self, make_store):
        account = make_store(bounds=Bounds(expunges=3)).account(USER)
        account.append("INBOX", [staged(account, message()) for _ in range(12)])
        inbox = account.mailbox("INBOX")
        first = uids(inbox)
        began = inbox.load().modseq
        assert inbox.expunged_since(began) == []
        assert inbox.expunged_since(began + 1) is None, "nobody can have seen that yet"
        seen = []
        for uid in first[:10]:
            inbox.expunge([uid], only_deleted=False)
            seen.append(inbox.load().modseq)
        account.close()
        again = make_store(bounds=Bounds(expunges=3)).account(USER)
        with contextlib.suppress(AttributeError):
            again.tidy()
        inbox = again.mailbox("INBOX")
        assert inbox.expunged_since(began) is None
        assert inbox.expunged_since(seen[6]) == first[7:10]
        assert inbox.expunged_since(seen[8]) == first[9:10]
        assert inbox.expunged_since(seen[9]) == []
        assert list(inbox.changes_since(began).present) == first[10:]
        again.close()

    def test_no_subscription_more_than_that(self, bounded):
        for name in "abcd":
            bounded.set_subscribed(name, subscribed=True)
        with pytest.raises(LimitReached):
            bounded.set_subscribed("e", subscribed=True)
        bounded.set_subscribed("d", subscribed=True)
        bounded.set_subscribed("a", subscribed=False)
        bounded.set_subscribed("e", subscribed=True)
        assert bounded.subscriptions() == set("bcde")

    def test_no_message_more_than_that(self, bounded):
        inbox = bounded.mailbox("INBOX")
        two = list(bounded.append("INBOX", [staged(bounded, message(word)) for word in "ab"]).uids)
        with pytest.raises(MailboxFull):
            bounded.append("INBOX", [staged(bounded, message(word)) for word in "cd"])
        with pytest.raises(MailboxFull):
            bounded.prepare("INBOX", [staged(bounded, message(word)) for word in "cd"])
        with pytest.raises(MailboxFull):
            inbox.copy(two, "INBOX")
        assert uids(inbox) == two
        bounded.append("INBOX", [staged(bounded, message("c"))])
        assert len(uids(inbox)) == 3

    def test_who_makes_room_has_it(self, bounded):
        """What counts is what is there, not how many there have been."""
        inbox = bounded.mailbox("INBOX")
        for word in "abcdefgh":
            bounded.append("INBOX", [staged(bounded, message(word))])
            inbox.expunge(uids(inbox), only_deleted=False)
        bounded.append("INBOX", [staged(bounded, message(word)) for word in "xyz"])
        assert len(uids(inbox)) == 3

    def test_a_full_mailbox_takes_no_move_but_its_own(self, bounded):
        bounded.create("a")
        inbox, other = bounded.mailbox("INBOX"), bounded.mailbox("a")
        [uid] = bounded.append("INBOX", [staged(bounded, message("x"))]).uids
        bounded.append("a", [staged(bounded, message(word)) for word in "abc"])
        with pytest.raises(MailboxFull):
            inbox.move([uid], "a")
        assert uids(inbox) == [uid]
        other.move(uids(other), "a")
        assert len(uids(other)) == 3
