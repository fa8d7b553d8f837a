"""Of the contract: what counts for an account's quota, what it refuses, and when its user is warned."""

from __future__ import annotations

import pytest

from mailserver.errors import LimitReached, MessageExpunged, OverQuota
from mailserver.store.receiving import Delivery
from mailserver.types import UID, UNLIMITED, Quota, Usage
from tests.store.samples import ADD, message, staged, uids

SIZE = len(message("a"))
"""Octets of each message here."""


def some(account, count):
    return [staged(account, message("abcdefghij"[number])) for number in range(count)]


def append(account, count=1, name="INBOX"):
    return list(account.append(name, some(account, count)).uids)


def bare(number):
    """A message of this many octets, whose lines end in a bare LF."""
    return b"a: b\n" * (number // 5)


class QuotaKept:
    """Mixed into StoreContract."""

    @pytest.fixture
    def warned(self, make_store):
        account = make_store(quota_warnings=(80, 95, 100)).account("warned@example.test")
        yield account
        account.close()

    def test_usage_is_what_is_there(self, account):
        assert account.usage() == Usage(0, 0, 1)
        account.create("a")
        append(account, 2)
        append(account, 1, "a")
        assert account.usage() == Usage(3 * SIZE, 3, 2)
        inbox = account.mailbox("INBOX")
        inbox.move([UID(1)], "a")
        inbox.copy([UID(2)], "a")
        assert account.usage() == Usage(4 * SIZE, 4, 2)
        account.mailbox("a").expunge([UID(2)], only_deleted=False)
        assert account.usage() == Usage(3 * SIZE, 3, 2)
        account.delete("a")
        assert account.usage() == Usage(SIZE, 1, 1)

    def test_octets_are_counted_as_sent(self, account):
        account.append("INBOX", [staged(account, bare(50))])
        assert account.usage() == Usage(60, 1, 1)
        account.quota = Quota(storage=119)
        with pytest.raises(OverQuota):
            account.append("INBOX", [staged(account, bare(50))])
        account.quota = Quota(storage=120)
        account.append("INBOX", [staged(account, bare(50))])

    def test_the_last_octet_is_free(self, account):
        account.quota = Quota(storage=3 * SIZE)
        append(account, 3)
        with pytest.raises(OverQuota):
            append(account)
        account.quota = Quota(storage=4 * SIZE - 1)
        with pytest.raises(OverQuota):
            append(account)
        account.quota = Quota(storage=UNLIMITED)
        append(account)
        assert account.usage() == Usage(4 * SIZE, 4, 1)

    def test_messages_are_counted(self, account):
        account.quota = Quota(messages=3)
        append(account, 3)
        with pytest.raises(OverQuota):
            append(account)
        account.quota = Quota(messages=0)
        with pytest.raises(OverQuota):
            append(account)
        assert account.usage().messages == 3

    def test_append_of_many_is_all_or_none(self, account):
        account.quota = Quota(storage=3 * SIZE)
        append(account)
        with pytest.raises(OverQuota):
            append(account, 3)
        assert account.usage() == Usage(SIZE, 1, 1)
        append(account, 2)

    def test_a_group_of_deliveries_fills_the_quota(self, account):
        """Each by itself: what fits is delivered."""
        account.create("a")
        account.quota = Quota(messages=3)
        names = ["INBOX", "INBOX", "a", "INBOX", "a"]
        outcomes = account.deliver([Delivery(name, some(account, 1)) for name in names])
        assert sum(isinstance(each, OverQuota) for each in outcomes) == 2
        assert account.usage().messages == 3

    def test_a_large_message_does_not_keep_a_small_one_out(self, account):
        account.quota = Quota(storage=2 * SIZE)
        large = staged(account, message("a", "x" * 3 * SIZE))
        outcomes = account.deliver([Delivery("INBOX", [large]), *(Delivery("INBOX", some(account, 1)) for _ in "ab")])
        assert [isinstance(each, OverQuota) for each in outcomes] == [True, False, False]

    def test_some_deliveries_are_beyond_the_quota(self, account):
        account.quota = Quota(messages=1)
        append(account)
        outcomes = account.deliver(
            [
                Delivery("INBOX", some(account, 1), beyond_quota=True),
                Delivery("INBOX", some(account, 1)),
            ]
        )
        assert [isinstance(each, OverQuota) for each in outcomes] == [False, True]
        [outcome] = account.deliver([Delivery("INBOX", some(account, 1), beyond_quota=True)])
        assert not isinstance(outcome, Exception)
        assert account.usage().messages == 3

    def test_copy_is_all_or_none(self, account):
        account.create("a")
        account.quota = Quota(storage=5 * SIZE)
        three = append(account, 3)
        inbox = account.mailbox("INBOX")
        with pytest.raises(OverQuota):
            inbox.copy(three, "a")
        with pytest.raises(OverQuota):
            inbox.copy(three, "INBOX")
        assert account.usage() == Usage(3 * SIZE, 3, 2)
        assert uids(account.mailbox("a")) == []
        inbox.copy(three[:2], "a")
        assert account.usage() == Usage(5 * SIZE, 5, 2)

    def test_copy_counts_the_messages_that_exist(self, account):
        account.create("a")
        account.quota = Quota(messages=4)
        three = append(account, 3)
        inbox = account.mailbox("INBOX")
        inbox.expunge([three[1]], only_deleted=False)
        with pytest.raises(MessageExpunged):
            inbox.copy(three, "a")
        inbox.copy(three, "a", skip_expunged=True)
        assert account.usage().messages == 4

    def test_a_replaced_message_makes_room(self, account):
        """RFC 8508 3.4: only the net consumption counts."""
        account.create("a")
        account.quota = Quota(storage=2 * SIZE, messages=2)
        first, second = append(account, 2)
        inbox = account.mailbox("INBOX")
        [third] = inbox.replace(first, "INBOX", *some(account, 1)).uids
        inbox.replace(second, "a", *some(account, 1))
        assert account.usage() == Usage(2 * SIZE, 2, 2)
        larger = staged(account, message("a", "x" * 100))
        with pytest.raises(OverQuota):
            inbox.replace(third, "INBOX", larger)
        assert uids(inbox) == [third]
        account.quota = Quota(storage=2 * SIZE + len(message("a", "x" * 100)) - SIZE, messages=0)
        inbox.replace(third, "INBOX", larger)
        assert account.usage() == Usage(SIZE + len(message("a", "x" * 100)), 2, 2)

    def test_above_the_quota_a_message_may_be_replaced_by_one_that_is_not_larger(self, account):
        large = account.append("INBOX", [staged(account, message("a", "x" * 100))])
        account.quota = Quota(storage=1, messages=0)
        account.check_quota(0, 0)
        account.check_quota(0, -1)
        with pytest.raises(OverQuota):
            account.check_quota(0, 1)
        [uid] = account.mailbox("INBOX").replace(large.uids[0], "INBOX", *some(account, 1)).uids
        account.mailbox("INBOX").replace(uid, "INBOX", *some(account, 1))
        assert account.usage() == Usage(SIZE, 1, 1)

    def test_a_larger_replacement_warns(self, warned):
        warned.quota = Quota(storage=10 * SIZE)
        seven = append(warned, 7)
        inbox = warned.mailbox("INBOX")
        [uid] = inbox.replace(seven[0], "INBOX", *some(warned, 1)).uids
        assert warned.take_quota_warning() is None
        inbox.replace(uid, "INBOX", staged(warned, message("a", "x" * 2 * SIZE)))
        assert warned.take_quota_warning().threshold == 80

    def test_above_the_quota_all_but_adding_works(self, account):
        account.create("a/b")
        three = append(account, 3)
        account.quota = Quota(storage=SIZE, messages=1, mailboxes=1)
        inbox = account.mailbox("INBOX")
        inbox.move(three[:1], "a/b")
        inbox.store_flags(three[1:], ADD, ["\\Deleted"])
        account.rename("a/b", "c")
        inbox.expunge(three[1:2])
        account.set_subscribed("c", subscribed=True)
        account.delete("c")
        assert account.usage().messages == 1
        with pytest.raises(OverQuota):
            append(account)

    def test_mailboxes_are_counted(self, account):
        account.quota = Quota(mailboxes=3)
        with pytest.raises(OverQuota):
            account.create("a/b/c")
        account.create("a/b")
        with pytest.raises(OverQuota):
            account.create("d")
        with pytest.raises(OverQuota):
            account.rename("a/b", "x/y")
        with pytest.raises(OverQuota):
            account.rename("INBOX", "x")
        account.rename("a/b", "x")
        assert account.usage().mailboxes == 3
        account.delete("x")
        account.create("y")

    def test_a_refusal_for_the_quota_is_one_for_a_limit(self, account):
        """Callers that know limits alone are right, too."""
        account.quota = Quota(messages=0)
        with pytest.raises(LimitReached) as caught:
            append(account)
        assert caught.value.imap_code == "OVERQUOTA"
        assert caught.value.smtp_reply == (452, "4.2.2")

    def test_what_is_prepared_counts(self, account):
        account.quota = Quota(messages=2)
        prepared = account.prepare("INBOX", some(account, 1))
        append(account)
        with pytest.raises(OverQuota):
            append(account)
        with pytest.raises(OverQuota):
            account.prepare("INBOX", some(account, 1))
        prepared.abort()
        again = account.prepare("INBOX", some(account, 1))
        again.publish()
        assert account.usage() == Usage(2 * SIZE, 2, 1)
        with pytest.raises(OverQuota):
            append(account)

    def test_what_is_prepared_is_published_whatever_the_quota_is_then(self, account):
        prepared = account.prepare("INBOX", some(account, 2))
        account.quota = Quota(messages=0)
        prepared.publish()
        assert account.usage() == Usage(2 * SIZE, 2, 1)

    def test_a_check_ahead(self, account):
        account.quota = Quota(storage=2 * SIZE, messages=3)
        append(account)
        account.check_quota(1, SIZE)
        with pytest.raises(OverQuota):
            account.check_quota(1, SIZE + 1)
        with pytest.raises(OverQuota):
            account.check_quota(3, 0)
        account.quota = Quota()
        account.check_quota(1, 1 << 60)

    def test_each_threshold_warns_once(self, warned):
        warned.quota = Quota(messages=10)
        append(warned, 7)
        assert warned.take_quota_warning() is None
        append(warned, 2)
        due = warned.take_quota_warning()
        assert (due.threshold, due.usage.messages, due.quota) == (80, 9, Quota(messages=10))
        assert warned.take_quota_warning() is None
        append(warned)
        assert warned.take_quota_warning().threshold == 100
        for _ in range(2):
            with pytest.raises(OverQuota):
                append(warned)
            assert warned.take_quota_warning() is None

    def test_a_refused_message_counts_as_a_full_account(self, warned):
        warned.quota = Quota(storage=10 * SIZE)
        append(warned, 2)
        with pytest.raises(OverQuota):
            append(warned, 9)
        assert warned.take_quota_warning().threshold == 100
        append(warned, 5)
        assert warned.take_quota_warning() is None
        append(warned)
        assert warned.take_quota_warning().threshold == 80

    def test_a_threshold_warns_again_after_room_was_made(self, warned):
        warned.quota = Quota(messages=10)
        nine = append(warned, 9)
        assert warned.take_quota_warning().threshold == 80
        inbox = warned.mailbox("INBOX")
        inbox.expunge(nine[:1], only_deleted=False)
        append(warned)
        assert warned.take_quota_warning() is None
        inbox.expunge(nine[1:3], only_deleted=False)
        append(warned)
        assert warned.take_quota_warning().threshold == 80

    def test_copies_and_prepared_messages_warn_too(self, warned):
        warned.quota = Quota(messages=10)
        four = append(warned, 4)
        warned.mailbox("INBOX").copy(four, "INBOX")
        assert warned.take_quota_warning().threshold == 80
        warned.prepare("INBOX", some(warned, 2)).publish()
        assert warned.take_quota_warning().threshold == 100

    def test_nobody_is_warned_without_limits(self, warned):
        append(warned, 9)
        warned.quota = Quota(mailboxes=1)
        append(warned)
        assert warned.take_quota_warning() is None
